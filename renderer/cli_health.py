"""`stillreel health --http`: the daemon's state as its HTTP door tells it to whoever asks, without a key."""

import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from pydantic import ValidationError

from protocol.errors import Unreachable
from protocol.schema import Health
from renderer.errors import ConfigError

_ANSWER_S = 10.0
_MOST_BYTES = 1 << 20


def health_over_http(address: str) -> Health:
    """Ask `/readyz` below an address; no proxy is used, and a certificate is trusted as SSL_CERT_FILE says.

    Raises:
        ConfigError: it is no address.
        Unreachable: no daemon answers there.
    """
    if not _is_url(address):
        raise ConfigError(f"expected the address of an HTTP door, such as http://127.0.0.1:8480, found {address!r}")
    url = f"{address.rstrip('/')}/readyz"
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        return Health.model_validate_json(_body(urllib.request.build_opener(*handlers), url))
    except ValidationError as error:
        raise Unreachable(f"what answers at {url} is no stillreel daemon") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(f"no answer from {url}: {_why(reason)}") from error


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, or a port that is none
        return False


def _why(reason: object) -> str:
    """Say in our words what came between."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted; SSL_CERT_FILE names one that is to be"
    if isinstance(reason, ssl.SSLError):
        return "it does not speak TLS as it should"
    if isinstance(reason, TimeoutError):
        return f"it took longer than {_ANSWER_S:g} s"
    return getattr(reason, "strerror", None) or "it does not speak HTTP as it should"


def _body(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """Return what is answered; a daemon that is not ready answers 503, with the same document."""
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read(_MOST_BYTES)
