"""More image files with the picture that each holds: what real writers and bad lines make beside the plain kinds.

Every one of them was shown wrongly once, or refused in words that were not true.
"""

import functools
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from tests.pictures import matrix
from tests.pictures.conftest import grey_profile
from tests.pictures.matrix import (
    HEIGHT,
    WIDTH,
    Array,
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
    tiff_by_hand,
    tiff_file,
)


@functools.cache
def samples() -> tuple[Sample, ...]:
    """Return the whole matrix, made once for all tests of a process."""
    m = matrix
    families = (
        m.png, m.png_colour, m.apng, m.tiff, m.tiff_refused, m.bmp, m.netpbm, m.jpeg2000, m.avif, m.heic, m.exr,
        m.webp, m.gif, m.jpeg, m.others, m.dpx, m.tga, m.ico, m.psd, m.refused,
        png, pam, tiff,
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


# TIFF: what writers do that the standard allows, or that everybody reads.


def ycc_units(
    rgb: Array, across: int, down: int, weights: tuple[float, ...] = (0.299, 0.587, 0.114), *, limited: bool = False
) -> bytes:
    """Y, Cb and Cr in units of so many pixels (TIFF 6.0, section 21)."""
    red, green, blue = np.moveaxis(rgb.astype(float), -1, 0)
    luma = weights[0] * red + weights[1] * green + weights[2] * blue
    cb, cr = (blue - luma) / (2 - 2 * weights[2]), (red - luma) / (2 - 2 * weights[0])
    scaled = (
        [16 + luma * 219 / 255, 128 + cb * 112 / 127, 128 + cr * 112 / 127] if limited else [luma, cb + 128, cr + 128]
    )
    ycc = np.clip(np.rint(np.dstack(scaled)), 0, 255)
    rows, columns = -(-HEIGHT // down) * down, -(-WIDTH // across) * across
    padded = np.pad(ycc, ((0, rows - HEIGHT), (0, columns - WIDTH), (0, 0)), mode="edge")
    units = padded.reshape(rows // down, down, columns // across, across, 3)
    lumas = units[..., 0].transpose(0, 2, 1, 3).reshape(rows // down, columns // across, -1)
    return np.concatenate([lumas, np.rint(units[..., 1:].mean((1, 3)))], -1).astype(np.uint8).tobytes()


def bigtiff(big_endian: bool, values: Array, **options: Any) -> bytes:
    return tiff_file(values, bigtiff=True, byteorder=">" if big_endian else "<", **options)


def tiff() -> Iterator[Sample]:
    rgb, one = quantised(gradient(), 8).astype(np.uint8), quantised(grey(), 8).astype(np.uint8)
    alpha = quantised(opacity(), 8).astype(np.uint8)
    shown, over = as_shown(rgb, 255), as_shown(one, 255) * opacity()[..., None]
    backwards = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
    order = (266, 3, (2,))
    for bits in (1, 2, 4, 8):
        index = quantised(grey(), bits)
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint16)
        rows, seen = packed_rows(index, bits), palette[index].astype(float)
        sixteen, eight = ((320, 3, tuple((palette.T * scale).ravel())) for scale in (257, 1))
        options: dict[str, Any] = {"bits": (bits,), "photometric": 3}
        reversed_bits = tiff_by_hand([rows.translate(backwards)], more=[order, sixteen], **options)
        yield Sample(f"tiff palette {bits} reversed bits", reversed_bits, seen)
        yield Sample(f"tiff palette {bits} of 8 bits", tiff_by_hand([rows], more=[eight], **options), seen)
        short = (320, 3, sixteen[2][:-3])
        yield Sample(f"tiff palette {bits} short", tiff_by_hand([rows], more=[short], **options), None)
    inverted = np.dstack([255 - one, alpha])
    yield Sample(
        "tiff inverted grey alpha",
        tiff_by_hand([inverted.tobytes()], bits=(8, 8), photometric=0, more=[(338, 3, (2,))]),
        over,
    )
    yield Sample(
        "tiff inverted float", tiff_file(1 - grey().astype("f4"), photometric="miniswhite"), as_shown(coded(grey()))
    )
    both = np.dstack([one, alpha]).tobytes()
    yield Sample("tiff grey alpha not said", tiff_by_hand([both], bits=(8, 8), photometric=1), over)
    yield Sample("tiff rgb alpha said of nothing", tiff_by_hand([rgb.tobytes()], more=[(338, 3, (2,))]), shown)
    for dtype, (name, times) in itertools.product(
        ("u1", "u2", "f4", "f8"), (("straight", False), ("associated", True))
    ):
        most = 1.0 if dtype[0] == "f" else float(np.iinfo(dtype).max)
        planes = np.stack([grey() * (opacity() if times else 1), opacity()])
        stored = (planes if most == 1 else np.rint(planes * most)).astype(dtype)
        options = {
            "photometric": "minisblack",
            "planarconfig": "separate",
            "extrasamples": ["assocalpha" if times else "unassalpha"],
        }
        yield Sample(
            f"tiff planar grey alpha {dtype} {name}",
            tiff_file(stored, **options),
            as_shown(coded(grey()) if most == 1 else grey()) * opacity()[..., None],
        )
    for is_big_endian, planar in itertools.product((False, True), (False, True)):
        name = f"bigtiff {'big' if is_big_endian else 'little'} endian{' planar' if planar else ''}"
        values = np.moveaxis(rgb, -1, 0) if planar else rgb
        options = {"photometric": "rgb", "planarconfig": "separate" if planar else "contig", "rowsperstrip": 7}
        yield Sample(f"{name} raw", bigtiff(is_big_endian, values, **options), shown)
        yield Sample(f"{name} zlib", bigtiff(is_big_endian, values, compression="zlib", **options), shown)
    whole = tiff_by_hand([rgb.tobytes()])
    for tag in (256, 257, 262, 277, 278):
        place = whole.rindex(struct.pack("<HH", tag, 4 if tag in (256, 257, 278) else 3))
        as_byte = whole[:place] + struct.pack("<HH", tag, 1) + whole[place + 4 :]
        yield Sample(f"tiff tag {tag} of a byte", as_byte, shown)
    yield from tiff_ycc(rgb)
    yield from tiff_parts()
    inks = np.dstack([255 - rgb, np.zeros_like(one)]).tobytes()
    options = {"bits": (8,) * 4, "photometric": 5}
    yield Sample("tiff special inks", tiff_by_hand([inks], more=[(332, 3, (2,))], **options), None, "special-ink TIFF")
    yield Sample("tiff rgb of one channel", tiff_by_hand([one.tobytes()], bits=(8,)), None)
    directory = struct.pack("<HHHII", 1, 256, 4, 1, 9) + bytes(4)
    canon = b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + directory
    yield Sample("raw canon", canon, None, "camera raw (Canon CR2)")
    mosaic = struct.pack("<HHHIIHHII", 2, 256, 4, 1, 9, 262, 3, 1, 32803) + bytes(4)
    holder = tiff_by_hand([rgb.tobytes() + mosaic], more=[(330, 4, (8 + rgb.nbytes,))])
    yield Sample("raw mosaic beside a picture", holder, None, "camera raw")


def tiff_ycc(rgb: Array) -> Iterator[Sample]:
    blocks = rgb[::4, ::4].repeat(4, 0).repeat(4, 1)[:HEIGHT, :WIDTH]
    for (across, down), (name, coding, packed) in itertools.product(
        ((1, 1), (2, 1), (1, 2), (2, 2), (4, 2), (4, 4)), (("raw", 1, bytes), ("deflate", 8, zlib.compress))
    ):
        body = ycc_units(blocks, across, down)
        options: dict[str, Any] = {"photometric": 6, "compression": coding, "more": [(530, 3, (across, down))]}
        kind = f"tiff ycbcr {across}x{down} {name}"
        yield Sample(kind, tiff_by_hand([packed(body)], **options), as_shown(blocks, 255))
        yield Sample(f"{kind} cut", tiff_by_hand([packed(body[: len(body) // 2])], **options), None)

    plain = {"photometric": 6, "compression": 8}
    halved = (530, 3, (2, 2))
    for weights, limited in itertools.product(((0.299, 0.587, 0.114), (0.2126, 0.7152, 0.0722)), (False, True)):
        body = zlib.compress(ycc_units(blocks, 2, 2, weights, limited=limited))
        more = [(529, 5, tuple(part for weight in weights for part in (round(weight * 10000), 10000))), halved]
        levels = (16, 235, 128, 240, 128, 240) if limited else (0, 255, 128, 255, 128, 255)
        more.append((532, 5, tuple(part for level in levels for part in (level, 1))))
        name = f"tiff ycbcr weights {weights[0]}{' limited' if limited else ''}"
        yield Sample(name, tiff_by_hand([body], more=more, **plain), as_shown(blocks, 255))
    yield Sample("tiff ycbcr thirds", tiff_by_hand([body], more=[(530, 3, (3, 1))], **plain), None)


def tiff_parts() -> Iterator[Sample]:
    """Strips that are not there; a decoder shows what is in memory instead, or the file's own header."""
    for dtype in ("u1", "u2", "f4"):
        values = gradient() if dtype[0] == "f" else np.rint(gradient() * np.iinfo(dtype).max)
        parts = [values[top : top + 9].astype(f"<{dtype}").tobytes() for top in range(0, HEIGHT, 9)]
        more = [(339, 3, (3 if dtype[0] == "f" else 1,) * 3)]
        file = tiff_by_hand(parts, bits=(np.dtype(dtype).itemsize * 8,) * 3, more=more)
        file = file.replace(struct.pack("<HHII", 278, 4, 1, HEIGHT), struct.pack("<HHII", 278, 4, 1, 9))
        shown = as_shown(coded(values)) if dtype[0] == "f" else as_shown(values, np.iinfo(dtype).max)
        yield Sample(f"tiff strips {dtype}", file, shown)
        few = file
        for tag in (273, 279):
            few = few.replace(struct.pack("<HHI", tag, 4, 5), struct.pack("<HHI", tag, 4, 4))
        yield Sample(f"tiff strips {dtype} too few", few, None)
        starts = struct.pack("<5I", *(8 + sum(map(len, parts[:index])) for index in range(5)))
        sparse = file.replace(starts, starts[:8] + bytes(4) + starts[12:])
        yield Sample(f"tiff strips {dtype} left out", sparse, None, "sparse TIFF")
        outside = file.replace(starts, starts[:8] + struct.pack("<I", 1 << 30) + starts[12:])
        yield Sample(f"tiff strips {dtype} outside", outside, None)
