"""OpenEXR: the header is parsed here, and the samples are read by OpenEXR's own library ("File Layout" of OpenEXR).

The header is parsed first, so that sizes and kinds are checked before a decoder sees the file. libav is not used: if a
chunk is damaged, it goes on and shows uninitialised memory, while OpenEXR's library refuses the file.

The samples are linear light in which 1 is white; brighter light is clipped, because the exposure is not known. Alpha is
premultiplied, as the format requires. If there are several layers, the one without a name is shown, or else the first
one with R, G and B, which renderers write first; if there are several parts, the first is shown. The display window is
the picture: where the data window does not cover it, it is black, and transparent if there is alpha; what lies outside
it is not shown.
"""

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.colour import straight
from renderer.pictures.formats import Header, unsupported
from renderer.pictures.light import BT709, Coding, Primaries, is_triangle

_HEAD: Final = 8  # magic number, version and flags
_LONGEST, _MOST_ATTRIBUTES = 255, 4096
_DEEP = 0x800
_SAMPLES: Final = {0: "unsigned integer", 1: "half", 2: "float"}
_ROWS, _MOST_ROWS = 32, 256
_TALL_CHUNKS: Final = {9: 256, 10: 256}  # rows in a chunk of DWAB and HTJ2K256; all others have 32, 16 or 1
_GREY: Final = frozenset("Y")
_COLOURS: Final = {frozenset("RGB"): "RGB", frozenset("RGBA"): "RGBA", _GREY: "grey"}
_LARGEST_SIDE: Final = 1 << 24
_SMALL_PIXELS: Final = 1 << 20
_DAMAGED: Final = "expected a whole OpenEXR image, found a damaged or truncated one"
_MOST_BEYOND: Final = 4  # the data window may have up to four times the pixels shown, more than any overscan

Attributes = Mapping[str, tuple[int, bytes]]  # name -> where its value begins, the value


@dataclass(frozen=True, slots=True)
class _Channel:
    name: str
    kind: int
    is_whole: bool

    @property
    def layer(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def letter(self) -> str:
        return self.name.rpartition(".")[2].upper()


@dataclass(frozen=True, slots=True)
class _Window:
    """A rectangle of pixels, which includes its corners."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left + 1

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def bands(self, rows: int) -> "Iterator[_Window]":
        """Yield the window in bands of `rows` rows; the last one may have fewer."""
        for top in range(self.top, self.bottom + 1, rows):
            yield _Window(self.left, top, self.right, min(top + rows - 1, self.bottom))

    def common(self, other: "_Window") -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Return the rows and columns that both windows share, counted from this one's corner and the other's."""
        left, right = max(self.left, other.left), min(self.right, other.right) + 1
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom) + 1
        right, bottom = max(left, right), max(top, bottom)
        return (
            (slice(top - self.top, bottom - self.top), slice(left - self.left, right - self.left)),
            (slice(top - other.top, bottom - other.top), slice(left - other.left, right - other.left)),
        )


def read_header(data: bytes) -> Header:
    """Parse the first part's header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: its channels are not those of a picture, or its kind of data is not supported.
    """
    attributes, _ = _attributes(data, _HEAD)
    if struct.unpack_from("<I", data, 4)[0] & _DEEP:
        raise unsupported("deep OpenEXR image")
    shown = _window(attributes, "displayWindow")
    if _window(attributes, "dataWindow").pixels > max(_MOST_BEYOND * shown.pixels, _SMALL_PIXELS):
        raise unsupported("OpenEXR image whose data window is far larger than its display window")
    primaries = _primaries(attributes)
    coding = None if primaries == BT709 else Coding("linear", primaries)
    layer = _layer(_channels(attributes))
    return Header("OpenEXR", _kind(layer), Size(shown.width, shown.height), 1, None, coding)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any]:
    """Decode the layer that is shown.

    Returns:
        float32: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA with straight alpha.

    Raises:
        DecodeFailed: it is damaged.
    """
    import Imath  # noqa: PLC0415 - decoding starts sooner without the library, and few files need it

    as_floats = Imath.PixelType(Imath.PixelType.FLOAT)
    attributes, _ = _attributes(data, _HEAD)
    shown, there = _window(attributes, "displayWindow"), _window(attributes, "dataWindow")
    layer = sorted(_layer(_channels(attributes)), key=lambda channel: "BGRAY".index(channel.letter))
    samples = np.zeros((shown.height, shown.width, len(layer)), np.float32)
    with _opened(data) as file:
        if not file.isComplete():
            raise DecodeFailed(_DAMAGED)
        for band in there.bands(_rows_at_a_time(attributes)):
            target, source = shown.common(band)
            planes = file.channels([channel.name for channel in layer], as_floats, band.top, band.bottom)
            for index, plane in enumerate(planes):
                samples[*target, index] = np.frombuffer(plane, "<f4").reshape(band.height, band.width)[source]
    return samples[..., 0] if len(layer) == 1 else straight(samples) if len(layer) == 4 else samples


