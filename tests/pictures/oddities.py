"""More image files with the picture that each holds: what real writers and bad lines make beside the plain kinds.

Every one of them was shown wrongly once, or refused in words that were not true.
"""

import functools
import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image

from tests.pictures import matrix, standards
from tests.pictures.conftest import P3, grey_profile, rgb_profile
from tests.pictures.matrix import (
    HEIGHT,
    WIDTH,
    Array,
    Sample,
    as_shown,
    bmp_file,
    bmp_info,
    bmp_rows,
    box,
    chunk,
    coded,
    gradient,
    grey,
    icon,
    opacity,
    packed_rows,
    png_file,
    quantised,
    tiff_by_hand,
    tiff_file,
)


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
    body = zlib.compress(ycc_units(blocks, 2, 2))
    nothing = [(529, 5, (1, 0) * 3), halved]
    yield Sample("tiff ycbcr weights of nothing", tiff_by_hand([body], more=nothing, **plain), as_shown(blocks, 255))
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


# BMP: run-length coding as real writers have it, and what stands around the rows.


def bmp() -> Iterator[Sample]:
    palette = np.random.default_rng(3).integers(0, 256, (256, 4), dtype=np.uint8)
    colours = palette[:, 2::-1].astype(float)
    for bits, compression in ((8, 1), (4, 2)):
        info = bmp_info(bits, compression=compression)
        entries = palette[: 1 << bits].tobytes()
        index = np.zeros((HEIGHT, WIDTH), int)
        index[-1, :10] = 9
        index[-3, 15:23] = 7
        index[-4, :4] = 5
        index[-7, 4:7] = (1, 2, 3)
        double = 1 if bits == 8 else 17  # a byte of both halves
        literal = b"\0\3\1\2\3\0" if bits == 8 else b"\0\3\x12\x30"
        runs = bytes((10, 9 * double)) + b"\0\2\5\2" + bytes((8, 7 * double)) + b"\0\0" + bytes((4, 5 * double))
        moved = runs + b"\0\2\0\3" + literal
        yield Sample(f"bmp rle {bits} moves", bmp_file(info, moved + b"\0\1", entries), colours[index])
        yield Sample(f"bmp rle {bits} ends early", bmp_file(info, moved, entries), None)
        yield Sample(f"bmp rle {bits} ends at once", bmp_file(info, b"\0\1", entries), colours[index * 0])
        line = bytes((64, 3 * double)) + b"\0\0"  # the padding of the plain rows is coded too
        yield Sample(f"bmp rle {bits} padded", bmp_file(info, line * HEIGHT, entries), colours[index * 0 + 3])
        line = bytes((200, 3 * double)) + b"\0\0"
        yield Sample(f"bmp rle {bits} too long", bmp_file(info, line * HEIGHT, entries), colours[index * 0 + 3])
        short = bytes((20, 3 * double)) + b"\0\0"
        some = np.where(np.arange(WIDTH) < 20, 3, 0)[None].repeat(HEIGHT, 0)
        yield Sample(f"bmp rle {bits} short lines", bmp_file(info, short * HEIGHT, entries), colours[some])
        literals = b"".join(
            b"\0"
            + bytes((WIDTH,))
            + packed_rows(row[None], bits)
            + bytes(-len(packed_rows(row[None], bits)) % 2)
            + b"\0\0"
            for row in quantised(grey(), bits)[::-1]
        )
        shown = colours[quantised(grey(), bits)]
        yield Sample(f"bmp rle {bits} literals", bmp_file(info, literals + b"\0\1", entries), shown)
    rgb = quantised(gradient(), 8)
    body = bmp_rows(rgb[..., ::-1].reshape(HEIGHT, -1), 24)
    profile = rgb_profile(P3)
    header = bytearray(bmp_info(24, length=124))
    header[56:60] = b"DEBM"
    struct.pack_into("<II", header, 112, 124 + len(body), len(profile))
    yield Sample("bmp profile", bmp_file(bytes(header), body + profile), standards.shown_p3(rgb / 255))
    whole = bmp_file(bmp_info(24), body)
    yield Sample("bmp last padding left out", whole[:-1], as_shown(rgb, 255))
    yield Sample("bmp last pixel left out", whole[:-2], None)
    yield Sample("bmp beginning not said", whole[:10] + bytes(4) + whole[14:], as_shown(rgb, 255))
    none = bmp_info(32, length=56, compression=3, masks=(0, 0, 0, 0))
    yield Sample("bmp no masks", bmp_file(none, bytes(4 * WIDTH * HEIGHT)), None)
    yield Sample("bmp array", b"BA" + bytes(12) + whole, None, "an OS/2 bitmap array")


