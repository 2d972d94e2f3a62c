"""Image files of every shape that the table of formats speaks of, each with the picture that it holds.

They are made here from one gradient, most of them byte by byte, so that what is right is known without any decoder.
`oddities` has more, and all of them together.
Where a codec is lossy, the picture is what an independent decoder (imagecodecs) makes of the bytes.
"""

import contextlib
import io
import itertools
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import OpenEXR
import pillow_heif
import tifffile
from PIL import Image

from renderer.pictures.formats import DECODERS
from tests.pictures import standards
from tests.pictures.conftest import P3 as P3_COLUMNS
from tests.pictures.conftest import rgb_profile

Array = npt.NDArray[Any]

WIDTH, HEIGHT = 61, 45  # odd, and no multiple of a strip or a tile


@dataclass(frozen=True, slots=True)
class Sample:
    """One file.

    Attributes:
        shows: (H, W, 3) RGB, 0 to 255, over a black background; None where the file has to be refused.
        refusal: words that the refusal has to contain.
    """

    name: str
    data: bytes
    shows: Array | None = None
    refusal: str = ""


def gradient() -> Array:
    """(H, W, 3) float, 0 to 1: red grows to the right, green downwards, blue falls to the right."""
    across = np.tile(np.linspace(0, 1, WIDTH), (HEIGHT, 1))
    down = np.tile(np.linspace(0, 1, HEIGHT)[:, None], (1, WIDTH))
    return np.dstack([across, down, 1 - across * 0.7])


def grey() -> Array:
    return gradient()[..., 0]


def mild() -> Array:
    """The gradient in colours that BT.709 has too when they are BT.2020's: beyond them a codec's loss looks large."""
    return 0.3 + 0.4 * grey()[..., None] + 0.06 * (gradient() - 0.5)


def opacity() -> Array:
    """(H, W) float: transparent above, opaque below."""
    return np.tile(np.linspace(0, 1, HEIGHT)[:, None], (1, WIDTH))


def quantised(values: Array, bits: int) -> Array:
    most = (1 << bits) - 1
    return np.rint(values * most).astype(np.uint32)


def as_shown(values: Array, most: float = 1.0) -> Array:
    """Return RGB, 0 to 255, of grey or RGB samples."""
    shown = np.asarray(values, float) / most * 255
    return np.repeat(shown[..., None], 3, -1) if shown.ndim == 2 else shown


