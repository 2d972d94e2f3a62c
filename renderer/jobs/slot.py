"""One place where a job can run: a worker process, and the watch over the attempt that runs in it.

An attempt ends in a report, in a fault, or in a setback: its worker died, or it was told to stop and come again. What
it was stopped for is decided by whoever stops it; the process is gone before the attempt is over.
"""

import asyncio
import logging
import signal
from dataclasses import dataclass, field, replace
from typing import Literal

from pebble import ProcessExpired

from protocol.schema import Fault
from renderer.config import EncodeSettings, EngineSettings
from renderer.errors import JobTimedOut
from renderer.job_logs import WorkerLog
from renderer.jobs.watchdog import Watchdog
from renderer.jobs.worker import Order, Reach, Worker
from renderer.metrics import Metrics
from renderer.work import RenderReport

log = logging.getLogger(__name__)

_TAKERS = 2  # workers that a job is offered to in one attempt
_TRIAL_S = 300.0  # for a self-test that takes a fifth of a second on a machine with nothing else to do
_LOOK_S = 1.0  # between looks at whether there still is a worker
# What a fault in native code ends a process by; what kills one from outside is no image's fault.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


@dataclass(frozen=True, slots=True)
class Setback:
    """An attempt that ended without an outcome.

    Attributes:
        cause: what ended it. Each worker that dies takes one of the job's attempts; daemons that die are counted apart,
            because the job is hardly their cause; a drain is not counted.
    """

    why: str
    cause: Literal["worker", "daemon", "drain"] = "worker"


Ending = RenderReport | Fault | Setback


@dataclass(frozen=True, slots=True)
class _Unclear:
    """Several images were inside decoders, and which of them is at fault cannot be told."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What others may watch of the engine's work."""

    metrics: Metrics = field(default_factory=Metrics)
    worker_log: WorkerLog = field(default_factory=WorkerLog)


