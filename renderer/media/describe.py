"""What a video or a sound says of itself; what can be counted is counted.

A video's frames, its duration and its frame rate are those of what is shown, and its resolution is that of the picture
as it is turned. The duration of a sound is what its file states, or what was decoded where that would be a guess.
"""

import math
import re
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from av.stream import Discard

from protocol.errors import Loc
from protocol.media import Audio, AudioTrackFacts, Resolution, Video, VideoFormat
from renderer.config import RenderSettings
from renderer.errors import UnsupportedSound, UnsupportedVideo
from renderer.media.formats import VIDEOS
from renderer.media.sound.decode import RATE, Reading, read_header
from renderer.media.sound.formats import Container, recognise
from renderer.media.video import NoVideo, Survey, VideoFile
from renderer.pictures.marks import Marks

_WEBM: Final = re.compile(rb"\x42\x82.webm", re.DOTALL)  # EBML's DocType
_HEAD_BYTES: Final = 4096


def describe(data: bytes, url: str, loc: Loc, settings: RenderSettings, marks: Marks) -> Video | Audio:
    """Return what is known of a file.

    Raises:
        UnsupportedVideo: it is neither a video nor a sound that is read here.
        JobError: it is damaged, or above a limit.
    """
    try:
        row, _ = recognise(data)
    except UnsupportedSound as error:
        found = error.message.rpartition(", found ")[2]
        raise UnsupportedVideo(f"expected a video or a sound that is read here, found {found}", loc=loc) from error
    container, kind = _container(data, row)
    known = {"url": url if "://" in url else "", "file_size": len(data), "container": container}
    known["file_name"] = _name(url) or f"media.{container}"
    if row.name in VIDEOS:
        try:
            return _video(VideoFile(data, loc, settings, marks), {**known, "content_type": f"video/{kind}"})
        except NoVideo:
            pass  # it may have sound
    return _sound(data, loc, marks, {**known, "content_type": f"audio/{kind}"})


def _sound(data: bytes, loc: Loc, marks: Marks, known: dict[str, Any]) -> Audio:
    file = read_header(data, loc, marks)
    duration_s = file.stated_s
    if duration_s is None:
        duration_s = Fraction(sum(piece.shape[1] for piece in Reading(file, marks)), RATE)
    return Audio(
        **known,
        codec=file.codec,
        channels=file.channels_stated,
        sample_rate=file.rate,
        duration=float(duration_s),
        bitrate=_rate(len(data), duration_s),
    )


def _video(video: VideoFile, known: dict[str, Any]) -> Video:
    survey, frame = video.survey, video.frame("first")
    with video.opened() as (_, stream):
        context, ratio = stream.codec_context, stream.sample_aspect_ratio
        profile, level = context.profile, context.level or 0
    bitrate = _rate(sum(packet.size_bytes for packet in survey.packets), survey.duration_s)
    rate = _frame_rate(survey)
    return Video(
        **known,
        codec=survey.codec,
        duration=float(survey.duration_s),
        bitrate=_rate(known["file_size"], survey.duration_s),
        fps=round(rate),
        frame_rate=f"{rate.numerator}/{rate.denominator}",
        frame_count=survey.frames,
        timebase=f"{survey.time_base.numerator}/{survey.time_base.denominator}",
        resolution=_resolution(frame.width, frame.height, ratio or Fraction(1), is_turned=frame.rotation % 180 != 0),
        format=VideoFormat(
            container=known["container"],
            video_codec=survey.codec,
            profile=(profile or "").lower(),
            level=_level(survey.codec, level),
            pixel_format=frame.format.name,
            bitrate=bitrate,
        ),
        audio=_track(video),
    )


def _track(video: VideoFile) -> AudioTrackFacts | None:
    """Return what is known of the first sound of a video; nothing of it is decoded."""
    with video.opened() as (container, stream):
        if not container.streams.audio:
            return None
        sound = container.streams.audio[0]
        stream.discard, sound.discard = Discard.all, Discard.default
        packets = [(packet.size, packet.duration or 0) for packet in container.demux(sound)]
        context, time_base = sound.codec_context, sound.time_base or Fraction(0)
        return AudioTrackFacts(
            codec=context.codec.canonical_name if context else "unknown",
            channels=context.channels if context else 0,
            sample_rate=context.sample_rate if context else 0,
            bitrate=_rate(sum(size for size, _ in packets), sum(each for _, each in packets) * time_base),
        )


def _frame_rate(survey: Survey) -> Fraction:
    """Return the rate that the container states, if as many frames were counted as it says."""
    duration_s, stated = survey.duration_s, survey.rate
    if stated and abs(stated * duration_s - survey.frames) < 1:
        return stated
    return survey.frames / duration_s if duration_s else Fraction(0)


def _resolution(width: int, height: int, ratio: Fraction, *, is_turned: bool) -> Resolution:
    shape = width * ratio / height
    if is_turned:
        width, height, shape = height, width, 1 / shape
    return Resolution(width=width, height=height, aspect_ratio=f"{shape.numerator}:{shape.denominator}")


def _level(codec: str, level: int) -> float:
    if level <= 0:
        return 0.0
    if codec == "av1":  # AV1, A.3: seq_level_idx
        return round(2 + (level >> 2) + (level & 3) / 10, 1)
    return round(level / {"h264": 10, "hevc": 30}.get(codec, math.inf), 1)


def _rate(size_bytes: int, duration_s: Fraction) -> int:
    """Return bits per second."""
    return round(8 * size_bytes / duration_s) if duration_s else 0


def _container(data: bytes, row: Container) -> tuple[str, str]:
    if data[4:12] == b"ftypqt  ":
        return "mov", "quicktime"
    return ("webm", "webm") if _WEBM.search(data, 0, _HEAD_BYTES) else (row.word, row.subtype)


def _name(url: str) -> str:
    """Return the last part of a url's path, or nothing for what came with the request."""
    if url[:5].lower() in ("data:", "cid:0"):
        return ""
    try:
        return PurePosixPath(unquote(urlsplit(url).path)).name[:120]
    except ValueError:
        return ""
