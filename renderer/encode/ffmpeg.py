"""Which ffmpeg is run, the command line that has it encode with libx264, and its output; nothing is run here.

Quality words, the same on every encoder: `crf` is x264's CRF and `preset` its preset, unchanged. The colour description
goes into the SPS through x264's own parameters; ffmpeg's -color_* options alone leave primaries and transfer unknown.

The plan of a held stream is given to the child when it starts. ffmpeg forces the IDR pictures by time, half a frame
early, to the microsecond: at the 1000/1001 rates it rounds its own times by up to half a frame. x264's zones carry the
quantiser offsets (a bitrate factor f in a zone moves the quantiser by -6·log2(f) under crf, ratecontrol.c).
"""

import itertools
import os
import shutil
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg

from protocol.schema import Preset
from renderer.config import EncodeSettings
from renderer.encode.h264.repeat import is_idr
from renderer.encode.plan import INTRA_STEPS
from renderer.encode.stream import AccessUnit, HeldCoding, StreamSettings
from renderer.errors import ConfigError

# Linux takes 128 KiB in one argument (MAX_ARG_STRLEN). Beyond this, every still gets the median's offset, and where the
# IDR pictures would take more to list, every still becomes one: more than 9,200 are IDR pictures then anyway.
_LIST_MAX_CHARACTERS = 120_000
# The plan forces the IDR pictures that are needed. x264 makes an intra profile without references of a GOP of one.
_LEAST_HELD_GOP = 250
# Where no picture resembles the one before, looking ahead finds nothing: without it x264 takes 11 % less processor
# time. With qcomp 1 the quantiser depends on crf and offset alone, as it does under macroblock tree; else it depends on
# how complex a picture is, and the first one gets no offset (ratecontrol.c). With ipratio 1 that holds for an I picture
# after a P picture as well.
_NO_LOOK_AHEAD = ["mbtree=0", "rc-lookahead=0", "sync-lookahead=0", "qcomp=1", "ipratio=1"]
# What one picture in place of a refined sequence needs; neither costs time (measurements: docs/held-pictures.md). The
# deblocking filter smooths text, which x264's P pictures repair. At this strength it does nothing below quantiser 22,
# and still hides blocks above. A little less adaptive quantisation saves bytes at equal RGB PSNR and VMAF. The preset
# ultrafast has neither.
_FOR_ONE_PICTURE = ["deblock=-3,-3", "aq-strength=0.9"]
# What x264 adds to crf under macroblock tree: 13.5 * (1 - qcomp), with qcomp 0.6.
_TREE_STEPS = 5.4
# x264 writes an access unit delimiter (7.3.2.4) with a four-byte start code in front of every access unit when asked
# to; emulation prevention (7.4.1) keeps the pattern out of everything else.
_DELIMITER = b"\x00\x00\x00\x01\x09"
_DELIMITER_BYTES = 6


def find_ffmpeg(settings: EncodeSettings) -> str:
    """Return the path of the ffmpeg to run.

    Raises:
        ConfigError: no ffmpeg was found.
    """
    if settings.ffmpeg:
        return settings.ffmpeg
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise ConfigError("encode.ffmpeg: expected a path, since imageio-ffmpeg has none for this machine") from error


def runnable_ffmpeg(settings: EncodeSettings) -> str:
    """Return the path of the ffmpeg to run, after a check that it is a program.

    Raises:
        ConfigError: it is not a program, or no ffmpeg was found.
    """
    ffmpeg = find_ffmpeg(settings)
    if shutil.which(ffmpeg) is None:
        raise ConfigError(f"encode.ffmpeg: expected a program that can be run, found {ffmpeg}")
    return ffmpeg


def identity_of(ffmpeg: str) -> tuple[object, ...]:
    """Return what tells this ffmpeg from another one, and from one that is installed in its place."""
    path = Path(os.path.realpath(shutil.which(ffmpeg) or ffmpeg))
    try:
        found = path.stat()
    except OSError:  # said when it is to be run
        return (path,)
    return path, found.st_size, found.st_mtime_ns


def has_own_offsets(held: HeldCoding) -> bool:
    """Whether every still gets its own offset, and not the median of all."""
    return len(_all_zones(held)) <= _LIST_MAX_CHARACTERS


