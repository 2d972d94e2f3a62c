"""What goes, when, in which order, and what is said about it; with real files."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from renderer.config import RetentionSettings
from renderer.jobs.files import Files
from renderer.jobs.job import Job, State
from renderer.jobs.outcome import VIDEO_NAME
from renderer.jobs.retention import Retention
from renderer.jobs.store import JobStore
from tests.jobs.factories import FAULT, left, make_job, make_places, put, result_in

NOW = 1_000_000.0
KEEP_ALL = {"results_s": 1e6, "results": 1000, "outputs_s": 1e6, "outputs_bytes": 10**9}


class House:
    """A store with its places, and a sweep over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = JobStore(directory / "jobs.sqlite3")
        self.places = make_places(directory, directory)
        self._number = 0

    def done(self, job_id: str, age_s: float, size_bytes: int = 100, output: Path | None = None) -> Job:
        """A job that ended so long ago, with its video and its log."""
        job = self._job(job_id, age_s, output or self.places.outputs / job_id, State.DONE)
        job.output.mkdir(parents=True)
        (job.output / VIDEO_NAME).write_bytes(bytes(size_bytes))
        is_ours = output is None
        kept = {
            "result": result_in(job.output),
            "is_kept_elsewhere": not is_ours,
            "video_bytes": size_bytes if is_ours else 0,
        }
        return put(self.store, Job(**_fields(job) | kept))

    def failed(self, job_id: str, age_s: float, files: Path | None = None) -> Job:
        job = self._job(job_id, age_s, self.places.outputs / job_id, State.FAILED)
        return put(self.store, replace(job, files=files))

    def _job(self, job_id: str, age_s: float, output: Path, state: State) -> Job:
        self._number += 1
        log = self.places.logs / job_id / "log.jsonl"
        log.parent.mkdir()
        log.write_text("{}\n")
        error = FAULT if state is State.FAILED else None
        return make_job(job_id, self._number, output=output, state=state, finished_at=NOW - age_s, error=error)

    def sweep(self, **settings: float) -> None:
        retention = Retention(RetentionSettings(**KEEP_ALL | settings), self.store, self.places)
        asyncio.run(retention.sweep(NOW))

    def known(self) -> list[str]:
        return [job.id for job in self.store.newest(list(State), 100)]


def _fields(job: Job) -> dict[str, object]:
    return {name: getattr(job, name) for name in job.__slots__}


@pytest.fixture
def house(tmp_path: Path):
    house = House(tmp_path)
    yield house
    house.store.close()


def test_what_is_young_and_little_stays(house: House) -> None:
    house.done("a", 10)
    house.failed("b", 10)
    house.sweep()
    assert house.known() == ["a", "b"]
    assert left(house.directory) == ["logs/a/log.jsonl", "logs/b/log.jsonl", "outputs/a/video.mp4"]


