"""Odd, damaged and hostile videos: the right answer, or a clear error at their place in the request."""

import signal
import struct

import pytest

from protocol.errors import Loc
from renderer.errors import (
    DecodeFailed,
    ImageTooLarge,
    JobError,
    LimitExceeded,
    SoundDamaged,
    UnsupportedVideo,
    VideoDamaged,
    VideoTimedOut,
)
from renderer.media.video import NoVideo
from renderer.pictures.marks import Marks
from tests.media.made import Make, edited, opened
from tests.media.sound.made import coded, ffmpeg, tone

REFUSED = {
    "an empty file": b"",
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "a playlist that begins otherwise": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "a picture in boxes": b"\0\0\0\x18ftypheic" + bytes(64),
    "AVI": b"RIFF\0\0\1\0AVI LIST" + bytes(64),
    "a stream without a container": b"\0\0\0\1\x67" + bytes(64),
    "a transport stream": b"\x47" + bytes(187) + b"\x47" + bytes(187),
    "text": b"<?xml version='1.0'?><MPD></MPD>" + bytes(64),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_video_reaches_no_demuxer(what: str) -> None:
    with pytest.raises(UnsupportedVideo, match="found ") as told:
        opened(REFUSED[what])
    assert told.value.loc == ("video_url",)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.mp4", "fast.mp4"])
def test_an_mp4_that_was_cut_short_is_refused(video: Make, name: str, share: float) -> None:
    options = ("-i", str(video("a.mp4")), "-c", "copy", "-movflags", "+faststart")
    data = video(name, *options).read_bytes() if name == "fast.mp4" else video(name).read_bytes()
    with pytest.raises((VideoDamaged, NoVideo)) as told:
        opened(data[: int(len(data) * share)]).frame("last")
    assert told.value.loc == ("video_url",)


@pytest.mark.parametrize("name", ["a.mkv", "vp9.webm"])
def test_matroska_that_was_cut_short_is_refused_and_a_recording_that_tells_no_size_is_read(
    video: Make, name: str
) -> None:
    data = video(name).read_bytes()
    with pytest.raises(VideoDamaged, match="cut short") as told:
        _ = opened(data[: int(len(data) * 0.8)]).survey
    assert told.value.loc == ("video_url",)
    at = data.index(b"\x18\x53\x80\x67") + 4
    assert data[at] == 1  # a size of eight bytes
    recording = data[:at] + b"\x01" + b"\xff" * 7 + data[at + 8 :]
    assert 0 < opened(recording[: int(len(data) * 0.8)]).survey.frames < 25


def test_a_file_that_an_mp4_names_in_place_of_its_own_is_not_opened(video: Make, tmp_path) -> None:
    """An alias is what libavformat would follow, if it were told to."""
    elsewhere = tmp_path / "elsewhere.mp4"
    elsewhere.write_bytes(video("a.mp4").read_bytes())
    data = bytearray(elsewhere.read_bytes())
    path = str(elsewhere).encode()
    at = data.index(b"\0\0\0\x0curl \0\0\0\1")
    names = bytes(10) + b"\4disk" + bytes(35) + b"\6passwd" + bytes(73) + b"\0\1\0\1" + bytes(16)
    tags = struct.pack(">HH", 2, len(path)) + path + bytes(len(path) % 2) + b"\xff\xff\0\0"
    alias = b"alis" + bytes(4) + names + tags
    alias = struct.pack(">I", len(alias) + 4) + alias
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = data.index(box) - 4
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + len(alias) - 12)
    data[at : at + 12] = alias
    with pytest.raises(VideoDamaged, match="without frames"):
        _ = opened(bytes(data)).survey


LIES = {  # fields of the index, and what is written there
    "two thousand million samples": {"stsz": (4, ">II", 1, 1 << 31)},
    "a million samples in a chunk": {"stsz": (4, ">II", 1, 1 << 20), "stsc": (8, ">III", 1, 1 << 20, 1)},
    "a frame of hours": {"stts": (8, ">II", 25, 0x7FFFFFFF)},
}
HARMLESS = {
    "no ticks in a second": {"mdhd": (12, ">I", 0)},
    "edits without end": {"elst": (4, ">I", 0xFFFFFFFF)},
    "no time between frames": {"stts": (8, ">II", 25, 0)},
}


@pytest.mark.parametrize("what", [*LIES, *HARMLESS])
def test_an_index_that_lies_is_refused_or_harmless(video: Make, what: str) -> None:
    data = bytearray(video("a.mp4").read_bytes())
    for box, (at, form, *values) in (LIES | HARMLESS)[what].items():
        struct.pack_into(form, data, data.index(box.encode()) + 4 + at, *values)
    if what in LIES:
        with pytest.raises(JobError) as told:
            opened(bytes(data)).frame("last")
        assert told.value.loc == ("video_url",)
    else:
        assert opened(bytes(data)).frame("last").width == 64


KEY = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "0f" * 16, "-encryption_kid", "a7" * 16)


def test_an_encrypted_mp4_is_refused_as_such(video: Make) -> None:
    data = video("locked.mp4", "-i", str(video("a.mp4")), "-c", "copy", *KEY).read_bytes()
    with pytest.raises(UnsupportedVideo, match="encrypted"):
        _ = opened(data).survey


