"""What clients may do to the door without harm to it or to others."""

import contextlib
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.daemon_process import DaemonProcess, Start, request, starting, wait_until
from tests.served import QUEUE, RUN, Served


@contextlib.contextmanager
def raw(daemon: DaemonProcess) -> Iterator[socket.socket]:
    host, _, port = daemon.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """Read until the other side hangs up."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while chunk := connection.recv(65536):
            found += chunk
    return found


def is_cut_off(connection: socket.socket, sent: bytes, *, times: int = 100, pause_s: float = 0) -> bool:
    """Send the same again and again, and say whether the other side has hung up."""
    try:
        for _ in range(times):
            connection.sendall(sent)
            time.sleep(pause_s)
    except OSError:
        return True
    return False


def head(*lines: str, method: str = "POST", path: str = RUN) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1")


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that waits for headers half a second, and takes small bodies only."""
    with starting(tmp_path_factory.mktemp("strict")) as start:
        yield start("--http", "127.0.0.1:0", HTTP__HEADER_TIMEOUT_S=0.5, HTTP__MAX_BODY_BYTES=10_000)


def test_headers_that_do_not_come_are_not_waited_for(strict: DaemonProcess) -> None:
    began = time.monotonic()
    for sent in (b"", b"GET /livez HT", head(method="GET", path="/livez")[:-2]):
        with raw(strict) as connection:
            connection.sendall(sent)
            assert answer(connection) == b""
    assert time.monotonic() - began < 30  # each would be waited for ten seconds if nothing were set


def test_headers_that_drip_are_not_waited_for(strict: DaemonProcess) -> None:
    with raw(strict) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n")
        assert is_cut_off(connection, b"X-A: b\r\n", pause_s=0.05)


def test_a_kept_connection_may_be_silent_between_requests(strict: DaemonProcess) -> None:
    with httpx.Client(base_url=strict.http) as client:
        assert client.get("/livez").status_code == 200
        [connection] = client._transport._pool.connections  # type: ignore[attr-defined]
        time.sleep(0.8)
        assert client.get("/livez").status_code == 200
        assert client._transport._pool.connections == [connection]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "sent",
    [
        head(f"X-Large: {'x' * 1_000_000}"),
        head(*[f"X-{number}: {'x' * 100}" for number in range(10_000)]),
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["one", "many", "path"],
)
def test_headers_without_end_are_cut_off(served: Served, sent: bytes) -> None:
    with raw(served.daemon) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(sent)
        assert answer(connection).startswith((b"HTTP/1.1 400", b""))
    assert served.http.get("/livez").status_code == 200


