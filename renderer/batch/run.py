"""A batch from its first manifest to its last: one task reads and hashes ahead, one per worker renders.

Little is held at a time: what waits is bounded by the number of workers, and the tree is walked as it goes. It is
walked once more beforehand, to count. A worker is started when there is something to render, so that a batch that is
done already ends at once.
"""

import asyncio
import itertools
import logging
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from protocol.schema import Fault, Progress
from renderer.batch.discover import Found
from renderer.batch.outputs import Output, as_text, printable
from renderer.batch.plan import Plan, Preparation, Ready, Settled
from renderer.batch.tally import UNREAD, Failure, LeftOut, Tally
from renderer.batch.workspace import workspace
from renderer.config import Settings, render_settings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.errors import ConfigError, FetchFailed, OutputFailed, StillreelError, WorkerLost
from renderer.jobs.slots.base import AttemptLost, RenderTask, Slot
from renderer.jobs.slots.local import LocalSlot
from renderer.jobs.slots.progress import receiving
from renderer.manifests.still import Fields, naming_files, warning_with_files
from renderer.scratch import scratch_dir
from renderer.work import RenderReport

log = logging.getLogger(__name__)

_READING_THREADS: Final = 8
_TICK_S: Final = 0.125


class View(Protocol):
    """Who watches a batch; called on its loop, and not to block it."""

    def done(self, tally: Tally, name: str, output: Output, report: RenderReport) -> None:
        """A video is whole and has its name."""

    def failed(self, tally: Tally, failure: Failure) -> None:
        """A video could not be made."""

    def tick(self, tally: Tally) -> None:
        """Time goes by."""


def run_batch(plan: Plan, settings: Settings, view: View) -> Tally:
    """Render what is not rendered yet; returns when all is, or when SIGINT or SIGTERM has come.

    Every video that is counted as done is on disk. Nothing else remains among the outputs.

    Raises:
        ConfigError: the encoder or the directory of outputs cannot be used.
    """
    ffmpeg = find_ffmpeg(settings.encode)
    if shutil.which(ffmpeg) is None:
        raise ConfigError(f"encode.ffmpeg: {ffmpeg} is no program that can be run")
    with workspace(plan.out) as unfinished, scratch_dir() as scratch, ThreadPoolExecutor(_READING_THREADS) as readers:
        batch = _Batch(plan, settings, view, unfinished, Preparation(plan, settings, readers))
        asyncio.run(batch.run(str(scratch / "progress")))
    return batch.tally