def test_an_encrypted_webm_is_refused_as_such(video: Make) -> None:
    data = video("vp9.webm").read_bytes()
    with pytest.raises(UnsupportedVideo, match="encrypted"):
        _ = opened(locked(data)).survey


def locked(webm: bytes) -> bytes:
    """Return the WebM as encrypted by the WebM encryption specification, as far as its header says."""
    encryption = _element(b"\x50\x35", _element(b"\x47\xe1", b"\x05") + _element(b"\x47\xe2", b"k" * 16))
    encoding = _element(b"\x62\x40", _element(b"\x50\x32", b"\x01") + _element(b"\x50\x33", b"\x01") + encryption)
    added = _element(b"\x6d\x80", encoding)
    index, at = webm.index(b"\x16\x54\xae\x6b"), webm.index(b"\x18\x53\x80\x67")
    tracks = webm.index(b"\x16\x54\xae\x6b", index + 1)
    begin, size = _content(webm, tracks + 4)
    entry, entry_size = _content(webm, begin + 1)
    inside = _element(b"\xae", webm[entry : entry + entry_size] + added) + webm[entry + entry_size : begin + size]
    recording = webm[:at] + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + webm[at + 12 : tracks]
    return recording + _element(b"\x16\x54\xae\x6b", inside) + webm[begin + size :]


def _element(name: bytes, content: bytes) -> bytes:
    return name + (len(content) | 1 << 56).to_bytes(8) + content


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return where an element's content begins, and its size, from where its size is told."""
    width = 9 - data[at].bit_length()
    return at + width, int.from_bytes(data[at : at + width]) & ((1 << 7 * width) - 1)


def test_damage_before_the_frame_is_refused_and_behind_it_does_not_matter(video: Make) -> None:
    data = bytearray(video("a.mp4").read_bytes())
    packets = opened(bytes(data)).survey.packets
    begin = data.index(b"mdat") + 4 + sum(packet.size_bytes for packet in packets[:-2])
    data[begin : begin + 40] = bytes(40)
    assert opened(bytes(data)).frame("first").pts == 0
    with pytest.raises(VideoDamaged):
        opened(bytes(data)).frame("last")


def test_a_sound_without_video_is_told_as_such(tmp_path) -> None:
    with pytest.raises(NoVideo, match="a file without video"):
        _ = opened(coded(tone(0.5), tmp_path / "a.m4a").read_bytes()).survey


def test_a_cover_is_no_video(video: Make, tmp_path) -> None:
    sound = coded(tone(0.5), tmp_path / "a.m4a")
    cover = ("-f", "lavfi", "-i", "color=red:s=32x32:d=0.04:r=25", "-c:v", "mjpeg", "-frames:v", "1")
    ffmpeg("-i", sound, *cover, "-c:a", "copy", "-disposition:v", "attached_pic", tmp_path / "b.m4a")
    with pytest.raises(NoVideo):
        _ = opened((tmp_path / "b.m4a").read_bytes()).survey


def test_a_codec_beyond_the_table_is_refused_by_its_name(video: Make) -> None:
    source = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.1")
    for codec in ("mpeg4", "prores"):
        with pytest.raises(UnsupportedVideo, match=codec):
            _ = opened(video(f"{codec}.mov", *source, "-c:v", codec).read_bytes()).survey


LIMITS = {
    "pixels": ({"pictures": {"max_image_pixels": 3071}}, ImageTooLarge),
    "seconds": ({"limits": {"max_duration_s": 0.9}}, LimitExceeded),
    "frames": ({"limits": {"max_frames": 24}}, LimitExceeded),
}


@pytest.mark.parametrize("what", LIMITS)
def test_limits_are_told_with_the_setting(video: Make, what: str) -> None:
    settings, kind = LIMITS[what]
    data = video("a.mp4").read_bytes()
    with pytest.raises(kind, match=r"expected up to .*\(\w+\.max_") as told:
        opened(data, **settings).frame("first")
    assert told.value.loc == ("video_url",)


def test_a_hundred_streams_are_too_many(video: Make) -> None:
    path = video("streams.mp4", "-i", str(video("one.mp4")), *(["-map", "0:v"] * 100), "-c", "copy")
    with pytest.raises(JobError) as told:
        _ = opened(path.read_bytes()).survey
    assert told.value.loc == ("video_url",)


def test_an_edit_list_that_shows_nothing_is_damage(video: Make) -> None:
    data = edited(video("a.mp4").read_bytes(), 25, 25)
    with pytest.raises(JobError) as told:
        opened(data).frame("first")
    assert told.value.loc == ("video_url",)


@pytest.mark.parametrize(
    ("loc", "kind"),
    [(("images", 7, "url"), DecodeFailed), (("audio", 3, "url"), SoundDamaged), (("audio_url",), SoundDamaged),
     (("video_url",), VideoDamaged), (("media_url",), VideoDamaged)],
)  # fmt: skip
def test_a_decoder_that_dies_is_the_fault_of_what_it_was_given(loc: Loc, kind: type[JobError]) -> None:
    marks = Marks()
    with marks.decoding(*loc):
        [inside] = marks.inside()
    crashed, late = inside.crashed(signal.SIGSEGV), inside.timed_out(20)
    assert (crashed.loc, type(crashed), late.loc) == (loc, kind, loc)
    assert late.kind == crashed.kind
    assert (loc == ("video_url",)) <= isinstance(late, VideoTimedOut)
