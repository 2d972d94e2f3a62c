"""JPEG 2000: the boxes are read here, and the samples are scaled to their whole range (ISO/IEC 15444-1).

A decoder gets only the codestream. The boxes define the meaning of its components and are interpreted here: profiles,
palettes, the order of channels, and which of them is alpha. Each decoder looks only at some of these boxes.

OpenCV reads 8 bits and more, and does not scale deeper samples: those of 12 bits are 0 to 4095. Pillow shifts samples
of fewer than 8 bits up: those of 4 bits are 0 to 240. Both are scaled here by the true maximum of their depth. OpenCV
refuses pictures that do not begin at the origin of their grid (B.2), such as parts that were cut out of larger ones:
Pillow reads those of 8 bits, and YCbCr.
"""

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.boxes import Span, boxes, within
from renderer.pictures.colour import from_pillow, straight
from renderer.pictures.formats import OPENCV, Header, load, unsupported

_CODESTREAM: Final = b"\xff\x4f\xff\x51"  # A.4.1, A.5.1: start of codestream, size
_START_OF_TILE, _REGION = b"\xff\x90", b"\xff\x5e"  # A.4.2, A.6.3
_MOST_SHIFTED_BITS: Final = 22  # with what the transforms and guard bits add, OpenJPEG 2.5 has no room for more
_SRGB, _GREY, _SYCC = 16, 17, 18  # I.5.3.3: EnumCS
# 0, bilevel, is not here because OpenJPEG writes it if the colour space is unknown.
_SPACES: Final = {1: "YCbCr", 3: "YCbCr", 4: "YCbCr", 11: "CMY", 12: "CMYK", 13: "YCCK", 14: "Lab",
                  15: "bilevel", 19: "Jab", 20: "e-sRGB", 21: "ROMM RGB", 24: "e-sYCC"}  # fmt: skip
_COLOUR, _ALPHA, _PREMULTIPLIED = 0, 1, 2  # I.5.3.6
_PALETTE_DEPTH: Final = 7  # which is 8 bits


@dataclass(frozen=True, slots=True)
class _Boxes:
    """The statements of the header box about the components.

    Attributes:
        size: the size in the box, which should be that of the codestream.
        space: EnumCS, or None if there is a profile or no colour box.
        palette: (entries, columns).
        columns: the palette's column for each channel.
        roles: the type of each channel and the colour that it belongs to.
    """

    size: Size | None = None
    space: int | None = None
    profile: bytes | None = None
    palette: npt.NDArray[np.uint8] | None = None
    columns: tuple[int, ...] = ()
    roles: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Facts:
    stream: Span
    size: Size
    bits: int
    components: int
    is_subsampled: bool
    is_off_origin: bool
    said: _Boxes

    @property
    def channels(self) -> int:
        return len(self.said.columns) or self.components

    @property
    def order(self) -> tuple[tuple[int, ...], int | None]:
        """The channels of the colours, and the channel of alpha, if there is one."""
        if not self.said.roles:
            count = self.channels
            return tuple(range(count - (count in (2, 4)))), count - 1 if count in (2, 4) else None
        roles = self.said.roles
        colours = sorted((belongs, channel) for channel, (kind, belongs) in roles.items() if kind == _COLOUR)
        alpha = [channel for channel, (kind, _) in roles.items() if kind in (_ALPHA, _PREMULTIPLIED)]
        return tuple(channel for _, channel in colours), alpha[0] if alpha else None

    @property
    def is_premultiplied(self) -> bool:
        alpha = self.order[1]
        return alpha is not None and self.said.roles.get(alpha, (_ALPHA, 0))[0] == _PREMULTIPLIED


def read_header(data: bytes) -> Header:
    """Parse the boxes and the codestream's first segment.

    Raises:
        DecodeFailed: they are damaged.
        UnsupportedFormat: the components differ in depth, or are signed.
    """
    facts = _facts(data)
    kind = _kind(facts)
    where = "off-origin " if facts.is_off_origin and kind in ("grey", "RGB") else ""
    return Header("JPEG 2000", f"{where}{facts.bits}-bit {kind}", facts.size, profile=facts.said.profile)