def test_videos_go_by_age_and_their_answers_stay(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house.done("old", 100)
    young = house.done("young", 99)
    house.sweep(outputs_s=99.5)
    assert left(house.places.outputs) == ["young/video.mp4"]
    old = house.store.get("old")
    assert (old.state, old.result, old.video_bytes) == (State.DONE, result_in(old.output), 0)
    assert house.store.get("young") == young
    [record] = [record for record in caplog.records if record.name == "renderer.jobs.retention"]
    assert record.getMessage() == "its video of 100 bytes was removed: too old"
    assert (record.job, record.action) == ("old", "retention")


def test_what_a_failed_job_leaves_on_a_disk_that_is_read_only_goes_once_it_can_be_written(
    house: House, read_only: Callable[[Path], AbstractContextManager[None]], caplog: pytest.LogCaptureFixture
) -> None:
    brought = Files(house.places.attachments / "b")
    job = house.failed("a", 10, brought.directory)
    for leaving in (house.places.outputs / "a" / ".attempt-1-0f.mp4.part", brought.path_of(0)):
        leaving.parent.mkdir()
        leaving.write_bytes(b"half")
    with read_only(house.places.outputs):
        house.places.clean(job)
        house.sweep()
        assert left(house.places.outputs) == ["a/.attempt-1-0f.mp4.part"]
    assert "the files that it has left cannot be removed now; this is tried again: Read-only file system" in caplog.text
    house.sweep()
    assert (left(house.places.outputs), left(house.places.attachments)) == ([], [])


def test_what_is_left_of_a_job_that_is_forgotten_is_not_looked_for_any_more(
    house: House, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """Its id may be another job's by then."""
    job = house.failed("a", 10)
    (house.places.outputs / "a").mkdir()
    with read_only(house.places.outputs):
        house.places.clean(job)
    house.store.forget(["a"])
    (house.places.outputs / "a" / ".attempt-1-0f.mp4.part").write_bytes(b"another's")
    house.sweep()
    assert left(house.places.outputs) == ["a/.attempt-1-0f.mp4.part"]


def test_a_video_that_cannot_be_removed_is_not_forgotten(
    house: House, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    job = house.done("old", 100)
    with read_only(house.places.outputs), pytest.raises(OSError, match="Read-only"):
        house.sweep(outputs_s=50, results_s=50)
    assert house.store.get("old") == job
    house.sweep(outputs_s=50, results_s=50)
    assert (left(house.places.outputs), house.known()) == ([], [])


def test_a_store_that_names_a_place_outside_makes_nobody_lose_a_file_there(house: House, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    job = house.done("old", 100, output=elsewhere)
    house.store.update(Job(**_fields(job) | {"is_kept_elsewhere": False, "video_bytes": 100}))
    house.sweep(outputs_s=1, results_s=1)
    assert house.known() == []
    assert left(elsewhere) == ["video.mp4"]


def test_videos_go_by_size_the_oldest_first_until_the_rest_fits(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for job_id, age_s, size_bytes in [("b", 30, 500), ("a", 40, 100), ("d", 10, 50), ("c", 20, 300)]:
        house.done(job_id, age_s, size_bytes)
    house.sweep(outputs_bytes=350)
    assert left(house.places.outputs) == ["c/video.mp4", "d/video.mp4"]
    assert house.store.video_bytes() == 350
    assert [record.getMessage() for record in caplog.records if "removed" in record.getMessage()] == [
        "its video of 100 bytes was removed: too much is kept",
        "its video of 500 bytes was removed: too much is kept",
    ]


def test_answers_go_by_age_with_their_videos_and_logs(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    house.done("done", 100)
    house.failed("failed", 100)
    house.done("young", 10)
    house.sweep(results_s=50)
    assert house.known() == ["young"]
    assert left(house.directory) == ["logs/young/log.jsonl", "outputs/young/video.mp4"]
    assert [(record.job, record.getMessage()) for record in caplog.records if record.name.endswith("retention")] == [
        ("done", "its video of 100 bytes was removed: its answer goes"),
        ("done", "forgotten: its answer was kept long enough"),
        ("failed", "forgotten: its answer was kept long enough"),
    ]


def test_answers_go_by_number_the_oldest_first(house: House) -> None:
    for age_s in range(250, 0, -1):
        house.failed(f"{age_s}", age_s)
    house.sweep(results=2)
    assert house.known() == ["2", "1"]
    assert left(house.directory) == ["logs/1/log.jsonl", "logs/2/log.jsonl"]


def test_jobs_that_wait_or_run_are_never_forgotten(house: House) -> None:
    put(house.store, make_job("waits", 1, accepted_at=0.0))
    put(house.store, make_job("runs", 2, accepted_at=0.0, state=State.RUNNING))
    house.sweep(results=1, results_s=0.001, outputs_s=0.001, outputs_bytes=1)
    assert house.known() == ["waits", "runs"]


def test_a_video_that_is_kept_elsewhere_is_never_removed(house: House) -> None:
    elsewhere = house.directory / "spool" / "done" / "a"
    house.done("a", 100, output=elsewhere)
    house.sweep(outputs_bytes=1, outputs_s=1)
    assert house.known() == ["a"]
    house.sweep(results_s=1, results=1)
    assert house.known() == []
    assert left(house.directory) == ["spool/done/a/video.mp4"]


def test_a_sweep_that_was_cut_short_is_made_up_for(house: House) -> None:
    """The files are gone already, and the store does not know it yet."""
    job = house.done("a", 100)
    (job.output / VIDEO_NAME).unlink()
    house.sweep(outputs_s=50)
    assert house.store.get("a").video_bytes == 0
    assert list(house.places.outputs.iterdir()) == []


def test_a_store_that_fails_is_tried_again_later(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.done("a", 100)
    house.store._database.execute("PRAGMA query_only = ON")

    async def scenario() -> None:
        settings = RetentionSettings(**KEEP_ALL | {"outputs_s": 1})
        retention = asyncio.create_task(Retention(settings, house.store, house.places).run())
        await asyncio.sleep(0.2)
        assert not retention.done()
        retention.cancel()

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "retention failed and is tried again: the store of jobs failed: attempt to write a readonly database"
    ]
    house.store._database.execute("PRAGMA query_only = OFF")
    house.sweep(outputs_s=1)
    assert house.store.get("a").video_bytes == 0
