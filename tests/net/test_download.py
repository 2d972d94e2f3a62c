"""Downloads from real servers, as an attacker who owns names, servers and redirects would have them go."""

import datetime as dt
import gzip
import re
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.errors import FetchFailed, FileTooLarge, JobError, SourceUnavailable
from renderer.net import connection
from renderer.net.addresses import Guard
from renderer.net.client import Client
from renderer.net.download import Bounds, download
from renderer.net.url import parse_http, proxy_for
from renderer.version import VERSION
from tests.net.proxy import proxying
from tests.net.serving import Answer, Names, Site, redirects, says, sends, serving

PAYLOAD = bytes(range(256)) * 4
HERE = "127.0.0.2"  # stands for a public address: the guard of these tests allows this one
INSIDE = "127.0.0.1"  # stands for itself
OK = b"HTTP/1.1 200 OK\r\n"


def get(url: str, names: Names | None = None, networks: str = f"{HERE}/32", **bounds: float) -> bytes:
    guard = Guard(tuple(map(ip_network, networks.split())), *([names] if names else []))
    return download(url, bounded(**bounds), Client(guard))


def bounded(**bounds: float) -> Bounds:
    return Bounds(**{"max_bytes": 10_000, "timeout_s": 20, "max_redirects": 5} | bounds)  # type: ignore[arg-type]


def failure(url: str, names: Names | None = None, **bounds: float) -> str:
    """Return the words of the error, which never tell an address, a name or where a redirect led."""
    with pytest.raises(FetchFailed) as caught:
        get(url, names, **bounds)
    words = str(caught.value)
    assert not re.search(r"\d+\.\d+\.\d|::|//|example|localhost|secret", words), words
    return words


NOT_PUBLIC = "expected a host with a public address (fetch.allow_networks allows others)"


@pytest.fixture
def inside() -> Iterator[Site]:
    """A server that nobody may reach; the test fails if anything has connected to it."""
    with serving({"/a": sends(b"secret")}, INSIDE) as site:
        yield site
        assert site.connections == 0


# What is judged is what is connected to.


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "0", "[::ffff:7f00:1]"],
)
def test_a_spelling_of_the_loopback_reaches_it_only_where_it_is_allowed(host: str) -> None:
    with serving({"/a": sends(b"secret")}, INSIDE) as site:
        url = f"http://{host}:{site.port}/a"
        assert failure(url) == NOT_PUBLIC
        assert site.connections == 0
        assert get(url, networks="127.0.0.0/8 0.0.0.0/32") == b"secret"


@pytest.mark.parametrize("host", ["１２７.0.0.1", "ⓛocalhost", "127。0。0。1", "127.0.0.1%00.example", "127.0.0.1\\@x"])
def test_a_disguise_of_the_loopback_does_not_reach_it(inside: Site, host: str) -> None:
    assert failure(f"http://{host}:{inside.port}/a")


def test_ipv6_is_reached_by_its_address() -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 here")
    with serving({"/a": sends(PAYLOAD)}, "::1") as site:
        assert failure(f"{site.url}/a") == NOT_PUBLIC
        assert get(f"{site.url}/a", networks="::1/128") == PAYLOAD


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_name_is_resolved_once_for_each_hop_and_that_very_address_is_connected_to(inside: Site) -> None:
    names = Names(rebound_example=[[HERE], [INSIDE]])
    with serving({"/a": sends(PAYLOAD)}, HERE, inside.port):
        assert get(f"http://rebound.example:{inside.port}/a", names) == PAYLOAD
    assert names.asked == [("rebound.example", inside.port)]


def test_a_name_that_changes_its_address_between_hops_is_judged_anew(inside: Site) -> None:
    names = Names(rebound_example=[[HERE], [INSIDE]])
    with serving({"/0": redirects("/a")}, HERE, inside.port) as site:
        assert failure(f"http://rebound.example:{inside.port}/0", names) == NOT_PUBLIC
    assert len(site.requests) == 1
    assert len(names.asked) == 2


