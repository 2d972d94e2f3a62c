"""Stills made ready ahead of the encoder: fetched, decoded and composed on a few threads, in order, a bounded number.

OpenCV lets go of the GIL, so threads are enough. What bounds memory is the frame pool: a still under way owns one
frame at most, and no more than `look_ahead` are under way, however long the job is. Each distinct source is fetched
and decoded once per job: a frame whose still comes again later is kept on a shelf.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from renderer.config import PictureSettings
from renderer.errors import JobCancelled, JobError, OutputFailed
from renderer.geometry import Size
from renderer.logs import current_job
from renderer.pictures.compose import Look, compose, needed_size
from renderer.pictures.decode import decode
from renderer.pictures.fetch import Content, Fetcher
from renderer.pictures.marks import Marks
from renderer.pictures.memory import PLAIN_STOCK, FramePool, FrameStock, Lease

_MOST_THREADS = 4
_FAR_ENLARGED = 2
_LOOK_S = 1.0  # between looks at decoders that nobody outside watches


@dataclass(frozen=True, slots=True)
class Source:
    """Where one still comes from.

    Attributes:
        image: its place in the request, for errors.
        picture: equal for stills that show the same picture; from `identity.identities`.
    """

    url: str
    image: int
    picture: Hashable


class Stills:
    """The stills of one job as NV12 frames, in order. Use as a context manager, iterate once, release every lease.

    Attributes:
        busy_s: seconds that the threads have worked, added up.
        enlarged: sizes of the stills that were scaled up more than twice, by their places in the request.
    """

    def __init__(  # noqa: PLR0913 - most of them by name
        self,
        sources: Sequence[Source],
        look: Look,
        fetcher: Fetcher,
        settings: PictureSettings,
        *,
        at_hand: Mapping[str, Content],
        stock: FrameStock = PLAIN_STOCK,
        marks: Marks | None = None,
    ) -> None:
        """Start the threads.

        Args:
            sources: one per still; equal pictures where a still comes again.
            look: the canvas and how stills are put on it.
            at_hand: what has been fetched already, by url.
            stock: what the frames are made of.
            marks: where another process sees what is being decoded; without them decoders are watched from here.
        """
        self._sources = sources
        self._at_hand = dict(at_hand)
        self._look = look
        self._fetcher = fetcher
        self._max_pixels = settings.max_image_pixels
        self._is_over = False
        self._marks = marks or Marks()
        self._decode_limit_s = settings.decode_timeout_s if marks is None else None
        threads = settings.decoding_threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._look_ahead = settings.look_ahead or 2 * threads
        # One frame for each still under way, one at the encoder, one coming back from the shelf.
        count = self._look_ahead + 2 + stock.kept_by_encoder
        self._pool = FramePool(look.canvas.nv12_shape, count, stock.memory)
        self._threads = ThreadPoolExecutor(threads, "still", initializer=current_job.set, initargs=(current_job.get(),))
        self._under_way: deque[Future[Lease]] = deque()
        self._shelf = _Shelf()
        self._worked_s: deque[float] = deque()  # appending is safe from many threads, adding up is not
        self.enlarged: dict[int, Size] = {}

    @property
    def busy_s(self) -> float:
        return sum(self._worked_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        self._pool.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for still in self._under_way:
            still.add_done_callback(_release)  # of a job that ended early; a thread may still be composing
        self._shelf.close()

    def __iter__(self) -> Iterator[Lease]:
        """Yield a lease on each still's frame.

        Raises:
            JobError: a still cannot be had; `loc` names the first place that asks for it.
        """
        first: dict[Hashable, Source] = {}
        for source in self._sources:
            first.setdefault(source.picture, source)
        last = {source.picture: source for source in self._sources}
        waiting = iter(first.values())
        for source in self._sources:
            self._fill(waiting)
            if first[source.picture] is source:
                lease = self._wait(self._under_way.popleft())
                if last[source.picture] is not source:
                    self._shelf.put(source.picture, lease.frame)
            else:
                lease = self._pool.lend()
                self._shelf.get(source.picture, lease.frame)
                if last[source.picture] is source:
                    self._shelf.drop(source.picture)
            yield lease

    def _fill(self, waiting: Iterator[Source]) -> None:
        while len(self._under_way) < self._look_ahead and (source := next(waiting, None)):
            self._under_way.append(self._threads.submit(self._prepare, source))

    def _wait(self, still: Future[Lease]) -> Lease:
        limit_s = self._decode_limit_s
        while limit_s is not None and not wait([still], min(limit_s, _LOOK_S)).done:
            # That this thread runs means that none of them is only waiting for its turn at the interpreter.
            late = [decoding for decoding in self._marks.inside() if decoding.since_s > limit_s]
            if late:
                raise late[0].timed_out(limit_s)
        return still.result()

    def _content(self, url: str) -> Content:
        content = self._at_hand.pop(url, None)
        return self._fetcher.fetch(url) if content is None else content

    def _prepare(self, source: Source) -> Lease:
        began = time.perf_counter()
        try:
            content = self._content(source.url)
            with self._marks.decoding(source.image):
                if self._is_over:  # looked at with the mark set: whoever sees no mark after the end may rely on it
                    raise JobCancelled("the job ended before this image was decoded")
                picture = decode(
                    content,
                    background=self._look.background,
                    max_pixels=self._max_pixels,
                    needed=needed_size(self._look),
                )
        except JobError as error:
            raise error.at("images", source.image, "url") from error.__cause__
        self._worked_s.append(time.perf_counter() - began)
        if self._look.place(picture.size).enlargement > _FAR_ENLARGED:
            self.enlarged[source.image] = picture.size
        lease = self._pool.lend()
        began = time.perf_counter()
        try:
            compose(picture, self._look, lease.frame)
        except BaseException:
            lease.release()
            raise
        self._worked_s.append(time.perf_counter() - began)
        return lease


def _release(still: Future[Lease]) -> None:
    if not still.cancelled() and still.exception() is None:
        still.result().release()


class _Shelf:
    """Frames kept for a later showing, in an unlinked temporary file: the kernel decides how much stays in memory."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._slots: dict[Hashable, int] = {}
        self._free: list[int] = []

    def put(self, picture: Hashable, frame: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of the frame.

        Raises:
            OutputFailed: there is no room for it.
        """
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[picture] = slot
        try:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="stillreel-") as file:
                    self._file = os.dup(file.fileno())
            if os.pwrite(self._file, frame.data, slot * frame.nbytes) < frame.nbytes:
                raise OutputFailed("no room in the temporary directory for a still that is shown again")
        except OSError as error:
            raise OutputFailed(f"no room for a still that is shown again: {error.strerror}") from error

    def get(self, picture: Hashable, frame: npt.NDArray[np.uint8]) -> None:
        """Copy what was kept into `frame`."""
        if (
            self._file is None
            or os.preadv(self._file, [frame.data], self._slots[picture] * frame.nbytes) < frame.nbytes
        ):
            raise OutputFailed("a still that is shown again could not be read back")

    def drop(self, picture: Hashable) -> None:
        self._free.append(self._slots.pop(picture))

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
