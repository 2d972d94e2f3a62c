"""Colours come back: from a file's sRGB values to what a player shows, with nothing but the stream's own tags.

What is decoded goes back to R, G and B here by the formulas of H.273, with matrix and range taken from the tags of the
decoded frame, in floating point. So nothing of the way in is used for the way out. swscale does the same a second time.
"""

import io
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from renderer import render
from renderer.encode.h264.bits import NalType, nal_type, split_nals
from renderer.encode.h264.parameter_sets import parse_sps

Floats = npt.NDArray[np.float64]
Colour = tuple[int, ...]

TOLERANCE = 2  # of 255: rounding to 219 steps of luma and 224 of chroma alone costs these patches up to 1.5
PATCH = 64
CRF = 4  # where the coder adds nothing to flat areas: what is asked here is whether colours are right, not quality
PATCHES: list[Colour] = [
    *((0, 0, 0), (255, 255, 255), (128, 128, 128), (1, 1, 1), (254, 254, 254), (16, 16, 16), (64, 64, 64)),
    *((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)),
    *((200, 30, 30), (30, 200, 30), (30, 30, 200), (219, 172, 140), (94, 122, 156), (87, 108, 67), (115, 82, 68)),
]

# H.273, Table 4: kR and kB by MatrixCoefficients.
KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
LIMITED = 1  # AVCOL_RANGE_MPEG


def to_rgb(frame: av.VideoFrame) -> Floats:
    """Convert by the frame's own tags; chroma is repeated, which is right within flat areas."""
    kr, kb = KR_KB[frame.colorspace]
    assert frame.color_range == LIMITED
    rows = frame.height
    stacked = frame.to_ndarray().astype(float)
    chroma = stacked[rows:].reshape(2, rows // 2, frame.width // 2).repeat(2, axis=1).repeat(2, axis=2)
    luma, (cb, cr) = (stacked[:rows] - 16) / 219, (chroma - 128) / 224
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.stack([red, green, blue], -1) * 255, 0, 255)


