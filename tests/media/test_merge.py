"""A video with another sound: its pictures are the same bytes at the same times, and the sound is in its place."""

import resource
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from protocol.media import MergeAudioVideo
from protocol.schema import ResultWarning
from renderer.errors import InvalidRequest, JobError, OutputFailed, SoundDamaged, UnsupportedVideo, VideoDamaged
from renderer.media.merge import merge
from renderer.media.sound.decode import read_header
from renderer.pictures.marks import Marks
from tests.media.made import Make, opened, times
from tests.media.sound.made import RATE, clicks, coded, ffmpeg, heard, heard_by_ffmpeg, level, loudest_near, tone, wav

COPIED = (
    *("a.mov", "a.mkv", "fragmented.mp4", "rates.mp4", "open.mp4", "hevc.mp4", "hevc.mkv"),
    *("vp9.webm", "av1.mp4", "one.mp4", "loud.mp4", "late.mp4", "begun.mp4", "ended.mp4", "within.mp4"),
)


def merged(path: Path, sound: bytes, output: Path, **fields: float) -> list[str]:
    """Merge, and return the types of the warnings."""
    request = MergeAudioVideo(video_url="v", audio_url="a", **fields)
    file = read_header(sound, ("audio_url",), Marks())
    return [each.type for each in merge(opened(path.read_bytes()), file, request, output, Marks())]