def coded(linear: Array) -> Array:
    """IEC 61966-2-1: linear light as sRGB, 0 to 1."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(linear, 1 / 2.4) - 0.055)


# PNG: ISO/IEC 15948.


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(
    depth: int, colour: int, body: bytes, *chunks: bytes, interlace: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def packed_rows(values: Array, depth: int, *, lead: bytes = b"") -> bytes:
    """Pack samples of 1 to 16 bits, most significant first, each row padded to a byte and led by a byte."""
    rows = values.reshape(values.shape[0], -1)
    if depth == 16:
        return b"".join(lead + row.astype(">u2").tobytes() for row in rows)
    if depth == 8:
        return b"".join(lead + row.astype(np.uint8).tobytes() for row in rows)
    bits = ((rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1).reshape(len(rows), -1).astype(np.uint8)
    return b"".join(lead + np.packbits(row).tobytes() for row in bits)


def adam7(values: Array, depth: int) -> bytes:
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = (values[y::dy, x::dx] for x, y, dx, dy in passes)
    return b"".join(packed_rows(part, depth, lead=b"\0") for part in parts if part.size)


def png() -> Iterator[Sample]:
    for depth in (1, 2, 4, 8, 16):
        values, most = quantised(grey(), depth), (1 << depth) - 1
        body = packed_rows(values, depth, lead=b"\0")
        yield Sample(f"png grey {depth}", png_file(depth, 0, body), as_shown(values, most))
        yield Sample(
            f"png grey {depth} interlaced",
            png_file(depth, 0, adam7(values, depth), interlace=1),
            as_shown(values, most),
        )
        key = int(values[HEIGHT // 2, WIDTH // 2])
        shown = np.where((values == key)[..., None], 0, as_shown(values, most))
        yield Sample(
            f"png grey {depth} colour key", png_file(depth, 0, body, chunk(b"tRNS", struct.pack(">H", key))), shown
        )
    for depth in (1, 2, 4, 8):
        values = quantised(grey(), depth)
        palette = np.random.default_rng(depth).integers(0, 256, (1 << depth, 3), dtype=np.uint8)
        body, entries = packed_rows(values, depth, lead=b"\0"), chunk(b"PLTE", palette.tobytes())
        yield Sample(f"png palette {depth}", png_file(depth, 3, body, entries), palette[values].astype(float))
        alpha = np.linspace(0, 255, 1 << depth).astype(np.uint8)
        shown = palette[values] * (alpha[values] / 255)[..., None]
        yield Sample(
            f"png palette {depth} alpha", png_file(depth, 3, body, entries, chunk(b"tRNS", alpha.tobytes())), shown
        )
    for depth in (8, 16):
        most = (1 << depth) - 1
        rgb, alpha = quantised(gradient(), depth), quantised(opacity(), depth)
        shown = as_shown(rgb, most)
        over = shown * (alpha / most)[..., None]
        yield Sample(f"png rgb {depth}", png_file(depth, 2, packed_rows(rgb, depth, lead=b"\0")), shown)
        yield Sample(f"png rgb {depth} interlaced", png_file(depth, 2, adam7(rgb, depth), interlace=1), shown)
        key = chunk(b"tRNS", struct.pack(">HHH", *rgb[9, 9]))
        keyed = np.where((rgb == rgb[9, 9]).all(-1)[..., None], 0, shown)
        yield Sample(f"png rgb {depth} colour key", png_file(depth, 2, packed_rows(rgb, depth, lead=b"\0"), key), keyed)
        rgba = np.dstack([rgb, alpha])
        yield Sample(f"png rgba {depth}", png_file(depth, 6, packed_rows(rgba, depth, lead=b"\0")), over)
        yield Sample(f"png rgba {depth} interlaced", png_file(depth, 6, adam7(rgba, depth), interlace=1), over)
        both = np.dstack([quantised(grey(), depth), alpha])
        over = as_shown(grey()) * (alpha / most)[..., None]
        yield Sample(f"png grey alpha {depth}", png_file(depth, 4, packed_rows(both, depth, lead=b"\0")), over)
    rgb = quantised(gradient(), 8)
    body = packed_rows(rgb, 8, lead=b"\0")
    noise = [chunk(b"zzZz", b"x")] * 500
    yield Sample("png rgb many unknown chunks", png_file(8, 2, body, *noise), as_shown(rgb, 255))


def png_colour() -> Iterator[Sample]:
    """Chunks that say what the samples stand for: PNG third edition, 11.3.2."""
    for depth in (8, 16):
        most = (1 << depth) - 1
        rgb, one = quantised(gradient(), depth), quantised(grey(), depth)
        body, seen = packed_rows(rgb, depth, lead=b"\0"), rgb / most

        def colour(*chunks: bytes, depth: int = depth, body: bytes = body) -> bytes:
            return png_file(depth, 2, body, *chunks)

        pq, hlg, p3, srgb = (
            chunk(b"cICP", bytes(points)) for points in ((9, 16, 0, 1), (9, 18, 0, 1), (12, 13, 0, 1), (1, 13, 0, 1))
        )
        linear, usual, steep = (chunk(b"gAMA", struct.pack(">I", gamma)) for gamma in (100000, 45455, 55556))
        rec709, of_p3 = (
            chunk(b"cHRM", struct.pack(">8I", 31270, 32900, *(round(each * 1e5) for point in points for each in point)))
            for points in (standards.BT709, standards.P3)
        )
        said, plain = chunk(b"sRGB", b"\0"), as_shown(seen)
        profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(rgb_profile(P3_COLUMNS)))
        wide = standards.shown_p3(seen)
        name = f"png colour {depth}"
        yield Sample(f"{name} pq", colour(pq), standards.shown_pq(seen))
        yield Sample(f"{name} hlg", colour(hlg), standards.shown_hlg(seen))
        yield Sample(f"{name} p3", colour(p3), wide)
        yield Sample(f"{name} gamma 1", colour(linear), as_shown(coded(seen)))
        yield Sample(f"{name} gamma 1.8", colour(steep), as_shown(coded(seen**1.8)))
        yield Sample(f"{name} gamma 2.2 is srgb", colour(usual, rec709), plain)
        yield Sample(f"{name} primaries", colour(usual, of_p3), wide)
        yield Sample(
            f"{name} gamma and primaries",
            colour(linear, of_p3),
            255 * standards.srgb(standards.converted(seen, standards.P3)),
        )
        yield Sample(f"{name} cicp over all", colour(srgb, profile, said, linear, of_p3), plain)
        yield Sample(
            f"{name} cicp with a matrix, so srgb", colour(chunk(b"cICP", b"\x09\x10\x01\1"), said, linear), plain
        )
        if depth == 8:
            unknown = chunk(b"cICP", b"\x0c\x7f\0\1")
            yield Sample(f"{name} profile over srgb", colour(profile, said, linear), wide)
            yield Sample(f"{name} cicp unknown, so profile", colour(unknown, profile, linear), wide)
        yield Sample(f"{name} srgb over gamma", colour(said, linear, of_p3), plain)
        yield Sample(f"{name} broken profile, so srgb", colour(chunk(b"iCCP", b"p\0\0x"), said, linear), plain)
        yield Sample(f"{name} nonsense", colour(chunk(b"gAMA", bytes(4)), chunk(b"cHRM", bytes(32))), plain)
        narrow = np.rint((16 + 219 * gradient()) * (1 << (depth - 8))).astype(np.uint32)
        yield Sample(
            f"{name} narrow",
            png_file(depth, 2, packed_rows(narrow, depth, lead=b"\0"), chunk(b"cICP", b"\1\1\0\0")),
            as_shown((narrow / (1 << (depth - 8)) - 16) / 219),
        )
        body = packed_rows(one, depth, lead=b"\0")
        yield Sample(f"{name} grey gamma 1", png_file(depth, 0, body, linear), as_shown(coded(one / most)))
        yield Sample(f"{name} grey pq", png_file(depth, 0, body, pq), standards.shown_pq(np.dstack([one / most] * 3)))
        rgba = np.dstack([rgb, quantised(opacity(), depth)])
        over = as_shown(coded(seen)) * (rgba[..., 3:] / most)
        yield Sample(f"{name} rgba gamma 1", png_file(depth, 6, packed_rows(rgba, depth, lead=b"\0"), linear), over)


def frame_control(sequence: int, width: int = WIDTH, height: int = HEIGHT, left: int = 0, top: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, width, height, left, top, 1, 10, 0, 0))


def apng() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8)
    whole, other = packed_rows(rgb, 8, lead=b"\0"), packed_rows(255 - rgb, 8, lead=b"\0")
    shown = as_shown(rgb, 255)
    second = chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(other))
    control = chunk(b"acTL", struct.pack(">II", 2, 0))

    def animated(first: bytes, *rest: bytes, lead: bytes = frame_control(0)) -> bytes:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + control + lead + first + b"".join(rest) + chunk(b"IEND", b"")

    idat = chunk(b"IDAT", zlib.compress(whole))
    yield Sample("apng", animated(idat, frame_control(1), second), shown)
    yield Sample(
        "apng default image",
        animated(idat, frame_control(0), chunk(b"fdAT", struct.pack(">I", 1) + zlib.compress(other)), lead=b""),
        shown,
    )
    yield Sample(
        "apng small second frame",
        animated(
            idat,
            frame_control(1, 8, 8, 3, 5),
            chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(packed_rows(rgb[:8, :8], 8, lead=b"\0"))),
        ),
        shown,
    )
    early = chunk(b"IDAT", zlib.compress(whole[: len(whole) // 2]))
    yield Sample("apng first frame ends early", animated(early, frame_control(1), second), None)
    bad = idat[:-4] + b"\1\2\3\4"
    yield Sample("apng first frame bad crc", animated(bad, frame_control(1), second), None)
    for name, damage in (("damaged", bytes(40)), ("cut", zlib.compress(other)[:20]), ("none", b"")):
        frames = (
            frame_control(0),
            chunk(b"fdAT", struct.pack(">I", 1) + damage),
            frame_control(2),
            chunk(b"fdAT", struct.pack(">I", 3) + damage),
        )
        yield Sample(f"apng default image {name}", animated(idat, *frames, lead=b""), shown)
    yield Sample("apng no frames at all", animated(idat, lead=b""), shown)
    yield Sample("apng huge first frame", animated(idat, lead=frame_control(0, 60000, 60000)), shown)


# TIFF 6.0, made by tifffile.


def tiff_file(values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, metadata=None, **options)
    return file.getvalue()


def tiff() -> Iterator[Sample]:
    compressions: tuple[str | None, ...] = (None, "zlib", "lzw", "packbits", "zstd", "lzma")
    for order, compression, is_tiled in itertools.product("<>", compressions, (False, True)):
        place: dict[str, Any] = {"tile": (16, 32)} if is_tiled else {"rowsperstrip": 7}
        name = f"tiff {'little' if order == '<' else 'big'} {compression or 'raw'}{' tiled' if is_tiled else ''}"
        for bits in (8, 16):
            is_read = bits == 8 or compression not in ("zstd", "lzma")
            most, dtype = (1 << bits) - 1, np.dtype(f"u{bits // 8}")
            rgb, one = quantised(gradient(), bits).astype(dtype), quantised(grey(), bits).astype(dtype)
            common = {"byteorder": order, "compression": compression, **place}
            apart = np.moveaxis(rgb, -1, 0)
            files = {
                "grey": (tiff_file(one, photometric="minisblack", **common), as_shown(one, most)),
                "inverted": (tiff_file(most - one, photometric="miniswhite", **common), as_shown(one, most)),
                "rgb": (tiff_file(rgb, photometric="rgb", **common), as_shown(rgb, most)),
                "planar": (tiff_file(apart, photometric="rgb", planarconfig="separate", **common), as_shown(rgb, most)),
            }
            for kind, (data, shown) in files.items():
                words = {"zstd": "Zstandard", "lzma": "LZMA"}.get(compression or "", "")
                yield Sample(f"{name} {kind} {bits}", data, shown if is_read else None, "" if is_read else words)
    for order, is_planar, is_tiled in itertools.product("<>", (False, True), (False, True)):
        place = {"tile": (16, 32)} if is_tiled else {"rowsperstrip": 7}
        name = f"tiff {order} {'planar' if is_planar else 'chunky'}{' tiled' if is_tiled else ''}"
        planes = {
            "planarconfig": "separate" if is_planar else "contig",
            "byteorder": order,
            "photometric": "rgb",
            **place,
        }
        for compression, predictor in ((None, False), ("zlib", False), ("zlib", True), ("lzw", True)):
            more = {**planes, "compression": compression, "predictor": predictor}
            with_what = f"{compression or 'raw'}{' predicted' if predictor else ''}"
            for dtype in ("f4", "f8"):
                linear = gradient().astype(dtype)
                values = np.moveaxis(linear, -1, 0) if is_planar else linear
                if not (predictor and dtype == "f8"):
                    yield Sample(f"{name} {dtype} {with_what}", tiff_file(values, **more), as_shown(coded(linear)))
            for bits in (8, 16):
                most = (1 << bits) - 1
                rgba = np.dstack([quantised(gradient(), bits), quantised(opacity(), bits)]).astype(f"u{bits // 8}")
                shown = as_shown(rgba[..., :3], most) * (rgba[..., 3:] / most)
                values = np.moveaxis(rgba, -1, 0) if is_planar else rgba
                yield Sample(
                    f"{name} rgba {bits} {with_what}", tiff_file(values, extrasamples=["unassalpha"], **more), shown
                )
                times = np.rint(rgba[..., :3] * (rgba[..., 3:] / most)).astype(rgba.dtype)
                values = np.dstack([times, rgba[..., 3]])
                values = np.moveaxis(values, -1, 0) if is_planar else values
                yield Sample(
                    f"{name} premultiplied {bits} {with_what}",
                    tiff_file(values, extrasamples=["assocalpha"], **more),
                    as_shown(times, most),
                )
    linear, alpha = gradient(), opacity()
    both = np.dstack([quantised(grey(), 8), quantised(alpha, 8)]).astype(np.uint8)
    over = as_shown(both[..., 0], 255) * (both[..., 1:] / 255)
    yield Sample(
        "tiff grey alpha",
        tiff_file(both, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]),
        over,
    )
    four = {"straight": np.dstack([linear, alpha]), "associated": np.dstack([linear * alpha[..., None], alpha])}
    for dtype, is_planar, (name, values) in itertools.product(("u1", "u2", "f4", "f8"), (False, True), four.items()):
        most = 1.0 if dtype[0] == "f" else float(np.iinfo(dtype).max)
        stored = (values if most == 1.0 else np.rint(values * most)).astype(dtype)
        stored = np.moveaxis(stored, -1, 0) if is_planar else stored
        options = {"photometric": "rgb", "planarconfig": "separate" if is_planar else "contig"}
        shown = coded(linear) if most == 1.0 else linear
        kind = f"{dtype} {name}{' planar' if is_planar else ''}"
        extra = "unassalpha" if name == "straight" else "assocalpha"
        yield Sample(
            f"tiff {kind}", tiff_file(stored, extrasamples=[extra], **options), as_shown(shown) * alpha[..., None]
        )
        if name == "straight":
            yield Sample(
                f"tiff {kind} ignored", tiff_file(stored, extrasamples=["unspecified"], **options), as_shown(shown)
            )
    yield Sample("tiff f8 grey", tiff_file(grey(), photometric="minisblack"), as_shown(coded(grey())))
    over = as_shown(coded(linear)) * alpha[..., None]
    straight = np.dstack([linear, alpha]).astype("f4")
    yield Sample("tiff float straight alpha", tiff_file(straight, photometric="rgb", extrasamples=["unassalpha"]), over)
    times = np.dstack([linear * alpha[..., None], alpha]).astype("f4")
    yield Sample("tiff float associated alpha", tiff_file(times, photometric="rgb", extrasamples=["assocalpha"]), over)
    yield Sample("tiff float grey", tiff_file(grey().astype("f4"), photometric="minisblack"), as_shown(coded(grey())))
    chequer = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(bool)
    yield Sample("tiff bilevel", tiff_file(chequer, photometric="minisblack"), as_shown(chequer))
    yield Sample("tiff bilevel inverted", tiff_file(~chequer, photometric="miniswhite"), as_shown(chequer))
    for compression in ("group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw", "tiff_adobe_deflate"):
        file = io.BytesIO()
        Image.fromarray(chequer).save(file, "TIFF", compression=compression)
        yield Sample(f"tiff bilevel {compression}", file.getvalue(), as_shown(chequer))
    for bits in (1, 2, 4, 8):
        index = quantised(grey(), bits)
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint16)
        data = tiff_by_hand(
            [packed_rows(index, bits)], bits=(bits,), photometric=3, more=[(320, 3, tuple((palette.T * 257).ravel()))]
        )
        yield Sample(f"tiff palette {bits}", data, palette[index].astype(float))
        if bits in (2, 4):
            data = tiff_by_hand([packed_rows(index, bits)], bits=(bits,), photometric=1)
            yield Sample(f"tiff grey {bits}", data, as_shown(index, (1 << bits) - 1))
    cmyk = np.dstack([1 - gradient(), np.zeros((HEIGHT, WIDTH))])
    yield Sample(
        "tiff cmyk", tiff_file(quantised(cmyk, 8).astype(np.uint8), photometric="separated"), as_shown(gradient())
    )
    for orientation, turned in (
        (3, lambda a: a[::-1, ::-1]),
        (6, lambda a: np.rot90(a, -1)),
        (5, lambda a: a.transpose(1, 0, 2)),
    ):
        for bits, is_planar in itertools.product((8, 16), (False, True)):
            rgb = quantised(gradient(), bits).astype(f"u{bits // 8}")
            values = np.moveaxis(rgb, -1, 0) if is_planar else rgb
            options = {
                "photometric": "rgb",
                "extratags": [(274, 3, 1, orientation, True)],
                "planarconfig": "separate" if is_planar else "contig",
            }
            yield Sample(
                f"tiff orientation {orientation} {bits}{' planar' if is_planar else ''}",
                tiff_file(values, **options),
                turned(as_shown(rgb, (1 << bits) - 1)),
            )
    photo = quantised(gradient(), 8).astype(np.uint8)
    data = tiff_file(photo, photometric="ycbcr", compression="jpeg", compressionargs={"level": 95}, subsampling=(1, 1))
    yield Sample("tiff jpeg", data, as_shown(tifffile.imread(io.BytesIO(data)), 255))
    yield Sample(
        "bigtiff rgb 16",
        tiff_file(quantised(gradient(), 16).astype("u2"), photometric="rgb", bigtiff=True),
        as_shown(gradient()),
    )
    yield Sample(
        "bigtiff planar 16",
        tiff_file(
            np.moveaxis(quantised(gradient(), 16).astype("u2"), -1, 0),
            photometric="rgb",
            planarconfig="separate",
            bigtiff=True,
        ),
        as_shown(gradient()),
    )


def tiff_by_hand(
    strips: list[bytes],
    *,
    bits: tuple[int, ...] = (8, 8, 8),
    photometric: int = 2,
    compression: int = 1,
    planar: int = 1,
    more: Sequence[tuple[int, int, tuple[int, ...]]] = (),
) -> bytes:
    """A little-endian TIFF whose tags are what they are; strips may hold less than they should."""
    entries = [
        (256, 4, (WIDTH,)),
        (257, 4, (HEIGHT,)),
        (258, 3, bits),
        (259, 3, (compression,)),
        (262, 3, (photometric,)),
    ]
    entries += [(277, 3, (len(bits),)), (278, 4, (HEIGHT,)), (284, 3, (planar,)), *more]
    offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    entries += [(273, 4, tuple(offsets)), (279, 4, tuple(map(len, strips)))]
    start = 8 + sum(map(len, strips))
    directory, beyond, after = b"", b"", start + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        packed = b"".join(struct.pack({1: "<B", 3: "<H", 4: "<I", 5: "<I", 11: "<f"}[kind], value) for value in values)
        if len(packed) > 4:
            count = len(values) // 2 if kind == 5 else len(values)
            directory += struct.pack("<HHII", tag, kind, count, after + len(beyond))
            beyond += packed
        else:
            directory += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + b"".join(strips)
        + struct.pack("<H", len(entries))
        + directory
        + bytes(4)
        + beyond
    )


def tiff_refused() -> Iterator[Sample]:
    for bits, planar in itertools.product((8, 16), (1, 2)):
        whole = quantised(gradient(), bits).astype(f"<u{bits // 8}")
        parts = [whole] if planar == 1 else [whole[..., channel] for channel in range(3)]
        cut = [zlib.compress(part.tobytes()[: part.nbytes // 3]) for part in parts]
        yield Sample(
            f"tiff short strips {bits} planar {planar}",
            tiff_by_hand(cut, bits=(bits,) * 3, compression=8, planar=planar),
            None,
        )
        raw = [part.tobytes()[: part.nbytes // 3] for part in parts]
        yield Sample(
            f"tiff short raw strips {bits} planar {planar}", tiff_by_hand(raw, bits=(bits,) * 3, planar=planar), None
        )
    for dtype in ("i1", "i2", "i4", "u4", "u8", "c8"):
        yield Sample(f"tiff {dtype}", tiff_file((gradient() * 100).astype(dtype), photometric="rgb"), None, "TIFF")
    mosaic = quantised(grey(), 16).astype("<u2").tobytes()
    thumbnail = quantised(gradient(), 8).astype(np.uint8).tobytes()
    version = (50706, 1, (1, 4, 0, 0))
    yield Sample(
        "dng thumbnail first",
        tiff_by_hand([thumbnail], more=[version, (254, 4, (1,)), (330, 4, (8,))]),
        None,
        "camera raw (DNG)",
    )
    yield Sample(
        "dng mosaic", tiff_by_hand([mosaic], bits=(16,), photometric=32803, more=[version]), None, "camera raw (DNG)"
    )
    yield Sample("raw mosaic", tiff_by_hand([mosaic], bits=(16,), photometric=32803), None, "camera raw")
    yield Sample(
        "raw thumbnail first",
        tiff_by_hand([thumbnail], more=[(254, 4, (1,)), (330, 4, (8,)), (271, 1, tuple(b"NIKON\0"))]),
        None,
        "camera raw",
    )


# BMP: Microsoft's BITMAPINFOHEADER and its kin, OS/2's own.


def bmp_file(header: bytes, body: bytes, after: bytes = b"") -> bytes:
    start = 14 + len(header) + len(after)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + after + body


def bmp_info(
    bits: int,
    *,
    length: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    colours: int = 0,
    down: bool = False,
) -> bytes:
    head = struct.pack(
        "<IiiHHIIiiII", length, WIDTH, -HEIGHT if down else HEIGHT, 1, bits, compression, 0, 2835, 2835, colours, 0
    )
    return (head + struct.pack(f"<{len(masks)}I", *masks)).ljust(length, b"\0") if length > 40 else head


def bmp_rows(values: Array, bits: int, *, down: bool = False) -> bytes:
    rows = values if down else values[::-1]
    if bits in (16, 32):
        lines = [row.astype(f"<u{bits // 8}").tobytes() for row in rows]
    else:
        lines = [packed_rows(row[None], min(bits, 8)) for row in rows]
    return b"".join(line + bytes(-len(line) % 4) for line in lines)


def masked(channels: Array, masks: tuple[int, ...]) -> Array:
    """Put channels, 0 to 1, where the masks say."""
    total = np.zeros(channels.shape[:2], np.uint32)
    for channel, mask in zip(np.moveaxis(channels, -1, 0), masks, strict=False):
        if mask:
            low = (mask & -mask).bit_length() - 1
            total |= (np.rint(channel * (mask >> low)).astype(np.uint64) << low).astype(np.uint32)
    return total


def bmp() -> Iterator[Sample]:
    rgb = gradient()
    shown = as_shown(rgb)
    for down in (False, True):
        body = bmp_rows(quantised(rgb, 8)[..., ::-1].reshape(HEIGHT, -1), 24, down=down)
        yield Sample(f"bmp 24{' top down' if down else ''}", bmp_file(bmp_info(24, down=down), body), shown)
    five = np.rint(rgb * 31) / 31
    yield Sample("bmp 16", bmp_file(bmp_info(16), bmp_rows(masked(rgb, (0x7C00, 0x3E0, 0x1F)), 16)), as_shown(five))
    usual = (0xFF0000, 0xFF00, 0xFF)
    yield Sample("bmp 32", bmp_file(bmp_info(32), bmp_rows(masked(rgb, usual), 32)), shown)
    kinds = {
        "usual": (32, usual), "swapped": (32, (0xFF, 0xFF00, 0xFF0000)), "high": (32, (0xFF000000, 0xFF0000, 0xFF00)),
        "ten bits": (32, (0x3FF00000, 0xFFC00, 0x3FF)), "uneven": (32, (0x1F, 0x7FE0, 0xFFFF0000)),
        "565": (16, (0xF800, 0x7E0, 0x1F)), "555": (16, (0x7C00, 0x3E0, 0x1F)), "444": (16, (0xF00, 0xF0, 0xF)),
        "odd": (16, (0x1F, 0x7E0, 0xF800)), "332": (16, (0xE0, 0x1C, 0x3)),
    }  # fmt: skip
    for name, (bits, masks) in kinds.items():
        seen = np.dstack([np.rint(rgb[..., i] * (m // (m & -m))) / (m // (m & -m)) for i, m in enumerate(masks)])
        body = bmp_rows(masked(rgb, masks), bits)
        after = struct.pack("<III", *masks)
        yield Sample(
            f"bmp bit fields {bits} {name} 40", bmp_file(bmp_info(bits, compression=3), body, after), as_shown(seen)
        )
        for length in (52, 56, 108, 124):
            header = bmp_info(bits, length=length, compression=3, masks=masks)
            yield Sample(f"bmp bit fields {bits} {name} {length}", bmp_file(header, body), as_shown(seen))
    masks = (*usual, 0xFF000000)
    rgba = np.dstack([rgb, opacity()])
    for length in (56, 108, 124):
        header = bmp_info(32, length=length, compression=3, masks=masks)
        yield Sample(
            f"bmp alpha {length}", bmp_file(header, bmp_rows(masked(rgba, masks), 32)), shown * opacity()[..., None]
        )
    for bits in (1, 2, 4, 8):
        index = quantised(grey(), bits)
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        seen = palette[index].astype(float)
        body = bmp_rows(index, bits)
        four = np.hstack([palette[:, ::-1], np.zeros((1 << bits, 1), np.uint8)]).tobytes()
        yield Sample(f"bmp palette {bits}", bmp_file(bmp_info(bits), body, four), seen)
        core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, bits)
        yield Sample(f"bmp os/2 1 palette {bits}", bmp_file(core, body, palette[:, ::-1].tobytes()), seen)
        yield Sample(f"bmp os/2 2 palette {bits}", bmp_file(bmp_info(bits, length=64), body, four), seen)
        yield Sample(
            f"bmp os/2 short palette {bits}",
            bmp_file(bmp_info(bits)[:16].replace(b"\x28", b"\x10", 1), body, four),
            seen,
        )
    file = bmp_file(bmp_info(8), body, four)
    yield Sample("bmp palette 8 forgotten", file[:10] + struct.pack("<I", 54) + file[14:], seen)
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    yield Sample("bmp os/2 1 24", bmp_file(core, bmp_rows(quantised(rgb, 8)[..., ::-1].reshape(HEIGHT, -1), 24)), shown)
    index = np.repeat(quantised(grey()[:, ::8], 8), 8, axis=1)[:, :WIDTH]
    palette = np.random.default_rng(3).integers(0, 256, (256, 4), dtype=np.uint8)
    runs = b"".join(
        b"".join(bytes((min(8, WIDTH - x), int(row[x]))) for x in range(0, WIDTH, 8)) + b"\0\0" for row in index[::-1]
    )
    yield Sample(
        "bmp rle 8",
        bmp_file(bmp_info(8, compression=1), runs + b"\0\1", palette.tobytes()),
        palette[index][..., 2::-1].astype(float),
    )
    nibbles = np.repeat(quantised(grey()[:, ::8], 4), 8, axis=1)[:, :WIDTH]
    runs = b"".join(
        b"".join(bytes((min(8, WIDTH - x), int(row[x]) * 17)) for x in range(0, WIDTH, 8)) + b"\0\0"
        for row in nibbles[::-1]
    )
    shown = palette[nibbles][..., 2::-1].astype(float)
    yield Sample("bmp rle 4", bmp_file(bmp_info(4, compression=2), runs + b"\0\1", palette[:16].tobytes()), shown)
    yield Sample("bmp jpeg", bmp_file(bmp_info(0, compression=4), b"\xff\xd8\xff"), None, "BMP")


# Netpbm's own manual pages: pbm, pgm, ppm.


def netpbm() -> Iterator[Sample]:
    for most in (1, 2, 100, 255, 256, 1000, 1023, 4095, 65535):
        dtype = ">u2" if most > 255 else "u1"
        for magic, values in ((5, np.rint(grey() * most)), (6, np.rint(gradient() * most))):
            head = b"P%d\n# a comment\n%d %d\n%d\n" % (magic, WIDTH, HEIGHT, most)
            yield Sample(f"p{magic} maxval {most}", head + values.astype(dtype).tobytes(), as_shown(values, most))
        for magic, values in ((2, np.rint(grey() * most)), (3, np.rint(gradient() * most))):
            head = b"P%d %d %d %d\n" % (magic, WIDTH, HEIGHT, most)
            text = b"\n".join(b" ".join(b"%d" % value for value in row.ravel()) for row in values.astype(int))
            yield Sample(f"p{magic} maxval {most}", head + text + b"\n", as_shown(values, most))
    chequer = np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2
    head = b"%d %d\n" % (WIDTH, HEIGHT)
    yield Sample("p4", b"P4\n" + head + packed_rows(1 - chequer, 1), as_shown(chequer))
    bits = (1 - chequer).astype(str)
    yield Sample("p1", b"P1\n" + head + "\n".join(" ".join(row) for row in bits).encode(), as_shown(chequer))
    yield Sample(
        "p1 without spaces", b"P1\n" + head + "\n".join("".join(row) for row in bits).encode(), as_shown(chequer)
    )
    words = [b"%d" % value for value in quantised(grey(), 8).ravel()]
    yield Sample("p2 cut", b"P2\n" + head + b"255\n" + b" ".join(words[:-30]), None)
    yield Sample("p2 with letters", b"P2\n" + head + b"255\n" + b" ".join([*words[:900], b"x", *words[900:]]), None)
    whole = b"P2\n" + head + b"255\n" + b" ".join(words)
    yield Sample("p2 twice", whole + b"\n" + whole, as_shown(quantised(grey(), 8), 255))
    binary = bytes(quantised(grey(), 8).astype(np.uint8))
    lead = b"P5\n" + head + b"255# note\n"
    yield Sample("p5 comment ends the header", lead + binary, as_shown(quantised(grey(), 8), 255))


# JPEG 2000: ISO/IEC 15444-1.


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def off_origin(stream: bytes) -> bytes:
    """Move a picture so far off its grid's origin that its blocks and precincts stay alike (ISO/IEC 15444-1, A.5.1)."""
    width, height = WIDTH + 2048, HEIGHT + 2048
    return stream[:8] + struct.pack(">IIIIIIII", width, height, 2048, 2048, width, height, 0, 0) + stream[40:]


