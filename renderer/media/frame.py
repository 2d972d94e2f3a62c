"""A frame of a video as a picture: its colours converted to sRGB, and turned as its file says.

The conversion is that of stills (`pictures.planes`). As in ffmpeg's scaler, chroma lies between the pixels that share
it, a matrix that the stream does not state is taken for BT.601, and a range for limited; and the primaries of ordinary
video are taken for BT.709's, which they hardly differ from. HDR and the wide gamuts are converted as in stills.
"""

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type

from renderer.media.formats import unsupported
from renderer.pictures.colour import to_bgr as to_srgb
from renderer.pictures.light import Coding, coding_of
from renderer.pictures.planes import to_bgr

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_FULL: Final = 2  # libavutil/pixfmt.h, AVCOL_RANGE_JPEG
_HDR: Final = (16, 18)  # ITU-T H.273, table 3: PQ, HLG
_WIDE: Final = (9, 11, 12)  # table 2: BT.2020, DCI-P3, Display P3
_SRGB: Final = 13
_BLACK: Final = (0, 0, 0)


def picture_of(frame: "VideoFrame") -> npt.NDArray[np.uint8]:
    """Return a frame as (H, W, 3) BGR, as it is to be shown.

    Raises:
        UnsupportedVideo: its samples are of a kind that is not converted, or it is turned by an odd angle.
    """
    coding = _coding(frame)
    is_deep = coding is not None
    name = frame.format.name
    is_limited = not name.startswith("yuvj") and int(frame.color_range) != _FULL
    bgr = to_bgr(frame, int(frame.colorspace), np.uint16 if is_deep else np.uint8, is_limited=is_limited)
    if bgr is None:
        raise unsupported(f"a video of {name} samples and matrix {int(frame.colorspace)}")
    return _turned(to_srgb(bgr, background=_BLACK, coding=coding), frame)


def _coding(frame: "VideoFrame") -> Coding | None:
    """Return how the samples represent light; None if they are taken for sRGB's."""
    primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
    if transfer in _HDR:
        return coding_of(primaries if primaries in _WIDE else 9, transfer)
    return coding_of(primaries, _SRGB) if primaries in _WIDE else None


def _turned(picture: npt.NDArray[np.uint8], frame: "VideoFrame") -> npt.NDArray[np.uint8]:
    """Apply the matrix of the track header (ISO/IEC 14496-12, 8.3.2), which turns and mirrors."""
    beside: Any = frame.side_data
    matrix = beside.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if (a or d) and (b or c):
        raise unsupported("a video that is turned by an angle other than 90, 180 or 270 degrees")
    if b or c:
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
