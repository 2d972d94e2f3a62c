"""The HTTP client for servers outside: it connects to judged addresses only, and everything ends by one deadline.

httpcore speaks the protocol; the two parts that safety depends on are ours, and are its network backend here. A
connection is made to an address that `addresses` has judged, never to a name, so that no answer of a name server can
lead inside. Every read and write gets what is left of the deadline as its time limit: a time limit for each read alone
starts anew with every byte, and a server that drips one byte a minute would never end. Python applies a socket's limit
to a whole TLS handshake or record, so that dripping inside one gains nothing either.

Nothing is taken from the environment unless the settings say so: no proxies, no netrc. No cookie is kept.

A call is one POST, and only the status of the answer matters. Each runs on a thread of its own, which nobody waits for:
where a name server hangs, the system's resolver waits for a long time, which must delay neither other calls nor a
daemon that stops.

A url whose fault shows without asking a name server is refused at once.
"""

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import httpcore
import idna

from renderer.errors import FetchFailed, SourceUnavailable
from renderer.net.addresses import Guard

_URL: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)  # RFC 3986, B
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^:\[\]]+))(?::([0-9]{0,5}))?")
_HOST: Final = re.compile(r"[a-z0-9._-]{1,254}")
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._%"
_PORTS: Final = {"http": 80, "https": 443}

