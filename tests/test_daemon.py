"""Starting, draining, stopping and being killed, with real processes."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from protocol.client import Client
from protocol.errors import RemoteError
from protocol.schema import Rendered
from tests.daemon_process import Gate, Start, request, wait_until

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Return a function that runs `serve`, which must refuse to start, and returns its one line."""

    def run(*arguments: str | Path, **environment: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "renderer", "serve", "--data-dir", tmp_path / "data", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (2, "")
        [line] = ended.stderr.splitlines()
        return line

    return run


class Asking(threading.Thread):
    """A client in a thread of its own; `outcome` is what its one call ended in."""

    def __init__(self, endpoint: str, asked: dict[str, object], **limits: float) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._asked = asked
        self._limits = limits
        self.outcome: Rendered | Exception | None = None
        self.start()

    def run(self) -> None:
        with Client(self._endpoint, timeout_s=40, **self._limits) as client:
            try:
                self.outcome = client.render(self._asked)
            except Exception as error:  # noqa: BLE001 - the test looks at it
                self.outcome = error

    def ended(self) -> Rendered | Exception | None:
        self.join(45)
        return self.outcome


def test_sigterm_lets_the_running_job_end_and_tells_the_waiting_ones_to_come_again(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", "--workers", "1")
    running = Asking(daemon.endpoint, gate.request(request_id="running"))
    wait_until(daemon.encoders, "the encoder runs")
    waiting = Asking(daemon.endpoint, request(request_id="waiting"))
    wait_until(lambda: daemon.client.health().jobs_queued == 1, "one job waits")
    daemon.signal(signal.SIGTERM)
    error = waiting.ended()
    assert isinstance(error, RemoteError)
    assert (error.kind.name, error.kind.retryable) == ("shutting_down", True)
    assert daemon.client.health().status == "draining"
    with pytest.raises(RemoteError, match="the daemon is stopping"):
        daemon.client.submit(request())
    gate.open()
    made = running.ended()
    assert isinstance(made, Rendered)
    assert made.frames == 4
    assert daemon.child.wait(10) == 0
    wait_until(lambda: not daemon.processes(), "nothing runs any more", 2)
    assert list(daemon.temporary.iterdir()) == []
    assert "Traceback" not in daemon.words()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_stops_at_once(start: Start, gate: Gate, number: signal.Signals) -> None:
    daemon = start("--allow-http", "--workers", "1")
    running = Asking(daemon.endpoint, gate.request(request_id="running"))
    wait_until(daemon.encoders, "the encoder runs")
    daemon.signal(number)
    wait_until(lambda: daemon.client.health().status == "draining", "the daemon drains")
    began = time.monotonic()
    daemon.signal(number)
    assert daemon.child.wait(10) == 0
    assert time.monotonic() - began < 2
    error = running.ended()
    assert isinstance(error, RemoteError)
    assert (error.kind.name, error.kind.retryable) == ("shutting_down", True)
    wait_until(lambda: not daemon.processes(), "nothing runs any more", 2)
    assert daemon.files() == []
    assert list((daemon.data_dir / "outputs").iterdir()) == []
    assert list(daemon.temporary.iterdir()) == []
    assert "Traceback" not in daemon.words()


def test_a_drain_ends_when_its_time_is_up(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", SERVER__DRAIN_TIMEOUT_S=0.2)
    running = Asking(daemon.endpoint, gate.request())
    wait_until(daemon.encoders, "the encoder runs")
    assert daemon.stop() == 0
    error = running.ended()
    assert isinstance(error, RemoteError)
    assert error.kind.name == "shutting_down"
    wait_until(lambda: not daemon.processes(), "nothing runs any more", 2)


def test_a_killed_daemon_takes_its_processes_along_and_the_next_one_clears_up(start: Start, gate: Gate) -> None:
    killed = start("--allow-http", "--workers", "2")
    for name in ("one", "two"):
        sent = {**gate.request(request_id=name), "images": [*gate.request()["images"], {"url": "cid:0"}]}
        killed.client.submit(sent, [b"P5 1 1 255\n."])
    wait_until(lambda: len(killed.encoders()) == 2, "two encoders run")
    (killed.data_dir / "outputs" / "one" / "video.mp4.part").write_bytes(b"half")
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    wait_until(lambda: not killed.processes(), "nothing runs any more", 2)
    daemon = start("--allow-http")
    assert daemon.files() == []
    assert list(killed.temporary.iterdir()) == []
    assert not (daemon.data_dir / "outputs" / "one").exists()
    assert daemon.client.render(request(request_id="one")).frames == 2


def test_a_client_gets_its_video_though_the_daemon_is_killed_and_started_again(start: Start, gate: Gate) -> None:
    killed = start("--allow-http")
    asking = Asking(killed.endpoint, gate.request(request_id="kept"), silence_s=1.5)
    wait_until(killed.encoders, "the encoder runs")
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    gate.open()
    start("--allow-http", bind=killed.endpoint)
    made = asking.ended()
    assert isinstance(made, Rendered)
    assert (made.request_id, made.frames) == ("kept", 4)


def test_an_endpoint_that_is_taken_is_refused(refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert refused("--bind", endpoint) == f"error: server.bind: {endpoint}: Address already in use"


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:*", "tcp://*:5590", "tcp://10.1.2.3:5590", "tcp://[::]:5590"])
def test_an_endpoint_that_others_could_reach_is_refused(refused: Refused, endpoint: str) -> None:
    assert refused("--bind", endpoint).startswith(f"error: server.bind: {endpoint} is neither loopback nor ipc")


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "tcp://[::1", "udp://127.0.0.1:5590", "ipc://"])
def test_an_endpoint_that_is_none_is_refused(refused: Refused, endpoint: str) -> None:
    assert refused("--bind", endpoint).startswith(f"error: server.bind: {endpoint}")


@pytest.mark.parametrize(
    ("toml", "path"),
    [
        ("[limits]\nmax_imagez = 3", "limits.max_imagez"),
        ("[server]\nbind = 7", "server.bind"),
        ("[engine]\nworkers = 0", "engine.workers"),
        ("[nonsense]\na = 1", "nonsense"),
    ],
)
def test_a_setting_that_is_wrong_is_named_by_its_path(refused: Refused, tmp_path: Path, toml: str, path: str) -> None:
    (tmp_path / "settings.toml").write_text(toml)
    assert refused("--config", tmp_path / "settings.toml").startswith(f"error: settings: {path}: ")


def test_a_configuration_file_that_cannot_be_read_is_named(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "missing.toml") in refused("--config", tmp_path / "missing.toml")


def test_a_variable_that_is_wrong_is_named_by_its_path(refused: Refused) -> None:
    assert refused(STILLREEL_LIMITS__MAX_IMAGEZ="3").startswith("error: settings: limits.max_imagez: ")


def test_a_root_that_is_no_directory_is_refused(refused: Refused, tmp_path: Path) -> None:
    line = refused("--allow-root", tmp_path / "missing")
    assert line == f"error: fetch.allow_roots: {tmp_path / 'missing'} is no directory"


@pytest.mark.parametrize("variable", ["STILLREEL_ENCODE__FFMPEG", "IMAGEIO_FFMPEG_EXE"])
def test_an_ffmpeg_that_is_not_there_is_refused(refused: Refused, variable: str) -> None:
    assert (
        refused(**{variable: "/nowhere/ffmpeg"})
        == "error: encode.ffmpeg: /nowhere/ffmpeg is no program that can be run"
    )


def test_a_data_directory_in_use_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refused() == f"error: server.data_dir: {tmp_path / 'data'} is in use by another daemon"


def test_a_data_directory_that_cannot_be_made_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    assert refused() == f"error: server.data_dir: {tmp_path / 'data'}: Not a directory"


def test_the_ready_line_tells_where_requests_are_answered(start: Start, tmp_path: Path) -> None:
    daemon = start()
    assert daemon.ready_line.startswith("stillreel ")
    assert daemon.endpoint.startswith("tcp://127.0.0.1:")
    with socket.create_connection(("127.0.0.1", int(daemon.endpoint.rsplit(":", 1)[1])), 5):
        pass
    assert psutil.Process(daemon.child.pid).is_running()
    assert (daemon.data_dir / "outputs").stat().st_mode & 0o077 == 0