# ICO: headers that are longer, bit fields, and directories that are wrong about lengths.


def icons() -> Iterator[Sample]:
    rgb, alpha = quantised(gradient(), 8).astype(np.uint8), quantised(opacity(), 8).astype(np.uint8)
    clear = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    shown = as_shown(rgb, 255)
    masked, over = np.where(clear[..., None], 0, shown), shown * (alpha / 255)[..., None]
    rgba = np.dstack([rgb, alpha])[::-1].tobytes()
    bgra = np.dstack([rgb[..., ::-1], alpha])[::-1].tobytes()
    fields = (0xFF, 0xFF00, 0xFF0000, 0xFF000000)
    for length in (40, 52, 56, 108, 124):
        for name, bits, rows, masks, seen in (
            ("24", 24, bmp_rows(rgb[..., ::-1].reshape(HEIGHT, -1), 24), (), masked),
            ("32", 32, bgra, (), over if length < 56 else masked),
            ("32 fields", 32, rgba, fields, over if length >= 56 else masked),
            ("32 fields without alpha", 32, rgba, (*fields[:3], 0), masked),
        ):
            yield Sample(f"ico header {length} of {name}", icon((icon_of(length, bits, rows, masks), bits, 61)), seen)
    plain = icon((icon_of(40, 32, bgra), 32, 61))
    png_body = icon((png_file(8, 6, packed_rows(np.dstack([rgb, alpha]), 8, lead=b"\0")), 32, 61))
    for file, name in ((plain, "bitmap"), (png_body, "png")):
        for told in (0, 40, WIDTH * HEIGHT * 4, len(file)):
            wrong = file[:14] + struct.pack("<I", told) + file[18:]
            yield Sample(f"ico {name} of {told} bytes in the directory", wrong, over)
    for place, value, words in (
        (22, struct.pack("<I", 12), "an icon whose bitmap has a header of 12 bytes"),
        (30, struct.pack("<i", -2 * HEIGHT), "an icon whose rows begin above"),
        (36, struct.pack("<H", 2), "an icon whose bitmap has 2 bits, compression 0 and a height of 90"),
    ):
        yield Sample(words, plain[:place] + value + plain[place + len(value) :], None, words)
    profiled = bytearray(icon((icon_of(124, 32, bgra), 32, 61)))
    profiled[22 + 56 : 22 + 60] = b"DEBM"
    yield Sample("ico profile", bytes(profiled), None, "an icon whose bitmap has a colour profile")


def icon_of(length: int, bits: int, rows: bytes, masks: tuple[int, ...] = ()) -> bytes:
    """A bitmap with its mask, under a header of so many bytes; masks for which that has no room stand behind it."""
    clear = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    head = struct.pack("<IiiHHIIiiII", length, WIDTH, 2 * HEIGHT, 1, bits, 3 if masks else 0, 0, 0, 0, 0, 0)
    stored = struct.pack(f"<{len(masks)}I", *masks)
    room = (stored + bytes(length))[: length - 40] if length > 40 else stored[:12]
    return head + room + rows + bmp_rows(clear, 1)


# JPEG: what stands around the scans.


