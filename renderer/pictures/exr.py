"""OpenEXR: what its header says, and its samples by libav (OpenEXR's own "File Layout").

The header is parsed here, so that limits and kinds are known first, and the table of chunks, because libav shows black
for what a file that ends early lacks. The samples are linear light in which 1 is white: more is cut off, as no exposure
is known. Alpha is associated, as the format has it. Of several layers the one without a name is shown, else the first
that has R, G and B, which renderers write first; of several parts the first.

The display window is the picture: what the data window lacks of it is black, and transparent where there is alpha; what
goes beyond is not seen. libav takes every display window for one that begins at 0, 0: another one is widened to there
for it, and cut afterwards.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.colour import straight
from renderer.pictures.formats import Header, unsupported
from renderer.pictures.light import BT709, Coding, Primaries, is_triangle

_HEAD: Final = 8  # magic number, version and flags
_LONGEST, _MOST_ATTRIBUTES = 255, 4096
_TILED, _DEEP, _MULTIPART = 0x200, 0x800, 0x1000
_SAMPLES: Final = {0: "unsigned integer", 1: "half", 2: "float"}
_COMPRESSIONS: Final = ("none", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
_GREY: Final = frozenset("Y")
_COLOURS: Final = {frozenset("RGB"): "RGB", frozenset("RGBA"): "RGBA", _GREY: "grey"}
_LARGEST_SIDE: Final = 1 << 24
_MOST_WIDENED: Final = 4  # times as many pixels
_FRAMES: Final = {"gbrpf": (1, 0, 2), "gbrapf": (1, 0, 2, 3), "grayf": (0,)}  # planes -> in the order B, G, R, A

_ENDS_EARLY: Final = "expected a whole OpenEXR image, found one that ends early"

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


def read_header(data: bytes) -> Header:
    """Parse the first part's header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: its channels make no picture, or libav does not read its kind of data right.
    """
    attributes, _ = _attributes(data, _HEAD)
    if struct.unpack_from("<I", data, 4)[0] & _DEEP:
        raise unsupported("deep OpenEXR image")
    left, top, right, bottom = struct.unpack("<4i", _value(attributes, "displayWindow", 16))
    width, height = right - left + 1, bottom - top + 1
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        raise DecodeFailed(f"expected an OpenEXR image with pixels, found {width}x{height}")
    if min(left, top) < 0 or (right + 1) * (bottom + 1) > _MOST_WIDENED * width * height:
        raise unsupported(f"OpenEXR image whose display window begins at {left}, {top}")
    compression = _value(attributes, "compression", 1)[0]
    if compression >= len(_COMPRESSIONS):
        raise unsupported("OpenEXR image with a compression that is not known here")
    if _COMPRESSIONS[compression] == "PIZ":  # libav shows memory that it never wrote where such data is damaged
        raise unsupported("OpenEXR image with PIZ compression")
    primaries = _primaries(attributes)
    coding = None if primaries == BT709 else Coding("linear", primaries)
    layer = _layer(_channels(attributes))
    return Header("OpenEXR", _kind(layer), Size(width, height), 1, None, coding)


def read(data: bytes) -> npt.NDArray[Any]:
    """Decode the layer that is shown.

    Returns:
        float32: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA with straight alpha.

    Raises:
        DecodeFailed: it is damaged.
    """
    attributes, end = _attributes(data, _HEAD)
    _check_chunks(data, attributes, end)
    layer = _layer(_channels(attributes))
    left, top, right, bottom = struct.unpack("<4i", _value(attributes, "displayWindow", 16))
    place, _ = attributes["displayWindow"]
    widened = b"".join((data[:place], struct.pack("<4i", 0, 0, right, bottom), data[place + 16 :]))
    with av.open(io.BytesIO(widened), "r", format="exr_pipe") as container:
        context = container.streams.video[0].codec_context
        context.options = {"layer": layer[0].layer, "err_detect": "explode"}
        frame = next(container.decode(video=0), None)
    if frame is None:
        raise DecodeFailed(_ENDS_EARLY)
    name, _, suffix = frame.format.name.partition("f")
    planes = [_plane(plane, "<f4" if suffix == "32le" else "<f2") for plane in frame.planes]
    order = _FRAMES.get(f"{name}f", ())
    if len(order) != len(planes):
        raise DecodeFailed("expected an OpenEXR image of the samples that its header names")
    found = [planes[index][top:, left:].astype(np.float32) for index in order]
    samples = found[0] if len(found) == 1 else np.dstack(found)
    return straight(samples) if len(found) == 4 else samples


def _plane(plane: Any, dtype: str) -> npt.NDArray[Any]:
    rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // np.dtype(dtype).itemsize)
    return rows[: plane.height, : plane.width]


def _check_chunks(data: bytes, attributes: Attributes, end: int) -> None:
    """Refuse a file that lacks one of the first part's chunks, in which the samples lie."""
    flags = struct.unpack_from("<I", data, 4)[0]
    if flags & _MULTIPART:
        is_tiled = attributes.get("type", (0, b""))[1].startswith(b"tiled")
        places = _places_of_first_part(data, attributes, end)
    else:
        is_tiled = bool(flags & _TILED)
        places = _places(data, end)
    # What a chunk begins with: the part's number where there are several, its row or its tile, its size.
    head = (4 if flags & _MULTIPART else 0) + (16 if is_tiled else 4) + 4
    if not len(places) or not end < places.min() <= places.max() <= len(data) - head:
        raise DecodeFailed(_ENDS_EARLY)
    last = int(places.max()) + head
    if last + int.from_bytes(data[last - 4 : last], "little") > len(data):
        raise DecodeFailed(_ENDS_EARLY)


def _places(data: bytes, end: int) -> npt.NDArray[np.uint64]:
    """Return where the chunks begin; their table ends where the first of them does, in whatever order they are."""
    values = np.frombuffer(data, "<u8", (len(data) - end) // 8, end)
    values = values[: max(0, int(values[0]) - end) // 8] if len(values) else values
    is_end = end + 8 * np.arange(1, len(values) + 1) >= np.minimum.accumulate(values)
    return values[: int(is_end.argmax()) + 1] if is_end.any() else values[:0]


def _places_of_first_part(data: bytes, attributes: Attributes, end: int) -> npt.NDArray[np.uint64]:
    following = attributes
    while following:  # the headers of the other parts, and an empty one
        following, end = _attributes(data, end)
    count = int.from_bytes(_value(attributes, "chunkCount", 4), "little")
    if end + 8 * count > len(data):
        raise DecodeFailed(_ENDS_EARLY)
    return np.frombuffer(data, "<u8", count, end)


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
