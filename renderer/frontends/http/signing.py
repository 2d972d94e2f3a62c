"""The signature on webhooks: Ed25519, so that whoever is called can tell that it was us without a shared secret."""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from renderer.frontends.http.keys import secret_bytes


class Signer:
    """Holds the key of a data directory; it is made when it is needed first."""

    def __init__(self, data_dir: Path) -> None:
        """Read the key, or make it.

        Raises:
            ConfigError: that is not possible.
        """
        self._key = Ed25519PrivateKey.from_private_bytes(secret_bytes(data_dir / "webhook.secret"))

    def signature(self, request_id: str, user_id: str, timestamp: str, body: bytes) -> str:
        """Return the signature of a call, in hex, as the hosted service writes it."""
        words = "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest()))
        return self._key.sign(words.encode()).hex()

    def key_set(self) -> dict[str, Any]:
        """Return the public key as a JWKS (RFC 7517; RFC 8037, 2 for the type of the key)."""
        public = self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        name = hashlib.sha256(public).hexdigest()[:16]
        point = urlsafe_b64encode(public).rstrip(b"=").decode()
        return {"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": name, "x": point}]}
