"""From waiting to settled: whose turn it is, which slot runs it, and what follows from how its attempt has ended.

One task per slot takes the job whose turn it is, runs one attempt, and writes down what became of it before anyone is
told. Where the store cannot be written the slot waits with the outcome in its hands and takes nothing new.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import ParamSpec

from protocol.schema import Fault, Progress
from renderer.config import EngineSettings, RenderSettings
from renderer.errors import CapacityError, JobExpired, StillreelError, StoreFailed
from renderer.jobs import landlock, outcome
from renderer.jobs.job import Job, State
from renderer.jobs.ledger import Ledger
from renderer.jobs.outcome import Places
from renderer.jobs.progress import receiving
from renderer.jobs.queue import FairQueue
from renderer.jobs.reach import Reach
from renderer.jobs.slot import Ending, Setback, Slot, Watch
from renderer.jobs.worker import Order

log = logging.getLogger(__name__)

_STORE_PAUSE_S = 1.0
P = ParamSpec("P")


class Dispatcher:
    """Moves the ledger's jobs along; on one loop."""

    def __init__(
        self,
        settings: EngineSettings,
        render: RenderSettings,
        ledger: Ledger,
        places: Places,
        watch: Watch,
        *,
        tries_holds: bool = False,
    ) -> None:
        self._settings = settings
        self._render = render
        self._ledger = ledger
        self._places = places
        self._progress_address = str(places.scratch / "progress")
        self._watch = watch
        self._tries_holds = tries_holds
        self._queue = FairQueue()
        self._arrived = asyncio.Event()
        self._running: dict[str, Slot] = {}
        self._stopped: dict[str, Fault] = {}
        self._ended = asyncio.Event()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.is_draining = False
        self.job_s = 1.0  # what a job takes of late

    async def run(self) -> None:
        """Start the workers and give them jobs until cancelled; then kill them."""
        with receiving(self._progress_address, self._take_progress):
            reach = self._reach()
            slots = [
                Slot(self._settings, self._progress_address, self._watch, reach) for _ in range(self._settings.workers)
            ]
            try:
                if self._tries_holds and self._render.encode.hold_pictures:
                    await self._try_held_pictures(slots[0])
                async with asyncio.TaskGroup() as serving:
                    for slot in slots:
                        serving.create_task(self._serve(slot))
            finally:
                for timer in self._timers.values():
                    timer.cancel()
                await asyncio.shield(asyncio.gather(*(asyncio.to_thread(slot.close) for slot in slots)))

    async def _try_held_pictures(self, slot: Slot) -> None:
        """Have every job encode its holds frame by frame where the self-test of held pictures fails."""
        if refused := await slot.held_pictures_refusal(self._render.encode):
            findings = {"hold_pictures": False, "hold_pictures_refusal": refused}
            encode = self._render.encode.model_copy(update=findings)
            self._render = self._render.model_copy(update={"encode": encode})

    def _reach(self) -> Reach | None:
        """Return what files workers may use; None for all that the daemon may."""
        if not self._settings.confine_workers:
            return None
        if refused := landlock.refusal():
            log.info("workers reach all files that the daemon does: %s", refused, extra={"action": "confine"})
            return None
        return self._places.reach(self._render)

    async def drain(self, timeout_s: float) -> None:
        """Begin no more jobs, and let those that run come to their end; what waits is kept for the next daemon."""
        self.is_draining = True
        for job in self._ledger.unfinished():
            self._ledger.tell(job.id)
        if self._running:
            log.info("draining: %d jobs are running", len(self._running), extra={"action": "drain"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_idle()

    async def hand_back(self, timeout_s: float = 10) -> None:
        """Stop what still runs and let it wait for the next daemon, with as many attempts left as before."""
        self.is_draining = True
        for slot in self._running.values():
            slot.stop(Setback("the daemon stopped", "drain"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._until_idle()

    @property
    def running(self) -> int:
        return len(self._running)

    def ahead(self, job: Job) -> int:
        """Return how many jobs are begun before this one, if nothing else comes."""
        return self._queue.ahead(job)

    def stop(self, job_id: str, verdict: Fault) -> None:
        """Let a job that runs end in this fault, unless it has come to an end of its own."""
        if slot := self._running.get(job_id):
            self._stopped[job_id] = verdict
            slot.stop(verdict)

    def await_turn(self, job: Job) -> None:
        """Let a queued job wait for its turn."""
        if job.start_by is not None and job.started_at is None:
            self._call_later(job.id, max(0.0, job.start_by - time.time()), self._expire, job.id)
        self._queue.push(job)
        self._arrived.set()

    def _await_turn_later(self, job: Job) -> None:
        """Let a job wait for a while after a setback before it waits for its turn."""
        self._call_later(job.id, self._settings.retry_pause_s * 4 ** (job.attempts - 1), self.await_turn, job)

    def _expire(self, job_id: str) -> None:
        job = self._ledger.live(job_id)
        if job is None or job.state is not State.QUEUED or job.start_by is None:
            return
        error = JobExpired(f"not begun within {job.start_by - job.accepted_at:g} s", loc=("start_timeout",)).fault()
        try:
            self.close(job, job.moved(State.EXPIRED, error=error, finished_at=time.time()))
        except StillreelError:
            self._call_later(job.id, _STORE_PAUSE_S, self._expire, job.id)

    async def _serve(self, slot: Slot) -> None:
        """Give one slot job after job."""
        while True:
            await slot.prepare()
            job = self._ledger.live(await self._next())
            if job is None or job.state is not State.QUEUED:
                continue
            try:
                job = self._ledger.move(job.moved(State.RUNNING, attempts=job.attempts + 1, started_at=time.time()))
            except (StoreFailed, CapacityError) as error:
                log.error("not begun: %s", error, extra={"job": job.id})  # noqa: TRY400 - the words say it all
                self.await_turn(job)
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            self._cancel_timer(job.id)
            self._running[job.id] = slot
            try:
                await self._attempt(slot, job)
            finally:
                del self._running[job.id]
                self._stopped.pop(job.id, None)
                self._ended.set()

    async def _next(self) -> str:
        while self.is_draining or not len(self._queue):
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.take()

    async def _attempt(self, slot: Slot, job: Job) -> None:
        """Run a job once, and see to it that what became of it is stored."""
        order: Order | None = None
        ending: Ending
        try:
            work, place = self._ledger.store.work(job.id), outcome.prepare(job)
            order = Order(job.id, work, place, self._render, is_private=not job.is_kept_elsewhere)
        except StillreelError as error:
            ending = error.fault()
        else:
            ending = await slot.run(order)
        job = self._ledger.live(job.id) or job  # with its latest progress
        after = outcome.settled(job, order, ending, self._settings.attempts)
        while True:
            # Told to stop while nothing ran: its worker was dead, or its setback could not be stored.
            if after.state is State.QUEUED and (verdict := self._stopped.get(job.id)):
                ending, after = verdict, outcome.settled(job, None, verdict, self._settings.attempts)
            try:
                self.settle(after, job, ending)
                return
            except (StoreFailed, CapacityError) as error:
                log.error("its end could not be stored yet: %s", error, extra={"job": job.id})  # noqa: TRY400 - as above
                await asyncio.sleep(_STORE_PAUSE_S)

    def settle(self, after: Job, before: Job, ending: Ending) -> None:
        """Store where an attempt has led to, and do what follows from that."""
        if after.is_finished:
            self.job_s += 0.2 * ((after.finished_at or 0) - (before.started_at or 0) - self.job_s)
            self.close(before, after)
            return
        self._ledger.move(after)
        log.warning("attempt %d lost: %s", before.attempts, after.setback, extra={"job": after.id, "action": "setback"})
        outcome.remove_attempts(after)
        if isinstance(ending, Setback) and ending.cause == "worker":
            self._await_turn_later(after)
        elif not self.is_draining:
            self.await_turn(after)

    def close(self, job: Job, after: Job) -> Job:
        """Store a job's last state, then clean up."""
        after = self._ledger.move(after)
        outcome.log_end(after)
        self._watch.metrics.ended(
            after.state.value,
            error_type=after.error.type if after.error else None,
            waited_s=after.started_at - after.accepted_at if after.started_at else None,
            took_s=(after.finished_at or 0) - after.started_at if after.started_at else None,
            result=after.result,
        )
        self._cancel_timer(job.id)
        self._queue.discard(job)
        self._places.clean(after)
        return after

    def _call_later(self, job_id: str, delay_s: float, act: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        """Set the one timer that a waiting job may have."""
        self._cancel_timer(job_id)
        self._timers[job_id] = asyncio.get_running_loop().call_later(delay_s, act, *args)

    def _cancel_timer(self, job_id: str) -> None:
        if timer := self._timers.pop(job_id, None):
            timer.cancel()

    def _take_progress(self, job_id: str, progress: Progress) -> None:
        job = self._ledger.live(job_id)
        if job and (slot := self._running.get(job_id)):
            slot.heard()
            self._ledger.note(replace(job, progress=progress))

    async def _until_idle(self) -> None:
        while self._running:
            self._ended.clear()
            await self._ended.wait()
