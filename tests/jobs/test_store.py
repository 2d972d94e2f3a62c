"""The jobs on disk, with real SQLite: what is kept, what is refused, what a kill, a full disk and damage leave."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from protocol.schema import Fault, PixelLayout, Progress, RenderParams, RenderResult
from renderer.errors import ConfigError, StorageFull, StoreFailed
from renderer.jobs.hooks import Hook
from renderer.jobs.job import MOVES, Job, State
from renderer.jobs.schema import MIGRATIONS
from renderer.jobs.store import JobStore
from renderer.timeline import frame_rate, timeline
from renderer.work import Attachment, RenderJob
from tests.jobs.factories import FAULT, RESULT, fill, make_job, make_work, put, stored_in

VIEW = """
import sqlite3, sys
from pathlib import Path
from renderer.jobs.job import State
from renderer.jobs.schema import MIGRATIONS
from renderer.jobs.store import JobStore
from tests.jobs.factories import RESULT, make_job, make_work
"""

# Adds job after job and takes each to its end; every line that it prints is about what has been answered.
WRITER = f"""{VIEW}
store, work = JobStore(Path(sys.argv[1])), make_work()
number = store.last_number()
while True:
    number += 1
    job = make_job(f"job{{number}}", number)
    store.add(job, work)
    print(job.id, "queued", flush=True)
    for state in (State.RUNNING, State.DONE):
        job = store.update(job.moved(state, result=RESULT if state is State.DONE else None))
        print(job.id, job.state.value, flush=True)
"""

# Waits within a migration until it is killed.
SLOW_MIGRATION = f"""{VIEW}
import sqlite3, time
real = sqlite3.connect
def connect(*args, **named):
    database = real(*args, **named)
    database.create_function("pause", 0, lambda: print("within", flush=True) or time.sleep(60))
    return database
sqlite3.connect = connect
script = "ALTER TABLE jobs ADD COLUMN colour TEXT; CREATE TABLE other (a INTEGER); SELECT pause();"
JobStore(Path(sys.argv[1]), (*MIGRATIONS, script))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[JobStore]:
    store = JobStore(path)
    yield store
    store.close()


def child(program: str, *arguments: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


# What is kept.


FULL = make_job(
    "a.b_c-D",
    7,
    client="zmq:006b8b4567",
    priority="low",
    output=Path(os.fsdecode(b"/videos/\xff\xfe")),
    is_kept_elsewhere=True,
    files=Path(os.fsdecode(b"/files/\xe9\xff")),
    sync_mode=True,
    start_by=1_700_000_100.125,
    state=State.QUEUED,
    attempts=2,
    interruptions=4,
    setback="its worker was killed by SIGKILL",
    progress=Progress(images=3, frames=90, images_done=1, stage="rendering"),
    started_at=1_700_000_001.0625,
)


@pytest.mark.parametrize(
    "job",
    [
        make_job(),
        FULL,
        make_job(state=State.DONE, result=RESULT, finished_at=1.5, video_bytes=2**40),
        make_job(state=State.FAILED, error=FAULT, finished_at=1.5),
        make_job(state=State.CANCELLED, finished_at=2.0),
        make_job(state=State.EXPIRED, finished_at=2.0),
    ],
    ids=lambda job: job.state.value,
)
def test_every_field_comes_back_as_it_was_also_after_the_store_is_opened_again(path: Path, job) -> None:
    store = JobStore(path)
    store.add(job, make_work())
    assert store.get(job.id) == job
    store.close()
    reopened = JobStore(path)
    assert reopened.get(job.id) == job
    reopened.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"images": [{"url": "cid:0"}]},
        {"images": [{"url": "a.png", "duration": 0.1}, {"url": "b.png", "frames": 7}], "fps": 29.97},
        {"images": [{"url": "a.png"}], "fps": "24000/1001", "width": 64, "crf": 0, "start_timeout": 2.5},
        {"images": [{"url": "a.png"}], "metadata": {"deep": [{"\0": 10**40, "é": None}]}, "sync_mode": True},
        {"images": [{"url": "a.png"}], "progress": True, "request_id": "mine", "priority": "low"},
    ],
)
def test_what_a_job_is_made_from_comes_back_as_it_was(store: JobStore, fields) -> None:
    request, files = RenderParams.model_validate(fields), Path(os.fsdecode(b"/files/\xff"))
    attachments = (
        Attachment(files / "0"),
        Attachment(files / "1", PixelLayout(shape=(2, 3, 4), dtype="uint16", order="BGRA")),
    )
    work = RenderJob(request, timeline(request.images, frame_rate(request.fps)), attachments, Path("/base"), True)
    store.add(make_job(files=files), work)
    found = store.work("a")
    assert (found.timeline, found.attachments, found.base, found.any_path) == (
        work.timeline,
        attachments,
        Path("/base"),
        True,
    )
    wire_only = {"attachments", "progress"}
    assert found.request.model_dump() == request.model_dump(exclude=wire_only)
    assert found.request.model_fields_set == request.model_fields_set - wire_only


