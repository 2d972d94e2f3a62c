"""PNG: what its chunks say, and the still picture alone as a plain file (ISO/IEC 15948; PNG third edition).

Only the chunks that the picture needs reach the decoder. The rest, an animation's frames above all, is where OpenCV
reads memory that it never wrote, and where 300,000 chunks make libpng write as many warnings. The still picture (IDAT)
is what every viewer without animation shows; mostly it is the first frame as well.

A colour key is looked for here, in the samples at their full depth: OpenCV loses that of grey pictures.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.pictures.exif import orientation_of
from renderer.pictures.formats import Header, turned, unsupported

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS: Final = 200_000
_MOST_PROFILE_BYTES: Final = 16 << 20
_COLOURS: Final = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

Chunk = tuple[bytes, int, int]  # type, where it begins, how long its data is


def read_header(data: bytes) -> Header:
    """Parse what comes before the pixels.

    Raises:
        DecodeFailed: the file is no whole PNG as far as its chunks tell.
        UnsupportedFormat: there is no such kind of PNG.
    """
    width, height, depth, colour = _facts(data)
    orientation, profile = 1, None
    for kind, start, length in _chunks(data):
        if kind == b"IDAT":
            break
        body = data[start + 8 : start + 8 + length]
        if kind == b"eXIf":
            orientation = orientation_of(body)
        elif kind == b"iCCP" and profile is None:
            profile = _unpacked_profile(body)
    size = turned(width, height, orientation)
    return Header("PNG", f"{depth}-bit {_COLOURS[colour]}", size, orientation, profile)


def read(data: bytes) -> npt.NDArray[Any] | None:
    """Decode the still picture.

    Returns:
        uint8 or uint16: (H, W), (H, W, 3) BGR, or (H, W, 4) BGRA where there is alpha; None if it is damaged.
    """
    _, _, depth, colour = _facts(data)
    view = memoryview(data)
    parts: list[bytes | memoryview] = [_SIGNATURE]
    key, is_plain = b"", True
    for kind, start, length in _chunks(data):
        if kind in (b"IHDR", b"PLTE", b"IDAT") or (kind == b"tRNS" and colour == 3):
            parts.append(view[start : start + 12 + length])
            continue
        is_plain = False
        if kind == b"tRNS" and colour in (0, 2):
            key = data[start + 8 : start + 8 + length]
    plain = data if is_plain else b"".join((*parts, _END))
    samples: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    return samples if samples is None or not key else _keyed_out(samples, key, depth)


def _facts(data: bytes) -> tuple[int, int, int, int]:
    if len(data) < 33 or data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise DecodeFailed("expected a whole PNG image, found a damaged one")
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in _DEPTHS.get(colour, ()):
        raise unsupported(f"PNG of {depth} bits and colour type {colour}, which the standard does not have")
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise DecodeFailed(f"expected a PNG with pixels, found {width}x{height}")
    return width, height, depth, colour


def _chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks up to the end of the picture."""
    place = len(_SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if place + 12 > len(data):
            raise DecodeFailed("expected a whole PNG image, found one that ends early")
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if place + 12 + length > len(data):
            raise DecodeFailed("expected a whole PNG image, found one that ends early")
        if kind == b"IEND":
            return
        yield kind, place, length
        place += 12 + length
    raise DecodeFailed(f"expected a PNG of up to {_MOST_CHUNKS} chunks, found more")


_END: Final = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


def _unpacked_profile(body: bytes) -> bytes | None:
    """Return an embedded profile (11.3.2.3: name, zero, method, zlib), None if it is damaged or enormous."""
    _, _, packed = body.partition(b"\0")
    decoder = zlib.decompressobj()
    try:
        profile = decoder.decompress(packed[1:], _MOST_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if decoder.eof else None


def _keyed_out(samples: npt.NDArray[Any], key: bytes, depth: int) -> npt.NDArray[Any]:
    """Return the samples with alpha: 0 where they equal the key (11.3.2.1), which has 2 bytes for each channel."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    if len(key) != 2 * channels or channels not in (1, 3):
        return samples
    # libpng spreads fewer bits over 8: 1 bit becomes 0 and 255.
    scale = 255 // ((1 << depth) - 1) if depth < 8 else 1
    mask = (1 << depth) - 1
    wanted = [(value & mask) * scale for value in struct.unpack(f">{channels}H", key)][::-1]
    bgr = np.dstack([samples] * 3) if channels == 1 else samples
    alpha = np.where((samples.reshape(*samples.shape[:2], channels) == wanted).all(-1), 0, np.iinfo(samples.dtype).max)
    return np.dstack([bgr, alpha.astype(samples.dtype)])
