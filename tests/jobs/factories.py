"""Jobs, and an engine with a real store and real workers, for the tests of this directory."""

import asyncio
import contextlib
import itertools
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from protocol.schema import Fault, File, Progress, RenderParams, RenderResult
from renderer.config import EncodeSettings, EngineSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.frontends.intake import Door, Intake
from renderer.intake import render_job
from renderer.jobs import asked
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job, State, Submission
from renderer.jobs.outcome import Places
from renderer.jobs.schema import COLUMNS, read_job
from renderer.jobs.slots.base import Elsewhere, OpenSlot
from renderer.jobs.slots.local import local_slots
from renderer.jobs.store import JobStore
from renderer.work import RenderJob
from tests.daemon_process import request

# The gate is a server on this machine.
FETCH = FetchSettings(allow_http=True, allow_networks=(IPv4Network("127.0.0.0/8"),))
SETTINGS = RenderSettings(fetch=FETCH, encode=EncodeSettings(threads=1))
RESULT = RenderResult(
    video=File(url="file:///videos/a/video.mp4", file_name="video.mp4", file_size=1234),
    frames=3,
    fps="24000/1001",
    duration=0.125125,
    width=64,
    height=48,
    encoder="libx264",
    timings={"total": 0.25},
    metadata={"a": [1, {"b": None}]},
)
FAULT = Fault(type="image_load_error", message="images[1].url: cut short", loc=("images", 1, "url"))


def result_in(directory: Path) -> RenderResult:
    """The result of a job whose video lies there."""
    video = RESULT.video.model_copy(update={"url": (directory / RESULT.video.file_name).as_uri()})
    return RESULT.model_copy(update={"video": video})


def make_work(fields: dict[str, Any] | None = None) -> RenderJob:
    return render_job(RenderParams.model_validate(fields or request()), RequestLimits(), SETTINGS.fetch)


def make_job(job_id: str = "a", number: int = 1, **fields: Any) -> Job:
    """A job that waits, unless `state` says otherwise."""
    usual = {
        "client": "zmq:00",
        "digest": "d" * 64,
        "priority": "normal",
        "output": Path("/videos") / job_id,
        "progress": Progress(images=1, frames=2),
        "accepted_at": 1_700_000_000.25,
    }
    return Job(id=job_id, number=number, **usual | fields)


def put(store: JobStore, job: Job) -> Job:
    """Bring a job into the store by the moves that lead to its state."""
    states = [State.QUEUED, job.state]
    if job.state in {State.DONE, State.FAILED}:
        states.insert(1, State.RUNNING)
    waiting = make_job(job.id, job.number, client=job.client, digest=job.digest, output=job.output, files=job.files)
    store.add(job if job.state is State.QUEUED else waiting, make_work())
    for before, after in itertools.pairwise(states):
        if before is not after:
            store.update(job if after is job.state else waiting.moved(after))
    return job


def stored_in(path: Path, job_id: str) -> Job | None:
    """The job as the file has it, whatever the store that is open knows of it."""
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        row = database.execute(f"SELECT {', '.join(COLUMNS)} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return read_job(row, path.parent) if row else None


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that runs, and what it runs on."""

    engine: Engine
    store: JobStore
    places: Places
    intake: Intake

    def submit(self, job_id: str, fields: dict[str, Any] | None = None, client: str = "c", **more: Any) -> Job:
        """Give the engine a job as a door would that brings no files."""
        wanted = Submission(job_id, client, f"digest of {fields}", make_work(fields), **more)
        return self.engine.submit(wanted)

    def stored(self, job_id: str) -> Job | None:
        """The job as it is on disk."""
        return stored_in(self.places.outputs.parent / "jobs.sqlite3", job_id)

    async def accept(self, fields: dict[str, Any], *attachments: bytes, client: str = "c") -> Job:
        """Go through the door."""
        return await self.intake.accept(RenderParams.model_validate(fields), Door(client), attachments)

    async def until(self, job_id: str, *states: State) -> Job:
        """Wait for a job to be in one of these states, or else in its last."""
        async with asyncio.timeout(60):
            async for job in self.engine.updates(job_id, heartbeat_s=0.05):
                if job.state in states:
                    return job
        assert not states, f"{job_id} ended as {job.state}: {job.error}"
        return job

    async def finished(self, job_id: str) -> Job:
        return await self.until(job_id)

    def state(self, job_id: str) -> State:
        return self.engine.job(job_id).state

    async def when(self, is_so: Callable[[], object], what: str) -> None:
        for _ in range(6000):
            if is_so():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within 60 s: {what}")


@contextlib.asynccontextmanager
async def running(
    directory: Path,
    *,
    render: RenderSettings = SETTINGS,
    is_idle: bool = False,
    open_slot: OpenSlot | None = None,
    elsewhere: Elsewhere | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Lend an engine over a data directory, as the daemon would begin it; what is not handed back is lost.

    Args:
        is_idle: it takes jobs in and runs none.
        open_slot: where jobs run, if not in worker processes.
        elsewhere: other machines where they run as well.
    """
    with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
        places = make_places(directory, Path(scratch))
        store = JobStore(directory / "jobs.sqlite3")
        usual = {"workers": 1, "retry_pause_s": 0.05, "min_free_bytes": 0}
        engine_settings = EngineSettings(**usual | settings)
        opened = open_slot or local_slots(engine_settings, places.reach(render))
        engine = Engine(engine_settings, render, store, places, opened, elsewhere=elsewhere)
        intake = Intake(RequestLimits(), render.fetch, engine, places.attachments, render.gpus)
        engine.recover()
        task = asyncio.create_task(asyncio.Event().wait() if is_idle else engine.run())
        try:
            yield Running(engine, store, places, intake)
        finally:
            task.cancel()
            await asyncio.wait([task])
            store.close()
            assert task.cancelled(), task.exception()


def make_places(directory: Path, scratch: Path) -> Places:
    places = Places(directory / "outputs", directory / "attachments", directory / "logs", scratch)
    for place in (places.outputs, places.attachments, places.logs):
        place.mkdir(parents=True, exist_ok=True)
    return places


def left(directory: Path) -> list[str]:
    """The files below, the store's own left out, and what a job was asked for, which goes with its log."""
    return sorted(
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith(("jobs.sqlite3", "reserve", asked.NAME))
    )


def fill(directory: Path, name: str = "ballast") -> Path:
    """Leave no room on the disk."""
    ballast = directory / name
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast
