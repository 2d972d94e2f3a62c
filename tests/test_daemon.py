"""Starting, draining, stopping and being killed, with real processes."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import zmq
import zmq.asyncio

from protocol.client import Client
from protocol.schema import Rendered
from renderer.jobs.job import State
from renderer.jobs.schema import MIGRATIONS
from renderer.jobs.store import JobStore
from tests import cli_process
from tests.daemon_process import Gate, Start, request, still, wait_until
from tests.jobs.factories import fill

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Return a function that runs `serve`, which must refuse to start, and returns its one line."""

    def run(*arguments: str | Path, **environment: str) -> str:
        ended = cli_process.run("serve", "--data-dir", tmp_path / "data", *arguments, cwd=tmp_path, **environment)
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


def raw(endpoint: str, method: str, params: dict[str, object]) -> dict[str, object]:
    """Ask with a plain REQ socket, which tries nothing again, and return the whole answer."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        socket.send_json({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        answer = socket.recv_json()
        assert isinstance(answer, dict)
        return answer


def test_sigterm_lets_the_running_job_end_and_keeps_the_waiting_ones_for_the_next_daemon(
    start: Start, gate: Gate
) -> None:
    daemon = start("--workers", "1")
    running = Asking(daemon.endpoint, gate.request(request_id="running"))
    wait_until(daemon.encoders, "the encoder runs")
    waiting = Asking(daemon.endpoint, request(still(frames=7), request_id="waiting"))
    wait_until(lambda: daemon.client.health().jobs_queued == 1, "one job waits")
    daemon.signal(signal.SIGTERM)
    wait_until(lambda: daemon.client.health().status == "draining", "the daemon drains")
    health = daemon.client.health()
    assert (health.live, health.ready, health.reasons) == (True, False, ("the daemon is stopping",))
    refused = raw(daemon.endpoint, "submit", request())["error"]
    assert refused["message"] == "the daemon is stopping; send the request again once it is back"
    assert (refused["data"]["type"], refused["data"]["retryable"]) == ("shutting_down", True)
    kept = raw(daemon.endpoint, "render", request(still(frames=7), request_id="waiting"))["error"]
    assert kept["message"] == "the daemon is stopping; the job is kept and goes on once it is back"
    assert daemon.client.status("waiting").status == "IN_QUEUE"
    gate.open()
    made = running.ended()
    assert isinstance(made, Rendered)
    assert made.frames == 4
    assert daemon.child.wait(45) == 0
    wait_until(lambda: not daemon.processes(), "nothing runs any more")
    assert list(daemon.temporary.iterdir()) == []
    assert "Traceback" not in daemon.words()
    start(bind=daemon.endpoint)
    made = waiting.ended()
    assert isinstance(made, Rendered)
    assert (made.request_id, made.frames) == ("waiting", 7)


def test_the_second_signal_stops_at_once_and_hands_the_running_job_back(start: Start, gate: Gate) -> None:
    daemon = start("--workers", "1")
    running = Asking(daemon.endpoint, gate.request(request_id="running"))
    wait_until(daemon.encoders, "the encoder runs")
    daemon.signal(signal.SIGINT)
    wait_until(lambda: daemon.client.health().status == "draining", "the daemon drains")
    daemon.signal(signal.SIGTERM)
    assert daemon.child.wait(45) == 0, "within the time of a drain"
    wait_until(lambda: not daemon.processes(), "nothing runs any more")
    assert daemon.files() == ["0"], "its picture is kept"
    assert list((daemon.data_dir / "outputs").glob("*/*")) == []
    assert list(daemon.temporary.iterdir()) == []
    assert "Traceback" not in daemon.words()
    gate.open()
    daemon = start(bind=daemon.endpoint)
    assert isinstance(running.ended(), Rendered)
    assert daemon.client.status("running").attempts == 1


def test_a_drain_ends_when_its_time_is_up_and_hands_the_job_back(start: Start, gate: Gate) -> None:
    daemon = start(SERVER__DRAIN_TIMEOUT_S=0.2)
    daemon.client.submit(gate.request(request_id="a"))
    wait_until(daemon.encoders, "the encoder runs")
    assert daemon.stop() == 0
    wait_until(lambda: not daemon.processes(), "nothing runs any more")
    with contextlib.closing(JobStore(daemon.data_dir / "jobs.sqlite3")) as store:
        [job] = store.unfinished()
    assert (job.id, job.state, job.attempts, job.setback) == ("a", State.QUEUED, 0, "the daemon stopped")


def test_a_killed_daemon_takes_its_processes_along_and_the_next_one_clears_up(start: Start, gate: Gate) -> None:
    killed = start("--workers", "2")
    for name in ("one", "two"):
        sent = {**gate.request(request_id=name), "images": [*gate.request()["images"], {"url": "cid:0"}]}
        killed.client.submit(sent, [b"P5 1 1 255\n."])
    wait_until(lambda: len(killed.encoders()) == 2, "two encoders run")
    (killed.data_dir / "outputs" / "one" / ".attempt-1-0.mp4.part").write_bytes(b"half")
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    wait_until(lambda: not killed.processes(), "nothing runs any more")
    gate.open()
    daemon = start()
    assert list(killed.temporary.iterdir()) == []
    for name in ("one", "two"):
        assert daemon.client.wait(name).frames == 5
    assert daemon.files() == []
    assert daemon.client.render(request(request_id="three")).frames == 2


def test_workers_and_encoders_give_way_to_the_daemon(start: Start, gate: Gate) -> None:
    daemon = start()
    daemon.client.submit(gate.request(request_id="one"))
    wait_until(lambda: len(daemon.encoders()) == 1, "an encoder runs")
    nice = psutil.Process().nice()
    assert {process.nice() - nice for process in [*daemon.workers(), *daemon.encoders()]} == {5}
    assert psutil.Process(daemon.child.pid).nice() == psutil.Process().nice()
    gate.open()
    assert daemon.client.wait("one").frames == 4


def test_a_daemon_that_is_ready_answers_while_its_workers_are_still_starting(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time\nif 'forkserver' in ' '.join(sys.orig_argv): time.sleep(3)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    daemon = start()
    with Client(daemon.endpoint, patience_s=2.5) as client:
        assert client.health().jobs_running == 0
        assert daemon.workers() == []
        assert client.render(request()).frames == 2


def test_libraries_in_workers_and_encoders_are_told_to_start_no_threads(start: Start, gate: Gate) -> None:
    daemon = start()
    daemon.client.submit(gate.request(request_id="one"))
    wait_until(lambda: len(daemon.encoders()) == 1, "an encoder runs")
    for process in [*daemon.workers(), *daemon.encoders()]:
        environment = process.environ()
        assert (environment["OPENBLAS_NUM_THREADS"], environment["OPENCV_FOR_THREADS_NUM"]) == ("1", "1")
    gate.open()
    assert daemon.client.wait("one").frames == 4


# What keeps it from starting.


def damaged(data: Path) -> None:
    (data / "jobs.sqlite3").write_bytes(b"this is no database, but it was one" * 100)


def cut_short(data: Path) -> None:
    JobStore(data / "jobs.sqlite3").close()
    os.truncate(data / "jobs.sqlite3", 8192)


def of_another_program(data: Path) -> None:
    with contextlib.closing(sqlite3.connect(data / "jobs.sqlite3")) as database:
        database.executescript("CREATE TABLE a (b INTEGER)")


def of_a_newer_version(data: Path) -> None:
    JobStore(data / "jobs.sqlite3", (*MIGRATIONS, "CREATE TABLE a (b INTEGER)")).close()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (damaged, "the store of jobs is damaged (file is not a database); restore it, or move it away to begin with"),
        (cut_short, "the store of jobs is damaged ("),
        (of_another_program, "this is not a store of stillreel"),
        (of_a_newer_version, "made by a newer version of stillreel"),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(
    refused: Refused, tmp_path: Path, prepare: Callable[[Path], None], words: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    prepare(data)
    before = (data / "jobs.sqlite3").read_bytes()
    assert refused().startswith(f"error: server.data_dir: {data}/jobs.sqlite3: {words}")
    assert (data / "jobs.sqlite3").read_bytes() == before


def test_a_store_that_another_program_holds_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "jobs.sqlite3"
    JobStore(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        assert refused() == f"error: server.data_dir: {path}: another program holds the store of jobs"


@pytest.fixture
def small_data(tmpfs: Callable[[str, str], Path]) -> Path:
    """A data directory on a file system of its own, which may be filled, or mounted again to be read only."""
    return tmpfs("data", "600k")


def test_a_full_disk_is_refused(refused: Refused, small_data: Path) -> None:
    JobStore(small_data / "jobs.sqlite3").close()
    for part in ("outputs", "attachments", "logs", "scratch"):
        (small_data / part).mkdir()
    (small_data / "lock").touch()
    (small_data / "id").write_text("1" * 32)
    fill(small_data)
    assert refused() == f"error: server.data_dir: {small_data}/jobs.sqlite3: the disk is full"


def test_a_disk_that_may_only_be_read_is_refused(refused: Refused, small_data: Path) -> None:
    JobStore(small_data / "jobs.sqlite3").close()
    read_only = 32 | 1  # MS_REMOUNT, MS_RDONLY
    assert ctypes.CDLL(None).mount(b"tmpfs", os.fsencode(small_data), b"tmpfs", read_only, b"") == 0
    assert refused() == f"error: server.data_dir: {small_data}: Read-only file system"


def test_an_endpoint_that_is_taken_is_refused(refused: Refused) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        assert refused("--bind", endpoint) == f"error: server.bind: {endpoint}: Address already in use"


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:5590", "tcp://0.0.0.0:*", "tcp://10.1.2.3:5590", "tcp://[::]:5590", "tcp://host:1"]
)
def test_an_endpoint_that_others_could_reach_is_refused_without_keys(endpoint: str, refused: Refused) -> None:
    words = "is open to other machines, and there are no CURVE keys yet; make one first: stillreel keys curve NAME"
    assert refused("--bind", endpoint) == f"error: server.bind: {endpoint} {words}"


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1", "tcp://[::1", "udp://127.0.0.1:5590", "ipc://"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str, refused: Refused) -> None:
    words = refused("--bind", endpoint)
    assert "server.bind: " in words
    assert endpoint in words


@pytest.mark.parametrize(
    ("toml", "path"),
    [
        ("[limits]\nmax_imagez = 3", "limits.max_imagez"),
        ("[engine]\nworkers = 0", "engine.workers"),
    ],
)
def test_a_setting_that_is_wrong_is_named_by_its_path(refused: Refused, tmp_path: Path, toml: str, path: str) -> None:
    (tmp_path / "settings.toml").write_text(toml)
    assert refused("--config", tmp_path / "settings.toml").startswith(f"error: settings: {path}: ")


def test_a_configuration_file_that_cannot_be_read_is_named(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "missing.toml") in refused("--config", tmp_path / "missing.toml")


def test_a_variable_that_is_wrong_is_named(refused: Refused) -> None:
    words = (
        "error: environment: STILLREEL_LIMITS__MAX_IMAGEZ is not a setting; did you mean STILLREEL_LIMITS__MAX_IMAGES?"
    )
    assert refused(STILLREEL_LIMITS__MAX_IMAGEZ="3").startswith(words)


def test_a_root_that_is_no_directory_is_refused(refused: Refused, tmp_path: Path) -> None:
    line = refused("--allow-root", tmp_path / "missing")
    assert line == f"error: fetch.allow_roots: expected a directory, found {tmp_path / 'missing'}"


@pytest.mark.parametrize("variable", ["STILLREEL_ENCODE__FFMPEG", "IMAGEIO_FFMPEG_EXE"])
def test_an_ffmpeg_that_is_not_there_is_refused(refused: Refused, variable: str) -> None:
    assert (
        refused(**{variable: "/nowhere/ffmpeg"})
        == "error: encode.ffmpeg: expected a program that can be run, found /nowhere/ffmpeg"
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
