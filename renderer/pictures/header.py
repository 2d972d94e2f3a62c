"""What an image file says about itself: format, size, orientation, profile. No pixel is decoded here.

The limits are checked against this, before a decoder may allocate. Formats are told by their first bytes, and only the
parser of the format so found gets to see the rest: Pillow knows dozens more, some of which start other programs.

Pillow parses the headers. Three things that OpenCV reads and Pillow does not know have their sizes found here:
Radiance HDR, colour PFM, and TIFF with float or other unusual samples.

EXIF orientation is taken from where it stands before the pixels; PNG's eXIf chunk after IDAT is not looked for, since
that would decode the pixels. An AVIF's is that of its irot and imir boxes, which Pillow hands over as EXIF.
"""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from renderer.errors import DecodeFailed, ImageTooLarge, StillreelError, UnsupportedFormat
from renderer.geometry import Size

# Our own limit is checked below. Pillow's is a third of it, and warns on the way; it can only be set for the process.
Image.MAX_IMAGE_PIXELS = None

_MAGIC = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "TIFF": rb"II\*\0|MM\0\*|II\+\0|MM\0\+",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM",
    "AVIF": rb"....ftyp(?:....){0,12}?avi[fs]",
    "JPEG2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP  \r\n\x87\n",
    "PPM": rb"P[1-6]\s",
    "PFM": rb"P[Ff]\s+(?P<width>\d{1,9})\s+(?P<height>\d{1,9})\s",
    "HDR": rb"#\?(?:RADIANCE|RGBE)\n.{0,8192}?\n\n-Y (?P<height>\d{1,9}) \+X (?P<width>\d{1,9})\n",
    "SUN": rb"\x59\xa6\x6a\x95",
}
_FORMATS = {name: re.compile(magic, re.DOTALL) for name, magic in _MAGIC.items()}
KNOWN = "AVIF, BMP, GIF, HDR, JPEG, JPEG 2000, PFM, PNG, PPM, Sun raster, TIFF and WebP"

_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274  # TIFF 6.0, section 8


@dataclass(frozen=True, slots=True)
class Header:
    """One image file's first picture.

    Attributes:
        format: a key of the table above.
        mode: Pillow's name of the samples' kind; None where Pillow does not know the file.
        size: as it is shown, after orientation.
        orientation: EXIF 2.32, 4.6.4: what is still to be done to the decoded pixels, 1 to 8; TIFF decoders do it.
        profile: the embedded ICC profile.
        has_colour_key: one colour or palette entry stands for transparent.
    """

    format: str
    mode: str | None
    size: Size
    orientation: int = 1
    profile: bytes | None = None
    has_colour_key: bool = False


def read_header(data: bytes, max_pixels: int) -> Header:
    """Parse the header.

    Raises:
        UnsupportedFormat: the first bytes are of no format that is known.
        DecodeFailed: the header is damaged.
        ImageTooLarge: there are more than `max_pixels` pixels.
    """
    name, match = _recognise(data)
    with parsing(name):
        if "width" in match.re.groupindex:
            header = Header(name, None, Size(int(match["width"]), int(match["height"])))
        else:
            header = _by_pillow(data, name)
    check_pixels(header.size, max_pixels)
    return header


def check_pixels(size: Size, max_pixels: int) -> None:
    if size.pixels > max_pixels:
        raise ImageTooLarge(f"expected at most {max_pixels} pixels, found {size} (pictures.max_image_pixels)")


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn whatever a parser raises on hostile bytes into DecodeFailed, with the cause kept."""
    try:
        yield
    except (StillreelError, MemoryError):
        raise
    except Exception as error:  # Pillow and OpenCV promise no set of exceptions
        raise DecodeFailed(f"expected a whole {name} image, found a damaged one") from error


def open_with_pillow(data: bytes, name: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("JPEG", "MPO") if name == "JPEG" else (name,))


def _recognise(data: bytes) -> tuple[str, re.Match[bytes]]:
    for name, magic in _FORMATS.items():
        if match := magic.match(data):
            return name, match
    raise UnsupportedFormat(f"expected an image ({KNOWN}), found {len(data)} bytes of something else")


def _by_pillow(data: bytes, name: str) -> Header:
    try:
        image = open_with_pillow(data, name)
    except UnidentifiedImageError:
        if name != "TIFF":
            raise
        return _unusual_tiff(data)
    with image:
        # Pillow gives a TIFF's size as it is shown, and its decoders and OpenCV's turn it.
        orientation = 1 if name == "TIFF" else _orientation(image.info.get("exif"))
        size = _turned(image.size, orientation)
        profile = image.info.get("icc_profile") or None
        return Header(name, image.mode, size, orientation, profile, "transparency" in image.info)


def _turned(size: tuple[int, int], orientation: int) -> Size:
    return Size(size[1], size[0]) if orientation >= 5 else Size(*size)


def _orientation(exif: object) -> int:
    """Return EXIF's orientation, 1 if there is none or it makes no sense."""
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(_ORIENTATION)
    except (SyntaxError, ValueError, LookupError, TypeError, OverflowError, OSError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _unusual_tiff(data: bytes) -> Header:
    """Read the first directory's size: Pillow parses directories of files whose samples it does not know."""
    file = io.BytesIO(data)
    is_big = b"+" in data[2:4]  # version 43, BigTIFF, in place of 42
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if is_big else 8))
    file.seek(tags.next)
    tags.load(file)
    return Header("TIFF", None, _turned((tags[_WIDTH], tags[_HEIGHT]), tags.get(_ORIENTATION, 1)))