def jpeg() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=95)
    whole = file.getvalue()
    height = whole.index(struct.pack(">BHH", 8, HEIGHT, WIDTH)) + 1
    unsaid = whole[:height] + b"\0\0" + whole[height + 2 :]
    yield Sample("jpeg no height", unsaid, None)
    later = unsaid[:-2] + struct.pack(">4sH", b"\xff\xdc\0\4", HEIGHT) + unsaid[-2:]
    yield Sample("jpeg height after the pixels", later, None, "JPEG that names its height after its pixels (DNL)")
    file = io.BytesIO()
    Image.fromarray(np.dstack([255 - rgb, rgb[..., 0] * 0]), "CMYK").save(file, "JPEG", quality=100, subsampling=0)
    marked = file.getvalue()
    start = marked.index(b"\xff\xee")
    bare = marked[:start] + marked[start + 16 :]  # inverted all the same, to ImageMagick, ffmpeg and browsers
    yield Sample("jpeg cmyk without adobe's marker", bare, as_shown(rgb, 255))


# GIF: first frames that are not as large as the screen.


def gif_file(screen: tuple[int, int], place: tuple[int, int], *, palette: str = "global", **options: Any) -> bytes:
    """A part of the plain GIF, 30x20, somewhere on a screen.

    Args:
        palette: "global", "local" or "none".
    """
    image = Image.fromarray(quantised(grey(), 8).astype(np.uint8)[:20, :30], "P")
    image.putpalette(gif_palette().tobytes())
    file = io.BytesIO()
    image.save(file, "GIF", optimize=False, **options)
    whole = file.getvalue()
    extensions, pixels = whole[13 + 768 :].split(struct.pack("<c4H", b",", 0, 0, 30, 20))
    head = whole[:6] + struct.pack("<HHBBB", *screen, 0xF7 if palette == "global" else 0x70, 5, 0)
    placed = extensions + struct.pack("<c4HB", b",", *place, 30, 20, pixels[0] | (0x87 if palette == "local" else 0))
    before, between = (whole[13 : 13 + 768], b"") if palette == "global" else (b"", whole[13 : 13 + 768])
    return head + before + placed + (between if palette != "none" else b"") + pixels[1:]


def gif_palette() -> Array:
    return np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)


def gif() -> Iterator[Sample]:
    part = quantised(grey(), 8).astype(np.uint8)[:20, :30]
    screens = {"within": ((WIDTH, HEIGHT), (11, 7)), "beyond": ((40, HEIGHT), (31, 7)), "outside": ((20, 9), (31, 25)),
               "of nothing": ((0, 0), (0, 0))}  # fmt: skip
    for (name, (screen, place)), palette, clear in itertools.product(
        screens.items(), ("global", "local"), (None, int(part[3, 4]))
    ):
        size = [max(screen[axis], place[axis] + (30, 20)[axis]) for axis in (0, 1)]
        shown = np.zeros((size[1], size[0], 3))
        colours = np.where((part == clear)[..., None], 0, gif_palette()[part])
        shown[place[1] : place[1] + 20, place[0] : place[0] + 30] = colours
        options: dict[str, Any] = {} if clear is None else {"transparency": clear}
        for interlace in (0, 1):
            words = f"{palette}{'' if clear is None else ' transparent'}{' interlaced' if interlace else ''}"
            data = gif_file(screen, place, palette=palette, interlace=interlace, **options)
            yield Sample(f"gif {name}, {words}", data, shown)
    yield Sample("gif no palette", gif_file((30, 20), (0, 0), palette="none"), None, "a palette-less GIF")


# JPEG 2000: boxes that say what the components are.


def jp2(components: Array, *boxes_of_header: bytes, bits: int = 8, lead: bytes = b"") -> bytes:
    stream = bytes(
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(components.astype(np.uint8)), codecformat="j2k", bitspersample=bits, reversible=True,
            level=0, mct=False,
        )
    )  # fmt: skip
    count = 1 if components.ndim == 2 else components.shape[2]
    header = box(b"ihdr", struct.pack(">IIHBBBB", HEIGHT, WIDTH, count, bits - 1, 7, 0, 0)) + b"".join(boxes_of_header)
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + lead
    return head + box(b"jp2h", header) + box(b"jp2c", stream)


def space(number: int) -> bytes:
    return box(b"colr", struct.pack(">BBBI", 1, 0, 0, number))


def roles(*channels: tuple[int, int, int]) -> bytes:
    return box(b"cdef", struct.pack(">H", len(channels)) + b"".join(struct.pack(">HHH", *each) for each in channels))


