"""Decodes the bytes of an image file to a picture: oriented, opaque, sRGB, 8-bit BGR.

The table of formats decides which decoder reads which kind of file (`formats`). The first picture of a file is read, or
the first frame of an animation, or the still picture of an animated PNG. A file that ends early is an error in all
formats; damage in the middle is an error only if the format has checksums or the decoder notices it.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from PIL import Image

from renderer.errors import DecodeFailed, blaming
from renderer.geometry import Size
from renderer.pictures.colour import Pixels, Rgb, Samples, cmyk_to_rgb, from_pillow, to_8_bits, to_bgr
from renderer.pictures.fetch import Content, RawPixels
from renderer.pictures.formats import PILLOW, Header, More, load, turned
from renderer.pictures.header import check_pixels, open_with_pillow, read_header, reader_of

# OpenCV and its libraries report damaged files to stderr, where hostile input could fill a disk. libpng and libjpeg
# cannot be silenced; jobs/slots/said.py limits what the libraries of a worker write.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_TO_BGR = {"RGB": cv2.COLOR_RGB2BGR, "RGBA": cv2.COLOR_RGBA2BGRA}
_AS_STORED = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED = {
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A still, ready to be composed.

    Attributes:
        pixels: (H, W, 3) uint8, BGR, C-contiguous.
        size: the size of the picture in the file, after orientation.
        reduction: 1, 2, 4 or 8: each of `pixels` represents a square of the file's pixels with sides of this length;
            the last ones may lie partly outside the file's picture.
        more: what else the file holds that is not shown.
    """

    pixels: Pixels
    size: Size
    reduction: int = 1
    more: More | None = None


def opened(content: Content) -> bytes | Pixels:
    """Return the argument for `read_size` and `decode`: a file's unchanged bytes, or raw pixels as an array.

    Returns:
        For raw pixels (H, W), (H, W, 3) BGR or (H, W, 4) BGRA uint8.
    """
    if not isinstance(content, RawPixels):
        return content
    layout = content.layout
    samples = np.frombuffer(content.data, np.dtype(layout.dtype).newbyteorder("<")).reshape(layout.shape)
    pixels = to_8_bits(samples.astype(layout.dtype, copy=False))
    if layout.order == "GRAY":
        return pixels.reshape(layout.shape[:2])
    code = _TO_BGR.get(layout.order)
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def read_size(data: bytes | Pixels, max_pixels: int) -> Size:
    """Return the size after orientation, without decoding.

    Raises:
        UnsupportedFormat, DecodeFailed, ImageTooLarge: as in `decode`, for faults that the header shows.
    """
    if isinstance(data, np.ndarray):
        size = Size(data.shape[1], data.shape[0])
        check_pixels(size, max_pixels)
        return size
    return read_header(data, max_pixels).size


def decode(
    data: bytes | Pixels, *, background: Rgb, max_pixels: int, needed: Callable[[Size], Size] | None = None
) -> Picture:
    """Decode an image file, or convert raw pixels.

    Args:
        data: a file's bytes, or uint8 pixels: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA.
        background: the R, G, B under transparent pixels.
        max_pixels: larger images are refused before any pixel is decoded.
        needed: returns for a still's size the least size that is needed; a JPEG is read at the smallest scale (1/2,
            1/4, 1/8) that is still large enough.

    Raises:
        UnsupportedFormat: the format is unknown, or the kind of samples is unusual.
        DecodeFailed: the bytes are damaged.
        ImageTooLarge: there are more than `max_pixels` pixels.
    """
    if isinstance(data, np.ndarray):
        return Picture(to_bgr(data, background=background), read_size(data, max_pixels))
    header = read_header(data, max_pixels)
    factor = _reduction(header, needed) if needed else 1
    with blaming(DecodeFailed, f"{header.format} image"):
        read = _READERS.get(header.format, _read_elsewhere)
        samples: Samples | None = read(data, header, factor)
        if samples is None:
            raise DecodeFailed(f"expected a whole {header.format} image, found a damaged or truncated one")
        profile = None if "CMYK" in header.kind else header.profile  # converted by whoever read it
        bgr = to_bgr(samples, background=background, profile=profile, coding=header.coding)
        pixels = _oriented(bgr, header.orientation)
    _check_size(pixels, header.size, factor)
    return Picture(pixels, header.size, factor, header.more)


def _reduction(header: Header, needed: Callable[[Size], Size]) -> int:
    if header.format != "JPEG":
        return 1
    least = needed(header.size)
    for factor in (8, 4, 2):
        if header.size.width // factor >= least.width and header.size.height // factor >= least.height:
            return factor
    return 1


def _read_plainly(data: bytes, header: Header, factor: int) -> Samples | None:
    """Read a format whose files are given to a decoder unchanged."""
    if header.decoder == PILLOW:
        return _read_with_pillow(data, header)
    flags = _AS_STORED
    if factor > 1:
        flags = _REDUCED[factor][header.kind == "grey"] | cv2.IMREAD_IGNORE_ORIENTATION
    samples: Samples | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return samples


def _read_with_pillow(data: bytes, header: Header) -> Samples:
    with open_with_pillow(data, header.format) as image:
        load(image, _stored(header))
        if image.mode == "CMYK":
            return from_pillow(cmyk_to_rgb(image, header.profile))
        if image.has_transparency_data:
            return from_pillow(image.convert("RGBA"))
        return np.asarray(image) if image.mode == "L" else from_pillow(image.convert("RGB"))


def _read_elsewhere(data: bytes, header: Header, _factor: int) -> Samples | None:
    """Read a format with the module that is its own."""
    samples: Samples | None = reader_of(header.format).read(data, header)
    return samples


def _stored(header: Header) -> Size:
    return turned(header.size.width, header.size.height, header.orientation)


def _read_tiff(data: bytes, header: Header, factor: int) -> Samples | None:
    if not header.kind.endswith("CMYK"):
        return _read_elsewhere(data, header, factor)
    with Image.open(io.BytesIO(reader_of("TIFF").plain(data)), formats=("TIFF",)) as image:
        load(image, _stored(header))
        return from_pillow(cmyk_to_rgb(image, header.profile))


def _read_psd(data: bytes, header: Header, _factor: int) -> Samples:
    found: Samples | tuple[Image.Image, Samples | None] = reader_of("Photoshop").read(data, header)
    if not isinstance(found, tuple):
        return found
    inks, alpha = found
    bgr = from_pillow(cmyk_to_rgb(inks, header.profile))
    return bgr if alpha is None else np.dstack([bgr, alpha])


def _oriented(pixels: Pixels, orientation: int) -> Pixels:
    """Undo EXIF's orientation: 5 to 8 are transposed first, then each is mirrored on its axes."""
    if orientation >= 5:
        pixels = np.asarray(cv2.transpose(pixels), np.uint8)
    axis = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if axis is None else np.asarray(cv2.flip(pixels, axis), np.uint8)


def _check_size(pixels: Pixels, size: Size, factor: int) -> None:
    """Compare with the header: if two parsers disagree about a file's size, it was made to deceive one of them."""
    expected = (-(-size.height // factor), -(-size.width // factor))
    if pixels.shape[:2] != expected:
        rows, columns = pixels.shape[:2]
        raise DecodeFailed(f"expected {expected[1]}x{expected[0]} pixels, found {columns}x{rows}")


_READERS: Final[Mapping[str, Callable[[bytes, Header, int], Samples | None]]] = {
    "JPEG": _read_plainly,
    "WebP": _read_plainly,
    "TIFF": _read_tiff,
    "Photoshop": _read_psd,
}