def units(path: Path, first: int = 0) -> list[bytes]:
    """Return the packets of a video, without those at the end that an edit list leaves out."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        while packets[-1].is_discard:
            packets.pop()
        return [bytes(packet) for packet in packets][first:]


def frames(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", COPIED)
def test_every_packet_is_copied_and_every_frame_is_shown_at_its_time(video: Make, tmp_path: Path, name: str) -> None:
    path, output = video(name), tmp_path / "out.mp4"
    merged(path, wav(tone(0.5)), output)
    assert units(output) == units(path)
    assert frames(output) == frames(path)
    assert times(output) == pytest.approx(times(path), abs=1e-5)
    content = output.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(output)) as container:
        pictures, sound = container.streams.video[0], container.streams.audio[0]
        assert (pictures.start_time, sound.start_time) == (0, 0)
        shown_s = float(opened(path.read_bytes()).survey.duration_s)
        assert float(pictures.duration * pictures.time_base) == pytest.approx(shown_s, abs=1e-4)
        assert float(sound.duration * sound.time_base) == pytest.approx(shown_s, abs=2e-4)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_what_the_file_says_of_the_pictures_is_kept(video: Make, tmp_path: Path) -> None:
    colours = ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv")
    tagged = video("tagged.mp4", "-i", str(video("a.mp4")), "-c:v", "libx264", *colours)
    turned = video("turned.mp4", "-display_rotation", "90", "-i", str(tagged), "-c", "copy")
    output = tmp_path / "out.mp4"
    merged(turned, wav(tone(0.5)), output)
    with av.open(str(turned)) as before, av.open(str(output)) as after:
        said = [
            (frame.rotation, frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
            for frame in (next(each.decode(video=0)) for each in (before, after))
        ]
    assert said[0] == said[1]
    assert said[0][0] == 90


@pytest.mark.parametrize("name", ["wide.mp4", "wide.mkv"])
def test_the_shape_and_the_language_that_only_the_container_tells_are_kept(
    video: Make, tmp_path: Path, name: str
) -> None:
    wide = video(name, "-i", str(video("a.mp4")), "-c", "copy", "-aspect", "16:9", "-metadata:s:v", "language=deu")
    merged(wide, wav(tone(0.5)), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures = container.streams.video[0]
        assert (pictures.sample_aspect_ratio, pictures.language) == (Fraction(4, 3), "deu")
    assert units(tmp_path / "out.mp4") == units(video("a.mp4"))


CHAPTERS = [(0, 400, "Anfang"), (400, 720, "Mitte \u00e4"), (720, 5000, "Ende" * 90)]  # ms; the last one lies
CHAPTERS_KEPT = [(0, 0.4, "Anfang"), (0.4, 0.72, "Mitte \u00e4"), (0.72, 1, ("Ende" * 90)[:255])]


def with_chapters(video: Make, directory: Path, name: str) -> Path:
    lines = [f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={begin}\nEND={end}\ntitle={title}\n" for begin, end, title in CHAPTERS]
    (directory / "said").write_text(";FFMETADATA1\n" + "".join(lines), encoding="utf-8")
    path = directory / name
    ffmpeg("-i", video("a.mp4"), "-i", directory / "said", "-map", "0", "-map_chapters", "1", "-c", "copy", path)
    return path


def chapters(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (
                float(each["start"] * each["time_base"]),
                float(each["end"] * each["time_base"]),
                each["metadata"]["title"],
            )
            for each in container.chapters()
        ]


@pytest.mark.parametrize("name", ["said.mp4", "said.mkv"])
def test_chapters_are_kept_within_the_video(video: Make, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out.mp4"
    assert merged(with_chapters(video, tmp_path, name), wav(tone(0.5)), output) == []
    for found, wanted in zip(chapters(output), CHAPTERS_KEPT, strict=True):
        assert found[:2] == pytest.approx(wanted[:2], abs=1e-3)
        assert found[2] == wanted[2]
    assert units(output) == units(video("a.mp4"))


def test_what_an_mp4_of_one_video_cannot_hold_is_told(video: Make, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    both = tmp_path / "both.mkv"
    ffmpeg("-i", video("a.mp4"), "-i", video("one.mp4"), "-i", tmp_path / "a.srt", *("-map", "0", "-map", "1"),
           *("-map", "2", "-c", "copy"), both)  # fmt: skip
    request = MergeAudioVideo(video_url="v", audio_url="a")
    sound = read_header(wav(tone(0.5)), ("audio_url",), Marks())
    [warning] = merge(opened(both.read_bytes()), sound, request, tmp_path / "out.mp4", Marks())
    assert (warning.type, warning.loc) == ("streams_left_out", ("video_url",))
    assert warning.message == "further videos and subtitles of the file are left out"
    attached = ("-attach", tmp_path / "a.srt", "-metadata:s:t", "mimetype=application/x-font", "-c", "copy")
    ffmpeg("-i", video("a.mp4"), *attached, tmp_path / "font.mkv")
    ffmpeg("-i", video("a.mp4"), "-c", "copy", "-timecode", "01:00:00:00", tmp_path / "timecode.mov")
    for name, words in (("font.mkv", "attachments"), ("timecode.mov", "data tracks")):
        [warning] = merge(opened((tmp_path / name).read_bytes()), sound, request, tmp_path / "out.mp4", Marks())
        assert warning.message == f"{words} of the file are left out"


def test_a_tag_in_latin_1_is_no_damage(video: Make, tmp_path: Path) -> None:
    titled = tmp_path / "titled.mp4"
    ffmpeg("-i", video("a.mp4"), "-c", "copy", "-metadata", "title=Grusse", titled)
    titled.write_bytes(titled.read_bytes().replace(b"Grusse", b"Gr\xfc\xdfe"))
    assert b"Gr\xfc\xdfe" in titled.read_bytes()
    assert merged(titled, wav(tone(0.5)), tmp_path / "out.mp4") == []


def test_hevc_has_the_tag_that_apples_players_ask_for(video: Make, tmp_path: Path) -> None:
    for name in ("hevc.mkv", "hevc.mp4"):
        merged(video(name), wav(tone(0.5)), tmp_path / "out.mp4")
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize("name", ["a.mp4", "within.mp4", "late.mp4", "rates.mp4"])
def test_the_sound_begins_at_its_offset_from_the_first_frame(video: Make, tmp_path: Path, name: str) -> None:
    output = tmp_path / "out.mp4"
    sound = wav(clicks(0.4, [4800]))
    assert merged(video(name), sound, output, start_offset=0.1) == []
    assert abs(loudest_near(heard(output), 9600)) <= 1
    assert abs(loudest_near(heard_by_ffmpeg(output), 9600)) <= 1
    merged(video(name), sound, output, start_offset=-0.05)
    assert abs(loudest_near(heard(output), 2400)) <= 1


def test_a_shorter_sound_is_followed_by_silence(video: Make, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert merged(video("a.mp4"), wav(tone(0.4)), output) == []
    sound = heard(output)
    assert sound.shape == (1, RATE), "mono stays mono"
    assert level(sound, 0.1, 0.3) > 0.3
    assert level(sound, 0.5, 1.0) < 1e-4


def test_a_longer_sound_is_cut_and_the_result_says_so(video: Make, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert merged(video("a.mp4"), wav(tone(3, channels=2)), output) == ["audio_cut"]
    assert heard(output).shape == (2, RATE)
    assert merged(video("a.mp4"), wav(tone(1)), output) == []
    assert merged(video("a.mp4"), wav(tone(0.9)), output, start_offset=0.5) == ["audio_cut"]


def test_a_sound_that_would_begin_too_late_is_not_heard_and_the_result_says_so(video: Make, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    assert merged(video("a.mp4"), wav(tone(1)), output, start_offset=7) == ["audio_unheard"]
    assert not np.abs(heard(output)).max()


@pytest.mark.parametrize("offset", [7, -3])
def test_an_offset_that_leaves_no_sound_is_told_of_the_field_that_says_it(
    video: Make, tmp_path: Path, offset: float
) -> None:
    request = MergeAudioVideo(video_url="v", audio_url="a", start_offset=offset)
    sound = read_header(wav(tone(1)), ("audio_url",), Marks())
    told: list[InvalidRequest | ResultWarning] = []
    try:
        told += merge(opened(video("a.mp4").read_bytes()), sound, request, tmp_path / "out.mp4", Marks())
    except InvalidRequest as error:
        told.append(error)
    assert [each.loc for each in told] == [("start_offset",)]


def test_the_sound_may_come_from_a_video(video: Make, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    merged(video("a.mp4"), video("loud.mp4").read_bytes(), output)
    assert level(heard(output), 0.2, 0.8) > 0.05


def test_a_codec_that_mp4_does_not_have_is_refused_by_its_name(video: Make, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVideo, match="found vp8") as told:
        merged(video("vp8.webm"), wav(tone(1)), tmp_path / "out.mp4")
    assert told.value.loc == ("video_url",)
    assert not list(tmp_path.iterdir())


def test_a_sound_that_is_damaged_is_named_and_nothing_is_left(video: Make, tmp_path: Path) -> None:
    sound = coded(tone(4, channels=2), tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").unlink()
    changed = bytearray(sound)
    changed[len(sound) // 8 : len(sound) // 8 + 64] = bytes(64)
    with pytest.raises(JobError) as told:
        merged(video("a.mp4"), bytes(changed), tmp_path / "out.mp4")
    assert told.value.loc == ("audio_url",)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_no_fault_of_the_video(video: Make, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(OutputFailed, match="could not be written: File too large"):
            merged(video("a.mp4"), wav(tone(0.5)), tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_a_sound_that_is_damaged_on_the_way_is_told_at_its_place(video: Make, tmp_path: Path) -> None:
    sound = bytearray(coded(tone(1), tmp_path / "a.flac").read_bytes())
    middle = len(sound) // 2
    sound[middle : middle + 4000] = bytes(4000)
    with pytest.raises(SoundDamaged) as told:
        merged(video("a.mp4"), bytes(sound), tmp_path / "out.mp4")
    assert told.value.loc == ("audio_url",)


@pytest.mark.parametrize("name", ["hevc.mp4", "vp9.webm"])
def test_a_video_whose_copy_is_none_is_told_as_damaged(video: Make, tmp_path: Path, name: str) -> None:
    data = bytearray(video(name).read_bytes())
    if name == "hevc.mp4":
        at = data.index(b"hvcC") + 4
        data[at : at + 40] = b"\xff" * 40
    else:  # hidden frames without one that is shown
        packet = units(video(name))[5]
        at = data.index(packet)
        data[at : at + len(packet)] = bytes([packet[0] & ~2]) + packet[1:]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(VideoDamaged) as told:
        merged(tmp_path / name, wav(tone(0.5)), tmp_path / "out.mp4")
    assert told.value.loc == ("video_url",)
    assert not (tmp_path / "out.mp4").exists()
