"""One H.264 stream as both sides of the seam describe it: how it is to be coded, and the pictures that come out.

The seam itself (base.py) needs NumPy; plans and command lines do not, so these values are in a module of their own.
"""

from dataclasses import dataclass
from fractions import Fraction

from protocol.schema import Preset
from renderer.geometry import Canvas


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
        holds: frames that each is shown for, of stills that may be a montage; empty if that does not matter.
        is_montage: no still resembles the one before, as far as they were looked at (x264.py).
    """

    is_idr: tuple[bool, ...]
    quantiser_offsets: tuple[float, ...]
    holds: tuple[int, ...] = ()
    is_montage: bool = False

    @property
    def is_all_idr(self) -> bool:
        """Whether no picture is predicted from another."""
        return all(self.is_idr)


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """One coded picture in Annex B; an IDR brings its SPS and PPS along."""

    data: bytes
    is_idr: bool