def jpeg2000() -> Iterator[Sample]:
    for bits, codec in itertools.product(range(1, 17), ("jp2", "j2k")):
        most, dtype = (1 << bits) - 1, np.uint8 if bits <= 8 else np.uint16
        for name, values in (("grey", quantised(grey(), bits)), ("rgb", quantised(gradient(), bits))):
            data = imagecodecs.jpeg2k_encode(
                values.astype(dtype), codecformat=codec, bitspersample=bits, reversible=True, level=0
            )
            yield Sample(f"{codec} {name} {bits}", bytes(data), as_shown(values, most))
            if codec == "j2k" and bits <= 8:
                yield Sample(f"{codec} {name} {bits} off origin", off_origin(bytes(data)), as_shown(values, most))
    rgba = np.dstack([quantised(gradient(), 8), quantised(opacity(), 8)]).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "JPEG2000", irreversible=False)
    yield Sample("jp2 rgba", file.getvalue(), as_shown(rgba[..., :3], 255) * (rgba[..., 3:] / 255))
    file = io.BytesIO()
    Image.fromarray(np.dstack([quantised(grey(), 8), rgba[..., 3]]).astype(np.uint8)).save(
        file, "JPEG2000", irreversible=False
    )
    yield Sample("jp2 grey alpha", file.getvalue(), as_shown(quantised(grey(), 8), 255) * (rgba[..., 3:] / 255))
    rgb = quantised(gradient(), 8).astype(float)
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    ycc = np.dstack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128])
    stream = bytes(
        imagecodecs.jpeg2k_encode(
            np.clip(np.rint(ycc), 0, 255).astype(np.uint8), codecformat="j2k", reversible=True, level=0, mct=False
        )
    )
    header = box(b"ihdr", struct.pack(">IIHBBBB", HEIGHT, WIDTH, 3, 7, 7, 0, 0)) + box(
        b"colr", struct.pack(">BBBI", 1, 0, 0, 18)
    )
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    yield Sample("jp2 ycc", head + box(b"jp2h", header) + box(b"jp2c", stream), rgb)
    index = quantised(grey(), 8).astype(np.uint8)
    palette = np.random.default_rng(8).integers(0, 256, (256, 3), dtype=np.uint8)
    stream = bytes(imagecodecs.jpeg2k_encode(index, codecformat="j2k", reversible=True, level=0))
    header = box(b"ihdr", struct.pack(">IIHBBBB", HEIGHT, WIDTH, 1, 7, 7, 0, 0)) + box(
        b"colr", struct.pack(">BBBI", 1, 0, 0, 16)
    )
    header += box(b"pclr", struct.pack(">HB", 256, 3) + b"\x07\x07\x07" + palette.tobytes())
    header += box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, column) for column in range(3)))
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    yield Sample("jp2 palette", head + box(b"jp2h", header) + box(b"jp2c", stream), palette[index].astype(float))


