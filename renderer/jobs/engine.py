"""The engine: takes jobs in, gives them to workers, and knows how each is doing.

Everything here runs on one asyncio loop, so nothing needs a lock; rendering is in the worker processes. One task per
worker takes the next job, waits for its end and writes the outcome down before anyone is told.
"""

import asyncio
import contextlib
import json
import logging
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

from protocol.errors import ERRORS
from protocol.schema import Fault, Health, JobStatus, Progress
from renderer.config import VERSION, EngineSettings, RenderSettings
from renderer.errors import (
    JobCancelled,
    JobNotFound,
    JobTimedOut,
    OutputFailed,
    QueueFull,
    RequestIdConflict,
    ShuttingDown,
    WorkerLost,
)
from renderer.jobs.job import Job, State
from renderer.jobs.store import JobStore
from renderer.jobs.worker import Order, Worker
from renderer.pipeline import NO_GPU_ENCODER, RenderJob, RenderReport

log = logging.getLogger(__name__)

VIDEO_NAME = "video.mp4"
_CANCELLED = JobCancelled("the request was cancelled by its client").fault()


class Engine:
    """Admission, queue, workers. Call `run()` in a task of its own, everything else on the same loop."""

    def __init__(self, settings: EngineSettings, render: RenderSettings, outputs: Path, scratch: Path) -> None:
        """Args:
        outputs: directory that gets one directory per job, named by its id.
        scratch: directory for the progress socket; its path is short.
        """
        self._settings = settings
        self._render = render
        self._outputs = outputs
        self._progress_address = str(scratch / "progress")
        self._store = JobStore(settings.keep_finished)
        self._queue: asyncio.PriorityQueue[tuple[tuple[bool, int], str]] = asyncio.PriorityQueue()
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._running: dict[str, asyncio.Future[RenderReport | Fault]] = {}
        self._accepted = 0
        self._draining = False

    async def run(self) -> None:
        """Start the workers and give them jobs until cancelled; then kill them."""
        with self._progress_socket():
            workers = [
                Worker(self._progress_address, self._settings.worker_memory_bytes)
                for _ in range(self._settings.workers)
            ]
            try:
                async with asyncio.TaskGroup() as slots:
                    for worker in workers:
                        slots.create_task(self._serve(worker))
            finally:
                await asyncio.shield(asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in workers)))

    def submit(self, job_id: str, work: RenderJob, digest: str, files: Path | None = None) -> tuple[Job, bool]:
        """Accept a job, or recognise one that was accepted before.

        Args:
            job_id: fit for a directory's name; the schema has checked it.
            digest: of the body; equal digests are the same request.
            files: directory that belongs to the job from now on, if it is new.

        Returns:
            The job, and whether it is new.

        Raises:
            RequestIdConflict: the id belongs to a job with another body.
            CapacityError: the queue is full or the daemon is stopping.
        """
        if known := self._store.get(job_id):
            if known.digest != digest:
                raise RequestIdConflict("another request already has this id", loc=("request_id",))
            return known, False
        if self._draining:
            raise ShuttingDown("the daemon is stopping; send the request again once it is back")
        waiting = len(self._store.in_state(State.QUEUED))
        idle = self._settings.workers - len(self._running)
        if waiting >= self._settings.max_queued + idle:
            raise QueueFull(f"{waiting} jobs are waiting, and no more than {self._settings.max_queued} may; try later")
        self._accepted += 1
        job = Job(
            id=job_id,
            work=work,
            digest=digest,
            number=self._accepted,
            output=self._outputs / job_id,
            progress=Progress(images=len(work.request.images), frames=work.timeline.frames),
            files=files,
        )
        self._store.put(job)
        self._queue.put_nowait((job.turn, job.id))
        log.info("job %s accepted: %d images, %d frames", job_id, job.progress.images, job.progress.frames)
        return job, True

    def job(self, job_id: str) -> Job:
        """Raises:
        JobNotFound: nobody has this id.
        """
        job = self._store.get(job_id)
        if job is None:
            raise JobNotFound("no job has this id, or it was forgotten since", loc=("request_id",))
        return job

    def status(self, job: Job) -> JobStatus:
        if job.state is not State.QUEUED:
            return job.status(None)
        return job.status(sum(other.turn < job.turn for other in self._store.in_state(State.QUEUED)))

    def jobs(self) -> list[JobStatus]:
        """Return every job that is known, in order of arrival."""
        queued = sorted(job.turn for job in self._store.in_state(State.QUEUED))
        position = {turn: index for index, turn in enumerate(queued)}
        return [job.status(position.get(job.turn)) for job in self._store]

    def health(self) -> Health:
        return Health(
            status="draining" if self._draining else "ok",
            version=VERSION,
            workers=self._settings.workers,
            jobs_running=len(self._running),
            jobs_queued=len(self._store.in_state(State.QUEUED)),
            encoder="libx264",
            encoder_reason=NO_GPU_ENCODER,
        )

    async def updates(self, job_id: str, heartbeat_s: float) -> AsyncIterator[Job]:
        """Yield the job now, at every change, and every `heartbeat_s` in between; end after its last state."""
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(changed)
        try:
            while True:
                changed.clear()
                job = self.job(job_id)
                yield job
                if job.is_finished:
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(heartbeat_s):
                        await changed.wait()
        finally:
            watchers.discard(changed)
            if not watchers:
                self._watchers.pop(job_id, None)

    def cancel(self, job_id: str) -> Job:
        """Ask that a job end; one that runs ends as soon as its worker is stopped.

        Raises:
            JobNotFound: nobody has this id.
        """
        job = self.job(job_id)
        if job.state is State.QUEUED:
            return self._finish(job, _CANCELLED)
        if running := self._running.get(job_id):
            running.cancel()
        elif job.state is State.RUNNING:  # between two attempts
            return self._finish(job, _CANCELLED)
        return job

    async def drain(self, timeout_s: float) -> None:
        """Take no more jobs, refuse those that wait, and let those that run come to their end."""
        self._draining = True
        for job in self._store.in_state(State.QUEUED):
            self._finish(job, ShuttingDown("the daemon stopped before the job began; send it again").fault())
        if self._running:
            log.info("draining: %d jobs are running", len(self._running))
            await asyncio.wait(list(self._running.values()), timeout=timeout_s)

    def abandon(self) -> None:
        """Fail the jobs that still run, so that their clients hear of it; `run()` is to be cancelled next."""
        for job in self._store.in_state(State.RUNNING):
            self._finish(job, ShuttingDown("the daemon stopped before the job ended; send it again").fault())

    async def _serve(self, worker: Worker) -> None:
        """Give one worker job after job."""
        while True:
            _, job_id = await self._queue.get()
            job = self._store.get(job_id)
            if job is None or job.state is not State.QUEUED:
                continue  # cancelled while it waited
            job = self._change(job.moved(State.RUNNING, attempts=job.attempts + 1))
            outcome = await self._attempt(worker, job)
            job = self.job(job_id)
            if job.is_finished:
                continue  # the drain ran out of patience
            if outcome is None:
                log.warning("job %s: its worker died, attempt %d", job_id, job.attempts)
                self._change(job.moved(State.QUEUED))
                self._queue.put_nowait((job.turn, job.id))
            else:
                self._finish(job, outcome)

    async def _attempt(self, worker: Worker, job: Job) -> RenderReport | Fault | None:
        """Run a job once; None means that its worker died and it may be tried again."""
        try:
            job.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            return OutputFailed(f"the video could not be written: {error.strerror}").fault()
        order = Order(job.id, job.work, job.output / VIDEO_NAME, self._render)
        outcome: RenderReport | Fault | None
        try:
            future = asyncio.wrap_future(worker.run(order, self._settings.job_timeout_s))
            self._running[job.id] = future
            await asyncio.wait([future])
            return future.result()
        except asyncio.CancelledError:
            if not self._running[job.id].cancelled():
                self._running[job.id].cancel()
                raise  # the engine itself is being stopped
            outcome = _CANCELLED
        except TimeoutError:
            outcome = JobTimedOut(f"the job took longer than {self._settings.job_timeout_s:g} s").fault()
        except Exception as error:  # noqa: BLE001 - whatever Pebble says when a process dies
            log.warning("job %s: worker lost: %r", job.id, error)
            last = job.attempts >= self._settings.attempts
            outcome = WorkerLost(f"its worker died {job.attempts} times").fault() if last else None
        finally:
            self._running.pop(job.id, None)
        await asyncio.to_thread(worker.restart)
        return outcome

    def _finish(self, job: Job, outcome: RenderReport | Fault) -> Job:
        """Write the outcome down, clean up, tell whoever waits."""
        if job.files:
            shutil.rmtree(job.files, ignore_errors=True)
        if isinstance(outcome, Fault):
            shutil.rmtree(job.output, ignore_errors=True)
            job = job.moved(State.FAILED, error=outcome)
            level = logging.ERROR if ERRORS[outcome.type].name == "internal_error" else logging.INFO
            log.log(level, "job %s failed: %s", job.id, outcome.message)
        else:
            request = job.work.request.model_copy(update={"request_id": job.id})
            result = outcome.result((job.output / VIDEO_NAME).as_uri(), VIDEO_NAME, request)
            done = job.progress.model_copy(update={"images_done": job.progress.images, "stage": "done"})
            job = job.moved(State.DONE, result=result, progress=done)
            log.info("job %s done in %.3f s", job.id, outcome.timings["total"])
        self._change(job.without_sources())
        for old in self._store.retire():
            shutil.rmtree(old.output, ignore_errors=True)
        return job

    def _change(self, job: Job) -> Job:
        self._store.put(job)
        for watcher in self._watchers.get(job.id, ()):
            watcher.set()
        return job

    @contextlib.contextmanager
    def _progress_socket(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
            receiver.bind(self._progress_address)
            receiver.setblocking(False)
            loop.add_reader(receiver, self._take_progress, receiver)
            try:
                yield
            finally:
                loop.remove_reader(receiver)

    def _take_progress(self, receiver: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            message = json.loads(receiver.recv(65536))
            job = self._store.get(message["job"])
            if job and job.state is State.RUNNING:
                self._change(replace(job, progress=Progress.model_validate(message["progress"])))
