"""Small bodies that ask for much: a real daemon answers each at once, goes on answering others, and stays small.

One trial that a loaded machine spoils proves nothing, so a body has five; what a body does to the daemon's loop it does
every time. Where other processes hold the cores, the limits are multiplied by how much longer than its processor time a
spin of this process takes: by one on a quiet machine.
"""

import http.client
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
import zmq

from protocol.client import Client
from tests.daemon_process import DaemonProcess, starting, wait_until

MIB = 1024 * 1024
ANSWER_S, HEALTH_S, TRIALS = 1.0, 0.2, 5
ROUTE = "/queue/fal-ai/ffmpeg-api/images-to-video"
Send = Callable[[DaemonProcess, Path, bytes], tuple[float, bytes]]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, spool: Path) -> Iterator[DaemonProcess]:
    with starting(tmp_path_factory.mktemp("daemon")) as start:
        daemon = start("--http", "127.0.0.1:0", "--spool", spool, ENGINE__WORKERS=1)
        yield daemon
        assert "Traceback" not in daemon.words()


class Watch:
    """Asks for `health` all the time, and knows how long the longest answer took."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._is_over = threading.Event()
        self._has_begun = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest_s = 0.0

    def _ask(self) -> None:
        with Client(self._endpoint, timeout_s=60) as client:
            client.health()
            self._has_begun.set()
            while not self._is_over.wait(0.01):
                began = time.monotonic()
                client.health()
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._has_begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


def over_http(daemon: DaemonProcess, _: Path, body: bytes) -> tuple[float, bytes]:
    address = urlsplit(daemon.http)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    connection.connect()
    connection.putrequest("POST", ROUTE)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.sock.sendall(body)
    sent = time.monotonic()
    answer = connection.getresponse().read()
    took_s = time.monotonic() - sent
    connection.close()
    return took_s, answer


def over_zmq(daemon: DaemonProcess, _: Path, body: bytes) -> tuple[float, bytes]:
    with zmq.Context() as context, context.socket(zmq.REQ) as asking:
        asking.connect(daemon.endpoint)
        message = b'{"jsonrpc":"2.0","id":1,"method":"submit","params":' + body + b"}"
        sent = time.monotonic()
        asking.send(message)
        assert asking.poll(60_000)
        return time.monotonic() - sent, asking.recv()


def over_spool(_: DaemonProcess, spool: Path, body: bytes) -> tuple[float, bytes]:
    name = f"m{time.monotonic_ns()}"
    (spool / f"{name}.part").write_bytes(body)
    sent = time.monotonic()
    (spool / f"{name}.part").rename(spool / "incoming" / f"{name}.json")
    report = spool / "failed" / name / "error.json"
    wait_until(report.exists, "the manifest has failed", 60)
    return time.monotonic() - sent, report.read_bytes()


def load() -> float:
    """Return how many times longer than on a quiet machine a process waits for its turn."""
    began, used = time.monotonic(), time.process_time()
    while time.process_time() - used < 0.1:
        pass
    return max(1.0, (time.monotonic() - began) / 0.1)


def peak_bytes(daemon: DaemonProcess) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.child.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def images(item: bytes, count: int) -> bytes:
    return b'{"images":[' + b",".join([item] * count) + b"]}"


BODIES = {
    "ones": lambda: images(b"1", 300_000),
    "many-ones": lambda: images(b"1", 1_000_000),
    "many-images": lambda: images(b'{"url":"a"}', 3_000_000),
    "ones-that-fit": lambda: images(b"1", 10_000),
    "empty-urls": lambda: images(b'{"url":""}', 10_000),
    "one-too-many": lambda: images(b'{"url":"a"}', 10_001),
    "unknown-fields": lambda: b'{"images":[{"url":""}],' + b",".join(b'"x%d":1' % i for i in range(90_000)) + b"}",
    "fields-of-an-image": lambda: images(b"{" + b",".join(b'"x%d":1' % i for i in range(90_000)) + b"}", 1),
    "a-long-name": lambda: b'{"images":[{"url":"","' + b"x" * 2_000_000 + b'":1}]}',
    "a-list-for-a-number": lambda: b'{"images":[{"url":"a"}],"crf":[' + b"1," * 150_000 + b"1]}",
    "a-long-text": lambda: (
        b'{"images":[{"url":"a","frames":"' + b"x" * 2_000_000 + b'"}],"crf":"' + b"y" * 2_000_000 + b'"}'
    ),
    "nested": lambda: b'{"images":' + b"[" * 300_000,
    "quotes": lambda: b'"' * 2_000_000,
}


@pytest.mark.parametrize("send", [over_http, over_zmq, over_spool])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_asks_for_much_is_refused_at_once_and_silences_nobody(
    daemon: DaemonProcess, spool: Path, name: str, send: Send
) -> None:
    daemon.client.health()
    body = BODIES[name]()
    before = peak_bytes(daemon)
    trials = []
    for _ in range(TRIALS):
        with Watch(daemon.endpoint) as watch:
            took_s, answer = send(daemon, spool, body)
        assert json.loads(answer)
        assert len(answer) <= 64 * 1024
        assert b'"message":' in answer.replace(b'": ', b'":')
        trials.append((round(took_s, 3), round(watch.longest_s, 3)))
        share = load()
        if took_s < ANSWER_S * share and watch.longest_s < HEALTH_S * share:
            break
    else:
        pytest.fail(f"(seconds to the answer, to the longest health): {trials}")
    assert peak_bytes(daemon) - before < 150 * MIB


@pytest.mark.timeout(300)
def test_a_manifest_over_which_the_daemon_died_twice_is_not_read_a_third_time(tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    (spool / "incoming").mkdir(parents=True)
    slow = b'{"images":[{"url":"a"}],"metadata":{"text":"' + b'\\",' * 15_000_000 + b'"}}'  # long enough to be caught
    (spool / "incoming" / "deadly.json").write_bytes(slow)
    with starting(tmp_path) as start:
        for deaths in (1, 2):
            daemon = start("--spool", spool, ENGINE__WORKERS=1)
            noted = [str(deaths)]
            wait_until(
                lambda noted=noted: [note.read_text() for note in spool.glob("active/*/.deaths")] == noted, "it is read"
            )
            daemon.signal(signal.SIGKILL)
            daemon.child.wait()
        start("--spool", spool, ENGINE__WORKERS=1)
        report = spool / "failed" / "deadly" / "error.json"
        wait_until(report.exists, "it has failed")
        wait_until(lambda: not list((spool / "active").iterdir()), "the claim has gone")
    assert "the daemon died 2 times while it read this one" in json.loads(report.read_text())["message"]
    assert sorted(path.name for path in report.parent.iterdir()) == ["error.json", "manifest.json"]
