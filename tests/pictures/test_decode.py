import io
import logging
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from renderer.errors import DecodeFailed, ImageTooLarge, JobError, UnsupportedFormat
from renderer.geometry import Size
from renderer.pictures.decode import Picture, decode, read_size
from renderer.pictures.formats import DECODERS
from renderer.processes import allocated_bytes

Array = npt.NDArray[Any]

MAX_PIXELS = 10_000_000
WHITE = (255, 255, 255)

skimage = pytest.importorskip("skimage", reason="its wheel carries the photographs")
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
tifffile = pytest.importorskip("tifffile")


def opened(data: bytes | Array, background: tuple[int, int, int] = (0, 0, 0), **options: Any) -> Picture:
    return decode(data, background=background, max_pixels=MAX_PIXELS, **options)


def bgr(data: bytes | Array, background: tuple[int, int, int] = (0, 0, 0)) -> Array:
    return opened(data, background).pixels


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tiff(samples: Array, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, **options)
    return file.getvalue()


def photograph(name: str = "astronaut.png") -> Image.Image:
    image = Image.open(PHOTOGRAPHS / name).convert("RGB")
    image.info.clear()
    return image


def distance(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected.astype(int)).max())


def quarters() -> Image.Image:
    """64x32: red, green over blue, white."""
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:], pixels[16:, :32], pixels[16:, 32:] = (
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (255, 255, 255),
    )
    return Image.fromarray(pixels)


# Orientation.

