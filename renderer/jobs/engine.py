"""The engine as the doors see it: takes jobs in, tells how each is doing, takes orders, stops in good order.

Everything here runs on one asyncio loop, so nothing needs a lock; rendering is in the worker processes. What happens to
a job between the queue and its end is `dispatch`'s.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from protocol.schema import Health, JobsQuery, JobStatus, Progress
from renderer.config import VERSION, EngineSettings, RenderSettings
from renderer.devices import NO_GPU_ENCODER
from renderer.errors import (
    JobCancelled,
    NotSupported,
    QueueFull,
    RequestIdConflict,
    ShuttingDown,
    StorageFull,
    StoreFailed,
)
from renderer.jobs import asked, outcome
from renderer.jobs.dispatch import Dispatcher
from renderer.jobs.job import Job, State, Submission, owner_of
from renderer.jobs.ledger import Ledger
from renderer.jobs.outcome import Places
from renderer.jobs.slot import Setback, Watch
from renderer.jobs.store import JobStore
from renderer.metrics import Snapshot
from renderer.work import RenderJob

log = logging.getLogger(__name__)

_MINUTE_S = 60.0
_LOOK_S = 30.0  # between looks at a job that does not change
_KEPT = "the daemon is stopping; the job is kept and goes on once it is back"


class Engine:
    """Admission, queue, slots. `recover()` first, `run()` in a task of its own, everything else on the same loop."""

    def __init__(
        self,
        settings: EngineSettings,
        render: RenderSettings,
        store: JobStore,
        places: Places,
        watch: Watch | None = None,
        *,
        tries_holds: bool = False,
    ) -> None:
        """Remember where everything is.

        Args:
            tries_holds: let the first worker show that its encoder's pictures can be held before a job begins.
        """
        self._settings = settings
        self._render = render
        self._places = places
        self._ledger = Ledger(store)
        watch = watch or Watch()
        self.metrics = watch.metrics
        self._dispatcher = Dispatcher(settings, render, self._ledger, places, watch, tries_holds=tries_holds)

    # Life.

    def recover(self) -> None:
        """Take up the jobs that an earlier daemon left unfinished, and remove what no job owns."""
        unfinished = self._ledger.unfinished()
        self._places.sweep(unfinished, self._ledger.store.ids())
        for job in unfinished:
            outcome.remove_attempts(job)
            if job.state is State.RUNNING:
                lost = Setback("the daemon died while it ran", "daemon")
                self._dispatcher.settle(outcome.settled(job, None, lost, self._settings.attempts), job, lost)
            else:
                self._dispatcher.await_turn(job)
        if unfinished:
            log.info("%d jobs taken up again", len(unfinished), extra={"action": "recover"})

    async def run(self) -> None:
        """Start the workers and give them jobs until cancelled; then kill them."""
        await self._dispatcher.run()

    async def drain(self, timeout_s: float) -> None:
        """Begin no more jobs, and let those that run come to their end; what waits is kept for the next daemon."""
        await self._dispatcher.drain(timeout_s)

    async def hand_back(self) -> None:
        """Stop what still runs and let it wait for the next daemon, with as many attempts left as before."""
        await self._dispatcher.hand_back()

    # Admission.

    def room(self) -> int:
        """Return how many jobs would be accepted now."""
        return 0 if self._dispatcher.is_draining or self._disk_trouble() else self._queue_room()

    def known(self, job_id: str, digest: str) -> Job | None:
        """Return the job that has this id, if one does.

        Raises:
            RequestIdConflict: its body is another one.
        """
        job = self._ledger.find(job_id)
        if job and job.digest != digest:
            raise RequestIdConflict("another request already has this id", loc=("request_id",))
        return job

    def submit(self, wanted: Submission) -> tuple[Job, bool]:
        """Accept a job, or recognise one that was accepted before.

        Returns:
            The job, which is stored, and whether it is new; only then `files` belong to it.

        Raises:
            RequestIdConflict: the id belongs to a job with another body.
            CapacityError: the queue or the disk is full, or the daemon is stopping.
        """
        if known := self.known(wanted.id, wanted.digest):
            return known, False
        self.check_room(owner_of(wanted.id))
        request, now = wanted.work.request, time.time()
        job = Job(
            id=wanted.id,
            client=wanted.client,
            digest=wanted.digest,
            number=self._ledger.next_number(),
            priority=request.priority,
            output=wanted.output or self._places.outputs / wanted.id,
            progress=Progress(images=len(request.images), frames=wanted.work.timeline.frames),
            accepted_at=now,
            is_kept_elsewhere=wanted.output is not None,
            files=wanted.files,
            sync_mode=request.sync_mode,
            start_by=now + request.start_timeout if request.start_timeout else None,
        )
        self._ledger.add(job, wanted.work, wanted.hook)
        asked.keep(self._places.logs / job.id, request)
        self.metrics.accepted(job.client)
        self._dispatcher.await_turn(job)
        words = "accepted: %d images, %d frames"
        log.info(words, job.progress.images, job.progress.frames, extra={"job": job.id, "action": "accepted"})
        return job, True

    def work_again(self, job_id: str) -> RenderJob:
        """Return what a job was made from that has ended without a video.

        Raises:
            JobNotFound: nobody has this id.
            NotSupported: it cannot be made again; the words say why.
        """
        job = self.job(job_id)
        reasons = {
            "it has not ended; cancel it first, or wait for it": not job.is_finished,
            "its video was made; ask for its result": job.state is State.DONE,
            "its manifest is in the manifest directory; rename it into incoming again": job.is_kept_elsewhere,
            "its pictures came with the request and went when it ended; send the request again": job.files is not None,
        }
        for reason, is_so in reasons.items():
            if is_so:
                raise NotSupported(reason, loc=("request_id",))
        try:
            return self._ledger.store.work(job_id)
        except StoreFailed as error:
            words = "its request is not kept any more; send the request again"
            raise NotSupported(words, loc=("request_id",)) from error

    def check_room(self, owner: str = "") -> None:
        """Refuse what cannot be taken now.

        Raises:
            CapacityError: no job of this owner would be accepted now; the words say why.
        """
        if self._dispatcher.is_draining:
            raise ShuttingDown("the daemon is stopping; send the request again once it is back")
        if trouble := self._disk_trouble():
            raise StorageFull(f"the daemon's disk {trouble}; try again later")
        if self._queue_room() == 0:
            most, wait_s = self._settings.max_queued, self._dispatcher.job_s / self._settings.workers
            raise QueueFull(
                f"expected at most {most} jobs to wait, found {self._ledger.count(State.QUEUED)}; "
                f"the next place is free in about {max(1, round(wait_s))} s"
            )

        if owner:
            self._check_share(owner)

    def _check_share(self, owner: str) -> None:
        most, pixels = self._settings.max_queued_per_key, self._settings.max_pixels_per_key
        mine = [job for job in self._ledger.unfinished() if job.owner == owner and job.state is State.QUEUED]
        if most and len(mine) >= most:
            raise QueueFull(f"expected at most {most} jobs of one key to wait, found {len(mine)}; try again later")
        spent = self._ledger.store.pixels_since(owner, time.time() - _MINUTE_S) if pixels else 0
        if pixels and spent >= pixels:
            raise QueueFull(
                f"expected less than {pixels} pixels of stills within a minute for one key, found {spent}; "
                "try again in a minute"
            )

    def _queue_room(self) -> int:
        idle = self._settings.workers - self._dispatcher.running
        return max(0, self._settings.max_queued + idle - self._ledger.count(State.QUEUED))

    def _disk_trouble(self) -> str | None:
        return self._places.trouble(self._settings.min_free_bytes)

    # Questions.

    def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobNotFound: nobody has this id.
        """
        return self._ledger.get(job_id)

    def unfinished(self, client: str) -> list[Job]:
        return [job for job in self._ledger.unfinished() if job.client == client]

    def status(self, job: Job) -> JobStatus:
        return job.status(self._dispatcher.ahead(job) if job.state is State.QUEUED else None)

    def jobs(self, query: JobsQuery, owner: str = "") -> list[JobStatus]:
        """Return an owner's newest jobs; without a key, those of all that have none."""
        states = [State(name) for name in query.states]
        return [self.status(job) for job in self._ledger.newest(states, query.limit, owner)]

    def health(self) -> Health:
        gpus = self._render.gpus
        refusal = gpus.refusal if gpus else NO_GPU_ENCODER
        reasons = []
        if self._dispatcher.is_draining:
            reasons.append("the daemon is stopping")
        if trouble := self._disk_trouble():
            reasons.append(f"the disk {trouble}")
        if not reasons and self._queue_room() == 0:
            reasons.append("the queue is full")
        return Health(
            status="draining" if self._dispatcher.is_draining else "ok",
            version=VERSION,
            ready=not reasons,
            reasons=tuple(reasons),
            workers=self._settings.workers,
            jobs_running=self._dispatcher.running,
            jobs_queued=self._ledger.count(State.QUEUED),
            encoder="libx264" if refusal else "nvenc",
            encoder_reason=refusal,
        )

    def snapshot(self, uptime_s: float, spool_claims: int | None, spool_backlog: int | None) -> Snapshot:
        """Return how the engine stands, for the metrics."""
        waiting = [job for job in self._ledger.unfinished() if job.state is State.QUEUED]
        now = time.time()
        return Snapshot(
            is_ready=self.room() > 0,
            queued=Counter(job.priority for job in waiting),
            running=self._dispatcher.running,
            workers=self._settings.workers,
            outputs_bytes=self._ledger.store.video_bytes(),
            uptime_s=uptime_s,
            oldest_queued_s=max([0.0, *(now - job.accepted_at for job in waiting)]),
            disk_free_bytes=self._places.free_bytes(),
            disk_min_free_bytes=self._settings.min_free_bytes,
            webhooks_pending=self._ledger.store.webhooks_pending(),
            spool_claims=spool_claims,
            spool_backlog=spool_backlog,
        )

    async def updates(self, job_id: str, heartbeat_s: float) -> AsyncIterator[Job]:
        """Yield the job now, at every change, and every `heartbeat_s` in between; end after its last state.

        Raises:
            JobNotFound: nobody has this id.
            ShuttingDown: the daemon stops before the job can run.
        """
        with self._ledger.watching(job_id) as changed:
            while True:
                changed.clear()
                job = self.job(job_id)
                yield job
                if job.is_finished:
                    return
                if self._dispatcher.is_draining and job.state is State.QUEUED:
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

    # Orders.

    def cancel(self, job_id: str) -> Job:
        """Ask that a job end; one that runs ends as soon as its worker is stopped, one that has ended stays as it is.

        Raises:
            JobNotFound: nobody has this id.
        """
        job = self._ledger.get(job_id)
        cancelled = JobCancelled("the request was cancelled by its client").fault()
        if job.state is State.QUEUED:
            return self._dispatcher.close(job, job.moved(State.CANCELLED, error=cancelled, finished_at=time.time()))
        self._dispatcher.stop(job_id, cancelled)
        return job

    def relocate(self, job_id: str, directory: Path) -> Job:
        """Note that a finished job's video was moved by its owner; the daemon leaves it alone from now on."""
        job = self._ledger.get(job_id)
        if job.result:
            video = job.result.video.model_copy(update={"url": (directory / outcome.VIDEO_NAME).absolute().as_uri()})
            job = replace(job, result=job.result.model_copy(update={"video": video}))
        job = replace(job, output=directory, is_kept_elsewhere=True, video_bytes=0)
        self._ledger.store.change(job)
        return job