def jpeg2000() -> Iterator[Sample]:
    rgb, one, alpha = quantised(gradient(), 8), quantised(grey(), 8), quantised(opacity(), 8)
    shown, over = as_shown(rgb, 255), as_shown(rgb, 255) * (alpha / 255)[..., None]
    p3, dim = (box(b"colr", b"\2\0\0" + profile) for profile in (rgb_profile(P3), grey_profile(1.8)))
    wide, light = standards.shown_p3(rgb / 255), as_shown(coded((one / 255) ** 1.8))
    yield Sample("jp2 profile", jp2(rgb, p3), wide)
    yield Sample("jp2 grey profile", jp2(one, dim), light)
    yield Sample("jp2 grey alpha profile", jp2(np.dstack([one, alpha]), dim), light * (alpha / 255)[..., None])
    yield Sample("jp2 space before profile", jp2(rgb, space(16), p3), shown)
    yield Sample("jp2 unknown space before profile", jp2(rgb, space(99), p3), wide)
    usual = ((0, 0, 1), (1, 0, 2), (2, 0, 3))
    yield Sample("jp2 bgr", jp2(rgb[..., ::-1], space(16), roles((0, 0, 3), (1, 0, 2), (2, 0, 1))), shown)
    first = roles((0, 1, 0), (1, 0, 1), (2, 0, 2), (3, 0, 3))
    yield Sample("jp2 alpha first", jp2(np.dstack([alpha, rgb]), space(16), first), over)
    times = np.rint(rgb * (alpha / 255)[..., None])
    yield Sample("jp2 premultiplied", jp2(np.dstack([times, alpha]), space(16), roles(*usual, (3, 2, 0))), over)
    dark = np.rint(one * (alpha / 255))
    both = jp2(np.dstack([dark, alpha]), space(17), roles((0, 0, 1), (1, 2, 0)))
    yield Sample("jp2 grey premultiplied", both, as_shown(dark, 255))
    odd = roles(*usual, (3, 65535, 65535))
    yield Sample("jp2 of no meaning", jp2(np.dstack([rgb, alpha]), space(16), odd), shown)
    palette = np.random.default_rng(8).integers(0, 256, (256, 4), dtype=np.uint8)
    for bits in range(1, 9):
        index, count = quantised(grey(), bits), 1 << bits
        entries = box(b"pclr", struct.pack(">HB", count, 3) + b"\7\7\7" + palette[:count, :3].tobytes())
        for name, columns in (("", (0, 1, 2)), (" backwards", (2, 1, 0))):
            uses = box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in columns))
            data = jp2(index, space(16), entries, uses, bits=bits)
            yield Sample(f"jp2 palette {bits}{name}", data, palette[index][..., list(columns)].astype(float))
    four = box(b"pclr", struct.pack(">HB", 256, 4) + b"\7" * 4 + palette.tobytes())
    uses = box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(4)))
    data = jp2(one, space(16), four, uses, roles(*usual, (3, 1, 0)))
    yield Sample("jp2 palette alpha", data, palette[one][..., :3] * (palette[one][..., 3:] / 255))
    grey_entries = box(b"pclr", struct.pack(">HB", 256, 1) + b"\7" + palette[:, 0].tobytes())
    data = jp2(one, space(17), grey_entries, box(b"cmap", struct.pack(">HBB", 0, 1, 0)))
    yield Sample("jp2 palette of greys", data, as_shown(palette[one][..., 0], 255))
    short = box(b"pclr", struct.pack(">HB", 100, 3) + b"\7\7\7" + palette[:100, :3].tobytes())
    yield Sample("jp2 palette short", jp2(one, space(16), short), None)
    for number, words in ((12, "CMYK JPEG 2000"), (14, "Lab JPEG 2000")):
        count = 4 if number == 12 else 3
        yield Sample(f"jp2 {words}", jp2(np.dstack([rgb, alpha])[..., :count], space(number)), None, words)
    lure = box(b"uuid", bytes(16) + b"\xff\x4f\xff\x51" + bytes(60))
    yield Sample("jp2 another's codestream", jp2(rgb, space(16), lead=lure), shown)
    for (shift, words), values in itertools.product(
        ((7, ""), (25, "region of interest")), (rgb, np.dstack([rgb, alpha]))
    ):
        count = values.shape[2]
        regions = b"".join(struct.pack(">HHBBB", 0xFF5E, 5, component, 0, shift) for component in range(count))
        stream = jp2(values)
        start, tile = stream.index(b"\xff\x4f\xff\x51"), stream.index(b"\xff\x90\0\x0a")
        data = stream[start:tile] + regions + stream[tile:]  # bit planes are counted from the top: all is the region
        seen = None if words else shown if count == 3 else over
        yield Sample(f"jp2 region of interest {shift} of {count}", data, seen, words)