def _kind(facts: _Facts) -> str:
    if facts.said.space in _SPACES:
        return _SPACES[facts.said.space]
    colours, alpha = facts.order
    if facts.said.palette is not None:
        return "palette"
    if len(colours) not in (1, 3) or (len(colours) == 3 and facts.said.space == _GREY):
        return f"{facts.components}-component"
    kind = "grey" if len(colours) == 1 else "RGB"
    if kind == "RGB" and (facts.said.space == _SYCC or facts.is_subsampled):
        return "YCbCr" if facts.channels == 3 else "YCbCr with alpha"
    if alpha is not None:
        times = "premultiplied " if facts.is_premultiplied else ""
        return f"{times}RGBA" if kind == "RGB" else f"{times}grey with alpha"
    return kind


def read(data: bytes, header: Header) -> npt.NDArray[Any] | None:
    """Decode the samples.

    Returns:
        uint8 or uint16, scaled to the whole range: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA; None
        if they are damaged.
    """
    facts = _facts(data)
    if header.kind.endswith("YCbCr"):
        with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
            load(image, facts.size)
            return from_pillow(image.convert("RGB"))
    stream = data[slice(*facts.stream)]
    stored = _by_opencv(stream) if header.decoder == OPENCV else _by_pillow(stream, facts)
    if stored is None:
        _refuse_shifted(stream, facts.bits)
        return None
    planes = stored[..., None] if stored.ndim == 2 else stored
    if facts.said.palette is not None:
        if planes.max() >= len(facts.said.palette):
            raise DecodeFailed("expected a JPEG 2000 file whose palette has all colours that the pixels use")
        planes = np.take(facts.said.palette[:, facts.said.columns], planes[..., 0], axis=0)
    else:
        planes = _spread(planes, facts.bits)
    colours, alpha = facts.order
    shown = planes[..., (*colours[::-1], *(() if alpha is None else (alpha,)))]
    if facts.is_premultiplied:
        return straight(shown)
    return np.ascontiguousarray(shown[..., 0] if shown.shape[2] == 1 else shown)


def _refuse_shifted(stream: bytes, bits: int) -> None:
    """Refuse a picture whose region of interest has too many bit planes for OpenJPEG (Annex H).

    Raises:
        UnsupportedFormat: there is such a region.
    """
    place = len(_CODESTREAM) - 2
    while place + 6 < len(stream) and stream[place : place + 2] != _START_OF_TILE:
        length = struct.unpack_from(">H", stream, place + 2)[0]
        if stream[place : place + 2] == _REGION and bits + stream[place + 1 + length] > _MOST_SHIFTED_BITS:
            raise unsupported("JPEG 2000 image with a region of interest beyond 31 bit planes")
        place += 2 + length


