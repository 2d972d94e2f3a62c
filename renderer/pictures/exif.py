"""The orientation in EXIF data, which is all that a still needs of it (EXIF 2.32, 4.6.4)."""

import struct
from typing import Final

from PIL import Image

ORIENTATION: Final = 274


def orientation_of(exif: object) -> int:
    """Return the orientation in a block of EXIF, 1 to 8; 1 if it is missing or invalid."""
    if not isinstance(exif, bytes):
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        value = tags.get(ORIENTATION)
    except (SyntaxError, ValueError, LookupError, TypeError, OverflowError, OSError, struct.error):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
