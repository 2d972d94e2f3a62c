"""When a worker that says nothing is given up: not while it works, however slowly.

What takes processor time is alive, be it the worker or the encoder that it waits for; the limit on a job's time ends
what works without end. One that was stopped, or waits for what does not come, is not alive. But where the daemon stood
still itself, as in a container that was paused, silence says nothing.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

_LEAST_WORK: Final = 0.01  # of a core; clocks that tick now and then take less
_STOOD_STILL_S: Final = 5.0  # that a look may be late on a machine that is merely busy


class Watched(Protocol):
    """A worker as the kernel sees it."""

    def worked_s(self) -> float:
        """Return the processor time that it and whatever it has begun took so far."""

    def is_stopped(self) -> bool:
        """Say whether a signal has stopped it."""


class Watchdog:
    """Watches one attempt.

    Attributes:
        lost_s: time in which the worker could do nothing, because it was stopped or all stood still.
    """

    def __init__(self, worker: Watched, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._half_s = limit_s / 2
        self._clock = clock
        self._heard_at = self._looked_at = clock()
        self._worked_s: float | None = None  # at a look half-way to the limit
        self.lost_s = 0.0

    def heard(self) -> None:
        """Note that the job has made progress."""
        self._heard_at = self._clock()
        self._worked_s = None

    def look(self, planned_s: float) -> None:
        """Note how things are now, `planned_s` after the last look if nothing has come between."""
        now = self._clock()
        passed_s, self._looked_at = now - self._looked_at, now
        late_s = passed_s - planned_s
        if late_s > _STOOD_STILL_S:
            self._heard_at += late_s
            self.lost_s += late_s
        elif self._worker.is_stopped():
            self.lost_s += passed_s

    def left_s(self) -> float:
        """Return when to ask again; 0 where neither progress nor work was seen for the whole limit."""
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