class Slot:
    """A worker process that is given one job at a time; `prepare()` starts it."""

    def __init__(
        self,
        settings: EngineSettings,
        progress_address: str,
        watch: Watch | None = None,
        reach: Reach | None = None,
    ) -> None:
        watch = watch or Watch()
        self._settings = settings
        self._metrics = watch.metrics
        self._worker = Worker(progress_address, settings, watch.worker_log, reach)
        self._attempt: asyncio.Future[RenderReport | Fault] | None = None
        self._verdict: Ending | _Unclear | None = None
        self._reason = ""
        self._watchdog = Watchdog(self._worker, settings.progress_timeout_s)

    async def run(self, order: Order) -> Ending:
        """Run one attempt to its end.

        A worker that died while it was idle is found out only now. The job has no part in that, and gets another. An
        image whose decoder crashes or hangs ends the job in a fault. Where it is not clear which image that is, the
        job is begun once more and decodes one image at a time: the one that is inside then is it.
        """
        self._verdict = None
        # Of a job that ended early; what becomes of it must not be laid to this one.
        is_busy = bool(self._worker.marks.inside())
        if not await asyncio.to_thread(self._worker.suits, order) or is_busy:
            await asyncio.to_thread(self._worker.stop)
            await self.prepare()
        ending = self._verdict or await self._offer(order)
        if isinstance(ending, _Unclear):
            await self.prepare()
            pictures = order.settings.pictures.model_copy(update={"decoding_threads": 1})
            settings = order.settings.model_copy(update={"pictures": pictures})
            ending = self._verdict or await self._offer(replace(order, settings=settings))
        return Setback("it could not be told which image stops its worker") if isinstance(ending, _Unclear) else ending

    async def _offer(self, order: Order) -> Ending | _Unclear:
        for _ in range(_TAKERS):
            ending = await self._try(order) or self._verdict
            if ending is not None:
                return ending
            await self.prepare()
            if self._verdict is not None:  # told to stop meanwhile
                return self._verdict
        return Setback("its worker was lost before it had begun")

    async def held_pictures_refusal(self, settings: EncodeSettings) -> str | None:
        """Return why pictures cannot be held, or None if a worker has shown that they can.

        A worker that is killed from outside has shown nothing, so the test is begun again with another, as a job is.
        """
        why = ""
        for _ in range(self._settings.attempts):
            await self.prepare()
            trial = asyncio.wrap_future(self._worker.try_held_pictures(settings, _TRIAL_S))
            while not trial.done() and not self._worker.is_broken:  # its pool may have missed the test
                await asyncio.wait([trial], timeout=_LOOK_S)
            try:
                return trial.result()
            except TimeoutError:
                why = f"it took longer than {_TRIAL_S:g} s"
            except ProcessExpired as error:
                why = _death(error.exitcode)
            except Exception as error:  # noqa: BLE001 - as in `_try`
                trial.cancel()
                why = f"{_death(None)} ({type(error).__name__})"
            await asyncio.to_thread(self._worker.stop)
        return f"the self-test of held pictures failed: {why}"

    async def prepare(self) -> None:
        """Make sure that there is a worker; where none can be started, try until one can."""
        while self._worker.is_broken:
            try:
                await asyncio.to_thread(self._worker.restart)
            except Exception as error:  # noqa: BLE001 - whatever the system and Pebble run short of
                log.error("no worker can be started: %s", error, extra={"action": "worker"})  # noqa: TRY400 - says it
                await asyncio.sleep(_LOOK_S)

    async def _try(self, order: Order) -> Ending | _Unclear | None:
        """Run one attempt; return None if no worker has taken it."""
        self._watchdog = Watchdog(self._worker, self._settings.progress_timeout_s)
        ending: Ending | _Unclear | None
        try:
            self._attempt = asyncio.wrap_future(self._worker.run(order, self._settings.job_timeout_s))
            await self._watch(self._attempt, order)
            return self._attempt.result()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task and task.cancelling():  # the engine itself is being stopped
                self.stop(Setback("the daemon stopped", "drain"))
                raise
            ending = self._verdict
            if isinstance(ending, _Unclear):  # the job goes on, and may be told to stop
                self._verdict = None
        except TimeoutError:
            self._reason = "timeout"
            ending = JobTimedOut(f"the job took longer than {self._settings.job_timeout_s:g} s").fault()
        except ProcessExpired as error:
            self._reason = "died"
            ending = self._verdict or self._after_death(error.exitcode, order)
        except Exception:  # noqa: BLE001 - whatever Pebble says of a pool whose worker died while it was idle
            self._reason = "died"
            ending = self._verdict
        finally:
            self._attempt = None
        self._metrics.worker_restarted(self._reason)
        await asyncio.to_thread(self._worker.stop)
        return ending

    def heard(self) -> None:
        """Note that the job has made progress."""
        self._watchdog.heard()

    def stop(self, verdict: Ending | _Unclear, reason: str = "cancelled") -> None:
        """End the attempt that runs; `run` then returns the verdict, unless the attempt has ended already.

        Args:
            reason: the word for it in the metrics.
        """
        if self._attempt is None:
            self._verdict = verdict  # a worker is being replaced, and the next one need not begin
        elif not self._attempt.done():
            self._verdict, self._reason = verdict, reason
            self._attempt.cancel()

    def close(self) -> None:
        """Kill the process for good; blocks until it is gone."""
        self._worker.close()

    async def _watch(self, attempt: asyncio.Future[RenderReport | Fault], order: Order) -> None:
        limit_s = self._settings.progress_timeout_s
        decode_limit_s = order.settings.pictures.decode_timeout_s
        watchdog, wait_s = self._watchdog, 0.0
        while not attempt.done():
            watchdog.look(wait_s)
            left_s = watchdog.left_s()
            if left_s <= 0:
                self.stop(JobTimedOut(f"the job made no progress for {limit_s:g} s").fault(), "stalled")
                return
            inside = self._worker.marks.inside()
            if inside and inside[0].since_s - watchdog.lost_s > decode_limit_s:
                # One that holds the interpreter's lock keeps its neighbours inside, so several say nothing.
                is_clear = len(inside) == 1
                fault = inside[0].timed_out(decode_limit_s).fault()
                self.stop(fault if is_clear else _Unclear(), "stalled")
                return
            if self._worker.is_broken:  # its pool may have missed the job, and would never answer
                self._reason = "died"
                attempt.cancel()
                return
            wait_s = min(left_s, decode_limit_s, _LOOK_S)
            await asyncio.wait([attempt], timeout=wait_s)

    def _after_death(self, code: int | None, order: Order) -> Ending | _Unclear:
        """Tell whose fault it is that the worker has died."""
        setback = Setback(_death(code))
        inside = self._worker.marks.inside()
        if code is None or -code not in _CRASHES or not inside:
            return setback
        thread = self._worker.crashed_thread()
        if thread is not None:
            return next((decoding.crashed(-code).fault() for decoding in inside if decoding.thread == thread), setback)
        # No stack was left to tell it by, or the thread was a library's own.
        is_alone = order.settings.pictures.decoding_threads == 1
        return inside[0].crashed(-code).fault() if is_alone else _Unclear()


def _death(code: int | None) -> str:
    if code is None:
        return "its worker was lost"
    if code >= 0:
        return f"its worker ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its worker was killed by {name}"
