"""TIFF: the first directory is parsed here, and a decoder reads the samples under a new one (TIFF 6.0; BigTIFF).

libtiff reads nearly everything, but OpenCV and Pillow support only some kinds of its pictures. So the first directory
is parsed here, and the decoder gets the same bytes with a new directory that holds only what the samples need: no
orientation (all pictures are turned in the same place), no further pages, no tags of other programs. A picture in
separate planes becomes one grey picture for each plane, whose strips and tiles stay where they are.

The new directory is always that of a plain TIFF, because Pillow cannot read BigTIFF in big-endian order, and it has the
number types of the standard. Palettes are applied here, because Pillow refuses those whose bits are reversed.

A file with a camera's mosaic, or whose first picture is the thumbnail of one, is a camera raw file and is refused.
"""

import io
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.colour import straight
from renderer.pictures.formats import DECODERS, OPENCV, PILLOW, Header, More, load, turned, unsupported
from renderer.pictures.ycbcr import Units

_TYPES: Final = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q",
    18: "Q",
}  # fmt: skip
_WRITTEN_AS: Final = {1: 3, 13: 4, 16: 4, 18: 4}  # the type in the standard for a type that some writers use
_MOST_ENTRIES, _MOST_VALUES, _MOST_PAGES = 4096, 1 << 22, 64
_SMALLER_OR_MASK: Final = 0b101

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_STRIPS, _ORIENTATION, _SAMPLES, _STRIP_BYTES, _PLANAR, _PALETTE = 273, 274, 277, 279, 284, 320
_TILES, _TILE_BYTES, _SUBDIRECTORIES, _EXTRA, _FORMAT = 324, 325, 330, 338, 339
_ROWS, _TILE_WIDTH, _TILE_HEIGHT, _INKS, _JPEG_TABLES = 278, 322, 323, 332, 347
_WEIGHTS, _HALVED, _LEVELS, _JPEG = 529, 530, 532, 7
_MAKE, _PROFILE, _DNG = 271, 34675, 50706
# The numbers are fill order, rows of a strip, fax options, predictor, tile sizes, ink set and JPEG's tags.
_KEPT: Final = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, 266, _STRIPS, _SAMPLES, 278, _STRIP_BYTES, _PLANAR,
                292, 293, 317, _PALETTE, 322, 323, _TILES, _TILE_BYTES, 332, _EXTRA, _FORMAT, 347, 512, 513, 514, 515,
                518, 519, 520, 521, _WEIGHTS, _HALVED, _LEVELS)  # fmt: skip
_NOT_OF_A_PLANE: Final = (_PALETTE, _EXTRA, _INKS, _WEIGHTS, _HALVED, _LEVELS)

