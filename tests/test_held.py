"""Held pictures end to end: coded once, shown as long as asked, bit for bit what the encoder made."""

import io
import stat
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from protocol.schema import RenderRequest
from renderer.config import EncodeSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.encode import selftest
from renderer.encode.h264.bits import UnsupportedStream
from renderer.encode.null import NullEncoder
from renderer.encode.x264 import X264Encoder
from renderer.errors import EncodeFailed
from renderer.intake import Origin, render_job
from renderer.pipeline import render
from renderer.work import RenderReport

SIZE = (96, 64)


class Recording(X264Encoder):
    """Keeps what went in and came out."""

    made: list["Recording"]

    def __init__(self, stream, settings):
        super().__init__(stream, settings)
        self.frames = 0
        self.units = []
        type(self).made.append(self)

    def encode(self, frame):
        self.frames += 1
        units = super().encode(frame)
        self.units += units
        return units

    def flush(self):
        for unit in super().flush():
            self.units.append(unit)
            yield unit


@pytest.fixture
def recording() -> type[Recording]:
    return type("RecordingHere", (Recording,), {"made": []})


@pytest.fixture
def stills(tmp_path) -> list[Path]:
    """Twelve pictures that have nothing in common."""
    noise = np.random.default_rng(3)
    paths = [tmp_path / f"{index}.png" for index in range(12)]
    for path in paths:
        coarse = noise.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
        Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC).save(path)
    return paths


def rendered(
    output: Path,
    stills: Sequence[tuple[Path, int]],
    open_encoder: Callable = X264Encoder,
    ffmpeg: str | None = None,
    **fields: object,
) -> RenderReport:
    images = [{"url": str(path), "frames": hold} for path, hold in stills]
    request = RenderRequest.model_validate({"images": images, "fps": 24, **fields})
    job = render_job(request, RequestLimits(), FetchSettings(), Origin(any_path=True))
    settings = RenderSettings(encode=EncodeSettings(ffmpeg=ffmpeg))
    return render(job, output, settings, open_encoder=open_encoder)


