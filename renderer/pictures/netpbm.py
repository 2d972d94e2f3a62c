"""A decoder for Netpbm's bitmaps, greymaps, pixmaps, arbitrary maps and float maps (its manual pages pbm to pfm).

The format is a header of a few words and rows of plain samples, which NumPy scales exactly by their maxval. Float maps
are linear light, with the lowest row first, in the byte order that the sign of their scale says. Arbitrary maps (PAM)
are greymaps and pixmaps, with or without alpha, or bitmaps of one byte a pixel in which 1 is white.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import Header, More

_GAP: Final = rb"(?:\s|#[^\n\r]{0,4096}[\n\r])+"
_NUMBER: Final = rb"(\d{1,9})"
_END: Final = rb"(?:\s|#[^\n\r]{0,4096}[\n\r])"
_BITMAP: Final = re.compile(rb"P([14])" + _GAP + _NUMBER + _GAP + _NUMBER + _END)
_MAP: Final = re.compile(rb"P([2356])" + _GAP + _NUMBER + _GAP + _NUMBER + _GAP + _NUMBER + _END)
_FLOATS: Final = re.compile(rb"P([Ff])" + _GAP + _NUMBER + _GAP + _NUMBER + _GAP + rb"([+-]?[\d.eE+-]{1,32})\s")
_ARBITRARY: Final = re.compile(rb"P(7)\n(?:[^\n]{0,256}\n){1,64}?ENDHDR[ \t]*\n")
_WORD: Final = re.compile(rb"^[ \t]*(WIDTH|HEIGHT|DEPTH|MAXVAL)[ \t]+(\d{1,9})[ \t]*$", re.MULTILINE)
_ANOTHER: Final = re.compile(rb"P[1-7Ff]\s")  # another picture that follows, as in pipes
_COMMENT: Final = re.compile(rb"#[^\n\r]*")
_NOT_OF_NUMBERS: Final = re.compile(rb"[^\d\s]")  # another picture, or damage
_KINDS: Final = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True, slots=True)
class _Map:
    magic: str
    width: int
    height: int
    scale: float
    start: int
    channels: int


def read_header(data: bytes) -> Header:
    """Parse the header.

    Raises:
        DecodeFailed: it is damaged.
    """
    found = _parse(data)
    if found.magic in "14":
        kind = "bitmap"
    else:
        depth = "float " if found.magic in "fF" else ""
        kind = depth + _KINDS.get(found.channels, f"{found.channels}-channel")
    more: More | None = "pictures" if _ANOTHER.match(data, _end(found)) else None
    return Header("Netpbm", kind, Size(found.width, found.height), more=more)


def _end(found: _Map) -> int:
    """Return where the samples end, or where they begin if they are text."""
    if found.magic in "123":
        return found.start
    sample_bits = {"4": 1, "f": 32, "F": 32}.get(found.magic, 16 if found.scale > 255 else 8)
    return found.start + (found.width * found.channels * sample_bits + 7) // 8 * found.height


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any]:
    """Decode the samples.

    Returns:
        uint8 if maxval fits, else uint16 or float32: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA.

    Raises:
        DecodeFailed: the file ends early, or holds other characters than it should.
    """
    found = _parse(data)
    count = found.width * found.height * found.channels
    if found.magic in "fF":
        return _floats(data, found, count)
    if found.magic == "4":
        return _bits(data, found)
    values = _text(data, found, count) if found.magic in "123" else _binary(data, found, count)
    scaled = _scaled(values, round(found.scale))
    shaped = scaled.reshape(found.height, found.width, found.channels)
    if found.channels < 3:
        return shaped[..., 0] if found.channels == 1 else shaped
    return shaped[..., (2, 1, 0, *range(3, found.channels))]


def _parse(data: bytes) -> _Map:
    channels = 3 if data[1:2] in (b"3", b"6", b"F") else 1
    if match := _BITMAP.match(data):
        width, height, scale = int(match[2]), int(match[3]), 1.0
    elif match := _MAP.match(data):
        width, height, scale = int(match[2]), int(match[3]), float(match[4])
    elif match := _FLOATS.match(data):
        width, height, scale = int(match[2]), int(match[3]), _float(match[4])
    elif match := _ARBITRARY.match(data):
        said = {word: int(number) for word, number in _WORD.findall(match[0])}
        width, height, channels = (said.get(word, 0) for word in (b"WIDTH", b"HEIGHT", b"DEPTH"))
        scale = float(said.get(b"MAXVAL", 0))
    else:
        raise DecodeFailed("expected a Netpbm header with width, height and maxval")
    magic = match[1].decode("ascii")
    if min(width, height, channels) < 1 or (magic in "23567" and not 1 <= scale <= 65535):
        raise DecodeFailed("expected a Netpbm image with pixels and a maxval of 1 to 65535")
    return _Map(magic, width, height, scale, match.end(), channels)


def _float(text: bytes) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DecodeFailed("expected a number as the scale of a float map") from error


def _taken(data: bytes, dtype: str, count: int, start: int) -> npt.NDArray[Any]:
    if len(data) < start + count * np.dtype(dtype).itemsize:
        raise DecodeFailed("expected a whole Netpbm image, found one that ends early")
    return np.frombuffer(data, dtype, count, start)


def _floats(data: bytes, found: _Map, count: int) -> npt.NDArray[Any]:
    values = _taken(data, "<f4" if found.scale < 0 else ">f4", count, found.start).astype(np.float32)
    shaped = values.reshape(found.height, found.width, found.channels)[::-1]
    return np.ascontiguousarray(shaped[..., 0] if found.channels == 1 else shaped[..., ::-1])


def _bits(data: bytes, found: _Map) -> npt.NDArray[Any]:
    row_bytes = (found.width + 7) // 8
    rows = _taken(data, "u1", row_bytes * found.height, found.start).reshape(found.height, row_bytes)
    return np.where(np.unpackbits(rows, axis=1)[:, : found.width], 0, 255).astype(np.uint8)  # 1 is black


def _binary(data: bytes, found: _Map, count: int) -> npt.NDArray[Any]:
    return _taken(data, ">u2" if found.scale > 255 else "u1", count, found.start)


def _text(data: bytes, found: _Map, count: int) -> npt.NDArray[Any]:
    text = data[found.start :]
    if found.magic == "1":
        digits = np.frombuffer(_COMMENT.sub(b"", text).translate(None, b" \t\n\r\v\f"), np.uint8)[:count]
        values = 1 - (digits - np.uint8(ord("0"))).astype(np.int64)
    else:
        numbers = _NOT_OF_NUMBERS.split(_COMMENT.sub(b"", text), 1)[0].decode("ascii")
        # With a given number of values, NumPy would fill the missing ones with uninitialised memory.
        values = np.fromstring(numbers, np.int64, sep=" ")[:count]
    if len(values) < count or values.min() < 0 or values.max() > found.scale:
        raise DecodeFailed("expected a whole Netpbm image, found one that ends early or holds other characters")
    return values


def _scaled(values: npt.NDArray[Any], most: int) -> npt.NDArray[Any]:
    """Scale 0 to maxval to the whole range of 8 bits, or of 16 bits if maxval needs them."""
    full, dtype = (255, np.uint8) if most <= 255 else (65535, np.uint16)
    if most == full:
        return values.astype(dtype)
    table = np.rint(np.minimum(np.arange(full + 1), most) * (full / most)).astype(dtype)
    return np.take(table, values)
