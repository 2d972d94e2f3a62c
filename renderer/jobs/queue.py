"""The jobs that wait, and the order in which they are begun: normal before low, and clients in turn.

Within a priority each client has a line of its own, first come first served, and the lines take turns; one client with
a thousand jobs delays another's first by one job, not by a thousand. A job that demands a GPU's encoder stays in its
line, and lets others pass, until a place that has one asks.
"""

import asyncio
import contextlib
from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable
from typing import ParamSpec

from renderer.jobs.job import Job

_PRIORITIES = ("normal", "low")
_Place = tuple[int, str, bool]  # order of arrival, id, and whether it demands a GPU's encoder
P = ParamSpec("P")


class FairQueue:
    """The jobs that may be begun."""

    def __init__(self) -> None:
        # The client whose turn is next comes first.
        self._lanes: dict[str, OrderedDict[str, list[_Place]]] = {name: OrderedDict() for name in _PRIORITIES}

    def __len__(self) -> int:
        return sum(map(self.count, _PRIORITIES))

    def count(self, priority: str) -> int:
        return sum(map(len, self._lanes[priority].values()))

    def push(self, job: Job) -> None:
        """Let a job wait; a job that comes back takes the place that its arrival gives it."""
        insort(self._lanes[job.priority].setdefault(job.client, []), _place(job))

    def take(self, *, has_nvenc: bool = True) -> _Place:
        """Remove and return the place of the job whose turn it is.

        Args:
            has_nvenc: whether jobs that demand a GPU's encoder can be taken.

        Raises:
            IndexError: nothing waits that can be taken.
        """
        for lane in self._lanes.values():
            for client, line in lane.items():
                depth = next(
                    (depth for depth, (*_, is_demanding) in enumerate(line) if has_nvenc or not is_demanding), None
                )
                if depth is not None:
                    place = line.pop(depth)
                    lane.move_to_end(client)
                    if not line:
                        del lane[client]
                    return place
        raise IndexError("nothing waits")

    def discard(self, job: Job) -> None:
        """Remove a job if it is here."""
        lane = self._lanes[job.priority]
        line = lane.get(job.client, [])
        if (depth := _depth(line, job)) is not None:
            del line[depth]
            if not line:
                del lane[job.client]

    def ahead(self, job: Job) -> int:
        """Return how many jobs are begun before this one, unless others come; 0 for a job that is not here."""
        lane = self._lanes[job.priority]
        depth = _depth(lane.get(job.client, []), job)
        if depth is None:
            return 0
        before = self.count("normal") if job.priority == "low" else 0
        takes_turn_earlier = True
        for client, other in lane.items():
            if client == job.client:
                takes_turn_earlier = False
                before += depth
            else:
                before += min(len(other), depth + takes_turn_earlier)
        return before


def _place(job: Job) -> _Place:
    return job.number, job.id, job.needs_nvenc


def _depth(line: list[_Place], job: Job) -> int | None:
    """Return how many places stand before a job's in a line, which is sorted; None if the job is not in it."""
    place = _place(job)
    depth = bisect_left(line, place)
    return depth if line[depth : depth + 1] == [place] else None


class WaitingJobs:
    """The queue with its clock: jobs that wait for their turn or for a pause to be over; on one loop.

    Attributes:
        is_closed: no job is taken out any more; the jobs that wait are for the next daemon.
    """

    def __init__(self) -> None:
        self._queue = FairQueue()
        # Those who wait, the longest first, and whether they can take what demands a GPU's encoder; a job wakes one.
        self._takers: dict[asyncio.Future[None], bool] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.is_closed = False

    def push(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._queue.push(job)
        if woken := next((each for each, has_nvenc in self._takers.items() if has_nvenc or not job.needs_nvenc), None):
            self._wake(woken)

    def push_later(self, job: Job, delay_s: float) -> None:
        """Let a job wait for a while before it waits for its turn."""
        self.call_later(job.id, delay_s, self.push, job)

    async def take(self, *, has_nvenc: bool = True) -> str:
        """Remove and return the id of the job whose turn it is, once there is one; its timer goes as well.

        Args:
            has_nvenc: whether jobs that demand a GPU's encoder can be taken.
        """
        while True:
            if not self.is_closed:
                with contextlib.suppress(IndexError):
                    _, job_id, is_demanding = self._queue.take(has_nvenc=has_nvenc)
                    if is_demanding and self._takers:  # it may have been woken by a job that any other can take
                        self._wake(next(iter(self._takers)))
                    self._cancel_timer(job_id)
                    return job_id
            woken = asyncio.get_running_loop().create_future()
            self._takers[woken] = has_nvenc
            try:
                await woken
            except asyncio.CancelledError:
                if self._takers.pop(woken, None) is None:  # the job that woke it is for another
                    for other in list(self._takers):
                        self._wake(other)
                raise

    def _wake(self, taker: "asyncio.Future[None]") -> None:
        del self._takers[taker]
        if not taker.done():
            taker.set_result(None)

    def discard(self, job: Job) -> None:
        """Remove a job, wherever it waits."""
        self._cancel_timer(job.id)
        self._queue.discard(job)

    def ahead(self, job: Job) -> int:
        """Return how many jobs are begun before this one, unless others come."""
        return self._queue.ahead(job)

    def call_later(self, job_id: str, delay_s: float, act: Callable[P, object], *args: P.args, **_: P.kwargs) -> None:
        """Set the timer of a job that waits; each may have one."""
        self._cancel_timer(job_id)
        self._timers[job_id] = asyncio.get_running_loop().call_later(delay_s, act, *args)

    def cancel_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()

    def _cancel_timer(self, job_id: str) -> None:
        if timer := self._timers.pop(job_id, None):
            timer.cancel()
