"""Odd, damaged and hostile sounds: the right sound, or a clear error at their place in the request."""

import os
import struct
import subprocess
import sys
import wave
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest

from protocol.schema import AudioTrack
from renderer import render
from renderer.errors import JobError, SoundDamaged, UnsupportedSound
from renderer.media.sound.decode import Reading, read_header
from renderer.media.sound.mix import Placed
from renderer.pictures.marks import Marks
from tests.media.sound.made import RATE, Sound, clicks, coded, ffmpeg, level, still, tone, wav

SECOND = tone(1)


def decoded(data: bytes) -> tuple[Sound, Reading]:
    reading = Reading(read_header(data, ("audio", 0, "url"), Marks()), Marks())
    return np.concatenate(list(reading), axis=1), reading


def is_second(sound: Sound) -> bool:
    """Whether this is the tone, by its length and level."""
    return abs(sound.shape[1] - RATE) < 3000 and abs(np.sqrt(np.mean(sound**2)) - 0.354) < 0.02


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return the bytes of the tone in the format of a name."""
    directory = tmp_path_factory.mktemp("sounds")

    def of(name: str, *options: str, sound: Sound = SECOND) -> bytes:
        path = directory / name
        if not path.exists():
            coded(sound, path, *options)
        return path.read_bytes()

    return of


def id3(size: int) -> bytes:
    digits = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + digits + bytes(size)


def test_a_tag_of_twenty_megabytes_is_passed_over(files):
    assert is_second(decoded(id3(20 << 20) + files("a.mp3"))[0])
    assert is_second(decoded(id3(100) + id3(300) + files("a.aac"))[0])


def test_variable_bit_rates_without_a_header_do_not_change_the_length(files):
    data = files("vbr.mp3", "-q:a", "4", "-write_xing", "0")
    assert is_second(decoded(data)[0])


@pytest.mark.parametrize("size", [0, 100, 0x7FFFFFF0, 0xFFFFFFFF], ids=["none", "less", "more", "endless"])
def test_a_header_that_lies_about_the_length_is_followed_as_far_as_there_is_sound(size):
    if size == 100:
        assert decoded(wav(SECOND, data_bytes=size))[0].shape[1] == 25
        return
    assert is_second(decoded(wav(SECOND, data_bytes=size))[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus", "a.webm", "a.aac"])
def test_a_file_that_was_cut_short_is_heard_as_far_as_it_goes(files, name):
    data = files(f"long_{name}", sound=tone(4))
    sound, reading = decoded(data[: len(data) * 6 // 10])
    assert 0.9 * RATE < sound.shape[1] < 3 * RATE  # whole pages of Ogg
    assert np.sqrt(np.mean(sound[:, 4000:20_000] ** 2)) == pytest.approx(0.354, abs=0.02)
    if name in {"a.wav", "a.flac", "a.webm"}:
        assert reading.ends_early_s == pytest.approx(sound.shape[1] / RATE, abs=0.1)


def test_a_file_whose_index_was_cut_off_is_refused(files):
    data = files("a.m4a")
    with pytest.raises(SoundDamaged, match="expected a whole sound"):
        decoded(data[: len(data) * 6 // 10])


def test_a_file_that_is_damaged_in_the_middle_is_refused(tmp_path):
    data = bytearray(files_of_flac())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    with pytest.raises(SoundDamaged, match=r"damaged at about \d\.\d s"):
        decoded(bytes(data))
    (tmp_path / "a.flac").write_bytes(data)
    request = {"images": [{"url": still(tmp_path), "frames": 60}], "audio": [{"url": str(tmp_path / "a.flac")}]}
    with pytest.raises(SoundDamaged) as refused:
        render(request, tmp_path / "video.mp4")
    assert refused.value.loc == ("audio", 0, "url")


def files_of_flac() -> bytes:
    noise = np.random.default_rng(5).standard_normal((1, 2 * RATE)).astype(np.float32) * 0.1
    return ffmpeg("-i", "-", "-f", "flac", "-", stdin=wav(noise))


@pytest.mark.parametrize("rate", [8000, 22_050, 96_000, 192_000, 384_000])
def test_rates_are_brought_to_48_kilohertz(rate):
    sound, _ = decoded(wav(clicks(1, [rate // 4, rate // 2], rate=rate), rate))
    assert sound.shape[1] == RATE
    for place in (rate // 4, rate // 2):
        there = round(place / rate * RATE)
        assert np.abs(sound[0, there - 3000 : there + 3000]).argmax() == 3000


@pytest.mark.parametrize("rate", [0, 1, 3999, 400_000, 2**31 - 1])
def test_other_rates_are_refused(rate):
    with pytest.raises((UnsupportedSound, SoundDamaged)):
        decoded(wav(SECOND[:, :4000], rate))


@pytest.mark.parametrize("channels", range(1, 9))
def test_up_to_eight_channels_are_mixed_down(channels):
    sound, _ = decoded(wav(tone(0.5, channels=channels)))
    assert len(sound) == min(channels, 2)
    assert np.abs(sound).max() > 0.3


@pytest.mark.parametrize("channels", [9, 64, 0])
def test_more_channels_are_refused(channels):
    data = bytearray(wav(tone(0.1, channels=max(channels, 1))))
    data[22:24] = struct.pack("<H", channels)
    with pytest.raises((UnsupportedSound, SoundDamaged)):
        decoded(bytes(data))


@pytest.mark.parametrize(
    "bits", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw"]
)
def test_samples_of_each_kind_are_read(bits, tmp_path):
    assert is_second(decoded(coded(SECOND, tmp_path / "a.wav", "-c:a", bits).read_bytes())[0])


def test_floats_that_are_no_numbers_become_silence_and_others_are_bounded():
    sound = SECOND.copy()
    sound[0, 100:200] = np.nan
    sound[0, 300] = np.inf
    sound[0, 400] = 1e30
    found, _ = decoded(wav(sound))
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= 64
    assert not found[0, 100:200].any()


def test_a_cover_is_no_picture_to_decode(files, tmp_path):
    (tmp_path / "a.mp3").write_bytes(files("a.mp3"))
    cover = ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", "-f", "mjpeg", "-")
    (tmp_path / "cover.jpg").write_bytes(cover)
    ffmpeg("-i", tmp_path / "a.mp3", "-i", tmp_path / "cover.jpg", "-map", "0", "-map", "1", "-c", "copy",
           tmp_path / "b.mp3")  # fmt: skip
    assert is_second(decoded((tmp_path / "b.mp3").read_bytes())[0])


def test_the_sound_of_a_video_is_read_and_begins_late_where_it_does(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(clicks(1, [24_000])))
    for name in ("a.mp4", "a.mov", "a.mkv"):
        ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:r=10:d=2", "-itsoffset", "0.5", "-i", tmp_path / "a.wav",
               "-c:v", "libx264", "-c:a", "aac", tmp_path / name)  # fmt: skip
        sound, _ = decoded((tmp_path / name).read_bytes())
        assert abs(int(np.abs(sound[0]).argmax()) - 48_000) <= (0 if name != "a.mkv" else 48)


def test_a_video_without_sound_is_refused(tmp_path):
    ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64:d=1", "-c:v", "libx264", tmp_path / "a.mp4")
    with pytest.raises(UnsupportedSound, match="found a file without sound"):
        decoded((tmp_path / "a.mp4").read_bytes())


def test_dts_that_pretends_to_be_samples_is_refused_by_name(tmp_path):
    """A player that has no decoder for it makes a roar of it."""
    coded(tone(1, channels=2), tmp_path / "a.dts", "-strict", "-2", "-c:a", "dca", "-b:a", "1411200")
    hidden = (tmp_path / "a.dts").read_bytes()
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, 44100, 0, "NONE", ""))
        file.writeframes(hidden[: len(hidden) // 4 * 4])
    with pytest.raises(UnsupportedSound, match="found a sound coded as dts"):
        decoded((tmp_path / "a.wav").read_bytes())


def test_a_codec_that_is_not_in_the_table_is_refused_by_name(tmp_path):
    for name, codec in (("a.mov", "ac3"), ("b.wav", "adpcm_ms")):
        data = coded(SECOND, tmp_path / name, "-c:a", codec).read_bytes()
        with pytest.raises(UnsupportedSound, match=f"found a sound coded as {codec}"):
            decoded(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "an empty file"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n", "a playlist"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "a playlist"),
        (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "an XML document"),
        (b"<!doctype html><html></html>", "an HTML page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        (b"FORM\0\0\0\x10AIFF" + bytes(100), "AIFF"),
        (bytes(1000), "1000 bytes in an unknown format"),
        (b"MThd" + bytes(20), "MIDI"),
    ],
)
def test_what_is_no_sound_is_refused_by_its_name(data, words):
    with pytest.raises(UnsupportedSound, match=words):
        decoded(data)


def test_a_movie_that_names_another_file_gets_nothing_from_there(tmp_path):
    """QuickTime's data references may lie outside; the atom below names a file with the samples."""
    coded(SECOND, tmp_path / "a.mov", "-c:a", "pcm_s16le")
    data = (tmp_path / "a.mov").read_bytes()
    secret = tmp_path / "secret"
    secret.write_bytes(data)
    place = data.index(b"dref")
    url = str(secret).encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(url), b"url ", 0) + url
    assert data[place + 12 : place + 24][4:8] in {b"url ", b"alis"}
    old = struct.unpack_from(">I", data, place + 12)[0]
    quiet = data.index(b"mdat") + 4
    data = data[:quiet] + bytes(2 * RATE) + data[quiet + 2 * RATE :]
    changed = bytearray(data[: place + 12] + entry + data[place + 12 + old :])
    for name in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(name) - 4
        struct.pack_into(">I", changed, at, struct.unpack_from(">I", data, at)[0] + len(entry) - old)
    try:
        sound, _ = decoded(bytes(changed))
    except JobError:
        return
    assert not sound.any()


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_file_is_heard_or_refused(files, seed):
    import random

    from tests.pictures.fuzz import damaged

    choose = random.Random(seed)
    for name in ("a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus", "a.m4a", "a.webm", "a.aac"):
        try:
            sound, _ = decoded(damaged(files(name), choose))
        except JobError:
            continue
        assert np.isfinite(sound).all()


