"""Icons and cursors, read here: the largest picture of the file, a PNG or a bitmap with a mask.

A bitmap of an icon is a BMP without its first header: of twice the height, because a mask of one bit a pixel follows,
in which 1 is transparent. With 32 bits the fourth byte is alpha, unless all of them are 0, as old programs write it.
"""

import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures import bmp, png
from renderer.pictures.formats import Header, unsupported

_ENTRY_BYTES, _DIB_BYTES = 16, 40
_CURSOR: Final = 2
_PNG: Final = b"\x89PNG\r\n\x1a\n"


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
    _, bits, size = _dib(body)
    return Header("ICO", f"{bits}-bit {'palette' if bits <= 8 else 'RGB'}", size)


def read(data: bytes) -> npt.NDArray[Any] | None:
    """Decode the largest picture.

    Returns:
        (H, W), (H, W, 3) BGR or (H, W, 4) BGRA; None if it is damaged.

    Raises:
        DecodeFailed: the file ends early.
    """
    body = _largest(data)
    if body.startswith(_PNG):
        return png.read(body)
    palette_bytes, bits, size = _dib(body)
    start = _DIB_BYTES + palette_bytes
    stride, mask_stride = (size.width * bits + 31) // 32 * 4, (size.width + 31) // 32 * 4
    single = b"".join((body[:8], struct.pack("<i", size.height), body[12:]))
    bgr = bmp.read(struct.pack("<2sIII", b"BM", 14 + len(single), 0, 14 + start) + single)
    mask_at = start + stride * size.height
    rows = np.frombuffer(body, np.uint8)
    if bits == 32:
        alpha = rows[start:mask_at].reshape(size.height, size.width, 4)[::-1, :, 3]
        if alpha.any():
            return np.dstack([bgr, alpha])
    if len(body) < mask_at + mask_stride * size.height:
        raise DecodeFailed("expected a whole icon, found one that ends early")
    mask = rows[mask_at : mask_at + mask_stride * size.height].reshape(size.height, mask_stride)[::-1]
    is_clear = np.unpackbits(mask, axis=1)[:, : size.width]
    return np.dstack([bgr[..., :3], (1 - is_clear) * np.uint8(255)])


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
    size_bytes, place = struct.unpack_from("<II", data, at + 8)
    if place + size_bytes > len(data):
        raise DecodeFailed("expected a whole icon, found one that ends early")
    return data[place : place + size_bytes]


def _dib(body: bytes) -> tuple[int, int, Size]:
    """Return how many bytes the palette has, the bits of a pixel, and the size without the mask."""
    if len(body) < _DIB_BYTES:
        raise DecodeFailed("expected a whole icon, found one that ends early")
    length, width, height, _, bits, compression = struct.unpack_from("<IiiHHI", body)
    colours = struct.unpack_from("<I", body, 32)[0]
    if length != _DIB_BYTES or bits not in (1, 4, 8, 16, 24, 32) or compression != 0 or height % 2:
        raise unsupported(f"icon whose bitmap has {bits} bits, compression {compression} and {length} bytes of header")
    if width < 1 or height < 2:
        raise DecodeFailed(f"expected an icon with pixels, found {width}x{height // 2}")
    count = min(colours or 1 << bits, 1 << bits) if bits <= 8 else 0
    return 4 * count, bits, Size(width, height // 2)