def _by_opencv(stream: bytes) -> npt.NDArray[Any] | None:
    """Return the components in the order of the file; OpenCV returns them in the order BGR."""
    found: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(stream, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim == 2:
        return found
    return found[..., (2, 1, 0, *range(3, found.shape[2]))]


def _by_pillow(stream: bytes, facts: _Facts) -> npt.NDArray[Any] | None:
    """Return components of up to 8 bits, with Pillow's shift undone."""
    with Image.open(io.BytesIO(stream), formats=("JPEG2000",)) as image:
        try:
            load(image, facts.size)
        except OSError:
            return None
        return np.asarray(image) >> (8 - facts.bits)


def _spread(planes: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Scale samples to the whole range of 8 bits, or of 16 bits if they have more than 8."""
    if bits in (8, 16):
        return planes
    most = (1 << bits) - 1
    full, dtype = (255, np.dtype(np.uint8)) if bits < 8 else (65535, np.dtype(np.uint16))
    return np.asarray(np.rint(np.minimum(planes, most) * (full / most)), dtype)


def _facts(data: bytes) -> _Facts:
    stream, said = (0, len(data)), _Boxes()
    if not data.startswith(_CODESTREAM):
        streams = within(data, [(0, len(data))], b"jp2c")
        if not streams:
            raise DecodeFailed("expected a whole JPEG 2000 image, found one without all of its codestream")
        stream, said = streams[0], _said(data, within(data, [(0, len(data))], b"jp2h"))
    start = stream[0]
    try:
        right, bottom, left, top = struct.unpack_from(">IIII", data, start + 8)
        (components,) = struct.unpack_from(">H", data, start + 40)
        sizes = [struct.unpack_from(">BBB", data, start + 42 + 3 * index) for index in range(min(components, 16))]
    except struct.error as error:
        raise DecodeFailed("expected a whole JPEG 2000 image, found one that ends early") from error
    depths = {size[0] for size in sizes}
    if right <= left or bottom <= top or not sizes or data[start : start + 4] != _CODESTREAM:
        raise DecodeFailed("expected a JPEG 2000 file with pixels")
    if len(depths) > 1 or max(depths) & 0x80:
        raise unsupported("JPEG 2000 image whose components are signed or differ in depth")
    is_subsampled = any(size[1:] != (1, 1) for size in sizes)
    size = Size(right - left, bottom - top)
    facts = _Facts(stream, size, depths.pop() + 1, components, is_subsampled, bool(left or top), said)
    _check_boxes(facts)
    return facts


def _check_boxes(facts: _Facts) -> None:
    said = facts.said
    if said.size not in (None, facts.size):
        raise DecodeFailed(f"expected a file that names one size, found {said.size} and {facts.size}")
    is_mapped = said.palette is None or (
        facts.components == 1 and all(column < said.palette.shape[1] for column in said.columns)
    )
    if not is_mapped or any(channel >= facts.channels for channel in said.roles):
        raise DecodeFailed("expected a JPEG 2000 file whose boxes refer to existing channels")


def _said(data: bytes, headers: Sequence[Span]) -> _Boxes:
    """Read the boxes of the header: the first supported colour box, the palette, its columns and the channels."""
    found: dict[bytes, bytes] = {}
    colours: list[bytes] = []
    for kind, (start, end) in (box for header in headers for box in boxes(data, header)):
        if kind == b"colr":
            colours.append(data[start:end])
        found.setdefault(kind, data[start:end])
    space, profile = _colour(colours)
    palette = _palette(found[b"pclr"]) if b"pclr" in found else None
    maps = found.get(b"cmap", b"")
    columns = tuple(maps[index + 3] for index in range(0, len(maps) - 3, 4)) if palette is not None else ()
    if palette is not None and not columns:
        columns = tuple(range(palette.shape[1]))
    cdef = found.get(b"cdef", b"")
    roles = {}
    for place in range(2, len(cdef) - 5, 6):
        channel, kind_of, belongs = struct.unpack_from(">HHH", cdef, place)
        roles[channel] = kind_of, belongs
    head = found.get(b"ihdr", b"")
    size = Size(*struct.unpack_from(">II", head)[::-1]) if len(head) >= 8 else None
    return _Boxes(size, space, profile, palette, columns, roles)


def _colour(colours: Sequence[bytes]) -> tuple[int | None, bytes | None]:
    """Return the first profile or supported colour space, or else the first colour space."""
    spaces = []
    for body in colours:
        if body[:1] in (b"\2", b"\3"):
            return None, body[3:] or None
        if body[:1] == b"\1" and len(body) >= 7:
            spaces.append(int.from_bytes(body[3:7], "big"))
            if spaces[-1] in (_SRGB, _GREY, _SYCC):
                return spaces[-1], None
    return (spaces[0] if spaces else None), None


def _palette(body: bytes) -> npt.NDArray[np.uint8]:
    """Read a palette (I.5.3.4): its entries, its columns, the depth of each, and the colours."""
    entries, columns = struct.unpack_from(">HB", body)
    if any(depth != _PALETTE_DEPTH for depth in body[3 : 3 + columns]):
        raise unsupported("JPEG 2000 image with a palette of other than 8 bits")
    if not entries or not columns:
        raise DecodeFailed("expected a JPEG 2000 file whose palette has colours")
    return np.frombuffer(body, np.uint8, entries * columns, 3 + columns).reshape(entries, columns)
