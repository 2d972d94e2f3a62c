"""A decoder for BMP: bit fields, palettes, plain and run-length coded rows, with any header of Microsoft or OS/2.

The format is rows of packed samples, which NumPy unpacks exactly; OpenCV and Pillow each misread some of its headers
and masks, and Pillow refuses run-length coding that skips pixels. Skipped pixels get the first colour of the palette,
as in most programs. Calibrated colours in the header are ignored, because writers do not agree about them, but embedded
profiles are used.
"""

import struct
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import Header, unsupported

_CORE: Final = 12
_LENGTHS: Final = (*range(16, 65, 4), 108, 124)
_RAW, _RLE8, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6
_OS2_COMPRESSIONS: Final = {3: "Huffman", 4: "run-length coded 24-bit"}
_COMPRESSIONS: Final = {4: "JPEG", 5: "PNG", 11: "CMYK", 12: "run-length coded CMYK", 13: "run-length coded CMYK"}
_MASKS: Final = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_STRIP_PIXELS: Final = 1 << 16
_END_OF_LINE, _END_OF_BITMAP, _DELTA = 0, 1, 2
_V5, _EMBEDDED = 124, b"DEBM"  # BITMAPV5HEADER, bV5CSType: PROFILE_EMBEDDED, in little-endian order


@dataclass(frozen=True, slots=True)
class _Info:
    length: int
    width: int
    height: int
    is_top_down: bool
    bits: int
    compression: int
    colours: int
    start: int

    @property
    def palette_at(self) -> int:
        """Where the palette begins: after the masks, which follow a header that has no room for them."""
        masks = {_BIT_FIELDS: 12, _ALPHA_BIT_FIELDS: 16}.get(self.compression, 0)
        return 14 + self.length + (masks if self.length == 40 else 0)

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4


def read_header(data: bytes) -> Header:
    """Parse the header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: it has an unusual length, depth or compression.
    """
    info = _parse(data)
    size = Size(info.width, info.height)
    profile = _profile(data, info)
    if info.compression in (_RLE8, _RLE4):
        return Header("BMP", f"run-length coded {info.bits}-bit", size, profile=profile)
    return Header("BMP", f"{info.bits}-bit {'palette' if info.bits <= 8 else 'RGB'}", size, profile=profile)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[np.uint8]:
    """Decode the rows.

    Returns:
        (H, W, 3) BGR, or (H, W, 4) BGRA if there is a mask for alpha.

    Raises:
        DecodeFailed: the file ends early.
    """
    info = _parse(data)
    if info.start <= info.palette_at - (
        info.bits > 8
    ):  # some programs do not store where the rows begin, or forget the palette
        count = (info.colours or 1 << info.bits) if info.bits <= 8 else 0
        info = replace(info, start=info.palette_at + count * (3 if info.length == _CORE else 4))
    if info.compression in (_RLE8, _RLE4):
        index = _uncoded(data, info)
        return np.take(_palette(data, info), index if info.is_top_down else index[::-1], axis=0)
    whole_bytes = info.row_bytes * info.height
    padding = info.row_bytes - (info.width * info.bits + 7) // 8  # some programs omit it in the last row
    if len(data) < info.start + whole_bytes - padding:
        raise DecodeFailed("expected a whole BMP image, found one that ends early")
    if len(data) < info.start + whole_bytes:
        data = data.ljust(info.start + whole_bytes, b"\0")
    rows = np.frombuffer(data, np.uint8, whole_bytes, info.start).reshape(info.height, info.row_bytes)
    rows = rows if info.is_top_down else rows[::-1]
    if info.bits <= 8:
        return np.take(_palette(data, info), _indexes(rows, info), axis=0)
    if info.bits == 24:
        return np.ascontiguousarray(rows[:, : 3 * info.width]).reshape(info.height, info.width, 3)
    return _unmasked(rows, info, _masks(data, info))


def _parse(data: bytes) -> _Info:
    try:
        start, length = struct.unpack_from("<II", data, 10)
        if length == _CORE:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            info = _Info(length, width, height, False, bits, _RAW, 0, start)
        elif length in _LENGTHS:
            width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
            compression = struct.unpack_from("<I", data, 30)[0] if length >= 20 else _RAW
            colours = struct.unpack_from("<I", data, 46)[0] if length >= 36 else 0
            info = _Info(length, width, abs(height), height < 0, bits, compression, colours, start)
        else:
            raise unsupported(f"BMP with a header of {length} bytes")
    except struct.error as error:
        raise DecodeFailed("expected a whole BMP image, found one that ends early") from error
    if info.width < 1 or info.height < 1:
        raise DecodeFailed(f"expected a BMP with pixels, found {info.width}x{info.height}")
    _check_kind(info)
    return info


def _check_kind(info: _Info) -> None:
    allowed = {
        _RAW: (1, 2, 4, 8, 16, 24, 32), _RLE8: (8,), _RLE4: (4,), _BIT_FIELDS: (16, 32), _ALPHA_BIT_FIELDS: (16, 32)
    }  # fmt: skip
    is_os2 = info.length in (16, 64)
    if info.compression not in allowed or (is_os2 and info.compression > _RLE4):
        names = _OS2_COMPRESSIONS if is_os2 else _COMPRESSIONS
        raise unsupported(f"BMP with {names.get(info.compression, 'unknown')} compression")
    if info.bits not in allowed[info.compression]:
        raise unsupported(f"BMP of {info.bits} bits a pixel")


