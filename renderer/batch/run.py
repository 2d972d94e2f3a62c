"""A batch from its first manifest to its last: one task reads and hashes ahead, and one task per slot renders.

Little is held in memory: as many manifests wait as there were slots at first, and the tree is walked while the batch
runs. A second walk beside it counts the manifests. A worker is started when there is something to render, so that a
batch that was finished before ends at once. A video whose attempt was lost is begun again by the next free slot.

A tally counts how far a batch is, how fast it goes, and when it will be done.
"""

import asyncio
import itertools
import logging
import math
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from protocol.schema import Fault, Progress, ResultWarning
from renderer.batch.places import Output
from renderer.batch.plan import Plan, Preparation, Ready, as_text, printable
from renderer.batch.trees import Found
from renderer.config import Settings, render_settings
from renderer.disk import scratch_dir
from renderer.encode.ffmpeg import runnable_ffmpeg
from renderer.errors import NoManifest, OutputFailed, SourceUnavailable, StillreelError, WorkerLost
from renderer.jobs.roster import Roster
from renderer.jobs.slots.base import AttemptLost, RenderTask, Slot, ready_until
from renderer.jobs.slots.local import LocalSlot
from renderer.jobs.slots.progress import receiving
from renderer.jobs.slots.ray import joined
from renderer.jobs.slots.remote import Terms
from renderer.jobs.stills import KeptStills
from renderer.manifests.still import Fields, naming_files, warning_with_files
from renderer.observe.job_log import WorkerLog
from renderer.work import MediaReport, RenderReport

log = logging.getLogger(__name__)


# An estimate of the end is given once this much is done, after this time; an earlier one would jump about.
_LEAST_VIDEOS: Final = 0.1
_LEAST_S: Final = 2.0

UNREAD: Final = "a picture of a format that is not read here"


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be made."""

    name: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that looks like a manifest or a picture, and is not rendered."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning about a video that was made."""

    name: str
    warning: ResultWarning


@dataclass(slots=True)
class Running:
    """A video that is being made."""

    name: str
    progress: Progress


@dataclass(slots=True)
class Tally:
    """Counts of one run; changed on one thread only.

    Attributes:
        total: files of this shard that look like manifests; None until they are counted.
        ignored: files with the name of a manifest that turned out to be something else.
        left_out: those, and the pictures in formats that are not read here.
        frames: of the videos that are done.
        stopped: whether a signal ended the run.
    """

    now: Callable[[], float] = time.monotonic
    total: int | None = None
    done: int = 0
    skipped: int = 0
    ignored: int = 0
    frames: int = 0
    stopped: bool = False
    failures: list[Failure] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    _began: float = field(init=False)
    _rendering_since: float | None = None

    def __post_init__(self) -> None:
        self._began = self.now()

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def settled(self) -> int:
        """Files that need no more work, those that turned out to be no manifests among them."""
        return self.done + self.skipped + self.failed + self.ignored

    @property
    def expected(self) -> int | None:
        """How many files there are that look like manifests, as far as is known."""
        return None if self.total is None else max(self.total, self.settled + len(self.running))

    @property
    def has_found_nothing(self) -> bool:
        """Whether there was nothing at all to render."""
        return self.settled == self.ignored and not self.stopped

    @property
    def elapsed_s(self) -> float:
        return self.now() - self._began

    def ignore(self, name: str) -> None:
        """Count a file that has the name of a manifest and is something else."""
        self.ignored += 1
        self.left_out.append(LeftOut(name, "not a manifest: it names no images"))

    def begin(self, key: str, name: str, progress: Progress) -> None:
        """Note that a video is begun, for the first time or again."""
        if self._rendering_since is None:
            self._rendering_since = self.now()
        self.running[key] = Running(name, progress)

    def advance(self, key: str, progress: Progress) -> None:
        """Note the progress of a video; progress that arrives after its end is ignored."""
        if key in self.running:
            self.running[key].progress = progress

    def finish(self, key: str, frames: int) -> None:
        self.running.pop(key, None)
        self.done += 1
        self.frames += frames

    def warn(self, name: str, warnings: Iterable[ResultWarning]) -> None:
        self.warnings += [Warned(name, warning) for warning in warnings]

    def fail(self, failure: Failure, key: str | None = None) -> None:
        if key is not None:
            self.running.pop(key, None)
        self.failures.append(failure)

    @property
    def frames_per_s(self) -> float | None:
        """Frames per second since the first video was begun; the videos that are being made count in part."""
        elapsed_s = self._rendering_s()
        halves = sum(each.progress.share * each.progress.frames for each in self.running.values())
        return (self.frames + halves) / elapsed_s if elapsed_s >= _LEAST_S / 2 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until the end if the rest takes as long; None while it is too early for an estimate."""
        begun = sum(each.progress.share for each in self.running.values())
        made, elapsed_s = self.done + begun, self._rendering_s()
        if self.expected is None or made < _LEAST_VIDEOS or elapsed_s < _LEAST_S:
            return None
        return (self.expected - self.settled - begun) * elapsed_s / made

    def _rendering_s(self) -> float:
        return 0.0 if self._rendering_since is None else self.now() - self._rendering_since


_READING_THREADS: Final = 8
_TICK_S: Final = 0.125
_PATIENCE_S: Final = 3.0  # with a cluster that has no slot; a node that was there has given work then


class View:
    """Shows nothing of a batch; others show more. Called on the batch's loop, which it must not block."""

    def done(self, tally: Tally, name: str, output: Output, report: RenderReport) -> None:
        """Take note that a video is whole and has its name."""

    def failed(self, tally: Tally, failure: Failure) -> None:
        """Take note that a video could not be made."""

    def tick(self, tally: Tally) -> None:
        """Take note of how far the batch is; called several times a second."""


