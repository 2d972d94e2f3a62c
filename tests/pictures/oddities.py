"""More image files with the picture that each holds: what real writers and bad lines make beside the plain kinds.

Every one of them was shown wrongly once, or refused in words that were not true.
"""

import functools
import itertools
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.pictures import matrix
from tests.pictures.conftest import grey_profile
from tests.pictures.matrix import (
    HEIGHT,
    WIDTH,
    Sample,
    as_shown,
    chunk,
    coded,
    gradient,
    grey,
    opacity,
    packed_rows,
    png_file,
    quantised,
)


@functools.cache
def samples() -> tuple[Sample, ...]:
    """Return the whole matrix, made once for all tests of a process."""
    m = matrix
    families = (
        m.png, m.png_colour, m.apng, m.tiff, m.tiff_refused, m.bmp, m.netpbm, m.jpeg2000, m.avif, m.heic, m.exr,
        m.webp, m.gif, m.jpeg, m.others, m.dpx, m.tga, m.ico, m.psd, m.refused,
        png, pam,
    )  # fmt: skip
    return tuple(sample for family in families for sample in family())


def png() -> Iterator[Sample]:
    """Orders and damage that real writers and bad lines make."""
    rgb, one = quantised(gradient(), 8), quantised(grey(), 8)
    body, shown = packed_rows(rgb, 8, lead=b"\0"), as_shown(rgb, 255)
    both = packed_rows(np.dstack([one, quantised(opacity(), 8)]), 8, lead=b"\0")
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(grey_profile(1.8)))
    light = as_shown(coded((one / 255) ** 1.8))
    key = chunk(b"tRNS", struct.pack(">H", int(one[5, 5])))
    keyed = np.where((one == one[5, 5])[..., None], 0, light)
    plain = packed_rows(one, 8, lead=b"\0")
    yield Sample("png grey profile", png_file(8, 0, plain, profile), light)
    yield Sample("png grey profile and alpha", png_file(8, 4, both, profile), light * opacity()[..., None])
    yield Sample("png grey profile and colour key", png_file(8, 0, plain, profile, key), keyed)
    whole, end = png_file(8, 2, body), chunk(b"IEND", b"")
    exif = Image.Exif()
    exif[274] = 6
    turned = chunk(b"eXIf", exif.tobytes()[6:])
    yield Sample("png turned after the pixels", whole[: -len(end)] + turned + end, np.rot90(shown, -1))
    yield Sample("png turned, damaged", png_file(8, 2, body, turned[:-1] + b"x"), shown)
    linear = chunk(b"gAMA", struct.pack(">I", 100000))
    yield Sample("png gamma, damaged", png_file(8, 2, body, linear[:-1] + b"x"), shown)
    yield Sample("png gamma after the pixels", whole[: -len(end)] + linear + end, shown)
    yield Sample("png colour key, damaged", png_file(8, 0, plain, key[:-1] + b"x"), None)
    palette = chunk(b"PLTE", bytes(768))
    clear = chunk(b"tRNS", bytes(256))
    yield Sample("png palette alpha, damaged", png_file(8, 3, plain, palette, clear[:-1] + b"x"), None)
    apple = whole[:8] + chunk(b"CgBI", b"\x50\0\x20\2") + whole[8:]
    yield Sample("png of an iphone", apple, None, "PNG that Xcode has changed for iPhones (CgBI)")
    for place, words in ((26, "compression 1"), (27, "filters 1"), (28, "interlace 2")):
        header = bytearray(whole[12:29])
        header[place - 12] = 2 if place == 28 else 1
        yield Sample(f"png {words}", whole[:8] + chunk(b"IHDR", bytes(header[4:])) + whole[33:], None, words)


def pam() -> Iterator[Sample]:
    alpha = opacity()
    kinds = {
        "GRAYSCALE": (grey()[..., None], False), "GRAYSCALE_ALPHA": (np.dstack([grey(), alpha]), True),
        "RGB": (gradient(), False), "RGB_ALPHA": (np.dstack([gradient(), alpha]), True),
    }  # fmt: skip
    for most, (words, (values, has_alpha)) in itertools.product((100, 255, 4095, 65535), kinds.items()):
        stored = np.rint(values * most)
        colour = stored[..., : 1 if values.shape[2] < 3 else 3] / most
        shown = np.broadcast_to(255 * colour, (HEIGHT, WIDTH, 3)) * (stored[..., -1:] / most if has_alpha else 1)
        head = b"P7\n# made for a test\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n"
        lead = head % (WIDTH, HEIGHT, values.shape[2], most, words.encode())
        yield Sample(f"pam {words} {most}", lead + stored.astype(">u2" if most > 255 else "u1").tobytes(), shown)
    chequer = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    yield Sample("pam bitmap", head % (WIDTH, HEIGHT, 1, 1, b"BLACKANDWHITE") + chequer.tobytes(), as_shown(chequer))
    yield Sample("pam of 5", head % (WIDTH, HEIGHT, 5, 255, b"X") + bytes(WIDTH * HEIGHT * 5), None, "5-channel Netpbm")
