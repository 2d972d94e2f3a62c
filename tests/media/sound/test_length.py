"""What a video with sound is as long as: its stills, its sounds, or the longer of the two."""

from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from protocol.schema import ImageFrame, RenderRequest
from renderer import render
from renderer.config import RequestLimits, Settings
from renderer.errors import InvalidRequest, LimitExceeded
from renderer.timeline import Timeline, following, has_no_time
from tests.media.sound.made import coded, heard, level, still, tone, wav

# length, seconds of the sound, the stills' frames (None: neither frames nor a duration) at 10 fps, and the holds.
TABLE = [
    ("stills", 3, [10, 5], [10, 5]),
    ("stills", 1, [10, None], [10, 1]),
    ("longest", 3, [10, 5], [10, 20]),
    ("longest", 1, [10, 5], [10, 5]),
    ("longest", 3, [None, None], [1, 29]),
    ("audio", 3, [None, None, None], [10, 10, 10]),
    ("audio", 1, [None, None, None], [3, 4, 3]),
    ("audio", 3, [10, None, None], [10, 10, 10]),
    ("audio", 3, [None, 10, None], [10, 10, 10]),
    ("audio", 3, [10, 5], [10, 20]),
    ("audio", 1, [10, 5], [10, 5]),
    ("audio", 1, [10, None, None], [10, 1, 1]),
]


@pytest.mark.parametrize(("length", "seconds", "frames", "holds"), TABLE)
def test_the_table_of_lengths(
    tmp_path: Path, length: str, seconds: int, frames: list[int | None], holds: list[int]
) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(seconds)))
    url = still(tmp_path)
    images = [{"url": url} if count is None else {"url": url, "frames": count} for count in frames]
    audio = [{"url": str(tmp_path / "tone.wav")}]
    seen = []

    result = render(
        {"images": images, "fps": 10, "audio": audio, "length": length},
        tmp_path / "video.mp4",
        on_progress=lambda progress: seen.append(progress.frames),
    )

    assert result.frames == sum(holds) == seen[-1]
    assert result.audio is not None
    assert result.audio.duration == seconds
    assert result.audio.stills_duration == sum(count or 1 for count in frames) / 10
    sound = heard(tmp_path / "video.mp4")
    assert sound.shape[1] == 4800 * sum(holds)
    if sum(holds) > 10 * seconds + 1:
        assert level(sound, seconds + 0.1, sum(holds) / 10) < 1e-3
    is_longer = length == "audio" and sum(holds) > 10 * seconds
    is_cut = length == "stills" and sum(holds) < 10 * seconds
    expected = ["audio_cut"] * is_cut + ["video_longer"] * is_longer
    assert [warning.type for warning in result.warnings] == expected


def test_shares_are_equal_to_the_frame_and_end_where_the_sound_does() -> None:
    line = following(Timeline(Fraction(30000, 1001), (1,) * 7), range(7), "audio", Fraction(60))
    assert line.frames == 1798  # 60 s are 1798.2 frames
    assert list(accumulate(line.holds)) == [round(Fraction(1798 * number, 7)) for number in range(1, 8)]


def test_a_still_has_no_time_of_its_own_if_none_is_written() -> None:
    assert has_no_time(ImageFrame(url="a"))
    assert not has_no_time(ImageFrame(url="a", frames=1))
    assert not has_no_time(ImageFrame(url="a", duration=1))
    again = RenderRequest.model_validate_json(
        RenderRequest(images=(ImageFrame(url="a"),)).renamed({"a": "b"}).model_dump_json(exclude_unset=True)
    )
    assert has_no_time(again.images[0])


def test_several_sounds_are_as_long_as_the_one_that_ends_last_and_endless_ones_do_not_count(tmp_path: Path) -> None:
    long, short = coded(tone(2), tmp_path / "a.mp3"), coded(tone(0.5), tmp_path / "b.mp3")
    audio = [
        {"url": str(long), "at": 0.5, "start": 1},
        {"url": str(short), "at": 2},
        {"url": str(short), "loop": True},
    ]
    images = [{"url": still(tmp_path)}] * 2
    result = render({"images": images, "fps": 24, "audio": audio, "length": "audio"}, tmp_path / "video.mp4")
    assert (result.frames, result.audio.duration) == (60, 2.5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "length: expected `audio`, which audio follows, found none"),
        ({"audio": [{"url": "a.wav", "loop": True}]}, "length: expected a sound that ends"),
    ],
)
def test_a_length_that_nothing_decides_is_refused(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(0.1)))
    request = {"images": [{"url": still(tmp_path)}], "length": "audio", **fields}
    with pytest.raises(InvalidRequest) as refused:
        render(request, tmp_path / "video.mp4", base=tmp_path)
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize("limits", [{"max_frames": 50}, {"max_duration_s": 2}])
def test_limits_hold_for_a_video_that_follows_its_sound(tmp_path: Path, limits: dict[str, int]) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(30)))
    request = {"images": [{"url": still(tmp_path)}], "length": "longest", "audio": [{"url": str(tmp_path / "a.wav")}]}
    with pytest.raises(LimitExceeded, match=r"length: expected up to"):
        render(request, tmp_path / "video.mp4", settings=Settings(limits=RequestLimits(**limits)))


@pytest.mark.parametrize(("on_error", "holds"), [("skip", 20), ("hold", 20)])
def test_an_image_that_cannot_be_had_leaves_the_length_as_it_is(tmp_path: Path, on_error: str, holds: int) -> None:
    (tmp_path / "a.wav").write_bytes(wav(tone(2)))
    url = still(tmp_path)
    images = [{"url": url}, {"url": str(tmp_path / "none.png")}, {"url": url}]
    request = {"images": images, "fps": 10, "length": "audio", "on_error": on_error}
    result = render({**request, "audio": [{"url": str(tmp_path / "a.wav")}]}, tmp_path / "video.mp4")
    assert result.frames == holds