def decoded(data: bytes | Path) -> list[bytes]:
    source = str(data) if isinstance(data, Path) else io.BytesIO(data)
    with av.open(source, format=None if isinstance(data, Path) else "h264") as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def packets(video: Path) -> list[tuple[int, bool, int]]:
    """Return pts in frames, whether it is a sync sample, and size in bytes."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        ticks = stream.time_base * stream.average_rate
        return [(int(p.pts * ticks), p.is_keyframe, p.size) for p in container.demux(stream) if p.pts is not None]


HOLDS = [
    [24, 1, 2, 3, 15, 16, 17, 31],
    [2, 2, 2, 2],
    [255, 256, 257],
    [1, 1, 300, 1],
]


@pytest.mark.parametrize("holds", HOLDS, ids=str)
def test_every_frame_is_bit_for_bit_the_coded_picture(tmp_path, stills, recording, holds):
    report = rendered(tmp_path / "v.mp4", list(zip(stills, holds, strict=False)), recording)
    assert report.encoded_reason is None
    (encoder,) = recording.made
    assert encoder.frames == len(holds)
    own = decoded(b"".join(unit.data for unit in encoder.units))
    expected = [picture for picture, hold in zip(own, holds, strict=True) for _ in range(hold)]
    assert decoded(tmp_path / "v.mp4") == expected


def test_a_held_picture_costs_some_bytes_a_frame(tmp_path, stills):
    rendered(tmp_path / "short.mp4", [(still, 24) for still in stills])
    rendered(tmp_path / "long.mp4", [(still, 120) for still in stills])
    more = (tmp_path / "long.mp4").stat().st_size - (tmp_path / "short.mp4").stat().st_size
    assert more / (12 * 96) < 40  # the repeat itself, and its share of the sample table


def test_seeking_to_any_frame_shows_that_frame(tmp_path, stills):
    video = tmp_path / "v.mp4"
    rendered(video, list(zip(stills, (24, 7, 40, 1, 30), strict=False)), max_keyframe_interval=0.5)
    expected = decoded(video)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        step = Fraction(1, 24) / stream.time_base
        for number in range(len(expected)):
            container.seek(int(number * step), stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= number * step)
            assert (frame.pts, frame.to_ndarray().tobytes()) == (number * step, expected[number]), number


@pytest.mark.parametrize("holds", [[500], [3, 100, 3, 61], [2] * 12], ids=str)
def test_sync_samples_come_often_enough(tmp_path, stills, holds):
    rendered(tmp_path / "v.mp4", list(zip(stills, holds, strict=False)), max_keyframe_interval=1)
    written = packets(tmp_path / "v.mp4")
    assert [pts for pts, _, _ in written] == list(range(sum(holds)))
    syncs = [pts for pts, is_sync, _ in written if is_sync]
    assert syncs[0] == 0
    assert all(after - before <= 24 for before, after in pairwise([*syncs, sum(holds)]))


def test_a_picture_that_comes_again_is_not_encoded_again(tmp_path, stills, recording):
    again = tmp_path / "the-same-bytes.png"
    again.write_bytes(stills[0].read_bytes())
    shown = [stills[0], stills[1], again, stills[1], stills[0]]
    rendered(tmp_path / "v.mp4", [(still, 24) for still in shown], recording, max_keyframe_interval=1)
    (encoder,) = recording.made
    assert encoder.frames == 2
    first, second = decoded(b"".join(unit.data for unit in encoder.units))
    assert decoded(tmp_path / "v.mp4") == [
        picture for picture in (first, second, first, second, first) for _ in range(24)
    ]


def test_every_frame_may_be_a_sync_sample(tmp_path, stills, recording):
    report = rendered(tmp_path / "v.mp4", [(s, 3) for s in stills[:4]], recording, max_keyframe_interval=1 / 24)
    assert report.encoded_reason is None
    assert recording.made[0].frames == 4
    assert all(is_sync for _, is_sync, _ in packets(tmp_path / "v.mp4"))


def moving(tmp_path: Path, count: int) -> list[Path]:
    """Draw a square that moves over a detailed background."""
    background = np.random.default_rng(5).integers(60, 190, (120, 160, 3), np.uint8)
    paths = []
    for index in range(count):
        drawing = background.copy()
        drawing[40:70, 5 * index : 5 * index + 30] = (230, 40, 30)
        paths.append(tmp_path / f"drawing{index}.png")
        Image.fromarray(drawing).save(paths[-1])
    return paths


def test_animation_on_twos_keeps_inter_prediction(tmp_path):
    drawings = [(drawing, 2) for drawing in moving(tmp_path, 24)]
    rendered(tmp_path / "v.mp4", drawings)
    rendered(tmp_path / "intra.mp4", drawings, max_keyframe_interval=1 / 24)
    assert (tmp_path / "v.mp4").stat().st_size < (tmp_path / "intra.mp4").stat().st_size / 4


def test_a_sequence_without_holds_uses_b_pictures_in_the_right_order(tmp_path):
    drawings = moving(tmp_path, 24)
    report = rendered(tmp_path / "v.mp4", [(drawing, 1) for drawing in drawings])
    assert report.encoded_reason == "no still is held for more than one frame"
    with av.open(str(tmp_path / "v.mp4")) as container:
        frames = list(container.decode(video=0))
    assert any(frame.pict_type == 3 for frame in frames)  # AV_PICTURE_TYPE_B
    for index, frame in enumerate(frames):
        red, green, _ = frame.to_ndarray(format="rgb24")[55].astype(int).T
        assert np.flatnonzero(red - green > 140).mean() == pytest.approx(5 * index + 14.5, abs=2), index
    assert report.facts.frames == 24
    assert report.facts.duration_s == 1


def test_jobs_that_mix_holds_and_single_frames_are_exact(tmp_path, stills, recording):
    holds = [1, 1, 1, 24, 1, 1, 2, 1, 1, 1, 1, 5]
    report = rendered(tmp_path / "v.mp4", list(zip(stills, holds, strict=True)), recording)
    assert report.encoded_reason is None
    own = decoded(b"".join(unit.data for unit in recording.made[0].units))
    assert decoded(tmp_path / "v.mp4") == [p for p, hold in zip(own, holds, strict=True) for _ in range(hold)]


@pytest.fixture
def odd_ffmpeg(tmp_path) -> Callable[[str], str]:
    """Return a factory of ffmpegs that give a held stream x264 options of their own."""

    def make(options: str) -> str:
        path = tmp_path / "odd-ffmpeg"
        real = imageio_ffmpeg.get_ffmpeg_exe()
        changed = f'"$(echo "$a" | sed s/bframes=0:ref=1/{options}/)"'
        path.write_text(f'#!/bin/sh\nfor a; do shift; set -- "$@" {changed}; done\nexec {real} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("bframes=0:ref=1:interlaced=1", "interlaced"),
        ("bframes=3:ref=1:b-adapt=0:scenecut=0", "B pictures"),
        ("bframes=0:ref=1:nal-hrd=vbr:vbv-maxrate=9000:vbv-bufsize=9000", "timing"),
        ("bframes=0:ref=1:keyint=1", "intra"),
    ],
)
def test_a_stream_that_cannot_be_held_is_encoded_frame_by_frame(tmp_path, stills, odd_ffmpeg, options, reason):
    report = rendered(tmp_path / "v.mp4", [(still, 8) for still in stills[:4]], ffmpeg=odd_ffmpeg(options))
    assert reason in report.encoded_reason
    assert report.result("", "", RenderRequest.model_validate({"images": [{"url": "a"}]})).held_pictures == "encoded"
    frames = decoded(tmp_path / "v.mp4")
    assert len(frames) == 32


def test_several_references_in_use_make_every_still_an_idr(tmp_path, odd_ffmpeg):
    drawings = [(drawing, 3) for drawing in moving(tmp_path, 8)]
    report = rendered(tmp_path / "v.mp4", drawings, ffmpeg=odd_ffmpeg("bframes=0:ref=4"))
    assert report.encoded_reason is None
    assert report.facts.frames == 24
    with av.open(str(tmp_path / "v.mp4")) as container:
        at = [
            packet.pts * packet.time_base for packet in container.demux(video=0) if packet.size and packet.is_keyframe
        ]
    assert at == [Fraction(3 * number, 24) for number in range(8)]


def test_the_self_test_passes_with_x264():
    assert selftest.refusal(X264Encoder, EncodeSettings()) is None


class Forgetful(X264Encoder):
    """Gives a stream whose pictures are not those that were put in order."""

    def flush(self):
        units = list(super().flush())
        return units[:-1]


def test_the_self_test_tells_an_encoder_that_loses_a_picture():
    assert "self-test" in (selftest.refusal(Forgetful, EncodeSettings()) or "")


def test_holds_can_be_switched_off(tmp_path, stills):
    images = [{"url": str(still), "frames": 3} for still in stills[:2]]
    job = render_job(
        RenderRequest.model_validate({"images": images}), RequestLimits(), FetchSettings(), Origin(any_path=True)
    )
    settings = RenderSettings(encode=EncodeSettings(hold_pictures=False))
    report = render(job, tmp_path / "v.mp4", settings, open_encoder=NullEncoder)
    assert report.encoded_reason == "the settings say so"
    assert report.facts.frames == 6


class Odd(X264Encoder):
    """Has a stream that nothing can be made of, whatever is asked of it."""

    def encode(self, frame):
        super().encode(frame)
        raise UnsupportedStream("it is odd")


def test_a_stream_that_stays_unsupported_ends_the_job(tmp_path, stills):
    with pytest.raises(EncodeFailed, match="cannot be used: it is odd"):
        rendered(tmp_path / "v.mp4", [(stills[0], 8)], Odd)
    assert not (tmp_path / "v.mp4").exists()
