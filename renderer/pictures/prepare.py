"""Stills made ready ahead of the encoder: fetched, decoded and composed on a few threads, in order, a bounded number.

OpenCV lets go of the GIL, so threads are enough. What bounds memory is the frame pool: a still under way owns one
frame at most, and no more than `look_ahead` are under way, however long the job is. Each distinct source is fetched
and decoded once per job: a frame whose still comes again later is kept on a shelf.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import numpy.typing as npt

from renderer.config import PictureSettings
from renderer.errors import JobError, OutputFailed
from renderer.pictures.compose import Look, compose, needed_size
from renderer.pictures.decode import decode
from renderer.pictures.fetch import Fetcher
from renderer.pictures.memory import FramePool, Lease

Source = bytes | npt.NDArray[np.uint8]

_MOST_THREADS = 4


class Stills:
    """The stills of one job as NV12 frames, in order. Use as a context manager, iterate once, release every lease.

    Attributes:
        busy_s: seconds that the threads have worked, added up.
    """

    def __init__(
        self,
        urls: Sequence[str],
        look: Look,
        fetcher: Fetcher,
        settings: PictureSettings,
        *,
        at_hand: Mapping[str, Source],
    ) -> None:
        """Start the threads.

        Args:
            urls: one per still, repeated where a still comes again.
            look: the canvas and how stills are put on it.
            at_hand: what has been fetched already, by url.
        """
        self._urls = urls
        self._at_hand = dict(at_hand)
        self._look = look
        self._fetcher = fetcher
        self._max_pixels = settings.max_image_pixels
        threads = settings.decoding_threads or min(_MOST_THREADS, os.cpu_count() or 1)
        self._look_ahead = settings.look_ahead or 2 * threads
        # One frame for each still under way, one at the encoder, one coming back from the shelf.
        self._pool = FramePool(look.canvas.nv12_shape, self._look_ahead + 2)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="still")
        self._under_way: deque[Future[Lease]] = deque()
        self._shelf = _Shelf()
        self.busy_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._shelf.close()

    def __iter__(self) -> Iterator[Lease]:
        """Yield a lease on each still's frame.

        Raises:
            JobError: a still cannot be had; `loc` names the first place that asks for it.
        """
        first: dict[str, int] = {}
        for index, url in enumerate(self._urls):
            first.setdefault(url, index)
        last = {url: index for index, url in enumerate(self._urls)}
        waiting = iter(first.items())
        for index, url in enumerate(self._urls):
            self._fill(waiting)
            if first[url] == index:
                lease = self._under_way.popleft().result()
                if last[url] > index:
                    self._shelf.put(url, lease.frame)
            else:
                lease = self._pool.lend()
                self._shelf.get(url, lease.frame)
                if last[url] == index:
                    self._shelf.drop(url)
            yield lease

    def _fill(self, waiting: Iterator[tuple[str, int]]) -> None:
        while len(self._under_way) < self._look_ahead and (still := next(waiting, None)):
            self._under_way.append(self._threads.submit(self._prepare, *still))

    def _source(self, url: str) -> Source:
        source = self._at_hand.pop(url, None)
        return self._fetcher.fetch(url) if source is None else source

    def _prepare(self, url: str, index: int) -> Lease:
        began = time.perf_counter()
        try:
            picture = decode(
                self._source(url),
                background=self._look.background,
                max_pixels=self._max_pixels,
                needed=needed_size(self._look),
            )
        except JobError as error:
            raise error.at("images", index, "url") from error.__cause__
        self.busy_s += time.perf_counter() - began
        lease = self._pool.lend()
        began = time.perf_counter()
        try:
            compose(picture, self._look, lease.frame)
        except BaseException:
            lease.release()
            raise
        self.busy_s += time.perf_counter() - began
        return lease


class _Shelf:
    """Frames kept for a later showing, in an unlinked temporary file: the kernel decides how much stays in memory."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._slots: dict[str, int] = {}
        self._free: list[int] = []

    def put(self, url: str, frame: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of the frame.

        Raises:
            OutputFailed: there is no room for it.
        """
        slot = self._free.pop() if self._free else len(self._slots)
        self._slots[url] = slot
        try:
            if self._file is None:
                with tempfile.TemporaryFile(prefix="stillreel-") as file:
                    self._file = os.dup(file.fileno())
            if os.pwrite(self._file, frame.data, slot * frame.nbytes) < frame.nbytes:
                raise OutputFailed("no room in the temporary directory for a still that is shown again")
        except OSError as error:
            raise OutputFailed(f"no room for a still that is shown again: {error.strerror}") from error

    def get(self, url: str, frame: npt.NDArray[np.uint8]) -> None:
        """Copy what was kept into `frame`."""
        if self._file is None or os.preadv(self._file, [frame.data], self._slots[url] * frame.nbytes) < frame.nbytes:
            raise OutputFailed("a still that is shown again could not be read back")

    def drop(self, url: str) -> None:
        self._free.append(self._slots.pop(url))

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
