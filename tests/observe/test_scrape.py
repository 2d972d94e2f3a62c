"""The port, with real sockets: what it answers, whom it cuts off, and that it leaves nothing behind."""

import contextlib
import gzip
import http.client
import logging
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from renderer.errors import ConfigError
from renderer.observe.metrics import Snapshot
from renderer.observe.prometheus import PrometheusMetrics
from renderer.observe.scrape import CONNECTIONS, MetricsServer
from tests.daemon_process import wait_until

SNAPSHOT = Snapshot(is_ready=True, queued={}, running=0, workers=1, outputs_bytes=0, uptime_s=1.0)
ACCEPTED = 'stillreel_jobs_accepted_total{client="zmq"} 1.0'


@pytest.fixture
def metrics() -> PrometheusMetrics:
    metrics = PrometheusMetrics()
    metrics.accepted("zmq")
    return metrics


@pytest.fixture
def server(metrics: PrometheusMetrics) -> Iterator[MetricsServer]:
    with MetricsServer(metrics, "127.0.0.1:0") as server:
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No thread and no descriptor outlives a test."""
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    wait_until(lambda: set(threading.enumerate()) <= threads, "the threads are gone")
    assert open_descriptors() <= descriptors


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def scrape(address: str, **headers: str) -> str:
    request = urllib.request.Request(f"http://{address}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        body = answer.read()
        return (gzip.decompress(body) if answer.headers["Content-Encoding"] == "gzip" else body).decode()


def connect(server: MetricsServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=30)


def is_cut_off(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("place", ["127.0.0.1:0", "localhost:0", "127.1.2.3:0", "[::1]:0"])
def test_the_address_that_is_told_can_be_scraped(metrics: PrometheusMetrics, place: str) -> None:
    with MetricsServer(metrics, place) as server:
        assert not server.address.endswith(":0")
        assert ACCEPTED in scrape(server.address).splitlines()


def test_prometheus_can_read_it_in_every_format_it_asks_for(server: MetricsServer) -> None:
    for headers in ({}, {"Accept": "application/openmetrics-text;version=1.0.0"}, {"Accept-Encoding": "gzip"}):
        assert ACCEPTED in scrape(server.address, **headers).splitlines()
    assert "stillreel_jobs_accepted" in {
        family.name for family in text_string_to_metric_families(scrape(server.address))
    }


@pytest.mark.parametrize(
    "place",
    [
        *("0.0.0.0:9464", "192.168.1.2:9464", "[::]:9464", "example.com:9464", "127.0.0.1", "127.0.0.1:", ":9464", ""),
        *("127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "127.0.0.1:٣", "127.0.0.1:" + "9" * 5000, "127.1:9464"),
        *("http://127.0.0.1:9464", "::ffff:1.2.3.4:9464"),
    ],
)
def test_another_address_is_refused_by_name(metrics: PrometheusMetrics, place: str) -> None:
    with pytest.raises(ConfigError, match=r"^observe\.metrics: expected HOST:PORT on a loopback address, .* found '"):
        MetricsServer(metrics, place)


def test_a_port_that_is_taken_is_refused_by_name(metrics: PrometheusMetrics, server: MetricsServer) -> None:
    with pytest.raises(ConfigError, match=r"^observe\.metrics: 127\.0\.0\.1:\d+: Address already in use$"):
        MetricsServer(metrics, server.address)


def test_the_port_is_free_again_at_once(metrics: PrometheusMetrics) -> None:
    with MetricsServer(metrics, "127.0.0.1:0") as first:
        scrape(first.address)
    with MetricsServer(metrics, first.address) as second:
        assert second.address == first.address
        scrape(second.address)


def test_closing_twice_is_harmless(metrics: PrometheusMetrics) -> None:
    server = MetricsServer(metrics, "127.0.0.1:0")
    server.close()
    server.close()


def test_closing_cuts_off_who_is_connected(metrics: PrometheusMetrics) -> None:
    with MetricsServer(metrics, "127.0.0.1:0") as server:
        silent = connect(server)
        scrape(server.address)
    with silent:
        assert is_cut_off(silent)


def test_scrapes_make_no_noise(server: MetricsServer, capfd: pytest.CaptureFixture[str]) -> None:
    scrape(server.address)
    with connect(server) as rude:
        rude.sendall(b"\x00\xff nonsense\r\n\r\n")
        rude.recv(1)
    with connect(server) as gone:
        gone.sendall(b"GET /metrics HTTP/1.1\r\n")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://{server.address}/metrics", data=b"x", timeout=60)
    refused.value.close()
    scrape(server.address)
    assert capfd.readouterr() == ("", "")


def test_a_client_that_is_silent_holds_nobody_up(server: MetricsServer) -> None:
    with connect(server), connect(server) as slow:
        slow.sendall(b"GET /metrics HT")
        assert ACCEPTED in scrape(server.address)


def test_a_client_that_sends_a_byte_now_and_then_is_cut_off(metrics: PrometheusMetrics) -> None:
    def trickle(connection: socket.socket) -> None:
        for _ in range(1000):
            connection.sendall(b"G")
            time.sleep(0.03)

    with MetricsServer(metrics, "127.0.0.1:0", connection_s=0.2) as server, connect(server) as slow:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            trickle(slow)
        assert ACCEPTED in scrape(server.address)


def test_connections_are_few(server: MetricsServer) -> None:
    silent = [connect(server) for _ in range(CONNECTIONS)]
    with connect(server) as one_more:
        with contextlib.suppress(OSError):
            one_more.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert is_cut_off(one_more)
    for connection in silent:
        connection.close()

    def is_answered() -> bool:
        try:
            return ACCEPTED in scrape(server.address)
        except (OSError, http.client.HTTPException):
            return False

    wait_until(is_answered, "room again")


def test_a_snapshot_that_hangs_holds_only_its_scrape(metrics: PrometheusMetrics) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang() -> Snapshot:
        asked.set()
        answer.wait(60)
        return SNAPSHOT

    metrics.watch(hang)
    server = MetricsServer(metrics, "127.0.0.1:0")
    with connect(server) as scraper:
        scraper.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert asked.wait(60)
        metrics.accepted("zmq")  # what the daemon does goes on
        server.close()  # and it can end
        assert is_cut_off(scraper)
    answer.set()


def test_a_snapshot_that_fails_leaves_an_answer(metrics: PrometheusMetrics, caplog: pytest.LogCaptureFixture) -> None:
    metrics.watch(lambda: SNAPSHOT if False else 1 / 0)  # type: ignore[arg-type,return-value]
    with MetricsServer(metrics, "127.0.0.1:0") as server:
        assert ACCEPTED in scrape(server.address)
    assert [(line.levelno, line.getMessage()) for line in caplog.records] == [
        (logging.WARNING, "the gauges could not be read")
    ]


def test_many_scrapes_at_once_are_all_whole(metrics: PrometheusMetrics, server: MetricsServer) -> None:
    metrics.watch(lambda: SNAPSHOT)
    texts: list[str] = []

    def repeatedly(work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=lambda: [work() for _ in range(10)])
        thread.start()
        return thread

    threads = [repeatedly(lambda: texts.append(scrape(server.address))) for _ in range(CONNECTIONS // 2)]
    threads.append(repeatedly(lambda: metrics.ended("done", took_s=0.1)))
    for thread in threads:
        thread.join()
    assert len(texts) == 10 * (CONNECTIONS // 2)
    assert {len(list(text_string_to_metric_families(text))) for text in texts} == {28}
