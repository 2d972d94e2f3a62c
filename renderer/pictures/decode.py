"""Bytes become a picture: oriented, opaque, sRGB, 8-bit BGR.

OpenCV decodes the pixels, Pillow those that OpenCV 5.0 gets wrong (each measured against Pillow 13 and tifffile):
- GIF and 32-bit BMP lose their transparency, as does a grey colour key in PNG; TIFF comes premultiplied or loses it;
- CMYK is converted without its profile (JPEG) or handed over as if it were BGRA (TIFF); Lab is read as BGR;
- AVIF of 10 and 12 bits keeps the range 0 to 1023 or 4095 in uint16, with nothing that says so.
OpenCV turns a TIFF by its orientation whatever the flags say, and nothing else; Pillow turns a TIFF too. The rest is
turned here.

The first frame of an animated file is taken. A file that ends early is an error in all formats; bytes damaged in the
middle are one only where the format has checksums or the decoder notices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.colour import Pixels, Rgb, Samples, to_bgr, transform_to_srgb
from renderer.pictures.header import Header, check_pixels, open_with_pillow, parsing, read_header

# OpenCV and its libraries report damaged files to stderr, where hostile input could fill a disk. libpng and libjpeg
# still write a line of their own; there is no switch for it.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_AS_STORED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}
_GREY_MODES = ("1", "L", "I;16")
_OPAQUE_MODES = (None, "1", "L", "P", "RGB", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_ALPHA_MODES = ("LA", "RGBA")


@dataclass(frozen=True, slots=True)
class Picture:
    """A still, ready to be composed.

    Attributes:
        pixels: (H, W, 3) uint8, BGR, C-contiguous.
        size: what the file holds, after orientation.
        reduction: 1, 2, 4 or 8: each of `pixels` stands for a square of so many of the file's, the last ones partly
            outside it.
    """

    pixels: Pixels
    size: Size
    reduction: int = 1


def read_size(data: bytes | Pixels, max_pixels: int) -> Size:
    """Return the size after orientation, without decoding.

    Raises:
        UnsupportedFormat, DecodeFailed, ImageTooLarge: as `decode` does, as far as the header can tell.
    """
    if isinstance(data, np.ndarray):
        size = Size(data.shape[1], data.shape[0])
        check_pixels(size, max_pixels)
        return size
    return read_header(data, max_pixels).size


def decode(
    data: bytes | Pixels, *, background: Rgb, max_pixels: int, needed: Callable[[Size], Size] | None = None
) -> Picture:
    """Decode an image file, or take raw pixels as they are.

    Args:
        data: a file's bytes, or uint8 pixels: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA.
        background: R, G, B that lies under alpha.
        max_pixels: larger images are refused before any pixel is decoded.
        needed: given the still's size, how large it must be at least; a JPEG is read at the smallest scale (1/2, 1/4,
            1/8) that still covers this.

    Raises:
        UnsupportedFormat: the bytes are of no format that is known, or of an unusual kind of samples.
        DecodeFailed: they are damaged.
        ImageTooLarge: there are more than `max_pixels` pixels.
    """
    if isinstance(data, np.ndarray):
        return Picture(to_bgr(data, background=background), read_size(data, max_pixels))
    header = read_header(data, max_pixels)
    profile = header.profile
    with parsing(header.format):
        if _is_for_opencv(header):
            factor = _reduction(header, needed) if needed else 1
            samples = _read_with_opencv(data, header, factor)
        else:
            factor, profile = 1, None if header.mode == "CMYK" else profile
            samples = _read_with_pillow(data, header)
        pixels = _oriented(to_bgr(samples, background=background, profile=profile), header.orientation)
    _check_size(pixels, header.size, factor)
    return Picture(pixels, header.size, factor)


def _is_for_opencv(header: Header) -> bool:
    if header.format in ("GIF", "AVIF"):
        return False
    if header.mode in _OPAQUE_MODES:
        return not (header.has_colour_key and header.mode in _GREY_MODES)
    return header.mode in _ALPHA_MODES and header.format in ("PNG", "WEBP")


def _reduction(header: Header, needed: Callable[[Size], Size]) -> int:
    if header.format != "JPEG":
        return 1
    least = needed(header.size)
    for factor in (8, 4, 2):
        if header.size.width // factor >= least.width and header.size.height // factor >= least.height:
            return factor
    return 1


def _read_with_opencv(data: bytes, header: Header, factor: int) -> Samples:
    flags = _AS_STORED
    if factor > 1:
        flags = _REDUCED[factor][header.mode == "L"] | cv2.IMREAD_IGNORE_ORIENTATION
    samples: Samples | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if samples is None:
        raise DecodeFailed(f"expected a whole {header.format} image, found a damaged or truncated one")
    return samples


def _read_with_pillow(data: bytes, header: Header) -> Samples:
    with open_with_pillow(data, header.format) as image:
        image.load()
        if image.mode == "CMYK":
            return _swapped(_from_cmyk(image, header.profile))
        if image.has_transparency_data:
            return _swapped(image.convert("RGBA"))
        return np.asarray(image) if image.mode == "L" else _swapped(image.convert("RGB"))


def _from_cmyk(image: Image.Image, profile: bytes | None) -> Image.Image:
    transform = transform_to_srgb(profile, "CMYK") if profile else None
    return transform.apply(image) if transform else image.convert("RGB")


def _swapped(image: Image.Image) -> Pixels:
    """Return Pillow's RGB as BGR, its RGBA as BGRA."""
    code = cv2.COLOR_RGBA2BGRA if image.mode == "RGBA" else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(np.asarray(image), code), np.uint8)


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Undo EXIF's orientation: 5 to 8 are transposed first, then each is mirrored on its axes."""
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    axis = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if axis is None else np.asarray(cv2.flip(pixels, axis), np.uint8)


def _check_size(pixels: Pixels, size: Size, factor: int) -> None:
    """Compare with the header: two parsers that disagree about a file's size mean a file made to fool one of them."""
    expected = (-(-size.height // factor), -(-size.width // factor))
    if pixels.shape[:2] != expected:
        rows, columns = pixels.shape[:2]
        raise DecodeFailed(f"expected {expected[1]}x{expected[0]} pixels, found {columns}x{rows}")