def test_headers_after_a_body_are_cut_off(served: Served) -> None:
    rss = psutil.Process(served.daemon.child.pid).memory_info().rss
    with raw(served.daemon) as connection:
        connection.sendall(head("Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\nX-Trailer: ")
        assert is_cut_off(connection, b"x" * 100_000, times=1000)
    assert psutil.Process(served.daemon.child.pid).memory_info().rss < rss + 50_000_000


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS where none is spoken
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        head("Content-Length: -1"),
        head("Content-Length: 5", "Content-Length: 6"),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked") + b"zz\r\n",
        head("X-A: b\nX-Evil: c\rX-D: e"),
        b"GET /livez HTTP/1.1\r\nHost: \x00\xff\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_http_hurts_nobody(served: Served, sent: bytes) -> None:
    with raw(served.daemon) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        found = answer(connection)
    assert not found.startswith(b"HTTP/1.1 5")
    assert served.http.get("/livez").status_code == 200


def test_a_header_that_comes_back_cannot_bring_another(served: Served) -> None:
    for name in ("x-fal-request-id", "idempotency-key", "origin"):
        with raw(served.daemon) as connection:
            lines = (f"{name}: a\x0bSet-Cookie: b=c", "Content-Length: 2", "Connection: close")
            connection.sendall(head(*lines, path=QUEUE) + b"{}")
            assert b"set-cookie" not in answer(connection).lower()


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(strict: DaemonProcess) -> None:
    with raw(strict) as connection:
        connection.sendall(head("Content-Length: 99999999999999999999999", "Connection: close"))
        assert answer(connection).startswith((b"HTTP/1.1 413", b"HTTP/1.1 400"))
    with raw(strict) as connection:
        connection.sendall(head("Content-Length: 10001", "Connection: close"))
        assert answer(connection).startswith(b"HTTP/1.1 413")
    with httpx.Client(base_url=strict.http, timeout=30) as client:
        assert client.post(RUN, content=iter([b" " * 6000] * 2)).status_code == 413
        assert client.post(RUN, content=b" " * 10_000).status_code == 400
        assert client.post(RUN, json=request()).status_code == 200


def test_many_large_bodies_at_once_are_not_all_held(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0", HTTP__MAX_BODY_BYTES=20_000_000)
    rss = psutil.Process(daemon.child.pid).memory_info().rss
    with contextlib.ExitStack() as open_ones:
        for _ in range(12):
            connection = open_ones.enter_context(raw(daemon))
            connection.settimeout(2)
            with contextlib.suppress(OSError):
                connection.sendall(head("Content-Length: 20000000") + b" " * 19_000_000)
        assert psutil.Process(daemon.child.pid).memory_info().rss < rss + 150_000_000
    wait_until(lambda: httpx.post(daemon.http + RUN, json=request()).status_code == 200, "room again")


def test_more_connections_than_allowed_are_told_to_come_again(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0", HTTP__MAX_CONNECTIONS=5)
    with contextlib.ExitStack() as open_ones:
        for _ in range(6):
            open_ones.enter_context(raw(daemon))
        wait_until(lambda: httpx.get(f"{daemon.http}/livez").status_code == 503, "all are taken")
    wait_until(lambda: httpx.get(f"{daemon.http}/livez").status_code == 200, "room again")


def test_a_peer_that_does_not_speak_tls_hurts_nobody(served: Served) -> None:
    host, _, port = served.daemon.https.removeprefix("https://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head(method="GET", path="/livez"))
        assert not answer(connection).startswith(b"HTTP/1.1 200")
    assert httpx.get(f"{served.daemon.https}/livez", verify=served.trust).status_code == 200


def test_old_versions_of_tls_are_not_spoken(served: Served) -> None:
    host, _, port = served.daemon.https.removeprefix("https://").rpartition(":")
    context = ssl.create_default_context(cafile=str(served.certificate))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), socket.create_connection((host, int(port))) as plain:
        context.wrap_socket(plain, server_hostname="localhost")


def test_what_goes_wrong_inside_is_told_without_details(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0")
    shutil.rmtree(daemon.data_dir / "uploads")
    (daemon.data_dir / "uploads").write_text("in the way")
    failed = httpx.post(f"{daemon.http}/files/upload", content=b"x")
    assert failed.status_code == 500
    words = "the file could not be kept"
    assert failed.json() == {"detail": words, "error_type": "internal_error", "message": words}
    shutil.rmtree(daemon.data_dir / "outputs")
    (daemon.data_dir / "outputs").write_text("in the way")
    refused = httpx.post(daemon.http + RUN, json=request(), timeout=30)
    assert refused.status_code >= 500
    assert str(daemon.data_dir) not in refused.text


def test_a_hundred_connections_that_hang_up_leave_nothing(served: Served) -> None:
    daemon = served.daemon
    before = len(daemon.words())

    def hang_up(number: int) -> None:
        with raw(daemon) as connection:
            connection.sendall(head("Content-Length: 1000") + b"{" * (number * 9))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(hang_up, range(100)))
    wait_until(lambda: len(psutil.Process(daemon.child.pid).net_connections()) < 10, "closed")
    assert served.http.post(RUN, json=request()).status_code == 200
    assert "Traceback" not in daemon.words()[before:]
    assert " ERROR " not in daemon.words()[before:]


@pytest.mark.parametrize("others", [b"evil.example", b"localhost"])
def test_a_request_with_two_host_headers_is_refused(served: Served, others: bytes) -> None:
    host, _, port = served.daemon.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(b"GET /livez HTTP/1.1\r\nHost: " + others + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 400"), answer[:200]
    assert b"expected one Host header" in answer
