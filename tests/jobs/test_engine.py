"""The engine with real worker processes and tiny jobs."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protocol.schema import RenderParams
from renderer.config import EncodeSettings, EngineSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.errors import JobNotFound, QueueFull, RequestIdConflict, ShuttingDown
from renderer.intake import render_job
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job, State
from renderer.pipeline import RenderJob
from tests.daemon_process import Gate, request, still

SETTINGS = RenderSettings(fetch=FetchSettings(allow_http=True), encode=EncodeSettings(threads=1))


def work(fields: dict[str, Any]) -> RenderJob:
    return render_job(RenderParams.model_validate(fields), RequestLimits(), SETTINGS.fetch)


@contextlib.asynccontextmanager
async def running(outputs: Path, **settings: Any) -> AsyncIterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
        engine = Engine(EngineSettings(**{"workers": 1} | settings), SETTINGS, outputs, Path(scratch))
        task = asyncio.create_task(engine.run())
        try:
            yield engine
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()


async def finished(engine: Engine, job_id: str) -> Job:
    async with asyncio.timeout(30):
        return [job async for job in engine.updates(job_id, heartbeat_s=1)][-1]


async def begun(engine: Engine, job_id: str) -> None:
    async with asyncio.timeout(30):
        async for job in engine.updates(job_id, heartbeat_s=1):
            if job.state is State.RUNNING:
                return


def test_a_job_ends_as_done_with_its_video(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            engine.submit("a", work(request(still(frames=5))), "d")
            job = await finished(engine, "a")
            assert (job.state, job.result.frames, job.progress.stage) == (State.DONE, 5, "done")
            assert (tmp_path / "a" / "video.mp4").stat().st_size == job.result.video.file_size

    asyncio.run(scenario())


def test_updates_begin_with_the_present_and_end_with_the_last_state(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            engine.submit("a", work(request()), "d")
            states = [job.state async for job in engine.updates("a", heartbeat_s=5)]
            assert (states[0], states[-1]) == (State.QUEUED, State.DONE)
            assert [job.state async for job in engine.updates("a", heartbeat_s=5)] == [State.DONE]

    asyncio.run(scenario())


def test_a_queue_that_is_full_refuses_and_a_known_id_does_not_count(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path, max_queued=1) as engine:
            engine.submit("a", work(gate.request()), "d")
            await begun(engine, "a")
            engine.submit("b", work(request()), "d")
            with pytest.raises(QueueFull, match="1 jobs are waiting, and no more than 1 may"):
                engine.submit("c", work(request()), "d")
            assert engine.submit("b", work(request()), "d")[1] is False
            with pytest.raises(RequestIdConflict):
                engine.submit("b", work(request()), "other")
            with pytest.raises(JobNotFound):
                engine.job("c")

    asyncio.run(scenario())


def test_a_cancel_between_two_attempts_is_not_lost(tmp_path: Path, gate: Gate) -> None:
    """The worker has died and the next one is being started: no run is there that could be cancelled."""

    async def scenario() -> None:
        async with running(tmp_path) as engine:
            engine.submit("a", work(gate.request()), "d")
            await begun(engine, "a")
            run = engine._running.pop("a")
            assert engine.cancel("a").error.type == "client_cancelled"
            engine._running["a"] = run

    asyncio.run(scenario())


@pytest.mark.logs_errors
def test_an_output_directory_that_cannot_be_made_fails_the_job_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        (tmp_path / "a").write_text("in the way")
        async with running(tmp_path) as engine:
            engine.submit("a", work(request()), "d")
            job = await finished(engine, "a")
            assert job.error.message == "the video could not be written: File exists"
            engine.submit("b", work(request()), "d")
            assert (await finished(engine, "b")).state is State.DONE

    asyncio.run(scenario())


def test_draining_lets_the_running_job_end_and_refuses_all_others(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            engine.submit("a", work(gate.request()), "d")
            await begun(engine, "a")
            engine.submit("b", work(request()), "d")
            drain = asyncio.create_task(engine.drain(timeout_s=20))
            assert (await finished(engine, "b")).error.type == "shutting_down"
            with pytest.raises(ShuttingDown):
                engine.submit("c", work(request()), "d")
            assert engine.health().status == "draining"
            assert not drain.done()
            gate.open()
            await drain
            assert engine.job("a").state is State.DONE

    asyncio.run(scenario())


def test_a_drain_that_takes_too_long_gives_the_job_up(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as engine:
            engine.submit("a", work(gate.request()), "d")
            await begun(engine, "a")
            await engine.drain(timeout_s=0.1)
            engine.abandon()
            job = engine.job("a")
            assert (job.state, job.error.type, job.error.retryable) == (State.FAILED, "shutting_down", True)

    asyncio.run(scenario())
    assert list(tmp_path.iterdir()) == []


def test_finished_jobs_beyond_the_number_kept_go_with_their_videos(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, keep_finished=2) as engine:
            for job_id in "abc":
                engine.submit(job_id, work(request()), "d")
                await finished(engine, job_id)
            assert [status.request_id for status in engine.jobs()] == ["b", "c"]

    asyncio.run(scenario())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c"]
