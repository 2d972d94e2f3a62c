"""AVIF: full-range pictures by Pillow, limited-range and HDR ones by libav and our own exact conversion (AVIF 1.2).

Pillow's libavif converts with libyuv, whose coefficient for blue in limited range does not fit its signed byte: BT.709
loses 12 levels of blue, BT.2020 16 (measured with Pillow 13, libavif 1.4.2). So libav decodes the planes, and the
conversion follows ITU-T H.273, 8.3, equations 20 to 40, in floats. Alpha is a separate picture in the file and is still
read by Pillow. HDR pictures (PQ, HLG) are read in the same way, because Pillow returns 8 bits.

Neither library crops a picture to its clean aperture (ISO/IEC 14496-12, 12.1.4), which comes before any turning.
"""

import io
import re
import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    import av

_NCLX: Final = re.compile(rb"colrnclx(..)(..)(..)(.)", re.DOTALL)  # ISO/IEC 14496-12, 12.1.5
_GRID: Final = re.compile(rb"infe.{8}grid", re.DOTALL)
_HEAD_BYTES: Final = 1 << 16  # the boxes come before the pixels; a colour box in the pixels would be chance

# ITU-T H.273, table 4: matrix_coefficients -> the luma weights of red and blue. 2 is unspecified; libavif takes BT.601.
_WEIGHTS: Final[Mapping[int, tuple[float, float]]] = {
    1: (0.2126, 0.0722), 2: (0.299, 0.114), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}  # fmt: skip
_IDENTITY: Final = 0
_LIMITED: Final = 1  # libavutil/pixfmt.h, AVCOL_RANGE_MPEG
_PLANAR: Final = re.compile(r"(?:yuv(444|422|420)p|gbrp|gray)(?:(10|12)le)?")
_STRIP_ROWS: Final = 64


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
    with av.open(io.BytesIO(data), "r", format="mov,mp4,m4a,3gp,3g2,mj2") as container:
        streams = container.streams.video
        if not streams:
            raise DecodeFailed("expected an AVIF file with a picture")
        # Alpha and the pictures of an animation are streams as well; the picture itself is the first default one.
        stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
        frame = next(container.decode(stream), None)
    if frame is None:
        raise DecodeFailed("expected a whole AVIF image, found one that ends early")
    matrix = struct.unpack(">H", nclx[3])[0] if nclx else int(frame.colorspace)
    is_limited = not nclx[4][0] & 0x80 if nclx else int(frame.color_range) in (0, _LIMITED)
    bgr = _bgr(frame, matrix, np.dtype(np.uint16 if is_hdr else np.uint8), is_limited=is_limited)
    with Image.open(io.BytesIO(data), formats=("AVIF",)) as image:
        if image.mode != "RGBA":
            return bgr
        image.load()
        alpha = np.asarray(image)[..., 3].astype(bgr.dtype) * (np.iinfo(bgr.dtype).max // 255)
        found = np.dstack([bgr, alpha.astype(bgr.dtype)])
        return straight(found) if _is_premultiplied(data) else found


def _bgr(frame: "av.VideoFrame", matrix: int, dtype: np.dtype[Any], *, is_limited: bool) -> npt.NDArray[Any]:
    kind = _PLANAR.fullmatch(frame.format.name)
    if kind is None or (matrix not in _WEIGHTS and matrix != _IDENTITY):
        raise unsupported(f"AVIF image of {frame.format.name} samples and matrix {matrix}")
    bits = int(kind[2] or 8)
    planes = [_plane(plane, bits) for plane in frame.planes]
    if frame.format.name.startswith("gbrp"):
        green, blue, red = (_unit(plane, bits, 219, is_limited=is_limited) for plane in planes)
        return _rounded(np.dstack([blue, green, red]), dtype)
    if len(planes) == 1:
        return _rounded(np.dstack([_unit(planes[0], bits, 219, is_limited=is_limited)] * 3), dtype)
    rows, columns = planes[0].shape
    chroma = [_enlarged(plane, rows, columns) for plane in planes[1:]]
    found = np.empty((rows, columns, 3), dtype)
    for top in range(0, rows, _STRIP_ROWS):
        part = slice(top, top + _STRIP_ROWS)
        luma = _unit(planes[0][part], bits, 219, is_limited=is_limited)
        cb, cr = (_unit(plane[part], bits, 224, is_limited=is_limited, middle=128) for plane in chroma)
        found[part] = _rounded(_to_bgr(luma, cb, cr, *_WEIGHTS[matrix or 2]), dtype)
    return found


def _enlarged(plane: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[Any]:
    """Give chroma as many samples as luma; a sample that two pixels share lies in the middle between them."""
    by_rows = 1 if plane.shape[0] == rows else 2
    by_columns = 1 if plane.shape[1] == columns else 2
    whole = (by_columns * plane.shape[1], by_rows * plane.shape[0])
    return np.asarray(cv2.resize(plane, whole, interpolation=cv2.INTER_LINEAR))[:rows, :columns]


def _plane(plane: Any, bits: int) -> npt.NDArray[Any]:
    dtype = np.dtype("<u2") if bits > 8 else np.dtype("u1")
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
    return rows[: plane.height, : plane.width]


def _unit(plane: npt.NDArray[Any], bits: int, span: int, *, is_limited: bool, middle: int = 0) -> npt.NDArray[Any]:
    """Return 0 to 1, or -0.5 to 0.5 for chroma."""
    scale = 1 << (bits - 8)
    values = plane.astype(np.float32)
    if is_limited:
        return np.asarray((values - (middle or 16) * scale) / (span * scale), np.float32)
    return np.asarray((values - middle * scale) / ((1 << bits) - 1), np.float32)


def _to_bgr(luma: Any, cb: Any, cr: Any, red_weight: float, blue_weight: float) -> npt.NDArray[Any]:
    red = luma + 2 * (1 - red_weight) * cr
    blue = luma + 2 * (1 - blue_weight) * cb
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    return np.dstack([blue, green, red])


def _rounded(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.rint(np.clip(values, 0, 1) * np.iinfo(dtype).max), dtype)
