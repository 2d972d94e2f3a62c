"""A pool of NV12 frames: allocated once, lent, given back.

The pool is what bounds a job's memory and what makes the decoding threads wait for the encoder. Its memory is plain for
now; page-locked memory, which a GPU reads without a copy, comes behind the same interface.
"""

import threading
import time
from collections import deque
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from renderer.errors import BackendError

Nv12Frame = npt.NDArray[np.uint8]


class FramePool:
    """`count` frames of one shape; safe to use from many threads.

    Attributes:
        is_pinned: the frames are page-locked.
    """

    def __init__(self, shape: tuple[int, int], count: int) -> None:
        """Allocate the frames.

        Args:
            shape: (H * 3 // 2, W), as `Canvas.nv12_shape` gives it.
            count: frames that can be lent at one time, at least 1.
        """
        if count < 1:
            raise ValueError(f"a pool needs a frame: {count}")
        self.is_pinned = False
        self._count = count
        self._free: deque[Nv12Frame] = deque(np.zeros(shape, np.uint8) for _ in range(count))
        self._changed = threading.Condition()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<FramePool {len(self._free)} of {self._count} free{', closed' if self._is_closed else ''}>"

    def lend(self, timeout_s: float | None = None) -> "Lease":
        """Wait for a free frame and lend it; its pixels are whatever the last borrower left.

        Raises:
            TimeoutError: none came back in time.
            BackendError: the pool is closed, or was closed during the wait.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._is_closed and not self._free:
                left = None if ends is None else ends - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError(f"none of {self._count} frames came back within {timeout_s} s")
                self._changed.wait(left)
            if self._is_closed:
                raise BackendError("the frame pool is closed")
            return Lease(self, self._free.popleft())

    def close(self) -> None:
        """Lend no more and wake those who wait; harmless when repeated. Leases that are out stay valid."""
        with self._changed:
            self._is_closed = True
            self._free.clear()
            self._changed.notify_all()

    def take_back(self, frame: Nv12Frame) -> None:
        """Called by `Lease.release`, once for each lease."""
        with self._changed:
            if not self._is_closed:
                self._free.append(frame)
                self._changed.notify()


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
