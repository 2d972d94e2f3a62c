"""Workers that are killed, run out of memory or of time, and what two hundred jobs leave behind."""

import contextlib
import time
from pathlib import Path

import psutil
import pytest

from protocol.errors import RemoteError
from tests.daemon_process import DaemonProcess, Gate, Start, request, still, wait_until
from tests.load import load


def test_a_job_whose_worker_is_killed_is_tried_again_and_completes(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", ENGINE__WORKERS=1)
    daemon.client.submit(gate.request(request_id="hit"))
    wait_until(lambda: gate.fetched == 1 and daemon.encoders(), "the job is in full swing")
    orphans = daemon.encoders()
    for worker in daemon.workers():
        worker.kill()
    assert daemon.client.health().status == "ok"
    wait_until(lambda: gate.fetched == 2, "the job is tried again")
    wait_until(lambda: not any(orphan in orphans for orphan in daemon.encoders()), "no ffmpeg is left behind", 2)
    gate.open()
    assert daemon.client.wait("hit").frames == 4
    assert daemon.encoders() == []
    assert daemon.files() == []


def test_a_job_that_kills_every_worker_fails_after_its_attempts(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", ENGINE__WORKERS=1, ENGINE__ATTEMPTS=2)
    daemon.client.submit(gate.request(request_id="killer"))
    for attempt in (1, 2):
        wait_until(lambda attempt=attempt: gate.fetched == attempt and daemon.encoders(), f"attempt {attempt}")
        for worker in daemon.workers():
            worker.kill()
    daemon.wait_for("killer", "COMPLETED")
    with pytest.raises(RemoteError, match=r"killed by SIGKILL, in the last of 2 attempts"):
        daemon.client.result("killer")
    wait_until(lambda: not daemon.encoders(), "no ffmpeg is left behind", 2)
    assert not (daemon.data_dir / "outputs" / "killer").exists()
    assert daemon.client.render(request()).frames == 2


def test_a_worker_killed_while_idle_costs_nothing(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=1)
    for _ in range(2):
        daemon.client.render(request())
        for worker in daemon.workers():
            worker.kill()
    assert daemon.client.render(request(still(frames=3))).frames == 3


def test_the_fork_server_may_be_killed_too(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=1)
    daemon.client.render(request())
    for worker in daemon.workers():
        worker.parent().kill()
    assert daemon.client.render(request(still(frames=3))).frames == 3


def test_a_job_that_needs_too_much_memory_fails_alone(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=1, ENGINE__WORKER_MEMORY_BYTES=256 * 1024 * 1024)
    with pytest.raises(RemoteError, match="memory") as caught:
        daemon.client.render(
            request(still(), still((1, 2, 3))) | {"width": 8192, "height": 4352}
        )  # as large as H.264 goes
    assert caught.value.kind.name == "internal_error"
    assert daemon.client.render(request()).frames == 2


def test_a_job_that_takes_too_long_is_stopped(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", ENGINE__WORKERS=1, ENGINE__JOB_TIMEOUT_S=0.5)
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"longer than 0\.5 s") as caught:
        daemon.client.render(gate.request())
    assert time.monotonic() - began < 30  # the picture would not come for a minute
    assert caught.value.kind.name == "request_timeout"
    wait_until(lambda: not daemon.encoders(), "the encoder is gone")
    assert daemon.client.render(request()).frames == 2
    assert daemon.files() == []


@pytest.mark.load
def test_many_jobs_leave_memory_descriptors_and_processes_as_they_were(start: Start) -> None:
    """Growth over 60 jobs or more: one lost picture each would be 13 MiB, a lost request body 36 MiB.

    12 MiB are granted to daemon and worker together, for what malloc keeps and the daemon knows of finished jobs.
    """
    pictures = [still(size=(320, 240)), still((1, 2, 3), size=(320, 240)), {"url": "cid:0"}]
    daemon = start(ENGINE__WORKERS=1)

    def render(jobs: int) -> None:
        for _ in range(jobs):
            daemon.client.render(request(*pictures), attachments=[b"P5 1 1 255\n."])

    def seen() -> tuple[int, int, int]:
        processes = [*daemon.workers(), psutil.Process(daemon.child.pid)]
        return sum(p.memory_info().rss for p in processes), sum(p.num_fds() for p in processes), len(daemon.processes())

    render(load(30, 50))
    memory, descriptors, processes = seen()
    render(load(60, 150))
    assert seen()[2] == processes
    assert seen()[1] <= descriptors + 2
    assert seen()[0] - memory < 12 * 1024 * 1024
    assert daemon.files() == []


def test_many_kills_in_a_row_leave_no_process_and_no_descriptor(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=1)

    def kill_and_render(times: int) -> None:
        for _ in range(times):
            for worker in daemon.workers():
                with contextlib.suppress(psutil.Error):
                    worker.kill()
            assert daemon.client.render(request()).frames == 2

    def descriptors() -> int:
        """Count all but shared memory, which multiprocessing keeps and lends again; it grows to a few areas."""
        count = 0
        for entry in Path(f"/proc/{daemon.child.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                count += not entry.readlink().name.startswith("pym-")
        return count

    kill_and_render(2)
    before, processes = descriptors(), len(daemon.processes())
    kill_and_render(6)
    wait_until(lambda: descriptors() <= before + 2, "what the workers had is closed")
    wait_until(lambda: len(daemon.processes()) == processes, "as many processes as before")


def test_a_worker_is_a_stranger_to_the_terminal(start: Start) -> None:
    """Ctrl-C goes to the whole process group; only the daemon may act on it, by draining."""
    daemon: DaemonProcess = start(ENGINE__WORKERS=1)
    daemon.client.render(request())
    before = [worker.pid for worker in daemon.workers()]
    for worker in daemon.workers():
        worker.send_signal(2)
    daemon.client.render(request())
    assert [worker.pid for worker in daemon.workers()] == before