# AVIF: what its boxes ask for.


def with_property(data: bytes, kind: bytes, content: bytes) -> bytes:
    """Put a property into the boxes of Pillow's file, for all that is there; the pixels move by as much."""
    added = box(kind, content)
    for parent in (b"meta", b"iprp", b"ipco"):
        place = data.index(parent) - 4
        data = (
            data[:place]
            + struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + len(added))
            + data[place + 4 :]
        )
    place = data.index(b"ipco") - 4
    end = place + int.from_bytes(data[place : place + 4], "big") - len(added)
    return data[:end] + added + data[end:]


def avif() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8).astype(np.uint8)
    for value_range in ("full", "limited"):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "AVIF", quality=100, subsampling="4:4:4", range=value_range)
        whole = file.getvalue()
        for name, numbers, part in (
            ("middle", (41, 1, 25, 1, 0, 1, 0, 1), (slice(10, 35), slice(10, 51))),
            ("corner", (41, 1, 25, 1, -10, 1, -10, 1), (slice(0, 25), slice(0, 41))),
        ):
            cut = moved_pixels(with_property(whole, b"clap", struct.pack(">4I4i", *numbers)), 40)
            yield Sample(f"avif aperture {name} {value_range}", cut, as_shown(rgb[part], 255))
        for numbers in ((40, 1, 25, 1, 0, 1, 0, 1), (41, 0, 25, 1, 0, 1, 0, 1), (99, 1, 25, 1, 0, 1, 0, 1)):
            cut = moved_pixels(with_property(whole, b"clap", struct.pack(">4I4i", *numbers)), 40)
            yield Sample(f"avif aperture {numbers[:2]} {value_range}", cut, None, "clean aperture")


def moved_pixels(data: bytes, by: int) -> bytes:
    """Say in the item locations (ISO/IEC 14496-12, 8.11.3, as Pillow writes them) that the pixels lie further on."""
    place = data.index(b"iloc") + 4
    (count,) = struct.unpack_from(">H", data, place + 6)
    out = bytearray(data)
    for item in range(count):
        at = place + 8 + 14 * item + 6
        struct.pack_into(">I", out, at, struct.unpack_from(">I", data, at)[0] + by)
    return bytes(out)


# Sun raster: rasterfile(5).


def sun_file(bits: int, rows: list[bytes], *, coding: int = 1, palette: bytes = b"") -> bytes:
    body = b"".join(row + bytes(len(row) % 2) for row in rows)
    if coding == 2:
        body = b"".join(sun_runs(body))
    head = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, bits, len(body), coding, bool(palette), len(palette))
    return head + palette + body


def sun_runs(body: bytes) -> Iterator[bytes]:
    for value, run in itertools.groupby(body):
        count = len(list(run))
        for left in range(count, 0, -256):
            many = min(left, 256)
            yield (
                bytes((128, many - 1, value))
                if many > 2
                else b"\x80\0" * many
                if value == 128
                else bytes((value,)) * many
            )


