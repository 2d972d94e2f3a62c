"""Converts decoded samples of any kind to sRGB in 8-bit BGR: depth, embedded profile, then alpha, in strips.

The temporaries of a strip stay in the cache, and a 200-megapixel still needs no more memory than its input and output.

Profiles are converted by LittleCMS with the relative colorimetric intent and black point compensation: colours that
sRGB can show stay exact, while perceptual tables would shift them all; matrix profiles, which cameras and phones embed,
have no perceptual tables anyway; and black point compensation keeps the shadows of print profiles distinct.

Alpha is composited on the coded sRGB values, as browsers do (W3C Compositing and Blending Level 1, 5.1), on 8-bit
values. Float samples are linear light (Radiance, PFM, OpenEXR, float TIFF) and are coded with IEC 61966-2-1; a profile
embedded with them is ignored. 16-bit samples become 8-bit ones by v / 257, rounded: 65535 to 255, 257 to 1.

If a file describes its samples by other means than a profile, `light` converts them.
"""

import io
import logging
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from renderer.errors import UnsupportedFormat
from renderer.pictures.light import Coding, to_srgb

Rgb = tuple[int, int, int]
Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[Any]

_log = logging.getLogger(__name__)

# 65,536 pixels of BGR with their 16-bit products are 600 KiB: within a core's second-level cache.
_STRIP_PIXELS = 1 << 16

