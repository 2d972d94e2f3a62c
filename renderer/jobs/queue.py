"""The jobs that wait, and the order in which they are begun: normal before low, and clients in turn.

Within a priority each client has a line of its own, first come first served, and the lines take turns; one client with
a thousand jobs delays another's first by one job, not by a thousand.
"""

import asyncio
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import ParamSpec

from renderer.jobs.job import Job

_PRIORITIES = ("normal", "low")
_Place = tuple[int, str]  # order of arrival and id
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
        insort(self._lanes[job.priority].setdefault(job.client, []), (job.number, job.id))

    def take(self) -> str:
        """Remove and return the id of the job whose turn it is.

        Raises:
            IndexError: nothing waits.
        """
        for lane in self._lanes.values():
            if lane:
                client, line = next(iter(lane.items()))
                _, job_id = line.pop(0)
                lane.move_to_end(client)
                if not line:
                    del lane[client]
                return job_id
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


def _depth(line: list[_Place], job: Job) -> int | None:
    """Return how many places stand before a job's in a line, which is sorted; None if the job is not in it."""
    place = (job.number, job.id)
    depth = bisect_left(line, place)
    return depth if line[depth : depth + 1] == [place] else None


class WaitingJobs:
    """The queue with its clock: jobs that wait for their turn or for a pause to be over; on one loop.

    Attributes:
        is_closed: no job is taken out any more; the jobs that wait are for the next daemon.
    """

    def __init__(self) -> None:
        self._queue = FairQueue()
        self._takers = deque[asyncio.Future[None]]()  # those who wait; a job wakes one of them
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.is_closed = False

    def push(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._queue.push(job)
        self._wake_one()

    def push_later(self, job: Job, delay_s: float) -> None:
        """Let a job wait for a while before it waits for its turn."""
        self.call_later(job.id, delay_s, self.push, job)

    async def take(self) -> str:
        """Remove and return the id of the job whose turn it is, once there is one; its timer goes as well."""
        while self.is_closed or not len(self._queue):
            woken = asyncio.get_running_loop().create_future()
            self._takers.append(woken)
            try:
                await woken
            except asyncio.CancelledError:
                if woken.done() and not woken.cancelled():  # the job that came is another's then
                    self._wake_one()
                raise
        job_id = self._queue.take()
        self._cancel_timer(job_id)
        return job_id

    def _wake_one(self) -> None:
        while self._takers:
            woken = self._takers.popleft()
            if not woken.done():
                woken.set_result(None)
                return

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