def sun_raster() -> Iterator[Sample]:
    rgb, one = quantised(gradient(), 8).astype(np.uint8), quantised(grey(), 8).astype(np.uint8)
    shown = as_shown(rgb, 255)
    bgr, pad = rgb[..., ::-1], np.full((HEIGHT, WIDTH, 1), 77, np.uint8)
    palette = np.random.default_rng(4).integers(0, 256, (256, 3), dtype=np.uint8)
    chequer = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    bits = np.packbits(np.pad(chequer, ((0, 0), (0, -WIDTH % 16))), axis=1)
    for coding in (0, 1, 2):
        name = f"sun {('old', 'plain', 'coded')[coding]}"
        yield Sample(f"{name} 24", sun_file(24, [row.tobytes() for row in bgr], coding=coding), shown)
        yield Sample(f"{name} 32", sun_file(32, [row.tobytes() for row in np.dstack([pad, bgr])], coding=coding), shown)
        yield Sample(f"{name} grey", sun_file(8, [row.tobytes() for row in one], coding=coding), as_shown(one, 255))
        colours = sun_file(8, [row.tobytes() for row in one], coding=coding, palette=palette.T.tobytes())
        yield Sample(f"{name} palette", colours, palette[one].astype(float))
        yield Sample(f"{name} bits", sun_file(1, [row.tobytes() for row in bits], coding=coding), as_shown(1 - chequer))
    yield Sample("sun red first 24", sun_file(24, [row.tobytes() for row in rgb], coding=3), shown)
    yield Sample("sun red first 32", sun_file(32, [row.tobytes() for row in np.dstack([pad, rgb])], coding=3), shown)
    yield Sample("sun cut", sun_file(24, [row.tobytes() for row in bgr])[:-9], None)
    yield Sample("sun coded cut", sun_file(24, [row.tobytes() for row in bgr], coding=2)[:-99], None)
    short = sun_file(8, [row.tobytes() for row in one], palette=palette[:100].T.tobytes())
    yield Sample("sun palette short", short, None)
    yield Sample("sun 4 bits", sun_file(4, [bytes(32)] * HEIGHT), None, "4-bit RGB Sun raster")
    yield Sample("sun of an odd type", sun_file(24, [bytes(183)] * HEIGHT, coding=5), None, "Sun raster of type 5")


# Radiance HDR: Ward, "Real Pixels", and the reference manual of Radiance.


def rgbe(linear: Array) -> Array:
    exponent = np.floor(np.log2(np.maximum(linear.max(-1), 1e-30))) + 1
    return np.dstack([np.floor(linear * (256 / 2.0**exponent)[..., None]), exponent + 128]).astype(np.uint8)


def rgbe_seen(stored: Array) -> Array:
    return stored[..., :3] * 2.0 ** (stored[..., 3:].astype(float) - 136)


def rgbe_planes(stored: Array) -> bytes:
    """Each row's four planes, in pieces of plain bytes and runs of two."""
    out = b""
    for row in stored:
        out += b"\2\2" + struct.pack(">H", len(row))
        for plane in row.T:
            pieces = [plane[at : at + 50].tobytes() for at in range(0, len(plane), 50)]
            out += b"".join(
                bytes((128 + len(each), each[0])) if len(set(each)) == 1 else bytes((len(each),)) + each
                for each in pieces
            )
    return out


def rgbe_runs(stored: Array) -> bytes:
    """The older coding: 1, 1, 1 and how often the pixel before comes again."""
    out = b""
    for row in stored:
        for pixel, run in itertools.groupby(row.tolist()):
            again = len(list(run)) - 1
            out += bytes(pixel) + (bytes((1, 1, 1, again)) if again else b"")
    return out


