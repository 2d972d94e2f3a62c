"""Sound under stills: in its place, as long as the video, faded, mixed, and beside pictures that it does not change."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from protocol.schema import RenderResult
from renderer import render
from renderer.errors import InvalidRequest, NotSupported
from tests.load import load
from tests.media.sound.made import RATE, clicks, coded, heard, heard_by_ffmpeg, level, loudest_near, still, tone, wav


def made(directory: Path, audio: list[dict[str, Any]], *, frames: int = 48, **fields: Any) -> RenderResult:
    """Render one still with sound into `video.mp4`."""
    images = [{"url": still(directory), "frames": frames}]
    return render({"images": images, "fps": 24, "audio": audio, **fields}, directory / "video.mp4")


@pytest.mark.load
@pytest.mark.parametrize("rate", ["24", "30000/1001", "60"])
def test_a_click_at_each_still_is_heard_at_its_first_frame(tmp_path: Path, rate: str) -> None:
    fps, stills, seconds = Fraction(rate), 12, load(60, 600)
    hold = int(seconds * fps) // stills
    at = [round(number * hold / fps * RATE) for number in range(stills)]
    (tmp_path / "clicks.wav").write_bytes(wav(clicks(stills * hold / fps, at)))
    images = [{"url": still(tmp_path), "frames": hold}] * stills

    render({"images": images, "fps": rate, "audio": [{"url": "clicks.wav"}]}, tmp_path / "video.mp4", base=tmp_path)

    sound = heard(tmp_path / "video.mp4")
    assert [loudest_near(sound, place) for place in at] == [0] * stills
    with av.open(str(tmp_path / "video.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.start_time == audio.start_time == 0
        assert abs(audio.duration * audio.time_base - video.duration * video.time_base) < Fraction(1, RATE)


@pytest.mark.parametrize("codec", ["aac", "opus"])
def test_the_sound_begins_where_ffmpeg_hears_it(tmp_path: Path, codec: str) -> None:
    (tmp_path / "clicks.wav").write_bytes(wav(clicks(2, [0, 24_000, 95_000])))
    result = made(tmp_path, [{"url": str(tmp_path / "clicks.wav")}], audio_codec=codec)

    sound = heard_by_ffmpeg(tmp_path / "video.mp4")

    assert [loudest_near(sound, place) for place in (0, 24_000, 95_000)] == [0, 0, 0]
    assert result.audio is not None
    assert (result.audio.codec, result.audio.channels, result.audio.sample_rate) == (codec, 1, RATE)
    assert result.audio.duration == 2


def test_the_pictures_are_the_same_bytes_with_and_without_sound(tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(2)))

    def access_units() -> list[bytes]:
        with av.open(str(tmp_path / "video.mp4")) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    made(tmp_path, [])
    without = access_units()
    made(tmp_path, [{"url": str(tmp_path / "tone.wav")}])

    assert access_units() == without
    assert len(without) == 48


def test_frames_and_sound_take_turns_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(10)))
    made(tmp_path, [{"url": str(tmp_path / "tone.wav")}], frames=240)
    with av.open(str(tmp_path / "video.mp4")) as container:
        packets = [(packet.pos, packet.stream.type, packet.dts * packet.time_base) for packet in container.demux()
                   if packet.size]  # fmt: skip
    turns = [later for earlier, later in pairwise(sorted(packets))
             if earlier[1] != later[1]]  # fmt: skip
    assert 20 <= len(turns) <= 60
    assert max(abs(later[2] - earlier[2]) for earlier, later in pairwise(turns)) < 1


def test_a_longer_sound_is_cut_at_the_last_frame_and_a_shorter_one_is_followed_by_silence(tmp_path: Path) -> None:
    for seconds in (5, 1):
        (tmp_path / "tone.wav").write_bytes(wav(tone(seconds)))
        result = made(tmp_path, [{"url": str(tmp_path / "tone.wav")}])
        sound = heard(tmp_path / "video.mp4")
        assert sound.shape[1] == 2 * RATE
        assert level(sound, 0.2, 0.9) == pytest.approx(0.354, rel=0.02)
        assert result.audio is not None
        assert result.audio.duration == seconds
        assert result.duration == 2
    assert level(sound, 1.1, 2) < 1e-5


def test_mono_stays_mono_and_one_stereo_sound_makes_all_stereo(tmp_path: Path) -> None:
    (tmp_path / "mono.wav").write_bytes(wav(tone(2, level=0.25)))
    left = tone(2, channels=2)
    left[1] = 0
    (tmp_path / "left.wav").write_bytes(wav(left))
    mono, stereo = {"url": str(tmp_path / "mono.wav")}, {"url": str(tmp_path / "left.wav")}
    assert made(tmp_path, [mono]).audio.channels == 1
    assert made(tmp_path, [mono, {**stereo, "at": 1}]).audio.channels == 2
    sound = heard(tmp_path / "video.mp4")
    assert level(sound[:1], 0.2, 0.9) == pytest.approx(0.177, rel=0.02) == level(sound[1:], 0.2, 0.9)
    assert level(sound[1:], 1.2, 1.9) == pytest.approx(0.177, rel=0.02)


def test_a_track_is_placed_trimmed_and_made_quieter(tmp_path: Path) -> None:
    parts = np.concatenate([tone(1, 300), tone(1, 3000)], axis=1)
    (tmp_path / "two.wav").write_bytes(wav(parts))
    made(tmp_path, [{"url": str(tmp_path / "two.wav"), "at": 0.5, "start": 1, "duration": 0.5, "gain_db": -6}])
    sound = heard(tmp_path / "video.mp4")
    assert level(sound, 0, 0.45) < 1e-3
    assert level(sound, 0.55, 0.95) == pytest.approx(0.354 / 2, rel=0.03)
    assert level(sound, 1.05, 2) < 1e-3
    crossings = np.count_nonzero(np.diff(np.signbit(sound[0, 30_000:40_000])))
    assert crossings == pytest.approx(2 * 3000 * 10_000 / RATE, rel=0.02)


def test_a_loop_repeats_to_the_end_without_a_gap(tmp_path: Path) -> None:
    (tmp_path / "short.wav").write_bytes(wav(tone(0.3, 500)))  # whole periods
    made(tmp_path, [{"url": str(tmp_path / "short.wav"), "loop": True}])
    sound = heard(tmp_path / "video.mp4")
    assert level(sound - tone(2, 500), 0, 2) < 0.01
    (tmp_path / "one.wav").write_bytes(wav(np.full((1, 1), 0.25, np.float32)))
    made(tmp_path, [{"url": str(tmp_path / "one.wav"), "loop": True}])
    assert level(heard(tmp_path / "video.mp4"), 0.1, 1.9) == pytest.approx(0.25, rel=0.02)
    made(tmp_path, [{"url": str(tmp_path / "short.wav"), "loop": True, "duration": 1}])
    assert level(heard(tmp_path / "video.mp4"), 1.05, 2) < 1e-3


@pytest.mark.parametrize("seconds", [2.0, 5.0], ids=["at the end of the file", "at the end of the video"])
def test_fades_are_linear_and_end_with_the_track(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(seconds, 1000)))
    made(tmp_path, [{"url": str(tmp_path / "tone.wav"), "fade_in": 0.5, "fade_out": 1}])
    sound = heard(tmp_path / "video.mp4")
    for begin, share in ((0.2, 0.41), (0.6, 1), (1.2, 0.79), (1.8, 0.19)):
        assert level(sound, begin, begin + 0.01) == pytest.approx(share * 0.354, abs=0.02)
    assert level(sound, 1.995, 2) < 0.01


def test_several_sounds_are_mixed_without_being_cut_off(tmp_path: Path) -> None:
    audio = []
    for number, hertz in enumerate((220, 331, 470)):
        (tmp_path / f"{number}.wav").write_bytes(wav(tone(2, hertz, 0.9)))
        audio.append({"url": str(tmp_path / f"{number}.wav")})
    made(tmp_path, audio)
    sound = heard_by_ffmpeg(tmp_path / "video.mp4")
    assert 0.8 < np.abs(sound).max() < 1
    spectrum = np.abs(np.fft.rfft(sound[0, :RATE]))
    harmonics = spectrum[[440, 660, 662, 940]].max() / spectrum[[220, 331, 470]].max()
    assert harmonics < 0.02  # cutting off would have added them


def test_one_loud_sound_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "loud.wav").write_bytes(wav(tone(2, 1000, 0.95)))
    made(tmp_path, [{"url": str(tmp_path / "loud.wav")}])
    assert level(heard(tmp_path / "video.mp4"), 0.2, 1.8) == pytest.approx(0.95 / 2**0.5, rel=0.005)


def test_a_bit_rate_is_kept_to(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal((2, 4 * RATE)).astype(np.float32) * 0.1
    (tmp_path / "noise.wav").write_bytes(wav(noise))
    for rate in (64_000, 256_000):
        made(tmp_path, [{"url": str(tmp_path / "noise.wav")}], frames=96, audio_bitrate=rate)
        with av.open(str(tmp_path / "video.mp4")) as container:
            size = sum(packet.size for packet in container.demux(audio=0))
        assert size * 8 / 4 == pytest.approx(rate, rel=0.1)


def test_a_sound_that_begins_after_the_video_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(1)))
    result = made(tmp_path, [{"url": str(tmp_path / "tone.wav"), "at": 9}])
    assert [(warning.type, warning.loc) for warning in result.warnings] == [("audio_unheard", ("audio", 0, "at"))]
    assert level(heard(tmp_path / "video.mp4"), 0, 2) == 0


@pytest.mark.parametrize(
    ("track", "cut"),
    [
        ({}, ["the sound is cut at the end of the video, 1.000 s before its own"]),
        ({"start": 0.5, "at": 0.2}, ["the sound is cut at the end of the video, 0.700 s before its own"]),
        ({"start": 0.95}, []),
        ({"duration": 2.5}, []),
        ({"loop": True}, []),
    ],
)
def test_a_sound_that_is_cut_without_being_asked_to_is_warned_of(
    tmp_path: Path, track: dict[str, Any], cut: list[str]
) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(3)))
    result = made(tmp_path, [{"url": str(tmp_path / "tone.wav"), **track}])
    assert [warning.message for warning in result.warnings] == cut
    assert {(warning.type, warning.loc) for warning in result.warnings} <= {("audio_cut", ("audio", 0, "url"))}


def test_a_track_cannot_start_after_the_end_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(1)))
    with pytest.raises(InvalidRequest, match=r"audio\[0\].start: expected less than 1.000 s"):
        made(tmp_path, [{"url": str(tmp_path / "tone.wav"), "start": 1.5}])
    assert not (tmp_path / "video.mp4").exists()


@pytest.mark.parametrize("suffix", [".mov", ".m4v"])
def test_opus_is_refused_where_no_file_holds_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "tone.wav").write_bytes(wav(tone(1)))
    request = {"images": [{"url": still(tmp_path)}], "audio": [{"url": str(tmp_path / "tone.wav")}]}
    with pytest.raises(NotSupported, match="audio_codec: "):
        render({**request, "audio_codec": "opus"}, tmp_path / f"video{suffix}")
    assert render(request, tmp_path / f"video{suffix}").audio.codec == "aac"


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.flac", "a.ogg", "a.opus", "a.webm", "a.mov", "alac.m4a"])
def test_a_sound_of_each_format_begins_where_it_should(tmp_path: Path, name: str) -> None:
    options = {"alac.m4a": ("-c:a", "alac"), "a.ogg": ("-c:a", "libvorbis")}.get(name, ())
    source = coded(clicks(1, [11_025, 33_075], rate=44_100), tmp_path / name, *options, rate=44_100)
    made(tmp_path, [{"url": str(source)}], frames=24)
    sound = heard(tmp_path / "video.mp4")
    assert [loudest_near(sound, place) for place in (12_000, 36_000)] == [0, 0]
