"""A pool of NV12 frames: allocated once, lent, given back.

The pool bounds the memory of a job, and makes the decoding threads wait for the encoder. For a GPU its memory is
page-locked, so that the card fetches a frame from where it was composed. Locking the pages of a frame takes
milliseconds, so the frames that one job gives back are kept for the next job of this process.
"""

import contextlib
import ctypes
import functools
import logging
import threading
from collections import deque
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from renderer.errors import BackendError
from renderer.pictures.cuda import CudaFailed, Gpu, allocate_pinned, free_pinned

log = logging.getLogger(__name__)

Nv12Frame = npt.NDArray[np.uint8]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h of glibc
_MOST_KEPT_BLOCK: Final = 32 << 20  # mallopt(3): the largest value that M_MMAP_THRESHOLD may have


def keep_freed_memory(most_bytes: int = (1 << 31) - 1) -> None:
    """Make malloc keep for the next still what the last one gave back, up to a number of bytes at the end of its heap.

    It would return most of it to the system, which hands it out again page by page, each filled with zeros first: 120
    photographs at 1080p took 307,000 page faults that way, and take 58,000 and a tenth less processor time like this.
    In a worker, a photograph of 24 megapixels took 2,400 and 29 ms of the system's time, and takes none and 3 ms.
    """
    with contextlib.suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _MOST_KEPT_BLOCK)
        libc.mallopt(_M_TRIM_THRESHOLD, most_bytes)
        libc.mallopt(_M_ARENA_MAX, 1)  # one heap for all threads, since what one of them frees another needs next


class FrameMemory(Protocol):
    """Where frames come from; used from many threads."""

    def take(self, shape: tuple[int, int]) -> Nv12Frame:
        """Return a frame whose pixels have any values.

        Raises:
            CudaFailed: there is no memory of this kind.
        """

    def give_back(self, frame: Nv12Frame) -> None:
        """Take back a frame that `take` returned, and that is not used any more."""


class PlainMemory:
    """Frames that the garbage collector frees."""

    def take(self, shape: tuple[int, int]) -> Nv12Frame:
        return np.zeros(shape, np.uint8)

    def give_back(self, frame: Nv12Frame) -> None:
        """Nothing to do."""


class PinnedMemory:
    """Page-locked frames for one GPU; a frame that is given back serves again, until another shape is asked for."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._idle: list[Nv12Frame] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<PinnedMemory of {self._gpu.uuid}, {len(self._idle)} frames idle>"

    def take(self, shape: tuple[int, int]) -> Nv12Frame:
        with self._lock:
            for index, frame in enumerate(self._idle):
                if frame.shape == shape:
                    return self._idle.pop(index)
            self._free_idle()
        size_bytes = shape[0] * shape[1]
        block = (ctypes.c_uint8 * size_bytes).from_address(allocate_pinned(self._gpu, size_bytes))
        return np.ctypeslib.as_array(block).reshape(shape)

    def give_back(self, frame: Nv12Frame) -> None:
        with self._lock:
            self._idle.append(frame)

    def close(self) -> None:
        """Free the frames that were given back."""
        with self._lock:
            self._free_idle()

    def _free_idle(self) -> None:
        while self._idle:
            free_pinned(self._gpu, self._idle.pop().ctypes.data)


@functools.cache
def pinned_memory(gpu: Gpu) -> PinnedMemory:
    """Return this process's only page-locked memory for a device."""
    memory = PinnedMemory(gpu)
    Finalize(None, memory.close, exitpriority=20)  # before the context that it lives in
    return memory


@dataclass(frozen=True, slots=True)
class FrameStock:
    """The memory for the pool of a job.

    Attributes:
        kept_by_encoder: how many frames the encoder still reads after it has taken them; the pool needs as many more.
    """

    memory: FrameMemory
    kept_by_encoder: int = 0


PLAIN_STOCK: Final = FrameStock(PlainMemory())


class FramePool:
    """`count` frames of one shape; safe to use from many threads."""

    def __init__(self, shape: tuple[int, int], count: int, memory: FrameMemory = PLAIN_STOCK.memory) -> None:
        """Allocate the frames; in plain memory if the given one fails.

        Args:
            shape: (H * 3 // 2, W), as `Canvas.nv12_shape` gives it.
            count: frames that can be lent at one time, at least 1.
        """
        if count < 1:
            raise ValueError(f"a pool needs a frame: {count}")
        self._count = count
        self._memory, self._free = _allocated(shape, count, memory)
        self._changed = threading.Condition()
        self._is_closed = False

    def __repr__(self) -> str:
        state = ", closed" if self._is_closed else ""
        return f"<FramePool {len(self._free)} of {self._count} free in {type(self._memory).__name__}{state}>"

    def lend(self) -> "Lease":
        """Wait for a free frame and lend it; its pixels are those that the last borrower left.

        Raises:
            BackendError: the pool is closed, or was closed during the wait.
        """
        with self._changed:
            while not self._is_closed and not self._free:
                self._changed.wait()
            if self._is_closed:
                raise BackendError("the frame pool is closed")
            return Lease(self, self._free.popleft())

    def close(self) -> None:
        """Lend no more and wake those who wait; harmless when repeated. Leases that are out stay valid."""
        with self._changed:
            self._is_closed = True
            while self._free:
                self._memory.give_back(self._free.popleft())
            self._changed.notify_all()

    def take_back(self, frame: Nv12Frame) -> None:
        """Called by `Lease.release`, once for each lease."""
        with self._changed:
            if self._is_closed:
                self._memory.give_back(frame)
            else:
                self._free.append(frame)
                self._changed.notify()


def _allocated(shape: tuple[int, int], count: int, memory: FrameMemory) -> tuple[FrameMemory, deque[Nv12Frame]]:
    frames: deque[Nv12Frame] = deque()
    try:
        for _ in range(count):
            frames.append(memory.take(shape))
    except CudaFailed as error:
        log.warning("frames are not page-locked: %s", error, extra={"action": "not_pinned"})
        while frames:
            memory.give_back(frames.pop())
        memory = PLAIN_STOCK.memory
        frames.extend(memory.take(shape) for _ in range(count))
    return memory, frames


class Lease:
    """One lent frame. Give it back with `release`, or use it as a context manager."""

    def __init__(self, pool: FramePool, frame: Nv12Frame) -> None:
        self.frame = frame
        self._pool: FramePool | None = pool
        self._lock = threading.Lock()

    def release(self) -> None:
        """Give the frame back; harmless when repeated. The frame must not be touched afterwards."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.take_back(self.frame)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
