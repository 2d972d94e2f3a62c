"""A table of odd sounds: headers that lie, files without samples, tags, covers, files in files and playlists.

Each is heard for as long as it says here, or refused with these words; what is heard at all is the tone.
"""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from renderer import render
from renderer.errors import JobError
from tests.media.sound.made import RATE, coded, ffmpeg, heard, still, tone, wav
from tests.media.sound.test_odd_files import decoded, id3

SECOND = tone(1)
CODINGS = {
    "m4a": (),
    "mp3": (),
    "flac": (),
    "ogg": ("-c:a", "libvorbis"),
    "opus": (),
    "mka": ("-c:a", "libvorbis"),
    "webm": (),
    "aac": (),
    "mov": ("-c:a", "pcm_s16le"),
}
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """The tone in each coding, and with a cover that comes before it."""
    directory = tmp_path_factory.mktemp("sounds")
    made = {"wav": wav(SECOND)}
    for name, options in CODINGS.items():
        made[name] = coded(SECOND, directory / f"a.{name}", *options).read_bytes()
    (directory / "cover.jpg").write_bytes(
        ffmpeg("-f", "lavfi", "-i", "color=red:s=64x64", "-frames:v", "1", "-f", "mjpeg", "-")
    )
    for name in ("m4a", "flac", "mka"):
        out = directory / f"covered.{name}"
        inputs = ("-i", directory / "cover.jpg", "-i", directory / f"a.{name}", "-map", "0", "-map", "1")
        ffmpeg(*inputs, "-c", "copy", "-disposition:v:0", "attached_pic", out)
        made[f"covered {name}"] = out.read_bytes()
    made["mp3 in wav"] = coded(SECOND, directory / "b.wav", "-c:a", "libmp3lame").read_bytes()
    return made


