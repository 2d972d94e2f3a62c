"""A decoder for TGA: palettes, RGB and grey, with or without run-length coding (Truevision's specification 2.0).

The header is parsed in recognise.py, because TGA has no magic number to recognise it by. Run-length coding is undone
packet by packet, which gives the same rows that other files hold directly.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.errors import DecodeFailed
from renderer.pictures.formats import Header
from renderer.pictures.recognise import GREY, PALETTE, RGB, TgaHeader, tga_header

_FROM_RIGHT, _FROM_TOP = 0x10, 0x20
_COLOURS: Final = {PALETTE: "palette", RGB: "RGB", GREY: "grey"}


def read_header(data: bytes) -> Header:
    info = _known(data)
    coded = "run-length coded " if info.is_coded else ""
    return Header("TGA", f"{coded}{info.bits}-bit {_COLOURS[info.colour]}", info.size)


def read(data: bytes, _header: Header | None = None) -> npt.NDArray[np.uint8]:
    """Decode the rows.

    Returns:
        (H, W), (H, W, 2) with alpha, (H, W, 3) BGR or (H, W, 4) BGRA.

    Raises:
        DecodeFailed: the file ends early, or uses a colour that its palette does not have.
    """
    info = _known(data)
    size_bytes = info.size.pixels * info.pixel_bytes
    body = _uncoded(data, info, size_bytes) if info.is_coded else data[info.start : info.start + size_bytes]
    if len(body) < size_bytes:
        raise DecodeFailed("expected a whole TGA image, found one that ends early")
    values = np.frombuffer(body, np.uint8, size_bytes).reshape(info.size.height, info.size.width, info.pixel_bytes)
    values = values if info.flags & _FROM_TOP else values[::-1]
    values = values[:, ::-1] if info.flags & _FROM_RIGHT else values
    if info.colour == PALETTE:
        return _looked_up(values, data, info)
    if info.colour == GREY:
        grey = values[..., 0]
        return values if info.bits == 16 and info.has_alpha else grey
    return _colours(values, info.bits, has_alpha=info.has_alpha)


def _known(data: bytes) -> TgaHeader:
    info = tga_header(data)
    if info is None:
        raise DecodeFailed("expected a whole TGA image, found a damaged one")
    return info


def _uncoded(data: bytes, info: TgaHeader, size_bytes: int) -> bytes:
    place, step = info.start, info.pixel_bytes
    parts: list[bytes] = []
    found = 0
    while found < size_bytes and place < len(data):
        count = (data[place] & 0x7F) + 1
        is_run = data[place] & 0x80
        taken = data[place + 1 : place + 1 + (step if is_run else count * step)]
        place += 1 + len(taken)
        parts.append(taken * count if is_run else taken)
        found += len(parts[-1])
    return b"".join(parts)


def _looked_up(values: npt.NDArray[np.uint8], data: bytes, info: TgaHeader) -> npt.NDArray[np.uint8]:
    each = (info.entry_bits + 7) // 8
    if len(data) < info.start:
        raise DecodeFailed("expected a whole TGA image, found one that ends early")
    raw = np.frombuffer(data, np.uint8, info.entries * each, info.palette_at).reshape(1, info.entries, each)
    palette = _colours(raw, info.entry_bits, has_alpha=info.has_alpha)[0]
    index = values[..., 0].astype(np.int64)
    if info.bits == 16:
        index += values[..., 1].astype(np.int64) << 8
    index -= info.first_entry
    if index.min() < 0 or index.max() >= info.entries:
        raise DecodeFailed(f"expected a TGA image of {info.entries} colours, found one that uses another")
    return np.take(palette, index, axis=0)


def _colours(values: npt.NDArray[np.uint8], bits: int, *, has_alpha: bool) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) BGR, or (H, W, 4) BGRA if 32 bits include alpha; the odd bit of 16 bits is ignored."""
    if bits >= 24:
        return np.ascontiguousarray(values[..., : 4 if bits == 32 and has_alpha else 3])
    both: npt.NDArray[Any] = values[..., 0].astype(np.uint16) | values[..., 1].astype(np.uint16) << 8
    fives = np.stack([both >> shift & 31 for shift in (0, 5, 10)], -1)
    return np.asarray(np.rint(fives * (255 / 31)), np.uint8)