def arguments(ffmpeg: str, stream: StreamSettings, threads: int = 0) -> list[str]:
    """Build the child's command line; threads=0 leaves their number to x264."""
    fps = f"{stream.fps.numerator}/{stream.fps.denominator}"
    x264 = ["aud=1", "colorprim=bt709", "transfer=bt709", "colormatrix=bt709", "fullrange=off"]
    forced = []
    gop = stream.keyframe_interval
    if stream.held:
        gop = max(gop, _LEAST_HELD_GOP)
        held, times = _listed(stream.held, stream.fps)
        x264 += ["bframes=0", "ref=1", "min-keyint=1", *_zones(held)]
        x264 += _intra(stream.preset, held) if held.is_all_idr or held.is_montage else []
        forced = ["-force_key_frames", times, "-forced-idr", "1"]
    return [
        *(ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "warning"),
        *("-f", "rawvideo", "-pixel_format", "nv12", "-video_size", str(stream.canvas), "-framerate", fps),
        *("-color_range", "tv", "-colorspace", "bt709", "-i", "pipe:0"),
        *("-fps_mode", "passthrough", "-c:v", "libx264", "-pix_fmt", "nv12", "-preset", stream.preset),
        *("-crf", str(stream.crf), "-g", str(gop), "-threads", str(threads)),
        *forced,
        *("-x264-params", ":".join(x264), "-f", "h264", "pipe:1"),
    ]


def _listed(held: HeldCoding, fps: Fraction) -> tuple[HeldCoding, str]:
    """Return how the stills are coded and when the IDR pictures come, short enough for one argument."""
    times = _idr_times(held, fps)
    if len(times) <= _LIST_MAX_CHARACTERS:
        return held, times
    steps = 0 if held.is_montage else INTRA_STEPS
    offsets = tuple(offset - steps for offset in held.quantiser_offsets)
    return _listed(HeldCoding((True,) * len(offsets), offsets), fps)


def _idr_times(held: HeldCoding, fps: Fraction) -> str:
    """Write when the forced IDR pictures come, in seconds of the stream that ffmpeg sees."""
    if held.is_all_idr:
        return "expr:1"
    times = [float((index - Fraction(1, 2)) / fps) for index, is_idr in enumerate(held.is_idr) if is_idr and index]
    return ",".join(["0", *(f"{time_s:.6f}" for time_s in times)])


def _intra(preset: Preset, held: HeldCoding) -> list[str]:
    """Return the options where pictures are coded by themselves; of a montage some may yet be predicted."""
    options = [*_NO_LOOK_AHEAD, *(["scenecut=0"] if held.is_all_idr else [])]
    return options if preset == "ultrafast" else [*options, *_FOR_ONE_PICTURE]


def _zones(held: HeldCoding) -> list[str]:
    """Write the quantiser offsets, short enough for one argument."""
    written = _all_zones(held)
    if len(written) > _LIST_MAX_CHARACTERS:
        import statistics  # noqa: PLC0415 - the daemon, which needs the command line alone, need not wait for it

        count, median = len(held.quantiser_offsets), statistics.median(_offsets(held))
        written = f"0,{count - 1},b={2 ** (-median / 6):.4f}"
    return [f"zones={written}"] if written else []


def _all_zones(held: HeldCoding) -> str:
    """Write the quantiser offsets, equal neighbours in one zone."""
    zones = []
    start = 0
    for offset, run in itertools.groupby(_offsets(held)):
        end = start + len(list(run))
        if offset:
            zones.append(f"{start},{end - 1},b={2 ** (-offset / 6):.4f}")
        start = end
    return "/".join(zones)


def _offsets(held: HeldCoding) -> list[float]:
    added = _TREE_STEPS if held.is_all_idr or held.is_montage else 0.0
    return [offset + added for offset in held.quantiser_offsets]


class AccessUnitSplitter:
    """Cuts a delimited Annex B stream into access units and leaves the delimiters out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[AccessUnit]:
        """Take the next bytes of the stream; return the access units they complete."""
        self._buffer += data
        units = []
        while (end := self._buffer.find(_DELIMITER, max(self._searched, 1))) > 0:
            units.append(self._cut(end))
        self._searched = len(self._buffer) - len(_DELIMITER)
        return units

    def finish(self) -> list[AccessUnit]:
        """Return the last access unit, which nothing follows."""
        return [self._cut(len(self._buffer))] if self._buffer else []

    def _cut(self, end: int) -> AccessUnit:
        data = bytes(self._buffer[_DELIMITER_BYTES:end])
        del self._buffer[:end]
        self._searched = 0
        return AccessUnit(data, is_idr=is_idr(data))
