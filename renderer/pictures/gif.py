"""GIF: its first frame, where it lies on the screen (Graphics Interchange Format 89a, sections 18 and 20).

What the first frame leaves free is transparent, as browsers show it; Pillow fills it with the palette's first colour. A
screen that the frame reaches beyond grows with it, in browsers as in Pillow.
"""

import io
import struct
from typing import Any, Final

import numpy as np
from PIL import Image

from renderer.pictures.colour import Pixels, from_pillow
from renderer.pictures.formats import Header, load

_HAS_PALETTE: Final = 0x80


def kind_of(data: bytes, image: Image.Image) -> str:
    """Return nothing, or that the first frame leaves its colours to the decoder: no two decoders take the same.

    Args:
        image: the same file, opened and not yet loaded.
    """
    (left, top, right, bottom), start = _frame(image)
    # The descriptor, without the bit of a palette of its own, and the byte before the pixels.
    place = struct.pack("<4H", left, top, right - left, bottom - top)
    is_bare = data[start - 11 : start - 2] == b"," + place and data[start - 2] < _HAS_PALETTE
    return "palette-less" if is_bare and data[10] < _HAS_PALETTE else ""


def read(data: bytes, header: Header) -> Pixels:
    """Decode the first frame.

    Returns:
        (H, W, 3) BGR, or (H, W, 4) BGRA where something is transparent or left free.
    """
    with Image.open(io.BytesIO(data), formats=("GIF",)) as image:
        (left, top, right, bottom), _ = _frame(image)
        load(image, header.size)
        if (left, top, right, bottom) == (0, 0, *image.size) and not image.has_transparency_data:
            return from_pillow(image.convert("RGB"))
        shown = from_pillow(image.convert("RGBA"))
    covered = np.zeros(shown.shape[:2], bool)
    covered[top:bottom, left:right] = True
    shown[~covered] = 0
    return shown


def _frame(image: Image.Image) -> tuple[tuple[int, int, int, int], int]:
    """Return left, top, right and bottom of the first frame on the screen, and where its pixels begin in the file."""
    tiles: list[Any] = getattr(image, "tile", [])
    return tiles[0].extents, tiles[0].offset
