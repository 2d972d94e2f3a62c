"""Where every pixel ends up: sizes, bars and orientations, in the decoded luma of lossless videos.

crf 0 is lossless, so what is decoded is what was composed, and edges can be asked for to the pixel.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps

from renderer import render

Plane = npt.NDArray[np.uint8]
Size = tuple[int, int]

WHITE, BLACK = 235, 16


def luma_of(rgb: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return BT.709-6's limited-range luma of 8-bit R, G, B, not rounded."""
    return 16 + 219 / 255 * (rgb.astype(float) @ (0.2126, 0.7152, 0.0722))


@pytest.fixture
def lumas(tmp_path: Path, decode_frames) -> Callable[..., list[Plane]]:
    """Return a function: render these images one frame each, losslessly, and return the luma of each frame."""

    def shown(images: Sequence[Image.Image | Path], **fields: Any) -> list[Plane]:
        urls = []
        for index, image in enumerate(images):
            path = image if isinstance(image, Path) else tmp_path / f"{index}.png"
            if isinstance(image, Image.Image):
                image.save(path, compress_level=1)
            urls.append({"url": str(path)})
        path = tmp_path / "out.mp4"
        result = render({"images": urls, "crf": 0, "preset": "ultrafast", **fields}, path)
        frames = decode_frames(path)
        assert len(frames) == len(images)
        assert {(frame.width, frame.height) for frame in frames} == {(result.width, result.height)}
        return [frame.to_ndarray()[: frame.height] for frame in frames]

    return shown


def flat(size: Size, colour: int | tuple[int, ...] = 255) -> Image.Image:
    return Image.new("RGB", size, colour if isinstance(colour, tuple) else (colour,) * 3)


def assert_rectangle(luma: Plane, left: int, top: int, size: Size, inside: int = WHITE, outside: int = BLACK) -> None:
    expected = np.full(luma.shape, outside, np.uint8)
    expected[top : top + size[1], left : left + size[0]] = inside
    np.testing.assert_array_equal(luma, expected)


# The first still gives the size.