_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def to_bgr(samples: Samples, *, background: Rgb, profile: bytes | None = None, coding: Coding | None = None) -> Pixels:
    """Return the samples as sRGB, opaque.

    Args:
        samples: (H, W), (H, W, 2) with alpha, (H, W, 3) in the order BGR or (H, W, 4) in the order BGRA, alpha not
            premultiplied; uint8, uint16 (full scale) or float (linear light, 1.0 is white).
        background: the R, G, B under transparent samples.
        profile: the ICC profile that the samples were coded with; a broken one is ignored.
        coding: how the samples represent light, if there is no profile; None is sRGB.

    Returns:
        (H, W, 3) uint8, BGR, C-contiguous; `samples` themselves if nothing has to be done.

    Raises:
        UnsupportedFormat: the samples are of another type.
    """
    if samples.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise UnsupportedFormat(f"expected samples of 8 or 16 bits or floats, found {samples.dtype}")
    transform = _transform_for(samples, profile)
    is_plain = transform is None and coding is None
    if is_plain and samples.dtype == np.uint8 and samples.ndim == 3 and samples.shape[2] == 3:
        return np.ascontiguousarray(samples)
    rows, columns = samples.shape[:2]
    bgr = np.empty((rows, columns, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // columns)
    for top in range(0, rows, step):
        strip = samples[top : top + step]
        alpha = _alpha(strip)
        colour = strip if strip.ndim == 2 else strip[..., 0] if strip.shape[2] == 2 else strip[..., :3]
        colour = _coded(colour) if coding is None else to_srgb(_in_three(colour), coding)
        colour = _grey_to_bgr(colour, transform) if colour.ndim == 2 else _converted(colour, transform)
        bgr[top : top + step] = colour if alpha is None else _over(colour, alpha, background)
    return bgr


def straight(samples: Samples) -> Samples:
    """Undo premultiplied alpha, which is the last channel; float samples are linear light and may exceed 1."""
    alpha = samples[..., -1:].astype(np.float64)
    most = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    with np.errstate(all="ignore"):
        colour = np.where(alpha > 0, samples[..., :-1] * (most / alpha), 0)
    if samples.dtype.kind == "u":
        colour = np.rint(np.clip(colour, 0, most))
    return np.concatenate([colour.astype(samples.dtype), samples[..., -1:]], axis=-1)


def to_8_bits(samples: Samples) -> Pixels:
    """Scale 16-bit samples to 8 bits, rounded; 8-bit ones are returned as they are.

    v / 257 is never half-way between two integers, so the rounding rule does not matter.
    """
    if samples.dtype == np.uint8:
        return samples
    scaled = cv2.convertScaleAbs(np.ascontiguousarray(samples), alpha=1 / 257)
    return np.asarray(scaled, np.uint8).reshape(samples.shape)


@lru_cache(maxsize=16)
def transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB, once for each profile; many threads may use it.

    Args:
        profile: the ICC profile's bytes.
        mode: "RGB", "L" or "CMYK", which is Pillow's name for the kind of samples.

    Returns:
        None if the profile is broken or not one for `mode`, which is logged, or if it changes no colour by more than 1.
    """
    space = profile[16:20]  # ICC.1:2022, 7.2.6: the data colour space's signature
    if _SPACES.get(space) != mode:
        _log.warning("ignoring a colour profile for %r on %s samples", space, mode, extra={"action": "profile_ignored"})
        return None
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return None if _changes_nothing(transform, mode) else transform
    except (OSError, ValueError, ImageCms.PyCMSError) as error:
        _log.warning("ignoring an embedded colour profile: %s", error, extra={"action": "profile_ignored"})
        return None


def cmyk_to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert Pillow's CMYK by its profile, or by the plain formula if it has no usable profile."""
    transform = transform_to_srgb(profile, "CMYK") if profile else None
    return transform.apply(image) if transform else image.convert("RGB")


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    steps = np.linspace(0, 255, 9).astype(np.uint8) if mode == "RGB" else np.arange(256, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3) if mode == "RGB" else steps[None]
    expected = lattice if mode == "RGB" else lattice[..., None]
    found = np.asarray(transform.apply(Image.fromarray(lattice)))
    return bool(np.abs(found.astype(np.int16) - expected).max() <= 1)


def _transform_for(samples: Samples, profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    if profile is None or samples.dtype.kind == "f":
        return None
    # Grey samples often carry the profile of the RGB editor that saved them.
    is_grey = (samples.ndim == 2 or samples.shape[2] == 2) and profile[16:20] == b"GRAY"
    return transform_to_srgb(profile, "L" if is_grey else "RGB")


def _coded(strip: Samples) -> Pixels:
    if strip.dtype.kind != "f":
        return to_8_bits(strip)
    linear = np.clip(np.nan_to_num(strip), 0.0, 1.0)
    coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.power(linear, 1 / 2.4) - 0.055)
    return np.asarray(np.rint(coded * 255), np.uint8)


def _in_three(colour: Samples) -> Samples:
    return np.repeat(colour[..., None], 3, -1) if colour.ndim == 2 else colour


def _alpha(strip: Samples) -> Pixels | None:
    if strip.ndim == 2 or strip.shape[2] % 2:
        return None
    if strip.dtype.kind == "f":
        alpha: Pixels = np.rint(np.clip(np.nan_to_num(strip[..., -1]), 0, 1) * 255).astype(np.uint8)
    else:
        alpha = to_8_bits(strip[..., -1])
    return None if alpha.min() == 255 else alpha


def _grey_to_bgr(grey: Pixels, transform: ImageCms.ImageCmsTransform | None) -> Pixels:
    if transform is not None and transform.input_mode == "L":
        return _rgb_to_bgr(np.asarray(transform.apply(Image.fromarray(grey))))
    return _converted(np.asarray(cv2.cvtColor(np.ascontiguousarray(grey), cv2.COLOR_GRAY2BGR), np.uint8), transform)


def _converted(bgr: Pixels, transform: ImageCms.ImageCmsTransform | None) -> Pixels:
    if transform is None:
        return bgr
    rgb = Image.fromarray(_rgb_to_bgr(bgr))
    return _rgb_to_bgr(np.asarray(transform.apply(rgb)))


def _rgb_to_bgr(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR), np.uint8)


def _over(colour: Pixels, alpha: Pixels, background: Rgb) -> Pixels:
    """Return round((colour * alpha + background * (255 - alpha)) / 255), exactly."""
    weight = alpha.astype(np.uint16)[..., None]
    under = np.array(background[::-1], np.uint16)
    total = colour * weight + under * (255 - weight) + np.uint16(128)
    return ((total + (total >> 8)) >> 8).astype(np.uint8)


def from_pillow(image: Image.Image) -> Pixels:
    """Return Pillow's RGB as BGR, its RGBA as BGRA."""
    code = cv2.COLOR_RGBA2BGRA if image.mode == "RGBA" else cv2.COLOR_RGB2BGR
    return np.asarray(cv2.cvtColor(np.asarray(image), code), np.uint8)
