"""Stills that an earlier job has coded: taken from the cache where all is equal, coded anew where anything is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from renderer.config import EncodeSettings, FetchSettings, PictureSettings, RenderSettings, RequestLimits
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.errors import ImageTooLarge
from renderer.intake import Origin, parse_request, render_job
from renderer.pictures.kept import StillCache
from renderer.pipeline import render
from renderer.work import RenderReport
from tests.net.serving import sends, serving

Make = Callable[..., tuple[RenderReport, list[bytes]]]


class Started(X264Encoder):
    """Remembers the streams that an encoder was started for."""

    streams: list[StreamSettings]

    def __init__(self, stream: StreamSettings, settings: EncodeSettings) -> None:
        super().__init__(stream, settings)
        self.streams.append(stream)


@pytest.fixture
def started() -> type[Started]:
    return type("Started", (Started,), {"streams": []})


@pytest.fixture
def cache(tmp_path: Path) -> StillCache:
    (tmp_path / "kept").mkdir()
    return StillCache(tmp_path / "kept", tmp_path / "kept")


@pytest.fixture
def make(tmp_path: Path, started: type[Started]) -> Make:
    """Return what renders files below tmp_path, each held for a second or as told, and gives back the report and all
    frames, decoded.
    """

    def render_and_decode(
        *names: str, cache: StillCache | None, holds: tuple[int, ...] = (), **fields: Any
    ) -> tuple[RenderReport, list[bytes]]:
        settings = fields.pop("settings", RenderSettings(encode=EncodeSettings(threads=1)))
        held = holds or (24,) * len(names)
        images = [{"url": name, "frames": hold} for name, hold in zip(names, held, strict=True)]
        request = parse_request({"images": images, "fps": 24, **fields})
        fetch = FetchSettings(allow_networks=("127.0.0.0/8",))
        job = render_job(request, RequestLimits(), fetch, Origin(base=tmp_path))
        settings = settings.model_copy(update={"fetch": fetch})
        report = render(job, tmp_path / "a.mp4", settings, open_encoder=started, cache=cache)
        with av.open(str(tmp_path / "a.mp4")) as container:
            return report, [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]

    return render_and_decode


@pytest.fixture
def noise(tmp_path: Path) -> Callable[..., str]:
    """Return what writes a picture of smooth noise."""

    def write(name: str, seed: int = 1, size: tuple[int, int] = (96, 64)) -> str:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(tmp_path / name)
        return name

    return write


def counts(report: RenderReport) -> tuple[int, int]:
    return report.stills_found, report.stills_coded


@pytest.mark.parametrize(
    ("preset", "changed"),
    [
        *(("veryfast", changed) for changed in ((), (0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2))),
        ("ultrafast", (1,)),
        ("slow", (0, 2)),
    ],
)
def test_a_job_shows_the_same_pictures_whichever_of_its_stills_were_coded_before(
    make: Make, noise, cache: StillCache, started, preset: str, changed: tuple[int, ...]
) -> None:
    names = [noise(f"{seed}.png", seed) for seed in range(3)]
    before = [noise(f"{seed}.png", seed + (10 if seed in changed else 0)) for seed in range(3)]
    make(*before, cache=cache, preset=preset)
    for seed in range(3):
        noise(f"{seed}.png", seed)
    started.streams.clear()
    report, frames = make(*names, cache=cache, preset=preset)
    assert counts(report) == (3 - len(changed), len(changed))
    assert len(started.streams) == bool(changed)
    assert frames == make(*names, cache=None, preset=preset)[1]
    assert len(frames) == 72


def test_stills_with_quantisers_of_their_own_are_mixed_in_any_order(make: Make, noise, cache: StillCache) -> None:
    names = [noise(f"{seed}.png", seed) for seed in range(6)]
    holds = (24, 40, 24, 40, 33, 24)
    make(names[1], names[4], cache=cache, holds=(40, 33), preset="medium")
    report, frames = make(*names, cache=cache, holds=holds, preset="medium")
    assert counts(report) == (2, 4)
    assert frames == make(*names, cache=None, holds=holds, preset="medium")[1]
    assert counts(make(*names, cache=cache, holds=holds, preset="medium")[0]) == (6, 0)


def test_one_still_alone_and_neighbours_that_are_held_for_one_frame(make: Make, noise, cache: StillCache) -> None:
    """Two IDR pictures in a row must differ in idr_pic_id, whatever jobs they come from."""
    names = [noise(f"{seed}.png", seed) for seed in range(4)]
    fields = {"fps": 1, "holds": (1, 1, 1, 2)}
    make(names[0], names[3], cache=cache, fps=1, holds=(1, 2))
    report, frames = make(*names, cache=cache, **fields)
    assert counts(report) == (2, 2)
    assert frames == make(*names, cache=None, **fields)[1]
    assert counts(make(names[0], cache=cache, fps=1, holds=(2,))[0])[0] in (0, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"crf": 21},
        {"preset": "faster"},
        {"fps": 12},
        {"width": 98},
        {"resize_mode": "crop"},
        {"scaling": "nearest"},
        {"upscale": False},
        {"background": "#010000"},
        {"max_keyframe_interval": 5},
    ],
    ids=str,
)
def test_a_still_that_another_field_shapes_is_another_still(make: Make, noise, cache, other: dict[str, Any]) -> None:
    name = noise("a.png")
    fields = {"width": 96, "height": 64, "holds": (24,)}
    make(name, cache=cache, **fields)
    assert counts(make(name, cache=cache, **{**fields, **other})[0]) == (0, 1)
    assert counts(make(name, cache=cache, **fields, metadata={"a": 1}, on_error="skip")[0]) == (1, 0)


def test_a_still_that_another_ffmpeg_has_coded_is_another_still(make: Make, noise, cache, tmp_path: Path) -> None:
    link, name = tmp_path / "ffmpeg", noise("a.png")
    shutil.copy(find_ffmpeg(EncodeSettings()), link)
    settings = RenderSettings(encode=EncodeSettings(ffmpeg=str(link), threads=1))
    make(name, cache=cache)
    assert counts(make(name, cache=cache, settings=settings)[0]) == (0, 1)
    assert counts(make(name, cache=cache, settings=settings)[0]) == (1, 0)
    os.utime(link, (1, 1))
    assert counts(make(name, cache=cache, settings=settings)[0]) == (0, 1)


def test_drawings_that_are_predicted_from_each_other_are_not_kept(make: Make, noise, cache: StillCache) -> None:
    names = [noise(f"{seed}.png", seed) for seed in range(3)]
    for _ in range(2):
        assert counts(make(*names, cache=cache, holds=(2, 2, 2))[0]) == (0, 0)
    assert list(cache.kept.iterdir()) == []


def test_an_image_that_is_too_large_is_refused_though_it_is_kept(make: Make, noise, cache: StillCache) -> None:
    name = noise("a.png")
    make(name, cache=cache, width=96, height=64)
    small = RenderSettings(pictures=PictureSettings(max_image_pixels=96 * 64 - 1))
    with pytest.raises(ImageTooLarge):
        make(name, cache=cache, width=96, height=64, settings=small)


def test_warnings_are_the_same_for_stills_that_are_kept(make: Make, cache: StillCache, tmp_path: Path) -> None:
    first = Image.new("RGB", (12, 8), "red")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (12, 8), "blue")])
    fields = {"width": 96, "height": 64}
    before, _ = make("a.gif", cache=cache, **fields)
    report, _ = make("a.gif", cache=cache, **fields)
    assert counts(report) == (1, 0)
    assert [warning.type for warning in report.warnings] == ["image_animated", "image_enlarged"]
    assert report.warnings == before.warnings


def test_a_still_that_comes_from_another_place_is_found_by_its_bytes(make: Make, noise, cache, tmp_path: Path) -> None:
    make(noise("a.png"), cache=cache)
    with serving({"/b.png": sends((tmp_path / "a.png").read_bytes())}) as site:
        assert counts(make(f"{site.url}/b.png", cache=cache)[0]) == (1, 0)


@pytest.mark.parametrize("kept_first", [True, False])
def test_a_still_of_another_stream_is_coded_anew(make: Make, noise, cache: StillCache, kept_first: bool) -> None:
    """A name vouches for the parameter sets; where it lies, as after a fault in the name, no stream is mixed."""
    names = [noise("a.png", 1), noise("b.png", 2)]
    known = names[0] if kept_first else names[1]
    make(known, cache=cache, fps=25, width=96, height=64)
    [other] = cache.kept.iterdir()
    content = other.read_bytes()
    make(known, cache=cache, width=96, height=64)
    [right] = [path for path in cache.kept.iterdir() if path != other]
    right.write_bytes(content)
    report, frames = make(*names, cache=cache, width=96, height=64)
    assert counts(report) == (0, 2)
    assert frames == make(*names, cache=None, width=96, height=64)[1]
    assert counts(make(*names, cache=cache, width=96, height=64)[0]) == (2, 0)


def test_few_stills_wait_in_memory_for_one_that_is_being_coded(make: Make, noise, cache, started) -> None:
    """An encoder with several threads gives a picture back when more have come, or when it is asked to end."""
    names = [noise(f"{seed}.png", seed) for seed in range(36)]
    fields = {"fps": 1, "preset": "ultrafast", "settings": RenderSettings(encode=EncodeSettings(threads=8))}
    make(*names[1:35], cache=cache, holds=(2,) * 34, **fields)
    started.streams.clear()
    report, frames = make(*names, cache=cache, holds=(2,) * 36, **fields)
    assert counts(report) == (34, 2)
    assert [len(stream.held.is_idr) for stream in started.streams if stream.held] == [36, 1]
    assert frames == make(*names, cache=None, holds=(2,) * 36, **fields)[1]
