"""Which videos are read: their containers, which are rows of the table of sounds, and their codecs.

As with sounds, libav opens a file with the demuxer of its container and no other, and only with decoders named here.
"""

import re
from collections.abc import Mapping
from typing import Final

from renderer.errors import UnsupportedSound, UnsupportedVideo
from renderer.media.sound.formats import Container
from renderer.media.sound.formats import recognise as recognise_sound

# What libavcodec's decoder is called, by the name of the codec.
DECODERS: Final[Mapping[str, str]] = {"h264": "h264", "hevc": "hevc", "vp8": "vp8", "vp9": "vp9", "av1": "libdav1d"}
COPIED: Final = ("h264", "hevc", "vp9", "av1")
"""What is copied into an MP4 unchanged."""

VIDEOS: Final = ("MP4", "Matroska or WebM")
"""The rows of the table of sounds that may hold a video."""

READ_HERE: Final = "H.264, HEVC, VP8, VP9 or AV1 in MP4, QuickTime, Matroska or WebM"
_PICTURES: Final = re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1|avi[fs]|jp2 |jpx |crx )", re.DOTALL)
_ELSEWHERE: Final[Mapping[str, re.Pattern[bytes]]] = {
    "a video (AVI)": re.compile(rb"RIFF....AVI ", re.DOTALL),
    "a video (MPEG program stream)": re.compile(rb"\x00\x00\x01\xba"),
    "a video (H.264 or HEVC without a container)": re.compile(rb"\x00?\x00\x00\x01[\x09\x40\x42\x46\x67]"),
    "a video (IVF)": re.compile(rb"DKIF"),
    "an animation (GIF)": re.compile(rb"GIF8"),
}


def recognise(data: bytes) -> Container:
    """Return the container that the file seems to be.

    Raises:
        UnsupportedVideo: no video is read from it; the message names what was found if that is known.
    """
    if _PICTURES.match(data):
        raise unsupported("a picture")
    for name, magic in _ELSEWHERE.items():
        if magic.match(data):
            raise unsupported(name)
    try:
        row, _ = recognise_sound(data)
    except UnsupportedSound as error:
        raise unsupported(error.message.rpartition(", found ")[2]) from error
    if row.name not in VIDEOS:
        raise unsupported(f"a sound ({row.name})")
    return row


def unsupported(found: str) -> UnsupportedVideo:
    return UnsupportedVideo(f"expected a video that is read here ({READ_HERE}), found {found}")
