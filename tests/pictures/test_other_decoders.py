"""What one decoder shows is what another shows: our own files could share our own misunderstanding.

What is read here by ourselves is compared with libav and Pillow; what libheif and OpenEXR's library read, with libav.
"""

import io

import av
import numpy as np
import numpy.typing as npt
import OpenEXR
import pytest
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.pictures.decode import decode
from tests.pictures.matrix import Sample, dpx, exr, exr_file, heic, ico, named, psd, tga

# What the others do otherwise, each with its reason.
_OTHERWISE = (
    "linear", "logarithmic", "limited",  # libav shows every sample as it is coded
    "turned", "abgr",  # and turns nothing, and does not know the descriptor
    "transparent", "alpha", "rgba", "large",  # alpha goes over a background of ours; libav knows no large documents
    "psd 32", "profile", "duotone", "bitmap 1", "cmyk", "selection",  # the others know none of these, or all as alpha
    "flags 16", "flags 48", "palette of many", "tga 15", "palette of 15",  # libav does not turn these, or refuses them
)  # fmt: skip
# Pillow takes alpha of 0 at its word, a cursor's or a mistaken directory ill, and of two pictures of one size that with
# fewer bits.
_ICONS_OTHERWISE = ("ico 32 without alpha", "ico cursor", "ico of 256", "ico of several")


def by_libav(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    codec = av.CodecContext.create({"dpx": "dpx", "tga": "targa", "psd": "psd"}[name], "r")
    (frame,) = codec.decode(av.Packet(data))
    return frame.reformat(format="rgb24").to_ndarray()


def by_pillow(data: bytes) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["ICO", "CUR"]) as image:
        rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB"))


COMPARED = [
    sample
    for family in (dpx, tga, psd)
    for sample in family()
    if sample.shows is not None and not any(words in sample.name for words in _OTHERWISE)
]
ICONS = [sample for sample in ico() if sample.shows is not None and sample.name not in _ICONS_OTHERWISE]


@pytest.mark.parametrize("sample", COMPARED, ids=lambda sample: sample.name)
def test_libav_shows_the_same(sample: Sample) -> None:
    found = decode(sample.data, background=(0, 0, 0), max_pixels=10**7).pixels[..., ::-1].astype(int)
    assert np.abs(found - by_libav(sample.data, sample.name.split()[0])).mean() <= 1


@pytest.mark.parametrize("sample", ICONS, ids=lambda sample: sample.name)
def test_pillow_shows_the_same_icon(sample: Sample) -> None:
    found = decode(sample.data, background=(0, 0, 0), max_pixels=10**7).pixels[..., ::-1].astype(int)
    assert np.abs(found - by_pillow(sample.data)).mean() <= 1


@pytest.mark.parametrize("compression", ["RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "DWAA", "DWAB", "ZSTD"])
def test_openexr_with_a_damaged_chunk_is_refused(compression: str) -> None:
    """libav goes on, and shows black or what was in memory."""
    ramp = np.cumsum(np.random.default_rng(5).random((400, 700, 3)), axis=1).astype("f2") / 700
    data = exr_file(named(ramp), compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    place = len(data) * 2 // 3
    damaged = data[:place] + b"\xff" * 40 + data[place + 40 :]
    with pytest.raises(DecodeFailed, match="found a damaged or truncated one"):
        decode(damaged, background=(0, 0, 0), max_pixels=10**7)


HEIC = [
    sample
    for sample in heic()
    if sample.name in {f"heic {bits}{kind}" for bits in (8, 10, 12) for kind in ("", " white", " grey")}
    or sample.name.startswith(("heic 8 matrix", "heic 10 matrix", "heic 4:2:0"))
]
EXR = [
    sample
    for sample in exr()
    if sample.name in {f"exr {depth} {way}" for depth in ("f2", "f4") for way in ("NO", "ZIP tiled", "PXR24", "grey")}
    or sample.name in ("exr f2 B44 lossy", "exr f4 DWAA lossy", "exr beyond white")
]


@pytest.mark.parametrize("sample", HEIC, ids=lambda sample: sample.name)
def test_libav_shows_the_same_heic(sample: Sample) -> None:
    found = decode(sample.data, background=(0, 0, 0), max_pixels=10**7).pixels[..., ::-1].astype(int)
    with av.open(io.BytesIO(sample.data)) as container:
        frame = next(container.decode(container.streams.video[0]))
    expected = frame.reformat(format="rgb24").to_ndarray()[: found.shape[0], : found.shape[1]]  # coded in whole blocks
    assert np.abs(found - expected).mean() <= 1


@pytest.mark.parametrize("sample", EXR, ids=lambda sample: sample.name)
def test_libav_shows_the_same_exr(sample: Sample) -> None:
    found = decode(sample.data, background=(0, 0, 0), max_pixels=10**7).pixels[..., ::-1].astype(int)
    (frame,) = av.CodecContext.create("exr", "r").decode(av.Packet(sample.data))
    dtype = np.dtype("<f2" if "f16" in frame.format.name else "<f4")
    planes = [
        np.frombuffer(plane, dtype).reshape(frame.height, -1)[:, : frame.width].astype(float) for plane in frame.planes
    ]
    light = np.clip(np.dstack([planes[2], planes[0], planes[1]] if len(planes) == 3 else planes * 3), 0, 1)
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert np.abs(found - 255 * curve).mean() <= 1
