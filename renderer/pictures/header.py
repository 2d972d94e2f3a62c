"""The headers of image files: format, kind of samples, size, orientation, profile. No pixel is decoded here.

The limits are checked with the header, before a decoder allocates memory. The first bytes decide the format, and only
the parser of that format sees the rest: Pillow knows dozens of other formats, some of which start other programs. Kinds
that have no decoder in the table of formats are refused here, by name.

Formats with many kinds of samples are parsed by modules of their own; Pillow parses the others.
"""

import importlib
import io
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from renderer.errors import DecodeFailed, ImageTooLarge, blaming
from renderer.geometry import Size
from renderer.pictures.exif import orientation_of
from renderer.pictures.formats import Header, More, turned, unsupported
from renderer.pictures.recognise import recognise

# We check our own limit below. Pillow's is a third of it, emits warnings, and can only be set for the whole process.
Image.MAX_IMAGE_PIXELS = None

READERS: Final = {
    "PNG": "png", "TIFF": "tiff", "GIF": "gif", "BMP": "bmp", "AVIF": "avif", "HEIC": "heic", "OpenEXR": "exr",
    "JPEG 2000": "jpeg2000", "JPEG XL": "jxl", "Netpbm": "netpbm", "Radiance HDR": "radiance", "Sun raster": "sun",
    "DPX": "dpx", "ICO": "ico", "Photoshop": "psd", "TGA": "tga",
}  # fmt: skip
"""The modules that read formats; those of JPEG and WebP are this one and `decode`."""

_PILLOW_NAMES: Final = {"WebP": "WEBP"}
_FRAMES: Final = {  # ITU-T T.81, table B.1: SOFn
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical", 0xCB: "lossless",
    0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical", 0xF7: "JPEG-LS",
}  # fmt: skip
_START_OF_SCAN: Final = 0xDA
_NUMBER_OF_LINES: Final = b"\xff\xdc\0\4"  # ITU-T T.81, B.2.5
_MP_ENTRIES: Final = 0xB002
_VIEWS: Final = tuple(f"Multi-Frame Image: ({kind})" for kind in ("Panorama", "Disparity", "Multi-Angle"))  # Pillow's


def read_header(data: bytes, max_pixels: int) -> Header:
    """Parse the header.

    Raises:
        UnsupportedFormat: no decoder reads such files; the message names the kind.
        DecodeFailed: the header is damaged.
        ImageTooLarge: there are more than `max_pixels` pixels.
    """
    name = recognise(data)
    parse: Callable[[bytes], Header] = _PARSERS.get(name) or reader_of(name).read_header
    with blaming(DecodeFailed, f"{name} image"):
        if name == "WebP":
            check_pixels(_webp_canvas(data), max_pixels)
        header = parse(data)
    check_pixels(header.size, max_pixels)
    _ = header.decoder  # refuses a kind that has no decoder
    return header


def reader_of(name: str) -> Any:
    """Return the module that reads a format: `read_header(data)` and `read(data, header)`.

    It is imported when a file of that format first comes: most jobs have images of one format, and all modules together
    take a twentieth of the time until the first still is read.
    """
    return importlib.import_module(f"{__package__}.{READERS[name]}")


def check_pixels(size: Size, max_pixels: int) -> None:
    if size.pixels > max_pixels:
        raise ImageTooLarge(f"expected at most {max_pixels} pixels, found {size} (pictures.max_image_pixels)")


def open_with_pillow(data: bytes, name: str) -> Image.Image:
    formats = ("JPEG", "MPO") if name == "JPEG" else (_PILLOW_NAMES.get(name, name),)
    return Image.open(io.BytesIO(data), formats=formats)


def _jpeg(data: bytes) -> Header:
    _check_jpeg(data)
    with open_with_pillow(data, "JPEG") as image:
        kind = {"L": "grey", "RGB": "colour", "CMYK": "CMYK"}.get(image.mode, f"{image.mode}")
        return replace(_by_pillow(image, "JPEG", kind), more=_more_views(image))


def _more_views(image: Image.Image) -> More | None:
    """Look for other views of the scene (CIPA DC-007, 5.2.3.3); previews and gain maps do not count."""
    with suppress(Exception):
        entries = getattr(image, "mpinfo", {})[_MP_ENTRIES]
        return "pictures" if any(entry["Attribute"]["MPType"] in _VIEWS for entry in entries[1:]) else None
    return None


def _check_jpeg(data: bytes) -> None:
    """Refuse the kinds of coding that no decoder reads; the decoder itself finds damage."""
    place = 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            return
        marker = data[place + 1]
        if marker == _START_OF_SCAN:
            return
        if marker in _FRAMES:
            raise unsupported("JPEG-LS image" if marker == 0xF7 else f"{_FRAMES[marker]} JPEG")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if data[place + 4] != 8:
                raise unsupported(f"{data[place + 4]}-bit JPEG")
            if data[place + 5 : place + 7] == b"\0\0" and _NUMBER_OF_LINES in data:
                raise unsupported("JPEG that names its height after its pixels (DNL)")
            return
        is_bare = marker in (0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        place += 1 if marker == 0xFF else 2 if is_bare else 2 + struct.unpack_from(">H", data, place + 2)[0]


def _webp_canvas(data: bytes) -> Size:
    """Return the size in a WebP's header, since libwebp allocates the canvas twice as soon as Pillow opens the file.

    RFC 9649, 2.7 (VP8X), 3.4 (VP8L); RFC 6386, 9.1 (VP8).
    """
    match data[12:16]:
        case b"VP8X":
            low, high = data[24:27], data[27:30]
            return Size(1 + int.from_bytes(low, "little"), 1 + int.from_bytes(high, "little"))
        case b"VP8L":
            sides = int.from_bytes(data[21:25], "little")
            return Size(1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF))
        case _:
            width, height = struct.unpack_from("<HH", data, 26)
            return Size(width & 0x3FFF, height & 0x3FFF)


def _webp(data: bytes) -> Header:
    is_animated = data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & 0x02)  # RFC 9649, 2.7
    with open_with_pillow(data, "WebP") as image:
        return replace(_by_pillow(image, "WebP", "animated" if is_animated else "still"), more=_more_frames(image))


def _gif(data: bytes) -> Header:
    with open_with_pillow(data, "GIF") as image:
        return replace(_by_pillow(image, "GIF", reader_of("GIF").kind_of(data, image)), more=_more_frames(image))


def _avif(data: bytes) -> Header:
    try:
        image = open_with_pillow(data, "AVIF")
    except UnidentifiedImageError:
        reader_of("HEIC").refuse_sequence(data, "AVIF")
        raise
    with image:
        found: Header = reader_of("AVIF").read_header(data, image)
        return replace(found, more=_more_frames(image))


def _more_frames(image: Image.Image) -> More | None:
    """Look for a second frame without decoding it; damage after the first frame does not matter."""
    with suppress(Exception):
        return "frames" if getattr(image, "is_animated", False) else None
    return None


def _by_pillow(image: Image.Image, name: str, kind: str) -> Header:
    orientation = orientation_of(image.info.get("exif"))
    size = turned(*image.size, orientation)
    return Header(name, kind, size, orientation, image.info.get("icc_profile") or None)


_PARSERS: Final[Mapping[str, Callable[[bytes], Header]]] = {"JPEG": _jpeg, "WebP": _webp, "GIF": _gif, "AVIF": _avif}
