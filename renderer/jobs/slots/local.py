"""A slot on this machine: a worker process, and the watchdog of the attempt that runs in it.

The caller that stops an attempt decides how the attempt ends, and the process is gone before `run` returns.

A worker that reports no progress is killed, but not while it works, however slowly. It counts as alive while it, or the
encoder that it waits for, uses processor time; the limit on a job's time ends work that would go on for ever. A worker
that was stopped by a signal, or that waits in vain, does not count as alive. Silence proves nothing, however, if the
daemon itself was stopped for a while, as in a container that was paused.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from pebble import ProcessExpired

from protocol.schema import Fault
from renderer.config import EncodeSettings, EngineSettings
from renderer.errors import JobTimedOut
from renderer.jobs.slots import confinement
from renderer.jobs.slots.base import AttemptLost, Ending, OpenSlot, RenderTask
from renderer.jobs.slots.worker import Reach, Worker
from renderer.observe.job_log import WorkerLog
from renderer.observe.metrics import Metrics
from renderer.work import Report

log = logging.getLogger(__name__)

_TAKERS = 2  # how many workers a job is offered to in one attempt
_TRIAL_S: Final = 60.0  # for a self-test that takes a fifth of a second on a machine with nothing else to do
_LOOK_S = 1.0  # between two checks that the worker still exists
_BEGINS_S = 0.05  # about what a new process takes to say its number
_LEAST_WORK: Final = 0.01  # of a core; an idle process with a timer uses less
_STOOD_STILL_S: Final = 5.0  # how late a check may be on a machine that is merely busy
# The signals by which a fault in native code ends a process; a kill from outside is not the fault of an image.
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT}


@dataclass(frozen=True, slots=True)
class _Unclear:
    """Several images were being decoded, and it is not known which of them is at fault."""


def local_slots(
    settings: EngineSettings,
    reach: Reach,
    *,
    metrics: Metrics | None = None,
    worker_log: WorkerLog | None = None,
) -> OpenSlot:
    """Return a function that opens slots on this machine; where Linux can confine them, workers reach only some files.

    Args:
        reach: gives the files that a worker needs.
    """
    confined: Reach | None = reach if settings.confine_workers else None
    if confined and (refused := confinement.refusal()):
        log.info("workers can reach all files that the daemon can: %s", refused, extra={"action": "confine"})
        confined = None
    return lambda address: LocalSlot(settings, address, metrics=metrics, worker_log=worker_log, reach=confined)


class LocalSlot:
    """A worker process that is given one job at a time; `prepare()` starts it."""

    node: Final = ""
    encoder: Final = None

    def __init__(
        self,
        settings: EngineSettings,
        progress_address: str,
        *,
        metrics: Metrics | None = None,
        worker_log: WorkerLog | None = None,
        reach: Reach | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._new_worker = partial(Worker, progress_address, settings, worker_log, reach)
        self._worker = self._new_worker()
        self._attempt: asyncio.Future[Report | Fault] | None = None
        self._ending: asyncio.Future[None] | None = None  # of a worker that was lost
        self._verdict: Ending | _Unclear | None = None
        self._reason = ""
        self._watchdog = Watchdog(self._worker, settings.progress_timeout_s)

    async def run(self, task: RenderTask) -> Ending:
        """Run one attempt to its end.

        A worker that died before it began the job did not do so because of it, and another is given the job. An image
        whose decoder crashes or hangs ends the job with a fault. If it is not clear which image that was, the job is
        started once more and decodes one image at a time, so that only one image can be at fault.
        """
        self._verdict = None
        # A job that ended early may still be decoding; a crash of that must not be blamed on this job.
        is_busy = bool(self._worker.marks.inside())
        while self._verdict is None and (is_busy or not await asyncio.to_thread(self._worker.suits, task)):
            await asyncio.to_thread(self._worker.stop)
            await self.prepare()
            is_busy = False
        ending = self._verdict or await self._offer(task)
        if isinstance(ending, _Unclear):
            await self.prepare()
            pictures = task.settings.pictures.model_copy(update={"decoding_threads": 1})
            settings = task.settings.model_copy(update={"pictures": pictures})
            ending = self._verdict or await self._offer(replace(task, settings=settings))
        return AttemptLost("it is not known which image stops its worker") if isinstance(ending, _Unclear) else ending

    async def _offer(self, task: RenderTask) -> Ending | _Unclear:
        for _ in range(_TAKERS):
            ending = await self._try(task) or self._verdict
            if ending is not None:
                return ending
            await self.prepare()
            if self._verdict is not None:  # `stop` was called meanwhile
                return self._verdict
        return AttemptLost("its worker was lost before it started the job")

    async def held_pictures_refusal(self, settings: EncodeSettings) -> str | None:
        """Return why pictures cannot be held, or None if a worker has shown that they can.

        A worker that is killed or stopped from outside proves nothing, so another worker repeats the test, as it would
        repeat a job. All jobs wait for the verdict.
        """
        lost = AttemptLost("it was not started")
        for _ in range(self._settings.attempts):
            await self.prepare()
            verdict = await self._try_held_pictures(settings)
            if verdict is not None:
                await asyncio.to_thread(self._worker.stop)
            if not isinstance(verdict, AttemptLost):
                return verdict
            lost = verdict
        return f"the self-test of held pictures failed: {lost.why}"

    async def _try_held_pictures(self, settings: EncodeSettings) -> str | AttemptLost | None:
        trial = asyncio.wrap_future(self._worker.try_held_pictures(settings, _TRIAL_S))
        watchdog, wait_s = Watchdog(self._worker, settings.probe_timeout_s), 0.0
        try:
            while not trial.done() and not self._worker.is_broken:  # its pool may have lost the test
                watchdog.look(wait_s)
                wait_s = min(watchdog.left_s(), _LOOK_S)
                if wait_s <= 0:
                    return AttemptLost("its worker stopped working")
                await asyncio.wait([trial], timeout=wait_s)
            return trial.result()
        except TimeoutError:
            return f"the self-test of held pictures failed: it took longer than {_TRIAL_S:g} s"
        except ProcessExpired as error:
            return AttemptLost(_death(error.exitcode))
        except Exception as error:  # noqa: BLE001 - as in `_try`
            return AttemptLost(f"{_death(None)} ({type(error).__name__})")
        finally:
            trial.cancel()

    async def prepare(self) -> None:
        """Make sure that there is a worker with enough memory left; if none can be started, try until one can.

        Memory that decoders never give back would in the end make jobs fail at the limit on a worker's memory.
        """
        if not self._worker.is_broken and await asyncio.to_thread(self._worker.has_grown):
            log.info(
                "a worker is replaced because it keeps too much of the memory that its jobs used",
                extra={"action": "worker"},
            )
            self._metrics.worker_restarted("grown")
            await asyncio.to_thread(self._worker.stop)
        while self._worker.is_broken and not self._worker.is_closed:
            try:
                await asyncio.to_thread(self._worker.restart)
            except Exception as error:  # noqa: BLE001 - the system or Pebble may lack any kind of resource
                words = str(error) or f"the server that workers are forked from has ended ({type(error).__name__})"
                log.error("no worker can be started: %s", words, extra={"action": "worker"})  # noqa: TRY400 - in words
                await asyncio.sleep(_LOOK_S)

    async def lost(self) -> None:
        """Return once the worker has died; another takes its place at once, which `prepare` starts."""
        while (process := self._worker.open_process()) is None:
            if self._worker.is_broken:
                return
            await asyncio.sleep(_BEGINS_S)
        loop, has_ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(process, has_ended.set)
        try:
            await has_ended.wait()
        finally:
            loop.remove_reader(process)
            os.close(process)
        log.info("an idle worker has ended and is replaced", extra={"action": "worker"})
        self._metrics.worker_restarted("died")
        # Pebble takes a tenth of a second to give a pool up, which the next worker need not wait for.
        dead, self._worker = self._worker, self._new_worker()
        self._ending = loop.run_in_executor(None, dead.close)

    async def _try(self, task: RenderTask) -> Ending | _Unclear | None:
        """Run one attempt; return None if the worker did not take it."""
        self._watchdog = Watchdog(self._worker, self._settings.progress_timeout_s)
        ending: Ending | _Unclear | None
        try:
            self._attempt = asyncio.wrap_future(self._worker.run(task, self._settings.job_timeout_s))
            await self._watch(self._attempt, task)
            return self._attempt.result()
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current and current.cancelling():  # the engine itself is being stopped
                self.stop(AttemptLost("the daemon stopped", "drain"))
                raise
            ending = self._verdict
            if isinstance(ending, _Unclear):  # the job is started once more, and `stop` may be called again
                self._verdict = None
        except TimeoutError:
            self._reason = "timeout"
            ending = JobTimedOut(f"the job took longer than {self._settings.job_timeout_s:g} s").fault()
        except ProcessExpired as error:
            self._reason = "died"
            ending = self._verdict or self._after_death(error.exitcode, task)
        except Exception:  # noqa: BLE001 - Pebble raises various errors if the worker of a pool died while it was idle
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
            reason: the value of the label `reason` in the metrics.
        """
        if self._attempt is None:
            self._verdict = verdict  # a worker is being replaced; the next one does not start the job
        elif not self._attempt.done():
            self._verdict, self._reason = verdict, reason
            self._attempt.cancel()

    def close(self) -> None:
        """Kill the process for good; blocks until it is gone."""
        self._worker.close()

    async def _watch(self, attempt: asyncio.Future[Report | Fault], task: RenderTask) -> None:
        limit_s = self._settings.progress_timeout_s
        decode_limit_s = task.settings.pictures.decode_timeout_s
        watchdog, wait_s = self._watchdog, 0.0
        while not attempt.done():
            watchdog.look(wait_s)
            left_s = watchdog.left_s()
            if left_s <= 0:
                self.stop(JobTimedOut(f"the job made no progress for {limit_s:g} s").fault(), "stalled")
                return
            inside = self._worker.marks.inside()
            if inside and inside[0].since_s - watchdog.lost_s > decode_limit_s:
                # A decoder that holds the interpreter's lock also delays the others, so several prove nothing.
                is_clear = len(inside) == 1
                fault = inside[0].timed_out(decode_limit_s).fault()
                self.stop(fault if is_clear else _Unclear(), "stalled")
                return
            if self._worker.is_broken:  # its pool may have lost the job, and would never answer
                self._reason = "died"
                attempt.cancel()
                return
            wait_s = min(left_s, decode_limit_s, _LOOK_S)
            await asyncio.wait([attempt], timeout=wait_s)

    def _after_death(self, code: int | None, task: RenderTask) -> Ending | _Unclear:
        """Decide why the worker has died: by the fault of an image, of an unknown image, or of no image at all."""
        lost = AttemptLost(_death(code))
        inside = self._worker.marks.inside()
        if code is None or -code not in _CRASHES or not inside:
            return lost
        thread = self._worker.crashed_thread()
        if thread is not None:
            return next((decoding.crashed(-code).fault() for decoding in inside if decoding.thread == thread), lost)
        # The crash left no stack that names a thread, or the thread belongs to a library.
        is_alone = task.settings.pictures.decoding_threads == 1 and len(inside) == 1
        return inside[0].crashed(-code).fault() if is_alone else _Unclear()


