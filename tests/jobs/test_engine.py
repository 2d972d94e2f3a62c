"""The engine with a real store, real worker processes and tiny jobs."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote_from_bytes

import psutil
import pytest

from protocol.schema import JobsQuery
from renderer.errors import (
    JobNotFound,
    NotSupported,
    QueueFull,
    RequestIdConflict,
    ShuttingDown,
    StorageFull,
    StoreFailed,
)
from renderer.jobs.job import State
from renderer.jobs.slots.base import Gone, Slot
from renderer.work import NvencFindings
from tests.daemon_process import Gate, request, still
from tests.jobs.factories import SETTINGS, Running, fill, left, running
from tests.jobs.fake_slot import LATE, FakeSlot

BROKEN = {"url": "data:,nonsense"}


def workers() -> list[psutil.Process]:
    """The processes that render for this test: the fork server's children."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "forkserver" in " ".join(child.cmdline()):
                found += child.children()
    return found


def kill_workers() -> None:
    for worker in workers():
        with contextlib.suppress(psutil.Error):
            worker.kill()


def lowest_free_descriptor() -> int:
    handle = os.open("/", os.O_RDONLY)
    os.close(handle)
    return handle


def noisy(rows: int = 900, columns: int = 1200) -> dict[str, object]:
    """A job whose video has more than a megabyte."""
    picture = b"P6 %d %d 255\n" % (columns, rows) + os.urandom(rows * columns * 3)
    image = {"url": f"data:,{quote_from_bytes(picture)}", "frames": 1}
    return {"images": [image], "crf": 0, "preset": "ultrafast"}


# The way of one job.


