"""A decoder for icons and cursors: it reads the largest picture of the file, a PNG or a bitmap with a mask.

The bitmap of an icon is a BMP without its first header. Its height counts twice, because a mask of one bit a pixel
follows, in which 1 is transparent. With 32 bits the fourth byte is alpha, unless all of them are 0, as old programs
write it; headers with a field for the mask of alpha state themselves whether there is alpha. The length of a picture in
the directory is ignored, because some writers count only the pixels, or store 0.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures import bmp, png
from renderer.pictures.formats import Header, unsupported

_ENTRY_BYTES: Final = 16
_LENGTHS: Final = (40, 52, 56, 108, 124)
_HAS_ALPHA_MASK, _V5, _EMBEDDED = 56, 124, b"DEBM"  # BITMAPV5HEADER, bV5CSType: PROFILE_EMBEDDED
_DEPTHS: Final = {0: (1, 4, 8, 16, 24, 32), 3: (16, 32)}  # by compression, of which 3 is bit fields
_CURSOR: Final = 2
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class _Dib:
    """A bitmap's header.

    Attributes:
        size: without the mask.
        start: where the rows begin.
    """

    length: int
    bits: int
    compression: int
    size: Size
    start: int

    @property
    def stride(self) -> int:
        return (self.size.width * self.bits + 31) // 32 * 4

    @property
    def mask_at(self) -> int:
        return self.start + self.stride * self.size.height


def read_header(data: bytes) -> Header:
    """Parse the directory, and the header of its largest picture.

    Raises:
        DecodeFailed: they are damaged.
        UnsupportedFormat: the bitmap is of an unusual kind.
    """
    body = _largest(data)
    if body.startswith(_PNG):
        found = png.read_header(body)
        return Header("ICO", "PNG", found.size, found.orientation, found.profile, found.coding)
    dib = _dib(body)
    return Header("ICO", f"{dib.bits}-bit {'palette' if dib.bits <= 8 else 'RGB'}", dib.size)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any] | None:
    """Decode the largest picture.

    Returns:
        (H, W), (H, W, 3) BGR or (H, W, 4) BGRA; None if it is damaged.

    Raises:
        DecodeFailed: the file ends early.
    """
    body = _largest(data)
    if body.startswith(_PNG):
        return png.read(body)
    dib = _dib(body)
    single = b"".join((body[:8], struct.pack("<i", dib.size.height), body[12:]))
    found = bmp.read(struct.pack("<2sIII", b"BM", 14 + len(single), 0, 14 + dib.start) + single)
    alpha = _alpha(body, dib, found)
    if alpha is not None and alpha.any():
        return np.dstack([found[..., :3], alpha])
    stride, height = (dib.size.width + 31) // 32 * 4, dib.size.height
    if len(body) < dib.mask_at + stride * height:
        raise DecodeFailed("expected a whole icon, found one that ends early")
    mask = np.frombuffer(body, np.uint8, stride * height, dib.mask_at).reshape(height, stride)[::-1]
    is_clear = np.unpackbits(mask, axis=1)[:, : dib.size.width]
    return np.dstack([found[..., :3], (1 - is_clear) * np.uint8(255)])


def _alpha(body: bytes, dib: _Dib, found: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
    if found.shape[2] == 4:
        return found[..., 3]
    if dib.bits != 32 or dib.compression or dib.length >= _HAS_ALPHA_MASK:
        return None
    rows = np.frombuffer(body, np.uint8, dib.stride * dib.size.height, dib.start)
    return rows.reshape(dib.size.height, dib.size.width, 4)[::-1, :, 3]


def _largest(data: bytes) -> bytes:
    """Return the bytes of the picture with the most pixels, and of several of that size the one with the most bits."""
    if len(data) < 6:
        raise DecodeFailed("expected a whole icon, found one that ends early")
    _, kind, count = struct.unpack_from("<HHH", data)
    if not 0 < count <= (len(data) - 6) // _ENTRY_BYTES:
        raise DecodeFailed("expected an icon with pictures, found none or a directory that ends early")

    def rank(index: int) -> tuple[int, int, int]:
        width, height, _, _, _, bits, size_bytes, _ = struct.unpack_from("<BBBBHHII", data, 6 + index * _ENTRY_BYTES)
        return (
            (width or 256) * (height or 256),
            0 if kind == _CURSOR else bits,
            size_bytes,
        )  # a cursor has no bits there

    at = 6 + max(range(count), key=rank) * _ENTRY_BYTES
    return data[struct.unpack_from("<I", data, at + 12)[0] :]


def _dib(body: bytes) -> _Dib:
    """Parse the bitmap's header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: it is of an unusual kind.
    """
    if len(body) < _LENGTHS[0]:
        raise DecodeFailed("expected a whole icon, found one that ends early")
    length, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", body)
    colours = struct.unpack_from("<I", body, 32)[0]
    if length not in _LENGTHS:
        raise unsupported(f"icon whose bitmap has a header of {length} bytes")
    if bits not in _DEPTHS.get(compression, ()) or height % 2:
        raise unsupported(f"icon whose bitmap has {bits} bits, compression {compression} and a height of {height}")
    if height < 0:
        raise unsupported("icon whose rows begin above")
    if length == _V5 and body[56:60] == _EMBEDDED:
        raise unsupported("icon whose bitmap has a colour profile")
    if width < 1 or height < 2:
        raise DecodeFailed(f"expected an icon with pixels, found {width}x{height // 2}")
    palette_bytes = 4 * min(colours or 1 << bits, 1 << bits) if bits <= 8 else 0
    masks_bytes = 12 if compression and length == _LENGTHS[0] else 0
    return _Dib(length, bits, compression, Size(width, height // 2), length + masks_bytes + palette_bytes)