def _death(code: int | None) -> str:
    if code is None:
        return "its worker was lost"
    if code >= 0:
        return f"its worker ended with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its worker was killed by {name}"


class Watched(Protocol):
    """What the kernel knows about a worker."""

    def worked_s(self) -> float:
        """Return the processor time that it and its child processes have used so far."""

    def is_stopped(self) -> bool:
        """Say whether a signal has stopped it."""


class Watchdog:
    """Watches one attempt.

    Attributes:
        lost_s: time in which the worker could not work, because it or the whole machine was stopped.
    """

    def __init__(self, worker: Watched, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._half_s = limit_s / 2
        self._clock = clock
        self._heard_at = self._looked_at = clock()
        self._worked_s: float | None = None  # processor time at half of the limit
        self.lost_s = 0.0

    def heard(self) -> None:
        """Note that the job has made progress."""
        self._heard_at = self._clock()
        self._worked_s = None

    def look(self, planned_s: float) -> None:
        """Notice time in which the worker could not work; the last call should have been `planned_s` ago."""
        now = self._clock()
        passed_s, self._looked_at = now - self._looked_at, now
        late_s = passed_s - planned_s
        if late_s > _STOOD_STILL_S:
            self._heard_at += late_s
            self.lost_s += late_s
        elif self._worker.is_stopped():
            self.lost_s += passed_s

    def left_s(self) -> float:
        """Return after how long to ask again; 0 if there was neither progress nor work for the whole limit."""
        silent_s = self._clock() - self._heard_at
        if silent_s < self._half_s:
            return self._half_s - silent_s
        if self._worked_s is None:
            return self._wait_on(self._worker.worked_s())
        if silent_s < 2 * self._half_s:
            return 2 * self._half_s - silent_s
        worked_s = self._worker.worked_s()
        if worked_s - self._worked_s <= _LEAST_WORK * self._half_s:
            return 0
        return self._wait_on(worked_s)

    def _wait_on(self, worked_s: float) -> float:
        self._worked_s = worked_s
        self._heard_at = self._clock() - self._half_s
        return self._half_s
