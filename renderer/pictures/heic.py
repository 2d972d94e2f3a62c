"""HEIC, the format of many phones: HEVC pictures in a HEIF container (ISO/IEC 23008-12), decoded by libheif.

libheif joins tiles, turns and mirrors as the boxes of the file say (EXIF's orientation is only informative, 6.5.10),
converts to RGB with the file's matrix and range, and adds alpha. The pixels keep their depth.

A still picture is an item of the file's `meta` box. A sequence, beside it or alone, is a track as in a video (7).
"""

import functools
import struct
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from renderer.geometry import Size
from renderer.pictures.boxes import Span, boxes, within
from renderer.pictures.colour import straight
from renderer.pictures.formats import Header, More, unsupported
from renderer.pictures.light import Coding, coding_of

if TYPE_CHECKING:
    from pillow_heif import HeifFile

_SHOWN: Final = (b"pict", b"vide")
_COUNT_AT: Final = {b"stsz": 8, b"stz2": 8}  # ISO/IEC 14496-12, 8.7.3: after the version, the flags and a size


def pictures_in_track(data: bytes) -> int:
    """Return how many pictures the longest sequence of a file has; 0 if there is none."""
    tracks = within(data, [(0, len(data))], b"moov", b"trak")
    return max((_samples(data, track) for track in tracks if _is_shown(data, track)), default=0)


def refuse_sequence(data: bytes, name: str) -> None:
    """Refuse a file that holds a sequence and no still picture.

    Raises:
        UnsupportedFormat: the file is such a sequence; the message says so.
    """
    kinds = {kind for kind, _ in boxes(data, (0, len(data)))}
    if b"meta" not in kinds and b"moov" in kinds:
        raise unsupported(f"{name} sequence without a still picture")


def _is_shown(data: bytes, track: Span) -> bool:
    return any(data[start + 8 : start + 12] in _SHOWN for start, _ in within(data, [track], b"mdia", b"hdlr"))


def _samples(data: bytes, track: Span) -> int:
    tables = within(data, [track], b"mdia", b"minf", b"stbl")
    found = [
        struct.unpack_from(">I", data, start + _COUNT_AT[kind])[0]
        for table in tables
        for kind, (start, end) in boxes(data, table)
        if kind in _COUNT_AT and end - start >= 12
    ]
    return max(found, default=0)


_KINDS: Final = {
    "L": "grey", "I": "grey", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "premultiplied RGBA", "LA": "grey with alpha",
}  # fmt: skip
_ALTERNATIVES: Final = b"altr"  # ISO/IEC 14496-12, 8.18.3.1
_HEAD_BYTES: Final = 1 << 16  # the boxes come before the pixels, in which four letters would be chance


def read_header(data: bytes) -> Header:
    """Parse the boxes; no pixel is decoded.

    Raises:
        UnsupportedFormat: the file holds only a sequence.
    """
    refuse_sequence(data, "HEIC")
    image = _open(data)
    mode = image.mode.partition(";")[0]
    kind = f"{image.info.get('bit_depth', 8)}-bit {_KINDS.get(mode, mode)}"
    profile = image.info.get("icc_profile") or None
    return Header("HEIC", kind, Size(*image.size), 1, profile, None if profile else _coding(image), _more(data, image))


def read(data: bytes, header: Header) -> npt.NDArray[Any]:
    """Decode the primary picture, which libheif has already turned.

    Returns:
        uint8 or uint16: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA with straight alpha.
    """
    samples = np.asarray(_open(data))
    if samples.ndim == 2:
        return samples
    samples = samples[..., (2, 1, 0, *range(3, samples.shape[2]))]
    return straight(samples) if "premultiplied" in header.kind else np.ascontiguousarray(samples)


@functools.cache
def library() -> ModuleType:
    """Return libheif's module with our options; it takes 40 ms to import, and few files need it."""
    import pillow_heif  # noqa: PLC0415 - as above

    pillow_heif.options.DECODE_THREADS = 1  # stills are worked on side by side
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    return pillow_heif


def _open(data: bytes) -> "HeifFile":
    image: HeifFile = library().open_heif(data, convert_hdr_to_8bit=False)
    return image


def _more(data: bytes, image: "HeifFile") -> More | None:
    if pictures_in_track(data) > 1:
        return "frames"
    # Two versions of one picture, which phones write for HDR and other screens, are a group of alternatives.
    return "pictures" if len(image) > 1 and _ALTERNATIVES not in data[:_HEAD_BYTES] else None


def _coding(image: "HeifFile") -> Coding | None:
    told = image.info.get("nclx_profile")
    coding = coding_of(told["color_primaries"], told["transfer_characteristics"]) if told else None
    return None if coding is None or coding.is_srgb else coding