def test_a_job_that_has_ended_lets_go_of_what_it_was_made_from(store: JobStore) -> None:
    put(store, make_job(state=State.RUNNING))
    assert store.work("a").request.images
    store.update(make_job(state=State.DONE, result=RESULT))
    with pytest.raises(StoreFailed, match="job a has nothing in the store"):
        store.work("a")


def test_a_job_that_failed_keeps_what_it_was_made_from_unless_pictures_came_along_or_it_is_large(
    store: JobStore, tmp_path: Path
) -> None:
    for name, files, images in (("a", None, 2), ("b", tmp_path / "files", 2), ("c", None, 20_000)):
        request = RenderParams.model_validate({"images": [{"url": f"{n:060}.png"} for n in range(images)]})
        work = RenderJob(request, timeline(request.images, frame_rate(24)))
        store.add(make_job(name, ord(name), files=files, state=State.RUNNING), work)
        store.update(make_job(name, ord(name), files=files, state=State.FAILED, error=FAULT))
    assert len(store.work("a").request.images) == 2
    for name in ("b", "c"):
        with pytest.raises(StoreFailed, match=f"job {name} has nothing in the store"):
            store.work(name)


def test_a_job_that_waits_again_keeps_what_it_is_made_from(store: JobStore) -> None:
    put(store, make_job(state=State.RUNNING))
    store.update(make_job())
    assert store.work("a").timeline.frames == 2


def test_a_work_that_cannot_be_read_back_is_an_error_of_the_store(store: JobStore) -> None:
    put(store, make_job())
    for document in ("{}", "[]", "no json", '{"request": {}, "attachments": [], "base": null, "any_path": false}'):
        store._database.execute("UPDATE jobs SET work = ?", (document,))
        with pytest.raises(StoreFailed, match="the job cannot be read back from the store"):
            store.work("a")


def test_nobody_has_an_unknown_id(store: JobStore) -> None:
    assert store.get("nobody") is None
    with pytest.raises(StoreFailed, match="job nobody has nothing in the store"):
        store.work("nobody")


def test_an_id_belongs_to_one_job(store: JobStore) -> None:
    put(store, make_job())
    with pytest.raises(StoreFailed):
        store.add(make_job(number=2), make_work())
    assert store.get("a") == make_job()


# Changes.


@pytest.mark.parametrize(("stored", "known"), list(product(State, State)), ids=lambda state: state.value)
def test_a_change_is_refused_unless_the_stored_state_is_the_known_one(
    store: JobStore, path: Path, stored: State, known: State
) -> None:
    kept = put(store, make_job(state=known, attempts=1))
    store._database.execute("UPDATE jobs SET state = ?", (stored.value,))
    after = make_job(state=next((after for before, after in MOVES if before is known), known), attempts=2)
    if stored is known:
        assert store.update(after) == store.get("a") == stored_in(path, "a") == after
    else:
        with pytest.raises(StoreFailed, match=f"job a is not {known.value} in the store"):
            store.update(after)
        assert stored_in(path, "a") == replace(kept, state=stored)