@pytest.mark.parametrize(
    "size",
    [
        *((1, 1), (2, 2), (1, 2), (15, 17), (641, 481), (481, 641), (1600, 901), (901, 1600)),
        *((4096, 2160), (5120, 2880)),
    ],
    ids=lambda size: f"{size[0]}x{size[1]}",
)
def test_every_pixel_of_the_first_still_is_kept_at_any_size(lumas, size: Size) -> None:
    """Odd sides grow by one column or row, which repeats the last."""
    width, height = size
    columns, rows = np.arange(width), np.arange(height)[:, None]
    pixels = np.stack(np.broadcast_arrays(columns * 3 % 256, rows * 5 % 256, (columns // 7 + rows // 3) % 256), -1)
    (luma,) = lumas([Image.fromarray(pixels.astype(np.uint8))])
    assert luma.shape == (max(2, height + height % 2), max(2, width + width % 2))
    expected = np.pad(luma_of(pixels), ((0, luma.shape[0] - height), (0, luma.shape[1] - width)), "edge")
    assert np.abs(luma - expected).max() < 0.7


def test_one_side_given_keeps_the_aspect_ratio(lumas) -> None:
    (luma,) = lumas([flat((641, 481))], width=320)
    assert luma.shape == (240, 320)
    (luma,) = lumas([flat((641, 481))], height=721)
    assert luma.shape == (722, 962)  # the width follows the height once that is even


# pad.

# On a canvas of 64x48: still, then left, top and size of what is shown.
PADDED = [
    ((10, 20), 20, 0, (24, 48)),
    ((40, 10), 0, 16, (64, 16)),
    ((640, 160), 0, 16, (64, 16)),
    ((64, 48), 0, 0, (64, 48)),
    ((63, 47), 0, 0, (64, 48)),
    ((1, 1), 8, 0, (48, 48)),
    ((1, 100), 30, 0, (2, 48)),
    ((1000, 1), 0, 22, (64, 2)),
    ((640, 480), 0, 0, (64, 48)),
    ((480, 640), 14, 0, (36, 48)),
]


@pytest.mark.parametrize(("still", "left", "top", "size"), PADDED, ids=str)
def test_bars_are_exact_to_the_pixel(lumas, still: Size, left: int, top: int, size: Size) -> None:
    (luma,) = lumas([flat(still)], width=64, height=48)
    assert_rectangle(luma, left, top, size)


def test_bars_have_the_background_and_nothing_of_the_still_before(lumas) -> None:
    stills = [flat(still) for still, *_ in PADDED] * 2
    red = round(float(luma_of(np.array([255, 0, 0]))))
    for luma, (_, left, top, size) in zip(
        lumas(stills, width=64, height=48, background="#ff0000"), PADDED * 2, strict=True
    ):
        assert_rectangle(luma, left, top, size, outside=red)


def test_portrait_and_landscape_mix_on_the_first_ones_canvas(lumas) -> None:
    shown = lumas([flat((60, 90)), flat((90, 60)), flat((60, 90), 128), flat((120, 40))])
    assert_rectangle(shown[0], 0, 0, (60, 90))
    assert_rectangle(shown[1], 0, 24, (60, 40))
    assert_rectangle(shown[2], 0, 0, (60, 90), inside=126)
    assert_rectangle(shown[3], 0, 34, (60, 20))


# The other modes.


def test_crop_fills_the_canvas_and_cuts_evenly(lumas) -> None:
    tall = np.zeros((200, 100, 3), np.uint8)
    tall[62:138] = 255  # of 100x75 that are shown, all; the rest is cut
    wide = tall.transpose(1, 0, 2)[:, 33:167].copy()
    wide[:] = 255
    first, second = lumas([Image.fromarray(tall), Image.fromarray(wide)], width=64, height=48, resize_mode="crop")
    assert_rectangle(first, 0, 0, (64, 48))
    assert_rectangle(second, 0, 0, (64, 48))


def test_crop_cuts_the_same_on_both_sides(lumas) -> None:
    wide = np.zeros((48, 128, 3), np.uint8)
    wide[:, 32:96] = 255
    wide[:, 63:65] = 0
    (luma,) = lumas([Image.fromarray(wide)], width=64, height=48, resize_mode="crop")
    expected = np.full((48, 64), WHITE)
    expected[:, 31:33] = BLACK
    np.testing.assert_array_equal(luma, expected)


def test_stretch_fills_the_canvas_with_all_of_the_still(lumas) -> None:
    halves = np.zeros((96, 32, 3), np.uint8)
    halves[:48] = 255
    (luma,) = lumas([Image.fromarray(halves)], width=64, height=48, resize_mode="stretch")
    assert_rectangle(luma, 0, 0, (64, 24))


@pytest.mark.parametrize(
    ("mode", "still", "left", "top", "size"),
    [
        ("pad", (10, 20), 26, 14, (10, 20)),
        ("pad", (11, 21), 26, 12, (11, 21)),
        ("pad", (128, 20), 0, 18, (64, 10)),
        ("crop", (10, 20), 26, 14, (10, 20)),
        ("crop", (128, 20), 0, 14, (64, 20)),
        ("crop", (128, 96), 0, 0, (64, 48)),
        ("stretch", (10, 20), 26, 14, (10, 20)),
        ("stretch", (128, 20), 0, 14, (64, 20)),
    ],
)
def test_without_upscale_a_still_is_never_enlarged(
    lumas, mode: str, still: Size, left: int, top: int, size: Size
) -> None:
    (luma,) = lumas([flat(still)], width=64, height=48, resize_mode=mode, upscale=False)
    assert_rectangle(luma, left, top, size)


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_exif_orientation_is_undone(lumas, tmp_path: Path, orientation: int, suffix: str) -> None:
    """As Pillow does it: four quarters of different grey in a still of 64x32."""
    quarters = np.zeros((32, 64), np.uint8)
    quarters[:16, :32], quarters[:16, 32:], quarters[16:, :32], quarters[16:, 32:] = 20, 90, 160, 230
    image = Image.fromarray(quarters).convert("RGB")
    image.getexif()[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    image.save(path, exif=image.getexif(), **options)
    upright = np.asarray(ImageOps.exif_transpose(image))
    (luma,) = lumas([path])
    assert luma.shape == upright.shape[:2]
    assert np.abs(luma - luma_of(upright)).max() < 2


def test_orientation_decides_before_the_canvas_is_chosen(lumas, tmp_path: Path) -> None:
    image = flat((90, 60))
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=image.getexif(), quality=100)
    shown = lumas([tmp_path / "a.jpg", flat((90, 60))])
    assert_rectangle(shown[0], 0, 0, (60, 90))
    assert_rectangle(shown[1], 0, 24, (60, 40))


# Photographs.


def covered(length: int, scaled: int) -> npt.NDArray[np.float64]:
    """Return what share of each scaled pixel every pixel has, as (scaled, length)."""
    edges, pixels = np.linspace(0, length, scaled + 1)[:, None], np.arange(length)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.clip(overlap, 0, None) * scaled / length


def test_photographs_are_scaled_by_area(lumas, photos) -> None:
    """Each pixel is the mean of the area that it covers, computed here; retina.jpg is read at a quarter first."""
    paths = [photos[name] for name in ("astronaut", "chelsea", "coffee", "retina")]
    for path, luma in zip(paths, lumas(paths, width=320, height=240, resize_mode="stretch"), strict=True):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(float)
        across, down = covered(pixels.shape[1], 320), covered(pixels.shape[0], 240)
        expected = luma_of(np.einsum("yr,rcp,xc->yxp", down, pixels, across, optimize=True))
        error = np.mean((luma - expected) ** 2)
        assert 10 * np.log10(255**2 / error) > 44, path.name