# EXIF 2.32, 4.6.4: where the 0th row and the 0th column of what is stored are shown; written with NumPy, not OpenCV.
AS_SHOWN: dict[int, Callable[[Array], Array]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}
ORIENTABLE = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    "MPO": {"quality": 95, "subsampling": 0},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ORIENTABLE)
def test_all_eight_orientations_are_shown_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(quarters(), kind, exif=exif, **ORIENTABLE[kind])
    expected = AS_SHOWN[orientation](np.asarray(quarters()))[..., ::-1]
    picture = opened(data)
    assert distance(picture.pixels, expected) <= 6
    assert picture.size == read_size(data, MAX_PIXELS) == Size(expected.shape[1], expected.shape[0])
    assert picture.pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_tiff_of_other_depths_is_turned_too(dtype: type, orientation: int) -> None:
    stored = np.asarray(quarters())
    deep = stored.astype(np.uint16) * 257 if dtype is np.uint16 else stored.astype(np.float32) / 255
    data = tiff(deep, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    expected = AS_SHOWN[orientation](stored)[..., ::-1]
    assert np.array_equal(bgr(data), expected)
    assert read_size(data, MAX_PIXELS) == Size(expected.shape[1], expected.shape[0])


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0junk" * 9])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_is_ignored(exif: bytes) -> None:
    assert opened(saved(quarters(), "JPEG", exif=exif)).size == Size(64, 32)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_makes_no_sense_is_upright(value: int) -> None:
    exif = Image.Exif()
    exif[274] = value
    assert opened(saved(quarters(), "JPEG", exif=exif)).size == Size(64, 32)


# Kinds of samples.


def test_lossless_photographs_come_out_to_the_bit() -> None:
    image = photograph("coffee.png")
    expected = np.asarray(image)[..., ::-1]
    for kind, options in (
        ("PNG", {}),
        ("TIFF", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("JPEG2000", {}),
    ):
        assert np.array_equal(bgr(saved(image, kind, **options)), expected), kind
    for compression in ("tiff_lzw", "tiff_deflate"):
        assert np.array_equal(bgr(saved(image, "TIFF", compression=compression)), expected)


def test_lossy_photographs_come_out_as_pillow_sees_them() -> None:
    image = photograph()
    for kind in ("JPEG", "WEBP", "AVIF"):
        data = saved(image, kind, quality=90)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[..., ::-1]
        assert np.abs(bgr(data).astype(int) - expected).mean() < 1, kind


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "JPEG", "WEBP", "PPM", "JPEG2000", "AVIF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (16, 1)))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind in ("JPEG", "AVIF") else {}
    found = bgr(saved(grey, kind, **options))
    assert distance(found, np.asarray(grey.convert("RGB"))) <= (1 if kind in ("JPEG", "AVIF", "WEBP") else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "PPM"])
def test_one_bit_is_black_and_white(kind: str) -> None:
    image = Image.fromarray(np.tile(np.array([0, 255, 255], np.uint8), (9, 7))).convert("1")
    assert np.array_equal(bgr(saved(image, kind)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_are_looked_up(kind: str) -> None:
    image = quarters().quantize(5)
    assert np.array_equal(bgr(saved(image, kind)), np.asarray(quarters())[..., ::-1])


@pytest.mark.parametrize("shape", [(256, 257), (256, 257, 3)])
@pytest.mark.parametrize("extension", [".png", ".tiff", ".ppm"])
def test_16_bits_are_rounded_to_8(extension: str, shape: tuple[int, ...]) -> None:
    deep = np.resize(np.arange(65792, dtype=np.uint32) % 65536, shape[:2]).astype(np.uint16)
    deep = np.stack([deep] * 3, -1) if len(shape) == 3 else deep
    data = cv2.imencode(".pgm" if extension == ".ppm" and deep.ndim == 2 else extension, deep)[1].tobytes()
    expected = np.rint(deep / 257).astype(np.uint8)
    assert np.array_equal(bgr(data), expected if deep.ndim == 3 else np.stack([expected] * 3, -1))


@pytest.mark.parametrize("extension", [".hdr", ".pfm", ".tiff"])
def test_float_samples_are_linear_light(extension: str) -> None:
    linear = np.array([0, 0.001, 0.0031308, 0.214041, 0.5, 1, 7], np.float32)
    samples = np.tile(linear[None, :, None], (8, 4, 3))
    data = cv2.imencode(extension, samples)[1].tobytes()
    assert read_size(data, MAX_PIXELS) == Size(28, 8)
    # 0.214041 is the light of the grey 127.5; RGBE keeps 8 bits of it.
    assert distance(bgr(data)[:, :7, 0], np.tile([0, 3, 10, 127, 188, 255, 255], (8, 1))) <= 1


def test_float_oddities_do_no_harm() -> None:
    samples = np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)
    assert bgr(tiff(samples))[0, :, 0].tolist() == [0, 255, 0, 0]
    assert bgr(tiff(np.full((4, 4, 3), 0.5), photometric="rgb"))[0, 0].tolist() == [188] * 3


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_integers_of_other_widths_are_refused(dtype: type) -> None:
    with pytest.raises((UnsupportedFormat, DecodeFailed)):
        opened(tiff(np.ones((4, 4, 3), dtype), photometric="rgb"))


def test_a_tiff_that_does_not_say_what_zero_means_is_grey() -> None:
    values = np.linspace(0, 1, 60, dtype=np.float32).reshape(6, 10)
    said = tiff(values, metadata=None)
    unsaid = said.replace(struct.pack("<HHI", 262, 3, 1), struct.pack("<HHI", 263, 3, 1), 1)
    assert unsaid != said
    assert (bgr(unsaid) == bgr(said)).all()


def cut_out(image: Image.Image) -> bytes:
    """Write a codestream whose picture lies off its grid's origin, so far that its blocks and precincts stay alike."""
    data = saved(image, "JPEG2000", irreversible=False, no_jp2=True)
    width, height = image.width + 2048, image.height + 2048
    place = struct.pack(">IIIIIIII", width, height, 2048, 2048, width, height, 0, 0)  # ISO/IEC 15444-1, A.5.1
    return data[:8] + place + data[40:]


def test_a_jpeg_2000_picture_cut_out_of_a_larger_one_is_read() -> None:
    for mode in ("L", "RGB"):
        image = photograph().convert(mode).resize((80, 60))
        assert distance(bgr(cut_out(image)), np.asarray(image.convert("RGB"))[..., ::-1]) == 0
    deep = Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13)
    with pytest.raises(UnsupportedFormat, match="found an off-origin 16-bit grey JPEG 2000"):
        bgr(cut_out(deep))


@pytest.mark.parametrize(
    ("length", "number", "name"), [(64, 3, "Huffman"), (64, 4, "run-length coded 24-bit"), (40, 4, "JPEG")]
)
def test_what_a_bmp_is_compressed_with_is_told_by_whose_header_it_has(length: int, number: int, name: str) -> None:
    header = struct.pack("<IiiHHI", length, 8, 8, 1, 24, number).ljust(length, b"\0")
    with pytest.raises(UnsupportedFormat, match=f"found a BMP with {name} compression"):
        bgr(struct.pack("<2sIII", b"BM", 14 + length + 192, 0, 14 + length) + header + bytes(192))


def test_bigtiff_is_read() -> None:
    assert np.array_equal(
        bgr(tiff(np.asarray(quarters()), photometric="rgb", bigtiff=True)), np.asarray(quarters())[..., ::-1]
    )
    assert read_size(tiff(np.ones((4, 6, 3), np.float32), photometric="rgb", bigtiff=True), 99) == Size(6, 4)


def test_10_bit_avif_has_its_full_range() -> None:
    deep = np.full((16, 16, 3), 1000, np.uint16)
    data = cv2.imencode(".avif", deep, [cv2.IMWRITE_AVIF_DEPTH, 10])[1].tobytes()
    assert distance(bgr(data), np.full((16, 16, 3), 249)) <= 1


def test_raw_pixels_are_taken_as_they_are() -> None:
    pixels = np.ascontiguousarray(np.asarray(quarters())[..., ::-1])
    assert opened(pixels).pixels is pixels
    assert np.array_equal(bgr(pixels[..., 0].copy()), np.stack([pixels[..., 0]] * 3, -1))
    assert read_size(pixels, MAX_PIXELS) == Size(64, 32)
    with pytest.raises(ImageTooLarge):
        read_size(pixels, 2047)


# Alpha.


def over(rgba: Array, background: tuple[int, int, int]) -> Array:
    alpha = rgba[..., 3:] / 255
    return np.rint(rgba[..., :3] * alpha + np.array(background) * (1 - alpha))[..., ::-1]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_alpha_is_composited_over_the_background(kind: str) -> None:
    image = quarters().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1))))
    options = {"WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(
        kind, {}
    )
    found = bgr(saved(image, kind, **options), (10, 200, 30))
    assert distance(found, over(np.asarray(image), (10, 200, 30))) <= (3 if kind == "AVIF" else 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_composited(kind: str) -> None:
    image = Image.merge("LA", [Image.new("L", (8, 8), 200), Image.new("L", (8, 8), 100)])
    assert bgr(saved(image, kind), (10, 20, 30))[0, 0].tolist() == [97, 91, 85]


def test_16_bit_alpha_is_composited() -> None:
    rgba = np.full((4, 4, 4), 40000, np.uint16)
    for extension in (".png", ".tiff"):
        found = bgr(cv2.imencode(extension, rgba)[1].tobytes(), WHITE)
        assert distance(found, np.full((4, 4, 3), 194)) <= 1, extension


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_the_background(kind: str) -> None:
    image = quarters().quantize(5)
    key = int(np.asarray(image)[0, 0])
    found = bgr(saved(image, kind, transparency=key), (1, 2, 3))
    assert found[0, 0].tolist() == [3, 2, 1]
    assert found[-1, -1].tolist() == [255, 255, 255]


def test_a_colour_key_shows_the_background() -> None:
    assert bgr(saved(quarters(), "PNG", transparency=(255, 0, 0)), (1, 2, 3))[0, 0].tolist() == [3, 2, 1]
    grey = Image.fromarray(np.array([[0, 9]], np.uint8))
    assert bgr(saved(grey, "PNG", transparency=9), (1, 2, 3))[0].tolist() == [[0, 0, 0], [3, 2, 1]]


def test_32_bit_bmp_has_alpha_only_if_its_header_says_so() -> None:
    pixels = bytes((10, 20, 30, 0)) * 4
    plain = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 32, 0, 16, 0, 0, 0, 0)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    fields = struct.pack("<IiiHHIIiiII", 108, 2, 2, 1, 32, 3, 16, 0, 0, 0, 0) + masks
    for header, expected in ((plain, [10, 20, 30]), (fields, [255, 255, 255])):
        start = 14 + len(header)
        data = b"BM" + struct.pack("<IHHI", start + 16, 0, 0, start) + header + pixels
        assert bgr(data, WHITE)[0, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGBA", (16, 16), (255, 0, 0, 255)), Image.new("RGBA", (16, 16), (0, 255, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert distance(bgr(data), np.full((16, 16, 3), (0, 0, 255))) <= 3


# CMYK and profiles.


def test_cmyk_without_a_profile_is_not_taken_for_alpha() -> None:
    image = quarters().convert("CMYK")
    for data in (saved(image, "JPEG", quality=100, subsampling=0), saved(image, "TIFF")):
        assert distance(bgr(data, WHITE), np.asarray(quarters())[..., ::-1]) <= 3


def test_cmyk_goes_through_its_profile(cyan_only: bytes) -> None:
    inks = np.zeros((8, 8, 4), np.uint8)
    inks[:4, :, 0] = 255
    inks[:, :, 1] = 255
    image = Image.frombytes("CMYK", (8, 8), inks.tobytes())
    for data in (
        saved(image, "JPEG", quality=100, subsampling=0, icc_profile=cyan_only),
        saved(image, "TIFF", icc_profile=cyan_only),
    ):
        found = bgr(data)
        assert found[0, 0].max() <= 6  # all cyan: L* 0, though a conversion without the profile says blue
        assert found[-1, -1].min() >= 250  # no cyan: white, whatever the magenta


def p3_to_srgb(rgb: Array) -> Array:
    """Display P3 to sRGB by the definitions (CSS Color 4, 10.9), clipped: both have sRGB's curve and white point."""
    coded = rgb / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[1.2249401, -0.2249402, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786507, 1.0982884]])
    linear = np.clip(linear @ matrix.T, 0, 1)
    return np.rint(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF"])
def test_display_p3_comes_out_as_its_srgb_equivalent(kind: str, display_p3: bytes) -> None:
    image = photograph("chelsea.png")
    options = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    found = bgr(saved(image, kind, icc_profile=display_p3, **options.get(kind, {})))
    error = np.abs(found.astype(int) - p3_to_srgb(np.asarray(image))[..., ::-1])
    assert error.mean() < 1
    assert error.max() <= (2 if kind in ("PNG", "TIFF", "WEBP") else 12)


def test_a_16_bit_and_a_translucent_picture_go_through_their_profile_too(display_p3: bytes) -> None:
    colour = np.array([[(200, 100, 50)]], np.uint8)
    expected = p3_to_srgb(colour)[0, 0, ::-1]
    data = tiff(np.tile(colour.astype(np.uint16) * 257, (4, 4, 1)), photometric="rgb", iccprofile=display_p3)
    assert distance(bgr(data)[0, 0], expected) <= 1
    rgba = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    assert distance(bgr(saved(rgba, "PNG", icc_profile=display_p3))[0, 0], expected * 128 / 255) <= 1


def test_grey_goes_through_its_profile(grey_gamma_1: bytes) -> None:
    image = Image.new("L", (4, 4), 55)  # 55 / 255 of the light
    assert distance(bgr(saved(image, "PNG", icc_profile=grey_gamma_1))[0, 0], np.array([128] * 3)) <= 1


def test_grey_with_a_colour_profile_is_converted(display_p3: bytes, plain_srgb: bytes) -> None:
    image = Image.new("L", (4, 4), 100)
    for profile in (display_p3, plain_srgb):
        assert distance(bgr(saved(image, "PNG", icc_profile=profile))[0, 0], np.array([100] * 3)) <= 1


def test_real_profiles_are_read(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("color.png", "page.png", "rocket.jpg", "astronaut.png"):
        assert bgr((PHOTOGRAPHS / name).read_bytes()).shape[2] == 3
    assert not caplog.records


def test_an_srgb_profile_changes_nothing(plain_srgb: bytes) -> None:
    image = photograph("coffee.png")
    assert np.array_equal(bgr(saved(image, "PNG", icc_profile=plain_srgb)), np.asarray(image)[..., ::-1])


def test_a_broken_profile_is_ignored_and_logged(display_p3: bytes, caplog: pytest.LogCaptureFixture) -> None:
    image = quarters()
    broken = (b"junk" * 40, display_p3[:200], display_p3[:16] + b"GRAY" + display_p3[20:], b"\xff" * 3000)
    for profile in broken:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert np.array_equal(bgr(saved(image, "PNG", icc_profile=profile)), np.asarray(image)[..., ::-1])
        assert "profile" in caplog.text


def test_one_transform_serves_many_threads(display_p3: bytes) -> None:
    data = saved(photograph(), "PNG", icc_profile=display_p3)
    expected = bgr(data)
    with ThreadPoolExecutor(4) as threads:
        assert all(np.array_equal(found, expected) for found in threads.map(bgr, [data] * 12))


# Reduced reading.


@pytest.mark.parametrize(
    ("least", "factor"),
    [
        (Size(63, 47), 8),
        (Size(64, 47), 4),
        (Size(63, 48), 4),
        (Size(127, 95), 4),
        (Size(128, 95), 2),
        (Size(255, 1), 1),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_read_at_the_smallest_scale_that_covers(least: Size, factor: int, mode: str) -> None:
    image = photograph().resize((509, 381)).convert(mode)
    picture = opened(saved(image, "JPEG", quality=95), needed=lambda _: least)
    assert picture.size == Size(509, 381)
    assert picture.reduction == factor
    assert picture.pixels.shape == (-(-381 // factor), -(-509 // factor), 3)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_reduced_jpeg_shows_the_same(factor: int) -> None:
    image = photograph()
    picture = opened(saved(image, "JPEG", quality=95), needed=lambda _: Size(512 // factor, 512 // factor))
    expected = np.asarray(image.reduce(factor))[..., ::-1]
    assert np.abs(picture.pixels.astype(int) - expected).mean() < 4


def test_a_turned_jpeg_is_asked_for_as_it_is_shown() -> None:
    exif = Image.Exif()
    exif[274] = 6
    asked: list[Size] = []

    def needed(size: Size) -> Size:
        asked.append(size)
        return Size(40, 80)

    picture = opened(saved(photograph().resize((320, 160)), "JPEG", exif=exif), needed=needed)
    assert asked == [Size(160, 320)]
    assert picture.pixels.shape == (80, 40, 3)


def test_other_formats_are_read_whole() -> None:
    assert opened(saved(photograph(), "PNG"), needed=lambda _: Size(1, 1)).pixels.shape == (512, 512, 3)


# Damage and attacks.

TRUNCATABLE = {
    "PNG": {},
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "WEBP": {},
    "lossless WEBP": {"lossless": True},
    "TIFF": {},
    "LZW TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "GIF": {},
    "JPEG2000": {},
    "AVIF": {},
    "PPM": {},
}


@pytest.mark.parametrize("name", TRUNCATABLE)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_file_that_ends_early_is_an_error(name: str) -> None:
    data = saved(photograph().resize((128, 96)), name.rsplit(maxsplit=1)[-1], **TRUNCATABLE[name])
    assert opened(data).size == Size(128, 96)
    for kept in (0.1, 0.5, 0.9, 0.99):
        with pytest.raises(DecodeFailed, match="image"):
            opened(data[: int(len(data) * kept)])


@pytest.mark.parametrize("name", ["PNG", "GIF"])
def test_damage_in_the_middle_is_an_error_where_the_format_tells(name: str) -> None:
    data = bytearray(saved(photograph(), name.rsplit(maxsplit=1)[-1], **TRUNCATABLE[name]))
    middle = len(data) // 2
    data[middle : middle + 200] = np.random.default_rng(0).bytes(200)
    with pytest.raises(DecodeFailed):
        opened(bytes(data))


def png_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png_of(30000, 30000),
        png_of(2**31 - 1, 2**31 - 1),
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n",
        b"PF\n99999 99999\n-1\n",
        b"P6\n99999 99999\n255\n",
        b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
        tiff(np.ones((4, 4, 3), np.float32), photometric="rgb", extratags=[]).replace(
            struct.pack("<HHII", 256, 4, 1, 4), struct.pack("<HHII", 256, 4, 1, 1 << 30)
        ),
    ],
    ids=["png", "png max", "hdr", "pfm", "ppm", "gif", "tiff"],
)
@pytest.mark.timeout(10)
def test_pixels_beyond_the_limit_are_refused_before_decoding(data: bytes) -> None:
    for door in (lambda: read_size(data, MAX_PIXELS), lambda: opened(data)):
        with pytest.raises((ImageTooLarge, DecodeFailed)):
            door()


def test_the_limit_is_named_with_what_was_found() -> None:
    with pytest.raises(ImageTooLarge, match="at most 10000000 pixels, found 30000x30000"):
        read_size(png_of(30000, 30000), MAX_PIXELS)
    assert read_size(png_of(30000, 30000), 900_000_000) == Size(30000, 30000)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Leave this process 64 MiB to allocate, as a worker's limit leaves it some."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (allocated_bytes() + (64 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


@pytest.mark.parametrize(
    ("chunk", "body", "size"),
    [
        (b"VP8X", b"\x02\0\0\0" + b"\xff\xff\xff" + b"\x2c\0\0", "16777216x45"),
        (b"VP8L", b"\x2f" + (16000 - 1 | (15000 - 1) << 14).to_bytes(4, "little"), "16000x15000"),
        (b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16000, 15000 | 1 << 14), "16000x15000"),
    ],
)
def test_a_webp_is_measured_before_libwebp_makes_room_for_it(
    chunk: bytes, body: bytes, size: str, little_memory: None
) -> None:
    rest = body.ljust(500, b"\0")
    data = b"RIFF" + struct.pack("<I", len(rest) + 12) + b"WEBP" + chunk + struct.pack("<I", len(rest)) + rest
    with pytest.raises(ImageTooLarge, match=f"found {size} "):
        opened(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"%PDF-1.7\n",
        b"8BPS" + bytes(40),
        b"\0" * 99,
    ],
)
def test_bytes_of_no_known_format_are_unsupported(data: bytes) -> None:
    for door in (lambda: read_size(data, MAX_PIXELS), lambda: opened(data)):
        with pytest.raises(UnsupportedFormat, match="JPEG"):
            door()


HEADS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"RIFF\x10\0\0\0WEBPVP8 ",
    b"II*\0\x08\0\0\0",
    b"MM\0+\0\x08\0\0",
    b"GIF89a",
    b"BM",
    b"\0\0\0\x1cftypavif",
    b"\0\0\0\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    b"P6\n",
    b"P4 3 3 ",
    b"PF\n3 3\n-1\n",
    b"#?RADIANCE\n\n-Y 3 +X 3\n",
    b"\x59\xa6\x6a\x95",
]


@given(st.sampled_from(HEADS), st.binary(max_size=400))
@example(b"PF\n0 3\n-1\n", b"")
@settings(max_examples=300, deadline=None)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_whatever_the_bytes_only_our_errors_come_out(head: bytes, rest: bytes) -> None:
    try:
        opened(head + rest)
    except JobError:
        return


@pytest.fixture(scope="module")
def small_files() -> list[bytes]:
    image = photograph().resize((24, 17))
    exif = Image.Exif()
    exif[274] = 5
    kinds = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "PPM", "AVIF")
    files = [saved(image, kind, **({"exif": exif} if kind in ORIENTABLE else {})) for kind in kinds]
    floats = np.asarray(image, np.float32) / 255
    return [
        *files,
        cv2.imencode(".hdr", floats)[1].tobytes(),
        cv2.imencode(".pfm", floats)[1].tobytes(),
        tiff(floats, photometric="rgb"),
    ]


@given(data=st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_whatever_is_changed_in_a_file_only_our_errors_come_out(small_files: list[bytes], data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(small_files)))
    for _ in range(data.draw(st.integers(1, 4))):
        near_head = data.draw(st.booleans())
        changed[data.draw(st.integers(0, min(len(changed), 120 if near_head else len(changed)) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        picture = opened(bytes(changed))
    except JobError:
        return
    assert picture.pixels.shape == (picture.size.height, picture.size.width, 3)
    assert picture.pixels.dtype == np.uint8


_WITH_JXL = pytest.mark.skipif("JPEG XL" not in DECODERS, reason="the extra jxl has no wheel for some machines")


def test_jpeg_xl_is_refused_by_the_name_of_the_extra_where_that_is_not_installed() -> None:
    program = """
import sys
sys.modules["pyjpegxl"] = None
from renderer.errors import UnsupportedFormat
from renderer.pictures.decode import decode
for data in (b"\\xff\\x0a\\xfa\\x1f", b"\\0\\0\\0\\x0cJXL \\r\\n\\x87\\n"):
    try:
        decode(data, background=(0, 0, 0), max_pixels=10)
    except UnsupportedFormat as error:
        print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.count("found a JPEG XL image, which stillreel[jxl] reads") == 2
    assert said.count("JPEG XL") == 2


@_WITH_JXL
def test_a_worker_loads_the_decoder_of_jpeg_xl_only_for_such_an_image() -> None:
    program = """
import sys
from PIL import Image
from renderer.errors import JobError
from renderer.pictures.decode import decode
for data in (b"P6 1 1 255\\n123", b"\\xff\\x0a" + bytes(60)):
    try:
        decode(data, background=(0, 0, 0), max_pixels=10**6)
    except JobError:
        pass
    print("pyjpegxl" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]


@_WITH_JXL
def test_a_jpeg_xl_image_that_needs_more_memory_than_there_is_ends_no_worker() -> None:
    """Into memory of its own pyjpegxl ends the process."""
    program = """
import resource, sys
import imagecodecs, numpy
from renderer.errors import DecodeFailed
from renderer.pictures.decode import decode
data = bytes(imagecodecs.jpegxl_encode(numpy.zeros((2000, 2000, 3), numpy.uint8), lossless=True, effort=1))
decode(bytes(imagecodecs.jpegxl_encode(numpy.zeros((2, 2, 3), numpy.uint8))), background=(0, 0, 0), max_pixels=10)
before = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
for more in (1, 6, 11, 13, 20):
    resource.setrlimit(resource.RLIMIT_DATA, (before + (more << 20), resource.RLIM_INFINITY))
    try:
        decode(data, background=(0, 0, 0), max_pixels=10**8)
    except DecodeFailed as error:
        print("refused")
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split()[:3] == ["refused"] * 3