def test_a_change_of_a_job_that_is_not_there_is_refused(store: JobStore) -> None:
    with pytest.raises(StoreFailed, match="job a is not running in the store"):
        store.update(make_job(state=State.RUNNING))


def test_a_finished_job_may_change_but_not_its_state(store: JobStore) -> None:
    put(store, make_job(state=State.DONE, result=RESULT, video_bytes=10))
    store.update(make_job(state=State.DONE, result=RESULT, video_bytes=0))
    assert store.get("a").video_bytes == 0
    with pytest.raises(StoreFailed):
        store.update(make_job(state=State.RUNNING))


# Lists.


def test_unfinished_jobs_come_in_order_of_arrival(store: JobStore) -> None:
    for number, state in enumerate([State.DONE, State.RUNNING, State.QUEUED, State.CANCELLED, State.QUEUED], 1):
        put(store, make_job(f"{state.value}{number}", number, state=state))
    assert [job.id for job in store.unfinished()] == ["running2", "queued3", "queued5"]
    assert store.last_number() == 5


def test_the_newest_are_listed_by_state_in_order_of_arrival(store: JobStore) -> None:
    for number in range(1, 8):
        put(store, make_job(f"{number}", number, state=State.DONE if number % 2 else State.FAILED))
    assert [job.id for job in store.newest(list(State), 3)] == ["5", "6", "7"]
    assert [job.id for job in store.newest([State.DONE], 2)] == ["5", "7"]
    assert store.newest([State.RUNNING], 2) == []


def test_finished_jobs_are_found_by_age_number_and_video(store: JobStore) -> None:
    for number, ended in enumerate([30.0, 10.0, 20.0], 1):
        put(store, make_job(f"{number}", number, state=State.DONE, finished_at=ended, video_bytes=100 * number))
    put(store, make_job("4", 4, state=State.FAILED, finished_at=5.0))
    put(store, make_job("5", 5))
    assert [job.id for job in store.finished_before(20.0, 9)] == ["4", "2"]
    assert [job.id for job in store.finished_before(20.0, 1)] == ["4"]
    assert [job.id for job in store.finished_beyond(1, 9)] == ["4", "2", "3"]
    assert [job.id for job in store.finished_beyond(1, 2)] == ["4", "2"]
    assert store.finished_beyond(4, 9) == store.finished_beyond(9, 9) == []
    assert store.oldest_with_video().id == "2"
    assert store.video_bytes() == 600
    store.forget(["2", "4", "never"])
    assert store.oldest_with_video().id == "3"
    assert store.finished_before(20.0, 9) == []
    assert store.get("2") is None


def test_a_store_without_videos_has_none(store: JobStore) -> None:
    assert (store.oldest_with_video(), store.video_bytes(), store.last_number()) == (None, 0, 0)


# In memory.


def test_a_store_that_is_opened_knows_the_unfinished_jobs(store: JobStore, path: Path) -> None:
    put(store, make_job("done", 1, state=State.DONE, result=RESULT))
    put(store, make_job("waits", 2))
    put(store, make_job("runs", 3, state=State.RUNNING))
    with contextlib.closing(JobStore(path)) as opened:
        assert [job.id for job in opened.unfinished()] == ["waits", "runs"]
        assert opened.last_number() == 3
        assert (opened.count(State.QUEUED), opened.count(State.RUNNING)) == (1, 1)
        assert opened.get("done").result == RESULT
        assert (opened.live("done"), opened.live("waits")) == (None, make_job("waits", 2))


def test_numbers_go_on_where_the_newest_job_ended(store: JobStore) -> None:
    for name in "abc":
        store.add(make_job(name, store.last_number() + 1), make_work())
    assert [job.number for job in store.unfinished()] == [1, 2, 3]


