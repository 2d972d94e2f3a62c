"""The table of sounds: which container a file is by its first bytes, who opens it, and which codecs are decoded.

libav opens a file with the demuxer of its container and no other, so that a playlist, or a file that names others, is
never taken for a sound. Decoders that are not in the table are never opened, those of the pictures in a video included.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from renderer.errors import UnsupportedSound
from renderer.pictures.formats import name_elsewhere
from renderer.pictures.recognise import recognise as recognise_picture

MOST_CHANNELS: Final = 8
LEAST_RATE, MOST_RATE = 4_000, 384_000

_PCM: Final = tuple(f"pcm_{kind}" for kind in ("u8", "s16le", "s24le", "s32le", "f32le", "f64le", "alaw", "mulaw"))
_PCM_BIG_ENDIAN: Final = tuple(f"pcm_{kind}" for kind in ("s8", "s16be", "s24be", "s32be", "f32be", "f64be"))


@dataclass(frozen=True, slots=True)
class Container:
    """One row of the table.

    Attributes:
        magic: matches the first bytes, after tags of the kind ID3.
        demuxer: libavformat's name.
        codecs: the names of libavcodec's decoders that are used.
        word, subtype: what descriptions call it, and the second part of its media type.
        has_times: its packets have times on a timeline that the sound may begin late in, or be absent from for a while.
        tells_length: it states how long its sound is, rather than leaving that to estimates.
    """

    name: str
    magic: re.Pattern[bytes]
    demuxer: str
    codecs: tuple[str, ...]
    word: str
    subtype: str
    has_times: bool = False
    tells_length: bool = False


def _row(
    name: str,
    magic: bytes,
    demuxer: str,
    *codecs: str,
    word: str = "",
    subtype: str = "",
    times: bool = False,
    length: bool = False,
) -> Container:
    word = word or demuxer
    return Container(name, re.compile(magic, re.DOTALL), demuxer, codecs, word, subtype or word, times, length)


CONTAINERS: Final = (
    _row("WAV", rb"(?:RIFF|RF64)....WAVE", "wav", *_PCM, length=True),
    _row("FLAC", rb"fLaC", "flac", "flac", length=True),
    _row("Ogg", rb"OggS", "ogg", "vorbis", "opus", "flac"),
    _row("AAC", rb"\xff[\xf0\xf1\xf8\xf9]", "aac", "aac"),
    _row("MP3", rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", "mp3", "mp3float", subtype="mpeg"),
    _row(
        "MP4", rb"....(?:ftyp|moov|mdat|wide|free|skip)", "mov,mp4,m4a,3gp,3g2,mj2",
        "aac", "alac", "mp3float", "opus", "flac", *_PCM, *_PCM_BIG_ENDIAN, word="mp4", times=True, length=True,
    ),
    _row(
        "Matroska or WebM", rb"\x1a\x45\xdf\xa3", "matroska,webm",
        "opus", "vorbis", "aac", "mp3float", "flac", *_PCM, word="matroska", subtype="x-matroska", times=True,
    ),
)  # fmt: skip
_MP3: Final = next(row for row in CONTAINERS if row.name == "MP3")

READ_HERE: Final = ", ".join(row.name for row in CONTAINERS[:-1]) + f", {CONTAINERS[-1].name}"

_NAMES_ELSEWHERE: Final[Mapping[str, re.Pattern[bytes]]] = {
    name: re.compile(magic, re.DOTALL)
    for name, magic in {
        "a playlist": rb"\s*(?:\xef\xbb\xbf)?(?:#EXTM3U|\[playlist\]|ffconcat\s|#EXTINF)",
        "a sound (AIFF)": rb"FORM....AIF[FC]",
        "a sound (AMR)": rb"#!AMR",
        "a sound (Windows Media)": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
        "a sound (Core Audio)": rb"caff",
        "a sound (Monkey's Audio)": rb"MAC ",
        "a sound (WavPack)": rb"wvpk",
        "a sound (AC-3)": rb"\x0b\x77",
        "a sound (Sun AU)": rb"\.snd",
        "notes (MIDI)": rb"MThd",
        "a video (MPEG transport stream)": rb"\x47.{187}\x47",
        "a video (Flash)": rb"FLV\x01",
    }.items()
}


def recognise(data: bytes) -> tuple[Container, int]:
    """Return the container of the table that the file seems to be, and where it begins behind tags.

    Raises:
        UnsupportedSound: it is not in the table; the message names what was found if that is known.
    """
    at = _after_tags(data)
    for row in CONTAINERS:
        if row.magic.match(data, at):
            return row, at
    if at:  # some programs fill up a tag without counting that; libav looks for the first frame
        return _MP3, 0
    raise unsupported(_found(data))


def is_cut(data: bytes) -> bool:
    """Whether a file has fewer bytes than its header says, which libav overlooks.

    Only WAV, Matroska and WebM are asked. What was written as it came does not know its size: it is 2^32 - 1 in WAV,
    and all ones in EBML.
    """
    if data[:4] == b"RIFF":
        return len(data) < int.from_bytes(data[4:8], "little") < 0xFFFFFF00
    at = size = most = 0
    for name in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # the header and the segment (RFC 9559, 5.1)
        at += size
        if data[at : at + 4] != name:
            return False
        width = 9 - int.from_bytes(data[at + 4 : at + 5]).bit_length()  # RFC 8794, 4
        most = (1 << 7 * width) - 1
        size = int.from_bytes(data[at + 4 : at + 4 + width]) & most
        at += 4 + width
    return size != most and len(data) < at + size


def unsupported(found: str) -> UnsupportedSound:
    return UnsupportedSound(f"expected a sound that is read here ({READ_HERE}), found {found}")


def _after_tags(data: bytes) -> int:
    """Return where the sound begins behind tags (https://id3.org/id3v2.4.0-structure, 3.1); 0 without one."""
    at = 0
    while (head := data[at : at + 10])[:3] == b"ID3" and len(head) == 10:
        size = 0
        for digit in head[6:]:
            size = size << 7 | digit & 0x7F
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return at


def _found(data: bytes) -> str:
    if not data:
        return "an empty file"
    for name, magic in _NAMES_ELSEWHERE.items():
        if magic.match(data):
            return name
    if elsewhere := name_elsewhere(data):
        return elsewhere
    try:
        return f"a picture ({recognise_picture(data)})"
    except Exception:  # noqa: BLE001 - a refusal either way
        return f"{len(data)} bytes in an unknown format"