_WHITE_IS_ZERO, _RGB, _PALETTE_COLOURS, _CMYK, _YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_COLOURS: Final = {
    0: "grey", 1: "grey", _RGB: "RGB", _PALETTE_COLOURS: "palette", _CMYK: "CMYK", _YCBCR: "YCbCr", _LAB: "Lab"
}  # fmt: skip
_CHANNELS: Final = {"grey": 1, "RGB": 3, "palette": 1, "CMYK": 4, "YCbCr": 3, "Lab": 3}
_RAW: Final = {32803: "a camera's mosaic", 34892: "linear raw"}  # DNG 1.7, PhotometricInterpretation
_COMPRESSIONS: Final = {
    1: "", 2: "Huffman coding", 3: "fax coding", 4: "fax coding", 5: "LZW", 6: "old-style JPEG", 7: "JPEG",
    8: "Deflate",
    9: "JBIG", 10: "JBIG", 32766: "NeXT coding", 32773: "PackBits", 32809: "ThunderScan", 32946: "Deflate",
    33003: "JPEG 2000", 33005: "JPEG 2000", 34661: "JBIG", 34676: "SGI log coding", 34677: "SGI log coding",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_DECODED: Final = {OPENCV: (1, 5, 8, 32773, 32946), PILLOW: (1, 2, 3, 4, 5, 7, 8, 32773, 32946, 34925, 50000)}
_FORMATS: Final = {1: "", 2: "signed ", 3: "float ", 4: "", 5: "complex ", 6: "complex float "}
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2  # TIFF 6.0, section 18

Entries = Mapping[int, tuple[int, tuple[Any, ...]]]  # tag -> type, values
_AS_GREY: Final[Entries] = MappingProxyType({_PHOTOMETRIC: (3, (1,))})

_ReadPlain = Callable[[bytes], npt.NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class _File:
    """The parts of a TIFF that a new directory has to keep, and where the old directory begins."""

    order: str
    is_big: bool
    entries: Entries
    start: int = 0

    def values(self, tag: int, default: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        return self.entries[tag][1] if tag in self.entries else default

    def value(self, tag: int, default: int) -> int:
        found = self.values(tag)
        return int(found[0]) if found else default


def read_header(data: bytes) -> Header:
    """Parse the first directory.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: the file is a camera raw.
    """
    file = _parse(data)
    _refuse_camera_raw(data, file)
    width, height = file.value(_WIDTH, 0), file.value(_HEIGHT, 0)
    if width < 1 or height < 1:
        raise DecodeFailed("expected a TIFF whose directory names its width and height")
    orientation = file.value(_ORIENTATION, 1)
    orientation = orientation if 1 <= orientation <= 8 else 1
    profile = bytes(file.values(_PROFILE)) if file.entries.get(_PROFILE, (0, ()))[0] in (1, 7) else None
    kind, compression = _kind(file), file.value(_COMPRESSION, 1)
    if compression not in _DECODED.get(DECODERS["TIFF"].get(kind, ""), (compression,)):
        raise unsupported(f"{kind} TIFF with {_COMPRESSIONS.get(compression, 'unknown compression')}")
    if kind in DECODERS["TIFF"]:
        _check_parts(data, file)
    more: More | None = "pages" if _has_more_pages(data, file) else None
    return Header("TIFF", kind, turned(width, height, orientation), orientation, profile or None, more=more)


def read(data: bytes, header: Header) -> npt.NDArray[Any] | None:
    """Decode the samples in the orientation of the file.

    Returns:
        uint8, uint16, float32 or float64: (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA; alpha is
        straight. None if they are damaged or cut short.
    """
    file = _parse(data)
    size = turned(header.size.width, header.size.height, header.orientation)
    read_plain = partial(_by_pillow, size=size) if header.decoder == PILLOW else _by_opencv
    if header.kind.endswith("YCbCr") and file.value(_COMPRESSION, 1) != _JPEG:
        return _from_units(data, file, size)
    if "planar" in header.kind:
        samples = _from_planes(data, file, read_plain)
    elif header.kind.endswith("palette"):
        return _looked_up(read_plain(_plain(data, file, _AS_GREY)), file)
    elif header.kind.endswith("grey with alpha"):
        samples = read_plain(_plain(data, file, _AS_GREY))
    else:
        samples = read_plain(_plain(data, file))
        if header.decoder == PILLOW:  # Pillow has already swapped white and black, and made alpha straight
            return samples
    return None if samples is None else _straightened(samples, file, header)


def _straightened(samples: npt.NDArray[Any], file: _File, header: Header) -> npt.NDArray[Any]:
    """Swap white and black if necessary, remove a channel without meaning, and make alpha straight."""
    if file.value(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        samples = _inverted(samples)
    if header.kind.endswith("RGBX"):
        return np.ascontiguousarray(samples[..., :3])
    return straight(samples) if "premultiplied" in header.kind else samples


def _from_units(data: bytes, file: _File, size: Size) -> npt.NDArray[np.uint8]:
    """Read YCbCr as a grey picture of its bytes, and convert it.

    Raises:
        DecodeFailed: its subsampling, coefficients or levels are invalid.
    """
    across, down = (*file.values(_HALVED, (2, 2)), 0)[:2]
    weights, levels = (_rationals(file.values(tag)) for tag in (_WEIGHTS, _LEVELS))
    if {across, down} - {1, 2, 4} or len(weights) not in (0, 3) or len(levels) not in (0, 6):
        raise DecodeFailed(f"expected a TIFF whose chroma is whole, halved or quartered, found {across}x{down}")
    units = Units(across, down)
    units = replace(units, weights=weights or units.weights, levels=levels or units.levels)
    if min(units.weights) <= 0 or any(units.levels[index] == units.levels[index + 1] for index in (0, 2, 4)):
        raise DecodeFailed("expected a TIFF with valid YCbCr coefficients and levels")
    grey = Size(units.columns(size.width), units.rows(size.height))
    told: dict[int, tuple[int, tuple[Any, ...]]] = {
        _WIDTH: (4, (grey.width,)), _HEIGHT: (4, (grey.height,)), _BITS: (3, (8,)), _SAMPLES: (3, (1,)),
        _PHOTOMETRIC: (3, (1,)), _FORMAT: (3, (1,)),
        _ROWS: (4, (units.rows(min(file.value(_ROWS, size.height), size.height)),)),
    }  # fmt: skip
    if _TILES in file.entries:
        told[_TILE_WIDTH] = (4, (units.columns(file.value(_TILE_WIDTH, 0)),))
        told[_TILE_HEIGHT] = (4, (units.rows(file.value(_TILE_HEIGHT, 0)),))
    return units.to_bgr(_by_pillow(_plain(data, file, told), grey), size)


def _rationals(values: tuple[Any, ...]) -> tuple[float, ...]:
    """Return fractions as numbers; if a denominator is 0, return an empty tuple, as if the tag were missing."""
    if 0 in values[1::2]:
        return ()
    return tuple(above / below for above, below in zip(values[::2], values[1::2], strict=False))


def _inverted(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Swap black and white, but not in alpha."""
    most = np.iinfo(samples.dtype).max if samples.dtype.kind == "u" else samples.dtype.type(1)
    if samples.ndim == 2:
        return np.asarray(most - samples)
    return np.concatenate([most - samples[..., :1], samples[..., 1:]], -1)


def _looked_up(grey: npt.NDArray[Any] | None, file: _File) -> npt.NDArray[np.uint8]:
    """Return the palette's colours for indexes that were read as grey, scaled to 8 bits.

    Raises:
        DecodeFailed: the palette is too short.
    """
    if grey is None:
        raise DecodeFailed("expected a whole TIFF image, found a damaged one")
    bits = file.value(_BITS, 1)
    palette = np.array(file.values(_PALETTE), np.uint16)
    if len(palette) < 3 << bits:
        raise DecodeFailed(f"expected a TIFF with a palette of {1 << bits} colours, found one of {len(palette) // 3}")
    colours: npt.NDArray[Any] = palette[: 3 << bits].reshape(3, -1).T[:, ::-1]
    if colours.max() > 255:  # some writers store 8 bits instead of 16, and all readers accept this
        colours = colours >> 8
    return np.take(colours.astype(np.uint8), grey // (255 // ((1 << bits) - 1)), axis=0)


def plain(data: bytes) -> bytes:
    """Return the file under a directory that holds only what its samples need."""
    return _plain(data, _parse(data))


def under_grey_directory(
    data: bytes,
    size: Size,
    bits: int,
    *,
    compression: int,
    strips: Sequence[tuple[int, int]],
    is_white_zero: bool = False,
) -> bytes:
    """Turn bytes that hold one plane of samples, in big-endian order, into a grey TIFF; 32 bits are floats.

    Args:
        data: the bytes; the first 8 are replaced by the header of a TIFF.
        compression: TIFF's number of the compression.
        strips: where each strip begins, and its length; strips of one row each, or a single one.
    """
    rows = size.height if len(strips) == 1 else 1
    entries = {
        _WIDTH: (4, (size.width,)), _HEIGHT: (4, (size.height,)), _BITS: (3, (bits,)),
        _COMPRESSION: (3, (compression,)),
        _PHOTOMETRIC: (3, (_WHITE_IS_ZERO if is_white_zero else 1,)), _STRIPS: (4, tuple(start for start, _ in strips)),
        _SAMPLES: (3, (1,)), 278: (4, (rows,)), _STRIP_BYTES: (4, tuple(length for _, length in strips)),
        _FORMAT: (3, (3 if bits == 32 else 1,)),
    }  # fmt: skip
    return _with_directory(b"MM\0*" + data[4:], _File(">", is_big=False, entries={}), sorted(entries.items()))


def _parse(data: bytes) -> _File:
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        return _directory(data, order, start, is_big=is_big)
    except (struct.error, OverflowError) as error:
        raise DecodeFailed("expected a whole TIFF image, found one whose directory lies outside the file") from error


def _directory(data: bytes, order: str, start: int, *, is_big: bool) -> _File:
    (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), data, start)
    if count > _MOST_ENTRIES:
        raise DecodeFailed(f"expected a TIFF directory of up to {_MOST_ENTRIES} entries, found {count}")
    place, size = start + (8 if is_big else 2), 20 if is_big else 12
    entries: dict[int, tuple[int, tuple[Any, ...]] | None] = {}
    for index in range(count):
        tag, entry = _read_entry(data, place + index * size, order, is_big=is_big)
        entries.setdefault(tag, entry)
    return _File(order, is_big, {tag: entry for tag, entry in entries.items() if entry is not None}, start)


def _check_parts(data: bytes, file: _File) -> None:
    """Check that no strip or tile is missing, since decoders would show other memory or the header in its place.

    Raises:
        DecodeFailed: there are too few of them, or one lies outside the file.
        UnsupportedFormat: one is left out on purpose.
    """
    height = file.value(_HEIGHT, 0)
    planes = file.value(_SAMPLES, 1) if file.value(_PLANAR, 1) == 2 else 1
    if _TILES in file.entries:
        across, down = file.value(_TILE_WIDTH, 0), file.value(_TILE_HEIGHT, 0)
        count = -(-file.value(_WIDTH, 0) // max(across, 1)) * -(-height // max(down, 1))
    else:
        down = min(file.value(_ROWS, height), height)
        count = -(-height // max(down, 1))
    starts = file.values(_TILES if _TILES in file.entries else _STRIPS)
    if down < 1 or len(starts) < count * planes or any(start >= len(data) for start in starts[: count * planes]):
        raise DecodeFailed("expected a whole TIFF image, found one without all of its strips or tiles")
    if any(start == 0 for start in starts[: count * planes]):
        raise unsupported("sparse TIFF, which leaves strips or tiles out")


def _has_more_pages(data: bytes, file: _File) -> bool:
    """Look for another picture; smaller versions and masks do not count (TIFF 6.0, NewSubfileType)."""
    head, size, word = ("Q", 20, "Q") if file.is_big else ("H", 12, "I")
    start = file.start
    with suppress(struct.error):  # damage after the first picture does not matter
        for _ in range(_MOST_PAGES):
            (count,) = struct.unpack_from(file.order + head, data, start)
            entries = start + struct.calcsize("<" + head)
            if start != file.start and not _subfile_type(data, entries, count * size, file) & _SMALLER_OR_MASK:
                return True
            (start,) = struct.unpack_from(file.order + word, data, entries + count * size)
            if start == 0:
                return False
    return False


def _subfile_type(data: bytes, entries: int, size: int, file: _File) -> int:
    """Return the kind of a directory's picture, which would be the first entry, since entries are sorted by tag."""
    layout = file.order + ("HHQI" if file.is_big else "HHII")
    tag, _, _, value = struct.unpack_from(layout, data, entries) if size else (0, 0, 0, 0)
    return int(value) if tag == _SUBFILE else 0


def _read_entry(data: bytes, place: int, order: str, *, is_big: bool) -> tuple[int, tuple[int, tuple[Any, ...]] | None]:
    tag, kind, count = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), data, place)
    letter = _TYPES.get(kind)
    if letter is None or (
        tag not in _KEPT and tag not in (_SUBFILE, _ORIENTATION, _SUBDIRECTORIES, _MAKE, _PROFILE, _DNG)
    ):
        return tag, None
    if count > (_MOST_VALUES if tag != _PROFILE else 64 * _MOST_VALUES):
        raise DecodeFailed(f"expected up to {_MOST_VALUES} values in one entry of a TIFF directory, found {count}")
    layout = f"{order}{count * len(letter)}{letter[0]}"
    where, room = place + (12 if is_big else 8), 8 if is_big else 4
    if struct.calcsize(layout) > room:
        (where,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, where)
    return tag, (kind, struct.unpack_from(layout, data, where))


def _refuse_camera_raw(data: bytes, file: _File) -> None:
    if _DNG in file.entries:
        raise unsupported("camera raw (DNG)")
    if data[8:10] == b"CR" and not file.is_big:
        raise unsupported("camera raw (Canon CR2)")
    is_thumbnail = file.value(_SUBFILE, 0) & 1
    if _has_mosaic(data, file) or (is_thumbnail and _SUBDIRECTORIES in file.entries):
        raise unsupported("camera raw")
    if is_thumbnail:
        raise unsupported("TIFF whose first picture is a thumbnail")


def _has_mosaic(data: bytes, file: _File) -> bool:
    """Look for raw samples in the first picture and in its subdirectories."""
    if file.value(_PHOTOMETRIC, 1) in _RAW:
        return True
    for start in file.values(_SUBDIRECTORIES)[:_MOST_PAGES]:
        with suppress(struct.error, OverflowError, DecodeFailed):  # damage there does not matter
            if _directory(data, file.order, start, is_big=file.is_big).value(_PHOTOMETRIC, 1) in _RAW:
                return True
    return False


def _kind(file: _File) -> str:
    """Return the kind of samples as a text: depth, whether in planes, colour, alpha."""
    photometric, channels = file.value(_PHOTOMETRIC, 1), file.value(_SAMPLES, 1)
    depths, formats = set(file.values(_BITS, (1,))), set(file.values(_FORMAT, (1,)))
    if len(depths) > 1 or len(formats) > 1:
        return "mixed-depth"
    colour = _COLOURS.get(photometric, f"photometric {photometric}")
    if photometric == _CMYK and file.value(_INKS, 1) != 1:
        colour = "special-ink"
    extra = channels - _CHANNELS.get(colour, channels)
    planar = "planar " if file.value(_PLANAR, 1) == 2 and channels > 1 else ""
    depth = f"{depths.pop()}-bit {_FORMATS.get(formats.pop(), 'odd ')}"
    if extra < 0:
        raise DecodeFailed(f"expected a TIFF of {_CHANNELS[colour]} channels for its {colour}, found {channels}")
    if extra == 0:
        return f"{depth}{planar}{colour}"
    alpha = file.value(_EXTRA, _UNASSOCIATED)  # without the tag, all readers take a fourth channel for alpha
    if extra == 1 and alpha == _UNSPECIFIED and colour == "RGB":
        return f"{depth}{planar}RGBX"
    if extra != 1 or alpha not in (_ASSOCIATED, _UNASSOCIATED) or colour not in ("RGB", "grey"):
        return f"{depth}{planar}{colour} with {extra} more channels"
    times = "premultiplied " if alpha == _ASSOCIATED else ""
    return f"{depth}{planar}{times}RGBA" if colour == "RGB" else f"{depth}{planar}{times}grey with alpha"


def _from_planes(data: bytes, file: _File, read_plain: _ReadPlain) -> npt.NDArray[Any] | None:
    """Read each plane as a grey picture, and join them."""
    channels = file.value(_SAMPLES, 1)
    planes: list[npt.NDArray[Any]] = []
    for plane in range(channels):
        found = read_plain(_plain(data, file, plane=plane, planes=channels))
        if found is None or found.ndim != 2 or (planes and found.shape != planes[0].shape):
            return None
        planes.append(found)
    return np.dstack([*planes[2::-1], *planes[3:]] if channels > 2 else planes)


def _by_opencv(data: bytes) -> npt.NDArray[Any] | None:
    found: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return found


def _by_pillow(data: bytes, size: Size) -> npt.NDArray[Any]:
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
        load(image, size)
        if image.mode in ("L", "1"):
            return np.asarray(image.convert("L"))
        if image.mode == "LA":
            return np.asarray(image)
        is_translucent = image.mode in ("RGBA", "RGBa")
        rgb = np.asarray(image.convert("RGBA" if is_translucent else "RGB"))
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA if is_translucent else cv2.COLOR_RGB2BGR))


def _plain(
    data: bytes, file: _File, told: Entries = MappingProxyType({}), plane: int | None = None, planes: int = 1
) -> bytes:
    """Return the file with a new first directory, for the whole picture or for one plane as a grey picture.

    Args:
        told: entries that replace those of the file.
    """
    entries = {tag: entry for tag, entry in file.entries.items() if tag in _KEPT} | dict(told)
    entries.setdefault(_PHOTOMETRIC, (3, (1,)))  # libtiff refuses a file without this tag; others read grey
    extra = file.value(_SAMPLES, 1) - _CHANNELS.get(_COLOURS.get(file.value(_PHOTOMETRIC, 1), ""), 0)
    said = file.values(_EXTRA, (_UNASSOCIATED,))  # Pillow refuses files with more or fewer of these than extra channels
    entries[_EXTRA] = (3, (said[:1] * extra))
    if extra < 1:
        del entries[_EXTRA]
    if plane is not None:
        entries = {tag: entry for tag, entry in entries.items() if tag not in _NOT_OF_A_PLANE}
        for tag in (_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES):
            if tag in entries:
                kind, values = entries[tag]
                each = len(values) // planes
                entries[tag] = kind, values[plane * each : (plane + 1) * each]
        entries |= {_SAMPLES: (3, (1,)), _PHOTOMETRIC: (3, (1,)), _PLANAR: (3, (1,))}
        entries |= {tag: (3, entries[tag][1][:1]) for tag in (_BITS, _FORMAT) if tag in entries}
    return _with_directory(data, file, sorted(entries.items()))


def _with_directory(data: bytes, file: _File, entries: Sequence[tuple[int, tuple[int, tuple[Any, ...]]]]) -> bytes:
    order = file.order
    start = len(data) + len(data) % 2  # TIFF 6.0, section 2: directories begin on a word boundary
    beyond_at = start + 2 + 12 * len(entries) + 4
    directory, beyond = [struct.pack(order + "H", len(entries))], list[bytes]()
    for tag, (found, values) in entries:
        kind = found if tag == _JPEG_TABLES else _WRITTEN_AS.get(found, found)
        packed = struct.pack(f"{order}{len(values)}{_TYPES[kind][0]}", *values)
        directory.append(struct.pack(order + "HHI", tag, kind, len(values) // len(_TYPES[kind])))
        if len(packed) <= 4:
            directory.append(packed.ljust(4, b"\0"))
        else:
            directory.append(struct.pack(order + "I", beyond_at + sum(map(len, beyond))))
            beyond.append(packed + bytes(len(packed) % 2))
    directory.append(bytes(4))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return b"".join((head, data[len(head) :], bytes(len(data) % 2), *directory, *beyond))
