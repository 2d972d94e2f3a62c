"""The life of every job, in the order in which it goes: accepted, waits, begun, watched, ended, stored, cleaned.

Everything here runs on one asyncio loop, so nothing needs a lock; rendering is in the slots. One task per slot takes
the job whose turn it is, runs one attempt, and stores its outcome before anybody learns of it. While the store cannot
be written, the slot keeps the outcome and takes no other job.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from protocol.errors import counted
from protocol.schema import Fault, Health, JobsQuery, JobStatus, Progress, RenderResult
from renderer.config import EngineSettings, RenderSettings
from renderer.errors import (
    CapacityError,
    JobCancelled,
    JobExpired,
    JobNotFound,
    NotSupported,
    RequestIdConflict,
    ShuttingDown,
    StillreelError,
    StoreFailed,
)
from renderer.jobs import asked, outcome
from renderer.jobs.admission import Admission
from renderer.jobs.job import Job, State, Submission, owner_of
from renderer.jobs.outcome import Places
from renderer.jobs.queue import WaitingJobs
from renderer.jobs.roster import Roster
from renderer.jobs.slots import finished
from renderer.jobs.slots.base import AttemptLost, Elsewhere, Ending, OpenSlot, RenderTask, Slot, ready_until
from renderer.jobs.slots.progress import receiving
from renderer.jobs.store import JobStore
from renderer.observe.metrics import Metrics, Snapshot
from renderer.version import VERSION
from renderer.work import NO_GPU_ENCODER, AnyJob

log = logging.getLogger(__name__)

_LOOK_S = 30.0  # between looks at a job that does not change
_STORE_PAUSE_S = 1.0
_HAND_BACK_S = 10.0
_FORGOTTEN = "its request is not kept any more; send the request again"
_KEPT = "the daemon is stopping; the job is kept and goes on once it is back"


class Engine:
    """Accepts jobs, gives them to slots, and answers questions; `recover()` first, then `run()`, on one loop."""

    def __init__(
        self,
        settings: EngineSettings,
        render: RenderSettings,
        store: JobStore,
        places: Places,
        open_slot: OpenSlot | None,
        *,
        elsewhere: Elsewhere | None = None,
        metrics: Metrics | None = None,
        tries_holds: bool = False,
    ) -> None:
        """Store its parts; `open_slot` is None for no slots here; `tries_holds`: a slot tests first if it can hold."""
        self._settings = settings
        self.render_settings = render
        self._store = store
        self._places = places
        self._roster = Roster(open_slot, settings.workers, elsewhere, "libx264" if self._refusal else "nvenc")
        self.metrics = metrics or Metrics()
        self._tries_holds = tries_holds
        self._waiting = WaitingJobs()
        self._running = self._roster.running
        self._verdicts: dict[str, Fault] = {}  # how jobs that are being stopped will end
        self._ended = asyncio.Event()
        self._admission = Admission(settings, store, places, self._roster, self._waiting)

    # The engine starts, drains and stops.

    def recover(self) -> None:
        """Take up the jobs that an earlier daemon left unfinished, and remove what no job owns."""
        unfinished = self._store.unfinished()
        self._places.sweep(unfinished, self._store.ids())
        for job in unfinished:
            outcome.remove_attempts(job)
            if job.state is State.RUNNING:
                lost = AttemptLost("the daemon died while it ran", "daemon")
                after = outcome.apply_ending(job, None, lost, self._settings.attempts)
                self._finish(job, after) if after.is_finished else self._store_setback(job, after, lost)
            else:
                self._await_turn(job)
        if unfinished:
            log.info("%d jobs taken up again", len(unfinished), extra={"action": "recover"})

    async def run(self) -> None:
        """Open the slots and give them jobs until cancelled; then close them."""
        progress_address = str(self._places.scratch / "progress")
        with receiving(progress_address, self._take_progress):
            try:
                await self._roster.run(progress_address, self._serve, self._try_held_pictures)
            finally:
                self._waiting.cancel_timers()

    async def _try_held_pictures(self, slot: Slot) -> None:
        """Have every job encode its holds frame by frame where the self-test of held pictures fails."""
        if not (self._tries_holds and self.render_settings.encode.hold_pictures):
            return
        if refused := await slot.held_pictures_refusal(self.render_settings.encode):
            findings = {"hold_pictures": False, "hold_pictures_refusal": refused}
            encode = self.render_settings.encode.model_copy(update=findings)
            self.render_settings = self.render_settings.model_copy(update={"encode": encode})

    async def drain(self, timeout_s: float) -> None:
        """Begin no more jobs, and let those that run come to their end; what waits is kept for the next daemon."""
        self._waiting.is_closed = True
        for job in self._store.unfinished():
            self._store.wake(job.id)
        if self._running:
            log.info("draining: %d jobs are running", len(self._running), extra={"action": "drain"})
        await self._until_idle(timeout_s)

    async def hand_back(self) -> None:
        """Stop what still runs and let it wait for the next daemon, with as many attempts left as before."""
        self._waiting.is_closed = True
        for slot in self._running.values():
            slot.stop(AttemptLost("the daemon stopped", "drain"))
        await self._until_idle(_HAND_BACK_S)

    async def _until_idle(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._running:
                    self._ended.clear()
                    await self._ended.wait()

    # A request is accepted, or refused.

    def room(self) -> int:
        """Return how many jobs would be accepted now."""
        return self._admission.room()

    def known(self, job_id: str, digest: str) -> Job | None:
        """Return the job that has this id, if one does.

        Raises:
            RequestIdConflict: its body is another one.
        """
        job = self._store.get(job_id)
        if job and job.digest != digest:
            raise RequestIdConflict("another request already has this id", loc=("request_id",))
        return job

    def submit(self, wanted: Submission) -> Job:
        """Accept a job, or recognise one that was accepted before, and return it; it is stored.

        It outlives a kill from now on, and a power cut once `on_disk` has returned: nobody is to be told before.
        The files of one that was accepted before are not those of this submission.

        Raises:
            RequestIdConflict: the id belongs to a job with another body.
            CapacityError: the queue or the disk is full, or the daemon is stopping.
        """
        if known := self.known(wanted.id, wanted.digest):
            return known
        self.check_room(owner_of(wanted.id))
        job = wanted.accepted(self._store.last_number() + 1, self._places.outputs, time.time())
        self._store.add(job, wanted.work, wanted.hook, is_synced=False)
        asked.keep(self._places.logs / job.id, wanted.work.request)
        self.metrics.accepted(job.client)
        self._await_turn(job)
        images, frames = job.progress.images, job.progress.frames
        words = f"{counted(images, 'image')}, {counted(frames, 'frame')}"
        said = words if frames else wanted.kind
        log.info("accepted: %s", said, extra={"job": job.id, "action": "accepted"})
        return job

    async def on_disk(self) -> None:
        """Return when all that was accepted so far outlives a power cut.

        Raises:
            StoreFailed: that is not certain.
        """
        await self._store.flushed()

    def work_again(self, job_id: str) -> AnyJob:
        """Return what a job was made from that has ended without a video.

        Raises:
            JobNotFound: no job has this id.
            NotSupported: it cannot be made again; the message says why.
        """
        outcome.refuse_to_make_again(self.job(job_id))
        try:
            return self._store.work(job_id)
        except StoreFailed as error:
            raise NotSupported(_FORGOTTEN, loc=("request_id",)) from error

    def check_room(self, owner: str = "") -> None:
        """Refuse a job of this owner that cannot be accepted now.

        Raises:
            CapacityError: the message says why.
        """
        self._admission.check(owner)

    # A job waits for its turn.

    def _await_turn(self, job: Job) -> None:
        if job.start_by is not None and job.started_at is None:
            self._waiting.call_later(job.id, max(0.0, job.start_by - time.time()), self._expire, job.id)
        self._waiting.push(job)

    def _expire(self, job_id: str) -> None:
        job = self._store.live(job_id)
        if job is None or job.state is not State.QUEUED or job.start_by is None:
            return
        error = JobExpired(f"not begun within {job.start_by - job.accepted_at:g} s", loc=("start_timeout",)).fault()
        try:
            self._finish(job, job.moved(State.EXPIRED, error=error, finished_at=time.time()))
        except StillreelError:
            self._waiting.call_later(job.id, _STORE_PAUSE_S, self._expire, job.id)

    # It is begun.

    async def _serve(self, slot: Slot) -> None:
        """Give one slot job after job."""
        take = partial(self._waiting.take, has_nvenc=self._takes_nvenc(slot))
        while True:
            job = self._store.live(await ready_until(slot, take))
            if job is None or job.state is not State.QUEUED:
                continue
            try:
                job = self._store.update(job.moved(State.RUNNING, attempts=job.attempts + 1, started_at=time.time()))
            except (StoreFailed, CapacityError) as error:
                log.error("not begun: %s", error, extra={"job": job.id})  # noqa: TRY400 - the words say it all
                self._await_turn(job)
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            self._running[job.id] = slot
            try:
                await self._attempt(slot, job)
            finally:
                del self._running[job.id]
                self._verdicts.pop(job.id, None)
                self._ended.set()

    def _takes_nvenc(self, slot: Slot) -> bool:
        """Say whether a slot takes jobs that demand a GPU's encoder; one that is alone does, and they fail in words."""
        if slot.encoder is not None:
            return slot.encoder == "nvenc"
        gpus = self.render_settings.gpus
        return not self._roster.has_nodes or bool(gpus and (gpus.candidates or gpus.refused))

    def has_node_with(self, encoder: str) -> bool:
        """Say whether another machine that is there now has this encoder."""
        return any(each.node and each.encoder == encoder for each in self._roster.by_node())

    async def _attempt(self, slot: Slot, job: Job) -> None:
        """Run a job once, and store the outcome."""
        task: RenderTask | None = None
        ending: Ending
        try:
            task = outcome.task_for(job, self._store.work(job.id), self.render_settings, self._places.cache_for(job))
        except StillreelError as error:
            ending = error.fault()
        else:
            earlier = await asyncio.to_thread(finished.take, task) if job.setback else None
            ending = self._verdicts.get(job.id) or earlier or await slot.run(task)
        job = self._store.live(job.id) or job  # with its latest progress
        after = await asyncio.to_thread(self._settled, job, task, ending)
        while True:
            # Told to stop while nothing ran: its worker was dead, or the loss of its attempt could not be stored.
            if after.state is State.QUEUED and (verdict := self._verdicts.get(job.id)):
                ending, after = verdict, outcome.apply_ending(job, None, verdict, self._settings.attempts)
            try:
                if after.is_finished:
                    await self._store.end(after)
                    self._conclude(job, after)
                else:
                    self._store_setback(job, after, ending)
                return
            except (StoreFailed, CapacityError) as error:
                log.error("its end could not be stored yet: %s", error, extra={"job": job.id})  # noqa: TRY400 - as above
                await asyncio.sleep(_STORE_PAUSE_S)

    def _settled(self, job: Job, task: RenderTask | None, ending: Ending) -> Job:
        """Give a video its name, keep its stills, and return the job as the ending leaves it; syncs files."""
        if task:
            self._places.take_stills(task, ending, self.metrics)
        return outcome.apply_ending(job, task, ending, self._settings.attempts)

    # It is watched, and may be stopped.

    def _take_progress(self, job_id: str, progress: Progress) -> None:
        job = self._store.live(job_id)
        if job and (slot := self._running.get(job_id)):
            slot.heard()
            self._store.note(replace(job, progress=progress))

    def cancel(self, job_id: str) -> Job:
        """Ask that a job end; a running job ends as soon as its slot is stopped, and a finished one does not change.

        Raises:
            JobNotFound: no job has this id.
        """
        job = self.job(job_id)
        cancelled = JobCancelled("the request was cancelled by its client").fault()
        if job.state is State.QUEUED:
            return self._finish(job, job.moved(State.CANCELLED, error=cancelled, finished_at=time.time()))
        if slot := self._running.get(job_id):
            self._verdicts[job_id] = cancelled
            slot.stop(cancelled)
        return job

    # Its attempt has ended. The outcome is stored, and after the last attempt its files are removed.

    def _store_setback(self, job: Job, after: Job, ending: Ending) -> None:
        """Store that an attempt was lost, and let the job wait again."""
        self._store.update(after)
        log.warning("attempt %d lost: %s", job.attempts, after.setback, extra={"job": job.id, "action": "setback"})
        outcome.remove_attempts(after)
        if isinstance(ending, AttemptLost) and ending.cause == "worker":
            self._waiting.push_later(after, self._settings.retry_pause_s * 4 ** (after.attempts - 1))
        elif not self._waiting.is_closed:
            self._await_turn(after)

    def _finish(self, job: Job, after: Job) -> Job:
        """Store the last state of a job that does not run, then clean up."""
        self._conclude(job, self._store.update(after))
        return after

    def _conclude(self, job: Job, after: Job) -> None:
        """Log and count the end of a job, which was stored before, and clean up."""
        if job.state is State.RUNNING:
            self._admission.note((after.finished_at or 0) - (job.started_at or 0))
        outcome.log_end(after)
        self.metrics.ended(
            after.state.value,
            error_type=after.error.type if after.error else None,
            waited_s=after.started_at - after.accepted_at if after.started_at else None,
            took_s=(after.finished_at or 0) - after.started_at if after.started_at else None,
            result=after.result if isinstance(after.result, RenderResult) else None,
        )
        self._waiting.discard(job)
        self._places.clean(after)

    def relocate(self, job_id: str, directory: Path) -> Job:
        """Note that a finished job's video was moved by its owner; the daemon leaves it alone from now on."""
        job = outcome.relocated(self.job(job_id), directory)
        return self._store.update(job)

    # Questions.

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobNotFound: no job has this id.
        """
        if job := self._store.get(job_id):
            return job
        raise JobNotFound("no job has this id, or it was forgotten since", loc=("request_id",))

    def unfinished(self, client: str) -> list[Job]:
        return [job for job in self._store.unfinished() if job.client == client]

    def status(self, job: Job) -> JobStatus:
        return job.status(self._waiting.ahead(job) if job.state is State.QUEUED else None)

    def jobs(self, query: JobsQuery, owner: str = "") -> list[JobStatus]:
        """Return an owner's newest jobs; without a key, those of all that have none."""
        states = [State(name) for name in query.states]
        return [self.status(job) for job in self._store.newest(states, query.limit, owner)]

    @property
    def _refusal(self) -> str | None:
        return self.render_settings.gpus.refusal if self.render_settings.gpus else NO_GPU_ENCODER

    def health(self) -> Health:
        refusal, reasons = self._refusal, self._admission.refusals()
        return Health(
            status="draining" if self._waiting.is_closed else "ok",
            version=VERSION,
            ready=not reasons,
            reasons=reasons,
            workers=self._roster.count,
            slots=self._roster.by_node(),
            jobs_running=len(self._running),
            jobs_queued=self._store.count(State.QUEUED),
            encoder="libx264" if refusal else "nvenc",
            encoder_reason=refusal,
        )

    def snapshot(self, uptime_s: float, spool_claims: int | None, spool_backlog: int | None) -> Snapshot:
        """Return the present state of the engine, for the metrics."""
        waiting = [job for job in self._store.unfinished() if job.state is State.QUEUED]
        now = time.time()
        return Snapshot(
            is_ready=self.room() > 0,
            queued=Counter(job.priority for job in waiting),
            running=len(self._running),
            workers=self._roster.count,
            outputs_bytes=self._store.video_bytes(),
            uptime_s=uptime_s,
            oldest_queued_s=max([0.0, *(now - job.accepted_at for job in waiting)]),
            disk_free_bytes=self._places.free_bytes(),
            disk_min_free_bytes=self._settings.min_free_bytes,
            webhooks_pending=self._store.webhooks_pending(),
            spool_claims=spool_claims,
            spool_backlog=spool_backlog,
            slots=self._roster.by_node(),
        )

    async def updates(self, job_id: str, heartbeat_s: float) -> AsyncIterator[Job]:
        """Yield the job now, at every change, and every `heartbeat_s` in between; end after its last state.

        Raises:
            JobNotFound: no job has this id.
            ShuttingDown: the daemon stops before the job can run.
        """
        with self._store.watching(job_id) as changed:
            while True:
                changed.clear()
                job = self.job(job_id)
                yield job
                if job.is_finished:
                    return
                if self._waiting.is_closed and job.state is State.QUEUED:
                    raise ShuttingDown(_KEPT)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        await changed.wait()

    async def finished(self, job_id: str) -> Job:
        """Return the job once it has ended.

        Raises:
            JobNotFound, ShuttingDown: as `updates` does.
        """
        job = self.job(job_id)
        async for update in self.updates(job_id, _LOOK_S):
            job = update
        return job
