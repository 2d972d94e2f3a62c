"""A job as a value, and the table of the states it passes through.

The engine, the tests and the diagram in docs/jobs.md read that table; nothing else says which state may follow which.

The id of a job whose client has a key begins with the name of the key, so that the request_ids of clients with keys
never meet: no client can ask for, take or block a job that another has named.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from protocol.media import AnyResult, kind_of
from protocol.objects import is_object
from protocol.schema import Fault, JobStatus, Progress, RenderResult, Status
from renderer.jobs.hooks import Hook
from renderer.work import AnyJob, RenderJob


class State(Enum):
    """Where a job is; the value is what the store keeps and clients read."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_last(self) -> bool:
        return self not in _LEFT


# From, to, and what makes a job go that way.
MOVES: dict[tuple[State, State], str] = {
    (State.QUEUED, State.RUNNING): "a worker takes it",
    (State.QUEUED, State.CANCELLED): "its client cancels",
    (State.QUEUED, State.EXPIRED): "start_timeout is over",
    (State.RUNNING, State.DONE): "the video is there",
    (State.RUNNING, State.FAILED): "a fault, a time limit, or the last attempt lost",
    (State.RUNNING, State.CANCELLED): "its client cancels",
    (State.RUNNING, State.QUEUED): "its worker or the daemon died, or the daemon drains",
}

_LEFT = frozenset(before for before, _ in MOVES)

WORDS: dict[State, Status] = {
    State.QUEUED: "IN_QUEUE",
    State.RUNNING: "IN_PROGRESS",
    State.DONE: "COMPLETED",
    State.FAILED: "COMPLETED",
    State.CANCELLED: "COMPLETED",
    State.EXPIRED: "COMPLETED",
}

_MINE = "~"  # stands between owner and request_id; neither a request_id nor the name of a key may have it


def own_id(owner: str, request_id: str) -> str:
    """Return the id of the job that a client calls `request_id`; text that is not a request_id gives the id of no job.

    Args:
        owner: the client's key; empty for clients without one, who share their jobs.
    """
    return f"{owner}{_MINE}{request_id}" if owner or _MINE in request_id else request_id


def owner_of(own: str) -> str:
    """Return whose job an id names; empty where the client had no key."""
    return own.rpartition(_MINE)[0]


def ids_of(owner: str) -> tuple[str, str]:
    """Return the bounds between which the ids of an owner's jobs lie, the upper one left out."""
    return f"{owner}{_MINE}", f"{owner}{chr(ord(_MINE) + 1)}"


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request on its way to become a job; see Job for what the fields mean.

    Attributes:
        id: what `own_id` returns; fit for a directory's name, as the schema has checked.
        output: absent, the daemon's own directory for it.
        hook: whom to call when it is done.
    """

    id: str
    client: str
    digest: str
    work: AnyJob
    files: Path | None = None
    output: Path | None = None
    hook: Hook | None = None

    @property
    def kind(self) -> str:
        return kind_of(self.work.request)

    def accepted(self, number: int, outputs: Path, now: float) -> "Job":
        """Return the job that this becomes.

        Args:
            outputs: where the daemon has one directory for each job.
            now: in Unix seconds.
        """
        work, request = self.work, self.work.request
        job = Job(
            id=self.id,
            client=self.client,
            digest=self.digest,
            number=number,
            priority=request.priority,
            output=self.output or outputs / self.id,
            progress=Progress(images=0, frames=0),
            accepted_at=now,
            is_kept_elsewhere=self.output is not None,
            files=self.files,
            start_by=now + request.start_timeout if request.start_timeout else None,
        )
        if not isinstance(work, RenderJob):
            return job
        return replace(
            job,
            progress=Progress(images=len(work.request.images), frames=work.timeline.frames),
            sync_mode=work.request.sync_mode,
            needs_nvenc=work.request.encoder == "nvenc",
        )


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request, without what it is made from: that is in the store until the job ends.

    Attributes:
        client: who sent it; clients take turns. "zmq:..." with the connection's identity or the key's name, "http:..."
            with the key's name or the address, or "spool".
        digest: of the request's body, to tell a repeated request from another one under the same id.
        number: order of arrival.
        output: directory that its video goes into.
        is_kept_elsewhere: its video is not the daemon's to remove.
        files: directory of its attachments, removed when it ends.
        sync_mode: its video goes with the answer.
        start_by: Unix time after which it is not begun any more.
        needs_nvenc: its request demands a GPU's encoder.
        attempts: how often it was given to a worker, not counting attempts that the end of a daemon cut short.
        interruptions: how often a daemon died while the job ran.
        setback: why the last attempt was lost; None if none was.
        video_bytes: size of the video that the daemon keeps, with the files beside it; 0 if it keeps no video.
    """

    id: str
    client: str
    digest: str
    number: int
    priority: Literal["normal", "low"]
    output: Path
    progress: Progress
    accepted_at: float
    is_kept_elsewhere: bool = False
    files: Path | None = None
    sync_mode: bool = False
    start_by: float | None = None
    needs_nvenc: bool = False
    state: State = State.QUEUED
    attempts: int = 0
    interruptions: int = 0
    setback: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    video_bytes: int = 0
    result: Annotated[AnyResult, Field(union_mode="left_to_right")] | None = None
    error: Fault | None = None

    @property
    def owner(self) -> str:
        """The key whose job it is; empty where the client had none."""
        return owner_of(self.id)

    @property
    def request_id(self) -> str:
        """What its client calls it."""
        return self.id.rpartition(_MINE)[2]

    @property
    def is_finished(self) -> bool:
        return self.state.is_last

    @property
    def is_object(self) -> bool:
        """Whether its video has become an object, which is nobody's to remove here."""
        return isinstance(self.result, RenderResult) and is_object(self.result.video.url)

    @property
    def outcome(self) -> AnyResult | Fault:
        """The result of a finished job, or the fault that it ended in."""
        if self.error is None and self.result is not None:
            return self.result
        return self.error or Fault(type="internal_error", message="the job has no result")

    def moved(self, state: State, **changes: Any) -> "Job":
        """Return the job in another state.

        Raises:
            ValueError: the table above does not allow the move.
        """
        if (self.state, state) not in MOVES:
            raise ValueError(f"job {self.id} cannot move from {self.state.name} to {state.name}")
        return replace(self, state=state, **changes)

    def status(self, queue_position: int | None) -> JobStatus:
        return JobStatus(
            request_id=self.request_id,
            status=WORDS[self.state],
            queue_position=queue_position,
            progress=self.progress,
            error=self.error,
            state=self.state.value,
            attempts=self.attempts,
            encoder=self.result.encoder if isinstance(self.result, RenderResult) else None,
            accepted_at=_moment(self.accepted_at),
            started_at=_moment(self.started_at),
            finished_at=_moment(self.finished_at),
        )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
