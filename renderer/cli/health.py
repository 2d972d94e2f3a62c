"""The command `stillreel health`, which asks a daemon over ZeroMQ or at its HTTP door, where this needs no key."""

import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

import click
from pydantic import ValidationError

from protocol.errors import Unreachable
from protocol.schema import Health
from renderer.cli import terminal, usage
from renderer.cli.client import Daemon, daemon_options
from renderer.cli.usage import json_option
from renderer.errors import ConfigError


@click.command(epilog=usage.HEALTH)
@click.option("--http", metavar="URL", help="Ask the HTTP door here, such as http://127.0.0.1:8480.")
@daemon_options
@json_option
def health(*, http: str | None, daemon: Daemon, as_json: bool) -> None:
    """Say in one line whether a daemon would accept a job now. The exit code is 0 if it would, and 4 if not."""
    if http is not None:
        found = health_over_http(http)
    else:
        with daemon.client() as client:
            found = client.health()
    terminal.show_health(found, as_json=as_json)
    if not found.ready:
        raise click.exceptions.Exit(usage.TRY_AGAIN)


_ANSWER_S = 10.0
_MOST_BYTES = 1 << 20
_NOT_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"}  # OpenSSL's words, by its version


def health_over_http(address: str) -> Health:
    """Ask `/readyz` below an address, without a proxy; SSL_CERT_FILE names further certificates to trust.

    Raises:
        ConfigError: it is not an http or https address, or is an https address and the door speaks plain HTTP.
        Unreachable: no daemon answers there.
    """
    if not _is_url(address):
        raise ConfigError(f"expected the address of an HTTP door, such as http://127.0.0.1:8480, found {address!r}")
    url = f"{address.rstrip('/')}/readyz"
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        return Health.model_validate_json(_body(urllib.request.build_opener(*handlers), url))
    except ValidationError as error:
        raise Unreachable(f"what answers at {url} is not a stillreel daemon") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError) and reason.reason in _NOT_TLS:
            raise ConfigError(f"--http: what answers at {address} speaks no TLS; expected http:// before it") from error
        raise Unreachable(f"no answer from {url}: {_why(reason)}") from error


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, or an invalid port
        return False


def _why(reason: object) -> str:
    """Return in our words why there was no answer."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted; SSL_CERT_FILE may name one that is"
    if isinstance(reason, ssl.SSLError):
        return "the TLS handshake was not completed"
    if isinstance(reason, TimeoutError):
        return f"it took longer than {_ANSWER_S:g} s"
    return getattr(reason, "strerror", None) or "its answer is not HTTP"


def _body(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """Return the body of the answer; a daemon that is not ready answers 503, with the same document."""
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read(_MOST_BYTES)
