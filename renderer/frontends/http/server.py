"""The HTTP door on the daemon's loop: sockets, TLS, and who may reach them.

Other machines get in only where both a key and TLS are there. Everything that can be wrong with that is found before
the daemon says that it is ready.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from renderer.config import HttpSettings
from renderer.descriptors import Listener
from renderer.errors import ConfigError
from renderer.frontends.http.connection import Config, Connection
from renderer.frontends.http.keys import CERT_NAME, KEY_NAME

log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 65  # longer than the poll of any client, and than most proxies keep theirs
_CLOSE_S: Final = 5


class Server(uvicorn.Server):
    """uvicorn on a loop that is not its own: signals are the daemon's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listeners:
    """The open ports; bound at once, answering in `serve`."""

    def __init__(self, settings: HttpSettings, data_dir: Path, *, has_keys: bool) -> None:
        """Bind what is asked for.

        Raises:
            ConfigError: an address is malformed, taken or not safe; a certificate is missing or bad.
        """
        self._settings = settings
        self._sockets: list[tuple[socket.socket, tuple[Path, Path] | None]] = []
        self._servers: list[Server] = []
        self.is_open_to_others = False
        try:
            if settings.tls_bind is not None:
                pair = _checked(_pair(settings, data_dir))
                self._bind("http.tls_bind", settings.tls_bind, pair, has_keys=has_keys)
            if settings.bind is not None:
                self._bind("http.bind", settings.bind, None, has_keys=has_keys)
        except BaseException:
            self.abandon()
            raise

    @property
    def addresses(self) -> list[str]:
        """The urls of this door, with the ports that they really are."""
        return [_url(listener, "https" if pair else "http") for listener, pair in reversed(self._sockets)]

    async def serve(self, app: ASGIApp) -> None:
        """Answer until `close`."""
        self._servers = [Server(self._config(app, pair)) for _, pair in self._sockets]
        async with asyncio.TaskGroup() as serving:
            for server, (listener, _) in zip(self._servers, self._sockets, strict=True):
                serving.create_task(server.serve(sockets=[listener]))

    def close(self) -> None:
        """Let `serve` come to its end: what is being answered has a few seconds for it."""
        for server in self._servers:
            server.should_exit = True

    def abandon(self) -> None:
        """Close the ports that were never served."""
        for listener, _ in self._sockets:
            listener.close()

    def _bind(self, setting: str, address: str, pair: tuple[Path, Path] | None, *, has_keys: bool) -> None:
        host, port = _parsed(setting, address)
        if not _is_loopback(host):
            if not has_keys:
                raise ConfigError(
                    f"{setting}: {address} lets other machines in; make a key first: stillreel keys add NAME"
                )
            if pair is None and not self._settings.trust_proxy:
                raise ConfigError(
                    f"{setting}: {address} lets other machines in without TLS; use --https, or set http.trust_proxy "
                    "where a proxy in front ends TLS"
                )
            self.is_open_to_others = True
        try:
            listener = _listener(host, port)
        except OSError as error:
            raise ConfigError(f"{setting}: {address}: {error.strerror or error}") from error
        self._sockets.append((listener, pair))

    def _config(self, app: ASGIApp, pair: tuple[Path, Path] | None) -> Config:
        config = Config(
            app,
            http=Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=self._settings.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_CLOSE_S,
            ssl_certfile=pair[0] if pair else None,
            ssl_keyfile=pair[1] if pair else None,
        )
        config.header_timeout_s = self._settings.header_timeout_s
        return config


def _pair(settings: HttpSettings, data_dir: Path) -> tuple[Path, Path]:
    """Return certificate and key: those that are named, or those that `stillreel keys --tls` has made."""
    if settings.tls_cert is not None or settings.tls_key is not None:
        if settings.tls_cert is None or settings.tls_key is None:
            raise ConfigError("http.tls_cert, http.tls_key: expected both or none")
        return settings.tls_cert, settings.tls_key
    made = data_dir / CERT_NAME, data_dir / KEY_NAME
    if not made[0].exists():
        raise ConfigError("http.tls_bind: expected http.tls_cert and http.tls_key; stillreel keys --tls makes a pair")
    return made


def _checked(pair: tuple[Path, Path]) -> tuple[Path, Path]:
    _expect_pem("http.tls_cert", pair[0], b"CERTIFICATE-----", "a certificate")
    _expect_pem("http.tls_key", pair[1], b"PRIVATE KEY-----", "a private key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*pair, password=_no_password)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(f"http.tls_cert, http.tls_key: {pair[0]}, {pair[1]}: {_tls_fault(error)}") from error
    return pair


def _expect_pem(setting: str, path: Path, mark: bytes, what: str) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: {path}: {error.strerror}") from error
    if mark not in content:
        raise ConfigError(f"{setting}: {path}: expected {what} in PEM, found none")


def _tls_fault(error: Exception) -> str:
    """Say in our words why a pair cannot be used; what else OpenSSL says of it, its place in a file, helps nobody."""
    if not isinstance(error, ssl.SSLError):
        return "the key is protected by a password; expected one without"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    if "TOO_SMALL" in (error.reason or "") or "TOO_WEAK" in (error.reason or ""):
        return "the key or the certificate's digest is too weak to be used"
    return "expected a certificate and its key in PEM, found one that cannot be read"


def _no_password() -> str:
    """Stands in the way of OpenSSL's question on the terminal."""
    raise ValueError("the key is protected by a password")


def _parsed(setting: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else -1
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else "127.0.0.1" if host == "localhost" else host
    try:
        number = number if (ipaddress.ip_address(host).version == 6) == is_bracketed else -1
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ConfigError(f"{setting}: expected an address and a port, such as 127.0.0.1:8480, found {address!r}")
    return host, number


def _listener(host: str, port: int) -> socket.socket:
    """Return an open port.

    The protocol is named, because asyncio sends small packets at once only where it is: else every answer on a kept
    connection waits 40 ms for an acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
