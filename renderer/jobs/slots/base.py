"""The seam between the engine and the places where attempts at jobs run.

A slot takes one task at a time, and says how the attempt has ended. It knows nothing of queues, states or stores, so
that a slot on another machine need not know them either. tests/jobs/slots/test_slot_conformance.py holds every slot to
the promises that are made here.

The progress of an attempt goes as datagrams to the address that the slot was opened with (progress.py).

Slots on this machine are opened once and stay. Those elsewhere come and go with the machines that offer them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from protocol.schema import Fault
from renderer.config import EncodeSettings, RenderSettings
from renderer.pictures.kept import StillCache
from renderer.work import AnyJob, Report


@dataclass(frozen=True, slots=True)
class Destination:
    """The object that a video becomes.

    Attributes:
        made_for: a mark that only videos have which may stand for one another, such as those of one job.
    """

    url: str
    made_for: str


@dataclass(frozen=True, slots=True)
class RenderTask:
    """One attempt at a job, with everything needed to make it; plain values, fit for another process.

    Attributes:
        output: where the video is written; nothing is there before, and its directory exists.
        is_private: only the daemon's user may read the video, under any umask.
        destination: what the video becomes in place of a file.
        content: names what the video is made from, so that an attempt which has finished unheard of is found by it
            (finished.py); empty where nobody would look for it.
        cache: has stills that earlier jobs have coded.
    """

    job_id: str
    work: AnyJob
    output: Path
    settings: RenderSettings
    is_private: bool = False
    destination: Destination | None = None
    content: str = ""
    cache: StillCache | None = None


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """An attempt that ended without an outcome.

    Attributes:
        cause: what ended it. Each worker that dies takes one of the job's attempts; daemons that die are counted apart,
            because the job is hardly their cause; a drain is not counted.
    """

    why: str
    cause: Literal["worker", "daemon", "drain"] = "worker"


Ending = Report | Fault | AttemptLost


class Gone(Exception):
    """A place on another machine that has left, and does not come back."""


class Slot(Protocol):
    """One place where one attempt runs at a time; used on one loop.

    `prepare`, then `run` for one task after the other, then `close`, when no `run` is under way. `stop` and `heard` may
    come at any time before that.

    Attributes:
        node: the name of the machine where it is; empty for this one.
        encoder: what encodes there, "nvenc" or "libx264"; None: as the findings about this machine say.
    """

    @property
    def node(self) -> str: ...

    @property
    def encoder(self) -> str | None: ...

    async def prepare(self) -> None:
        """Get ready for a task, so that the next `run` begins at once; harmless when the slot is ready already.

        A place that is not available now is tried again until it is, with a line in the log for each try.
        """

    async def lost(self) -> None:
        """Return once the place is lost while nothing runs; `prepare` then gets another."""

    async def held_pictures_refusal(self, settings: EncodeSettings) -> str | None:
        """Try whether the encoder's pictures can be held in this place; return why not, or None if they can."""

    async def run(self, task: RenderTask) -> Ending:
        """Run one attempt to its end; after any ending the slot is ready for another task.

        Once this has returned, nothing of the attempt still runs, except on another machine that is out of reach; what
        is still written there has a name of its own. The ending is a report, and the video lies at `task.output`, or is
        the object that `task.destination` names; a fault, if the job or a time limit ended it; or AttemptLost, if the
        place was lost. It never raises, except when it is cancelled, and then only `close` may follow.
        """

    def stop(self, verdict: Ending) -> None:
        """End the attempt that runs; `run` then returns this verdict, unless the attempt has come to its end already.

        The first verdict counts. Where nothing runs it is forgotten, and does not concern the next task.
        """

    def heard(self) -> None:
        """Note that the attempt has made progress, and is not to be ended for its silence."""

    def close(self) -> None:
        """Give the place back; blocks until nothing is left there. Harmless when repeated."""


OpenSlot = Callable[[str], Slot]  # given the address that progress is sent to

_Work = TypeVar("_Work")


async def ready_until(slot: Slot, work_comes: Callable[[], Awaitable[_Work]]) -> _Work:
    """Keep a slot ready until there is work for it, and return the work.

    Args:
        work_comes: waits for work; when it is cancelled while it waits, none is lost.
    """
    while True:
        await slot.prepare()
        coming, losing = asyncio.ensure_future(work_comes()), asyncio.ensure_future(slot.lost())
        try:
            await asyncio.wait([coming, losing], return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
        finally:
            coming.cancel()
            losing.cancel()


class Elsewhere(Protocol):
    """Slots on other machines, which join and leave while the daemon runs."""

    async def run(self, progress_address: str, join: Callable[[Slot], None], leave: Callable[[Slot], None]) -> None:
        """Report every slot that joins, and every one that leaves, until cancelled.

        A slot that has left gets no further task: `prepare` raises Gone. Whoever was given the slot closes it.
        """
