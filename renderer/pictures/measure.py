"""A look at stills before they are shown: the size of the still that the canvas follows, and which cannot be read.

Sizes are in headers, so nothing is decoded for them; but a file has to be fetched before its header can be read. The
first still, and downloads as far as `_KEPT_BYTES` goes, are kept for the decoding that follows; a local file is read
again then, mostly from the kernel's cache.

Once a still could not be read, all others are tried, so that one error names all that are at fault.
"""

import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from renderer.config import PictureSettings
from renderer.errors import DecodeTimedOut, JobCancelled, JobError
from renderer.geometry import Size
from renderer.observe.logs import current_job
from renderer.pictures.decode import opened, read_size
from renderer.pictures.fetch import Content, Fetcher, is_download
from renderer.pictures.load import Loader
from renderer.pictures.marks import Marks
from renderer.pictures.reel import Source

_KEPT_BYTES: Final = 64 << 20
_THREADS: Final = 4  # they wait for servers and disks


@dataclass(frozen=True, slots=True)
class Measured:
    """The still that the canvas follows.

    Attributes:
        image: its place in the request.
        at_hand: what was fetched on the way, by url.
    """

    image: int
    size: Size
    at_hand: dict[str, Content] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measurer:
    """Fetches stills and reads their headers."""

    fetcher: Fetcher
    settings: PictureSettings
    marks: Marks

    def first(self, sources: Sequence[Source]) -> Measured:
        """Measure the first still.

        Raises:
            JobError: it cannot be read; `loc` says where.
        """
        first = sources[0]
        content, size = self._measure(first)
        return Measured(first.image, size, {first.url: content})

    def largest(self, sources: Sequence[Source], say: Callable[[], None]) -> Measured:
        """Measure every still; of several with the most pixels the first is taken.

        Args:
            say: called after each of them.

        Raises:
            JobError: one cannot be read; `loc` names the first place that asks for it.
        """
        distinct: dict[str, Source] = {}
        for source in sources:
            distinct.setdefault(source.url, source)
        kept = _Kept()

        def measured(source: Source) -> Size:
            content, size = self._measure(source)
            if isinstance(content, bytes) and is_download(source.url):
                kept.add(source.url, content)
            return size

        initializer, arguments = current_job.set, (current_job.get(),)
        with ThreadPoolExecutor(_THREADS, "still", initializer=initializer, initargs=arguments) as threads:
            found = Measured(sources[0].image, Size(1, 1), kept.contents)
            try:
                for source, size in zip(distinct.values(), threads.map(measured, distinct.values()), strict=True):
                    say()
                    if source.image == found.image or size.pixels > found.size.pixels:
                        found = Measured(source.image, size, kept.contents)
            finally:
                threads.shutdown(cancel_futures=True)
        return found

    def _measure(self, source: Source) -> tuple[Content, Size]:
        try:
            content = self.fetcher.fetch(source.url)
            with self.marks.decoding("images", source.image, "url"):
                return content, read_size(opened(content), self.settings.max_image_pixels)
        except JobError as error:
            raise error.at("images", source.image, "url") from error.__cause__


class _Kept:
    """Downloads, as many as fit."""

    def __init__(self) -> None:
        self.contents: dict[str, Content] = {}
        self._left_bytes = _KEPT_BYTES
        self._lock = threading.Lock()

    def add(self, url: str, content: bytes) -> None:
        with self._lock:
            if len(content) <= self._left_bytes:
                self._left_bytes -= len(content)
                self.contents[url] = content


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
    """Fetch and decode stills to find those that cannot be read; return the fault of each such picture.

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
