"""The jobs that this daemon knows, in memory: a restart forgets them.

Behind this interface comes the database; what stands above asks for nothing that it could not answer.
"""

from collections.abc import Iterator

from renderer.jobs.job import Job, State


class JobStore:
    """Jobs by id, in order of arrival; at most `keep_finished` of them finished."""

    def __init__(self, keep_finished: int) -> None:
        self._jobs: dict[str, Job] = {}
        self._finished: dict[str, None] = {}
        self._keep_finished = keep_finished

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs.values()))

    def get(self, job_id: str) -> Job | None:
        return self._jobs.get(job_id)

    def put(self, job: Job) -> Job:
        """Keep the job in its present state, in place of any earlier one."""
        self._jobs[job.id] = job
        if job.is_finished:
            self._finished[job.id] = None
        return job

    def retire(self) -> list[Job]:
        """Forget the finished jobs beyond the number kept, oldest first, and return them."""
        surplus = list(self._finished)[: max(0, len(self._finished) - self._keep_finished)]
        for job_id in surplus:
            del self._finished[job_id]
        return [self._jobs.pop(job_id) for job_id in surplus]

    def in_state(self, state: State) -> list[Job]:
        return [job for job in self._jobs.values() if job.state is state]
