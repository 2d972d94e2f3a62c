"""How servers outside are connected to: httpcore speaks the protocol, over a network backend of our own.

The two parts that safety depends on are our own. First, a connection is made to an address that `addresses` has judged,
never to a name, so no answer of a name server can lead into an internal network. Second, every read and write gets what
is left of the deadline as its time limit. A limit for each read alone would start anew with every byte, and a server
that sends one byte a minute would never end. Python applies a socket's limit to a whole TLS handshake or record, so
sending slowly within one gains nothing either.

It is imported when the first server is asked.
"""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import httpcore

from renderer.errors import FetchFailed, SourceUnavailable
from renderer.net.addresses import Guard
from renderer.net.client import Client, Deadline
from renderer.net.url import HttpUrl, parse_proxy

_MAX_ADDRESSES: Final = 16  # a name may have thousands, and its owner must not make us try the servers of others
_MAX_HEADERS: Final = 100
_LEAST_S: Final = 0.01  # a socket's time limit may not be zero

# OpenSSL's X509_V_ERR numbers, in words that name no host.
_CERTIFICATE_FAULTS: Final = {
    10: "has expired",
    9: "is not valid yet",
    62: "is for another name",
    64: "is for another address",
}
_UNKNOWN_AUTHORITY: Final = "is not signed by an authority that is trusted here (fetch.ca_file names further ones)"


@contextmanager
def asked(
    client: Client, method: str, url: HttpUrl, headers: Mapping[str, str], deadline: Deadline, body: bytes | None
) -> Iterator[httpcore.Response]:
    """Ask as `Client.asked` says."""
    deadline.check()
    request = httpcore.Request(
        method,
        httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
        headers=client.headers_for(url, headers, body),
        content=body or b"",
        # A last dot makes a name absolute for name servers; certificates are issued without it (RFC 6066, 3).
        extensions={"sni_hostname": url.host.rstrip(".")},
    )
    with _in_our_words(deadline), _pool(client, url, deadline) as pool:
        answer = pool.handle_request(request)
        try:
            _check_head(answer)
            yield answer
        finally:
            answer.close()


def _pool(client: Client, url: HttpUrl, deadline: Deadline) -> httpcore.ConnectionPool:
    trust = _trust(client.ca_file)
    if client.proxy is None:
        backend: httpcore.NetworkBackend = _Judged(client.guard, deadline)
        return httpcore.ConnectionPool(ssl_context=trust, network_backend=backend)
    client.guard.check_written_out(url.host)
    proxy, user, password = parse_proxy(client.proxy)
    return httpcore.HTTPProxy(
        proxy_url=httpcore.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/"),
        proxy_auth=(user, password) if user else None,
        ssl_context=trust,
        network_backend=_Hurried(deadline),
    )


def _check_head(answer: httpcore.Response) -> None:
    if answer.extensions.get("http_version") not in (b"HTTP/1.0", b"HTTP/1.1") or len(answer.headers) > _MAX_HEADERS:
        raise FetchFailed("expected an answer in HTTP/1.1 with up to 100 headers")


@contextmanager
def _in_our_words(deadline: Deadline) -> Iterator[None]:
    """Turn what httpcore raises into our errors, with the cause kept."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError) as error:
        deadline.check()
        raise SourceUnavailable(f"{deadline.what} failed: the connection broke off") from error
    except (httpcore.ProtocolError, httpcore.ProxyError, OSError, ValueError) as error:
        deadline.check()
        if isinstance(error, httpcore.RemoteProtocolError) and deadline.peer_has_ended:
            raise SourceUnavailable(f"{deadline.what} failed: the answer breaks off") from error
        raise FetchFailed(f"{deadline.what} failed: {_kind_of(error)}") from error


def _kind_of(error: Exception) -> str:
    if isinstance(error, httpcore.ProxyError):
        return "the proxy refused it"
    return "the answer is not HTTP" if isinstance(error, httpcore.ProtocolError) else type(error).__name__


@lru_cache(maxsize=4)
def _trust(ca_file: Path | None) -> ssl.SSLContext:
    """Load the system's certificates once; that takes longer than a small download."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


class _Hurried(httpcore.NetworkBackend):
    """Connects to any address; the deadline limits everything that it does."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._system = httpcore.SyncBackend()

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        return self._open(host, port, self._deadline.left_s)

    def _open(self, host: str, port: int, timeout_s: float) -> httpcore.NetworkStream:
        self._deadline.peer_has_ended = False
        stream = self._system.connect_tcp(host, port, max(_LEAST_S, timeout_s))
        return _HurriedStream(stream, self._deadline)


class _Judged(_Hurried):
    """Connects to the first allowed address that answers; each gets its share of the time that is left."""

    def __init__(self, guard: Guard, deadline: Deadline) -> None:
        super().__init__(deadline)
        self._guard = guard

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        addresses = self._guard.addresses(host, port)[:_MAX_ADDRESSES]
        failures: list[Exception] = []
        for tried, address in enumerate(addresses):
            self._deadline.check()
            try:
                return self._open(address, port, self._deadline.left_s / (len(addresses) - tried))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failures.append(error)
        self._deadline.check()
        raise SourceUnavailable("expected a host that accepts connections") from failures[-1]


class _HurriedStream(httpcore.NetworkStream):
    """A connection that gives each of its steps the time that is left before the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, *_: Any, **__: Any) -> bytes:
        found = self._stream.read(max_bytes, self._left_s())
        self._deadline.peer_has_ended = not found
        return found

    def write(self, buffer: bytes, *_: Any, **__: Any) -> None:
        self._stream.write(buffer, self._left_s())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, *_: Any, **__: Any
    ) -> httpcore.NetworkStream:
        name = server_hostname.rstrip(".") if server_hostname else None
        try:
            return _HurriedStream(self._stream.start_tls(ssl_context, name, self._left_s()), self._deadline)
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):
                fault = _CERTIFICATE_FAULTS.get(error.__cause__.verify_code, _UNKNOWN_AUTHORITY)
                raise FetchFailed(f"the server's certificate {fault}") from error
            if isinstance(error.__cause__, ssl.SSLError):
                words = f"{self._deadline.what} failed: the TLS handshake was not completed"
                raise FetchFailed(words) from error
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left_s(self) -> float:
        if self._deadline.left_s <= 0:
            raise httpcore.ReadTimeout
        return max(_LEAST_S, self._deadline.left_s)