def avif() -> Iterator[Sample]:
    image = Image.fromarray(quantised(gradient(), 8).astype(np.uint8))
    for value_range, subsampling in itertools.product(("full", "limited"), ("4:4:4", "4:2:0", "4:2:2", "4:0:0")):
        file = io.BytesIO()
        image.save(file, "AVIF", quality=100, subsampling=subsampling, range=value_range)
        shown = as_shown(np.asarray(image.convert("L"), float)) if subsampling == "4:0:0" else as_shown(gradient())
        shown = shown / 255 if subsampling == "4:0:0" else shown
        yield Sample(f"avif {value_range} {subsampling}", file.getvalue(), shown)
    rgba = np.dstack([quantised(gradient(), 8), quantised(opacity(), 8)]).astype(np.uint8)
    for value_range in ("full", "limited"):
        file = io.BytesIO()
        Image.fromarray(rgba).save(file, "AVIF", quality=100, subsampling="4:4:4", range=value_range)
        yield Sample(f"avif alpha {value_range}", file.getvalue(), as_shown(rgba[..., :3], 255) * (rgba[..., 3:] / 255))
    frames = [Image.fromarray(rgba), Image.fromarray(255 - rgba)]
    file = io.BytesIO()
    options = {
        "quality": 100,
        "subsampling": "4:4:4",
        "range": "limited",
        "save_all": True,
        "append_images": frames[1:],
    }
    frames[0].save(file, "AVIF", **options)
    yield Sample("avif animated alpha limited", file.getvalue(), as_shown(rgba[..., :3], 255) * (rgba[..., 3:] / 255))
    for bits in (10, 12):
        values = quantised(gradient(), bits).astype(np.uint16)
        data = imagecodecs.avif_encode(values, level=100, bitspersample=bits)
        yield Sample(f"avif {bits}", bytes(data), as_shown(values, (1 << bits) - 1))

    p3 = bytes(imagecodecs.avif_encode(quantised(gradient(), 8).astype(np.uint8), level=100, primaries=12, transfer=13))
    yield Sample("avif p3", p3, standards.shown_p3(quantised(gradient(), 8) / 255))
    for bits, (name, transfer, shown) in itertools.product(
        (10, 12), (("pq", 16, standards.shown_pq), ("hlg", 18, standards.shown_hlg))
    ):
        values = quantised(mild(), bits).astype(np.uint16)
        data = imagecodecs.avif_encode(values, level=100, bitspersample=bits, primaries=9, transfer=transfer, matrix=9)
        yield Sample(f"avif {name} {bits}", bytes(data), shown(values / ((1 << bits) - 1)))


# HEIC: ISO/IEC 23008-12, made by pillow_heif.


def heic_file(mode: str, values: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"quality": 100, "chroma": "444"} | options
    pillow_heif.encode(
        mode, (values.shape[1], values.shape[0]), np.ascontiguousarray(values).tobytes(), file, **options
    )
    return file.getvalue()