def radiance() -> Iterator[Sample]:
    stored = rgbe(0.02 + gradient())
    shown = as_shown(coded(np.clip(rgbe_seen(stored), 0, 1)))
    lead, place = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n", b"-Y %d +X %d\n" % (HEIGHT, WIDTH)
    planes = rgbe_planes(stored)
    yield Sample("radiance planes", lead + place + planes, shown)
    yield Sample("radiance plain", lead + place + stored.tobytes(), shown)
    blocks = np.repeat(stored[:, ::8], 8, axis=1)[:, :WIDTH]
    seen = as_shown(coded(np.clip(rgbe_seen(blocks), 0, 1)))
    yield Sample("radiance older coding", lead + place + rgbe_runs(blocks), seen)
    narrow = lead + b"-Y %d +X 5\n" % HEIGHT + stored[:, :5].tobytes()
    yield Sample("radiance narrow", narrow, shown[:, :5])
    axes = {
        b"-Y %d -X %d": shown[:, ::-1], b"+Y %d +X %d": shown[::-1], b"+Y %d -X %d": shown[::-1, ::-1],
        b"+X %d -Y %d": shown.transpose(1, 0, 2), b"-X %d -Y %d": shown.transpose(1, 0, 2)[:, ::-1],
        b"+X %d +Y %d": shown.transpose(1, 0, 2)[::-1], b"-X %d +Y %d": shown.transpose(1, 0, 2)[::-1, ::-1],
    }  # fmt: skip
    for axis, turned in axes.items():
        yield Sample(f"radiance {axis[:10].decode()}", lead + axis % (HEIGHT, WIDTH) + b"\n" + planes, turned)
    spaced = b"#?RADIANCE\n# a note\nSOFTWARE=x\n\n-Y   %d +X\t%d\n" % (HEIGHT, WIDTH)
    yield Sample("radiance spaced", spaced + planes, shown)
    of_p3 = b"PRIMARIES= %s\n" % b" ".join(b"%g" % part for point in (*standards.P3, standards.D65) for part in point)
    wide = 255 * standards.srgb(standards.converted(rgbe_seen(stored), standards.P3))
    yield Sample("radiance primaries", b"#?RADIANCE\n" + of_p3 + b"\n" + place + planes, wide)
    other = lead.replace(b"rgbe", b"xyze")
    yield Sample("radiance of xyz", other + place + planes, None, "Radiance HDR image of the format 32-bit_rle_xyze")
    yield Sample("radiance cut", lead + place + planes[:-300], None)
    yield Sample("radiance older coding cut", lead + place + rgbe_runs(blocks)[:-300], None)
    beyond = lead + place + stored[0, :1].tobytes() + bytes((1, 1, 1, 200)) + stored.tobytes()
    yield Sample("radiance run beyond its row", beyond, None)


def named() -> Iterator[Sample]:
    for words, head in {
        "a Cineon image": b"\x80\x2a\x5f\xd7", "a JPEG XR image": b"II\xbc\1", "an SGI image": b"\x01\xda\1\1",
        "an MNG animation": b"\x8aMNG\r\n\x1a\n", "an X pixmap (XPM)": b"/* XPM */\nstatic char *",
        "an X bitmap (XBM)": b"#define a_width 61\n", "a thumbnail of xv": b"P7 332\n", "a float map": b"PF4\n61 45\n",
        "camera raw (Canon CRW)": b"II\x1a\0\0\0HEAPCCDR", "camera raw (Minolta MRW)": b"\0MRM",
        "a RAR archive": b"Rar!\x1a\7", "a video (MPEG)": b"\0\0\1\xba", "a DjVu document": b"AT&TFORM",
    }.items():  # fmt: skip
        yield Sample(f"named {words}", head + bytes(64), None, words)


_PLAIN = (
    matrix.png, matrix.png_colour, matrix.apng, matrix.tiff, matrix.tiff_refused, matrix.bmp, matrix.netpbm,
    matrix.jpeg2000, matrix.avif, matrix.heic, matrix.jxl, matrix.exr, matrix.webp, matrix.gif, matrix.jpeg,
    matrix.others, matrix.dpx, matrix.tga, matrix.ico, matrix.psd, matrix.refused,
)  # fmt: skip
_ODD = (png, pam, tiff, bmp, icons, jpeg, gif, jpeg2000, avif, sun_raster, radiance, named)
FAMILIES = {each.__name__: each for each in _PLAIN} | {f"odd {each.__name__}": each for each in _ODD}


@functools.cache
def of(family: str) -> tuple[Sample, ...]:
    """Return the files of a family, made when they are first asked for and once for all tests of a process."""
    return tuple(FAMILIES[family]())


def samples() -> Iterator[Sample]:
    """Yield the whole matrix."""
    for family in FAMILIES:
        yield from of(family)