def test_what_cannot_be_written_is_not_known(store: JobStore) -> None:
    store.add(make_job(), make_work())
    store._database.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreFailed):
        store.add(make_job("b", 2), make_work())
    with store.watching("a") as changed:
        with pytest.raises(StoreFailed):
            store.update(make_job(state=State.RUNNING))
        assert not changed.is_set()
    assert (store.get("b"), store.last_number()) == (None, 1)
    assert store.get("a").state is State.QUEUED


def test_progress_is_seen_and_not_stored(store: JobStore, path: Path) -> None:
    store.add(make_job(), make_work())
    job = store.update(make_job(state=State.RUNNING))
    further = replace(job, progress=Progress(images=1, frames=2, images_done=1, stage="rendering"))
    with store.watching("a") as changed:
        store.note(further)
        assert changed.is_set()
    assert store.get("a") == further
    assert store.newest([State.RUNNING], 9) == [further]
    assert stored_in(path, "a") == job


def test_progress_of_another_state_comes_too_late(store: JobStore) -> None:
    store.add(make_job(), make_work())
    running = store.update(make_job(state=State.RUNNING))
    waiting = store.update(make_job())
    store.note(running)
    assert store.get("a") == waiting
    store.update(make_job(state=State.CANCELLED))
    store.note(waiting)
    assert store.get("a").state is State.CANCELLED
    assert store.unfinished() == []


def test_unfinished_jobs_are_counted_by_state_and_owner_also_when_the_store_is_opened_again(
    store: JobStore, path: Path
) -> None:
    for number, (name, state) in enumerate(
        [("k~1", State.QUEUED), ("k~2", State.QUEUED), ("k~3", State.RUNNING), ("4", State.QUEUED), ("k~5", State.DONE)]
    ):
        put(store, make_job(name, number + 1, state=state, result=RESULT if state is State.DONE else None))
    for each in (store, JobStore(path)):
        counts = [each.count(state, owner) for state in (State.QUEUED, State.RUNNING) for owner in ("", "k", "other")]
        assert counts == [3, 2, 0, 1, 1, 0]
    each.close()


def run_jobs(store: JobStore, count: int) -> list[Job]:
    return [put(store, make_job(f"{number}", number, state=State.RUNNING)) for number in range(1, count + 1)]


def test_jobs_that_end_together_are_flushed_together(store: JobStore, path: Path) -> None:
    class Log:
        """The store's log, which notes when it is asked for."""

        asked = 0

        def fileno(self) -> int:
            self.asked += 1
            return log.fileno()

    async def end(jobs: list[Job]) -> None:
        await asyncio.gather(*(store.end(job.moved(State.FAILED, finished_at=1.0)) for job in jobs))

    running, log, store._log = run_jobs(store, 30), store._log, Log()
    asyncio.run(end(running))
    assert store._log.asked in {1, 2}
    store._log = log
    assert {stored_in(path, job.id).state for job in running} == {State.FAILED}
    assert (store.unfinished(), store.count(State.RUNNING)) == ([], 0)


def test_an_end_is_seen_once_it_is_flushed_and_not_before(store: JobStore, path: Path) -> None:
    async def play(job: Job) -> None:
        async with store._flushing:
            ending = asyncio.create_task(store.end(job.moved(State.FAILED, finished_at=1.0)))
            await asyncio.sleep(0)
            assert (stored_in(path, job.id).state, store.get(job.id).state) == (State.FAILED, State.RUNNING)
        await ending
        assert store.get(job.id).state is State.FAILED

    asyncio.run(play(*run_jobs(store, 1)))


@contextlib.contextmanager
def unflushable(store: JobStore) -> Iterator[None]:
    """Have each flush fail meanwhile."""
    log, pipe = store._log, os.pipe()
    store._log = pipe[0]
    try:
        yield
    finally:
        store._log = log
        for end in pipe:
            os.close(end)


