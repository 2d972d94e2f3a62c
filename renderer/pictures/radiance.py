"""A decoder for Radiance HDR: floats with a shared exponent, plain or run-length coded (Ward, "Real Pixels").

OpenCV is three times as fast, and is tried first if rows have the newer of two run-length codings and go from left to
right and downwards. It misreads the older one, and refuses headers in another form than its own. The samples are light
with the primaries of BT.709, unless the header states others; the exposure in the header is ignored, as in most
viewers.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import Header, unsupported
from renderer.pictures.light import BT709, Coding, Primaries, is_triangle

_HEAD: Final = re.compile(
    rb"#\?(?:RADIANCE|RGBE)[^\n]{0,256}\n(?P<lines>(?:[^\n]{1,4096}\n){0,256}?)\s*\n"
    rb"(?P<first>[+-][XY])[ \t]+(?P<outer>\d{1,9})[ \t]+(?P<second>[+-][XY])[ \t]+(?P<inner>\d{1,9})[ \t]*\r?\n"
)
_FORMAT: Final = re.compile(rb"^FORMAT=[ \t]*(\S+)", re.MULTILINE)
_PRIMARIES: Final = re.compile(rb"^PRIMARIES=((?:[ \t]+-?[\d.eE+-]{1,32}|-?[\d.eE+-]{1,32}){8})", re.MULTILINE)
_LEAST, _MOST = 8, 0x7FFF  # the range of widths that the newer coding allows
# The first axis is that of the rows. The values are the orientation that remains, with the numbers of EXIF.
_TURNS: Final = {
    (b"-Y", b"+X"): 1, (b"-Y", b"-X"): 2, (b"+Y", b"-X"): 3, (b"+Y", b"+X"): 4,
    (b"+X", b"-Y"): 5, (b"-X", b"-Y"): 6, (b"-X", b"+Y"): 7, (b"+X", b"+Y"): 8,
}  # fmt: skip
_EARLY: Final = "expected a whole Radiance HDR image, found one that ends early"


@dataclass(frozen=True, slots=True)
class _Info:
    rows: int
    columns: int
    orientation: int
    primaries: Primaries
    is_usual: bool
    start: int


def read_header(data: bytes) -> Header:
    """Parse the header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: the samples are not red, green and blue.
    """
    info = _parse(data)
    is_tall = info.orientation >= 5
    size = Size(info.rows, info.columns) if is_tall else Size(info.columns, info.rows)
    coding = None if info.primaries == BT709 else Coding("linear", info.primaries)
    return Header("Radiance HDR", "", size, info.orientation, None, coding)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[np.float32]:
    """Decode the samples in the orientation of the file.

    Returns:
        float32 of linear light: (H, W, 3) BGR.

    Raises:
        DecodeFailed: the file ends early or is damaged.
    """
    info = _parse(data)
    if info.is_usual:
        by_opencv: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if by_opencv is not None and by_opencv.shape == (info.rows, info.columns, 3):
            return by_opencv
    found = np.empty((info.rows, info.columns, 4), np.uint8)
    place = info.start
    for row in range(info.rows):
        if _is_in_planes(data, place, info.columns):
            line, place = _planes(data, place + 4, info.columns)
            found[row] = np.frombuffer(line, np.uint8).reshape(4, info.columns).T
        else:
            line, place = _pixels(data, place, info.columns)
            found[row] = np.frombuffer(line, np.uint8).reshape(info.columns, 4)
    scale = np.ldexp(np.float32(1), found[..., 3:].astype(np.int32) - 136)
    light = found[..., 2::-1].astype(np.float32) * scale  # Ward adds half a step, but no other program does
    return np.where(found[..., 3:] > 0, light, np.float32(0))


def _parse(data: bytes) -> _Info:
    head = _HEAD.match(data)
    if head is None:
        raise DecodeFailed("expected a Radiance HDR header with its size")
    coding = _FORMAT.search(head["lines"])
    if coding and coding[1] != b"32-bit_rle_rgbe":
        raise unsupported(f"Radiance HDR image of the format {coding[1].decode('latin-1')[:32]}")
    orientation = _TURNS.get((head["first"], head["second"]))
    rows, columns = int(head["outer"]), int(head["inner"])
    if orientation is None or not rows or not columns:
        raise DecodeFailed(f"expected a Radiance HDR image with pixels, found {columns}x{rows}")
    is_usual = head[0].endswith(b"\n\n-Y %d +X %d\n" % (rows, columns)) and _is_in_planes(data, head.end(), columns)
    return _Info(rows, columns, orientation, _primaries(head["lines"]), is_usual, head.end())


def _primaries(lines: bytes) -> Primaries:
    said = _PRIMARIES.search(lines)
    try:
        values = [float(each) for each in said[1].split()] if said else []
    except ValueError:
        values = []
    if len(values) != 8:
        return BT709
    red, green, blue, white = zip(values[::2], values[1::2], strict=True)
    found = red, green, blue, white
    return found if is_triangle(found) else BT709


def _is_in_planes(data: bytes, place: int, columns: int) -> bool:
    """Whether a row in the newer coding begins at `place`."""
    return _LEAST <= columns <= _MOST and data[place : place + 4] == b"\2\2" + columns.to_bytes(2, "big")


def _planes(data: bytes, place: int, columns: int) -> tuple[bytes, int]:
    """Undo the newer coding of one row, which has four planes of runs and plain bytes."""
    parts: list[bytes] = []
    left = 4 * columns
    while left > 0:
        if place >= len(data):
            raise DecodeFailed(_EARLY)
        count = data[place]
        taken = data[place + 1 : place + 2] * (count - 128) if count > 128 else data[place + 1 : place + 1 + count]
        place += 2 if count > 128 else 1 + count
        if not taken:
            raise DecodeFailed("expected a whole Radiance HDR image, found a damaged one")
        parts.append(taken)
        left -= len(taken)
    if left < 0:
        raise DecodeFailed("expected a whole Radiance HDR image, found one with runs beyond its rows")
    return b"".join(parts), place


def _pixels(data: bytes, place: int, columns: int) -> tuple[bytes, int]:
    """Undo the older coding of one row: pixels, and 1, 1, 1 with a count of repetitions of the last pixel."""
    whole = data[place : place + 4 * columns]
    if b"\1\1\1" not in whole and len(whole) == 4 * columns:
        return whole, place + 4 * columns
    parts: list[bytes] = []
    left, shift = columns, 0
    while left > 0:
        pixel = data[place : place + 4]
        place += 4
        if len(pixel) < 4:
            raise DecodeFailed(_EARLY)
        if pixel[:3] != b"\1\1\1":
            parts.append(pixel)
            left, shift = left - 1, 0
            continue
        count = pixel[3] << shift
        shift += 8
        if not parts or count > left:
            raise DecodeFailed("expected a whole Radiance HDR image, found one with runs beyond its rows")
        parts.append(parts[-1][-4:] * count)
        left -= count
        if not parts[-1]:
            parts.pop()
    return b"".join(parts), place
