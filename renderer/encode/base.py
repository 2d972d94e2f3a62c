"""The seam between pictures and an H.264 encoder: NV12 frames in, access units out.

Whoever implements it: nvenc (a GPU), x264 (an ffmpeg child process) and null (no codec at all, for tests of what stands
above).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from protocol.schema import Preset
from renderer.errors import EncodeFailed
from renderer.geometry import Canvas
from renderer.pictures.memory import FrameStock

Nv12Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """One stream, in words that every encoder understands.

    Attributes:
        crf: 0 (lossless, in a profile that few players know) to 51, on x264's scale.
        keyframe_interval: frames between two IDR pictures at most.
        held: set for a stream whose holds are synthesised: one frame per still, one reference, no B pictures.
    """

    canvas: Canvas
    fps: Fraction
    crf: int
    preset: Preset
    keyframe_interval: int
    held: "HeldCoding | None" = None


@dataclass(frozen=True, slots=True)
class HeldCoding:
    """How the stills of a held stream are coded; one entry per frame that the encoder will be given.

    Attributes:
        is_idr: which must be IDR pictures.
        quantiser_offsets: steps to add to what crf would choose.
    """

    is_idr: tuple[bool, ...]
    quantiser_offsets: tuple[float, ...]

    @property
    def is_all_idr(self) -> bool:
        """Whether no picture is predicted from another."""
        return all(self.is_idr)


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture in Annex B; an IDR brings its SPS and PPS along."""

    data: bytes
    is_idr: bool


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