def heic() -> Iterator[Sample]:
    rgb, one, alpha = gradient(), grey(), opacity()
    seen = as_shown(rgb)
    for bits, depth, suffix in ((8, 8, ""), (10, 16, ";16"), (12, 16, ";16")):

        def made(mode: str, values: Array, bits: int = bits, depth: int = depth, **options: Any) -> bytes:
            return heic_file(mode, quantised(values, depth).astype(f"u{depth // 8}"), bit_depth=bits, **options)

        yield Sample(f"heic {bits}", made(f"RGB{suffix}", rgb), seen)
        white = np.ones_like(rgb)
        yield Sample(f"heic {bits} white", made(f"RGB{suffix}", white), 255 * white)
        yield Sample(f"heic {bits} grey", made("I;16" if suffix else "L", one), as_shown(one))
        four = np.dstack([rgb, alpha])
        yield Sample(f"heic {bits} alpha", made(f"RGBA{suffix}", four), seen * alpha[..., None])
        times = np.dstack([rgb * alpha[..., None], alpha])
        yield Sample(f"heic {bits} premultiplied", made(f"RGBa{suffix}", times), seen * alpha[..., None])
        for matrix, full in itertools.product((1, 6, 9) if bits < 12 else (9,), (0, 1)):
            told = {"matrix_coefficients": matrix, "full_range_flag": full, "color_primaries": 1}
            yield Sample(f"heic {bits} matrix {matrix} range {full}", made(f"RGB{suffix}", rgb, **told), seen)
        if bits > 8:
            hdr = {"matrix_coefficients": 9, "color_primaries": 9, "full_range_flag": 0}
            pq, hlg = (made("RGB;16", mild(), transfer_characteristics=transfer, **hdr) for transfer in (16, 18))
            yield Sample(f"heic {bits} pq", pq, standards.shown_pq(mild()))
            yield Sample(f"heic {bits} hlg", hlg, standards.shown_hlg(mild()))
    sixteen = quantised(rgb, 16).astype(np.uint16)
    p3 = heic_file("RGB;16", sixteen, bit_depth=10, color_primaries=12, transfer_characteristics=13)
    yield Sample("heic p3", p3, standards.shown_p3(rgb))
    # Of halved chroma what two pixels by two share is right in every decoder, however it enlarges.
    blocks = quantised(rgb[::2, ::2].repeat(2, 0).repeat(2, 1)[:44, :60], 8).astype(np.uint8)
    yield Sample("heic 4:2:0", heic_file("RGB", blocks, chroma="420"), as_shown(blocks, 255))
    wide = np.tile(blocks, (4, 4, 1))
    yield Sample("heic in tiles", heic_file("RGB", wide, chroma="420", tile_size=64), as_shown(wide, 255))
    turns = {
        2: wide[:, ::-1],
        3: wide[::-1, ::-1],
        5: wide.transpose(1, 0, 2),
        6: np.rot90(wide, -1),
        8: np.rot90(wide),
    }
    for orientation, turned in turns.items():
        exif = Image.Exif()
        exif[274] = orientation  # written as the boxes irot and imir
        data = heic_file("RGB", wide, tile_size=128, exif=exif.tobytes())
        yield Sample(f"heic turned {orientation}", data, as_shown(turned, 255))


# OpenEXR, made by its own library.


def exr_file(channels: dict[str, Array], **header: Any) -> bytes:
    return exr_parts([OpenEXR.Part({"type": OpenEXR.scanlineimage} | header, channels, "only")])


def exr_parts(parts: Sequence[Any]) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".exr") as file, OpenEXR.File(list(parts)) as image:
        image.write(file.name)
        return file.read()


def named(values: Array, prefix: str = "") -> dict[str, Array]:
    """Return the channels by the names that they have in a layer."""
    return {
        f"{prefix}{name}": np.ascontiguousarray(values[..., i]) for i, name in enumerate("RGBA"[: values.shape[-1]])
    }


def exr() -> Iterator[Sample]:
    linear, one, alpha = gradient(), grey(), opacity()
    shown = as_shown(coded(linear))
    compressions = ("NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB", "HTJ2K32", "ZSTD")
    for dtype, (compression, is_tiled) in itertools.product(
        ("f2", "f4"), itertools.product(compressions, (False, True))
    ):
        tiles = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()} if is_tiled else {}
        options = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), **tiles}
        name = f"exr {dtype} {compression}{' tiled' if is_tiled else ''}"
        is_lossy = compression[0] in "BD"
        data = exr_file(named(linear.astype(dtype)), **options)
        yield Sample(f"{name} lossy" if is_lossy else name, data, shown)
    for dtype in ("f2", "f4"):
        yield Sample(f"exr {dtype} grey", exr_file({"Y": one.astype(dtype)}), as_shown(coded(one)))
        times = np.dstack([linear * alpha[..., None], alpha]).astype(dtype)
        yield Sample(f"exr {dtype} associated alpha", exr_file(named(times)), shown * alpha[..., None])
    half = linear.astype("f2")
    bright = np.dstack([linear[..., 0] * 4, linear[..., 1] * 20, -linear[..., 2]])
    yield Sample("exr beyond white", exr_file(named(bright.astype("f2"))), as_shown(coded(np.clip(bright, 0, 1))))
    odd = linear.astype("f4")
    odd[3, 5], odd[4, 6], odd[5, 7] = np.nan, np.inf, -np.inf
    seen = shown.copy()
    seen[3, 5], seen[4, 6], seen[5, 7] = 0, 255, 0
    yield Sample("exr no numbers", exr_file(named(odd)), seen)
    others = named(1 - half, "ViewLayer.Diffuse.") | {"ViewLayer.Depth.Z": half[..., 0]}
    yield Sample("exr layers", exr_file(named(half, "ViewLayer.Combined.") | others), shown)
    yield Sample("exr layer without a name first", exr_file(named(half) | named(1 - half, "A.")), shown)
    parts = [
        OpenEXR.Part({"type": OpenEXR.scanlineimage}, named(each), name)
        for each, name in ((half, "a"), (1 - half, "b"))
    ]
    yield Sample("exr parts", exr_parts(parts), shown)
    window = {"displayWindow": ((0, 0), (WIDTH - 1, HEIGHT - 1))}
    inside = np.zeros_like(shown)
    inside[5:40, 7:50] = shown[5:40, 7:50]
    yield Sample(
        "exr data in display", exr_file(named(half[5:40, 7:50]), dataWindow=((7, 5), (49, 39)), **window), inside
    )
    beyond = np.pad(half, ((10, 12), (8, 9), (0, 0)), constant_values=0.5)
    box = ((-8, -10), (WIDTH + 8, HEIGHT + 11))
    yield Sample("exr data beyond display", exr_file(named(beyond), dataWindow=box, **window), shown)
    away = ((1000, 1000), (999 + WIDTH, 999 + HEIGHT))
    yield Sample("exr data away from display", exr_file(named(half), dataWindow=away, **window), np.zeros_like(shown))
    box = ((9, 20), (8 + WIDTH, 19 + HEIGHT))
    yield Sample("exr display begins elsewhere", exr_file(named(half), dataWindow=box, displayWindow=box), shown)
    box = ((-9, 20), (-10 + WIDTH, 19 + HEIGHT))
    yield Sample("exr display begins below 0", exr_file(named(half), dataWindow=box, displayWindow=box), shown)
    far = exr_file(named(np.pad(half, ((0, 1000), (0, 1000), (0, 0)))), displayWindow=((0, 0), (9, 9)))
    yield Sample("exr data far beyond display", far, None, "data window is far larger than its display window")
    wide = exr_file(
        named(half), chromaticities=tuple(part for point in (*standards.P3, standards.D65) for part in point)
    )
    yield Sample(
        "exr chromaticities", wide, 255 * standards.srgb(standards.converted(half.astype(float), standards.P3))
    )
    aces = ((0.7347, 0.2653), (0.0, 1.0), (0.0001, -0.077))  # SMPTE ST 2065-1
    white = np.ones_like(half)
    said = tuple(part for point in (*aces, (0.32168, 0.33767)) for part in point)
    yield Sample("exr white of aces", exr_file(named(white), chromaticities=said), np.full_like(shown, 255))
    numbers = (linear * 1000).astype(np.uint32)
    yield Sample("exr uint", exr_file(named(numbers)), None, "unsigned integer RGB OpenEXR")
    yield Sample(
        "exr depth alone", exr_file({"Z": half[..., 0]}), None, "without a layer of R, G and B or Y (it has Z)"
    )


def webp() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8).astype(np.uint8)
    rgba = np.dstack([rgb, quantised(opacity(), 8).astype(np.uint8)])
    over = as_shown(rgb, 255) * opacity()[..., None]

    def saved(values: Array, **options: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(values).save(file, "WEBP", **options)
        return file.getvalue()

    yield Sample("webp lossless", saved(rgb, lossless=True), as_shown(rgb, 255))
    yield Sample("webp lossless alpha", saved(rgba, lossless=True, exact=True), over)
    lossy = saved(rgb, quality=90)
    yield Sample("webp lossy", lossy, as_shown(imagecodecs.webp_decode(lossy), 255))
    lossy = saved(rgba, quality=90)
    found = imagecodecs.webp_decode(lossy).astype(float)
    yield Sample("webp lossy alpha", lossy, found[..., :3] * (found[..., 3:] / 255))
    animated = saved(rgb, lossless=True, save_all=True, append_images=[Image.fromarray(255 - rgb)], duration=100)
    yield Sample("webp animated", animated, as_shown(rgb, 255))


def gif() -> Iterator[Sample]:
    index = quantised(grey(), 8).astype(np.uint8)
    palette = np.random.default_rng(9).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(index, "P")
    image.putpalette(palette.tobytes())
    for name, options in (
        ("gif", {}),
        ("gif transparent", {"transparency": 7}),
        ("gif animated", {"save_all": True, "append_images": [image.rotate(180)]}),
    ):
        file = io.BytesIO()
        image.save(file, "GIF", optimize=False, **options)
        shown = palette[index].astype(float)
        yield Sample(
            name, file.getvalue(), np.where((index == 7)[..., None], 0, shown) if "transparent" in name else shown
        )


def jpeg() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8).astype(np.uint8)
    for name, values, options in (
        ("4:4:4", rgb, {"subsampling": "4:4:4"}),
        ("4:2:0", rgb, {"subsampling": "4:2:0"}),
        ("progressive", rgb, {"progressive": True}),
        ("grey", rgb[..., 0], {}),
        ("rgb", rgb, {"keep_rgb": True}),
    ):
        file = io.BytesIO()
        Image.fromarray(values).save(file, "JPEG", quality=95, **options)
        yield Sample(f"jpeg {name}", file.getvalue(), as_shown(imagecodecs.jpeg8_decode(file.getvalue()), 255))
    inks = Image.fromarray(np.dstack([255 - rgb, np.zeros((HEIGHT, WIDTH), np.uint8)]), "CMYK")
    file = io.BytesIO()
    inks.save(file, "JPEG", quality=100, subsampling="4:4:4")
    yield Sample("jpeg cmyk", file.getvalue(), as_shown(rgb, 255))
    yield Sample(
        "jpeg 12 bits",
        bytes(imagecodecs.jpeg8_encode(quantised(gradient(), 12).astype(np.uint16), bitspersample=12)),
        None,
        "12-bit JPEG",
    )
    yield Sample(
        "jpeg lossless",
        bytes(imagecodecs.ljpeg_encode(quantised(grey(), 16).astype(np.uint16), bitspersample=16)),
        None,
        "lossless JPEG",
    )


