"""Single frames of videos: the right one, in the right colours, the right way up."""

from bisect import bisect_right

import av
import numpy as np
import pytest

from renderer.errors import UnsupportedVideo
from renderer.media.frame import picture_of
from tests.media.made import Make, nearest, opened, shown, times

EVERY = (
    *("a.mp4", "a.mkv", "fragmented.mp4", "rates.mp4", "open.mp4", "hevc.mp4", "hevc.mkv"),
    *("vp8.webm", "vp9.webm", "av1.mp4", "one.mp4", "late.mp4", "begun.mp4", "ended.mp4", "within.mp4"),
)


@pytest.mark.parametrize("name", EVERY)
def test_first_middle_and_last_are_the_frames_that_are_shown_then(video: Make, name: str) -> None:
    path = video(name)
    file, frames, moments = opened(path.read_bytes()), shown(path), times(path)
    end = moments[-1] + 0.04
    middle = bisect_right(moments, end / 2 + 1e-9) - 1
    assert len(frames) == len(moments) == file.survey.frames
    assert float(file.survey.duration_s) == pytest.approx(end, abs=0.002)
    for wanted, place in (("first", 0), ("middle", middle), ("last", len(frames) - 1)):
        found = picture_of(file.frame(wanted))
        assert nearest(found, frames) == place, wanted
        assert np.abs(found.astype(int) - frames[place]).mean() < 1


def test_the_middle_of_variable_rates_is_that_of_the_time(video: Make) -> None:
    path = video("rates.mp4")
    assert opened(path.read_bytes()).frame("middle").pts == 12 * 512, "the 13th of 25 frames, the 4th that is there"


def test_the_edit_lists_of_the_tests_show_what_they_are_meant_to(video: Make) -> None:
    assert [opened(video(name).read_bytes()).survey.frames for name in ("begun.mp4", "ended.mp4", "within.mp4")] == [
        18, 14, 13,
    ]  # fmt: skip


COLOURS = {
    "bt709": ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"),
    "bt601": ("-color_primaries", "smpte170m", "-color_trc", "smpte170m", "-colorspace", "smpte170m"),
    "full": ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "pc"),
    "unsaid": (),
}
SAMPLES = ("yuv420p", "yuv444p", "yuv422p10le")
GRADIENT = ("-f", "lavfi", "-i", "gradients=s=65x47:n=4:seed=7:d=0.04:r=25")


@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("colour", COLOURS)
def test_colours_are_those_that_ffmpeg_shows(video: Make, colour: str, samples: str) -> None:
    even = ("-vf", "crop=64:46", "-frames:v", "1")
    path = video(f"{colour}_{samples}.mp4", *GRADIENT, *even, "-pix_fmt", samples, *COLOURS[colour], "-crf", "1")
    found, expected = picture_of(opened(path.read_bytes()).frame("first")), shown(path)[0]
    assert np.abs(found.astype(int) - expected).max() <= 2
    assert np.abs(found.astype(int) - expected).mean() < 0.6


@pytest.mark.parametrize(("nits", "level"), [(203, 229), (1000, 255), (50, 128)])
def test_hdr_is_tone_mapped_as_stills_are(video: Make, nits: int, level: int) -> None:
    power = (nits / 10000) ** (2610 / 16384)
    signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    luma = round(64 + 876 * signal)
    grey = ("-f", "lavfi", "-i", f"nullsrc=s=64x48:d=0.04:r=25,format=yuv420p10le,geq=lum={luma}:cb=512:cr=512")
    tags = "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:lossless=1"
    path = video(f"pq{nits}.mp4", *grey, "-c:v", "libx265", "-x265-params", tags)
    found = picture_of(opened(path.read_bytes()).frame("first"))
    assert np.abs(found.astype(int) - level).max() <= (2 if nits > 100 else 8)


@pytest.mark.parametrize(
    "turn", [("-display_rotation", "90"), ("-display_rotation", "180"), ("-display_rotation", "270"),
             ("-display_hflip",), ("-display_rotation", "90", "-display_vflip")],
)  # fmt: skip
def test_a_picture_is_turned_and_mirrored_as_its_file_says(video: Make, turn: tuple[str, ...]) -> None:
    path = video(f"turned{'_'.join(turn)}.mp4", *turn, "-i", str(video("a.mp4")), "-c", "copy")
    found, expected = picture_of(opened(path.read_bytes()).frame("last")), shown(path)[-1]
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 1


def test_samples_of_another_kind_are_refused_by_their_name(video: Make) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.04")
    path = video("yuv440p.webm", *source, "-c:v", "libvpx-vp9", "-pix_fmt", "yuv440p")
    with pytest.raises(UnsupportedVideo, match="yuv440p"):
        picture_of(opened(path.read_bytes()).frame("first"))


def test_little_is_decoded_for_a_late_frame(video: Make) -> None:
    path = video("a.mp4")
    with av.open(str(path)) as container:
        keys = [place for place, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    file, begins = opened(path.read_bytes()), []
    decode = file._decoded
    file._decoded = lambda begin, latest: begins.append(begin) or decode(begin, latest)
    file.frame("last")
    assert begins == keys[-1:]
    assert keys[-1] > 12
