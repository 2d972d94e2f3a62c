"""The seam between pictures and an H.264 encoder: NV12 frames in, access units out.

Whoever implements it: nvenc (a GPU), x264 (an ffmpeg child process) and null (no codec at all, for tests of what stands
above).
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from renderer.encode.stream import AccessUnit
from renderer.errors import EncodeFailed
from renderer.geometry import Canvas
from renderer.pictures.memory import FrameStock

Nv12Frame = npt.NDArray[np.uint8]


class Encoder(Protocol):
    """One H.264 stream in the making; used by one job, on one thread.

    Frames enter in presentation order. Access units leave in decoding order; the first is an IDR with its SPS and PPS.
    """

    @property
    def stock(self) -> FrameStock:
        """What the frames given to this encoder are best made of; any others are taken too."""

    @property
    def pending_frames(self) -> int:
        """How many of the latest frames are still read; 0 for an encoder that copies them.

        A GPU fetches a frame from where it lies, after encode() has returned.
        """

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        """Take one frame and return the access units now ready, often none.

        Args:
            frame: (H * 3 // 2, W) uint8, C-contiguous; free for reuse as soon as it is not pending.

        Raises:
            EncodeFailed: the backend refused the frame; the stream is lost.
        """

    def flush(self) -> Iterable[AccessUnit]:
        """Give what is still inside, as it comes; no frame may follow.

        Take it to its end: only then is it known that nothing is missing.

        Raises:
            EncodeFailed: the stream could not be finished.
        """

    def close(self) -> None:
        """Give everything back, every frame included; harmless when repeated or after a failure."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


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
