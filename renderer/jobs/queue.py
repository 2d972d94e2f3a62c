"""The order in which jobs that wait are begun: normal before low, and clients in turn.

Within a priority each client has a line of its own, first come first served, and the lines take turns; one client with
a thousand jobs delays another's first by one job, not by a thousand.
"""

from bisect import insort
from collections import OrderedDict

from renderer.jobs.job import Job

_PRIORITIES = ("normal", "low")
_Place = tuple[int, str]  # order of arrival and id


class FairQueue:
    """The jobs that may be begun."""

    def __init__(self) -> None:
        # The client whose turn is next stands first.
        self._lanes: dict[str, OrderedDict[str, list[_Place]]] = {name: OrderedDict() for name in _PRIORITIES}

    def __len__(self) -> int:
        return sum(len(line) for lane in self._lanes.values() for line in lane.values())

    def count(self, priority: str) -> int:
        return sum(map(len, self._lanes[priority].values()))

    def push(self, job: Job) -> None:
        """Let a job wait; one that comes back stands where its arrival puts it."""
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
        if (job.number, job.id) in line:
            line.remove((job.number, job.id))
            if not line:
                del lane[job.client]

    def ahead(self, job: Job) -> int:
        """Return how many are begun before this one if nothing else comes; 0 for one that is not here."""
        lane = self._lanes[job.priority]
        line = lane.get(job.client, [])
        if (job.number, job.id) not in line:
            return 0
        depth = line.index((job.number, job.id))
        before = self.count("normal") if job.priority == "low" else 0
        takes_turn_earlier = True
        for client, other in lane.items():
            if client == job.client:
                takes_turn_earlier = False
                before += depth
            else:
                before += min(len(other), depth + takes_turn_earlier)
        return before