def _profile(data: bytes, info: _Info) -> bytes | None:
    if info.length < _V5 or data[14 + 56 : 14 + 60] != _EMBEDDED or len(data) < 14 + 120:
        return None
    place, size_bytes = struct.unpack_from("<II", data, 14 + 112)
    return data[14 + place : 14 + place + size_bytes] or None


def _palette(data: bytes, info: _Info) -> npt.NDArray[np.uint8]:
    """Return 256 colours; an index beyond the palette is black."""
    entry = 3 if info.length == _CORE else 4
    count = min(info.colours or 1 << info.bits, 1 << info.bits, (info.start - info.palette_at) // entry)
    palette = np.zeros((256, 3), np.uint8)
    stored = np.frombuffer(data[info.palette_at : info.palette_at + count * entry], np.uint8)
    stored = stored[: len(stored) // entry * entry].reshape(-1, entry)
    palette[: len(stored)] = stored[:, :3]
    return palette


def _indexes(rows: npt.NDArray[np.uint8], info: _Info) -> npt.NDArray[np.uint8]:
    if info.bits < 8:
        shifts = np.arange(8 - info.bits, -1, -info.bits, dtype=np.uint8)
        spread = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & ((1 << info.bits) - 1)
        rows = np.asarray(spread[rows], np.uint8).reshape(info.height, -1)
    return rows[:, : info.width]


def _uncoded(data: bytes, info: _Info) -> npt.NDArray[np.uint8]:
    """Undo run-length coding and return the indexes into the palette, (H, W), in the order of the file."""
    found = bytearray(info.width * info.height)
    place, row, column = info.start, 0, 0
    while place + 2 <= len(data):
        count, value = data[place : place + 2]
        place += 2
        if count or value > _DELTA:
            pixels, place = _run(data, place, count, value, info.bits)
            end = min(column + len(pixels), info.width)  # some programs code the padding too, or even more
            if row < info.height:
                found[row * info.width + column : row * info.width + end] = pixels[: end - column]
            column = end
        elif value == _END_OF_LINE:
            row, column = row + 1, 0
        elif value == _DELTA and place + 2 <= len(data):
            row, column, place = row + data[place + 1], min(column + data[place], info.width), place + 2
        else:
            break
    else:
        if row * info.width + column < info.width * info.height:
            raise DecodeFailed("expected a whole BMP image, found one that ends early")
    return np.frombuffer(found, np.uint8).reshape(info.height, info.width)


def _run(data: bytes, place: int, count: int, value: int, bits: int) -> tuple[bytes, int]:
    """Return the pixels of a run, or `value` plain pixels if `count` is 0, and where the next run begins."""
    if count:
        return (bytes((value,)) * count if bits == 8 else bytes((value >> 4, value & 15)) * 128)[:count], place
    size_bytes = value if bits == 8 else (value + 1) // 2
    stored = data[place : place + size_bytes]
    if len(stored) < size_bytes:
        raise DecodeFailed("expected a whole BMP image, found one that ends early")
    if bits == 4:
        stored = bytes(half for byte in stored for half in (byte >> 4, byte & 15))[:value]
    return stored, place + size_bytes + size_bytes % 2


def _masks(data: bytes, info: _Info) -> tuple[int, ...]:
    """Return the masks of red, green, blue and alpha."""
    if info.compression == _RAW:
        return _MASKS[info.bits]
    count = 4 if info.length >= 56 or info.compression == _ALPHA_BIT_FIELDS else 3
    try:
        found = struct.unpack_from(f"<{count}I", data, 54)
    except struct.error as error:
        raise DecodeFailed("expected a whole BMP image, found one that ends early") from error
    masks = (*found, 0)[:4]
    if not any(masks[:3]):
        raise DecodeFailed("expected bit fields in a BMP, found none")
    if any(mask and ((mask >> _low(mask)) + 1) & (mask >> _low(mask)) for mask in masks):
        raise DecodeFailed("expected bit fields of adjacent bits in a BMP, found others")
    return masks


def _low(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _unmasked(rows: npt.NDArray[np.uint8], info: _Info, masks: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Scale each field to 0 to 255, rounded; this is done in strips, so that the temporaries stay in the cache."""
    order = (masks[2], masks[1], masks[0], *masks[3:]) if masks[3] else (masks[2], masks[1], masks[0])
    found = np.empty((info.height, info.width, len(order)), np.uint8)
    step = max(1, _STRIP_PIXELS // info.width)
    for top in range(0, info.height, step):
        strip = np.ascontiguousarray(rows[top : top + step, : info.width * info.bits // 8])
        values = strip.view(f"<u{info.bits // 8}").astype(np.uint32)
        for channel, mask in enumerate(order):
            found[top : top + step, :, channel] = _field(values, mask)
    return found


def _field(values: npt.NDArray[Any], mask: int) -> npt.NDArray[Any]:
    if not mask:
        return np.zeros(values.shape, np.uint8)
    low = _low(mask)
    most = mask >> low
    field = (values & np.uint32(mask)) >> np.uint32(low)
    return field if most == 255 else np.rint(field * (255 / most))
