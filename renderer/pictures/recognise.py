"""Recognises the format of a file by its first bytes.

No decoder is imported here, because the daemon uses this too: it tells the page what a file is before it is uploaded.

TGA has no magic number (Truevision TGA file format specification 2.0): a file counts as TGA if its header is valid and
it is long enough, or if it ends in the signature of version 2. So its header is read here.
"""

import re
import struct
from dataclasses import dataclass
from typing import Final

from renderer.geometry import Size
from renderer.pictures.formats import DECODERS, name_elsewhere, unrecognised

_MAGIC: Final = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WebP": rb"RIFF....WEBP",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "AVIF": rb"....ftyp(?:....){0,12}?avi[fs]",
    "HEIC": rb"....ftyp(?:....){0,12}?(?:hei[cxms]|hev[cxms])",
    "OpenEXR": rb"\x76\x2f\x31\x01",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "Netpbm": rb"P[1-7Ff]\s(?!332)",
    "Radiance HDR": rb"#\?(?:RADIANCE|RGBE)[\s]",
    "Sun raster": rb"\x59\xa6\x6a\x95",
    "DPX": rb"SDPX|XPDS",
    "ICO": rb"\0\0[\x01\x02]\0[^\0]",
    "Photoshop": rb"8BPS\0[\x01\x02]",
}
_FORMATS: Final = {name: re.compile(magic, re.DOTALL) for name, magic in _MAGIC.items() if name in DECODERS}

_HEADER_BYTES: Final = 18
_SIGNATURE: Final = b"TRUEVISION-XFILE.\0"
PALETTE, RGB, GREY = 1, 2, 3
_RUNS: Final = 8
_DEPTHS: Final = {PALETTE: (8, 16), RGB: (15, 16, 24, 32), GREY: (8, 16)}
_ENTRY_DEPTHS: Final = (15, 16, 24, 32)


def recognise(data: bytes) -> str:
    """Return the format of the table that a file seems to have; only TGA's header is parsed for it.

    Args:
        data: the file, or its first few thousand bytes.

    Raises:
        UnsupportedFormat: the format is not in the table; the message names it if it is known.
    """
    for name, magic in _FORMATS.items():
        if magic.match(data):
            return name
    if name_elsewhere(data) is None and _is_likely_tga(data):
        return "TGA"
    raise unrecognised(data)


@dataclass(frozen=True, slots=True)
class TgaHeader:
    """The header of a TGA file."""

    colour: int
    is_coded: bool
    first_entry: int
    entries: int
    entry_bits: int
    size: Size
    bits: int
    flags: int
    palette_at: int

    @property
    def pixel_bytes(self) -> int:
        return (self.bits + 7) // 8

    @property
    def start(self) -> int:
        return self.palette_at + self.entries * ((self.entry_bits + 7) // 8)

    @property
    def has_alpha(self) -> bool:
        return self.flags & 0x0F > 0


def tga_header(data: bytes) -> TgaHeader | None:
    """Return the header, or None if it is not valid."""
    if len(data) < _HEADER_BYTES:
        return None
    id_bytes, has_palette, kind, first, entries, entry_bits, _, _, width, height, bits, flags = struct.unpack_from(
        "<BBBHHBHHHHBB", data
    )
    colour = kind & ~_RUNS
    if has_palette > 1 or bits not in _DEPTHS.get(colour, ()) or not width or not height or flags & 0xC0:
        return None
    if has_palette and entry_bits not in _ENTRY_DEPTHS:
        return None
    if (colour == PALETTE and not (has_palette and entries)) or flags & 0x0F > 8:
        return None
    if not has_palette:
        first = entries = entry_bits = 0
    size, palette_at = Size(width, height), _HEADER_BYTES + id_bytes
    return TgaHeader(colour, bool(kind & _RUNS), first, entries, entry_bits, size, bits, flags, palette_at)


def _is_likely_tga(data: bytes) -> bool:
    """Whether the bytes are probably a TGA file."""
    info = tga_header(data)
    if info is None:
        return False
    row_bytes = info.size.width * info.pixel_bytes
    least = info.size.height * ((info.size.width + 127) // 128 * 2 if info.is_coded else row_bytes)
    return data.endswith(_SIGNATURE) or len(data) >= info.start + least
