"""Prepares stills ahead of the encoder: a few threads fetch, decode and compose them, in order and in limited number.

The frame pool limits memory: a still in progress owns one frame at most, and no more than `look_ahead` stills are in
progress, regardless of the length of the job. Each distinct source is fetched and decoded once per attempt, because the
frame of a still that comes again later is kept in a temporary file.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Self

import numpy as np
import numpy.typing as npt

from renderer.config import PictureSettings
from renderer.errors import OutputFailed
from renderer.geometry import Size
from renderer.pictures.compose import Framing, compose, needed_size
from renderer.pictures.formats import More
from renderer.pictures.kept import CodedStill, Recall
from renderer.pictures.load import Loader
from renderer.pictures.memory import PLAIN_STOCK, FramePool, FrameStock, Lease
from renderer.pictures.poster import Posters
from renderer.pictures.reel import Source

_FAR_ENLARGED = 2


class Stills:
    """The stills of one job as NV12 frames, in order. Use as a context manager, iterate once, release every lease.

    Attributes:
        enlarged: sizes of the stills that were scaled up more than twice, by their places in the request.
        in_part: what else the files hold of which only one picture is shown, by their places in the request.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        look: Framing,
        loader: Loader,
        settings: PictureSettings,
        stock: FrameStock = PLAIN_STOCK,
        recall: Recall | None = None,
        posters: Posters | None = None,
    ) -> None:
        """Allocate the frames.

        Args:
            sources: one per still; a still that comes again has an equal `picture`.
            look: the canvas, and how stills are placed on it.
            loader: the job's loader, which must be closed after this object.
            stock: the memory that the frames are made of.
            recall: has the stills that earlier jobs have coded; for stills that each come once.
            posters: takes the stills that pictures beside the video show, also those that earlier jobs have coded.
        """
        self._sources = sources
        self._look = look
        self._loader = loader
        self._recall = recall
        self._posters = posters
        self._look_ahead = settings.look_ahead or 2 * loader.threads
        # One frame for each still in progress, one at the encoder, and one that is read back from the shelf.
        count = self._look_ahead + 2 + stock.kept_by_encoder
        self._pool = FramePool(look.canvas.nv12_shape, count, stock.memory)
        self._first: dict[Hashable, Source] = {}
        for source in sources:
            self._first.setdefault(source.picture, source)
        self._waiting = iter(self._first.values())
        self._under_way: deque[Future[Lease | CodedStill]] = deque()
        self._shelf = _Shelf()
        self.enlarged: dict[int, Size] = {}
        self.in_part: dict[int, More] = {}

    def __enter__(self) -> Self:
        """Begin with the first stills: they are decoded while the muxer is imported."""
        self._fill()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()
        for still in self._under_way:
            still.add_done_callback(_release)  # the job may have ended early, while threads still compose
        self._shelf.close()

    def __iter__(self) -> Iterator[Lease | CodedStill]:
        """Yield a lease on each still's frame, or what an earlier job has made of it.

        Raises:
            JobError: a still cannot be read; `loc` names the first place in the request that uses it.
        """
        last = {source.picture: source for source in self._sources}
        for source in self._sources:
            self._fill()
            if self._first[source.picture] is source:
                if self._recall:
                    self._recall.wait(self._under_way[0])
                lease = self._loader.finished(self._under_way.popleft())
                if last[source.picture] is not source and isinstance(lease, Lease):
                    self._shelf.put(source.picture, lease.frame)
            else:
                lease = self._pool.lend()
                self._shelf.get(source.picture, lease.frame)
                if last[source.picture] is source:
                    self._shelf.drop(source.picture)
            yield lease

    def _fill(self) -> None:
        while len(self._under_way) < self._look_ahead and (source := next(self._waiting, None)):
            self._under_way.append(self._loader.begin(self._prepare, source))

    def _prepare(self, source: Source) -> Lease | CodedStill:
        content = self._loader.fetch(source)
        coded = self._recall.find(source.image, content) if self._recall else None
        posters = self._posters if self._posters and self._posters.show(source.picture) else None
        if coded:
            self._note(source.image, coded.size, coded.more)
            if posters is None:
                return coded
        picture = self._loader.decode(source, content, self._look.background, needed_size(self._look))
        self._note(source.image, picture.size, picture.more)
        if self._recall and coded is None:
            self._recall.note(source.image, picture.size, picture.more)
        lease = self._pool.lend()
        began = time.perf_counter()
        try:
            compose(picture, self._look, lease.frame)
            if posters:
                posters.take(source.picture, lease.frame)
        except BaseException:
            lease.release()
            raise
        self._loader.worked(began)
        if coded:
            lease.release()
        return coded or lease

    def _note(self, image: int, size: Size, more: More | None) -> None:
        if more:
            self.in_part[image] = more
        if self._look.place(size).enlargement > _FAR_ENLARGED:
            self.enlarged[image] = size


def _release(still: Future[Lease | CodedStill]) -> None:
    if not still.cancelled() and still.exception() is None and isinstance(lease := still.result(), Lease):
        lease.release()


class _Shelf:
    """Frames kept for a later showing, in an unlinked temporary file: the kernel decides how much stays in memory."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._slots: dict[Hashable, int] = {}
        self._free: list[int] = []

    def put(self, picture: Hashable, frame: npt.NDArray[np.uint8]) -> None:
        """Keep a copy of the frame.

        Raises:
            OutputFailed: the disk has no room for it.
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
        """Copy the kept frame of a picture into `frame`."""
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
