"""A job as a value, and the states it passes through.

QUEUED ──> RUNNING ──> DONE
  │ ▲        │ │
  │ └────────┘ │       its worker died and attempts are left
  └────────────┴─────> FAILED    a fault, a cancel, a time limit, a shutdown
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from protocol.schema import Fault, JobStatus, Progress, RenderResult, Status
from renderer.pipeline import RenderJob


class State(Enum):
    """Where a job is."""

    QUEUED = auto()
    RUNNING = auto()
    DONE = auto()
    FAILED = auto()


WORDS: dict[State, Status] = {
    State.QUEUED: "IN_QUEUE",
    State.RUNNING: "IN_PROGRESS",
    State.DONE: "COMPLETED",
    State.FAILED: "COMPLETED",
}

MOVES = {
    State.QUEUED: {State.RUNNING, State.FAILED},
    State.RUNNING: {State.DONE, State.FAILED, State.QUEUED},
    State.DONE: set[State](),
    State.FAILED: set[State](),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request.

    Attributes:
        digest: of the request's body, to tell a repeated request from another one under the same id.
        number: order of arrival.
        files: directory of its attachments, removed when it ends.
        output: directory that its video goes into.
        attempts: times it was given to a worker.
    """

    id: str
    work: RenderJob
    digest: str
    number: int
    output: Path
    progress: Progress
    files: Path | None = None
    state: State = State.QUEUED
    attempts: int = 0
    result: RenderResult | None = None
    error: Fault | None = None

    @property
    def is_finished(self) -> bool:
        return not MOVES[self.state]

    @property
    def turn(self) -> tuple[bool, int]:
        """Sort key of the queue: low priority only after all normal, else first come, first served."""
        return self.work.request.priority == "low", self.number

    def moved(self, state: State, **changes: object) -> "Job":
        """Return the job in another state.

        Raises:
            ValueError: the table above does not allow the move.
        """
        if state not in MOVES[self.state]:
            raise ValueError(f"job {self.id} cannot move from {self.state.name} to {state.name}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type] # names are checked by replace()

    def without_sources(self) -> "Job":
        """Return the job without what it was made from: images in data: urls are as large as files."""
        request = self.work.request.model_copy(update={"images": ()})
        return replace(self, files=None, work=replace(self.work, request=request, attachments=()))

    def status(self, queue_position: int | None) -> JobStatus:
        return JobStatus(
            request_id=self.id,
            status=WORDS[self.state],
            queue_position=queue_position,
            progress=self.progress,
            error=self.error,
        )