def others() -> Iterator[Sample]:
    linear = gradient()
    for name, order, scale in (("little", "<f4", b"-1.0"), ("big", ">f4", b"1.0")):
        body = np.ascontiguousarray(linear[::-1]).astype(order).tobytes()
        yield Sample(f"pfm {name}", b"PF\n%d %d\n%s\n" % (WIDTH, HEIGHT, scale) + body, as_shown(coded(linear)))
        body = np.ascontiguousarray(grey()[::-1]).astype(order).tobytes()
        yield Sample(f"pfm grey {name}", b"Pf\n%d %d\n%s\n" % (WIDTH, HEIGHT, scale) + body, as_shown(coded(grey())))
    ok, data = cv2.imencode(".hdr", np.ascontiguousarray(linear[..., ::-1], np.float32))
    assert ok
    yield Sample("hdr", data.tobytes(), as_shown(coded(linear)))
    rgb = quantised(linear, 8).astype(np.uint8)
    rows = b"".join(row[:, ::-1].tobytes() + bytes(row.size % 2) for row in rgb)
    yield Sample(
        "sun raster 24",
        struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, len(rows), 1, 0, 0) + rows,
        as_shown(rgb, 255),
    )
    one = rgb[..., 0]
    rows = b"".join(row.tobytes() + bytes(row.size % 2) for row in one)
    yield Sample(
        "sun raster 8", struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 8, len(rows), 1, 0, 0) + rows, as_shown(one, 255)
    )


# DPX: SMPTE ST 268-1.


def dpx_file(
    body: bytes, bits: int, *, order: str = ">", descriptor: int = 50, transfer: int = 4, packing: int = 1,
    orientation: int = 0, levels: tuple[int, int] = (0xFFFFFFFF, 0xFFFFFFFF), encoding: int = 0,
) -> bytes:  # fmt: skip
    head = bytearray(2048)
    struct.pack_into(f"{order}4sI", head, 0, b"SDPX" if order == ">" else b"XPDS", 2048)
    head[:4] = b"SDPX" if order == ">" else b"XPDS"
    head[8:12] = b"V1.0"
    struct.pack_into(f"{order}I", head, 16, 2048 + len(body))
    struct.pack_into(f"{order}HHII", head, 768, orientation, 1, WIDTH, HEIGHT)
    struct.pack_into(f"{order}IIfIfBBBBHHI", head, 780, 0, levels[0], 0, levels[1], 0, descriptor, transfer, 1, bits,
                     packing, encoding, 2048)  # fmt: skip
    return bytes(head) + body


def dpx_rows(values: Array, bits: int, order: str, packing: int = 1) -> bytes:
    rows = values.reshape(HEIGHT, -1).astype(np.uint32)
    if bits == 10:
        threes = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 3))).reshape(HEIGHT, -1, 3)
        shifts = (22, 12, 2) if packing == 1 else (20, 10, 0)
        words = sum(threes[..., index] << shift for index, shift in enumerate(shifts))
        return np.asarray(words).astype(f"{order}u4").tobytes()
    if bits == 12 and packing == 1:
        rows = rows << 4
    stored = rows.astype("u1" if bits == 8 else f"{order}u2")
    return b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in stored)


def dpx() -> Iterator[Sample]:
    rgb, one, alpha = gradient(), grey(), opacity()
    shown = as_shown(rgb)
    for bits, order, packing in itertools.product((8, 10, 12, 16), "<>", (1, 2)):
        if packing == 1 or bits in (10, 12):
            name = f"dpx {bits} {'big' if order == '>' else 'little'} method {'AB'[packing - 1]}"
            body = dpx_rows(quantised(rgb, bits), bits, order, packing)
            yield Sample(f"{name} rgb", dpx_file(body, bits, order=order, packing=packing), shown)
    for bits in (8, 10, 12, 16):
        most = (1 << bits) - 1
        four = np.dstack([rgb, alpha])
        over = shown * alpha[..., None]
        body = dpx_rows(quantised(four, bits), bits, ">")
        yield Sample(f"dpx {bits} rgba", dpx_file(body, bits, descriptor=51), over)
        body = dpx_rows(quantised(four[..., ::-1], bits), bits, ">")
        yield Sample(f"dpx {bits} abgr", dpx_file(body, bits, descriptor=52), over)
        body = dpx_rows(quantised(one, bits), bits, ">")
        grey_file = dpx_file(body, bits, descriptor=6)
        is_read = bits != 10  # whose samples writers put into a word from either end
        yield Sample(
            f"dpx {bits} grey", grey_file, as_shown(one) if is_read else None, "" if is_read else "10-bit grey DPX"
        )
        body = dpx_rows(quantised(rgb, bits), bits, ">")
        yield Sample(
            f"dpx {bits} linear", dpx_file(body, bits, transfer=2), as_shown(coded(quantised(rgb, bits) / most))
        )
        density = (quantised(rgb, bits) / most * 1023 - 685) * 0.002 / 0.6
        least = 10 ** ((95 - 685) * 0.002 / 0.6)
        light = np.clip((10**density - least) / (1 - least), 0, 1)
        for transfer in (1, 3):
            yield Sample(
                f"dpx {bits} logarithmic {transfer}", dpx_file(body, bits, transfer=transfer), as_shown(coded(light))
            )
        scale = 1 << (bits - 8)
        narrow = np.rint((16 + 219 * rgb) * scale).astype(np.uint32)
        limited = dpx_file(dpx_rows(narrow, bits, ">"), bits, transfer=6, levels=(16 * scale, 235 * scale))
        yield Sample(f"dpx {bits} limited range", limited, as_shown((narrow / scale - 16) / 219))
    body = dpx_rows(quantised(rgb, 10), 10, ">")
    for orientation, turned in ((1, shown[:, ::-1]), (2, shown[::-1]), (3, shown[::-1, ::-1])):
        yield Sample(f"dpx turned {orientation}", dpx_file(body, 10, orientation=orientation), turned)
    tight = quantised(rgb, 8).astype(np.uint8).tobytes()
    yield Sample("dpx rows without padding", dpx_file(tight, 8), shown)
    yield Sample("dpx white", dpx_file(dpx_rows(quantised(rgb * 0 + 1, 10), 10, ">"), 10), shown * 0 + 255)
    yield Sample("dpx packed", dpx_file(body, 10, packing=0), None, "10-bit packed RGB DPX")
    yield Sample("dpx run-length coded", dpx_file(body, 10, encoding=1), None, "run-length coded samples")
    yield Sample("dpx of half chroma", dpx_file(body, 10, descriptor=100), None, "DPX image of descriptor 100")
    yield Sample("dpx of depth", dpx_file(body, 10, transfer=11), None, "transfer 11")


# TGA: Truevision, version 2.0.


def tga_file(
    kind: int, bits: int, values: Array, *, flags: int = 0x20, palette: bytes = b"", entry_bits: int = 0, first: int = 0
) -> bytes:
    entries = len(palette) // ((entry_bits + 7) // 8) if palette else 0
    head = struct.pack(
        "<BBBHHBHHHHBB", 5, bool(palette), kind, first, entries, entry_bits, 0, 0, WIDTH, HEIGHT, bits, flags
    )
    stored = values[:, ::-1] if flags & 0x10 else values
    stored = stored if flags & 0x20 else stored[::-1]
    pixels = [pixel.tobytes() for pixel in stored.reshape(HEIGHT * WIDTH, -1)]
    body = b"".join(pixels) if kind < 8 else b"".join(tga_packets(pixels))
    return head + b"hello" + palette + body


def tga_packets(pixels: list[bytes]) -> Iterator[bytes]:
    """Pairs of alike pixels become runs, all else stays; neither begins anew at the end of a row."""
    for start in range(0, len(pixels), 7):
        part = pixels[start : start + 7]
        yield (
            bytes((len(part) - 1 | 0x80,)) + part[0]
            if len(set(part)) == 1
            else bytes((len(part) - 1,)) + b"".join(part)
        )


def fives(rgb: Array) -> Array:
    red, green, blue = np.moveaxis(np.rint(rgb * 31).astype(np.uint16), -1, 0)
    return red << 10 | green << 5 | blue