def test_of_a_name_with_both_only_the_public_address_is_tried(inside: Site) -> None:
    for both in ([INSIDE, HERE], [HERE, INSIDE], ["::1", "10.0.0.1", HERE, "169.254.169.254"]):
        names = Names(both_example=[both])
        with serving({"/a": sends(PAYLOAD)}, HERE, inside.port):
            assert get(f"http://both.example:{inside.port}/a", names) == PAYLOAD
        assert failure(f"http://both.example:{inside.port}/a", names) == "expected a host that accepts connections"


def test_a_name_inside_and_one_that_does_not_exist_look_the_same() -> None:
    names = Names(inside_example=[[INSIDE]])
    assert failure("http://inside.example/a", names) == failure("http://missing.example/a", names) == NOT_PUBLIC


# Names and ports.


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("dotted.example.", "dotted.example."),
        ("user:secret@plain.example", "plain.example"),
        ("10.0.0.1@plain.example", "plain.example"),
    ],
)
def test_the_name_that_is_asked_for(host: str, asked: str) -> None:
    names = Names(**{asked.rstrip("."): [[HERE]], asked: [[HERE]]})
    with serving({"/a": sends(PAYLOAD)}, HERE) as site:
        assert get(f"http://{host}:{site.port}/a", names) == PAYLOAD
    assert names.asked == [(asked, site.port)]


@pytest.mark.parametrize(
    "url",
    ["http://a.example:0/", "http://a.example:65536/", "http://a.example:-1/", "http://a.example:x/", "http://:80/"],
)
def test_ports_that_do_not_exist_are_refused_before_any_work(url: str) -> None:
    with pytest.raises(FetchFailed):
        parse_http(url)
    assert failure(url, names := Names(a_example=[[HERE]]))
    assert names.asked == []


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
@pytest.mark.parametrize("host", ["a.example", "10.0.0.1", "fd00:ec2::254", "::ffff:a9fe:a9fe", "::"])
def test_without_a_port_it_is_the_schemes(scheme: str, port: int, host: str) -> None:
    names = Names(**{host: [[INSIDE]]})
    for colon in ("", ":"):
        assert failure(f"{scheme}://{f'[{host}]' if ':' in host else host}{colon}/", names) == NOT_PUBLIC
    assert names.asked == [(host, port)] * 2


@pytest.mark.parametrize(
    "host", ["a..b", ".", "a" * 64 + ".example", ".".join(["a" * 60] * 5), "é" * 300 + ".example", "a" * 100_000]
)
def test_names_that_cannot_be_are_errors_of_ours(host: str) -> None:
    assert failure(f"http://{host}/a")


# Redirects.


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/a", "//127.0.0.1:{port}/a", "http://127.1:{port}/a", "http://2130706433:{port}/a",
        "http://localhost:{port}/a", "http://[::1]:{port}/a", "http://[::ffff:127.0.0.1]:{port}/a",
        "http://127.0.0.2@127.0.0.1:{port}/a", "http://0:{port}/a", "https://127.0.0.1:{port}/a",
        "http://169.254.169.254/latest/meta-data/", "http://2852039166/", "http://[fd00:ec2::254]/",
        "http://[::ffff:a9fe:a9fe]/", "http://10.0.0.1/", "http://192.0.0.192/", "http://100.100.100.200/",
    ],
)  # fmt: skip
def test_a_redirect_may_not_lead_inside(inside: Site, target: str) -> None:
    target = target.format(port=inside.port)
    with serving({"/0": redirects("/1"), "/1": redirects(target)}, HERE) as site:
        assert failure(f"{site.url}/0") == NOT_PUBLIC


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.2/a", "data:,x", "cid:0", "javascript:x", "gopher://127.0.0.2/", "unix:/x"],
)
def test_a_redirect_may_not_leave_http(target: str) -> None:
    with serving({"/a": redirects(target)}, HERE) as site:
        assert failure(f"{site.url}/a") == "expected an http or https url with a host"