@pytest.mark.parametrize("order", ["FR+FL", "FC+LFE+FL+FR"])
def test_channels_that_are_named_one_by_one_harm_nothing(order, tmp_path):
    """PyAV frees such a layout twice: a process that decodes one without care dies, or worse."""
    channels = order.count("+") + 1
    source = tmp_path / "a.mov"
    same = "|".join(f"c{number}=c0" for number in range(channels))
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=1", "-af", f"pan={order}|{same}", "-c:a", "pcm_s16le", source)
    assert b"chan" in source.read_bytes()
    program = (
        "import sys; from renderer.pictures.marks import Marks\n"
        "from renderer.media.sound.decode import Reading, read_header\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "for _ in range(5):\n"
        "    file = read_header(data, ('audio', 0, 'url'), Marks())\n"
        "    print(sum(piece.shape[1] for piece in Reading(file, Marks())))"
    )
    strict = {**os.environ, "MALLOC_CHECK_": "3"}
    told = subprocess.run(
        [sys.executable, "-c", program, source], check=False, env=strict, capture_output=True, text=True
    )
    assert (told.returncode, told.stdout.split()) == (0, ["48000"] * 5)


def test_a_compressed_index_is_not_unpacked(files):
    data = files("a.mov")
    with pytest.raises(UnsupportedSound, match="without sound"):
        decoded(data.replace(b"trak", b"cmov"))