def tga() -> Iterator[Sample]:
    rgb, alpha = gradient(), quantised(opacity(), 8).astype(np.uint8)
    bgr = quantised(rgb, 8).astype(np.uint8)[..., ::-1]
    shown = as_shown(bgr[..., ::-1], 255)
    one = np.repeat(quantised(grey()[:, ::8], 8), 8, axis=1)[:, :WIDTH].astype(np.uint8)  # with runs
    of_five = as_shown(np.rint(rgb * 31) / 31)
    for coding, runs in ((0, ""), (8, " coded")):
        for flags in (0, 0x10, 0x20, 0x30):
            yield Sample(f"tga 24 flags {flags}{runs}", tga_file(2 + coding, 24, bgr, flags=flags), shown)
        four = np.dstack([bgr, alpha])
        yield Sample(
            f"tga 32 alpha{runs}", tga_file(2 + coding, 32, four, flags=0x28), shown * (alpha / 255)[..., None]
        )
        yield Sample(f"tga 32 without alpha{runs}", tga_file(2 + coding, 32, four), shown)
        yield Sample(f"tga 16{runs}", tga_file(2 + coding, 16, fives(rgb).astype("<u2")), of_five)
        yield Sample(f"tga 15{runs}", tga_file(2 + coding, 15, fives(rgb).astype("<u2")), of_five)
        yield Sample(f"tga grey{runs}", tga_file(3 + coding, 8, one), as_shown(one, 255))
        both = np.dstack([one, alpha])
        over = as_shown(one, 255) * (alpha / 255)[..., None]
        yield Sample(f"tga grey alpha{runs}", tga_file(3 + coding, 16, both, flags=0x28), over)
        colours = np.random.default_rng(4).integers(0, 256, (256, 4), dtype=np.uint8)
        for entry_bits in (24, 32):
            palette = np.ascontiguousarray(colours[:, : entry_bits // 8]).tobytes()
            data = tga_file(1 + coding, 8, one, palette=palette, entry_bits=entry_bits)
            yield Sample(f"tga palette of {entry_bits}{runs}", data, colours[one][..., 2::-1].astype(float))
        sixteen = fives(colours[:, 2::-1] / 255)
        for entry_bits in (15, 16):
            data = tga_file(1 + coding, 8, one, palette=sixteen.astype("<u2").tobytes(), entry_bits=entry_bits)
            seen = np.rint(np.rint(colours[one][..., 2::-1] / 255 * 31) / 31 * 255)
            yield Sample(f"tga palette of {entry_bits}{runs}", data, seen)
        index = one.astype("<u2") + 300
        data = tga_file(1 + coding, 16, index, palette=colours[:, :3].tobytes(), entry_bits=24, first=300)
        yield Sample(f"tga palette of many{runs}", data, colours[one][..., 2::-1].astype(float))
    signed = tga_file(2, 24, bgr) + bytes(8) + b"TRUEVISION-XFILE.\0"
    yield Sample("tga version 2", signed, shown)
    yield Sample("tga names a colour too many", tga_file(1, 8, one, palette=bytes(30), entry_bits=24), None, "")


# ICO and CUR: the bitmaps' own headers, and PNG.


def icon(*pictures: tuple[bytes, int, int], kind: int = 1) -> bytes:
    """Put pictures with the bits and the side that their directory names into a file."""
    place = 6 + 16 * len(pictures)
    directory = body = b""
    for data, bits, side in pictures:
        height = HEIGHT if side == WIDTH else side % 256
        directory += struct.pack("<BBBBHHII", side % 256, height, 0, 0, 1, bits, len(data), place + len(body))
        body += data
    return struct.pack("<HHH", 0, kind, len(pictures)) + directory + body


def icon_bitmap(bits: int, rows: bytes, clear: Array, palette: bytes = b"") -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, 2 * HEIGHT, 1, bits, 0, 0, 0, 0, 0, 0)
    return head + palette + rows + bmp_rows(clear, 1)


def ico() -> Iterator[Sample]:
    rgb = quantised(gradient(), 8).astype(np.uint8)
    shown, alpha = as_shown(rgb, 255), quantised(opacity(), 8).astype(np.uint8)
    clear = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    seen = np.where(clear[..., None], 0, shown)
    over = shown * (alpha / 255)[..., None]
    bgra = np.dstack([rgb[..., ::-1], alpha])
    large = icon_bitmap(32, bgra[::-1].tobytes(), clear)
    yield Sample("ico 32", icon((large, 32, 61)), over)
    opaque = np.dstack([rgb[..., ::-1], alpha * 0])
    yield Sample("ico 32 without alpha", icon((icon_bitmap(32, opaque[::-1].tobytes(), clear), 32, 61)), seen)
    body = bmp_rows(rgb[..., ::-1].reshape(HEIGHT, -1), 24)
    yield Sample("ico 24", icon((icon_bitmap(24, body, clear), 24, 61)), seen)
    body = bmp_rows(fives(gradient()), 16)
    of_five = np.where(clear[..., None], 0, as_shown(np.rint(gradient() * 31) / 31))
    yield Sample("ico 16", icon((icon_bitmap(16, body, clear), 16, 61)), of_five)
    for bits in (1, 4, 8):
        index = quantised(grey(), bits)
        palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3), dtype=np.uint8)
        four = np.hstack([palette[:, ::-1], np.zeros((1 << bits, 1), np.uint8)]).tobytes()
        small = icon_bitmap(bits, bmp_rows(index, bits), clear, four)
        yield Sample(
            f"ico {bits}", icon((small, bits, 61)), np.where(clear[..., None], 0, palette[index]).astype(float)
        )
    png_body = png_file(8, 6, packed_rows(np.dstack([rgb, alpha]), 8, lead=b"\0"))
    yield Sample("ico png", icon((png_body, 32, 61)), over)
    other = png_file(8, 2, packed_rows(255 - rgb, 8, lead=b"\0"))
    yield Sample("ico of several", icon((other, 32, 16), (png_body, 32, 61), (other, 8, 61), (other, 32, 32)), over)
    yield Sample("ico cursor", icon((png_body, 7, 61), kind=2), over)
    yield Sample("ico of 256", icon((other, 32, 48), (png_body, 32, 256)), over)
    yield Sample("ico without pictures", b"\0\0\1\0\1\0" + bytes(8), None)


# JPEG XL: ISO/IEC 18181-1. The frames are an encoder's, the header before them is written here.

_JXL_ENUMS = {n: (n, 2) if n < 2 else (2 | n - 2 << 2, 6) if n < 18 else (3 | n - 18 << 2, 8) for n in range(32)}


def jxl_depth(bits: int) -> list[tuple[int, int]]:
    return [(0, 1), (0, 2)] if bits == 8 else [(0, 1), (3, 2), (bits - 1, 6)]


def jxl_coordinate(part: float) -> list[tuple[int, int]]:
    """Write one that is not negative: millionths, doubled for the sign."""
    value = 2 * round(part * 1e6)
    choice, width, base = (0, 19, 0) if value < 524288 else (1, 19, 524288) if value < 1048576 else (2, 20, 1048576)
    return [(choice, 2), (value - base, width)]


