"""Photoshop documents: the flattened picture for programs without layers (Adobe's "Photoshop File Formats", 2019).

The planes of this picture are rows of plain or PackBits samples, as in a TIFF: each is given to TIFF's decoder as a
grey picture with a directory of its own. The picture is white if the document was saved without "maximize
compatibility".

If the first channel after the colours is the picture's transparency, Photoshop blended the colours with white when it
saved the document; this is undone here.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures import tiff
from renderer.pictures.formats import Header, unsupported

_MODES: Final = {0: "bitmap", 1: "grey", 2: "palette", 3: "RGB", 4: "CMYK", 7: "multichannel", 8: "duotone", 9: "Lab"}
_CHANNELS: Final = {0: 1, 1: 1, 2: 1, 3: 3, 4: 4, 8: 1}
_RAW, _PACK_BITS = 0, 1
_COMPRESSIONS: Final = {_RAW: 1, _PACK_BITS: 32773}  # as TIFF counts them
_PROFILE: Final = 1039
_MERGED_TRANSPARENCY: Final = (b"8BIMMtrn", b"8BIMMt16", b"8BIMMt32")


@dataclass(frozen=True, slots=True)
class _Document:
    channels: int
    size: Size
    bits: int
    mode: int
    palette: bytes
    profile: bytes | None
    has_alpha: bool
    is_large: bool
    start: int


def read_header(data: bytes) -> Header:
    """Parse the sections before the picture.

    Raises:
        DecodeFailed: they are damaged.
        UnsupportedFormat: the picture is compressed in an unusual way.
    """
    found = _parse(data)
    if int.from_bytes(data[found.start : found.start + 2], "big") not in _COMPRESSIONS:
        raise unsupported("Photoshop document with an unknown compression")
    depth = "32-bit float" if found.bits == 32 else f"{found.bits}-bit"
    alpha = (" with alpha" if found.mode != 3 else "A") if found.has_alpha else ""
    return Header("Photoshop", f"{depth} {_MODES.get(found.mode, 'odd')}{alpha}", found.size, 1, found.profile)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any] | tuple[Image.Image, npt.NDArray[Any] | None]:
    """Decode the flattened picture.

    Returns:
        uint8, uint16 or float32: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA; for CMYK an image of
        Pillow, and its alpha if it has any.

    Raises:
        DecodeFailed: the file ends early or is damaged.
    """
    found = _parse(data)
    colours = _CHANNELS[found.mode]
    planes = _planes(data, found, colours + found.has_alpha)
    if found.mode == 2:
        palette = np.frombuffer(found.palette, np.uint8).reshape(3, 256).T[:, ::-1]
        return np.take(palette, planes[0], axis=0)
    if found.mode == 4:
        samples = _off_white(np.dstack(planes)) if found.has_alpha else np.dstack(planes)
        return Image.fromarray(255 - samples[..., :4], "CMYK"), samples[..., 4] if found.has_alpha else None
    if len(planes) == 1:
        return planes[0]
    bgr = planes[:colours][::-1]
    return _off_white(np.dstack([*bgr, planes[-1]])) if found.has_alpha else np.dstack(bgr)


def _parse(data: bytes) -> _Document:
    try:
        version, channels, height, width, bits, mode = struct.unpack_from(">H6xHIIHH", data, 4)
        is_large = version == 2
        palette, place = _section(data, 26, 4)
        resources, place = _section(data, place, 4)
        layers, start = _section(data, place, 8 if is_large else 4)
    except struct.error as error:
        raise DecodeFailed("expected a whole Photoshop document, found one that ends early") from error
    if version not in (1, 2) or width < 1 or height < 1:
        raise DecodeFailed(f"expected a Photoshop document with pixels, found {width}x{height}")
    if mode == 2 and len(palette) != 768:
        raise DecodeFailed("expected a Photoshop document with a palette of 256 colours")
    has_alpha = mode in (1, 3, 4) and channels > _CHANNELS[mode] and _says_transparency(layers, is_large=is_large)
    return _Document(
        channels, Size(width, height), bits, mode, palette, _profile(resources), has_alpha, is_large, start
    )


def _section(data: bytes, place: int, length_bytes: int) -> tuple[bytes, int]:
    if place + length_bytes > len(data):
        raise DecodeFailed("expected a whole Photoshop document, found one that ends early")
    end = place + length_bytes + int.from_bytes(data[place : place + length_bytes], "big")
    if end + 2 > len(data):
        raise DecodeFailed("expected a whole Photoshop document, found one that ends early")
    return data[place + length_bytes : end], end


def _says_transparency(layers: bytes, *, is_large: bool) -> bool:
    """Whether there is transparency: the number of layers is negative, or with more than 8 bits there is a block."""
    at = 8 if is_large else 4
    count = int.from_bytes(layers[at : at + 2], "big", signed=True)
    return count < 0 or any(block in layers for block in _MERGED_TRANSPARENCY)


def _profile(resources: bytes) -> bytes | None:
    place = 0
    while resources[place : place + 4] == b"8BIM" and place + 12 <= len(resources):
        number, name_bytes = struct.unpack_from(">HB", resources, place + 4)
        at = place + 6 + (name_bytes + 2) // 2 * 2
        size = int.from_bytes(resources[at : at + 4], "big")
        if number == _PROFILE:
            return resources[at + 4 : at + 4 + size] or None
        place = at + 4 + (size + 1) // 2 * 2
    return None


def _planes(data: bytes, found: _Document, count: int) -> list[npt.NDArray[Any]]:
    """Decode the first planes, each by TIFF's decoder."""
    (coding,) = struct.unpack_from(">H", data, found.start)
    rows = found.size.height
    row_bytes = (found.size.width * found.bits + 7) // 8
    start, lengths = found.start + 2, np.full(count, rows * row_bytes, np.int64)
    if coding == _PACK_BITS:
        entries = np.dtype(">u4" if found.is_large else ">u2")
        table_bytes = found.channels * rows * entries.itemsize
        if start + table_bytes > len(data):
            raise DecodeFailed("expected a whole Photoshop document, found one that ends early")
        lengths = np.frombuffer(data, entries, count * rows, start).astype(np.int64)
        start += table_bytes
    ends = start + np.cumsum(lengths)
    if not len(ends) or int(ends[-1]) > len(data):
        raise DecodeFailed("expected a whole Photoshop document, found one that ends early")
    strips = list(zip((ends - lengths).tolist(), lengths.tolist(), strict=True))
    each = len(strips) // count
    return [_plane(data, found, strips[each * plane : each * (plane + 1)], coding) for plane in range(count)]


def _plane(data: bytes, found: _Document, strips: Sequence[tuple[int, int]], coding: int) -> npt.NDArray[Any]:
    size = found.size
    picture = tiff.under_grey_directory(
        data,
        size,
        found.bits,
        compression=_COMPRESSIONS[coding],
        strips=strips,
        is_white_zero=found.mode == 0,
    )
    samples = tiff.read(picture, tiff.read_header(picture))
    if samples is None or samples.shape != (size.height, size.width):
        raise DecodeFailed("expected a whole Photoshop document, found a damaged one")
    return samples


def _off_white(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Undo the blending of the colours with white."""
    most = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    alpha = samples[..., -1:].astype(np.float32) / most
    with np.errstate(all="ignore"):
        colour = (samples[..., :-1] / most - (1 - alpha)) / alpha
    colour = np.clip(np.nan_to_num(colour, nan=0, posinf=0, neginf=0), 0, None if most == 1.0 else 1) * most
    if most > 1:
        colour = np.rint(colour)
    return np.concatenate([colour.astype(samples.dtype), samples[..., -1:]], -1)
