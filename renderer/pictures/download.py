"""One image over http or https, within a number of bytes, seconds and redirects.

Every hop connects to an address that `addresses` has judged, which is where a connection is made: `_new_conn`. An
answer that leads from https to http is followed, as browsers do for images; no cookie, name or password is ever sent.

The deadline is for the whole download: connections, redirects, headers, body. Socket time limits alone start
anew with every byte, and a server that drips one byte a minute would never end, so a timer shuts the sockets down.
Only a name server that does not answer is waited for as long as the system's resolver does.

Nothing is taken from the environment: no proxies, no netrc.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import Url, parse_url

from renderer.errors import FetchFailed, FileTooLarge
from renderer.pictures.addresses import Guard

_REDIRECTS = (301, 302, 303, 307, 308)  # RFC 9110, 15.4
_MAX_ADDRESSES = 16  # a name may have thousands; we do not knock at the doors of others for its owner
_CHUNK_BYTES = 1 << 16
_LEAST_S = 0.01  # a socket's time limit may not be zero
_HEADERS = {"User-Agent": "stillreel", "Accept": "image/*, */*;q=0.5", "Accept-Encoding": "identity"}


def check_http(url: str) -> Url:
    """Return the url's parts.

    Raises:
        FetchFailed: it is no http or https url.
    """
    try:
        parts = parse_url(url)
    except (LocationParseError, ValueError) as error:
        raise FetchFailed("expected a well-formed http or https url") from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.port == 0:
        raise FetchFailed("expected an http or https url with a host")
    return parts


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a download may take; `guard` says where it may connect to."""

    max_bytes: int
    timeout_s: float
    max_redirects: int
    guard: Guard


def download(url: str, bounds: Bounds) -> bytes:
    """Get the body that the url leads to.

    Raises:
        FetchFailed: it could not be had, or not in time; or the answer was not 200.
        FileTooLarge: it has more than `max_bytes`; no more than that is read.
    """
    with _Deadline(bounds.timeout_s) as deadline:
        way = _Way(bounds.guard, deadline)
        try:
            for _ in range(bounds.max_redirects + 1):
                with _answer(check_http(url), way) as answer:
                    target = answer.headers.get("Location") if answer.status in _REDIRECTS else None
                    if target is None:
                        return _body(answer, bounds.max_bytes, deadline)
                    url = urljoin(url, target)
        except (HTTPError, OSError, ValueError) as error:
            deadline.check()
            raise FetchFailed(f"the download failed: {type(error).__name__}") from error
    raise FetchFailed(f"expected at most {bounds.max_redirects} redirects, found more")


class _Deadline:
    """When all must be over; shuts the connections down then, whatever they are waiting for."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            for watched in self._sockets:
                watched.close()
            self._sockets.clear()

    @property
    def left_s(self) -> float:
        return self._ends - time.monotonic()

    def check(self) -> None:
        if self.left_s <= 0:
            raise FetchFailed(f"the download took longer than {self._timeout_s:g} s")

    def watch(self, connection: socket.socket) -> None:
        """Keep a second handle of the connection: TLS takes the first one over, and shutdown works through either."""
        with self._lock:
            self._sockets.append(connection.dup())
        if self.left_s <= 0:  # the timer went off while the connection was made
            self._cut()

    def _cut(self) -> None:
        with self._lock:
            for watched in self._sockets:
                try:
                    watched.shutdown(socket.SHUT_RDWR)
                except OSError:  # the server was faster
                    continue


@dataclass(frozen=True, slots=True)
class _Way:
    """How connections are made: to judged addresses, and watched by the deadline."""

    guard: Guard
    deadline: _Deadline

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first address that answers; each gets its share of the time that is left.

        Raises:
            FetchFailed: the host has no address that is allowed, or none of them answers.
        """
        addresses = self.guard.addresses(host, port)[:_MAX_ADDRESSES]
        failures: list[OSError] = []
        for tried, address in enumerate(addresses):
            self.deadline.check()
            try:
                return self._open(address, port, self.deadline.left_s / (len(addresses) - tried))
            except OSError as error:
                failures.append(error)
        self.deadline.check()
        raise FetchFailed("expected a host that accepts connections") from failures[-1]

    def _open(self, address: str, port: int, timeout_s: float) -> socket.socket:
        connection = socket.create_connection((address, port), max(_LEAST_S, timeout_s))
        try:
            connection.settimeout(max(_LEAST_S, self.deadline.left_s))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.deadline.watch(connection)
        except OSError:
            connection.close()
            raise
        return connection


class _Plain(HTTPConnection):
    def __init__(self, *args: Any, way: _Way, **options: Any) -> None:
        super().__init__(*args, **options)
        self._way = way

    def _new_conn(self) -> socket.socket:
        return self._way.connect(self._dns_host, self.port)  # `host` has lost a last dot


class _Tls(HTTPSConnection):
    def __init__(self, *args: Any, way: _Way, **options: Any) -> None:
        super().__init__(*args, **options)
        self._way = way

    def _new_conn(self) -> socket.socket:
        return self._way.connect(self._dns_host, self.port)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Tls


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Load the system's certificates once; that takes longer than a small download."""
    return ssl.create_default_context()


@contextmanager
def _answer(parts: Url, way: _Way) -> Iterator[urllib3.BaseHTTPResponse]:
    """Ask for one hop over a connection of its own; the answer's body is not read yet."""
    way.deadline.check()
    timeout = urllib3.Timeout(total=way.deadline.left_s)
    pool: urllib3.HTTPConnectionPool
    # Always with a port: http.client would look for one in an IPv6 address that comes without.
    if parts.scheme == "https":
        pool = _TlsPool(parts.host or "", parts.port or 443, timeout=timeout, ssl_context=_trust(), way=way)
    else:
        pool = _PlainPool(parts.host or "", parts.port or 80, timeout=timeout, way=way)
    with pool:
        answer = pool.urlopen(
            "GET",
            parts.request_uri,
            headers=_HEADERS,
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        with closing(answer):
            yield answer


def _body(answer: urllib3.BaseHTTPResponse, max_bytes: int, deadline: _Deadline) -> bytes:
    if answer.status != 200:
        raise FetchFailed(f"expected the answer 200 OK, found {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise FetchFailed("expected a body without Content-Encoding")
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise FileTooLarge(f"expected at most {max_bytes} bytes, found {length}")
    chunks: list[bytes] = []
    size_bytes = 0
    while chunk := answer.read1(_CHUNK_BYTES, decode_content=False):
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise FileTooLarge(f"expected at most {max_bytes} bytes, found more")
    deadline.check()
    return b"".join(chunks)
