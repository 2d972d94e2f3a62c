"""A decoder for Sun raster: bits, palettes and colours, with or without run-length coding (Sun's rasterfile(5)).

Pillow is not used, because it takes the pad byte of 32-bit pixels for a colour, and misreads the value 128 in
run-length coding.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import Header, unsupported

_HEADER_BYTES: Final = 32
_OLD, _STANDARD, _RUNS, _RGB = range(4)  # red comes first in the last one, blue in the others
_NO_MAP, _RGB_MAP = 0, 1
_ESCAPE: Final = re.compile(rb"\x80(?:\x00|([\x01-\xff])(.))", re.DOTALL)
_EARLY: Final = "expected a whole Sun raster image, found one that ends early"


@dataclass(frozen=True, slots=True)
class _Info:
    size: Size
    bits: int
    coding: int
    map_bytes: int

    @property
    def stride(self) -> int:
        return (self.size.width * self.bits + 15) // 16 * 2


def read_header(data: bytes) -> Header:
    """Parse the header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: the coding or the palette is of an unusual kind.
    """
    info = _parse(data)
    kind = {1: "1-bit", 8: "8-bit palette" if info.map_bytes else "8-bit grey"}.get(info.bits, f"{info.bits}-bit RGB")
    return Header("Sun raster", kind, info.size)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[np.uint8]:
    """Decode the rows.

    Returns:
        (H, W) or (H, W, 3) BGR.

    Raises:
        DecodeFailed: the file ends early, or uses a colour that its palette does not have.
    """
    info = _parse(data)
    start = _HEADER_BYTES + info.map_bytes
    whole_bytes = info.stride * info.size.height
    body = _uncoded(data[start:], whole_bytes) if info.coding == _RUNS else data[start : start + whole_bytes]
    if len(body) < whole_bytes:
        raise DecodeFailed(_EARLY)
    rows = np.frombuffer(body, np.uint8, whole_bytes).reshape(info.size.height, info.stride)
    width = info.size.width
    if info.bits >= 24:
        pixels = rows[:, : width * info.bits // 8].reshape(info.size.height, width, info.bits // 8)[..., -3:]
        return np.ascontiguousarray(pixels[..., ::-1] if info.coding == _RGB else pixels)
    index = np.unpackbits(rows, axis=1)[:, :width] if info.bits == 1 else rows[:, :width]
    if info.map_bytes:
        palette = np.frombuffer(data, np.uint8, info.map_bytes, _HEADER_BYTES).reshape(3, -1).T[:, ::-1]
        if index.max() >= len(palette):
            raise DecodeFailed(f"expected a Sun raster of {len(palette)} colours, found one that uses another")
        return np.take(palette, index, axis=0)
    return (1 - index) * np.uint8(255) if info.bits == 1 else np.ascontiguousarray(index)


def _parse(data: bytes) -> _Info:
    if len(data) < _HEADER_BYTES:
        raise DecodeFailed(_EARLY)
    width, height, bits, _, coding, map_kind, map_bytes = struct.unpack_from(">7I", data, 4)
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise DecodeFailed(f"expected a Sun raster with pixels, found {width}x{height}")
    if coding > _RGB or map_kind not in (_NO_MAP, _RGB_MAP):
        raise unsupported(f"Sun raster of type {coding} with a palette of type {map_kind}")
    map_bytes = map_bytes if map_kind == _RGB_MAP else 0
    if map_bytes % 3 or _HEADER_BYTES + map_bytes > len(data):
        raise DecodeFailed(_EARLY)
    return _Info(Size(width, height), bits, coding, map_bytes)


def _uncoded(body: bytes, most: int) -> bytes:
    """Undo run-length coding: 128, n and a byte mean n + 1 such bytes, and 128 with 0 means a single byte of 128."""
    parts: list[bytes] = []
    place = found = 0
    while found < most:
        escape = _ESCAPE.search(body, place)
        parts.append(body[place : escape.start() if escape else len(body)])
        found += len(parts[-1])
        if escape is None:
            break
        parts.append((escape[2] or b"\x80") * ((escape[1] or b"\0")[0] + 1))
        found += len(parts[-1])
        place = escape.end()
    return b"".join(parts)[:most]
