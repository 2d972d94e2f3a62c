"""A real daemon that is killed with -9 at chosen moments and started again over the same data directory.

Also what has to hold across its lives: one request, one job, one video; and nothing lost but by retention.
"""

import asyncio
import contextlib
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import av
import pytest

from protocol.client import AsyncClient
from protocol.errors import RemoteError
from protocol.schema import Rendered, RenderRequest
from renderer.jobs.job import State
from renderer.jobs.store import JobStore
from renderer.timeline import frame_rate, timeline
from renderer.work import Attachment, RenderJob
from tests.daemon_process import DaemonProcess, Gate, Start, picture, request, still, wait_until
from tests.jobs.factories import make_job
from tests.load import load

ONE = {"ENGINE__WORKERS": 1, "ENGINE__RETRY_PAUSE_S": 0.05}


def kill(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.child.wait()
    wait_until(lambda: not daemon.processes(), "nothing runs any more", 5)


def ended(daemon: DaemonProcess, request_id: str) -> str:
    wait_until(lambda: daemon.state(request_id) == "COMPLETED", f"{request_id} ends")
    return str(daemon.client.status(request_id).state)


def frames_of(directory: Path, request_id: str) -> int:
    """Count the frames of a video with another's eyes."""
    with av.open(str(directory / "data" / "outputs" / request_id / "video.mp4")) as container:
        return sum(1 for _ in container.decode(video=0))


def videos(directory: Path) -> list[str]:
    return sorted(path.parent.name for path in (directory / "data" / "outputs").glob("*/video.mp4"))


# Killed.


def test_jobs_that_waited_ran_and_paused_are_all_done_after_a_kill(start: Start, gate: Gate, tmp_path: Path) -> None:
    killed = start(ENGINE__WORKERS=1, ENGINE__RETRY_PAUSE_S=60)
    client = killed.client
    client.submit(gate.request(request_id="paused"))
    wait_until(lambda: gate.fetched == 1, "it is in full swing")
    for worker in killed.workers():
        worker.kill()
    wait_until(lambda: client.status("paused").attempts == 1 and killed.state("paused") == "IN_QUEUE", "it pauses")
    client.submit(gate.request(request_id="dropped"))
    wait_until(lambda: gate.fetched == 2, "another is in full swing")
    for worker in killed.workers():
        worker.kill()
    wait_until(lambda: client.status("dropped").attempts == 1 and killed.state("dropped") == "IN_QUEUE", "it pauses")
    assert client.cancel("dropped").state == "cancelled"
    client.submit(gate.request(request_id="running"))
    wait_until(lambda: gate.fetched == 3, "a third is in full swing")
    raw = {"shape": [2, 2, 3], "order": "RGB"}
    brought = request({"url": "cid:0", "frames": 3}, {"url": "cid:1"}, still(), request_id="waiting")
    client.submit(brought | {"attachments": [None, raw]}, [picture((9, 9, 9)), bytes(12)])
    client.submit(request(still(frames=7), request_id="low", priority="low"))
    assert len(killed.files()) >= 6
    kill(killed)
    gate.open()
    daemon = start(**ONE)
    states = {job.request_id: job.state for job in daemon.client.jobs()}
    assert list(states) == ["paused", "dropped", "running", "waiting", "low"]
    assert states["dropped"] == "cancelled"
    assert {name: ended(daemon, name) for name in ("paused", "running", "waiting", "low")} == dict.fromkeys(
        ("paused", "running", "waiting", "low"), "done"
    )
    found = {name: frames_of(tmp_path, name) for name in videos(tmp_path)}
    assert found == {"paused": 4, "running": 4, "waiting": 6, "low": 7}
    begun = {job.request_id: job.attempts for job in daemon.client.jobs()}
    assert begun == {"paused": 2, "dropped": 1, "running": 1, "waiting": 1, "low": 1}
    assert daemon.files() == []
    assert daemon.stop() == 0
    assert "Traceback" not in killed.words() + daemon.words()


class Left:
    """What a daemon that was killed has left, made by hand: jobs in the store, and files."""

    def __init__(self, data: Path) -> None:
        self.data = data
        for part in ("attachments", "outputs"):
            (data / part).mkdir(parents=True)
        self._store = JobStore(data / "jobs.sqlite3")

    def job(self, job_id: str, state: State, **fields: Any) -> None:
        """Leave a job in this state, with its attachment and, unless it is done, an attempt that is half written."""
        files, output = self.data / "attachments" / job_id, self.data / "outputs" / job_id
        for directory in (files, output):
            directory.mkdir()
        (files / "0").write_bytes(picture((1, 2, 3)))
        if state is not State.DONE:
            (output / ".attempt-1-12345678.mp4.part").write_bytes(b"half")
        number = self._store.last_number() + 1
        job = make_job(job_id, number, output=output, files=files, accepted_at=time.time(), **fields)
        asked = RenderRequest.model_validate(request({"url": "cid:0", "frames": 2}))
        line = timeline(asked.images, frame_rate(asked.fps))
        self._store.add(job, RenderJob(asked, line, (Attachment(files / "0"),)))
        running = job.moved(State.RUNNING, attempts=1, started_at=time.time())
        self._store.update(running)
        if state is not State.RUNNING:
            self._store.update(running.moved(state, finished_at=time.time()))

    def video(self, job_id: str) -> None:
        (self.data / "outputs" / job_id / "video.mp4").write_bytes(b"of the daemon that was killed")

    def files(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.data))
            for part in ("attachments", "outputs")
            for path in (self.data / part).rglob("*")
        )

    def close(self) -> None:
        self._store.close()


