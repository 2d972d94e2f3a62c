"""PNG: the chunks are read here, and the decoder gets only the still picture (ISO/IEC 15948; PNG third edition).

Only the chunks that the picture needs reach the decoder. With the others, mainly the frames of an animation, OpenCV may
read uninitialised memory, and libpng may write one warning for each of 300,000 chunks. The still picture (IDAT) is the
one that viewers without animation show; usually it is also the first frame.

The colour key is applied here, to samples of full depth, because OpenCV loses it in grey pictures.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.pictures.exif import orientation_of
from renderer.pictures.formats import Header, turned, unsupported
from renderer.pictures.light import BT709, Coding, Curve, Primaries, coding_of, is_triangle

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS: Final = 200_000
_MOST_PROFILE_BYTES: Final = 16 << 20
_COLOURS: Final = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGBA"}
_GREY_WITH_ALPHA: Final = 4
_DEPTHS: Final = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

# The chunks about orientation, colour and animation.
_TELLING: Final = (b"eXIf", b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"acTL")
_UNIT, _SRGB_GAMMA, _MOST_GAMMA = 100_000, 45_455, 1_000_000

Chunk = tuple[bytes, int, int]  # type, where it begins, how long its data is


def read_header(data: bytes) -> Header:
    """Parse all chunks but the pixels.

    Raises:
        DecodeFailed: the chunks show that the file is damaged or ends early.
        UnsupportedFormat: the standard has no such kind of PNG.
    """
    width, height, depth, colour = _facts(data)
    told: dict[bytes, bytes] = {}
    telling: tuple[bytes, ...] = _TELLING
    for kind, start, length in _chunks(data):
        if kind == b"IDAT":
            telling = (b"eXIf",)  # the only one that may come after the pixels (11.3.4.5), where ImageMagick writes it
        elif kind in telling and _is_sound(data, start, length):
            told.setdefault(kind, data[start + 8 : start + 8 + length])
    orientation = orientation_of(told.get(b"eXIf"))
    size = turned(width, height, orientation)
    profile, coding = _colour_of(told)
    frames = int.from_bytes(told.get(b"acTL", b"")[:4], "big")
    return Header(
        "PNG", f"{depth}-bit {_COLOURS[colour]}", size, orientation, profile, coding, "frames" if frames > 1 else None
    )


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any] | None:
    """Decode the still picture.

    Returns:
        uint8 or uint16: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA; None if it is damaged.

    Raises:
        DecodeFailed: the chunk about transparency is damaged, which decoders would ignore.
    """
    _, _, depth, colour = _facts(data)
    view = memoryview(data)
    parts: list[bytes | memoryview] = [_SIGNATURE]
    key, is_plain = b"", True
    for kind, start, length in _chunks(data):
        if kind == b"tRNS" and not _is_sound(data, start, length):
            raise DecodeFailed("expected a whole PNG image, found one whose transparency is damaged")
        if kind in (b"IHDR", b"PLTE", b"IDAT") or (kind == b"tRNS" and colour == 3):
            parts.append(view[start : start + 12 + length])
            continue
        is_plain = False
        if kind == b"tRNS" and colour in (0, 2):
            key = data[start + 8 : start + 8 + length]
    plain = data if is_plain else b"".join((*parts, _END))
    samples: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is not None and colour == _GREY_WITH_ALPHA and samples.ndim == 3 and samples.shape[2] == 4:
        return samples[..., ::3]
    return samples if samples is None or not key else _keyed_out(samples, key, depth)


def _is_sound(data: bytes, start: int, length: int) -> bool:
    """Whether the checksum of a chunk is correct (5.3)."""
    end = start + 8 + length
    return zlib.crc32(data[start + 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _facts(data: bytes) -> tuple[int, int, int, int]:
    if data[12:16] == b"CgBI":
        raise unsupported("PNG that Xcode has changed for iPhones (CgBI), which the standard does not have")
    if len(data) < 33 or data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\r":
        raise DecodeFailed("expected a whole PNG image, found a damaged one")
    width, height, depth, colour, *methods = struct.unpack(">IIBBBBB", data[16:29])
    if depth not in _DEPTHS.get(colour, ()):
        raise unsupported(f"PNG of {depth} bits and colour type {colour}, which the standard does not have")
    if methods not in ([0, 0, 0], [0, 0, 1]) and _is_sound(data, 8, 13):
        words = "compression {}, filters {} and interlace {}".format(*methods)
        raise unsupported(f"PNG of {words}, which the standard does not have")
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


def _colour_of(told: Mapping[bytes, bytes]) -> tuple[bytes | None, Coding | None]:
    """Return the profile or the coding, from the first usable chunk of cICP, iCCP, sRGB, and gAMA with cHRM."""
    coding = _code_points(told[b"cICP"]) if b"cICP" in told else None
    profile = _unpacked_profile(told[b"iCCP"]) if coding is None and b"iCCP" in told else None
    is_open = coding is None and profile is None and b"sRGB" not in told
    if is_open and (b"gAMA" in told or b"cHRM" in told):
        coding = Coding(_gamma(told.get(b"gAMA", b"")), _primaries(told.get(b"cHRM", b"")))
    return profile, None if coding is None or coding.is_srgb else coding


def _code_points(body: bytes) -> Coding | None:
    """Read cICP (PNG third edition, 11.3.2.6): primaries, transfer, matrix, which is 0 for RGB, and full range."""
    if len(body) != 4 or body[2] != 0 or body[3] > 1:
        return None
    return coding_of(body[0], body[1], is_limited=body[3] == 0)


def _gamma(body: bytes) -> Curve:
    """Read gAMA (11.3.2.2); 1/2.2 is the value that the standard recommends for sRGB, and 1 is linear light."""
    value = int.from_bytes(body, "big") if len(body) == 4 else _SRGB_GAMMA
    if abs(value - _SRGB_GAMMA) <= _SRGB_GAMMA // 100 or not 0 < value <= _MOST_GAMMA:
        return "sRGB"
    return "linear" if value == _UNIT else _UNIT / value


def _primaries(body: bytes) -> Primaries:
    """Read cHRM (11.3.2.1): x and y of white, red, green and blue, in 100,000ths; BT.709's if they are invalid."""
    if len(body) != 32:
        return BT709
    values = [value / _UNIT for value in struct.unpack(">8I", body)]
    white, red, green, blue = zip(values[::2], values[1::2], strict=True)
    is_like_srgb = all(abs(x - y) < 0.002 for x, y in zip(values, (*BT709[3], *sum(BT709[:3], ())), strict=True))
    if is_like_srgb or not is_triangle((red, green, blue, white)):
        return BT709
    return red, green, blue, white


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
    # libpng scales samples of fewer bits to 8 bits: those of 1 bit become 0 and 255.
    scale = 255 // ((1 << depth) - 1) if depth < 8 else 1
    mask = (1 << depth) - 1
    wanted = [(value & mask) * scale for value in struct.unpack(f">{channels}H", key)][::-1]
    alpha = np.where((samples.reshape(*samples.shape[:2], channels) == wanted).all(-1), 0, np.iinfo(samples.dtype).max)
    return np.dstack([samples, alpha.astype(samples.dtype)])
