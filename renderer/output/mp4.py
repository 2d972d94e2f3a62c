"""Access units into an MP4 with exact time stamps, visible under its name only once it is whole and on disk.

PyAV (libavformat) writes the boxes. The timescale is the rate's numerator, doubled until it is at least 10,000, and
every sample lasts the denominator, doubled as often: the sample table has one `stts` entry and the rate is exact.
ffmpeg's muxer doubles just so, and its concat demuxer joins by copy only what has one timescale; GStreamer's accurate
seek misses its picture where a tick is as long as a frame.

`colr` is nclx 1/1/1 limited, as in the SPS. faststart puts `moov` in front. The file grows as NAME.part; it is read
back, synced and renamed at the end, and removed on every other way out.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Self

import av
from av.container import OutputContainer
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from renderer.disk import is_full, settle, sync
from renderer.encode.sequence import Sample
from renderer.errors import OutputFailed, StorageFull
from renderer.h264.bits import NalType, nal_type, split_nals
from renderer.h264.parameter_sets import parse_sps
from renderer.output.place import FORMATS, part_of

# libavformat decodes a picture when it opens a stream, 20 ms at 1080p; all that is wanted here is in the headers.
_UNDECODED = {"skip_frame": "all"}

_LEAST_TIMESCALE: Final = 10_000


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a finished file says of itself."""

    width: int
    height: int
    frames: int
    fps: Fraction
    duration_s: Fraction
    size_bytes: int


class Mp4Writer:
    """One MP4 in the making. Leave the `with` block without `commit()` and nothing remains."""

    def __init__(self, path: Path, fps: Fraction) -> None:
        """Args:
        path: the final name; its directory exists. Its suffix says whether it is an MP4, an M4V or a QuickTime film.
        fps: exact frames per second.
        """
        self._path = path
        self._part = part_of(path)
        self._fps = fps
        self._frame_s = 1 / fps
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close(suppress=True)
        with suppress(OSError):  # of a disk that has become read-only; what brought us here is the error to tell
            self._part.unlink(missing_ok=True)

    def extend(self, samples: Iterable[Sample], reordered: int = 0) -> None:
        """Append the next frames in decoding order.

        Args:
            reordered: how many samples may stand before one and be shown after it; dts runs ahead by so many.

        Raises:
            StorageFull: the disk is full.
            OutputFailed: the file cannot be written for another reason.
        """
        with _as_write_failure():
            for sample in samples:
                container, stream = self._open(sample)
                packet = av.Packet(sample.data)
                packet.stream = stream
                packet.time_base = self._frame_s
                packet.pts = sample.frame
                packet.dts = self._frames - reordered
                packet.duration = 1
                packet.is_keyframe = sample.is_sync
                container.mux_one(packet)
                self._frames += 1

    def commit(self, frames: int | None = None) -> VideoFacts:
        """Finish the file, check it, put it on disk and give it its name.

        Args:
            frames: how many the video must have; absent, as many as were put in.

        Raises:
            StorageFull: the disk is full.
            OutputFailed: it could not be written, or does not hold what it should.
        """
        expected = self._frames if frames is None else frames
        with _as_write_failure():
            self._close()
            facts = read_facts(self._part)
            if facts.frames != expected or facts.fps != self._fps:
                raise OutputFailed(
                    f"the file holds {facts.frames} frames at {facts.fps}, expected {expected} at {self._fps}"
                )
            sync(self._part)
            settle(self._part, self._path)
        return facts

    def _open(self, first: Sample) -> tuple[OutputContainer, VideoStream]:
        """Open the file at the first access unit, whose SPS tells libavformat size, profile and colours."""
        if self._container is None or self._stream is None:
            scale = str(timescale(self._fps))
            self._container = av.open(
                str(self._part),
                "w",
                format=FORMATS.get(self._path.suffix.lower(), "mp4"),
                options={
                    "movflags": "+faststart+write_colr",
                    "video_track_timescale": scale,
                    "movie_timescale": scale,
                },
            )
            with av.open(io.BytesIO(first.data), format="h264", options=_UNDECODED) as parameters:
                self._stream = self._container.add_stream_from_template(parameters.streams.video[0])
            self._stream.time_base = self._frame_s
            _copy_colour(first.data, self._stream)
        return self._container, self._stream

    def _close(self, *, suppress: bool = False) -> None:
        container, self._container, self._stream = self._container, None, None
        if container is None:
            return
        try:
            container.close()
        except (av.FFmpegError, OSError):
            if not suppress:
                raise


def timescale(fps: Fraction) -> int:
    """Return the ticks a second of a file at this rate."""
    ticks = fps.numerator
    while ticks < _LEAST_TIMESCALE:
        ticks *= 2
    return ticks


def read_facts(path: Path) -> VideoFacts:
    """Read back what a player will see.

    Raises:
        av.FFmpegError: this is no MP4 with a video.
    """
    with av.open(str(path), options=_UNDECODED) as container:
        stream = container.streams.video[0]
        ticks, time_base, fps = stream.duration, stream.time_base, stream.average_rate
        if ticks is None or time_base is None or fps is None:
            raise OutputFailed("the file tells no duration")
        return VideoFacts(
            stream.width, stream.height, stream.frames, Fraction(fps), ticks * time_base, path.stat().st_size
        )


def _copy_colour(access_unit: bytes, stream: VideoStream) -> None:
    """Tell the file what the SPS says of colours; libavformat would have to decode a picture to know."""
    sps = next((parse_sps(nal) for nal in split_nals(access_unit) if nal_type(nal) == NalType.SPS), None)
    colour = sps.vui.colour if sps and sps.vui else None
    if colour:
        context = stream.codec_context
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        context.colorspace = colour.matrix
        context.color_range = ColorRange.JPEG if colour.is_full_range else ColorRange.MPEG


def write_failure(error: av.FFmpegError | OSError) -> OutputFailed | StorageFull:
    """Return our error for one of the system's or libavformat's, without a path."""
    words = f"the video could not be written: {error.strerror}"
    return StorageFull(words) if is_full(error.errno) else OutputFailed(words)


@contextmanager
def _as_write_failure() -> Iterator[None]:
    """Turn libavformat's and the system's errors into ours."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise write_failure(error) from error
