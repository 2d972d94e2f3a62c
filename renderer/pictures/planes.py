"""Decoded planes of luma and chroma to BGR, in floats by ITU-T H.273, 8.3, equations 20 to 40."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av

# ITU-T H.273, table 4: matrix_coefficients -> the luma weights of red and blue. 2 is unspecified: libavif and ffmpeg
# take BT.601.
_WEIGHTS: Final[Mapping[int, tuple[float, float]]] = {
    1: (0.2126, 0.0722), 2: (0.299, 0.114), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}  # fmt: skip
_IDENTITY: Final = 0
LIMITED: Final = 1  # libavutil/pixfmt.h, AVCOL_RANGE_MPEG
_PLANAR: Final = re.compile(r"(?:yuvj?(?:444|422|420)p|gbrp|gray)(?:(10|12)le)?")
_STRIP_ROWS: Final = 64


def to_bgr(
    frame: "av.VideoFrame", matrix: int, dtype: type[np.unsignedinteger[Any]], *, is_limited: bool
) -> npt.NDArray[Any] | None:
    """Return a frame as (H, W, 3) BGR, or None if its samples or its matrix are of a kind that is not converted.

    Args:
        matrix: of H.273, table 4.
    """
    kind = _PLANAR.fullmatch(frame.format.name)
    if kind is None or (matrix not in _WEIGHTS and matrix != _IDENTITY):
        return None
    bits = int(kind[1] or 8)
    planes = [_plane(plane, bits) for plane in frame.planes]
    if frame.format.name.startswith("gbrp"):
        green, blue, red = (_unit(plane, bits, 219, is_limited=is_limited) for plane in planes)
        return _rounded(np.dstack([blue, green, red]), dtype)
    if len(planes) == 1:
        return _rounded(np.dstack([_unit(planes[0], bits, 219, is_limited=is_limited)] * 3), dtype)
    rows, columns = planes[0].shape
    chroma = [_enlarged(plane, rows, columns) for plane in planes[1:]]
    found = np.empty((rows, columns, 3), dtype)
    for top in range(0, rows, _STRIP_ROWS):
        part = slice(top, top + _STRIP_ROWS)
        luma = _unit(planes[0][part], bits, 219, is_limited=is_limited)
        cb, cr = (_unit(plane[part], bits, 224, is_limited=is_limited, middle=128) for plane in chroma)
        found[part] = _rounded(_to_bgr(luma, cb, cr, *_WEIGHTS[matrix or 2]), dtype)
    return found


def _enlarged(plane: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Give chroma as many samples as luma; a sample that two pixels share lies in the middle between them."""
    by_rows = 1 if plane.shape[0] == rows else 2
    by_columns = 1 if plane.shape[1] == columns else 2
    whole = (by_columns * plane.shape[1], by_rows * plane.shape[0])
    return np.asarray(cv2.resize(plane, whole, interpolation=cv2.INTER_LINEAR))[:rows, :columns]


def _plane(plane: Any, bits: int) -> npt.NDArray[Any]:
    dtype = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width]


def _unit(plane: npt.NDArray[Any], bits: int, span: int, *, is_limited: bool, middle: int = 0) -> npt.NDArray[Any]:
    """Return 0 to 1, or -0.5 to 0.5 for chroma."""
    scale = 1 << (bits - 8)
    values = plane.astype(np.float32)
    if is_limited:
        return np.asarray((values - (middle or 16) * scale) / (span * scale), np.float32)
    return np.asarray((values - middle * scale) / ((1 << bits) - 1), np.float32)


def _to_bgr(luma: Any, cb: Any, cr: Any, red_weight: float, blue_weight: float) -> npt.NDArray[Any]:
    red = luma + 2 * (1 - red_weight) * cr
    blue = luma + 2 * (1 - blue_weight) * cb
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.dstack([blue, green, red])


def _rounded(values: npt.NDArray[Any], dtype: type[np.unsignedinteger[Any]]) -> npt.NDArray[Any]:
    return np.asarray(np.rint(np.clip(values, 0, 1) * np.iinfo(dtype).max), dtype)
