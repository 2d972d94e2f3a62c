"""AVIF: full-range pictures by Pillow, limited-range and HDR ones by libav and our own exact conversion (AVIF 1.2).

Pillow's libavif converts with libyuv, whose coefficient for blue in limited range does not fit its signed byte: BT.709
loses 12 levels of blue, BT.2020 16 (measured with Pillow 13, libavif 1.4.2). So libav decodes the planes, and `planes`
converts them. Alpha is a separate picture in the file and is still read by Pillow. HDR pictures (PQ, HLG) are read in
the same way, because Pillow returns 8 bits.

Neither library crops a picture to its clean aperture (ISO/IEC 14496-12, 12.1.4), which comes before any turning.
"""

import io
import re
import struct
from fractions import Fraction
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.boxes import Span, boxes, within
from renderer.pictures.colour import straight
from renderer.pictures.exif import orientation_of
from renderer.pictures.formats import LIBAV, Header, turned, unsupported
from renderer.pictures.light import coding_of
from renderer.pictures.planes import LIMITED, to_bgr

_NCLX: Final = re.compile(rb"colrnclx(..)(..)(..)(.)", re.DOTALL)  # ISO/IEC 14496-12, 12.1.5
_GRID: Final = re.compile(rb"infe.{8}grid", re.DOTALL)
_HEAD_BYTES: Final = 1 << 16  # the boxes come before the pixels; a colour box in the pixels would be chance


def read_header(data: bytes, image: Image.Image) -> Header:
    """Return the header; `image` is the same file, opened by Pillow.

    Raises:
        UnsupportedFormat: the picture has limited range or HDR and consists of tiles.
    """
    nclx = _NCLX.search(data, 0, _HEAD_BYTES)
    profile = image.info.get("icc_profile") or None
    coding = coding_of(*(int.from_bytes(each, "big") for each in nclx.groups()[:2])) if nclx and not profile else None
    kind = "full-range" if nclx is not None and nclx[4][0] & 0x80 else "limited-range"
    if coding is not None and coding.is_hdr:
        kind = "HDR"
    if kind != "full-range" and _GRID.search(data, 0, _HEAD_BYTES):
        raise unsupported(f"{kind} AVIF image in tiles")
    # Pillow hands the file's irot and imir boxes over as EXIF.
    orientation = orientation_of(image.info.get("exif"))
    rows, columns = _aperture(data, Size(*image.size))
    size = turned(columns.stop - columns.start, rows.stop - rows.start, orientation)
    return Header("AVIF", kind, size, orientation, profile, None if coding is None or coding.is_srgb else coding)


def read(data: bytes, header: Header) -> npt.NDArray[Any]:
    """Decode the picture, not turned yet.

    Returns:
        uint8, in HDR uint16: (H, W, 3) BGR or, with alpha, (H, W, 4) BGRA.

    Raises:
        DecodeFailed: there is no picture.
        UnsupportedFormat: the format of its planes, or its matrix, is not supported.
    """
    found = read_planes(data, is_hdr=header.kind == "HDR") if header.decoder == LIBAV else _by_pillow(data)
    rows, columns = _aperture(data, Size(found.shape[1], found.shape[0]))
    return np.ascontiguousarray(found[rows, columns])


def _by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
        image.load()
        is_translucent = image.has_transparency_data
        rgb = np.asarray(image.convert("RGBA" if is_translucent else "RGB"))
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA if is_translucent else cv2.COLOR_RGB2BGR), np.uint8)


def _in_meta(data: bytes, *path: bytes) -> list[Span]:
    """Return the contents of the boxes at a path in the meta box, which begins with a version."""
    metas = [(start + 4, end) for start, end in within(data, [(0, len(data))], b"meta")]
    return within(data, metas, *path)


def _is_premultiplied(data: bytes) -> bool:
    return any(kind == b"prem" for start, end in _in_meta(data, b"iref") for kind, _ in boxes(data, (start + 4, end)))


def _aperture(data: bytes, size: Size) -> tuple[slice, slice]:
    """Return the rows and columns that are shown.

    Raises:
        UnsupportedFormat: there are several apertures, or one that does not consist of whole pixels.
    """
    found = {data[start:end] for start, end in _in_meta(data, b"iprp", b"ipco", b"clap")}
    if not found:
        return slice(0, size.height), slice(0, size.width)
    numbers = struct.unpack(">4I4i", found.pop()[:32])
    if found or 0 in numbers[1::2]:
        raise unsupported("AVIF image with several clean apertures, or with an invalid one")
    width, height, right, down = (Fraction(*numbers[place : place + 2]) for place in (0, 2, 4, 6))
    left, top = right + (size.width - width) / 2, down + (size.height - height) / 2
    if any(each.denominator > 1 for each in (width, height, left, top)) or min(left, top) < 0 or min(width, height) < 1:
        raise unsupported("AVIF image whose clean aperture does not consist of whole pixels")
    rows, columns = slice(int(top), int(top + height)), slice(int(left), int(left + width))
    if rows.stop > size.height or columns.stop > size.width:
        raise unsupported("AVIF image with a clean aperture beyond its pixels")
    return rows, columns


def read_planes(data: bytes, *, is_hdr: bool) -> npt.NDArray[Any]:
    """Decode a picture of limited range, or of HDR.

    Returns:
        uint8, in HDR uint16: (H, W, 3) BGR or, with alpha, (H, W, 4) BGRA.

    Raises:
        DecodeFailed: libav finds no picture.
        UnsupportedFormat: the format of its planes, or its matrix, is not supported.
    """
    import av  # noqa: PLC0415 - decoding starts sooner without it, and few files need libav
    from av.stream import Disposition  # noqa: PLC0415 - as above

    nclx = _NCLX.search(data, 0, _HEAD_BYTES)
    with av.open(io.BytesIO(data), "r", format="mov,mp4,m4a,3gp,3g2,mj2", metadata_errors="replace") as container:
        streams = container.streams.video
        if not streams:
            raise DecodeFailed("expected an AVIF file with a picture")
        # Alpha and the pictures of an animation are streams as well; the picture itself is the first default one.
        stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
        frame = next(container.decode(stream), None)
    if frame is None:
        raise DecodeFailed("expected a whole AVIF image, found one that ends early")
    matrix = struct.unpack(">H", nclx[3])[0] if nclx else int(frame.colorspace)
    is_limited = not nclx[4][0] & 0x80 if nclx else int(frame.color_range) in (0, LIMITED)
    bgr = to_bgr(frame, matrix, np.uint16 if is_hdr else np.uint8, is_limited=is_limited)
    if bgr is None:
        raise unsupported(f"AVIF image of {frame.format.name} samples and matrix {matrix}")
    with Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
        if image.mode != "RGBA":
            return bgr
        image.load()
        alpha = np.asarray(image)[..., 3].astype(bgr.dtype) * (np.iinfo(bgr.dtype).max // 255)
        found = np.dstack([bgr, alpha.astype(bgr.dtype)])
        return straight(found) if _is_premultiplied(data) else found
