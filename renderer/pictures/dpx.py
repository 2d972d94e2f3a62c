"""A decoder for DPX: frames of film scans and colour grading (SMPTE ST 268-1).

The samples have 8, 10, 12 or 16 bits in words, which NumPy unpacks exactly. The header says what they represent:

- printing density and logarithmic: Cineon's curve to linear light, 0.002 of density a step of 10 bits, a film gamma of
  0.6, black at 95 and white at 685 (Kodak, "Grayscale Transformations of Cineon Digital Film Data"); values above white
  are clipped.
- linear: linear light in which the largest value is white.
- everything else, mostly video: shown unchanged, or expanded from limited range if the reference levels say so.
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.geometry import Size
from renderer.pictures.formats import Header, unsupported

_HEADER_BYTES: Final = 2048
_COLOURS: Final = {6: ("grey", (0,)), 50: ("RGB", (2, 1, 0)), 51: ("RGBA", (2, 1, 0, 3)), 52: ("ABGR", (1, 2, 3, 0))}
_ORIENTATIONS: Final = {0: 1, 1: 2, 2: 4, 3: 3, 0xFFFF: 1}  # table 2, as EXIF counts them; film is not transposed
_LINEAR, _LOGARITHMIC, _NO_LIGHT = (2,), (1, 3), (11, 12)  # table 5
_BLACK, _WHITE, _DENSITY = 95, 685, 0.002 / 0.6
_PACKED, _HIGH, _LOW = 0, 1, 2  # where the samples lie in a word that has unused bits


@dataclass(frozen=True, slots=True)
class _Info:
    order: str
    size: Size
    orientation: int
    descriptor: int
    transfer: int
    bits: int
    packing: int
    levels: tuple[int, int]
    start: int

    @property
    def channels(self) -> int:
        return len(_COLOURS[self.descriptor][1])


def read_header(data: bytes) -> Header:
    """Parse the header.

    Raises:
        DecodeFailed: it is damaged.
        UnsupportedFormat: the samples are not colours but, for example, depth, or are packed in an unusual way.
    """
    info = _parse(data)
    colour, _ = _COLOURS[info.descriptor]
    words = "packed " if info.bits in (10, 12) and info.packing == _PACKED else ""
    return Header("DPX", f"{info.bits}-bit {words}{colour}", info.size, info.orientation)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[Any]:
    """Decode the samples in the orientation of the file.

    Returns:
        uint8 or uint16 of coded values, or float32 of linear light: (H, W), (H, W, 3) BGR or (H, W, 4) BGRA.

    Raises:
        DecodeFailed: the file ends early.
    """
    info = _parse(data)
    _, order = _COLOURS[info.descriptor]
    samples = _unpacked(_rows(data, info), info)[..., order]
    most = (1 << info.bits) - 1
    if info.transfer in (*_LINEAR, *_LOGARITHMIC):
        found = samples.astype(np.float32) / most
        if info.transfer in _LOGARITHMIC:
            found[..., :3] = _light(found[..., :3] * np.float32(1023))
    elif info.bits == 8 and not _is_limited(info):
        found = samples
    else:
        low, high = info.levels if _is_limited(info) else (0, most)
        whole = np.clip((samples.astype(np.float32) - low) / (high - low), 0, 1)
        if len(order) == 4:
            whole[..., 3] = samples[..., 3] / np.float32(most)
        found = np.asarray(np.rint(whole * 65535), np.uint16)
    return found[..., 0] if found.shape[2] == 1 else np.ascontiguousarray(found)


def _parse(data: bytes) -> _Info:
    if len(data) < _HEADER_BYTES:
        raise DecodeFailed("expected a whole DPX image, found one that ends early")
    order = ">" if data[:4] == b"SDPX" else "<"
    orientation, _, width, height, signed = struct.unpack_from(order + "HHIII", data, 768)
    low, _, high, _, descriptor, transfer, _, bits, packing, encoding, start = struct.unpack_from(
        order + "IfIfBBBBHHI", data, 784
    )
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise DecodeFailed(f"expected a DPX image with pixels, found {width}x{height}")
    if signed == 1 or encoding == 1:
        raise unsupported(f"DPX image of {'signed' if signed == 1 else 'run-length coded'} samples")
    if descriptor not in _COLOURS or transfer in _NO_LIGHT or orientation not in _ORIENTATIONS:
        raise unsupported(f"DPX image of descriptor {descriptor}, transfer {transfer} and orientation {orientation}")
    if not 0 < start < len(data):
        (start,) = struct.unpack_from(order + "I", data, 4)
    turn = _ORIENTATIONS[orientation]
    return _Info(order, Size(width, height), turn, descriptor, transfer, bits, packing, (low, high), start)


def _rows(data: bytes, info: _Info) -> npt.NDArray[np.uint8]:
    """Return the bytes of the rows; each row begins at a 32-bit word, but some writers of 8 and 16 bits ignore this."""
    count = info.size.width * info.channels
    row_bytes = {8: count, 10: (count + 2) // 3 * 4}.get(info.bits, 2 * count)
    stride = (row_bytes + 3) // 4 * 4
    if len(data) < info.start + stride * info.size.height:
        stride = row_bytes
    if len(data) < info.start + stride * info.size.height:
        raise DecodeFailed("expected a whole DPX image, found one that ends early")
    rows = np.frombuffer(data, np.uint8, stride * info.size.height, info.start).reshape(info.size.height, stride)
    return np.ascontiguousarray(rows[:, :row_bytes])


def _unpacked(rows: npt.NDArray[np.uint8], info: _Info) -> npt.NDArray[Any]:
    shape = (info.size.height, info.size.width, info.channels)
    if info.bits == 8:
        return rows.reshape(shape)
    if info.bits == 10:
        words = rows.view(f"{info.order}u4")
        unused = 2 if info.packing == _HIGH else 0
        threes = np.stack([words >> (unused + shift) & 1023 for shift in (20, 10, 0)], -1).astype(np.uint16)
        return threes.reshape(info.size.height, -1)[:, : info.size.width * info.channels].reshape(shape)
    values = rows.view(f"{info.order}u2")
    if info.bits == 12:
        values = values >> 4 if info.packing == _HIGH else values & 4095
    return values.reshape(shape)


def _is_limited(info: _Info) -> bool:
    return info.levels == (16 << (info.bits - 8), 235 << (info.bits - 8))


def _light(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    black = np.float32(10 ** ((_BLACK - _WHITE) * _DENSITY))
    return np.asarray((np.power(np.float32(10), (codes - _WHITE) * np.float32(_DENSITY)) - black) / (1 - black))