def patched(data: bytes, name: bytes, offset: int, layout: str, *values: float) -> bytes:
    """Change what stands so many bytes after a name."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, data.index(name) + offset, *values)
    return bytes(changed)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def nested(name: bytes, depth: int) -> bytes:
    content = b""
    for _ in range(depth):
        content = box(name, content)
    return content


def crc_of(page: bytes) -> int:
    """The checksum of an Ogg page (RFC 3533, 6): CRC-32 with 0x04c11db7, most significant bit first."""
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return value


def flac_of(data: bytes, samples: int, rate: int = RATE) -> bytes:
    """Let STREAMINFO (RFC 9639, 8.2) say another length or rate; it has one channel and keeps its bits."""
    bits = int.from_bytes(data[18:26], "big") >> 36 & 0xFF
    return data[:18] + (rate << 44 | bits << 36 | samples).to_bytes(8, "big") + data[26:]


def last_page(data: bytes, granule: int) -> bytes:
    """Let the last page of an Ogg file end elsewhere."""
    at = data.rindex(b"OggS")
    page = bytearray(data[at:])
    struct.pack_into("<qII", page, 6, granule, *struct.unpack_from("<II", page, 14))
    page[22:26] = bytes(4)
    page[22:26] = struct.pack("<I", crc_of(page))
    return data[:at] + bytes(page)


def until(data: bytes, mark: bytes, count: int = 1) -> bytes:
    at = -1
    for _ in range(count):
        at = data.index(mark, at + 1)
    return data[:at]


IN_LATIN_1 = b"LIST" + struct.pack("<I", 16) + b"INFOIART" + struct.pack("<I", 4) + b"J\xfcrg"
HEARD: dict[str, tuple[float, Callable[[Files], bytes]]] = {
    "an MP4 whose mvhd says 12 hours": (1, lambda of: patched(of["m4a"], b"mvhd", 20, ">I", 2**31 - 1)),
    "an MP4 whose tkhd says 24 hours": (1, lambda of: patched(of["m4a"], b"tkhd", 24, ">I", 2**32 - 2)),
    "an MP4 whose mdhd says nothing": (1, lambda of: patched(of["m4a"], b"mdhd", 20, ">I", 0)),
    "an MP4 whose mdhd says 24 hours": (1, lambda of: patched(of["m4a"], b"mdhd", 20, ">I", 2**32 - 2)),
    "an MP4 whose edit list is longer than its sound": (1, lambda of: patched(of["m4a"], b"elst", 12, ">I", 500_000)),
    "an MP4 whose edit list is half as long": (0.5, lambda of: patched(of["m4a"], b"elst", 12, ">I", 24_000)),
    "an MP4 whose table counts 2^32 samples": (1, lambda of: patched(of["m4a"], b"stts", 12, ">I", 2**32 - 1)),
    "an AAC in MP4 whose entry says 1 Hz": (1, lambda of: patched(of["m4a"], b"mp4a", 28, ">I", 1 << 16)),
    "a FLAC that does not say its length": (1, lambda of: flac_of(of["flac"], 0)),
    "a FLAC that says 16 days": (1, lambda of: flac_of(of["flac"], 2**36 - 1)),
    "an MP3 whose header says a year": (1, lambda of: patched(of["mp3"], b"Info", 8, ">I", 2**31 - 1)),
    "an MP3 whose header says one frame": (1, lambda of: patched(of["mp3"], b"Info", 8, ">I", 1)),
    "a WebM that says 10^12 ms": (1, lambda of: patched(of["webm"], b"\x44\x89\x88", 3, ">d", 1e12)),
    "a WebM whose length is no number": (1, lambda of: patched(of["webm"], b"\x44\x89\x88", 3, ">d", float("nan"))),
    "an Ogg that says 3 million years": (1, lambda of: last_page(of["ogg"], 2**62)),
    "an Opus that says 3 million years": (1, lambda of: last_page(of["opus"], 2**62)),
    "an Ogg that ends before it begins": (1, lambda of: last_page(of["ogg"], -5)),
    "a WAV without an alignment": (1, lambda of: patched(of["wav"], b"fmt ", 20, "<H", 0)),
    "a WAV with its sound before its format": (1, lambda of: of["wav"][:12] + of["wav"][36:] + of["wav"][12:36]),
    "a WAV of 20,000 parts": (1, lambda of: of["wav"][:12] + b"junk\0\0\0\0" * 20_000 + of["wav"][12:]),
    "a tag before a FLAC": (1, lambda of: id3(5000) + of["flac"]),
    "a tag before a WAV": (1, lambda of: id3(5000) + of["wav"]),
    "a tag before an Ogg": (1, lambda of: id3(5000) + of["ogg"]),
    "a tag before an MP4": (1, lambda of: id3(5000) + of["m4a"]),
    "an old tag after an MP3": (1, lambda of: of["mp3"] + b"TAG" + bytes(125)),
    "a tag of another kind after an MP3": (
        1,
        lambda of: of["mp3"] + b"APETAGEX" + struct.pack("<II", 2000, 32) + bytes(40),
    ),
    "noise after a WAV": (1, lambda of: of["wav"] + b"\xff\xfb\x90\0" * 400),
    "noise after a FLAC": (1, lambda of: of["flac"] + bytes(range(256)) * 12),
    "noise after an MP4": (1, lambda of: of["m4a"] + bytes(range(256)) * 12),
    "noise after an Ogg": (1, lambda of: of["ogg"] + bytes(range(256)) * 12),
    "an MP4 with a cover": (1, lambda of: of["covered m4a"]),
    "a FLAC with a cover": (1, lambda of: of["covered flac"]),
    "a Matroska with a cover": (1, lambda of: of["covered mka"]),
    "a WAV whose artist is named in Latin-1": (1, lambda of: of["wav"].replace(b"data", IN_LATIN_1 + b"data", 1)),
    "two MP3s, tags and all": (2, lambda of: of["mp3"] + of["mp3"]),
    "two MP3s with an old tag between them": (2, lambda of: of["mp3"] + b"TAG" + bytes(125) + of["mp3"]),
    "two FLACs": (2, lambda of: of["flac"] + of["flac"]),
    "two WAVs, of which the first says where it ends": (1, lambda of: of["wav"] + of["wav"]),
    "two MP4s, of which the second is no part of the first": (1, lambda of: of["m4a"] + of["m4a"]),
}


@pytest.mark.parametrize("kind", HEARD)
def test_what_has_sound_is_heard(files: Files, kind: str) -> None:
    seconds, make = HEARD[kind]
    sound, _ = decoded(make(files))
    assert sound.shape[1] == pytest.approx(seconds * RATE, abs=4000)
    assert np.sqrt(np.mean(sound**2)) == pytest.approx(0.354, abs=0.025)


REFUSED: dict[str, tuple[str, Callable[[Files], bytes]]] = {
    "PCM of 1 Hz in QuickTime": ("1 samples a second", lambda of: patched(of["mov"], b"sowt", 28, ">I", 1 << 16)),
    "64 channels in QuickTime": ("64 channels", lambda of: patched(of["mov"], b"sowt", 20, ">H", 64)),
    "no channels in QuickTime": ("without samples", lambda of: patched(of["mov"], b"sowt", 20, ">H", 0)),
    "a FLAC that says 1 Hz": ("damaged", lambda of: flac_of(of["flac"], RATE, rate=1)),
    "an MP4 whose samples lie behind its end": (
        "without samples",
        lambda of: patched(of["m4a"], b"stco", 12, ">I", 2**31 - 1),
    ),
    "an MP4 whose samples are its index": ("without samples", lambda of: patched(of["m4a"], b"stco", 12, ">I", 0)),
    "an MP4 of 2^31 samples": ("damaged", lambda of: patched(of["m4a"], b"stsz", 12, ">I", 2**31 - 1)),
    "an MP4 whose samples are 2 GB each": (
        "without samples",
        lambda of: patched(of["m4a"], b"stsz", 8, ">I", 2**31 - 1),
    ),
    "an MP4 whose edit begins after its sound": (
        "without samples",
        lambda of: patched(of["m4a"], b"elst", 16, ">i", 2**31 - 1),
    ),
    "a WAV of no samples": ("without samples", lambda _: wav(SECOND[:, :0])),
    "a WAV of no bits": ("something unknown", lambda of: patched(of["wav"], b"fmt ", 22, "<H", 0)),
    "a WAV whose format is 2 GB long": ("damaged", lambda of: patched(of["wav"], b"fmt ", 4, "<I", 2**31 - 1)),
    "a FLAC of nothing but its header": ("damaged|without", lambda of: of["flac"][:42]),
    "an Ogg of nothing but its headers": ("damaged", lambda of: until(of["ogg"], b"OggS", 3)),
    "an Opus of nothing but its headers": ("damaged", lambda of: until(of["opus"], b"OggS", 3)),
    "a Matroska of nothing but its header": ("damaged", lambda of: until(of["mka"], b"\x1f\x43\xb6\x75")),
    "an MP4 of nothing but its brand": ("damaged", lambda of: of["m4a"][: struct.unpack_from(">I", of["m4a"])[0]]),
    "an AAC of nothing but a frame's header": ("without samples", lambda of: of["aac"][:7]),
    "a tag and nothing else": ("damaged", lambda _: id3(1000)),
    "a tag that says 20 MB before 9 KB": ("damaged", lambda of: id3(20 << 20)[:10] + bytes(1000) + of["mp3"]),
    "an MP4 in the samples of another": ("damaged", lambda of: box(b"ftyp", b"isom\0\0\0\0") + box(b"mdat", of["m4a"])),
    "3000 boxes in one another": ("damaged", lambda _: nested(b"moov", 3000)),
    "3000 segments in one another": (
        "damaged",
        lambda of: of["mka"][:40] + (b"\x18\x53\x80\x67\x01" + b"\xff" * 7) * 3000,
    ),
    "an MP3 in a WAV": ("coded as mp3$", lambda of: of["mp3 in wav"]),
    "a WAV that is packed": ("found a gzip file", lambda of: gzip.compress(of["wav"])),
    "two Oggs, the second with tables of its own": ("changes its coding", lambda of: of["ogg"] + of["ogg"]),
    "noise before an MP3": ("unknown format", lambda of: bytes(500) + of["mp3"]),
    "a playlist of Winamp's": ("a playlist", lambda _: b"[playlist]\nFile1=file:///etc/passwd\n"),
    "a playlist with a mark of its encoding": ("a playlist", lambda _: b"\xef\xbb\xbf#EXTM3U\n/etc/passwd\n"),
    "a playlist of bare names": ("unknown format", lambda _: b"/etc/passwd\n"),
    "a playlist in XML": ("XML", lambda _: b'<?xml version="1.0"?><playlist xmlns="http://xspf.org/ns/0/"></playlist>'),
    "a playlist of Windows Media's": (
        "unknown format",
        lambda _: b'<asx version="3.0"><ref href="file:///etc/passwd"/></asx>',
    ),
    "a cue sheet": ("unknown format", lambda _: b'FILE "/etc/passwd" WAVE\n  TRACK 01 AUDIO\n'),
    "a session's description": (
        "unknown format",
        lambda _: b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n",
    ),
    "a QuickTime movie that names another": ("without sound", lambda _: naming_another()),
}


def naming_another() -> bytes:
    url = b"file:///etc/passwd\0"
    return box(b"moov", box(b"rmra", box(b"rmda", box(b"rdrf", b"\0\0\0\0url " + struct.pack(">I", len(url)) + url))))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_none_is_refused_at_its_place(files: Files, kind: str, tmp_path: Path) -> None:
    words, make = REFUSED[kind]
    (tmp_path / "sound").write_bytes(make(files))
    request = {"images": [{"url": still(tmp_path), "frames": 24}], "audio": [{"url": str(tmp_path / "sound")}]}
    with pytest.raises(JobError, match=words) as refused:
        render(request, tmp_path / "video.mp4")
    assert refused.value.loc == ("audio", 0, "url")
    assert not (tmp_path / "video.mp4").exists()


def test_a_sound_in_two_pieces_is_heard_to_its_end_in_a_video(files: Files, tmp_path: Path) -> None:
    (tmp_path / "sound").write_bytes(files["mp3"] + files["mp3"])
    request = {"images": [{"url": still(tmp_path)}], "length": "audio", "audio": [{"url": str(tmp_path / "sound")}]}
    assert 48 <= render(request, tmp_path / "video.mp4").frames <= 50
    assert np.sqrt(np.mean(heard(tmp_path / "video.mp4")[:, -RATE // 2 :] ** 2)) > 0.25
