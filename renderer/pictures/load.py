"""Stills fetched and decoded on a few threads, and waited for without being hung by a decoder that does not return.

OpenCV lets go of the GIL, so threads are enough.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import ParamSpec, Self, TypeVar

from renderer.config import PictureSettings
from renderer.errors import JobCancelled, JobError
from renderer.geometry import Size
from renderer.observe.logs import current_job
from renderer.pictures.colour import Rgb
from renderer.pictures.decode import Picture, decode, opened
from renderer.pictures.fetch import Content, Fetcher
from renderer.pictures.marks import Marks
from renderer.pictures.reel import Source

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST_THREADS = 4
_LOOK_S = 1.0  # between looks at decoders, where no other process watches them


class Loader:
    """The threads of one job, and what they load. Use as a context manager; threads that still decode end later.

    Attributes:
        threads: how many there are.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        settings: PictureSettings,
        marks: Marks | None = None,
        at_hand: Mapping[str, Content] | None = None,
    ) -> None:
        """Start the threads.

        Args:
            marks: where another process sees what is being decoded; without them decoders are watched from here.
            at_hand: what has been fetched already, by url.
        """
        self._fetcher = fetcher
        self._max_pixels = settings.max_image_pixels
        self._marks = marks or Marks()
        self._decode_limit_s = settings.decode_timeout_s if marks is None else None
        self._at_hand = dict(at_hand or {})
        self._is_over = False
        self._worked_s: deque[float] = deque()  # appending is safe from many threads, adding up is not
        self.threads = settings.decoding_threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(
            self.threads, "still", initializer=current_job.set, initargs=(current_job.get(),)
        )

    @property
    def busy_s(self) -> float:
        """Seconds that the threads have worked, added up."""
        return sum(self._worked_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def begin(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Let a thread do some work."""
        return self._pool.submit(work, *args, **kwargs)

    def finished(self, still: Future[_T]) -> _T:
        """Wait for what a thread was begun with.

        Raises:
            DecodeTimedOut: a decoder does not come back.
        """
        limit_s = self._decode_limit_s
        while limit_s is not None and not wait([still], min(limit_s, _LOOK_S)).done:
            # That this thread runs means that none of them is only waiting for its turn at the interpreter.
            late = [decoding for decoding in self._marks.inside() if decoding.since_s > limit_s]
            if late:
                raise late[0].timed_out(limit_s)
        return still.result()

    def load(self, source: Source, background: Rgb) -> Picture:
        """Fetch and decode a still, on the thread that calls.

        Raises:
            JobError: it cannot be read; `loc` names its place in the request.
        """
        return self.decode(source, self.fetch(source), background)

    def fetch(self, source: Source) -> Content:
        """Fetch a still, on the thread that calls.

        Raises:
            JobError: it cannot be had; `loc` names its place in the request.
        """
        with self._working_on(source):
            content = self._at_hand.pop(source.url, None)
            return self._fetcher.fetch(source.url) if content is None else content

    def decode(
        self, source: Source, content: Content, background: Rgb, needed: Callable[[Size], Size] | None = None
    ) -> Picture:
        """Decode a still that was fetched, on the thread that calls.

        Raises:
            JobError: it cannot be read; `loc` names its place in the request.
        """
        with self._working_on(source), self._marks.decoding("images", source.image, "url"):
            if self._is_over:  # checked with the mark set, so that no decoding begins unseen after the end
                raise JobCancelled("the job ended before this image was decoded")
            return decode(opened(content), background=background, max_pixels=self._max_pixels, needed=needed)

    @contextmanager
    def _working_on(self, source: Source) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        except JobError as error:
            raise error.at("images", source.image, "url") from error.__cause__
        finally:
            self.worked(began)

    def worked(self, began: float) -> None:
        """Note that a thread has worked since `began`, of `time.perf_counter`."""
        self._worked_s.append(time.perf_counter() - began)