def test_xhe_aac_is_refused(files):
    data = files("a.m4a")
    place = data.index(b"\x05\x80\x80\x80\x05\x11") + 5  # DecoderSpecificInfo
    with pytest.raises(UnsupportedSound, match="xHE-AAC"):
        decoded(data[:place] + bytes([0xF9]) + data[place + 1 :])


@pytest.mark.parametrize("gap_s", [1, 10**6])
def test_a_gap_in_a_video_is_silence_of_its_length(gap_s, tmp_path):
    rate = 44_100
    half = tone(0.5, rate=rate)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout="mono")
        for begin in (0, rate // 2 + gap_s * rate):
            frame = av.AudioFrame.from_ndarray(half, "flt", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(stream.encode(frame))
    file = read_header((tmp_path / "a.mkv").read_bytes(), ("audio", 0, "url"), Marks())
    placed = Placed(AudioTrack(url="a"), file, 2 * RATE, Marks())
    sound = np.concatenate(list(placed.pieces()), axis=1)
    assert sound.shape[1] == 2 * RATE
    assert level(sound, 0.1, 0.45) == pytest.approx(0.354, rel=0.01)
    assert level(sound, 0.51, 1.49) == 0
    assert level(sound, 1.51, 1.95) == (pytest.approx(0.354, rel=0.01) if gap_s == 1 else 0)