class _Batch:
    def __init__(self, plan: Plan, settings: Settings, view: View, unfinished: Path, preparation: Preparation) -> None:
        self.tally = Tally()
        self._plan = plan
        self._settings = settings
        self._render_settings = render_settings(settings)
        self._view = view
        self._unfinished = unfinished
        self._preparation = preparation
        self._keys = itertools.count()
        self._waiting: asyncio.Queue[Ready | None] = asyncio.Queue(plan.workers)
        self._slots: dict[str, Slot] = {}

    async def run(self, progress_address: str) -> None:
        """Render until all is done or a signal comes."""
        loop = asyncio.get_running_loop()
        work = asyncio.create_task(self._work(progress_address))
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._stop, work)
        try:
            await work
        except asyncio.CancelledError:
            if not self.tally.stopped:
                raise
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(signum)

    def _stop(self, work: "asyncio.Task[None]") -> None:
        self.tally.stopped = True
        self._preparation.abandon()
        work.cancel()

    async def _work(self, progress_address: str) -> None:
        with receiving(progress_address, self._hear):
            async with asyncio.TaskGroup() as ticking:
                ticker = ticking.create_task(self._tick())
                async with asyncio.TaskGroup() as working:
                    working.create_task(self._count())
                    working.create_task(self._feed())
                    for _ in range(self._plan.workers):
                        working.create_task(self._serve(progress_address))
                ticker.cancel()

    async def _tick(self) -> None:
        while True:
            self._view.tick(self.tally)
            await asyncio.sleep(_TICK_S)

    async def _count(self) -> None:
        walk = itertools.takewhile(lambda _: not self.tally.stopped, self._plan.walk())
        self.tally.total = await asyncio.to_thread(lambda: sum(1 for _ in walk))

    async def _feed(self) -> None:
        """Read and check manifests, a little ahead of the workers."""
        walk = self._plan.walk()
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            self.tally.left_out += [LeftOut(f"{found.name}/{name}", UNREAD) for name in found.left_out]
            outcome = await asyncio.to_thread(self._prepare, found)
            if isinstance(outcome, Ready):
                await self._waiting.put(outcome)
            elif isinstance(outcome, Fault):
                self._fail(found, outcome)
            elif outcome is Settled.SKIPPED:
                self.tally.skipped += 1
            else:
                self.tally.ignore(found.name)
        for _ in range(self._plan.workers):
            await self._waiting.put(None)

    def _prepare(self, found: Found) -> Ready | Settled | Fault:
        try:
            return self._preparation.prepare(found)
        except StillreelError as error:
            return error.fault()

    async def _serve(self, progress_address: str) -> None:
        """Render one video after the other in a worker of our own."""
        slot: Slot | None = None
        try:
            while (ready := await self._waiting.get()) is not None:
                if slot is None:
                    slot = LocalSlot(self._settings.engine, progress_address)
                    await slot.prepare()
                await self._render(ready, slot)
        finally:
            if slot is not None:
                await asyncio.shield(asyncio.to_thread(slot.close))

    async def _render(self, ready: Ready, slot: Slot) -> None:
        key = str(next(self._keys))
        rendered = self._unfinished / f"{key}.part"
        outcome = await self._attempts(ready, slot, RenderTask(key, ready.work, rendered, self._render_settings))
        if isinstance(outcome, RenderReport):
            outcome = replace(outcome, warnings=warning_with_files(outcome.warnings, _images_of(ready)))
            refused = await asyncio.to_thread(self._publish, ready, rendered, outcome)
            if refused is None:
                self.tally.finish(key, outcome.facts.frames)
                self.tally.warn(ready.found.name, outcome.warnings)
                self._view.done(self.tally, ready.found.name, ready.output, outcome)
                return
            outcome = refused
        self._fail(ready.found, naming_files(outcome, _images_of(ready)), key)

    async def _attempts(self, ready: Ready, slot: Slot, task: RenderTask) -> RenderReport | Fault:
        """Try until the video is made, or a worker has died over it too often."""
        limit, pause_s = self._settings.engine.attempts, self._settings.engine.retry_pause_s
        untouched = Progress(images=len(ready.work.request.images), frames=ready.work.timeline.frames)
        self._slots[task.job_id] = slot
        try:
            attempt = 0
            while True:
                attempt += 1
                self.tally.begin(task.job_id, ready.found.name, untouched)
                ending = await slot.run(task)
                if not isinstance(ending, AttemptLost):
                    return ending
                why = f"{ending.why} (attempt {attempt} of {limit})"
                log.info("%s: %s", printable(ready.found.name), why)
                if attempt >= limit:
                    return WorkerLost(why).fault()
                await asyncio.sleep(pause_s * 4 ** (attempt - 1))
        finally:
            del self._slots[task.job_id]

    def _publish(self, ready: Ready, rendered: Path, report: RenderReport) -> Fault | None:
        """Give a video its name, unless an image has changed since that was made up."""
        output = ready.output
        try:
            if self._preparation.digest(ready.work) != ready.digest:
                raise FetchFailed("an image was changed while the video was made; run the batch again")
            result = report.result(output.video.as_uri(), as_text(output.video.name), ready.work.request)
            output.publish(rendered, {**result.model_dump(mode="json"), "manifest": as_text(ready.found.name)})
        except StillreelError as error:
            return error.fault()
        except OSError as error:
            return OutputFailed(f"the video could not be written: {error.strerror}").fault()
        return None

    def _fail(self, found: Found, fault: Fault, key: str | None = None) -> None:
        for left in self._unfinished.glob(f"{key}.*") if key is not None else ():
            left.unlink(missing_ok=True)
        failure = Failure(found.name, fault)
        self.tally.fail(failure, key)
        self._view.failed(self.tally, failure)

    def _hear(self, key: str, progress: Progress) -> None:
        if key in self._slots:
            self._slots[key].heard()
            self.tally.advance(key, progress)


def _images_of(ready: Ready) -> Fields:
    return ready.work.request.model_dump(include={"images"})