def test_an_end_that_could_not_be_flushed_is_not_seen_and_may_be_tried_again(store: JobStore) -> None:
    async def play(job: Job) -> None:
        after = job.moved(State.FAILED, finished_at=1.0)
        with unflushable(store):
            for _ in range(2):
                with pytest.raises(StoreFailed, match="cannot be written"):
                    await store.end(after)
                assert store.get(job.id) == job
        await store.end(after)
        assert store.get(job.id) == after

    asyncio.run(play(*run_jobs(store, 1)))


def test_what_a_failed_flush_may_have_left_out_is_on_disk_before_the_next_one_is_said_to_be_good(
    store: JobStore, path: Path
) -> None:
    async def play() -> None:
        store.add(make_job("a"), make_work(), is_synced=False)
        with unflushable(store), pytest.raises(StoreFailed):
            await store.flushed()
        await store.flushed()

    def without_log() -> Job | None:
        shutil.copy(path, path.with_name("alone"))
        return stored_in(path.with_name("alone"), "a")

    asyncio.run(play())
    assert without_log() == store.get("a")
    assert path.with_name(f"{path.name}-wal").stat().st_size == 0  # its beginning alone would bring back what was


@pytest.mark.parametrize("is_synced", [True, False])
def test_nothing_is_stored_upon_a_log_of_which_some_may_not_be_on_disk(store: JobStore, is_synced: bool) -> None:
    async def play() -> None:
        store.add(make_job("a"), make_work(), is_synced=False)
        with unflushable(store):
            with pytest.raises(StoreFailed):
                await store.flushed()
            with pytest.raises(StoreFailed, match="cannot be written"):
                store.add(make_job("b", 2), make_work(), is_synced=is_synced)
        assert store.get("b") is None
        store.add(make_job("b", 2), make_work(), is_synced=is_synced)

    asyncio.run(play())


def test_a_log_that_is_being_read_is_not_said_to_be_on_disk_after_a_failed_flush(store: JobStore, path: Path) -> None:
    store._database.execute("PRAGMA busy_timeout = 0")

    async def play() -> None:
        with unflushable(store), pytest.raises(StoreFailed):
            await store.flushed()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT id FROM jobs").fetchall()
            store._database.execute("UPDATE jobs SET video_bytes = 0")
            with pytest.raises(StoreFailed, match="is being read"):
                await store.flushed()
        await store.flushed()

    put(store, make_job("a"))
    asyncio.run(play())


def test_until_its_end_is_flushed_a_job_is_listed_as_it_was_and_not_forgotten(store: JobStore, path: Path) -> None:
    async def play(job: Job) -> None:
        after = job.moved(State.DONE, finished_at=1.0, result=RESULT, video_bytes=5)
        for _ in range(2):  # the second time it is tried again
            async with store._flushing:
                ending = asyncio.create_task(store.end(after))
                await asyncio.sleep(0)
                assert stored_in(path, job.id).state is State.DONE
                assert store.newest([State.DONE], 9) == []
                assert store.newest([State.RUNNING], 9) == store.newest([], 9) == [job]
                assert store.finished_before(2.0, 9) == store.finished_beyond(0, 9) == []
                assert store.oldest_with_video() is None
                if not ending.done():
                    ending.cancel()
            await asyncio.wait([ending])
        await store.end(after)
        assert store.newest([State.DONE], 9) == store.finished_beyond(0, 9) == [after]
        assert store.newest([State.RUNNING], 9) == []

    store.add(make_job("a"), make_work(), Hook("http://[::1]/"))
    asyncio.run(play(store.update(store.get("a").moved(State.RUNNING))))


def test_nothing_is_kept_for_watchers_that_went_away(store: JobStore) -> None:
    with store.watching("a") as one, store.watching("a") as other:
        store.wake("a")
        assert one.is_set()
        assert other.is_set()
    store.wake("a")
    assert store._watchers == {}


# A process that is killed.


