"""The command `stillreel health`: it asks a daemon over ZeroMQ, or at its HTTP door, which needs no key for that."""

import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from protocol.errors import Unreachable
from protocol.schema import Health
from renderer.cli import terminal, usage
from renderer.cli.client import ENDPOINT, AsJson, Connect, Curve, client_of
from renderer.errors import ConfigError

app = typer.Typer()


@app.command(epilog=usage.HEALTH)
def health(
    *,
    http: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the HTTP door here, such as http://127.0.0.1:8480.")
    ] = None,
    connect: Connect = ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Say in one line whether a daemon would take a job now, and end with 0 if it would, with 4 if not."""
    if http is not None:
        found = health_over_http(http)
    else:
        with client_of(connect, curve) as client:
            found = client.health()
    terminal.show_health(found, as_json=as_json)
    if not found.ready:
        raise typer.Exit(usage.TRY_AGAIN)


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
