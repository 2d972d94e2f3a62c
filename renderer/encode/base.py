"""The seam between pictures and an H.264 encoder: NV12 frames in, access units out.

Three encoders implement it: nvenc (a GPU), x264 (an ffmpeg child process) and null (no codec at all, for tests of the
code above the seam).
"""

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from renderer.encode.stream import AccessUnit
from renderer.errors import EncodeFailed
from renderer.geometry import Canvas
from renderer.pictures.memory import PLAIN_STOCK, FrameStock, Lease

Nv12Frame = npt.NDArray[np.uint8]


class Encoder(Protocol):
    """One H.264 stream in the making; used by one job, on one thread. Encoders derive from it.

    Frames enter in presentation order. Access units leave in decoding order; the first is an IDR with its SPS and PPS.
    """

    @property
    def stock(self) -> FrameStock:
        """The memory that frames for this encoder are best made of; frames of any other memory are taken too."""
        return PLAIN_STOCK

    @property
    def pending_frames(self) -> int:
        """How many of the latest frames are still being read; 0 for an encoder that copies them.

        A GPU fetches a frame from where it lies, after encode() has returned.
        """
        return 0

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        """Take one frame and return the access units now ready, often none.

        Args:
            frame: (H * 3 // 2, W) uint8, C-contiguous; free for reuse as soon as it is not pending.

        Raises:
            EncodeFailed: the backend refused the frame; the stream is lost.
        """

    def flush(self) -> Iterable[AccessUnit]:
        """Return the access units that are still inside, as they come; no frame may follow.

        Read them to the end: only then is it known that none is missing.

        Raises:
            EncodeFailed: the stream could not be finished.
        """

    def close(self) -> None:
        """Give everything back, every frame included; harmless when repeated or after a failure."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_frame(frame: Nv12Frame, canvas: Canvas) -> None:
    """Refuse a frame that an encoder would read past the end of, or silently copy.

    Raises:
        EncodeFailed: wrong shape, dtype or memory layout.
    """
    if frame.shape != canvas.nv12_shape or frame.dtype != np.uint8 or not frame.flags.c_contiguous:
        raise EncodeFailed(
            f"expected a C-contiguous uint8 frame of shape {canvas.nv12_shape}, "
            f"found {frame.dtype} {frame.shape}, contiguous: {frame.flags.c_contiguous}"
        )


class FramesInFlight:
    """Leases on the frames that one encoder may still read; each is released once it is read no more.

    Enter this context before the encoder's, so that the frames that are left are released after the encoder is closed.
    """

    def __init__(self) -> None:
        # Each lease with the number of encode() calls up to the last one that reads its frame.
        self._leases: deque[tuple[int, Lease]] = deque()
        self._encoded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        while self._leases:
            self._leases.popleft()[1].release()

    @contextlib.contextmanager
    def lend(self, lease: Lease, encoder: Encoder, times: int) -> Iterator[None]:
        """Take care of a lease whose frame is encoded `times` times within the block."""
        try:
            yield
        finally:
            self._encoded += times
            self._leases.append((self._encoded, lease))
        while self._leases and self._leases[0][0] <= self._encoded - encoder.pending_frames:
            self._leases.popleft()[1].release()
