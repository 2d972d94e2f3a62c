"""Which stills cannot be had: asked once one could not, so that all are told at once and not one a try."""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable
from concurrent.futures import Future
from typing import Final

from renderer.errors import DecodeTimedOut, JobCancelled, JobError
from renderer.pictures.identity import Source
from renderer.pictures.load import Loader

_BLACK: Final = (0, 0, 0)


def is_of_image(error: JobError) -> bool:
    """Whether an image is at fault, and no more than that: a decoder that hangs keeps its thread, and ends the job."""
    return error.loc[:1] == ("images",) and not isinstance(error, DecodeTimedOut | JobCancelled)


def unreadable(
    sources: Iterable[Source],
    loader: Loader,
    known: Collection[Hashable],
    say: Callable[[], None],
    most: int,
) -> dict[Hashable, JobError]:
    """Fetch and decode stills to see which of them cannot be had; return the fault of each such picture.

    Args:
        known: pictures that need not be tried.
        say: called after each still.
        most: faults to stop at.

    Raises:
        DecodeTimedOut: a decoder does not come back.
    """
    distinct: dict[Hashable, Source] = {}
    for source in sources:
        if source.picture not in known:
            distinct.setdefault(source.picture, source)
    waiting = iter(distinct.values())
    under_way: deque[tuple[Source, Future[JobError | None]]] = deque()
    faults: dict[Hashable, JobError] = {}
    with loader:
        while len(faults) < most:
            while len(under_way) < 2 * loader.threads and (following := next(waiting, None)):
                under_way.append((following, loader.begin(_fault_of, following, loader)))
            if not under_way:
                break
            source, trial = under_way.popleft()
            if fault := loader.finished(trial):
                faults[source.picture] = fault
            say()
    return faults


def _fault_of(source: Source, loader: Loader) -> JobError | None:
    try:
        loader.load(source, _BLACK)
    except JobError as error:
        return error
    return None
