"""What one decoder shows is what another shows: our own files could share our own misunderstanding.

What is read here by ourselves is compared with libav and Pillow; what libheif and OpenEXR's library read, with libav.
"""

import io
from collections.abc import Callable, Iterable

import av
import numpy as np
import numpy.typing as npt
import OpenEXR
import pytest
from PIL import Image

from renderer.errors import DecodeFailed
from renderer.pictures.decode import decode
from tests.pictures.matrix import Sample, exr_file, named
from tests.pictures.oddities import of

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


Shown = npt.NDArray[np.floating] | npt.NDArray[np.uint8]


def unlike(samples: Iterable[Sample], shown_by_other: Callable[[bytes], Shown]) -> dict[str, float]:
    """Return the files that are shown otherwise, with the mean difference."""
    found = {}
    for sample in samples:
        ours = decode(sample.data, background=(0, 0, 0), max_pixels=10**7).pixels[..., ::-1].astype(int)
        others = shown_by_other(sample.data)[: ours.shape[0], : ours.shape[1]]  # HEIC is coded in whole blocks
        found[sample.name] = float(np.abs(ours - others).mean())
    assert found
    return {name: difference for name, difference in found.items() if not difference <= 1}


@pytest.mark.parametrize("family", ["dpx", "tga", "psd"])
def test_libav_shows_the_same(family: str) -> None:
    compared = (
        sample
        for sample in of(family)
        if sample.shows is not None and not any(words in sample.name for words in _OTHERWISE)
    )
    assert unlike(compared, lambda data: by_libav(data, family)) == {}


def test_pillow_shows_the_same_icons() -> None:
    compared = (sample for sample in of("ico") if sample.shows is not None and sample.name not in _ICONS_OTHERWISE)
    assert unlike(compared, by_pillow) == {}


@pytest.mark.parametrize("compression", ["RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "DWAA", "DWAB", "ZSTD"])
def test_openexr_with_a_damaged_chunk_is_refused(compression: str) -> None:
    """libav goes on, and shows black or what was in memory."""
    ramp = np.cumsum(np.random.default_rng(5).random((400, 700, 3)), axis=1).astype("f2") / 700
    data = exr_file(named(ramp), compression=getattr(OpenEXR, f"{compression}_COMPRESSION"))
    place = len(data) * 2 // 3
    damaged = data[:place] + b"\xff" * 40 + data[place + 40 :]
    with pytest.raises(DecodeFailed, match="found a damaged or truncated one"):
        decode(damaged, background=(0, 0, 0), max_pixels=10**7)


def heic_by_libav(data: bytes) -> Shown:
    with av.open(io.BytesIO(data)) as container:
        return next(container.decode(container.streams.video[0])).reformat(format="rgb24").to_ndarray()


def test_libav_shows_the_same_heic() -> None:
    names = {f"heic {bits}{kind}" for bits in (8, 10, 12) for kind in ("", " white", " grey")}
    starts = ("heic 8 matrix", "heic 10 matrix", "heic 4:2:0")
    compared = [sample for sample in of("heic") if sample.name in names or sample.name.startswith(starts)]
    assert unlike(compared, heic_by_libav) == {}


def exr_by_libav(data: bytes) -> Shown:
    (frame,) = av.CodecContext.create("exr", "r").decode(av.Packet(data))
    dtype = np.dtype("<f2" if "f16" in frame.format.name else "<f4")
    planes = [
        np.frombuffer(plane, dtype).reshape(frame.height, -1)[:, : frame.width].astype(float) for plane in frame.planes
    ]
    light = np.clip(np.dstack([planes[2], planes[0], planes[1]] if len(planes) == 3 else planes * 3), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1


def test_libav_shows_the_same_exr() -> None:
    names = {f"exr {depth} {way}" for depth in ("f2", "f4") for way in ("NO", "ZIP tiled", "PXR24", "grey")}
    names |= {"exr f2 B44 lossy", "exr f4 DWAA lossy", "exr beyond white"}
    assert unlike((sample for sample in of("exr") if sample.name in names), exr_by_libav) == {}