def _rows_at_a_time(attributes: Attributes) -> int:
    """Return how many rows to read at once: whole chunks, so that none is decoded twice.

    Not all rows are read at once, because the library leaks what it read before a damaged chunk.
    """
    tiles = attributes.get("tiles", (0, b""))[1]
    if len(tiles) == 9:
        rows = int.from_bytes(tiles[4:8], "little")
    else:
        rows = _TALL_CHUNKS.get(_value(attributes, "compression", 1)[0], _ROWS)
    return min(max(rows, _ROWS), _MOST_ROWS)


@contextmanager
def _opened(data: bytes) -> Iterator[Any]:
    """Open the file with the library, and turn what the library raises into DecodeFailed.

    Raises:
        DecodeFailed: the library refused the file.
    """
    import OpenEXR  # noqa: PLC0415 - as above

    descriptor = os.memfd_create("OpenEXR")
    try:
        with open(
            descriptor, "wb", closefd=False
        ) as file:  # not Python's stream as input, because an exception in it would end the process
            file.write(data)
        with closing(OpenEXR.InputFile(f"/proc/self/fd/{descriptor}")) as image:
            yield image
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise DecodeFailed(_DAMAGED) from error
    finally:
        os.close(descriptor)


def _window(attributes: Attributes, name: str) -> _Window:
    """Return a window of the header.

    Raises:
        DecodeFailed: it has no pixels, or more than a picture can have.
    """
    window = _Window(*struct.unpack("<4i", _value(attributes, name, 16)))
    if not (0 < window.width <= _LARGEST_SIDE and 0 < window.height <= _LARGEST_SIDE):
        raise DecodeFailed(f"expected an OpenEXR image with pixels, found {window.width}x{window.height}")
    return window


def _attributes(data: bytes, place: int) -> tuple[Attributes, int]:
    """Return the attributes of the header that begins at a place, and where it ends."""
    found: dict[str, tuple[int, bytes]] = {}
    for _ in range(_MOST_ATTRIBUTES):
        name, place = _word(data, place)
        if not name:
            return found, place
        _, place = _word(data, place)
        size = int.from_bytes(data[place : place + 4], "little")
        place += 4
        if place + size > len(data):
            break
        found.setdefault(name, (place, data[place : place + size]))
        place += size
    raise DecodeFailed("expected a whole OpenEXR image, found one whose header does not end")


def _word(data: bytes, place: int) -> tuple[str, int]:
    end = data.find(b"\0", place, place + _LONGEST + 1)
    if end < 0:
        raise DecodeFailed("expected a whole OpenEXR image, found one whose header does not end")
    return data[place:end].decode("latin-1"), end + 1


def _value(attributes: Attributes, name: str, size: int) -> bytes:
    _, value = attributes.get(name, (0, b""))
    if len(value) != size:
        raise DecodeFailed(f"expected an OpenEXR header with {name}")
    return value


def _channels(attributes: Attributes) -> list[_Channel]:
    _, value = attributes.get("channels", (0, b""))
    found: list[_Channel] = []
    place = 0
    while place < len(value) and value[place]:
        name, place = _word(value, place)
        kind, _, across, down = struct.unpack_from("<iIii", value, place)
        found.append(_Channel(name, kind, across == down == 1))
        place += 16
    return found


def _layer(channels: Sequence[_Channel]) -> list[_Channel]:
    """Return the channels of the layer that is shown."""
    layers: dict[str, list[_Channel]] = {}
    for channel in channels:
        layers.setdefault(channel.layer, []).append(channel)
    for _, of_layer in sorted(layers.items(), key=lambda item: item[0] != ""):
        letters = {channel.letter for channel in of_layer}
        for wanted in ("RGBA", "RGB", "Y"):
            if letters >= set(wanted):
                return [channel for channel in of_layer if channel.letter in wanted]
    words = ", ".join(channel.name for channel in channels[:8])
    raise unsupported(f"OpenEXR image without a layer of R, G and B or Y (it has {words or 'none'})")


def _kind(layer: Sequence[_Channel]) -> str:
    kinds = {channel.kind for channel in layer}
    if len(kinds) > 1:
        return "mixed"
    if not all(channel.is_whole for channel in layer):
        return "subsampled"
    letters = frozenset(channel.letter for channel in layer)
    return f"{_SAMPLES.get(kinds.pop(), 'odd')} {_COLOURS[letters]}"


def _primaries(attributes: Attributes) -> Primaries:
    _, value = attributes.get("chromaticities", (0, b""))
    if len(value) != 32:
        return BT709
    values = struct.unpack("<8f", value)
    red, green, blue, white = zip(values[::2], values[1::2], strict=True)
    found = red, green, blue, white
    flat = [part for point in BT709 for part in point]
    is_like_srgb = all(abs(one - other) < 0.001 for one, other in zip(values, flat, strict=True))
    return BT709 if is_like_srgb or not is_triangle(found) else found
