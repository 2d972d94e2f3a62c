"""What renderer/jobs/slots/base.py promises of a slot, tried on each: a worker process, a node of Ray, a fake."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from protocol.schema import Fault
from renderer.config import EncodeSettings, EngineSettings
from renderer.jobs.slots.base import AttemptLost, RenderTask, Slot
from renderer.jobs.slots.local import LocalSlot
from renderer.jobs.slots.progress import receiving
from renderer.jobs.slots.ray import RaySlot
from renderer.work import RenderReport
from tests.daemon_process import Gate, marked, request
from tests.jobs.factories import SETTINGS, make_work
from tests.jobs.fake_slot import FakeSlot
from tests.jobs.slots.conftest import Joined

ENOUGH = Fault(type="client_cancelled", message="enough")


class Local:
    """A worker process, which shows a picture that the gate holds back."""

    def __init__(self, address: str, gate: Gate) -> None:
        self.slot = LocalSlot(EngineSettings(), address)
        self._gate = gate
        self._seen: list[psutil.Process] = []

    async def begun(self) -> None:
        while not self._gate.fetched:  # noqa: ASYNC110 - the gate is in another thread
            await asyncio.sleep(0.01)
        await self.is_idle()

    async def is_idle(self) -> None:
        workers = [child for child in psutil.Process().children(recursive=True) if self._is_ours(child)]
        self._seen = [process for worker in workers for process in (worker, *worker.children(recursive=True))]
        assert self._seen

    def _is_ours(self, process: psutil.Process) -> bool:
        return process.pid in self.slot._worker._processes()[-1:]

    def lose(self) -> None:
        self._seen[0].kill()

    def is_at_work(self) -> bool:
        return any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self._seen)


class OnRay:
    """A node of a cluster on this machine; what renders there is the child of a child of a process of Ray."""

    def __init__(self, address: str, gate: Gate, joined: Joined) -> None:
        self._gate = gate
        self._joined = joined
        self.slot = RaySlot(joined.cluster, joined.cluster.nodes[0], address)
        self._seen: list[psutil.Process] = []

    async def begun(self) -> None:
        while not self._gate.fetched:  # noqa: ASYNC110 - the gate is in another thread
            await asyncio.sleep(0.01)
        self._seen = [each for each in marked(self._joined.nodes.mark) if "ffmpeg" in each.name()]
        self._seen += [worker for each in self._seen for worker in each.parents() if "forkserver" in _command(worker)]
        assert len(self._seen) >= 2

    def lose(self) -> None:
        for process in self._seen[0].parents():
            if process.name().startswith("ray::"):
                process.kill()
                return
        raise AssertionError("no process of Ray has begun it")

    def is_at_work(self) -> bool:
        return any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self._seen)


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


class Fake:
    def __init__(self, address: str, _: Gate) -> None:
        self.slot = FakeSlot(address)

    async def begun(self) -> None:
        while not self.slot.begun:  # noqa: ASYNC110 - a turn of the loop
            await asyncio.sleep(0)

    async def is_idle(self) -> None:
        await asyncio.sleep(0)

    def lose(self) -> None:
        self.slot.lose()

    def is_at_work(self) -> bool:
        return self.slot.is_at_work


class Bench:
    """One slot that is prepared, and what may happen to it."""

    def __init__(self, place: Local | OnRay | Fake, progress_address: str, directory: Path, gate: Gate) -> None:
        self.slot: Slot = place.slot
        self.progress_address = progress_address
        self.place = place
        self._directory = directory
        self._gate = gate

    def task(self, job_id: str = "a", fields: dict[str, Any] | None = None) -> RenderTask:
        return RenderTask(job_id, make_work(fields or request()), self._directory / f"{job_id}.mp4", SETTINGS)

    async def late(self) -> "tuple[RenderTask, asyncio.Task[object]]":
        """Begin an attempt that goes on until it is ended."""
        task = self.task("late", self._gate.request())
        attempt = asyncio.create_task(self.slot.run(task))
        async with asyncio.timeout(60):
            await self.place.begun()
        return task, attempt

    async def is_ready(self) -> bool:
        return isinstance(await self.slot.run(self.task("next")), RenderReport)


On = Callable[[Callable[[Bench], Awaitable[None]]], None]


KINDS = [
    pytest.param(Local, id="local"),
    pytest.param(OnRay, id="ray", marks=pytest.mark.timeout(300)),  # the first one begins the cluster
    pytest.param(Fake, id="fake"),
]


@pytest.fixture(params=KINDS)
def on(request: pytest.FixtureRequest, tmp_path: Path, gate: Gate) -> On:
    """Return a function that lends a scenario a slot of each kind."""
    joined = [request.getfixturevalue("joined")] if request.param is OnRay else []

    @contextlib.asynccontextmanager
    async def bench() -> AsyncIterator[Bench]:
        with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
            progress_address = f"{scratch}/progress"
            place = request.param(progress_address, gate, *joined)
            await place.slot.prepare()
            try:
                yield Bench(place, progress_address, tmp_path, gate)
            finally:
                await asyncio.to_thread(place.slot.close)
                assert not place.is_at_work()

    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def within() -> None:
            async with bench() as at:
                await scenario(at)

        joined[0].call(within()) if joined else asyncio.run(within())

    return run


def test_a_slot_takes_one_task_after_another_whatever_their_endings(on: On) -> None:
    async def scenario(at: Bench) -> None:
        first, broken = at.task("first"), at.task("broken", request({"url": "data:,nonsense"}))
        report = await at.slot.run(first)
        assert (report.facts.frames, report.facts.size_bytes) == (2, first.output.stat().st_size)
        fault = await at.slot.run(broken)
        assert (fault.type, fault.loc) == ("unsupported_image_format", ("images", 0, "url"))
        await at.slot.prepare()
        await at.slot.prepare()
        assert await at.is_ready()

    on(scenario)


def test_progress_goes_to_the_address_under_the_jobs_id(on: On) -> None:
    async def scenario(at: Bench) -> None:
        heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
        with receiving(at.progress_address, lambda job_id, progress: heard.put_nowait((job_id, progress.frames))):
            assert isinstance(await at.slot.run(at.task("mine")), RenderReport)
            async with asyncio.timeout(60):
                assert await heard.get() == ("mine", 2)

    on(scenario)


def test_a_verdict_ends_the_attempt_and_nothing_of_it_works_on(on: On) -> None:
    async def scenario(at: Bench) -> None:
        _, attempt = await at.late()
        assert at.place.is_at_work()
        at.slot.heard()
        at.slot.stop(ENOUGH)
        at.slot.stop(AttemptLost("this one comes too late"))
        assert await attempt == ENOUGH
        assert not at.place.is_at_work()
        at.slot.heard()
        assert await at.is_ready()

    on(scenario)


def test_a_verdict_while_nothing_runs_does_not_concern_the_next_task(on: On) -> None:
    async def scenario(at: Bench) -> None:
        at.slot.stop(ENOUGH)
        at.slot.heard()
        assert await at.is_ready()
        at.slot.stop(ENOUGH)
        assert await at.is_ready()

    on(scenario)


def test_an_attempt_whose_place_is_lost_says_so_and_the_slot_gets_another(on: On) -> None:
    async def scenario(at: Bench) -> None:
        _, attempt = await at.late()
        at.place.lose()
        ending = await attempt
        assert isinstance(ending, AttemptLost)
        assert ending.cause == "worker"
        assert not at.place.is_at_work()
        assert await at.is_ready()

    on(scenario)


def test_a_place_that_is_lost_while_nothing_runs_says_so_and_the_slot_gets_another(on: On) -> None:
    async def scenario(at: Bench) -> None:
        if isinstance(at.place, OnRay):
            return  # Ray itself begins another process there; a node that is lost does not come back
        assert await at.is_ready()
        losing = asyncio.create_task(at.slot.lost())
        await at.place.is_idle()
        assert not losing.done()
        at.place.lose()
        async with asyncio.timeout(60):
            await losing
        await at.slot.prepare()
        assert await at.is_ready()

    on(scenario)


def test_a_run_that_is_cancelled_leaves_nothing_once_the_slot_is_closed(on: On) -> None:
    async def scenario(at: Bench) -> None:
        task, attempt = await at.late()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.to_thread(at.slot.close)
        await asyncio.to_thread(at.slot.close)
        async with asyncio.timeout(30):
            await at.slot.prepare()
        assert not at.place.is_at_work()
        assert not task.output.exists()

    on(scenario)


def test_the_self_test_of_held_pictures_ends_in_a_verdict(on: On) -> None:
    async def scenario(at: Bench) -> None:
        assert await at.slot.held_pictures_refusal(EncodeSettings()) is None
        assert await at.is_ready()

    on(scenario)