def test_a_kill_at_any_moment_leaves_one_video_or_one_error_and_nothing_else(start: Start, tmp_path: Path) -> None:
    left = Left(tmp_path / "data")
    left.job("named", State.RUNNING)  # the video has its name, and the store does not know it yet
    left.video("named")
    left.job("done", State.DONE)  # the store knows it, and its files are still there
    left.video("done")
    left.job("failed", State.FAILED)
    left.job("ninth", State.RUNNING, interruptions=8)
    left.job("last", State.RUNNING, interruptions=9)
    left.close()
    daemon = start(**ONE)
    assert ended(daemon, "named") == ended(daemon, "ninth") == "done"
    with pytest.raises(RemoteError, match="the daemon died while it ran, 10 times") as caught:
        daemon.client.result("last")
    assert caught.value.kind.name == "internal_error"
    made = tmp_path / "data" / "outputs" / "named" / "video.mp4"
    assert (frames_of(tmp_path, "named"), frames_of(tmp_path, "ninth")) == (2, 2)
    assert daemon.client.result("named").video.file_size == made.stat().st_size
    assert daemon.client.status("named").attempts == 1
    assert left.files() == [
        "outputs/done", "outputs/done/video.mp4",
        "outputs/named", "outputs/named/video.mp4",
        "outputs/ninth", "outputs/ninth/video.mp4",
    ]  # fmt: skip


# What lies in the directories.


def test_orphans_are_swept_and_videos_never_even_if_the_store_was_moved_away(start: Start, tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = start(**ONE)
    first.client.render(request(request_id="old"))
    assert first.stop() == 0
    (data / "attachments" / "orphan").mkdir()
    (data / "attachments" / "orphan" / "0").touch()
    (data / "outputs" / "half").mkdir()
    (data / "outputs" / "half" / ".attempt-1-0.mp4.part").touch()
    for path in data.glob("jobs.sqlite3*"):
        path.rename(tmp_path / path.name)
    second = start(**ONE)
    assert videos(tmp_path) == ["old"]
    assert second.files() == ["0"]  # a store that knows no job may be the part that was lost: attachments stay
    assert [path.name for path in (data / "outputs").iterdir()] == ["old"]
    assert second.client.jobs() == []
    assert second.client.render(request(still(frames=5), request_id="old")).frames == 5
    assert frames_of(tmp_path, "old") == 5


def test_a_data_directory_that_is_named_otherwise_loses_no_job(start: Start, gate: Gate, tmp_path: Path) -> None:
    first = start(**ONE)
    first.client.submit(gate.request(request_id="running"))
    wait_until(lambda: gate.fetched == 1, "it is in full swing")
    first.client.submit(request({"url": "cid:0"}, request_id="a"), [picture((1, 2, 3))])
    kill(first)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "data").symlink_to("moved")
    gate.open()
    shutil.rmtree(tmp_path / "moved" / "scratch")
    second = start("--data-dir", tmp_path / "moved", **ONE)
    assert ended(second, "a") == ended(second, "running") == "done"


# One request, one job.


@pytest.mark.load
def test_hundreds_of_one_request_at_once_are_rendered_once(start: Start, tmp_path: Path) -> None:
    calls = load(10, 50)  # of each client
    daemon = start(ENGINE__WORKERS=1, ENGINE__MAX_QUEUED=2)
    asked = request(still(size=(64, 48)), still((1, 2, 3)), request_id="crowd")

    async def ask_all() -> list[Rendered]:
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(AsyncClient(daemon.endpoint, timeout_s=60)) for _ in range(20)
            ]  # what is told of a job is told to each call of a client that asks for it
            return await asyncio.gather(*(client.render(asked) for client in clients * calls))

    results = asyncio.run(ask_all())
    assert len(results) == 20 * calls
    assert all(result == results[0] for result in results)
    assert daemon.words().count("accepted: 2 images") == 1
    assert [job.attempts for job in daemon.client.jobs()] == [1]
    assert daemon.files() == []
    assert videos(tmp_path) == ["crowd"]


def test_a_request_is_known_after_a_restart_and_another_under_its_id_is_refused(start: Start) -> None:
    asked = request({"url": "cid:0"}, request_id="a", metadata={"n": 1})
    first = start(**ONE)
    made = first.client.render(asked, attachments=[picture((1, 2, 3))])
    kill(first)
    second = start(**ONE)
    assert second.client.render(asked, attachments=[picture((1, 2, 3))]) == made
    assert second.client.result("a") == made
    for other, brought in [(asked | {"crf": 3}, picture((1, 2, 3))), (asked, picture((3, 2, 1)))]:
        with pytest.raises(RemoteError) as caught:
            second.client.render(other, attachments=[brought])
        assert caught.value.kind.name == "request_id_conflict"
    assert len(second.client.jobs()) == 1
    assert second.files() == []


def test_a_request_is_known_until_retention_ends_and_then_new(start: Start, tmp_path: Path) -> None:
    first = start(**ONE)
    before = first.client.render(request(request_id="a"))
    first.client.render(request(still(frames=3), request_id="b", sync_mode=True))
    assert first.stop() == 0
    second = start(RETENTION__RESULTS=1, RETENTION__OUTPUTS_BYTES=1, **ONE)
    wait_until(lambda: len(second.client.jobs()) == 1, "the older is forgotten")
    assert videos(tmp_path) == []
    with pytest.raises(RemoteError, match="no job has this id, or it was forgotten since"):
        second.client.result("a")
    again = second.client.render(request(still(frames=9), request_id="a"))
    assert (before.frames, again.frames) == (2, 9)
    # Of the younger, the answer is still known and the video is not there.
    with pytest.raises(RemoteError, match="the job's video has expired and was removed") as caught:
        second.client.result("b")
    assert caught.value.kind.name == "not_found"
    assert second.client.status("b").state == "done"
    words = second.words()
    assert "bytes was removed: too much is kept" in words
    assert words.count("forgotten: its answer was kept long enough") == 1
