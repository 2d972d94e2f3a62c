"""Every job that the daemon knows: all in the store, the unfinished ones in memory too, and who watches them.

A move is stored first and seen afterwards, so that nobody is told what a kill could still undo. Progress within a state
is kept in memory only: it is out of date in a moment, and after a kill the job begins again.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterator

from renderer.errors import JobNotFound
from renderer.jobs.hooks import Hook
from renderer.jobs.job import Job, State
from renderer.jobs.store import JobStore
from renderer.work import RenderJob


class Ledger:
    """Jobs by id; on one loop."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._live = {job.id: job for job in store.unfinished()}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._last_number = store.last_number()

    def next_number(self) -> int:
        return self._last_number + 1

    def add(self, job: Job, work: RenderJob, hook: Hook | None = None) -> None:
        """Keep a new job, and who is to be called when it is done."""
        self._store.add(job, work, hook)
        self._last_number = job.number
        self._live[job.id] = job

    def move(self, job: Job) -> Job:
        """Keep a job that is unfinished so far in its new state, and tell who watches it."""
        self._store.move(job, self._live[job.id].state)
        if job.is_finished:
            del self._live[job.id]
        else:
            self._live[job.id] = job
        self.tell(job.id)
        return job

    def note(self, job: Job) -> None:
        """Keep what is new about a job that stays in its state, in memory only."""
        if job.id in self._live and self._live[job.id].state is job.state:
            self._live[job.id] = job
            self.tell(job.id)

    def find(self, job_id: str) -> Job | None:
        return self._live.get(job_id) or self._store.get(job_id)

    def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            JobNotFound: nobody has this id.
        """
        job = self.find(job_id)
        if job is None:
            raise JobNotFound("no job has this id, or it was forgotten since", loc=("request_id",))
        return job

    def live(self, job_id: str) -> Job | None:
        """Return the job if it is unfinished."""
        return self._live.get(job_id)

    def unfinished(self) -> list[Job]:
        return list(self._live.values())

    def count(self, state: State) -> int:
        return sum(job.state is state for job in self._live.values())

    def newest(self, states: Collection[State], limit: int, owner: str = "") -> list[Job]:
        """Return an owner's newest jobs in these states, in order of arrival, as they are this moment."""
        return [self._live.get(job.id, job) for job in self._store.newest(states or list(State), limit, owner)]

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """Lend an event that is set whenever the job changes."""
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(changed)
        try:
            yield changed
        finally:
            watchers.discard(changed)
            if not watchers and self._watchers.get(job_id) is watchers:
                del self._watchers[job_id]

    def tell(self, job_id: str) -> None:
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()
