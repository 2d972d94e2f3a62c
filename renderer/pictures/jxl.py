"""JPEG XL (ISO/IEC 18181-1; its container is 18181-2), by libjxl, which pyjpegxl brings; the extra `jxl` installs that.

The codestream's header is parsed here: pyjpegxl tells size, depth and profile before it decodes, and neither whether
there is an animation, of which it decodes every frame and hands out the last, nor what its channels are. It is given
the bare codestream, because it takes the profile from a box of its own, which has no meaning to other programs.

libjxl turns the picture as the codestream says (EXIF's orientation is information only), and blends its layers. Samples
of more than 8 bits, and floats, are asked for as 16 bits of full scale: floats are coded as the header says.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.boxes import boxes
from renderer.pictures.formats import Header, turned, unsupported
from renderer.pictures.light import BT709, Coding, Curve, Point, Primaries, is_triangle

_BARE: Final = b"\xff\x0a"
_HEAD_BYTES: Final = 4096  # of the codestream, whose header is a few dozen

# ISO/IEC 18181-1, annex B.2.2 (U32): for each of four selectors how many bits are read and what is added to them.
_Choices = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]
_SIDE: Final[_Choices] = ((9, 1), (13, 1), (18, 1), (30, 1))
_ENUM: Final[_Choices] = ((0, 0), (0, 1), (4, 2), (6, 18))
_INTEGER_BITS: Final[_Choices] = ((0, 8), (0, 10), (0, 12), (6, 1))
_FLOAT_BITS: Final[_Choices] = ((0, 32), (0, 16), (0, 24), (6, 1))
_EXTRA_CHANNELS: Final[_Choices] = ((0, 0), (0, 1), (4, 2), (12, 1))
_SHIFT: Final[_Choices] = ((0, 0), (0, 3), (0, 4), (3, 1))
_NAME: Final[_Choices] = ((0, 0), (4, 0), (5, 16), (10, 48))
_COORDINATE: Final[_Choices] = ((19, 0), (19, 524288), (20, 1048576), (21, 2097152))

_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA: Final = 0
_CHANNELS: Final = {1: "depth", 2: "spot colour", 3: "selection", 4: "black", 5: "colour filter", 6: "thermal"}

_RGB: Final = 0
_GREY: Final = 1
_CUSTOM: Final = 2
_WHITES: Final[dict[int, Point]] = {1: BT709[3], 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_PRIMARIES: Final[dict[int, tuple[Point, Point, Point]]] = {
    1: BT709[:3],
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_CURVES: Final[dict[int, Curve]] = {1: "sRGB", 2: "sRGB", 8: "linear", 13: "sRGB", 16: "PQ", 17: 2.6, 18: "HLG"}


class _Bits:
    """A codestream's bits, the least significant of a byte first."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise DecodeFailed("expected a whole JPEG XL image, found one that ends in its header")
        found = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return found

    def choose(self, choices: _Choices) -> int:
        bits, base = choices[self.take(2)]
        return base + self.take(bits)

    def is_set(self) -> bool:
        return self.take(1) == 1


@dataclass(frozen=True, slots=True)
class _Depth:
    is_float: bool = False
    bits: int = 8

    @property
    def words(self) -> str:
        return "float" if self.is_float else "8-bit" if self.bits <= 8 else "16-bit"


def read_header(data: bytes) -> Header:
    """Parse the container and the codestream's header; no pixel is decoded.

    Raises:
        UnsupportedFormat: there are channels, frames or colours that are not read here; the words name them.
        DecodeFailed: the header ends early, or names another size than pyjpegxl finds.
    """
    import pyjpegxl  # noqa: PLC0415 - an extra, which few files need

    codestream = _codestream(data)
    bits = _Bits(codestream[2:_HEAD_BYTES])
    size = _side_by_side(bits)
    if bits.is_set():  # all_default
        orientation, depth, alpha, is_in_profile, space, coding = 1, _Depth(), "", False, _RGB, None
    else:
        orientation = _orientation(bits)
        depth = _depth(bits)
        bits.take(1)  # modular_16bit_buffers
        alpha = _alpha(bits)
        bits.take(1)  # xyb_encoded
        is_in_profile, space, coding = _colour(bits)
    shown = turned(size.width, size.height, orientation)
    told = pyjpegxl.probe(codestream)
    if (told.width, told.height) != (shown.width, shown.height):
        raise DecodeFailed(f"expected a file that names one size, found {shown} and {told.width}x{told.height}")
    kind = f"{depth.words} {_kind(space, alpha)}"
    profile = told.icc if is_in_profile else None
    return Header("JPEG XL", kind, shown, 1, profile, None if coding is None or coding.is_srgb else coding)