def jxl_header(
    values: Array, *, orientation: int = 1, moving: int = 0, preview: int = 0, channel: int = 0, associated: int = 0,
    gamma: float = 0, transfer: int = 13, primaries: int = 1, custom: Sequence[float] = (), bits: int | None = None,
) -> bytes:  # fmt: skip
    """Write the header of lossless integers, of any size up to 512."""
    rows, columns, channels = values.shape
    depth = jxl_depth(bits or values.dtype.itemsize * 8)
    fields = [(0, 1), (0, 2), (rows - 1, 9), (0, 3), (0, 2), (columns - 1, 9)]
    fields += [(0, 1), (1, 1), (orientation - 1, 3), (0, 1), (preview, 1), (moving, 1), *depth, (0, 1)]
    fields += [(0, 2)] if channels % 2 else [(1, 2), (0, 1), _JXL_ENUMS[channel], *depth, (0, 2), (0, 2)]
    fields += [] if channels % 2 or channel else [(associated, 1)]
    fields += [(0, 1), (0, 1), (0, 1), _JXL_ENUMS[int(channels < 3)], _JXL_ENUMS[1]]
    fields += [_JXL_ENUMS[primaries]] if channels > 2 else []
    fields += [field for part in custom for field in jxl_coordinate(part)]
    fields += [(1, 1), (round(gamma * 1e7), 24)] if gamma else [(0, 1), _JXL_ENUMS[transfer]]
    fields += [_JXL_ENUMS[1], (1, 1), (0, 2), (1, 1)]
    found = at = 0
    for value, width in fields:
        found |= value << at
        at += width
    return b"\xff\x0a" + found.to_bytes((at + 7) // 8, "little")


def jxl_frames(values: Array) -> bytes:
    """Return an encoder's codestream behind its header, which ends where a header of ours may stand before it."""
    whole = bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    whole = whole[whole.index(b"\xff\x0a") :]  # its last box, for more than 8 bits come in a container
    head = jxl_header(values)
    for start in range(4, 40):
        with contextlib.suppress(RuntimeError):
            if np.array_equal(imagecodecs.jpegxl_decode(head + whole[start:]).reshape(values.shape), values):
                return whole[start:]
    raise AssertionError("no header ends among the first bytes")


def jxl() -> Iterator[Sample]:
    if "JPEG XL" not in DECODERS:
        yield Sample("jxl without the extra", b"\xff\x0a\xfa\x1f" + bytes(64), None, "which stillreel[jxl] reads")
        return
    rgb, one, alpha = gradient(), grey()[..., None], opacity()[..., None]
    pictures = {"rgb": rgb, "grey": one, "rgba": np.dstack([rgb, alpha]), "grey with alpha": np.dstack([one, alpha])}
    for (name, values), dtype in itertools.product(pictures.items(), ("u1", "u2", "f4", "f2")):
        most = 255 if dtype == "u1" else 65535 if dtype == "u2" else 1
        stored = (np.rint(values * most) if most > 1 else values).astype(dtype)
        colour = as_shown(np.repeat(one, 3, -1) if name.startswith("grey") else rgb)
        shown = colour if dtype == "u1" else as_shown(coded(colour / 255))  # imagecodecs says that the others are light
        seen = shown * alpha if "a" in name.split()[-1] and values.shape[2] % 2 == 0 else shown
        for effort, boxed in ((1, False), (5, True)):
            data = imagecodecs.jpegxl_encode(stored, lossless=True, effort=effort, usecontainer=boxed)
            yield Sample(f"jxl {name} {dtype} effort {effort}", bytes(data), seen)
    yield from _jxl_lossy()
    yield from _jxl_headers()


def _jxl_lossy() -> Iterator[Sample]:
    for name, values in {"rgb": gradient(), "grey": grey()}.items():
        stored = quantised(values, 8).astype(np.uint8)
        for distance in (0.5, 3):
            data = bytes(imagecodecs.jpegxl_encode(stored, distance=distance, lossless=False))
            yield Sample(f"jxl {name} {distance} lossy", data, as_shown(imagecodecs.jpegxl_decode(data), 255))
    stored, jpeg = quantised(mild(), 8).astype(np.uint8), io.BytesIO()
    Image.fromarray(stored).save(jpeg, "JPEG", quality=100, subsampling=0, icc_profile=rgb_profile(P3_COLUMNS))
    data = bytes(imagecodecs.jpegxl_encode_jpeg(jpeg.getvalue()))
    yield Sample("jxl profile lossy", data, standards.shown_p3(stored / 255))
    yield Sample("jxl cut", data[:-20], None)


def _jxl_headers() -> Iterator[Sample]:
    rgb = quantised(gradient(), 16).astype(np.uint16)
    frames, four = jxl_frames(rgb), np.dstack([rgb, quantised(opacity(), 16).astype(np.uint16)])
    shown = as_shown(rgb, 65535)
    turns = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.transpose(1, 0, 2),
        6: np.rot90(shown, -1), 7: shown[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(shown),
    }  # fmt: skip
    for orientation, turned in turns.items():
        yield Sample(f"jxl turned {orientation}", jxl_header(rgb, orientation=orientation) + frames, turned)
    yield Sample("jxl p3", jxl_header(rgb, primaries=11) + frames, standards.shown_p3(rgb / 65535))
    points = [part for point in standards.P3 for part in point]
    yield Sample("jxl primaries", jxl_header(rgb, primaries=2, custom=points) + frames, standards.shown_p3(rgb / 65535))
    yield Sample("jxl gamma", jxl_header(rgb, gamma=1 / 1.8) + frames, as_shown(coded((rgb / 65535) ** 1.8)))
    yield Sample("jxl linear", jxl_header(rgb, transfer=8) + frames, as_shown(coded(rgb / 65535)))
    yield Sample("jxl bt709", jxl_header(rgb, transfer=1) + frames, shown)
    for bits in (10, 12, 14):
        deep = quantised(gradient(), bits).astype(np.uint16)
        data = jxl_header(deep, bits=bits) + jxl_frames(deep)
        yield Sample(f"jxl {bits} bits", data, as_shown(deep, (1 << bits) - 1))
    dim = quantised(mild(), 16).astype(np.uint16)
    of_dim = jxl_frames(dim)
    yield Sample("jxl pq", jxl_header(dim, transfer=16, primaries=9) + of_dim, standards.shown_pq(mild()))
    yield Sample("jxl hlg", jxl_header(dim, transfer=18, primaries=9) + of_dim, standards.shown_hlg(mild()))
    whole = jxl_header(rgb) + frames
    halves = struct.pack(">I", 0) + whole[:9], struct.pack(">I", 1 << 31 | 1) + whole[9:]
    lead = bytes.fromhex("0000000c4a584c200d0a870a") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    yield Sample("jxl in parts", lead + b"".join(box(b"jxlp", half) for half in halves), shown)
    yield Sample("jxl container alone", lead, None)
    for words, data in {
        "16-bit premultiplied RGBA JPEG XL": jxl_header(four, associated=1),
        "JPEG XL image with a black channel": jxl_header(four, channel=4),
        "JPEG XL image with a depth channel": jxl_header(four, channel=1),
        "JPEG XL animation": jxl_header(rgb, moving=1),
        "JPEG XL image with a preview": jxl_header(rgb, preview=1),
        "24-bit JPEG XL": jxl_header(rgb, bits=24),
        "JPEG XL image of colours that are not known": jxl_header(rgb, transfer=2 + 1),
    }.items():
        yield Sample(f"jxl refused {words}", data + frames, None, words)


# PSD: Adobe, "Photoshop File Formats".


def psd_file(
    mode: int, planes: Sequence[Array], *, coding: int = 0, palette: bytes = b"", resources: bytes = b"",
    layers: bytes = b"", version: int = 1, bits: int | None = None,
) -> bytes:  # fmt: skip
    bits = bits or planes[0].dtype.itemsize * 8
    head = struct.pack(">4sH6xHIIHH", b"8BPS", version, len(planes), HEIGHT, WIDTH, bits, mode)
    big = [plane.astype(plane.dtype.newbyteorder(">")) if bits > 1 else np.packbits(plane, axis=1) for plane in planes]
    rows = [row.tobytes() for plane in big for row in plane]
    counts = b""
    if coding == 1:
        rows = [bytes(imagecodecs.packbits_encode(row)) for row in rows]
        counts = b"".join(struct.pack(">I" if version == 2 else ">H", len(row)) for row in rows)
    parts = [struct.pack(">I", len(part)) + part for part in (palette, resources)]
    parts.append(struct.pack(">Q" if version == 2 else ">I", len(layers)) + layers)
    return head + b"".join(parts) + struct.pack(">H", coding) + counts + b"".join(rows)


def psd() -> Iterator[Sample]:
    rgb, one, alpha = gradient(), grey(), opacity()
    transparent = struct.pack(">Ih", 2, -1)
    for (dtype, bits), coding, version in itertools.product((("u1", 8), ("u2", 16), ("f4", 32)), (0, 1), (1, 2)):
        most = 1 if bits == 32 else (1 << bits) - 1

        def stored(values: Array, most: int = most, dtype: str = dtype) -> Array:
            return (values if most == 1 else np.rint(values * most)).astype(dtype)

        def seen(values: Array, most: int = most) -> Array:
            return as_shown(coded(values) if most == 1 else values)

        name = f"psd {bits}{' packed' if coding else ''}{' large' if version == 2 else ''}"
        more: dict[str, Any] = {"coding": coding, "version": version}
        planes = list(np.moveaxis(rgb, -1, 0))
        yield Sample(f"{name} rgb", psd_file(3, [stored(plane) for plane in planes], **more), seen(rgb))
        yield Sample(f"{name} grey", psd_file(1, [stored(one)], **more), seen(one))
        if version == 1:
            yield Sample(
                f"{name} rgb and a selection", psd_file(3, [*map(stored, planes), stored(alpha)], **more), seen(rgb)
            )
            whites = [stored(plane * alpha + 1 - alpha) for plane in planes]
            data = psd_file(3, [*whites, stored(alpha)], layers=transparent, **more)
            yield Sample(f"{name} rgb transparent", data, seen(rgb) * alpha[..., None])
            both = [stored(one * alpha + 1 - alpha), stored(alpha)]
            data = psd_file(1, both, layers=transparent, **more)
            yield Sample(f"{name} grey transparent", data, seen(one) * alpha[..., None])
    chequer = (np.indices((HEIGHT, WIDTH)).sum(0) // 8 % 2).astype(np.uint8)
    eight = [quantised(plane, 8).astype(np.uint8) for plane in np.moveaxis(rgb, -1, 0)]
    for coding in (0, 1):
        yield Sample(f"psd bitmap {coding}", psd_file(0, [chequer], coding=coding, bits=1), as_shown(1 - chequer))
        palette = np.random.default_rng(6).integers(0, 256, (256, 3), dtype=np.uint8)
        data = psd_file(2, eight[:1], coding=coding, palette=palette.T.tobytes())
        yield Sample(f"psd palette {coding}", data, palette[eight[0]].astype(float))
        yield Sample(
            f"psd duotone {coding}", psd_file(8, eight[:1], coding=coding, palette=bytes(20)), as_shown(eight[0], 255)
        )
        inks = [*eight, np.full_like(eight[0], 255)]  # 255 is no ink
        yield Sample(f"psd cmyk {coding}", psd_file(4, inks, coding=coding), as_shown(np.dstack(eight), 255))
        over_white = [quantised(plane * alpha + 1 - alpha, 8).astype(np.uint8) for plane in np.moveaxis(rgb, -1, 0)]
        five = [*over_white, inks[3], quantised(alpha, 8).astype(np.uint8)]
        data = psd_file(4, five, coding=coding, layers=transparent)
        yield Sample(f"psd cmyk transparent {coding}", data, as_shown(rgb) * alpha[..., None])
        yield Sample(
            f"psd cmyk and a selection {coding}", psd_file(4, five, coding=coding), as_shown(np.dstack(five[:3]), 255)
        )
    profile = rgb_profile(P3_COLUMNS)
    resource = b"8BIM" + struct.pack(">H", 1000) + b"\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    resource += b"8BIM" + struct.pack(">H", 1039) + b"\0\0" + struct.pack(">I", len(profile)) + profile
    yield Sample("psd profile", psd_file(3, eight, resources=resource), standards.shown_p3(np.dstack(eight) / 255))
    yield Sample("psd lab", psd_file(9, eight), None, "8-bit Lab Photoshop")
    yield Sample("psd zip", psd_file(3, eight, coding=2), None, "an unknown compression")


def refused() -> Iterator[Sample]:
    for words, head in {
        "HEIF image of a codec": b"\0\0\0\x18ftypmif1\0\0\0\0mif1vvic",
        "PDF": b"%PDF-1.7\n",
        "SVG": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        "HTML": b"<!DOCTYPE html><html></html>",
        "camera raw (Fujifilm RAF)": b"FUJIFILMCCD-RAW 0201",
        "camera raw (Canon CR3)": b"\0\0\0\x18ftypcrx \0\0\0\1crx isom",
        "camera raw (Olympus ORF)": b"IIRO\x08\0\0\0",
        "camera raw (Panasonic RW2)": b"IIU\0\x18\0\0\0",
        "video": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
        "Matroska": b"\x1a\x45\xdf\xa3\x9fB\x86\x81\1",
        "ZIP": b"PK\3\4\x14\0",
        "gzip": b"\x1f\x8b\x08\0",
        "QOI": b"qoif\0\0\0\x10",
        "JSON": b'{"detail": "not found"}',
    }.items():
        yield Sample(f"refused {words}", head + bytes(64), None, words)
