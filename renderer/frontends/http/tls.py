"""A self-signed certificate for this machine's own names, for clients that only speak https.

The hosted service's Python client is one of them. The pair is for loopback names only; a server that other machines
reach needs a certificate of its own.
"""

import datetime as dt
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from renderer.frontends.http.keys import CERT_NAME, KEY_NAME, write_private

_LIFE_DAYS: Final = 825  # Apple's clients refuse certificates that are valid for longer


def make_pair(data_dir: Path) -> tuple[Path, Path]:
    """Write a certificate and its key, which replace an older pair, and return their paths.

    The certificate is its own root and may not sign others (CA:FALSE), so whoever trusts it trusts only this key.

    Raises:
        ConfigError: they cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stillreel on localhost")])
    now = dt.datetime.now(dt.UTC)
    loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_LIFE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), *loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject_key), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    paths = data_dir / CERT_NAME, data_dir / KEY_NAME
    write_private(paths[1], private)
    write_private(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
    return paths