def read(data: bytes, header: Header) -> npt.NDArray[Any]:
    """Decode the picture, turned already.

    Returns:
        uint8 or uint16: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA.
    """
    import pyjpegxl  # noqa: PLC0415 - as above

    pyjpegxl.set_num_threads(1)  # stills are worked on side by side
    channels = (1 if "grey" in header.kind else 3) + ("RGBA" in header.kind or "alpha" in header.kind)
    # Into memory of ours: where there is none for its own, pyjpegxl ends the process.
    samples = np.empty(
        (header.size.height, header.size.width, channels), np.uint8 if header.kind.startswith("8-bit") else np.uint16
    )
    pyjpegxl.decode_into(_codestream(data), samples)
    if channels == 1:
        return samples[..., 0]
    if channels > 2:
        samples = np.ascontiguousarray(samples[..., (2, 1, 0, *range(3, samples.shape[2]))])
    return samples


def _codestream(data: bytes) -> bytes:
    """Return the codestream out of its container: it is one box, or parts that begin with their number."""
    if not data.startswith(_BARE):
        parts = [(kind, data[start:end]) for kind, (start, end) in boxes(data, (0, len(data)))]
        whole = next((part for kind, part in parts if kind == b"jxlc"), b"")
        data = whole or b"".join(part[4:] for kind, part in parts if kind == b"jxlp")
    if not data.startswith(_BARE):
        raise DecodeFailed("expected a whole JPEG XL image, found a container without a codestream")
    return data


def _side_by_side(bits: _Bits) -> Size:
    """Read a size: the height, and the width itself or as a ratio to it."""
    is_small = bits.is_set()

    def side() -> int:
        return 8 * (1 + bits.take(5)) if is_small else bits.choose(_SIDE)

    height = side()
    ratio = bits.take(3)
    if ratio == 0:
        return Size(side(), height)
    times, part = _RATIOS[ratio - 1]
    return Size(height * times // part, height)


def _orientation(bits: _Bits) -> int:
    if not bits.is_set():  # extra_fields
        return 1
    orientation = 1 + bits.take(3)
    if bits.is_set():
        _side_by_side(bits)  # the size that it was meant to be printed at
    if bits.is_set():
        raise unsupported("JPEG XL image with a preview")
    if bits.is_set():
        raise unsupported("JPEG XL animation")
    return orientation


def _depth(bits: _Bits) -> _Depth:
    is_float = bits.is_set()
    depth = _Depth(is_float, bits.choose(_FLOAT_BITS if is_float else _INTEGER_BITS))
    if is_float:
        bits.take(4)  # how many of them are the exponent
    elif depth.bits > 16:
        raise unsupported(f"{depth.bits}-bit JPEG XL image")
    return depth


def _alpha(bits: _Bits) -> str:
    """Read the channels beside the colours: none, or alpha."""
    count = bits.choose(_EXTRA_CHANNELS)
    if count > 1:
        raise unsupported(f"JPEG XL image with {count} extra channels")
    if count == 0:
        return ""
    if bits.is_set():
        return "alpha"
    kind = bits.choose(_ENUM)
    if kind != _ALPHA:
        raise unsupported(f"JPEG XL image with a {_CHANNELS.get(kind, 'further')} channel")
    _depth(bits)
    bits.choose(_SHIFT)
    bits.take(8 * bits.choose(_NAME))
    return "premultiplied alpha" if bits.is_set() else "alpha"


def _kind(space: int, alpha: str) -> str:
    if space == _GREY:
        return {"": "grey", "alpha": "grey with alpha"}.get(alpha, "premultiplied grey with alpha")
    return {"": "RGB", "alpha": "RGBA"}.get(alpha, "premultiplied RGBA")


def _colour(bits: _Bits) -> tuple[bool, int, Coding | None]:
    """Read whether a profile says what the colours are, the space, and else how samples represent light."""
    if bits.is_set():
        return False, _RGB, None
    is_in_profile, space = bits.is_set(), bits.choose(_ENUM)
    if space not in (_RGB, _GREY):
        raise unsupported("JPEG XL image of colours other than RGB and grey")
    if is_in_profile:
        return True, space, None
    kind = bits.choose(_ENUM)
    white = _point(bits) if kind == _CUSTOM else _WHITES.get(kind)
    points = BT709[:3] if space == _GREY else _points(bits)
    curve = _curve(bits)
    if white is None or points is None or curve is None:
        raise unsupported("JPEG XL image of colours that are not known")
    primaries: Primaries = BT709 if space == _GREY else (*points, white)
    if not is_triangle(primaries):
        raise unsupported("JPEG XL image of primaries that make no sense")
    return False, space, Coding(curve, primaries)


def _points(bits: _Bits) -> tuple[Point, Point, Point] | None:
    kind = bits.choose(_ENUM)
    return (_point(bits), _point(bits), _point(bits)) if kind == _CUSTOM else _PRIMARIES.get(kind)


def _point(bits: _Bits) -> Point:
    """Read x and y in millionths, whose sign is the last bit."""
    x, y = (bits.choose(_COORDINATE) for _ in range(2))
    return tuple((each >> 1 ^ -(each & 1)) / 1e6 for each in (x, y))  # type: ignore[return-value]


def _curve(bits: _Bits) -> Curve | None:
    if bits.is_set():
        exponent = bits.take(24) / 1e7
        return 1 / exponent if 0.1 <= exponent <= 1 else None
    return _CURVES.get(bits.choose(_ENUM))
