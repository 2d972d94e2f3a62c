"""The HTTP door's sockets on the daemon's loop, their TLS, and the limits on connections.

Other machines are only admitted with both a key and TLS. All mistakes in this are found before the daemon says that it
is ready.

Headers must arrive in time and have a limited size. uvicorn limits neither with its fast parser, so a client could
occupy a connection for ever by sending a byte of a header now and then. Headers may also follow a body (RFC 9112,
7.1.2), so bytes that are neither body nor framing are counted too.
"""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from renderer.config import HttpSettings
from renderer.errors import ConfigError
from renderer.frontends.http.keys import CERT_NAME, KEY_NAME
from renderer.observe.descriptors import Listener

log = logging.getLogger(__name__)


_MAX_HEAD_BYTES: Final = 64 * 1024
_FRAMING: Final = 8  # bytes for one byte of the body: a chunk of one byte takes six
_MAX_EXTRA_BYTES: Final = 1024 * 1024
_GATHERED_BYTES: Final = 16 * 1024


class Config(uvicorn.Config):
    """uvicorn's settings and one more."""

    header_timeout_s = 10.0


class Connection(HttpToolsProtocol):
    """HTTP/1.1 by httptools, with limits on headers."""

    config: Config
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _extra_bytes = 0

    def connection_made(self, transport: Any) -> None:
        gathering: Any = _Gathering(transport, self.loop)
        super().connection_made(gathering)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._await_head()
        else:
            self._extra_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._forget_deadline()
            self.send_400_response("The headers of the request are too large.")
        if self._extra_bytes > _MAX_EXTRA_BYTES and not self.transport.is_closing():
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._extra_bytes = max(0, self._extra_bytes - _FRAMING * len(body))
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        self._is_in_head, self._head_bytes, self._extra_bytes = False, 0, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.config.header_timeout_s, self._cut_off)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


class _Gathering:
    """A transport that sends all that is written in one turn of the loop together.

    uvicorn writes the head and the body separately. Each write wakes the client, which takes longer than making a small
    answer; `python -m benchmarks polling` measures it.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if len(data) > _GATHERED_BYTES:
            self._send()
            self._transport.write(data)
            return
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _GATHERED_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))


_BACKLOG: Final = 1024
_KEEP_ALIVE_S: Final = 65  # longer than any client's polling interval, and than most proxies keep a connection
_CLOSE_S: Final = 5


class Server(uvicorn.Server):
    """uvicorn on the daemon's loop, where the daemon handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listeners:
    """The ports, which are bound at once and answered in `serve`."""

    def __init__(self, settings: HttpSettings, data_dir: Path, *, has_keys: bool) -> None:
        """Bind the addresses of the settings.

        Raises:
            ConfigError: an address is malformed, in use or not safe, or a certificate is missing or cannot be used.
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
        """The urls of this door, with the ports that were really bound."""
        return [_url(listener, "https" if pair else "http") for listener, pair in reversed(self._sockets)]

    async def serve(self, app: ASGIApp) -> None:
        """Answer until `close`."""
        self._servers = [Server(self._config(app, pair)) for _, pair in self._sockets]
        async with asyncio.TaskGroup() as serving:
            for server, (listener, _) in zip(self._servers, self._sockets, strict=True):
                serving.create_task(server.serve(sockets=[listener]))

    def close(self) -> None:
        """Make `serve` end; answers that have begun have a few seconds."""
        for server in self._servers:
            server.should_exit = True

    def abandon(self) -> None:
        """Close the ports without having served them."""
        for listener, _ in self._sockets:
            listener.close()

    def _bind(self, setting: str, address: str, pair: tuple[Path, Path] | None, *, has_keys: bool) -> None:
        host, port = _parsed(setting, address)
        if not _is_loopback(host):
            if not has_keys:
                raise ConfigError(
                    f"{setting}: {address} is open to other machines; make a key first: stillreel keys add NAME"
                )
            if pair is None and not self._settings.trust_proxy:
                raise ConfigError(
                    f"{setting}: {address} is open to other machines without TLS; use --https, or set http.trust_proxy "
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
    """Return certificate and key: those of the settings, or those that `stillreel keys --tls` has made."""
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
    """Return in our words why a pair cannot be used; OpenSSL's own message would name a place in its source."""
    if not isinstance(error, ssl.SSLError):
        return "the key is protected by a password; expected one without"
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key is not that of the certificate"
    if "TOO_SMALL" in (error.reason or "") or "TOO_WEAK" in (error.reason or ""):
        return "the key or the certificate's digest is too weak to be used"
    return "expected a certificate and its key in PEM, found one that cannot be read"


def _no_password() -> str:
    """Keep OpenSSL from asking for a password on the terminal."""
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

    The protocol is named because asyncio only then sends small packets at once; otherwise every answer on a connection
    that is kept open would wait 40 ms for an acknowledgement.
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
