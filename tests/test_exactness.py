"""Every frame of the output shows the still that it should: decoded one by one, at all rates and holds.

Each still carries its number in vertical bars, one bit each, that no coder mistakes.
"""

import base64
import io
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from protocol.schema import RenderResult
from renderer import render
from renderer.config import PictureSettings, Settings
from renderer.errors import DecodeFailed

BITS = 10
RATES = {
    1: Fraction(1),
    12.5: Fraction(25, 2),
    23.976: Fraction(24000, 1001),
    24: Fraction(24),
    29.97: Fraction(30000, 1001),
    59.94: Fraction(60000, 1001),
    120: Fraction(120),
}


def numbered(number: int) -> str:
    """Return a still with a number on it, as a data: url."""
    bits = [(number >> bit & 1) * 255 for bit in range(BITS)]
    pixels = np.repeat(np.array(bits, np.uint8), 8)[None].repeat(16, axis=0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def number_on(frame: av.VideoFrame) -> int:
    luma = frame.to_ndarray()[:16]
    means = luma.reshape(16, BITS, 8).mean(axis=(0, 2))
    assert ((means < 40) | (means > 210)).all()
    return sum(int(mean > 128) << bit for bit, mean in enumerate(means))


def rendered(
    path: Path, stills: Sequence[tuple[int, int]], fps: float | str, settings: Settings | None = None
) -> RenderResult:
    """Render (number, hold) stills."""
    images = [{"url": numbered(number), "frames": hold} for number, hold in stills]
    return render({"images": images, "fps": fps, "preset": "ultrafast"}, path, settings=settings)


def check(path: Path, result: RenderResult, stills: Sequence[tuple[int, int]], rate: Fraction) -> None:
    """Compare the file, frame by frame and tick by tick, with what was asked for."""
    expected = [number for number, hold in stills for _ in range(hold)]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert [number_on(frame) for frame in frames] == expected
        ticks_a_frame = 1 / (rate * stream.time_base)
        assert ticks_a_frame.denominator == 1, "a frame lasts whole ticks"
        assert [frame.pts for frame in frames] == [index * ticks_a_frame for index in range(len(expected))]
        assert stream.duration == len(expected) * ticks_a_frame
        assert stream.frames == len(expected)
        assert stream.average_rate == stream.base_rate == rate
    assert result.frames == len(expected)
    assert result.fps == f"{rate.numerator}/{rate.denominator}"
    assert result.duration == float(len(expected) / rate)


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_every_frame_shows_its_still_at_every_rate(tmp_path: Path, fps: float) -> None:
    stills = [(1, 1), (2, 2), (3, 25), (4, 1), (5, 1), (6, 60), (7, 3), (8, 1)]
    path = tmp_path / "a.mp4"
    check(path, rendered(path, stills, fps), stills, RATES[fps])


@pytest.mark.parametrize("fps", [1, 23.976, 120])
def test_every_hold_from_1_to_300_is_exact(tmp_path: Path, fps: float) -> None:
    holds = [*random.Random(5).sample(range(1, 301), 18), 300, 1]
    stills = list(enumerate(holds, 1))
    path = tmp_path / "a.mp4"
    check(path, rendered(path, stills, fps), stills, RATES[fps])


@pytest.mark.parametrize("hold", [1, 2, 24, 241, 300])
def test_a_single_still_is_held_to_the_last_frame(tmp_path: Path, hold: int) -> None:
    path = tmp_path / "a.mp4"
    check(path, rendered(path, [(9, hold)], 24), [(9, hold)], Fraction(24))


def test_the_last_still_is_held_as_long_as_it_should(tmp_path: Path) -> None:
    stills = [(1, 1), (2, 1), (3, 97)]
    path = tmp_path / "a.mp4"
    check(path, rendered(path, stills, 29.97), stills, RATES[29.97])


@pytest.mark.parametrize("decoding_threads", [1, 3])
@pytest.mark.parametrize("look_ahead", [1, 2, 7])
def test_stills_that_come_again_come_in_their_place(tmp_path: Path, look_ahead: int, decoding_threads: int) -> None:
    """In a row, every other time, and much further apart than stills are made ready ahead."""
    order = [1, 1, 1, 2, 1, 2, 3, *range(10, 50), 3, 1, 1, 2, *range(10, 50), 49, 2, 2]
    stills = [(number, 1 + position % 3) for position, number in enumerate(order)]
    settings = Settings(pictures=PictureSettings(look_ahead=look_ahead, decoding_threads=decoding_threads))
    path = tmp_path / "a.mp4"
    check(path, rendered(path, stills, 24, settings), stills, Fraction(24))


def test_two_hundred_stills_of_one_frame_each_are_in_order(tmp_path: Path) -> None:
    stills = [(number, 1) for number in range(1, 201)]
    path = tmp_path / "a.mp4"
    check(path, rendered(path, stills, 12.5), stills, RATES[12.5])


def test_holds_in_seconds_end_at_the_nearest_frame_of_the_running_total(tmp_path: Path) -> None:
    durations = [0.1, 0.35, 0.2, 1.001, 0.1, 0.1, 0.7]
    images = [{"url": numbered(number), "duration": duration} for number, duration in enumerate(durations, 1)]
    path = tmp_path / "a.mp4"
    result = render({"images": images, "fps": 29.97}, path)
    ends = [int(total * 30000 / 1001 + 0.5) for total in accumulate(durations)]
    holds = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    check(path, result, list(enumerate(holds, 1)), RATES[29.97])


@pytest.mark.parametrize("seek_to", [0, 1, 99, 100, 101, 149])
def test_seeking_finds_the_still_of_that_time(tmp_path: Path, seek_to: int) -> None:
    stills = [(1, 100), (2, 50)]
    path = tmp_path / "a.mp4"
    images = [{"url": numbered(number), "frames": hold} for number, hold in stills]
    render({"images": images, "fps": 24, "max_keyframe_interval": 1}, path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pts = seek_to / (24 * stream.time_base)
        container.seek(int(pts), stream=stream)
        frame = next(frame for frame in container.decode(stream) if frame.pts == pts)
        assert number_on(frame) == (1 if seek_to < 100 else 2)


def test_keyframes_are_no_further_apart_than_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    images = [{"url": numbered(1), "frames": 100}]
    render({"images": images, "fps": 23.976, "max_keyframe_interval": 0.5}, path)
    with av.open(str(path)) as container:
        keyframes = [packet.pts // 1001 for packet in container.demux(video=0) if packet.is_keyframe]
    assert keyframes == list(range(0, 100, 11))


def test_a_still_that_fails_fails_the_whole(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    broken = write_image("broken.png", (64, 64))
    broken.write_bytes(broken.read_bytes()[:90])
    images = [{"url": numbered(number)} for number in range(20)]
    images[13] = {"url": str(broken)}
    with pytest.raises(DecodeFailed) as raised:
        render({"images": images}, tmp_path / "a.mp4")
    assert raised.value.loc == ("images", 13, "url")
    assert not list(tmp_path.glob("a.mp4*"))
