"""JPEG 2000: depth and components from its codestream, and samples spread over their whole range (ISO/IEC 15444-1).

OpenCV reads 8 bits and more and hands deeper samples over as they are, 12 bits as 0 to 4095; Pillow shifts fewer than 8
bits up, 4 bits to 0 to 240. Both are scaled here by what the depth really reaches. OpenCV refuses pictures that do not
begin at the origin of their grid (B.2), as parts cut out of larger ones do: Pillow reads those of 8 bits.
"""

import io
import struct
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import OPENCV, Header, load, unsupported

_CODESTREAM: Final = b"\xff\x4f\xff\x51"  # A.4.1, A.5.1: start of codestream, size
_SYCC: Final = 18  # I.5.3.3: EnumCS


@dataclass(frozen=True, slots=True)
class _Facts:
    size: Size
    bits: int
    components: int
    is_subsampled: bool
    has_palette: bool
    is_ycc: bool
    is_off_origin: bool


def read_header(data: bytes) -> Header:
    """Parse the boxes and the codestream's first segment.

    Raises:
        DecodeFailed: they are damaged.
        UnsupportedFormat: the components differ in depth, or are signed.
    """
    facts = _facts(data)
    if facts.has_palette:
        return Header("JPEG 2000", f"{facts.bits}-bit palette", facts.size)
    kinds = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGBA"}
    kind = kinds.get(facts.components, f"{facts.components}-component")
    if kind == "RGB" and (facts.is_ycc or facts.is_subsampled):
        kind = "YCbCr"
    where = "off-origin " if facts.is_off_origin and kind in ("grey", "RGB") else ""
    return Header("JPEG 2000", f"{where}{facts.bits}-bit {kind}", facts.size)


def read(data: bytes, header: Header) -> npt.NDArray[Any] | None:
    """Decode the samples.

    Returns:
        uint8 or uint16 over their whole range: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA; None if they are damaged.
    """
    facts = _facts(data)
    if header.decoder == OPENCV:
        stored: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if stored is None or facts.bits in (8, 16):
            return stored
        most = (1 << facts.bits) - 1
        return np.asarray(np.rint(np.minimum(stored, most) * (65535 / most)), np.uint16)
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
        load(image, facts.size)
        if image.mode == "L":
            grey = np.asarray(image)
        else:
            is_translucent = image.mode in ("LA", "RGBA")
            rgb = np.asarray(image.convert("RGBA" if is_translucent else "RGB"))
            grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA if is_translucent else cv2.COLOR_RGB2BGR))
    if facts.has_palette or facts.bits >= 8:
        return grey
    most = 255 >> (8 - facts.bits)
    return np.asarray(np.rint((grey >> (8 - facts.bits)) * (255 / most)), np.uint8)


def _facts(data: bytes) -> _Facts:
    is_boxed = not data.startswith(_CODESTREAM)
    start = data.find(_CODESTREAM) if is_boxed else 0
    if start < 0:
        raise DecodeFailed("expected a JPEG 2000 file with a codestream")
    try:
        right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
        (components,) = struct.unpack_from(">H", data, start + 40)
        sizes = [struct.unpack_from(">BBB", data, start + 42 + 3 * index) for index in range(min(components, 16))]
    except struct.error as error:
        raise DecodeFailed("expected a whole JPEG 2000 image, found one that ends early") from error
    depths = {size[0] for size in sizes}
    if right <= left or bottom <= top or not sizes:
        raise DecodeFailed("expected a JPEG 2000 file with pixels")
    if len(depths) > 1 or max(depths) & 0x80:
        raise unsupported("JPEG 2000 image whose components are signed or differ in depth")
    boxes = data[:start] if is_boxed else b""
    colour = boxes.find(b"colr\x01")
    is_ycc = colour >= 0 and boxes[colour + 7 : colour + 11] == struct.pack(">I", _SYCC)
    is_subsampled = any(size[1:] != (1, 1) for size in sizes)
    return _Facts(
        Size(right - left, bottom - top),
        depths.pop() + 1,
        components,
        is_subsampled,
        b"pclr" in boxes,
        is_ycc,
        is_off_origin=bool(left or top),
    )