def run_batch(plan: Plan, settings: Settings, view: View) -> Tally:
    """Render the videos that are not rendered yet; return when all are, or after SIGINT or SIGTERM.

    Every video that is counted as done is on disk. Nothing unfinished remains among the outputs.

    Raises:
        ConfigError: the encoder or the directory of outputs cannot be used.
    """
    runnable_ffmpeg(settings.encode)
    with (
        plan.place.workspace() as unfinished,
        scratch_dir() as scratch,
        ThreadPoolExecutor(_READING_THREADS) as readers,
    ):
        batch = _Batch(plan, settings, view, unfinished, Preparation(plan, settings, readers))
        asyncio.run(batch.run(str(scratch / "progress")))
    return batch.tally


@dataclass(slots=True)
class _Work:
    """A video that is to be made; `key` names it among those of this run."""

    key: str
    ready: Ready
    attempts: int = 0


class _Batch:
    def __init__(self, plan: Plan, settings: Settings, view: View, unfinished: Path, preparation: Preparation) -> None:
        self.tally = Tally()
        self._plan = plan
        self._settings = settings
        self._render_settings = render_settings(settings)
        self._stills, self._cache = None, None
        if plan.stills:
            self._stills = KeptStills(plan.stills, settings.retention, settings.engine.min_free_bytes)
            self._cache = self._stills.shared()
        self._view = view
        self._unfinished = unfinished
        self._preparation = preparation
        self._waiting: asyncio.Queue[_Work] = asyncio.Queue()
        self._roster: Roster
        self._room: asyncio.Semaphore  # for manifests that wait

    async def run(self, progress_address: str) -> None:
        """Render until all is done or a signal comes."""
        engine, loop = self._settings.engine, asyncio.get_running_loop()
        cluster = await joined(Terms(engine, WorkerLog()))
        open_slot = partial(LocalSlot, engine) if "local" in engine.slots else None
        self._roster = Roster(open_slot, self._plan.workers, cluster, "")
        slots = self._plan.workers + (sum(node.slots for node in cluster.nodes) if cluster else 0)
        self._room = asyncio.Semaphore(slots)
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
            async with asyncio.TaskGroup() as lasting:
                ticking = lasting.create_task(self._tick())
                serving = lasting.create_task(self._roster.run(progress_address, self._serve))
                async with asyncio.TaskGroup() as ending:
                    ending.create_task(self._count())
                    ending.create_task(self._feed())
                ticking.cancel()
                serving.cancel()

    async def _tick(self) -> None:
        empty_since = time.monotonic()
        while True:
            self._view.tick(self.tally)
            if self._roster.count or self._waiting.empty():
                empty_since = time.monotonic()
            elif time.monotonic() - empty_since > _PATIENCE_S:
                log.warning(
                    "no node of the cluster offers a slot; the batch waits until `stillreel ray-node` begins one"
                )
                empty_since = math.inf
            await asyncio.sleep(_TICK_S)

    async def _count(self) -> None:
        walk = itertools.takewhile(lambda _: not self.tally.stopped, self._plan.walk())
        self.tally.total = await asyncio.to_thread(lambda: sum(1 for _ in walk))

    async def _feed(self) -> None:
        """Read and check manifests, a little ahead of the slots, and wait until all videos are made."""
        walk, keys = self._plan.walk(), itertools.count()
        while (found := await asyncio.to_thread(next, walk, None)) is not None:
            self.tally.left_out += [LeftOut(f"{found.name}/{name}", UNREAD) for name in found.left_out]
            try:
                ready = await asyncio.to_thread(self._preparation.prepare, found)
            except NoManifest:
                self.tally.ignore(found.name)
            except StillreelError as error:
                self._fail(found, error.fault())
            else:
                if ready:
                    await self._room.acquire()
                    self._waiting.put_nowait(_Work(str(next(keys)), ready))
                else:
                    self.tally.skipped += 1
        await self._waiting.join()

    async def _serve(self, slot: Slot) -> None:
        """Render one video after the other; a worker is begun with the first, so that none is begun for nothing."""
        if not slot.node:
            work = await self._waiting.get()
            await slot.prepare()
            await self._make(work, slot)
        while True:
            await self._make(await ready_until(slot, self._waiting.get), slot)

    async def _make(self, work: _Work, slot: Slot) -> None:
        if work.attempts == 0:
            self._room.release()
        self._roster.running[work.key] = slot
        try:
            await self._render(work, slot)
        finally:
            del self._roster.running[work.key]
        self._waiting.task_done()

    async def _render(self, work: _Work, slot: Slot) -> None:
        """Run one attempt; one that is lost leaves the video to another, unless that was the last."""
        key, ready, limit = work.key, work.ready, self._settings.engine.attempts
        request, rendered = ready.work.request, self._unfinished / f"{key}-{work.attempts}.part"
        self.tally.begin(key, ready.found.name, Progress(images=len(request.images), frames=ready.work.timeline.frames))
        destination = ready.output.destination
        task = RenderTask(key, ready.work, rendered, self._render_settings, destination=destination, cache=self._cache)
        outcome = await slot.run(task)
        if isinstance(outcome, AttemptLost):
            work.attempts += 1
            why = f"{outcome.why} (attempt {work.attempts} of {limit})"
            log.info("%s: %s", printable(ready.found.name), why)
            if work.attempts < limit:
                await asyncio.sleep(self._settings.engine.retry_pause_s * 4 ** (work.attempts - 1))
                self._waiting.put_nowait(work)
                return
            outcome = WorkerLost(why).fault()
        if isinstance(outcome, MediaReport):
            raise TypeError("a batch has jobs of stills alone")
        if isinstance(outcome, RenderReport):
            if self._stills and outcome.stills_coded:
                await asyncio.to_thread(self._stills.bound_shared)
            outcome = replace(outcome, warnings=warning_with_files(outcome.warnings, _sources_of(ready)))
            refused = await asyncio.to_thread(self._publish, ready, rendered, outcome)
            if refused is None:
                self.tally.finish(key, outcome.facts.frames)
                self.tally.warn(ready.found.name, outcome.warnings)
                self._view.done(self.tally, ready.found.name, ready.output, outcome)
                return
            outcome = refused
        self._fail(ready.found, naming_files(outcome, _sources_of(ready)), key)

    def _publish(self, ready: Ready, rendered: Path, report: RenderReport) -> Fault | None:
        """Give a video its name, unless an image has changed since that was made up."""
        output = ready.output
        try:
            if self._preparation.digest(ready.work) != ready.digest:
                raise SourceUnavailable("an image was changed while the video was made; run the batch again")
            result = report.result(output.url, as_text(output.name), ready.work.request)
            told = {**result.model_dump(mode="json"), "manifest": as_text(ready.found.name)}
            output.publish(rendered, told, [image.name for image in report.images])
        except StillreelError as error:
            return error.fault()
        except OSError as error:
            return OutputFailed(f"the video could not be written: {error.strerror}").fault()
        return None

    def _fail(self, found: Found, fault: Fault, key: str | None = None) -> None:
        for left in self._unfinished.glob(f"{key}-*") if key is not None else ():
            left.unlink(missing_ok=True)
        failure = Failure(found.name, fault)
        self.tally.fail(failure, key)
        self._view.failed(self.tally, failure)

    def _hear(self, key: str, progress: Progress) -> None:
        if slot := self._roster.running.get(key):
            slot.heard()
            self.tally.advance(key, progress)


def _sources_of(ready: Ready) -> Fields:
    return ready.work.request.model_dump(include={"images", "audio"})