def chart(colours: Sequence[Colour], mode: str = "RGB") -> Image.Image:
    """Return flat squares of 64 x 64, five in a row."""
    image = Image.new(mode, (5 * PATCH, -(-len(colours) // 5) * PATCH))
    for index, colour in enumerate(colours):
        left, top = index % 5 * PATCH, index // 5 * PATCH
        image.paste(colour if len(colour) > 1 else colour[0], (left, top, left + PATCH, top + PATCH))
    return image


def patches_in(rgb: Floats, count: int) -> Floats:
    """Return what lies 12 pixels and more within each patch as (patch, pixel, channel)."""
    inside = []
    for index in range(count):
        top, left = index // 5 * PATCH + 12, index % 5 * PATCH + 12
        inside.append(rgb[top : top + PATCH - 24, left : left + PATCH - 24])
    return np.stack(inside).reshape(count, -1, 3)


@pytest.fixture
def shown(tmp_path: Path, decode_frames) -> Callable[..., list[av.VideoFrame]]:
    """Return a function: save the image, render it, and return the frames as decoded."""

    def show(image: Image.Image | Path, name: str = "a.png", save: dict[str, Any] | None = None, **fields: Any):
        path = image if isinstance(image, Path) else tmp_path / name
        if isinstance(image, Image.Image):
            image.save(path, **(save or {}))
        request = {"images": [{"url": str(path), "frames": 3}], "crf": CRF, **fields}
        render(request, tmp_path / "out.mp4")
        return decode_frames(tmp_path / "out.mp4")

    return show


def check(frames: list[av.VideoFrame], expected: Sequence[Colour]) -> None:
    for frame in frames:
        found = patches_in(to_rgb(frame), len(expected))
        assert np.abs(found - np.array(expected, float)[:, None]).max() <= TOLERANCE


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast", "medium"])
def test_patches_come_back(shown, preset: str) -> None:
    check(shown(chart(PATCHES), preset=preset), PATCHES)


def test_patches_come_back_through_swscale(shown) -> None:
    """libswscale with the tags of the frame, as most players on Linux do it."""
    for frame in shown(chart(PATCHES)):
        found = patches_in(frame.to_ndarray(format="rgb24").astype(float), len(PATCHES))
        assert np.abs(found - np.array(PATCHES, float)[:, None]).max() <= TOLERANCE + 1  # its tables have 8 bits


@pytest.mark.parametrize("crf", [0, 20, 28])
def test_quality_does_not_shift_colours(shown, crf: int) -> None:
    """The coder's noise is no bias: the mean of a flat area stays, at the default quality and below."""
    for frame in shown(chart(PATCHES), crf=crf):
        means = patches_in(to_rgb(frame), len(PATCHES)).mean(axis=1)
        assert np.abs(means - np.array(PATCHES)).max() <= TOLERANCE


@pytest.mark.parametrize("size", [(319, 255), (320, 255), (319, 256)])
def test_odd_sizes_keep_their_colours(shown, size: tuple[int, int]) -> None:
    check(shown(chart(PATCHES).crop((0, 0, *size))), PATCHES)


@pytest.mark.parametrize("background", ["#000000", "#ffffff", "#3264c8"])
def test_alpha_lies_over_the_background(shown, background: str) -> None:
    under = np.array([int(background[at : at + 2], 16) for at in (1, 3, 5)])
    colours = [(*colour, alpha) for colour, alpha in zip(PATCHES, [0, 1, 64, 128, 200, 254, 255] * 3, strict=False)]
    expected = [tuple((np.array(c[:3]) * c[3] + under * (255 - c[3])) / 255) for c in colours]
    check(shown(chart(colours, "RGBA"), background=background), expected)


def test_grey_stays_grey(shown) -> None:
    levels = [(level,) for level in range(0, 256, 17)]
    frames = shown(chart(levels, "L"))
    check(frames, [level * 3 for level in levels])
    for frame in frames:
        assert set(np.unique(frame.to_ndarray()[frame.height :])) == {128}


def test_grey_with_alpha_lies_over_the_background(shown) -> None:
    frames = shown(chart([(200, 255), (200, 0), (100, 128)], "LA"), background="#ffffff")
    check(frames, [(200,) * 3, (255,) * 3, ((100 * 128 + 255 * 127) / 255,) * 3])


def test_a_palette_is_looked_up(shown) -> None:
    check(shown(chart(PATCHES).quantize(32, dither=Image.Dither.NONE)), PATCHES)


@pytest.mark.parametrize("levels", [[0, 257 * 100, 65535, 32768, 12345]])
def test_16_bits_are_scaled(shown, levels: list[int]) -> None:
    pixels = np.repeat(np.array(levels, np.uint16), PATCH)[None].repeat(PATCH, axis=0)
    check(shown(Image.fromarray(pixels)), [(level / 257,) * 3 for level in levels])


def test_a_jpeg_comes_back(shown) -> None:
    frames = shown(chart(PATCHES), "a.jpg", {"quality": 100, "subsampling": 0})
    for frame in frames:
        means = patches_in(to_rgb(frame), len(PATCHES)).mean(axis=1)
        assert np.abs(means - np.array(PATCHES)).max() <= TOLERANCE + 1  # JPEG rounds once more


@pytest.mark.parametrize("name", ["a.bmp", "a.tiff", "a.webp"])
def test_other_lossless_formats_come_back(shown, name: str) -> None:
    check(shown(chart(PATCHES), name, {"lossless": True} if name.endswith("webp") else None), PATCHES)


def test_bars_have_the_background(shown) -> None:
    for frame in shown(chart(PATCHES), width=560, height=256, background="#3264c8"):
        rgb = to_rgb(frame)
        for bar in (rgb[12:-12, 12:108], rgb[12:-12, 452:548]):
            assert np.abs(bar - (0x32, 0x64, 0xC8)).max() <= TOLERANCE


# Display P3.

D65, D50 = (0.3127, 0.3290), (0.9642, 1.0, 0.8249)
P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))  # SMPTE EG 432-1
SRGB_PRIMARIES = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))  # IEC 61966-2-1
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def xyz(x: float, y: float) -> Floats:
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(primaries: Sequence[tuple[float, float]]) -> Floats:
    """Return the matrix from linear R, G, B to X, Y, Z under D65."""
    columns = np.stack([xyz(*primary) for primary in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz(*D65))


def linear(coded: Floats) -> Floats:
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def coded(light: Floats) -> Floats:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def srgb_of_p3(colour: Colour) -> Colour:
    light = np.linalg.solve(to_xyz(SRGB_PRIMARIES), to_xyz(P3_PRIMARIES) @ linear(np.array(colour) / 255))
    return tuple(coded(np.clip(light, 0, 1)) * 255)


def display_p3() -> bytes:
    """Return an ICC profile (ICC.1:2022) like the one that phones embed: matrix and sRGB's curve."""
    cone = BRADFORD @ to_xyz(P3_PRIMARIES)
    gain = (BRADFORD @ np.array(D50)) / (BRADFORD @ xyz(*D65))
    columns = np.linalg.solve(BRADFORD, gain[:, None] * cone)

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    name = "P3".encode("utf-16-be")
    text = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(name), 28) + name
    tags = {b"desc": text, b"cprt": text, b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50)}
    tags |= {key: b"XYZ \0\0\0\0" + fixed(*columns[:, at]) for at, key in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        table += key + struct.pack(">II", start + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4xI4s4s4s12x4s", start + len(body), 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + fixed(*D50).ljust(60, b"\0") + struct.pack(">I", len(tags)) + table + body


# All within sRGB, so that the equivalent is exact.
P3_PATCHES = [(128, 128, 128), (200, 120, 100), (100, 180, 120), (90, 100, 200), (219, 172, 140), (60, 70, 50)]


@pytest.mark.parametrize(("name", "tolerance"), [("p3.png", TOLERANCE), ("p3.jpg", TOLERANCE + 1)])
def test_display_p3_comes_out_as_its_srgb_equivalent(shown, name: str, tolerance: int) -> None:
    expected = [srgb_of_p3(colour) for colour in P3_PATCHES]
    assert max(abs(a - b) for pair in zip(expected, P3_PATCHES, strict=True) for a, b in zip(*pair, strict=True)) > 10
    save = {"icc_profile": display_p3()} | ({"quality": 100, "subsampling": 0} if name.endswith("jpg") else {})
    for frame in shown(chart(P3_PATCHES), name, save):
        means = patches_in(to_rgb(frame), len(P3_PATCHES)).mean(axis=1)
        assert np.abs(means - np.array(expected)).max() <= tolerance


def test_what_display_p3_shows_and_srgb_cannot_is_cut_to_srgb(shown) -> None:
    expected = [srgb_of_p3((0, 255, 0)), srgb_of_p3((255, 0, 0))]
    check(shown(chart([(0, 255, 0), (255, 0, 0)]), save={"icc_profile": display_p3()}), expected)


# Tags.


def test_the_stream_and_the_box_say_bt709_limited(shown, tmp_path: Path) -> None:
    (frame, *_) = shown(chart(PATCHES))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, LIMITED, 1, 1)
    data = (tmp_path / "out.mp4").read_bytes()
    at = data.index(b"colrnclx") + 8
    assert struct.unpack_from(">HHHB", data, at) == (1, 1, 1, 0)
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"
        assert context.profile != "High 4:4:4 Predictive"
        raw = io.BytesIO()
        with av.open(raw, "w", format="h264") as bare:  # back to Annex B, so that the SPS itself is looked at
            stream = bare.add_stream_from_template(container.streams.video[0])
            for packet in container.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    bare.mux(packet)
    sps = parse_sps(next(nal for nal in split_nals(raw.getvalue()) if nal_type(nal) == NalType.SPS))
    assert sps.vui is not None
    assert sps.vui.colour is not None
    colour = sps.vui.colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.is_full_range) == (1, 1, 1, False)