_MAX_ADDRESSES: Final = 16  # a name may have thousands; we do not knock at the doors of others for its owner
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


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """The parts of an http or https url that a request is made of.

    Attributes:
        host: ASCII, in lower case; an IPv6 address without its brackets.
        target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_http(url: str) -> HttpUrl:
    """Return the url's parts; a user and a password in it are left out.

    Raises:
        FetchFailed: it is not an http or https url with a valid host and port.
    """
    match = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(match[2].rpartition("@")[2]) if match else None
    if match is None or authority is None:
        raise FetchFailed("expected an http or https url with a host")
    scheme, (address, name, port) = match[1].lower(), authority.groups()
    found = HttpUrl(
        scheme,
        address.lower() if address else _ascii_name(name),
        int(port) if port else _PORTS[scheme],
        quote(match[3] or "/", safe=_PATH_SAFE) + quote(match[4] or "", safe=_PATH_SAFE + "?"),
    )
    if not 0 < found.port < 1 << 16:
        raise FetchFailed("expected a port from 1 to 65535 in the url")
    return found


def _ascii_name(name: str) -> str:
    """Return a name as name servers know it (UTS 46): IDNA for letters beyond ASCII."""
    try:
        found = name.lower() if name.isascii() else idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise FetchFailed("expected a host name that can exist") from error
    if not _HOST.fullmatch(found):
        raise FetchFailed("expected a host name of letters, digits, dots and hyphens")
    return found


class Deadline:
    """The moment at which everything must have ended.

    Attributes:
        what: what messages say has failed or taken too long, such as "the download".
    """

    def __init__(self, timeout_s: float, what: str = "the download") -> None:
        self.what = what
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return self._ends - time.monotonic()

    def check(self) -> None:
        """Refuse to go on after the deadline.

        Raises:
            SourceUnavailable: the time is up.
        """
        if self.left_s <= 0:
            raise SourceUnavailable(f"{self.what} took longer than {self._timeout_s:g} s")


@dataclass(frozen=True, slots=True)
class Client:
    """Asks servers outside; safe to use from many threads.

    Attributes:
        guard: says which addresses may be connected to.
        proxy: http://[USER:PASSWORD@]HOST:PORT that every request goes through. The proxy resolves the names, so it
            has to judge their addresses itself; addresses that are written out are still judged here.
        ca_file: PEM with authorities that are trusted beside the system's.
        headers: further headers by host, sent to that host only.
    """

    guard: Guard
    proxy: str | None = None
    ca_file: Path | None = None
    headers: Mapping[str, Mapping[str, str]] | None = None

    @contextmanager
    def asked(
        self, method: str, url: HttpUrl, headers: Mapping[str, str], deadline: Deadline, body: bytes | None = None
    ) -> Iterator[httpcore.Response]:
        """Ask over a connection of its own, and lend the answer, whose body is not read yet.

        Raises:
            FetchFailed: no address of the host may be reached, its certificate is refused, or it breaks the protocol.
            SourceUnavailable: it does not answer now.
        """
        deadline.check()
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target),
            headers=self._headers(url, headers, body),
            content=body or b"",
            # A last dot makes a name absolute for name servers; certificates are issued without it (RFC 6066, 3).
            extensions={"sni_hostname": url.host.rstrip(".")},
        )
        with _in_our_words(deadline), self._pool(url, deadline) as pool:
            answer = pool.handle_request(request)
            try:
                _check_head(answer)
                yield answer
            finally:
                answer.close()

    def _headers(
        self, url: HttpUrl, headers: Mapping[str, str], body: bytes | None
    ) -> list[tuple[bytes | str, bytes | str]]:
        sent = {"Host": url.authority, **headers, **(self.headers or {}).get(url.host, {})}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        return list(sent.items())

    def _pool(self, url: HttpUrl, deadline: Deadline) -> httpcore.ConnectionPool:
        trust = _trust(self.ca_file)
        if self.proxy is None:
            backend: httpcore.NetworkBackend = _Judged(self.guard, deadline)
            return httpcore.ConnectionPool(ssl_context=trust, network_backend=backend)
        self.guard.check_written_out(url.host)
        proxy, user, password = _parse_proxy(self.proxy)
        return httpcore.HTTPProxy(
            proxy_url=httpcore.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port, target="/"),
            proxy_auth=(user, password) if user else None,
            ssl_context=trust,
            network_backend=_Hurried(deadline),
        )


def proxy_for(url: str, setting: str | None) -> str | None:
    """Return the proxy for a url, if it goes through one.

    Args:
        setting: a proxy's url; "environment" to go by HTTPS_PROXY, HTTP_PROXY and NO_PROXY; None for no proxy.
    """
    if setting != "environment":
        return setting
    parts = parse_http(url)
    return None if proxy_bypass_environment(parts.authority) else getproxies_environment().get(parts.scheme)


def _parse_proxy(text: str) -> tuple[HttpUrl, str, str]:
    match = _URL.fullmatch(text)
    user, _, password = match[2].rpartition("@")[0].partition(":") if match else ("", "", "")
    return parse_http(text), unquote(user), unquote(password)


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
        raise FetchFailed(f"{deadline.what} failed: {_kind_of(error)}") from error


def _kind_of(error: Exception) -> str:
    if isinstance(error, httpcore.ProxyError):
        return "the proxy refused it"
    return "the answer breaks off or is not HTTP" if isinstance(error, httpcore.ProtocolError) else type(error).__name__


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
        return self._stream.read(max_bytes, self._left_s())

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
                words = f"{self._deadline.what} failed: the server does not speak TLS as it should"
                raise FetchFailed(words) from error
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _left_s(self) -> float:
        if self._deadline.left_s <= 0:
            raise httpcore.ReadTimeout
        return max(_LEAST_S, self._deadline.left_s)


class CallFailed(Exception):
    """A call that was not answered with a 2xx; the message is for the log."""


async def post(client: Client, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
    """Deliver a body. Redirects are not followed, and the body of the answer is not read.

    Raises:
        CallFailed: it was not acknowledged.
    """
    answered: Future[int] = Future()

    def call() -> None:
        answered.set_running_or_notify_cancel()
        try:
            answered.set_result(_status(client, url, headers, body, timeout_s))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answered.set_exception(error)

    threading.Thread(target=call, name="webhook", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            status = await asyncio.wrap_future(answered)
    except TimeoutError as error:
        raise CallFailed(f"no answer within {timeout_s:g} s") from error
    except FetchFailed as error:
        raise CallFailed(error.message) from error
    if not 200 <= status < 300:
        raise CallFailed(f"expected an answer of 200 to 299, found {status}")


def _status(client: Client, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
    headers = {"connection": "close", **headers}
    with client.asked("POST", parse_http(url), headers, Deadline(timeout_s, "the call"), body) as answer:
        return answer.status


def check_callee(url: str, guard: Guard) -> None:
    """Refuse a url that can never be called; a name is judged when it is resolved.

    Raises:
        FetchFailed: its port or its address is invalid or not allowed; the message says which.
    """
    host = parse_http(url).host
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise FetchFailed("expected an IPv6 address between the brackets of the url") from error
    is_here = host == "localhost" or host.endswith(".localhost")  # RFC 6761, 6.3
    guard.check_written_out("127.0.0.1" if is_here else host)