def test_a_job_ends_as_done_with_its_video(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            accepted = at.submit("a", request(still(frames=5), request_id="a", metadata={"b": 1}))
            assert (accepted.state, accepted.attempts, accepted.number) == (State.QUEUED, 0, 1)
            job = await at.finished("a")
            assert (job.state, job.attempts, job.progress.stage, job.error) == (State.DONE, 1, "done", None)
            assert (job.result.frames, job.result.request_id, job.result.metadata) == (5, "a", {"b": 1})
            video = tmp_path / "outputs" / "a" / "video.mp4"
            assert job.result.video.url == video.as_uri()
            assert video.stat().st_size == job.result.video.file_size == job.video_bytes
            assert accepted.accepted_at <= job.started_at <= job.finished_at <= time.time()
            assert at.stored("a") == job
            assert at.places.logs.exists()

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/a/video.mp4"]


def test_updates_begin_with_the_present_and_end_with_the_last_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a")
            states = [job.state async for job in at.engine.updates("a", heartbeat_s=5)]
            assert (states[0], states[-1]) == (State.QUEUED, State.DONE)
            assert [job.state async for job in at.engine.updates("a", heartbeat_s=5)] == [State.DONE]
            with pytest.raises(JobNotFound):
                await anext(at.engine.updates("nobody", heartbeat_s=5))

    asyncio.run(scenario())


def test_whoever_watches_sees_no_state_before_it_is_stored(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a")
            async for job in at.engine.updates("a", heartbeat_s=5):
                # An end is written down a moment before it is seen.
                assert at.stored("a").state in {job.state, State.DONE}

    asyncio.run(scenario())


def test_a_job_is_accepted_once_it_is_flushed_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            for _ in range(2):  # also where the id is known already
                async with at.store._flushing:
                    accepting = asyncio.create_task(at.accept(request(request_id="a")))
                    await at.when(lambda: at.store._next_flush, "it waits for the flush")
                    assert (at.stored("a").state, accepting.done()) == (State.QUEUED, False)
                assert (await accepting).id == "a"

    asyncio.run(scenario())


def test_a_video_may_go_where_its_owner_wants_it_and_be_moved_by_him(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path / "data") as at:
            at.submit("a", output=tmp_path / "active")
            job = await at.finished("a")
            assert (job.is_kept_elsewhere, job.video_bytes, job.output) == (True, 0, tmp_path / "active")
            (tmp_path / "active").rename(tmp_path / "done it")
            moved = at.engine.relocate("a", tmp_path / "done it")
            assert moved.result.video.url == (tmp_path / "done it" / "video.mp4").as_uri()
            assert at.engine.job("a") == moved

    asyncio.run(scenario())
    assert left(tmp_path) == ["done it/video.mp4"]


def test_an_owners_other_files_stay_when_his_job_fails(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path / "data") as at:
            (tmp_path / "active").mkdir()
            (tmp_path / "active" / "manifest.json").touch()
            at.submit("a", request(BROKEN), output=tmp_path / "active")
            assert (await at.finished("a")).state is State.FAILED

    asyncio.run(scenario())
    assert left(tmp_path) == ["active/manifest.json"]


# Admission.


def test_a_full_queue_refuses_at_once_in_words_that_help(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_queued=2) as at:
            assert at.engine.room() == 3
            at.submit("a", gate.request())
            await at.until("a", State.RUNNING)
            assert at.engine.room() == 2
            at.submit("b")
            at.submit("c")
            assert (at.engine.room(), at.engine.health().ready) == (0, False)
            assert at.engine.health().reasons == ("the queue is full",)
            words = r"expected at most 2 jobs to wait, found 2; the next place is free in about \d+ s"
            with pytest.raises(QueueFull, match=words) as refused:
                at.submit("d")
            assert refused.value.fault().retryable
            with pytest.raises(JobNotFound):
                at.engine.job("d")
            assert at.submit("b").id == "b"
            gate.open()
            for job_id in "abc":
                await at.finished(job_id)
            assert (at.engine.room(), at.engine.health().ready) == (3, True)
            at.submit("d")
            await at.finished("d")

    asyncio.run(scenario())


def test_nothing_waits_where_nothing_may_but_an_idle_worker_takes_a_job(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_queued=0) as at:
            at.submit("a", gate.request())
            with pytest.raises(QueueFull):
                at.submit("b")
            await at.until("a", State.RUNNING)
            with pytest.raises(QueueFull):
                at.submit("b")

    asyncio.run(scenario())


def test_an_id_belongs_to_the_request_that_it_came_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            first = at.submit("a")
            assert at.submit("a", client="another") == first
            with pytest.raises(RequestIdConflict, match="request_id: another request already has this id"):
                at.submit("a", request(fps=25))
            await at.finished("a")
            assert at.submit("a").state is State.DONE
            with pytest.raises(RequestIdConflict):
                at.submit("a", request(fps=25))
            assert at.store.last_number() == 1

    asyncio.run(scenario())


def test_a_disk_with_too_little_room_refuses_new_jobs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, min_free_bytes=2**60) as at:
            assert at.engine.room() == 0
            with pytest.raises(StorageFull, match="the daemon's disk is nearly full; try again later"):
                at.submit("a")
            assert at.engine.health().reasons == ("the disk is nearly full",)

    asyncio.run(scenario())


def test_a_store_that_refuses_a_new_job_leaves_no_trace_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.store._database.execute("PRAGMA query_only = ON")
            with pytest.raises(StoreFailed):
                at.submit("a")
            with pytest.raises(StoreFailed):
                await at.accept(request(request_id="b"))
            at.store._database.execute("PRAGMA query_only = OFF")
            with pytest.raises(JobNotFound):
                at.engine.job("a")
            assert left(tmp_path) == []
            assert at.submit("a").number == 1
            assert (await at.finished("a")).state is State.DONE

    asyncio.run(scenario())


# Turns.


def in_order(at: Running) -> list[str]:
    """The ids in the order in which they were begun."""
    jobs = [at.engine.job(status.request_id) for status in at.engine.jobs(JobsQuery())]
    return [job.id for job in sorted(jobs, key=lambda job: job.started_at or 0) if job.started_at]


def test_a_client_with_one_job_does_not_wait_for_another_clients_fifty(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("first", gate.request(), client="many")
            await at.until("first", State.RUNNING)
            for number in range(50):
                at.submit(f"many{number}", client="many")
            low = at.submit("low", request(priority="low"), client="low")
            one = at.submit("one", client="one")
            assert at.engine.status(one).queue_position == 1
            assert at.engine.status(low).queue_position == 51
            gate.open()
            await at.finished("many1")
            assert in_order(at)[:4] == ["first", "many0", "one", "many1"]
            assert at.state("low") is State.QUEUED

    asyncio.run(scenario())


def test_low_priority_is_begun_when_nothing_normal_waits(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("first", gate.request())
            await at.until("first", State.RUNNING)
            at.submit("low", request(priority="low"))
            at.submit("normal")
            gate.open()
            await at.finished("low")
            assert in_order(at) == ["first", "normal", "low"]

    asyncio.run(scenario())


# Limits of time.


def test_start_timeout_expires_a_job_that_waits_and_none_that_was_begun(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            await at.when(workers, "there is a worker")
            at.submit("begun", gate.request(start_timeout=2))
            await at.until("begun", State.RUNNING)
            waits = await at.accept(request(request_id="waits", start_timeout=2))
            at.submit("patient", request(start_timeout=1000))
            job = await at.finished("waits")
            assert (job.state, job.attempts, job.started_at) == (State.EXPIRED, 0, None)
            assert job.error.model_dump() == {
                "type": "startup_timeout",
                "message": "start_timeout: not begun within 2 s",
                "loc": ("start_timeout",),
                "retryable": False,
                "errors": (),
            }
            assert waits.start_by <= job.finished_at < waits.start_by + 30
            assert at.state("begun") is State.RUNNING
            assert list(at.places.attachments.iterdir()) == []
            gate.open()
            assert (await at.finished("begun")).state is State.DONE
            assert (await at.finished("patient")).state is State.DONE

    asyncio.run(scenario())


def test_start_timeout_does_not_count_between_attempts(tmp_path: Path, gate: Gate) -> None:
    """It ends while the job that was begun waits for its turn once more."""

    async def scenario() -> None:
        async with running(tmp_path) as at:
            await at.when(workers, "there is a worker")
            job = at.submit("a", gate.request(start_timeout=3, priority="low"))
            await at.when(lambda: gate.fetched == 1, "it is in full swing")
            at.submit("other", gate.request())
            kill_workers()
            await at.when(lambda: gate.fetched == 2, "the other has its turn")
            await asyncio.sleep(max(0.0, job.start_by + 0.2 - time.time()))
            assert (at.state("a"), at.engine.job("a").attempts) == (State.QUEUED, 1)
            gate.open()
            assert (await at.finished("a")).state is State.DONE

    asyncio.run(scenario())


def test_what_has_expired_while_the_daemon_was_away_is_not_begun(tmp_path: Path, gate: Gate) -> None:
    async def first() -> None:
        async with running(tmp_path) as at:
            at.submit("runs", gate.request())
            await at.until("runs", State.RUNNING)
            at.submit("a", request(start_timeout=0.05))
            await at.engine.hand_back()

    async def second() -> None:
        async with running(tmp_path) as at:
            job = await at.finished("a")
            assert (job.state, job.attempts) == (State.EXPIRED, 0)

    asyncio.run(first())
    time.sleep(0.1)
    asyncio.run(second())


def test_a_job_that_takes_too_long_is_stopped(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, job_timeout_s=2) as at:
            at.submit("a", gate.request())
            job = await at.finished("a")
            assert (job.state, job.error.type, job.error.message) == (
                State.FAILED,
                "request_timeout",
                "the job took longer than 2 s",
            )
            assert job.attempts == 1
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/b/video.mp4"]


def test_a_job_that_makes_no_progress_is_stopped(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, progress_timeout_s=2) as at:
            at.submit("a", gate.request())
            job = await at.finished("a")
            assert (job.state, job.error.type, job.error.message) == (
                State.FAILED,
                "request_timeout",
                "the job made no progress for 2 s",
            )
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/b/video.mp4"]


def test_progress_puts_the_limit_off(tmp_path: Path) -> None:
    """Each still takes less than the limit, all together take more."""

    async def scenario() -> None:
        gates = [Gate() for _ in range(3)]
        try:
            async with running(tmp_path, progress_timeout_s=6) as at:
                at.submit("a", request(*({"url": gate.url} for gate in gates)))
                for done, gate in enumerate(gates):
                    await at.when(lambda gate=gate: gate.fetched, "the still is asked for")
                    await at.when(lambda done=done: at.engine.job("a").progress.images_done >= done, "one more")
                    await asyncio.sleep(2.1)
                    gate.open()
                assert (await at.finished("a")).state is State.DONE
        finally:
            for gate in gates:
                gate.close()

    asyncio.run(scenario())


# Cancelling.


def test_a_job_that_waits_is_cancelled_at_once(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("runs", gate.request())
            await at.until("runs", State.RUNNING)
            await at.accept(request(request_id="a"))
            job = at.engine.cancel("a")
            assert (job.state, job.error.type, job.attempts) == (State.CANCELLED, "client_cancelled", 0)
            assert job.finished_at is not None
            assert at.stored("a") == job
            assert list(at.places.attachments.iterdir()) == []
            gate.open()
            await at.finished("runs")
            assert at.engine.cancel("runs").state is State.DONE
            assert at.engine.cancel("a") == job
            with pytest.raises(JobNotFound):
                at.engine.cancel("nobody")

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/runs/video.mp4"]


def test_a_job_that_runs_is_cancelled_at_once_and_leaves_nothing(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            await at.accept(gate.request(request_id="a"), client="c")
            await at.when(lambda: gate.fetched, "it is in full swing")
            busy = workers()
            began = time.monotonic()
            assert at.engine.cancel("a").state is State.RUNNING
            job = await at.finished("a")
            assert time.monotonic() - began < 30  # the picture would not come for a minute
            assert (job.state, job.error.type) == (State.CANCELLED, "client_cancelled")
            assert left(tmp_path) == []
            assert not any(worker.is_running() for worker in busy)
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())


def test_a_job_in_its_pause_is_cancelled_and_does_not_come_back(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, retry_pause_s=60) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            kill_workers()
            await at.until("a", State.QUEUED)
            pause = at.engine._waiting._timers["a"]
            assert at.engine.cancel("a").state is State.CANCELLED
            assert pause.cancelled()
            assert at.state("a") is State.CANCELLED

    asyncio.run(scenario())
    assert left(tmp_path) == []


def test_a_cancel_between_two_attempts_is_not_lost(tmp_path: Path, gate: Gate) -> None:
    """The worker has died and the next one is being started: nothing is there that could be stopped."""

    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            [slot] = at.engine._running.values()
            kill_workers()
            while slot._attempt is not None:  # noqa: ASYNC110 - the moment is short
                await asyncio.sleep(0)
            assert at.engine.cancel("a").state is State.RUNNING
            job = await at.finished("a")
            assert (job.state, job.attempts, gate.fetched) == (State.CANCELLED, 1, 1)

    asyncio.run(scenario())
    assert left(tmp_path) == []


@pytest.mark.logs_errors
def test_a_cancel_while_a_setback_cannot_be_stored_is_not_lost(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            at.store._database.execute("PRAGMA query_only = ON")
            [slot] = at.engine._running.values()
            kill_workers()
            await at.when(lambda: slot._attempt is None, "the attempt is over")
            await asyncio.sleep(0.3)
            at.engine.cancel("a")
            at.store._database.execute("PRAGMA query_only = OFF")
            job = await at.finished("a")
            assert (job.state, job.attempts, gate.fetched) == (State.CANCELLED, 1, 1)

    asyncio.run(scenario())


def test_a_cancel_while_the_daemon_stops_is_not_lost(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            stopping = asyncio.create_task(at.engine.hand_back())
            await asyncio.sleep(0)
            at.engine.cancel("a")
            await stopping
            assert at.state("a") is State.CANCELLED

    asyncio.run(scenario())


# Attempts.


def test_a_worker_that_is_killed_costs_one_attempt_and_a_pause(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, retry_pause_s=0.4) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            began = time.monotonic()
            kill_workers()
            job = await at.until("a", State.QUEUED)
            assert (job.attempts, job.setback) == (1, "its worker was killed by SIGKILL")
            assert (job.progress.images_done, job.progress.stage) == (0, "queued")
            assert at.engine.status(job).queue_position == 0
            assert left(tmp_path) == []
            assert (await at.until("a", State.RUNNING)).attempts == 2
            assert time.monotonic() - began > 0.4
            gate.open()
            job = await at.finished("a")
            assert (job.state, job.attempts, job.result.frames) == (State.DONE, 2, 4)

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/a/video.mp4"]


def test_others_run_while_a_job_pauses(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, retry_pause_s=30) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            kill_workers()
            await at.until("a", State.QUEUED)
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE
            assert at.state("a") is State.QUEUED

    asyncio.run(scenario())


@pytest.mark.logs_errors
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_job_that_kills_every_worker_fails_and_says_what_killed_it(
    tmp_path: Path, gate: Gate, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with running(tmp_path, attempts=2) as at:
            at.submit("a", gate.request())
            for attempt in (1, 2):
                await at.when(lambda attempt=attempt: gate.fetched == attempt, f"attempt {attempt}")
                for worker in workers():
                    worker.send_signal(number)
            job = await at.finished("a")
            assert (job.state, job.attempts, job.error.type) == (State.FAILED, 2, "internal_error")
            assert job.error.message == f"its worker was killed by {number.name}, in the last of 2 attempts"
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/b/video.mp4"]


def test_a_bad_image_is_never_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, attempts=3) as at:
            at.submit("a", request(still(), BROKEN))
            job = await at.finished("a")
            assert (job.state, job.attempts, job.error.loc) == (State.FAILED, 1, ("images", 1, "url"))
            assert not job.error.retryable

    asyncio.run(scenario())
    assert left(tmp_path) == []


def test_a_worker_that_is_killed_while_idle_costs_no_attempt(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, attempts=1) as at:
            at.submit("a")
            await at.finished("a")
            for job_id, pause_s in [("b", 0), ("c", 0.5), ("d", 0.05)]:
                kill_workers()
                await asyncio.sleep(pause_s)
                at.submit(job_id)
                job = await at.finished(job_id)
                assert (job.state, job.attempts, job.error) == (State.DONE, 1, None)

    asyncio.run(scenario())


def test_a_worker_that_is_killed_while_idle_is_replaced_though_no_job_comes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a")
            await at.finished("a")
            for _ in range(3):
                before = workers()
                kill_workers()
                await at.when(lambda known=before: set(workers()) - set(known), "another worker is there")
            at.submit("b")
            assert (await at.finished("b")).attempts == 1

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_system_that_can_start_no_worker_is_waited_for(tmp_path: Path, gate: Gate) -> None:
    """Descriptors have run out, and a worker takes some."""

    async def scenario() -> None:
        async with running(tmp_path, retry_pause_s=0) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            busy = workers()
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free_descriptor(), limits[1]))
            try:
                os.kill(busy[0].pid, signal.SIGKILL)
                await at.until("a", State.QUEUED)
                await asyncio.sleep(0.5)
                assert (at.state("a"), at.engine.health().jobs_running) == (State.QUEUED, 0)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            gate.open()
            assert (await at.finished("a")).state is State.DONE

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_an_output_directory_that_cannot_be_made_fails_the_job_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            (tmp_path / "outputs" / "a").write_text("in the way")
            at.submit("a")
            assert (await at.finished("a")).error.message == "the video could not be written: File exists"
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_video_that_vanishes_before_it_gets_its_name_fails_the_job_alone(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            (tmp_path / "outputs" / "a" / "video.mp4").mkdir()
            gate.open()
            job = await at.finished("a")
            assert (job.state, job.error.message) == (State.FAILED, "the video could not be written: Is a directory")
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())
    assert left(tmp_path) == ["outputs/b/video.mp4"]


# Stopping.


def test_draining_lets_the_running_job_end_and_keeps_the_others(tmp_path: Path, gate: Gate) -> None:
    async def first() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.until("a", State.RUNNING)
            await at.accept(request(still((1, 2, 3)), request_id="b"))
            watching = asyncio.create_task(at.finished("b"))
            await asyncio.sleep(0)
            drain = asyncio.create_task(at.engine.drain(timeout_s=20))
            with pytest.raises(ShuttingDown, match="the job is kept and goes on once it is back"):
                await watching
            with pytest.raises(ShuttingDown, match="send the request again once it is back"):
                at.submit("c")
            health = at.engine.health()
            assert (health.status, health.live, health.ready) == ("draining", True, False)
            assert health.reasons == ("the daemon is stopping",)
            assert at.engine.room() == 0
            assert not drain.done()
            gate.open()
            await drain
            assert (at.state("a"), at.state("b")) == (State.DONE, State.QUEUED)

    async def second() -> None:
        async with running(tmp_path) as at:
            assert at.state("a") is State.DONE
            job = await at.finished("b")
            assert (job.state, job.attempts) == (State.DONE, 1)

    asyncio.run(first())
    asyncio.run(second())
    assert left(tmp_path) == ["outputs/a/video.mp4", "outputs/b/video.mp4"]


def test_what_a_drain_cannot_wait_for_is_handed_back_with_its_attempts_unchanged(tmp_path: Path, gate: Gate) -> None:
    async def first() -> None:
        async with running(tmp_path, attempts=1) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            await at.engine.drain(timeout_s=0.1)
            watching = asyncio.create_task(at.finished("a"))
            await asyncio.sleep(0)
            await at.engine.hand_back()
            with pytest.raises(ShuttingDown):
                await watching
            job = at.stored("a")
            assert (job.state, job.attempts, job.setback) == (State.QUEUED, 0, "the daemon stopped")
            assert left(tmp_path) == []

    async def second() -> None:
        async with running(tmp_path, attempts=1) as at:
            gate.open()
            job = await at.finished("a")
            assert (job.state, job.attempts, job.result.frames) == (State.DONE, 1, 4)

    asyncio.run(first())
    asyncio.run(second())


def test_a_worker_that_dies_in_a_drain_leaves_its_job_for_the_next_daemon(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            drain = asyncio.create_task(at.engine.drain(timeout_s=20))
            await asyncio.sleep(0.05)
            kill_workers()
            await drain
            job = at.stored("a")
            assert (job.state, job.attempts, gate.fetched) == (State.QUEUED, 1, 1)

    asyncio.run(scenario())


# A store and a disk that fail.


async def deaf_store(at: Running, job_id: str) -> None:
    """Watch for a while that a job's end is told to nobody while it cannot be stored."""
    for _ in range(6):
        await asyncio.sleep(0.1)
        assert at.engine.job(job_id).state is at.stored(job_id).state is State.RUNNING


@pytest.mark.logs_errors
def test_an_end_that_cannot_be_stored_is_kept_until_it_can(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            at.submit("b")
            await at.when(lambda: gate.fetched, "it is in full swing")
            at.store._database.execute("PRAGMA query_only = ON")
            gate.open()
            video = tmp_path / "outputs" / "a" / "video.mp4"
            await at.when(video.exists, "the video is there")
            await deaf_store(at, "a")
            before = video.stat()
            at.store._database.execute("PRAGMA query_only = OFF")
            job = await at.finished("a")
            assert (job.state, job.attempts) == (State.DONE, 1)
            assert video.stat().st_ino == before.st_ino
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())


def test_a_full_disk_fails_the_job_that_runs_at_once_and_refuses_others_until_there_is_room(
    small_disk: Path, gate: Gate
) -> None:
    async def scenario() -> None:
        async with running(small_disk) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            ballast = fill(small_disk)
            gate.open()
            job = await at.finished("a")
            assert (job.state, job.error.type, job.error.retryable) == (State.FAILED, "storage_full", True)
            assert job.error.message == "the video could not be written: No space left on device"
            assert at.stored("a") == job
            fill(small_disk, "more")
            with pytest.raises(StorageFull, match="the daemon's disk is full; try again later"):
                at.submit("b")
            with pytest.raises(StorageFull, match="the daemon's disk is full; try again later"):
                await at.accept(request(request_id="c"))
            ballast.unlink()
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())
    (small_disk / "more").unlink()
    assert left(small_disk) == ["outputs/b/video.mp4"]


@pytest.mark.logs_errors
def test_an_end_that_a_full_disk_does_not_take_is_kept_until_it_does(
    small_disk: Path, tmp_path: Path, gate: Gate
) -> None:
    async def scenario() -> None:
        async with running(small_disk) as at:
            at.submit("a", gate.request(metadata={"long": "x" * 30_000}), output=tmp_path / "out")
            await at.when(lambda: gate.fetched, "it is in full swing")
            (small_disk / "reserve").unlink()
            ballast = fill(small_disk)
            gate.open()
            await at.when((tmp_path / "out" / "video.mp4").exists, "the video is there")
            await deaf_store(at, "a")
            ballast.unlink()
            job = await at.finished("a")
            assert (job.state, job.attempts, job.result.metadata) == (State.DONE, 1, {"long": "x" * 30_000})
            at.submit("b")
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_a_job_that_cannot_be_noted_as_begun_waits_until_it_can(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.until("a", State.RUNNING)
            at.submit("b")
            gate.open()
            await at.finished("a")
            at.store._database.execute("PRAGMA query_only = ON")

    async def refused() -> None:
        async with running(tmp_path) as at:
            at.submit("c", gate.request())
            at.store._database.execute("PRAGMA query_only = ON")
            await asyncio.sleep(0.5)
            assert (at.state("c"), gate.fetched) == (State.QUEUED, 1)
            at.store._database.execute("PRAGMA query_only = OFF")
            job = await at.finished("c")
            assert (job.state, job.attempts) == (State.DONE, 1)

    asyncio.run(scenario())
    asyncio.run(refused())


@pytest.mark.logs_errors
def test_a_job_that_expires_while_the_store_fails_ends_later(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("runs", gate.request())
            await at.until("runs", State.RUNNING)
            at.submit("a", request(start_timeout=0.1))
            at.store._database.execute("PRAGMA query_only = ON")
            await asyncio.sleep(0.3)
            assert at.state("a") is State.QUEUED
            at.store._database.execute("PRAGMA query_only = OFF")
            assert (await at.finished("a")).state is State.EXPIRED

    asyncio.run(scenario())


def test_a_full_disk_fails_the_job_that_fills_it_and_the_next_one_succeeds(small_disk: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            outputs = small_disk / "outputs"
            at.submit("a", noisy(), output=outputs)
            job = await at.finished("a")
            assert (job.state, job.error.type, job.error.retryable) == (State.FAILED, "storage_full", True)
            assert job.error.message == "the video could not be written: No space left on device"
            assert left(small_disk) == []
            at.submit("b", output=outputs)
            assert (await at.finished("b")).state is State.DONE

    asyncio.run(scenario())


# What is told.


def test_jobs_are_listed_by_state_and_number(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("done")
            await at.finished("done")
            at.submit("failed", request(BROKEN))
            await at.finished("failed")
            at.submit("runs", gate.request())
            await at.when(lambda: at.engine.job("runs").progress.images_done == 1, "one still is done")
            at.submit("waits")

            def listed(**query: object) -> list[str]:
                return [status.request_id for status in at.engine.jobs(JobsQuery(**query))]

            assert listed() == ["done", "failed", "runs", "waits"]
            assert listed(limit=2) == ["runs", "waits"]
            assert listed(states=("failed", "queued")) == ["failed", "waits"]
            [status] = at.engine.jobs(JobsQuery(states=("running",)))
            assert (status.progress.images_done, status.attempts, status.queue_position) == (1, 1, None)
            assert [job.id for job in at.engine.unfinished("c")] == ["runs", "waits"]
            assert at.engine.unfinished("nobody") == []
            health = at.engine.health()
            assert (health.jobs_running, health.jobs_queued, health.workers) == (1, 1, 1)

    asyncio.run(scenario())


def test_every_last_state_is_logged_once_and_not_before_it_is_stored(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="renderer")

    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("done")
            at.submit("failed", request(BROKEN))
            await at.finished("failed")
            at.submit("stopped", gate.request())
            await at.until("stopped", State.RUNNING)
            at.submit("expired", request(start_timeout=0.05))
            at.submit("cancelled")
            at.engine.cancel("cancelled")
            await at.finished("expired")
            at.engine.cancel("stopped")
            await at.finished("stopped")

    asyncio.run(scenario())
    ends = {"done", "failed", "cancelled", "expired"}
    told = [(record.job, record.action) for record in caplog.records if getattr(record, "action", None) in ends]
    assert sorted(told) == [
        ("cancelled", "cancelled"),
        ("done", "done"),
        ("expired", "expired"),
        ("failed", "failed"),
        ("stopped", "cancelled"),
    ]


@pytest.mark.logs_errors
def test_no_end_is_logged_that_is_not_stored(tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="renderer")

    async def scenario() -> None:
        async with running(tmp_path) as at:
            at.submit("a", gate.request())
            await at.when(lambda: gate.fetched, "it is in full swing")
            at.store._database.execute("PRAGMA query_only = ON")
            gate.open()
            await at.when((tmp_path / "outputs" / "a" / "video.mp4").exists, "the video is there")
            await asyncio.sleep(0.2)

    asyncio.run(scenario())
    assert [record for record in caplog.records if getattr(record, "action", None) == "done"] == []


# What one key gets.


def test_one_key_has_so_many_jobs_waiting_and_others_theirs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True, max_queued_per_key=2) as at:
            for number in range(2):
                at.submit(f"key.alice~{number}")
            with pytest.raises(QueueFull, match="expected at most 2 jobs of one key to wait, found 2"):
                at.submit("key.alice~2")
            assert at.submit("key.alice~1").request_id == "1"  # known already
            at.submit("key.bob~2")
            for number in range(3):
                at.submit(f"{number}")

    asyncio.run(scenario())


def test_one_key_gets_so_many_pixels_a_minute_and_others_theirs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_pixels_per_key=64 * 48 + 1) as at:
            for number in range(2):
                at.submit(f"key.alice~{number}")
                assert (await at.finished(f"key.alice~{number}")).state is State.DONE
            with pytest.raises(
                QueueFull, match="expected less than 3073 pixels of stills within a minute for one key, found 6144"
            ):
                at.submit("key.alice~2")
            at.submit("key.bob~2")
            at.submit("2")

    asyncio.run(scenario())


# Other places than worker processes.


def test_the_engine_runs_jobs_wherever_its_slots_are(tmp_path: Path) -> None:
    """Nothing but the seam is used: the slots here are fakes."""
    slots: list[FakeSlot] = []

    def open_slot(progress_address: str) -> FakeSlot:
        slots.append(FakeSlot(progress_address))
        return slots[-1]

    async def scenario() -> None:
        async with running(tmp_path, workers=2, open_slot=open_slot) as at:
            late = request({"url": f"http://127.0.0.1:9/{LATE}", "frames": 3})
            for name in ("lost", "cancelled"):
                at.submit(name, late)
            await at.when(lambda: sum(len(slot.begun) for slot in slots) == 2, "both are begun")
            at.submit("next")
            next(slot for slot in slots if slot.begun == ["lost"]).lose()
            at.engine.cancel("cancelled")
            assert (await at.finished("next")).result.frames == 2
            assert (await at.finished("cancelled")).state is State.CANCELLED
            await at.until("lost", State.RUNNING)
            for slot in slots:
                slot.goes_on.set()
            lost = await at.finished("lost")
            assert (lost.state, lost.attempts, lost.setback) == (State.DONE, 2, "its place is gone")
            assert (tmp_path / "outputs" / "lost" / "video.mp4").read_bytes() == b"a video"

    asyncio.run(scenario())


class GpuSlot(FakeSlot):
    """A slot on another machine, which has a GPU's encoder."""

    node, encoder = "beta", "nvenc"
    has_left = is_closed = False

    async def prepare(self) -> None:
        if self.has_left:
            raise Gone

    def leave(self) -> None:
        self.has_left = True
        self.lose()

    def close(self) -> None:
        super().close()
        self.is_closed = True


class Machines:
    """Other machines that come and go as a test wants it."""

    def __init__(self) -> None:
        self.is_there = asyncio.Event()

    async def run(self, progress_address: str, join: Callable[[Slot], None], leave: Callable[[Slot], None]) -> None:
        self.join = lambda: self._joined(GpuSlot(progress_address), join)
        self.leave = lambda: (leave(self.slot), self.slot.leave())
        self.is_there.set()
        await asyncio.Event().wait()

    def _joined(self, slot: GpuSlot, join: Callable[[Slot], None]) -> None:
        self.slot = slot
        join(slot)


def test_a_job_that_demands_a_gpu_waits_for_a_machine_that_has_one_and_others_do_not(tmp_path: Path) -> None:
    here: list[FakeSlot] = []

    def open_slot(progress_address: str) -> FakeSlot:
        here.append(FakeSlot(progress_address))
        return here[-1]

    async def scenario() -> None:
        machines, wanted = Machines(), request(encoder="nvenc")
        render = SETTINGS.model_copy(update={"gpus": NvencFindings(reason="there is no driver")})
        async with running(tmp_path, render=render, open_slot=open_slot, elsewhere=machines) as at:
            await machines.is_there.wait()
            with pytest.raises(NotSupported, match="encoder: there is no driver"):
                await at.accept(wanted)
            machines.join()
            accepted = await at.accept(wanted)
            assert (await at.finished(accepted.id)).state is State.DONE
            assert machines.slot.begun == [accepted.id]
            machines.leave()
            await at.when(lambda: machines.slot.is_closed, "it is served no more")
            at.submit("patient", wanted)
            at.submit("next")
            assert (await at.finished("next")).state is State.DONE
            assert at.state("patient") is State.QUEUED
            machines.join()
            assert (await at.finished("patient")).state is State.DONE
            assert (machines.slot.begun, [slot.begun for slot in here]) == (["patient"], [["next"]])

    asyncio.run(scenario())


def test_a_job_that_demands_a_gpu_is_tried_where_there_are_no_other_machines(tmp_path: Path) -> None:
    """It was accepted when there was a GPU, and its worker says why there is none now."""

    async def scenario() -> None:
        async with running(tmp_path, open_slot=FakeSlot) as at:
            at.submit("a", request(encoder="nvenc"))
            assert (await at.finished("a")).attempts == 1

    asyncio.run(scenario())
