"""Stills to measure with, as files: photographs at any size, and what drawn.py draws.

What the photographs are: scikit-image's bundled pictures (a portrait, a cup, a cat, a rocket, galaxies, a retina, a
stereo pair of a motorcycle, stained tissue), cropped, turned, scaled up with Lanczos and given the grain of a sensor,
saved as JPEG with quality 92 and 4:2:0. They have the edges, gradients, skin and noise of photographs, and a coder has
as much to do as with a camera's picture seen at video size. What they are not: camera originals. The sources have 0.1
to 2 megapixels, so the finest detail at 1080p and above is grain and not the lens's.

The same number always gives the same picture, so results of different days compare.
"""

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.drawn import SCENE, Pixels, Size, drawing, screenshot, slide

JPEG_QUALITY = 92
_SOURCES = (
    *("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "hubble_deep_field.jpg", "retina.jpg"),
    *("motorcycle_left.png", "motorcycle_right.png", "ihc.png"),
)
_LARGEST_TURN_DEGREES = 8
_GRAIN = 2.2  # standard deviation at mid grey, of 255: a clean exposure at a low ISO
_GRAIN_SIZE = 0.6  # pixels: what demosaicing leaves of white noise


def cache_dir() -> Path:
    """Return where stills are kept between runs: $STILLREEL_BENCHMARK_CACHE, else a temporary directory."""
    return Path(os.environ.get("STILLREEL_BENCHMARK_CACHE") or Path(tempfile.gettempdir()) / "stillreel-benchmarks")


def photographs(count: int, size: Size) -> list[Path]:
    """Return `count` different photographs of exactly this size as JPEG files, made where they are not yet there."""
    return [_kept("photographs", ".jpg", photograph, index, size) for index in range(count)]


def png_photographs(count: int, size: Size) -> list[Path]:
    """Return the same photographs as PNG files."""
    return [_kept("photographs", ".png", photograph, index, size) for index in range(count)]


def drawings(count: int, size: Size) -> list[Path]:
    """Return `count` consecutive drawings of an animation as PNG files."""
    return [_kept("drawings", ".png", drawing, index, size) for index in range(count)]


def scenes(count: int, size: Size) -> list[Path]:
    """Return `count` drawings as PNG files, each from another scene."""
    return [_kept("drawings", ".png", drawing, SCENE * index, size) for index in range(count)]


def slides(count: int, size: Size) -> list[Path]:
    """Return `count` slides of a talk as PNG files."""
    return [_kept("slides", ".png", slide, index, size) for index in range(count)]


def screenshots(count: int, size: Size) -> list[Path]:
    """Return `count` screenshots as PNG files."""
    return [_kept("screenshots", ".png", screenshot, index, size) for index in range(count)]


def photograph(index: int, size: Size) -> Pixels:
    """Return photograph number `index`: (H, W, 3) uint8, BGR."""
    random = np.random.default_rng([1, index])
    source = _source(_SOURCES[index % len(_SOURCES)])
    rows, columns = source.shape[:2]
    # The largest rectangle of the canvas's shape in the source, a part of it, turned about its middle.
    scale = min(columns / size[0], rows / size[1]) * random.uniform(0.55, 0.9)
    width, height = size[0] * scale, size[1] * scale
    middle = (random.uniform(width / 2, columns - width / 2), random.uniform(height / 2, rows - height / 2))
    turn = cv2.getRotationMatrix2D(middle, random.uniform(-_LARGEST_TURN_DEGREES, _LARGEST_TURN_DEGREES), 1 / scale)
    turn[:, 2] += (size[0] / 2 - middle[0], size[1] / 2 - middle[1])
    if random.random() < 0.5:
        turn = np.array([[-1, 0, size[0] - 1], [0, 1, 0]]) @ np.vstack([turn, [0, 0, 1]])
    still = cv2.warpAffine(source, turn, size, flags=cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    return _with_grain(np.asarray(still, np.uint8), random)


def _kept(kind: str, suffix: str, make: Callable[[int, Size], Pixels], index: int, size: Size) -> Path:
    """Return the file of one still; it appears whole or not at all."""
    file = cache_dir() / f"{kind}-{size[0]}x{size[1]}" / f"{index:04}{suffix}"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{os.getpid()}-{file.name}")
        settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
        if not cv2.imwrite(str(part), make(index, size), settings):
            raise OSError(f"{part} could not be written")
        part.replace(file)
    return file


@functools.cache
def _source(name: str) -> Pixels:
    from skimage import data  # noqa: PLC0415 - from the demo extra; only needed where a still is not cached

    pixels = cv2.imread(str(Path(data.__file__).parent / name), cv2.IMREAD_COLOR)
    if pixels is None:
        raise FileNotFoundError(f"scikit-image has no {name}")
    return np.asarray(pixels, np.uint8)


def _with_grain(still: Pixels, random: np.random.Generator) -> Pixels:
    """Add noise that grows with the square root of brightness, as photons make it."""
    noise = random.standard_normal(still.shape, np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), _GRAIN_SIZE), np.float32)
    noise /= noise.std()
    noise *= np.sqrt(still.astype(np.float32) / 128 + 0.1) * _GRAIN
    return np.asarray(np.clip(still + noise + 0.5, 0, 255), np.uint8)
