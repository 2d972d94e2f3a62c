"""What videos and sounds say of themselves, compared with what was asked for when they were made."""

from pathlib import Path

import pytest

from protocol.media import Audio, Video
from renderer.config import RenderSettings
from renderer.errors import JobError, UnsupportedVideo
from renderer.media.describe import describe
from renderer.pictures.marks import Marks
from tests.media.made import Make
from tests.media.sound.made import coded, tone, wav


def described(data: bytes, url: str = "https://example.com/a/clip.mp4?x=1") -> Video | Audio:
    return describe(data, url, ("media_url",), RenderSettings(), Marks())


def test_a_video_with_sound(video: Make) -> None:
    path = video("loud.mp4")
    found = described(path.read_bytes())
    assert isinstance(found, Video)
    assert (found.url, found.file_name) == ("https://example.com/a/clip.mp4?x=1", "clip.mp4")
    assert (found.media_type, found.content_type, found.container) == ("video", "video/mp4", "mp4")
    assert (found.file_size, found.duration, found.fps, found.frame_rate) == (path.stat().st_size, 1.0, 25, "25/1")
    assert (found.frame_count, found.timebase, found.codec) == (25, "1/12800", "h264")
    assert found.resolution.model_dump() == {"width": 64, "height": 48, "aspect_ratio": "4:3"}
    assert (found.format.profile, found.format.level, found.format.pixel_format) == ("high", 1.0, "yuv420p")
    assert 0 < found.format.bitrate < found.bitrate == 8 * found.file_size
    assert found.audio is not None
    assert (found.audio.codec, found.audio.channels, found.audio.sample_rate) == ("aac", 1, 48_000)
    assert 50_000 < found.audio.bitrate < 90_000


@pytest.mark.parametrize(
    ("name", "container", "codec", "frames"),
    [("a.mov", "mov", "h264", 25), ("hevc.mkv", "matroska", "hevc", 25), ("vp9.webm", "webm", "vp9", 25),
     ("av1.mp4", "mp4", "av1", 25), ("within.mp4", "mp4", "h264", 13), ("one.mp4", "mp4", "h264", 1)],
)  # fmt: skip
def test_frames_and_time_are_those_that_are_shown(
    video: Make, name: str, container: str, codec: str, frames: int
) -> None:
    found = described(video(name).read_bytes())
    assert isinstance(found, Video)
    assert (found.container, found.codec, found.frame_count) == (container, codec, frames)
    assert found.duration == pytest.approx(frames / 25)
    assert found.audio is None


def test_a_rate_is_exact_and_that_of_variable_rates_is_their_mean(video: Make) -> None:
    ntsc = video("ntsc.mkv", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=1", "-c:v", "libx264")
    found, varying = described(ntsc.read_bytes()), described(video("rates.mp4").read_bytes())
    assert isinstance(found, Video)
    assert isinstance(varying, Video)
    assert (found.fps, found.frame_rate) == (30, "30000/1001")
    assert (varying.frame_count, varying.frame_rate) == (14, "14/1")


def test_a_video_that_is_turned_has_the_shape_that_is_shown(video: Make) -> None:
    turned = video("portrait.mp4", "-display_rotation", "90", "-i", str(video("a.mp4")), "-c", "copy")
    found = described(turned.read_bytes())
    assert isinstance(found, Video)
    assert found.resolution.model_dump() == {"width": 48, "height": 64, "aspect_ratio": "3:4"}


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [("a.mp3", "audio/mpeg", "mp3"), ("a.m4a", "audio/mp4", "aac"), ("a.flac", "audio/flac", "flac"),
     ("a.ogg", "audio/ogg", "vorbis"), ("a.aac", "audio/aac", "aac"), ("a.wav", "audio/wav", "pcm_s16le")],
)  # fmt: skip
def test_a_sound(tmp_path: Path, name: str, kind: str, codec: str) -> None:
    options = ("-c:a", "libvorbis") if name == "a.ogg" else ()
    found = described(coded(tone(2, channels=2), tmp_path / name, *options).read_bytes(), "data:,")
    assert isinstance(found, Audio)
    assert (found.media_type, found.content_type, found.codec) == ("audio", kind, codec)
    assert (found.channels, found.sample_rate) == (2, 48_000)
    assert found.duration == pytest.approx(2, abs=0.06)
    assert (found.url, found.file_name.partition(".")[0]) == ("", "media")


def test_more_channels_than_are_decoded_are_counted(tmp_path: Path) -> None:
    found = described(coded(tone(0.5, channels=6), tmp_path / "a.m4a").read_bytes())
    assert isinstance(found, Audio)
    assert found.channels == 6


@pytest.mark.parametrize("data", [b"", b"#EXTM3U\nfile:///etc/passwd", b"GIF89a" + bytes(40), wav(tone(0.1))[:20]])
def test_what_is_neither_is_refused_at_its_url(data: bytes) -> None:
    with pytest.raises(JobError) as told:
        described(data)
    assert told.value.loc == ("media_url",)


def test_a_picture_is_refused_as_one() -> None:
    with pytest.raises(UnsupportedVideo, match="a video or a sound that is read here, found a picture"):
        described(b"\x89PNG\r\n\x1a\n" + bytes(100))