@pytest.mark.parametrize(
    "target", ["http://", "http://[::1", "http://a:x/", "http://127.0.0.2:0/", "http://a b/", "//"]
)
def test_a_redirect_to_no_url_is_an_error(target: str) -> None:
    with serving({"/a": redirects(target)}, HERE) as site:
        assert failure(f"{site.url}/a")


@pytest.mark.parametrize("target", ["b", "/x/b", "../x/b", "./b", "?b", "b#part", "//127.0.0.2:{port}/x/b"])
def test_a_relative_redirect_starts_from_the_hop_before(target: str) -> None:
    answers: dict[str, Answer] = {"/x/b": sends(b"end"), "/x/a?b": sends(b"end")}
    with serving(answers, HERE) as site:
        answers["/x/a"] = redirects(target.format(port=site.port))
        assert get(f"{site.url}/x/a") == b"end"


def test_a_redirect_to_another_port_sends_neither_names_nor_passwords(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine {HERE} login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with serving({"/b?q=1": sends(b"end")}, HERE) as second:
        target = f"http://user:secret@{HERE}:{second.port}/b?q=1#secret"
        with serving({"/a": sends(b"", 307, Location=target, Set_Cookie="a=secret")}, HERE) as first:
            assert get(f"http://me:secret@{HERE}:{first.port}/a") == b"end"
    for site in (first, second):
        [(_, headers)] = site.requests
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
        assert headers["Host"] == f"{HERE}:{site.port}"


def test_redirects_are_followed_up_to_the_limit() -> None:
    answers = {f"/{n}": redirects(f"{n + 1}", status) for n, status in enumerate((301, 302, 303, 307, 308))}
    with serving({**answers, "/5": sends(b"end")}, HERE) as site:
        assert get(f"{site.url}/0") == b"end"
        assert failure(f"{site.url}/0", max_redirects=4) == "expected at most 4 redirects, found more"
        assert get(f"{site.url}/5", max_redirects=0) == b"end"


@pytest.mark.parametrize("target", ["/b", "/a", "", "#x"])
def test_a_redirect_loop_ends(target: str) -> None:
    with serving({"/a": redirects(target), "/b": redirects("/a")}, HERE) as site:
        assert "at most 5 redirects" in failure(f"{site.url}/a")
    assert len(site.requests) == 6


@pytest.mark.parametrize("status", [204, 206, 300, 302, 304, 404, 500])
def test_an_answer_other_than_200_is_named(status: int) -> None:
    with serving({"/a": sends(b"", status)}, HERE) as site:
        assert failure(f"{site.url}/a") == f"expected the answer 200 OK, found {status}"


def test_a_url_cannot_carry_a_second_request() -> None:
    with serving({"/a%0D%0AX:%20y": sends(PAYLOAD)}, HERE) as site:
        assert get(f"{site.url}/a\r\nX: y") == PAYLOAD
    assert "X" not in site.requests[0][1]


# Connections.


def test_the_second_address_is_tried_when_the_first_refuses() -> None:
    with serving({"/a": sends(PAYLOAD)}, HERE) as site:
        names = Names(a_example=[["127.0.0.3", HERE]])
        assert get(f"http://a.example:{site.port}/a", names, "127.0.0.2/31") == PAYLOAD


def test_the_second_address_is_tried_when_the_first_says_nothing() -> None:
    """It gets half of the time: a full backlog drops what knocks."""
    with serving({"/a": sends(PAYLOAD)}, HERE) as site, full("127.0.0.3", site.port):
        names = Names(a_example=[["127.0.0.3", HERE]])
        assert get(f"http://a.example:{site.port}/a", names, "127.0.0.2/31", timeout_s=2) == PAYLOAD


@contextmanager
def full(address: str, port: int = 0) -> Iterator[int]:
    """Listen, and fill the backlog so that nobody else gets in."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((address, port), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_addresses_that_say_nothing_do_not_outlast_the_deadline() -> None:
    with full("127.0.0.3") as port, full("127.0.0.4", port), full("127.0.0.5", port):
        names = Names(a_example=[["127.0.0.3", "127.0.0.4", "127.0.0.5"]])
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"longer than 0\.3 s"):
            get(f"http://a.example:{port}/a", names, "127.0.0.0/8", timeout_s=0.3)
        assert time.monotonic() - began < 30


def test_a_name_cannot_make_us_knock_at_thousands_of_doors() -> None:
    with serving({"/a": sends(PAYLOAD)}, HERE) as site:
        nearly, more = ([[*(f"127.1.0.{n}" for n in range(dead)), HERE]] for dead in (15, 16))
        names = Names(nearly_example=nearly, more_example=more)
        assert get(f"http://nearly.example:{site.port}/a", names, "127.0.0.0/8") == PAYLOAD
        with pytest.raises(FetchFailed, match="accepts connections"):
            get(f"http://more.example:{site.port}/a", names, "127.0.0.0/8")


def test_proxies_of_the_environment_are_not_used(inside: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, inside.url)
    with serving({"/a": sends(b"x")}, HERE) as site:
        assert get(f"{site.url}/a") == b"x"


def test_the_proxy_of_the_settings_is_used_for_both_schemes_and_gets_names_unresolved(certify: "Certify") -> None:
    with (
        serving({"/a": sends(PAYLOAD)}, HERE) as plain,
        serving({"/a": sends(b"tls")}, HERE, tls=certify(HERE)) as tls,
        proxying({"plain.example": HERE}) as proxy,
    ):
        client = Client(Guard(), proxy=f"http://me:pass%20word@{proxy.address}")
        assert download(f"http://plain.example:{plain.port}/a", bounded(), client) == PAYLOAD
        secure = Client(Guard((ip_network(f"{HERE}/32"),)), proxy=f"http://{proxy.address}")
        assert download(f"https://{HERE}:{tls.port}/a", bounded(), secure) == b"tls"
    assert [method for method, _, _ in proxy.asked] == ["GET", "CONNECT"]
    assert [authorization for _, _, authorization in proxy.asked] == ["Basic bWU6cGFzcyB3b3Jk", ""]


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:7f00:1]", "169.254.169.254"])
def test_an_address_that_is_written_out_is_judged_before_the_proxy_hears_of_it(host: str) -> None:
    with proxying({}) as proxy, pytest.raises(FetchFailed, match="public address"):
        download(f"http://{host}/a", bounded(), Client(Guard(), proxy=f"http://{proxy.address}"))
    assert proxy.asked == []


def test_the_proxies_of_the_environment_are_used_where_the_settings_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://one:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://two:2")
    monkeypatch.setenv("NO_PROXY", "inside.example")
    urls = ("http://a.example/", "https://a.example/", "https://b.inside.example/")
    assert [proxy_for(url, "environment") for url in urls] == ["http://one:1", "http://two:2", None]
    assert [proxy_for(url, None) for url in urls] == [None] * 3
    assert [proxy_for(url, "http://three:3") for url in urls] == ["http://three:3"] * 3


# Asking again, and asking as somebody.


def after(*answers: Answer) -> Answer:
    """Answer once with each, and with the last for ever."""
    left = list(answers)

    def next_of_them(handler: BaseHTTPRequestHandler) -> None:
        answer = left.pop(0) if len(left) > 1 else left[0]
        answer(handler)

    return next_of_them


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_an_answer_that_means_not_now_is_tried_again(status: int) -> None:
    pauses: list[float] = []
    with serving({"/a": after(sends(b"", status), sends(b"", status), sends(PAYLOAD))}, HERE) as site:
        client = Client(Guard((ip_network(f"{HERE}/32"),)))
        assert download(f"{site.url}/a", bounded(attempts=3), client, pauses.append) == PAYLOAD
    assert pauses == [0.5, 1.0]


def test_the_pause_that_a_server_asks_for_is_kept_up_to_half_a_minute() -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=20)
    asked = ("7", "3600", format_datetime(soon, usegmt=True), "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "9" * 400)
    pauses: list[float] = []
    answers = [sends(b"", 429, Retry_After=text) for text in asked]
    with serving({"/a": after(*answers, sends(PAYLOAD))}, HERE) as site:
        client = Client(Guard((ip_network(f"{HERE}/32"),)))
        assert download(f"{site.url}/a", bounded(attempts=7), client, pauses.append) == PAYLOAD
    assert pauses[:2] == [7, 30]
    assert 15 < pauses[2] <= 20
    assert pauses[3:] == [4, 8, 16]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    ],
)
def test_an_answer_that_ends_before_it_is_whole_is_tried_again_and_is_retryable_in_the_end(broken: bytes) -> None:
    def ends(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(broken)
        handler.close_connection = True

    client = Client(Guard((ip_network("127.0.0.2/31"),)))
    with serving({"/a": after(ends, sends(PAYLOAD)), "/b": ends}, HERE) as site:
        assert download(f"{site.url}/a", bounded(attempts=2), client, lambda _: None) == PAYLOAD
        with pytest.raises(SourceUnavailable, match="the answer breaks off"):
            download(f"{site.url}/b", bounded(attempts=2), client, lambda _: None)
        assert [path for path, _ in site.requests] == ["/a", "/a", "/b", "/b"]


def test_a_reset_a_refusal_and_a_time_out_are_tried_again_and_are_retryable_in_the_end() -> None:
    def resets(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    client = Client(Guard((ip_network("127.0.0.2/31"),)))
    slow = says(b"", times=1, pause_s=5)
    for answer in (resets, slow, sends(b"", 503)):
        with serving({"/a": after(answer, sends(PAYLOAD)), "/b": answer}, HERE) as site:
            bounds = bounded(attempts=2, timeout_s=0.5)
            assert download(f"{site.url}/a", bounds, client, lambda _: None) == PAYLOAD
            with pytest.raises(SourceUnavailable) as caught:
                download(f"{site.url}/b", bounds, client, lambda _: None)
            assert caught.value.fault().retryable
            assert [path for path, _ in site.requests] == ["/a", "/a", "/b", "/b"]
    with pytest.raises(SourceUnavailable):
        download("http://127.0.0.3:9/a", bounded(attempts=2), client, lambda _: None)


@pytest.mark.parametrize("answer", [sends(b"", 404), sends(b"", 500), sends(bytes(20_000)), says(b"nonsense\r\n\r\n")])
def test_what_another_try_would_not_change_is_not_tried_again(answer: Answer) -> None:
    with serving({"/a": answer}, HERE) as site:
        with pytest.raises(JobError) as caught:
            get(f"{site.url}/a", attempts=3)
        assert not caught.value.fault().retryable
        assert len(site.requests) == 1


def test_the_headers_of_a_host_go_to_that_host_only() -> None:
    names = Names(a_example=[[HERE]], b_example=[[HERE]])
    answers: dict[str, Answer] = {"/b": sends(PAYLOAD)}
    with serving(answers, HERE) as site:
        answers["/a"] = redirects(f"http://b.example:{site.port}/b")
        guard = Guard((ip_network(f"{HERE}/32"),), names)
        client = Client(guard, headers={"a.example": {"Authorization": "Bearer token"}})
        assert download(f"http://A.example:{site.port}/a", bounded(), client) == PAYLOAD
    [(_, first), (_, second)] = site.requests
    assert first["Authorization"] == "Bearer token"
    assert "Authorization" not in second
    assert first["User-Agent"] == f"stillreel/{VERSION}"


# TLS.

Certify = Callable[..., ssl.SSLContext]


@pytest.fixture
def certify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Certify]:
    """Trust an authority that the environment names, and return what makes a server's certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    connection._trust.cache_clear()

    def make(*names: str, issuer: trustme.CA = authority, **options: dt.datetime) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issuer.issue_cert(*names, **options).configure_cert(context)
        return context

    yield make
    connection._trust.cache_clear()


def test_a_certificate_of_the_name_is_trusted(certify: Certify) -> None:
    answers = {"/a": sends(PAYLOAD)}
    with serving(answers, HERE, tls=certify("a.example", "xn--bcher-kva.example", HERE)) as site:
        names = Names(a_example=[[HERE]], **{"a.example.": [[HERE]], "xn--bcher-kva.example": [[HERE]]})
        for host in ("a.example", "A.EXAMPLE", "a.example.", "bücher.example", HERE):
            assert get(f"https://{host}:{site.port}/a", names if "example" in host.lower() else None) == PAYLOAD


def test_a_certificate_of_another_name_an_old_one_and_a_strangers_are_refused(certify: Certify) -> None:
    names = Names(a_example=[[HERE]])
    began = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    for tls, fault in (
        (certify("b.example"), "is for another name"),
        (certify(HERE), "is for another name"),  # the address that the name leads to is not the name
        (certify("a.example", not_before=began, not_after=began + dt.timedelta(days=1)), "has expired"),
        (certify("a.example", issuer=trustme.CA()), "is not signed by an authority that is trusted here"),
    ):
        with serving({"/a": sends(b"secret")}, HERE, tls=tls) as site:
            assert failure(f"https://a.example:{site.port}/a", names).startswith(f"the server's certificate {fault}")
        assert site.requests == []


def test_an_authority_of_the_settings_is_trusted_beside_the_systems(tmp_path: Path, certify: Certify) -> None:
    private = trustme.CA()
    private.cert_pem.write_to_path(tmp_path / "private.pem")
    client = Client(Guard((ip_network(f"{HERE}/32"),)), ca_file=tmp_path / "private.pem")
    for tls in (certify(HERE, issuer=private), certify(HERE)):
        with serving({"/a": sends(PAYLOAD)}, HERE, tls=tls) as site:
            url = f"{site.url}/a".replace("http:", "https:")
            assert download(url, bounded(), client) == PAYLOAD


def test_a_redirect_between_http_and_https_is_judged_and_verified_as_any(certify: Certify, inside: Site) -> None:
    answers: dict[str, Answer] = {"/in": redirects(f"{inside.url}/a")}
    with (
        serving(answers, HERE) as plain,
        serving(
            {"/1": redirects(f"{plain.url}/2"), "/b": redirects(f"{plain.url}/in")}, HERE, tls=certify(HERE)
        ) as tls,
    ):
        secure = tls.url.replace("http:", "https:")
        answers |= {"/0": redirects(f"{secure}/1"), "/2": sends(PAYLOAD)}
        assert get(f"{plain.url}/0") == PAYLOAD
        assert failure(f"{secure}/b") == NOT_PUBLIC


def test_plain_http_at_a_tls_port_and_tls_at_a_plain_one_are_errors(certify: Certify) -> None:
    with serving({"/a": sends(PAYLOAD)}, HERE) as plain, serving({}, HERE, tls=certify(HERE)) as tls:
        assert failure(f"{plain.url}/a".replace("http:", "https:")).startswith("the download failed")
        assert failure(f"{tls.url}/a").startswith("the download failed")


# Bodies.


def test_a_download_is_the_body() -> None:
    answers = {
        "/a": sends(PAYLOAD, Content_Length=str(len(PAYLOAD))),
        "/b": sends(PAYLOAD),
        "/c": says(OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"),
        "/d": says(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Encoding: identity\r\n\r\nabc"),
        "/": sends(b""),
    }
    with serving(answers, HERE) as site:
        assert get(f"{site.url}/a") == PAYLOAD
        assert get(f"{site.url}/b#part") == PAYLOAD
        assert get(f"{site.url}/c") == b"abcde"
        assert get(f"{site.url}/d") == b"abc"
        assert get(site.url) == b""


def test_a_packed_body_is_unpacked_up_to_the_limit() -> None:
    def packed(coding: str, body: bytes) -> Answer:
        return sends(body, Content_Encoding=coding)

    whole = gzip.compress(PAYLOAD)
    answers = {
        "/gzip": packed("gzip", whole),
        "/x-gzip": packed("X-GZip", whole),
        "/members": packed("gzip", gzip.compress(PAYLOAD[:9]) + gzip.compress(PAYLOAD[9:])),
        "/deflate": packed("deflate", zlib.compress(PAYLOAD)),
        "/bomb": packed("gzip", gzip.compress(bytes(100_000_000))),
        "/cut": packed("gzip", whole[:-4]),
        "/damaged": packed("gzip", whole[:20] + b"\xff" * 20 + whole[40:]),
        "/empty": packed("gzip", b""),
    }
    with serving(answers, HERE) as site:
        for name in ("gzip", "x-gzip", "members", "deflate"):
            assert get(f"{site.url}/{name}") == PAYLOAD
        with pytest.raises(FileTooLarge):
            get(f"{site.url}/bomb")
        assert failure(f"{site.url}/cut") == "expected a whole body in gzip, found one that ends early"
        assert "damaged" in failure(f"{site.url}/damaged")
        assert "ends early" in failure(f"{site.url}/empty")


def test_a_body_of_just_the_limit_comes_and_one_byte_more_does_not() -> None:
    answers: dict[str, Answer] = {}
    with serving(answers, HERE) as site:
        for headers in (b"", b"Content-Length: %d\r\n", b"Transfer-Encoding: chunked\r\n"):
            for size in (1000, 1001):
                body = bytes(size)
                if b"chunked" in headers:
                    body = b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
                answers[f"/{size}"] = says(OK + headers.replace(b"%d", b"%d" % size) + b"\r\n" + body)
            assert get(f"{site.url}/1000", max_bytes=1000) == bytes(1000)
            with pytest.raises(FileTooLarge, match="at most 1000 bytes"):
                get(f"{site.url}/1001", max_bytes=1000)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 99999999999999\r\n", b""),
        (b"", bytes(65536)),
        (b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + bytes(65536) + b"\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"fffffffffffffff\r\n" + bytes(65536)),
    ],
)
def test_an_endless_body_is_cut_at_the_limit(headers: bytes, body: bytes) -> None:
    with (
        serving({"/a": says(OK + headers + b"\r\n", then=body, times=10_000)}, HERE) as site,
        pytest.raises(FileTooLarge, match="at most 1000 bytes"),
    ):
        get(f"{site.url}/a", max_bytes=1000)


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 8\r\n\r\nhalf",
        OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nhalf",
        OK + b"Content-Length: -5\r\n\r\nhalf",
        OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nha",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhalf",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-4\r\nhalf",
        OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
        OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b",
        OK + b"Content-Encoding: identity\r\nContent-Encoding: br\r\n\r\nx",
        OK + b"X: y\r\n" * 1000 + b"\r\nx",
        OK + b"X: " + b"y" * 200_000 + b"\r\n\r\nx",
        b"HTTP/1.1 " + b"2" * 100_000,
        b"HTTP/9.9 200 OK\r\n\r\nx",
        b"HTTP/1.1 2\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
def test_an_answer_that_lies_or_is_none_is_an_error(answer: bytes) -> None:
    with serving({"/a": says(answer)}, HERE) as site:
        assert failure(f"{site.url}/a")


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.sampled_from(
            [
                b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 ", b"302 ", b"100 ", b"OK", b"\r\n", b"\r\n\r\n", b"\n", b": ",
                b"Location", b"Content-Length", b"Transfer-Encoding", b"chunked", b"Content-Encoding", b"gzip",
                b"http://127.0.0.1:9/", b"//", b"5", b"-1", b"\x00", b"\xff", b"0\r\n\r\n", b"Connection: close\r\n",
            ]
        )
        | st.binary(max_size=8),
        max_size=20,
    ).map(b"".join),
    st.sampled_from([b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: "]),
)  # fmt: skip
def test_whatever_a_server_answers_only_our_errors_come_out(rest: bytes, head: bytes) -> None:
    with serving({"/a": says(head + rest)}, HERE) as site:
        try:
            assert len(get(f"{site.url}/a", max_bytes=1000, max_redirects=0)) <= 1000
        except (FetchFailed, FileTooLarge):
            return


# Time.


@pytest.mark.parametrize(
    "answer",
    [
        says(b"HTTP/1.1 200 OK\r\nX-Slow: ", then=b"x", times=2000, pause_s=0.05),
        says(OK, then=b"X: y\r\n", times=90, pause_s=1),
        says(b"", then=b"HTTP/1.1 100 Continue\r\n\r\n", times=2000, pause_s=0.05),
        says(OK + b"\r\n", then=b"x", times=2000, pause_s=0.05),
        says(OK + b"Content-Length: 500\r\n\r\n", then=b"x", times=2000, pause_s=0.05),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n", then=b"1\r\nx\r\n", times=2000, pause_s=0.05),
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", then=b"X: y\r\n", times=2000, pause_s=0.05),
        says(b"", times=1, pause_s=60),
    ],
)
@pytest.mark.parametrize("is_secure", [False, True])
def test_a_server_that_drips_does_not_outlast_the_deadline(certify: Certify, answer: Answer, is_secure: bool) -> None:
    with serving({"/a": answer}, HERE, tls=certify(HERE) if is_secure else None) as site:
        url = site.url.replace("http:", "https:") if is_secure else site.url
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"longer than 0\.3 s"):
            get(f"{url}/a", timeout_s=0.3)
        assert time.monotonic() - began < 30


def test_all_hops_share_one_deadline() -> None:
    def late(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.3)
        redirects("/a")(handler)

    with serving({"/a": late}, HERE) as site:
        with pytest.raises(FetchFailed, match=r"longer than 0\.8 s"):
            get(f"{site.url}/a", timeout_s=0.8)
        assert len(site.requests) <= 3


def test_a_server_that_never_ends_the_tls_handshake_does_not_outlast_the_deadline() -> None:
    with socket.create_server((HERE, 0)) as silent:
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"longer than 0\.3 s"):
            get(f"https://{HERE}:{silent.getsockname()[1]}/a", timeout_s=0.3)
        assert time.monotonic() - began < 30


def test_a_resolver_that_is_slow_counts() -> None:
    names = Names(a_example=[[HERE]])

    def slowly(host: str, port: int, **options: object) -> object:
        time.sleep(0.4)
        return names(host, port, **options)

    with serving({"/a": sends(PAYLOAD)}, HERE) as site:
        with pytest.raises(FetchFailed, match=r"longer than 0\.3 s"):
            get(f"http://a.example:{site.port}/a", slowly, timeout_s=0.3)  # type: ignore[arg-type]
        assert get(f"{site.url}/a") == PAYLOAD
        assert site.connections == 1


# What is left behind.


def test_downloads_leave_no_descriptor_behind() -> None:
    answers = {"/a": sends(PAYLOAD, Content_Length=str(len(PAYLOAD))), "/b": redirects("/a"), "/c": sends(b"", 404)}
    with serving(answers, HERE) as site:
        get(f"{site.url}/b")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            get(f"{site.url}/b")
            failure(f"{site.url}/c")
            failure(f"http://{INSIDE}:{site.port}/a")
        time.sleep(0.1)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2