def test_every_answered_write_outlives_a_kill_at_any_moment(path: Path) -> None:
    answered: dict[str, str] = {}
    rolls = random.Random()
    for _ in range(4):
        writer = child(WRITER, path)
        answered |= dict(writer.stdout.readline().split() for _ in range(rolls.randrange(9, 30)))
        time.sleep(rolls.uniform(0, 0.005))  # between any two answers
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            if line.endswith("\n"):
                answered |= dict([line.split()])
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
        store = JobStore(path)
        found = {job_id: store.get(job_id) for job_id in answered}
        # One step more than was answered may have been made.
        further = {"queued": {"queued", "running"}, "running": {"running", "done"}, "done": {"done"}}
        assert [job_id for job_id, word in answered.items() if found[job_id].state.value not in further[word]] == []
        assert all(job.result == RESULT for job in found.values() if job.state is State.DONE)
        assert store._database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
    assert len(answered) > 10


# Migrations.

V2 = (*MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT; UPDATE jobs SET colour = 'red'")


def version(path: Path) -> int:
    with sqlite3.connect(path) as database:
        found = database.execute("PRAGMA user_version").fetchone()[0]
    database.close()
    return found


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    JobStore(path).close()
    assert version(path) == len(MIGRATIONS)


def test_a_store_of_an_earlier_version_is_brought_up_and_keeps_its_jobs(path: Path) -> None:
    store = JobStore(path)
    put(store, make_job(state=State.RUNNING))
    store.close()
    later = JobStore(path, V2)
    assert later.get("a") == make_job(state=State.RUNNING)
    assert later._database.execute("SELECT colour FROM jobs").fetchall() == [("red",)]
    later.update(make_job(state=State.DONE, result=RESULT))
    later.close()
    assert version(path) == len(V2)


VERSION_3 = Path(__file__).with_name("store-version-3.sql")  # written by a daemon of that version


def version_3(path: Path, *changes: str) -> dict[str, sqlite3.Row]:
    """Lay out the store of that version, and return its rows by id."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(";".join((VERSION_3.read_text(encoding="utf-8"), *changes)))
        database.row_factory = sqlite3.Row
        return {row["id"]: row for row in database.execute("SELECT * FROM jobs")}


def job_in_columns(row: sqlite3.Row, root: Path) -> Job:
    """Read a job as that version did."""
    result = RenderResult.model_validate_json(row["result"]) if row["result"] else None
    if result and "://" not in result.video.url:
        video = result.video.model_copy(update={"url": (root / result.video.url).as_uri()})
        result = result.model_copy(update={"video": video})
    given = {
        "state": State(row["state"]),
        "output": root / os.fsdecode(row["output"]),
        "files": root / os.fsdecode(row["files"]) if row["files"] else None,
        "is_kept_elsewhere": bool(row["is_kept_elsewhere"]),
        "sync_mode": bool(row["sync_mode"]),
        "progress": Progress.model_validate_json(row["progress"]),
        "result": result,
        "error": Fault.model_validate_json(row["error"]) if row["error"] else None,
    }
    return Job(**{name: row[name] for name in row.keys() if name != "work"} | given)  # noqa: SIM118 - a row is no mapping


def test_every_field_of_a_job_in_columns_comes_back_from_its_document(path: Path) -> None:
    rows = version_3(path, "UPDATE jobs SET started_at = 1796039781.1234567, start_by = 0.1 WHERE id = 'running'")
    store, before = JobStore(path), {job_id: job_in_columns(row, path.parent) for job_id, row in rows.items()}
    assert {job_id: store.get(job_id) for job_id in before} == before
    assert [job.id for job in store.unfinished()] == ["running", "waits", "pixels"]
    assert store.work("failed").request.images[0].url == "http://127.0.0.1:9/gone.png"
    assert store.work("pixels").attachments[2].path == before["pixels"].files / "2"
    store.close()


@pytest.mark.parametrize("damage", ["result = 'no json'", "error = '{'", "progress = ''"])
def test_a_part_that_is_no_json_keeps_no_other_job_from_being_brought_up(path: Path, damage: str) -> None:
    before = version_3(path, f"UPDATE jobs SET {damage} WHERE id = 'done'")
    store = JobStore(path)
    with pytest.raises(StoreFailed, match="a job in the store cannot be read"):
        store.get("done")
    assert all(store.get(job_id) for job_id in before if job_id != "done")
    store.close()


def test_a_store_that_cannot_be_brought_up_all_the_way_stays_at_its_version(path: Path) -> None:
    before = version_3(path)
    with pytest.raises(ConfigError, match="the store of jobs cannot be opened"):
        JobStore(path, (*MIGRATIONS, "nonsense"))
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)
        assert len(database.execute("SELECT progress FROM jobs").fetchall()) == len(before)


@pytest.mark.parametrize("script", ["CREATE TABLE other (a INTEGER); nonsense", "DROP TABLE jobs; SELECT a FROM none"])
def test_a_migration_that_fails_leaves_the_version_before(path: Path, script: str) -> None:
    store = JobStore(path)
    put(store, make_job())
    store.close()
    with pytest.raises(ConfigError, match="the store of jobs cannot be opened"):
        JobStore(path, (*MIGRATIONS, script))
    assert version(path) == len(MIGRATIONS)
    store = JobStore(path)
    assert store.get("a") == make_job()
    assert store._database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'other'").fetchone() == (0,)
    store.close()


def test_a_migration_that_is_killed_leaves_the_version_before(path: Path) -> None:
    store = JobStore(path)
    put(store, make_job())
    store.close()
    migrating = child(SLOW_MIGRATION, path)
    assert migrating.stdout.readline() == "within\n"
    migrating.kill()
    migrating.wait()
    migrating.stdout.close()
    assert version(path) == len(MIGRATIONS)
    later = JobStore(path, V2)
    assert later.get("a") == make_job()
    later.close()


# What cannot be opened.


def overwritten(at: int, size: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xa5" * size)

    return damage


@pytest.fixture
def full(path: Path) -> Path:
    """A store with many jobs that run."""
    store = JobStore(path)
    for number in range(1, 100):
        store.add(make_job(f"job{number}", number, state=State.RUNNING), make_work())
    store.close()
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        JobStore(path)
    return str(refused.value)


@pytest.mark.parametrize(
    "damage",
    [
        overwritten(0, 100),
        overwritten(100, 50),
        overwritten(4096, 4096),
        overwritten(3 * 4096 - 8, 16),
        lambda path: os.truncate(path, path.stat().st_size // 2 // 4096 * 4096),
        lambda path: os.truncate(path, path.stat().st_size - 4096),
        lambda path: path.write_bytes(b"this is no database"),
        lambda path: path.write_bytes(random.Random(1).randbytes(50_000)),
    ],
    ids=["header", "schema", "page", "two_pages", "half", "last_page", "text", "noise"],
)
def test_a_damaged_store_is_told_in_one_line_and_left_as_it_is(full: Path, damage: Callable[[Path], None]) -> None:
    damage(full)
    damaged = full.read_bytes()
    words = refusal(full)
    assert words.startswith(f"server.data_dir: {full}: the store of jobs is damaged (")
    assert words.endswith("); restore it, or move it away to begin with an empty one")
    assert words.isprintable()
    assert full.read_bytes() == damaged


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"\n",
        b'{"secret": 1, \x1b\xff',
        "json_set(job, '$.progress', json('{}'))",
        "json_set(job, '$.error', json('[]'))",
        "json_set(job, '$.secret', 1, '$.priority', 'secret')",
    ],
)
def test_an_unfinished_job_that_cannot_be_read_is_told_in_one_line(full: Path, text: bytes | str) -> None:
    with sqlite3.connect(full) as database:
        value, values = (text, ()) if isinstance(text, str) else ("CAST(? AS TEXT)", (text,))
        database.execute(f"UPDATE jobs SET job = {value} WHERE number = 7", values)
    database.close()
    words = refusal(full)
    assert words.startswith(f"server.data_dir: {full}: the store of jobs is damaged (")
    assert words.isprintable()
    assert "secret" not in words


def test_damage_to_one_finished_job_concerns_that_job_alone(path: Path) -> None:
    store = JobStore(path)
    put(store, make_job("good", 1))
    put(store, make_job("bad", 2, state=State.DONE, result=RESULT))
    store._database.execute("UPDATE jobs SET job = json_set(job, '$.result', json('{}')) WHERE id = 'bad'")
    store.close()
    store = JobStore(path)
    assert store.get("good") == make_job("good", 1)
    with pytest.raises(StoreFailed, match="a job in the store cannot be read"):
        store.get("bad")
    store.close()


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE a (b INTEGER)",
        "CREATE TABLE a (b INTEGER); PRAGMA application_id = 77; PRAGMA user_version = 1",
        "PRAGMA user_version = 1",
        "PRAGMA application_id = 77",
    ],
)
def test_another_programs_database_is_refused_and_not_touched(path: Path, script: str) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(script)
    database.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError) as refused:
        JobStore(path)
    assert str(refused.value) == f"server.data_dir: {path}: this is not a store of stillreel"
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_versions_store_is_refused_and_not_touched(path: Path) -> None:
    JobStore(path, V2).close()
    before = path.read_bytes()
    with pytest.raises(ConfigError) as refused:
        JobStore(path)
    assert str(refused.value) == f"server.data_dir: {path}: made by a newer version of stillreel"
    assert path.read_bytes() == before


def test_a_store_that_another_program_holds_is_refused(path: Path) -> None:
    JobStore(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError) as refused:
        JobStore(path)
    assert str(refused.value) == f"server.data_dir: {path}: another program holds the store of jobs"
    holder.close()
    JobStore(path).close()


def test_a_directory_in_its_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigError, match="the store of jobs cannot be opened: unable to open database file"):
        JobStore(path)


def test_a_disk_that_is_full_is_refused_and_enough_room_is_all_it_takes(small_disk: Path) -> None:
    path = small_disk / "jobs.sqlite3"
    store = JobStore(path)
    put(store, make_job())
    store.close()
    ballast = fill(small_disk)
    with pytest.raises(ConfigError) as refused:
        JobStore(path)
    assert str(refused.value) == f"server.data_dir: {path}: the disk is full"
    ballast.unlink()
    store = JobStore(path)
    assert store.get("a") == make_job()
    store.close()


def test_a_new_store_on_a_full_disk_is_refused_and_the_next_one_begins(small_disk: Path) -> None:
    ballast = fill(small_disk)
    with pytest.raises(ConfigError, match="the disk is full"):
        JobStore(small_disk / "jobs.sqlite3")
    ballast.unlink()
    JobStore(small_disk / "jobs.sqlite3").close()


def test_a_disk_that_fills_up_keeps_what_was_stored_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "jobs.sqlite3"
    store = JobStore(path)
    put(store, make_job("a", 1))
    ballast = fill(small_disk)
    words = "the disk is full, so the job could not be stored; try again later"
    with contextlib.suppress(StorageFull):  # there may be room in the log yet
        for number in range(2, 200):
            store.add(make_job(f"{number}", number), make_work())
    last = store.last_number()
    assert last < 199
    with pytest.raises(StorageFull, match=words):
        store.add(make_job("full", last + 1), make_work())
    store.update(make_job("a", 1, state=State.RUNNING))  # the reserve is given up for that
    assert not (small_disk / "reserve").exists()
    more = fill(small_disk, "more")
    with contextlib.suppress(StorageFull):
        for _ in range(200):
            store.update(make_job("a", 1, state=State.RUNNING))
    with pytest.raises(StorageFull, match=words):
        store.update(make_job("a", 1, state=State.RUNNING))
    assert store.get("a").state is State.RUNNING
    more.unlink()
    ballast.unlink()
    store.add(make_job("z", last + 1), make_work())
    assert (small_disk / "reserve").exists()
    store.close()
    store = JobStore(path)
    assert store.get("a").state is State.RUNNING
    assert [job.number for job in store.unfinished()] == list(range(1, last + 2))
    store.close()
