"""Whether a job is accepted now: there is room in the queue, on the disk, and in its owner's share of both."""

import time
from typing import Final

from renderer.config import EngineSettings
from renderer.errors import QueueFull, ShuttingDown, StorageFull
from renderer.jobs.job import State
from renderer.jobs.outcome import Places
from renderer.jobs.queue import WaitingJobs
from renderer.jobs.roster import Roster
from renderer.jobs.store import JobStore

_DISK_S: Final = 0.1  # how long a check of the disk is valid: each one writes a file


class Admission:
    """Knows how much room there is; used on the engine's loop."""

    def __init__(
        self, settings: EngineSettings, store: JobStore, places: Places, roster: Roster, waiting: WaitingJobs
    ) -> None:
        self._settings = settings
        self._store = store
        self._places = places
        self._roster = roster
        self._waiting = waiting
        self._disk_is_fine_until = 0.0
        self._job_s = 1.0  # how long recent jobs have taken on average

    def note(self, took_s: float) -> None:
        """Take note of how long a job has taken."""
        self._job_s += 0.2 * (took_s - self._job_s)

    def room(self) -> int:
        """Return how many jobs would be accepted now."""
        return 0 if self._waiting.is_closed or self._disk_trouble() else self._queue_room()

    def refusals(self) -> tuple[str, ...]:
        """Return why no job would be accepted now, in words; nothing if one would."""
        reasons = []
        if self._waiting.is_closed:
            reasons.append("the daemon is stopping")
        if trouble := self._disk_trouble(now=True):
            reasons.append(f"the disk {trouble}")
        if not reasons and self._queue_room() == 0:
            reasons.append("the queue is full")
        return tuple(reasons)

    def check(self, owner: str) -> None:
        """Refuse a job of this owner that cannot be accepted now.

        Raises:
            CapacityError: the message says why.
        """
        if self._waiting.is_closed:
            raise ShuttingDown("the daemon is stopping; send the request again once it is back")
        if trouble := self._disk_trouble():
            raise StorageFull(f"the daemon's disk {trouble}; try again later")
        if self._queue_room() == 0:
            most, wait_s = self._settings.max_queued, self._job_s / max(1, self._roster.count)
            raise QueueFull(
                f"expected at most {most} jobs to wait, found {self._store.count(State.QUEUED)}; "
                f"the next place is free in about {max(1, round(wait_s))} s"
            )
        if owner:
            self._check_share(owner)

    def _check_share(self, owner: str) -> None:
        most, pixels = self._settings.max_queued_per_key, self._settings.max_pixels_per_key
        waiting = self._store.count(State.QUEUED, owner)
        if most and waiting >= most:
            raise QueueFull(f"expected at most {most} jobs of one key to wait, found {waiting}; try again later")
        spent = self._store.pixels_since(owner, time.time() - 60) if pixels else 0
        if pixels and spent >= pixels:
            raise QueueFull(
                f"expected less than {pixels} pixels of stills within a minute for one key, found {spent}; "
                "try again in a minute"
            )

    def _queue_room(self) -> int:
        idle = self._roster.count - len(self._roster.running)
        return max(0, self._settings.max_queued + idle - self._store.count(State.QUEUED))

    def _disk_trouble(self, *, now: bool = False) -> str | None:
        if time.monotonic() < self._disk_is_fine_until and not now:
            return None
        trouble = self._places.trouble(self._settings.min_free_bytes)
        self._disk_is_fine_until = time.monotonic() + _DISK_S if trouble is None else 0.0
        return trouble
