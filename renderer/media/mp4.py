"""Access units into an MP4 with exact time stamps, visible under its name only once it is whole and on disk.

PyAV (libavformat) writes the boxes. The timescale is the rate's numerator, doubled until it is at least 10,000, and
every sample lasts the denominator, doubled as often: the sample table has one `stts` entry and the rate is exact.
ffmpeg's muxer doubles in the same way, and its concat demuxer joins files by copy only if they have one timescale;
GStreamer's accurate seek misses its picture where a tick is as long as a frame.

The parameter sets are in `avcC` alone, as the sample entry `avc1` asks (ISO/IEC 14496-15, 5.3.3 and 5.4.2): all players
take `avc1`, and not all of them `avc3`, with sets in the samples. Colours, square samples and the place of chroma are
stated there for every stream. The time of creation is SOURCE_DATE_EPOCH's if that is set, so that the same request
gives the same bytes.

Chapters are a text track, as QuickTime reads them, with exact times in ticks of the movie, and in MP4 and M4V also the
list `chpl` of the first 255, which libavformat writes from the same values.

`colr` is nclx 1/1/1 limited, as in the SPS. faststart puts `moov` in front. The file grows as NAME.part; it is read
back, synced and renamed at the end, and removed on every other way out.

libavformat has no option for two things, so two boxes of a finished file are written over without a change of size:

- `btrt` (ISO/IEC 14496-12, 8.5.2.2): its maxBitrate is that of the busiest second; libavformat repeats the average.
- The tag of the encoding tool, `©too` or `©swr`: libavformat insists on its own name there. It is asked to leave it
  out and to write a comment, which differs from the tag by its four letters alone.
"""

import io
import os
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from renderer.disk import FORMATS, part_of, settle, sync, write_failure
from renderer.encode.h264.bits import NalType, join_nals, nal_type, split_nals
from renderer.encode.h264.description import described
from renderer.encode.h264.parameter_sets import parse_sps
from renderer.encode.sequence import Sample
from renderer.errors import OutputFailed
from renderer.version import VERSION
from renderer.work import Chapter, SoundFacts, VideoFacts

if TYPE_CHECKING:
    from av.container.core import Chapter as ChapterFields

    from renderer.media.sound.soundtrack import Soundtrack

_HEAD: Final = 8
_STSD_HEAD: Final = 8  # version, flags, entry_count
_VISUAL_ENTRY: Final = 78  # SampleEntry and VisualSampleEntry before their boxes (12.1.3)
_SAMPLES: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_BTRT: Final = (*_SAMPLES, b"stsd", b"avc1", b"btrt")
_COMMENTS: Final = {
    (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt"): b"\xa9too",
    (b"moov", b"udta", b"\xa9cmt"): b"\xa9swr",  # as QuickTime has it
}
_BEFORE_CHILDREN: Final = {b"stsd": _STSD_HEAD, b"avc1": _VISUAL_ENTRY, b"meta": 4}


def finish(path: Path, fps: Fraction) -> None:
    """Write the peak bit rate, and make the comment the name of the encoding tool."""
    with path.open("r+b") as file:
        start, moov = read_moov(file)
        for comment, tool in _COMMENTS.items():
            if found := find(moov, comment):
                moov[found[0] - 4 : found[0]] = tool
        btrt, sizes = find(moov, _BTRT), find(moov, (*_SAMPLES, b"stsz"))
        if btrt and sizes:
            (average,) = struct.unpack_from(">I", moov, btrt[0] + 8)
            peak = max(average, _peak(_sample_sizes(moov, sizes[0]), fps))
            struct.pack_into(">I", moov, btrt[0] + 4, min(peak, 2**32 - 1))
        file.seek(start)
        file.write(moov)


def read_moov(file: BinaryIO) -> tuple[int, bytearray]:
    """Return the position of `moov` in the file, and the whole box."""
    at = 0
    while len(head := file.read(_HEAD)) == _HEAD:
        size, kind = struct.unpack(">I4s", head)
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        if kind == b"moov":
            file.seek(at)
            return at, bytearray(file.read(size))
        if size < _HEAD:  # 0: it goes on to the file's end
            break
        at += size
        file.seek(at)
    raise ValueError("there is no moov box")


def find(data: bytearray, path: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Return where the payload of the first box at this path begins and ends."""
    start, end = 0, len(data)
    for name in path:
        found = _child(data, start, end, name)
        if found is None:
            return None
        start, end = found
        start += _BEFORE_CHILDREN.get(name, 0)
    return start, end


def _child(data: bytearray, start: int, end: int, name: bytes) -> tuple[int, int] | None:
    while start + _HEAD <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if kind == name:
            return start + _HEAD, start + size
        start += max(size, _HEAD)
    return None


def _sample_sizes(data: bytearray, stsz: int) -> npt.NDArray[np.int64]:
    size, count = struct.unpack_from(">II", data, stsz + 4)
    if size:
        return np.full(count, size, np.int64)
    return np.frombuffer(data, ">u4", count, stsz + 12).astype(np.int64)


def _peak(sizes: npt.NDArray[np.int64], fps: Fraction) -> int:
    """Return the most bits that any second has, samples counted where they begin."""
    window = min(-(-fps.numerator // fps.denominator), len(sizes))
    sums = np.concatenate(([0], np.cumsum(sizes)))
    return 8 * int((sums[window:] - sums[: len(sums) - window]).max())


# libavformat decodes a picture when it opens a stream, 20 ms at 1080p; all that is wanted here is in the headers.
_UNDECODED = {"skip_frame": "all"}

_LEAST_TIMESCALE: Final = 10_000
_SOUND_RATE: Final = 48_000
CHUNK_US: Final = "500000"  # frames and sound take turns every half second, not after every frame
_PARAMETER_SETS: Final = frozenset({NalType.SPS, NalType.PPS})
_TOOL: Final = f"stillreel {VERSION}"


class Mp4Writer:
    """One MP4 in the making. Leave the `with` block without `commit()` and nothing remains."""

    def __init__(
        self,
        path: Path,
        fps: Fraction,
        timecode: str | None = None,
        sound: "Soundtrack | None" = None,
        chapters: Sequence[Chapter] = (),
    ) -> None:
        """Begin the file.

        Args:
            path: the final name, whose suffix chooses MP4, M4V or QuickTime; its directory exists.
            fps: exact frames per second.
            timecode: of the first frame, such as "01:00:00:00"; `timeline.check_timecode` has passed it.
            sound: is taken as the video grows.
            chapters: all of the video, or none.
        """
        self._chapters = chapters
        self._sound = sound
        self._muxed_sound: MuxedSound | None = None
        self._timecode = timecode
        self._parameter_sets: frozenset[bytes] = frozenset()
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
        with suppress(av.FFmpegError, OSError):  # the error that led here matters, not that of a full disk
            self._close()
        with suppress(OSError):
            self._part.unlink(missing_ok=True)

    def extend(self, samples: Iterable[Sample], reordered: int = 0) -> None:
        """Append the next frames in decoding order.

        Args:
            reordered: how many samples may come before one in the file and be shown after it; dts is ahead by these.

        Raises:
            StorageFull: the disk is full.
            OutputFailed: the file cannot be written for another reason.
            JobError: a sound is at fault.
        """
        with as_write_failure():
            for sample in samples:
                container, stream = self._open(sample, reordered)
                packet = av.Packet(self._without_sets(sample.data) if sample.is_sync else sample.data)
                packet.stream = stream
                packet.time_base = self._frame_s
                packet.pts = sample.frame
                packet.dts = self._frames - reordered
                packet.duration = 1
                packet.is_keyframe = sample.is_sync
                container.mux_one(packet)
                self._frames += 1
                if self._muxed_sound is not None:
                    self._muxed_sound.extend(self._frames * self._frame_s)

    def commit(self, frames: int | None = None) -> VideoFacts:
        """Finish the file, check it, put it on disk and give it its name.

        Args:
            frames: how many the video must have; absent, as many as were put in.

        Raises:
            StorageFull: the disk is full.
            OutputFailed: it could not be written, or its content is not as expected.
        """
        expected = self._frames if frames is None else frames
        with as_write_failure():
            if self._muxed_sound is not None:
                self._muxed_sound.extend()
            self._close()
            if self._part.exists():
                finish(self._part, self._fps)
            facts = read_facts(self._part)
            if facts.frames != expected or facts.fps != self._fps:
                raise OutputFailed(
                    f"the file holds {facts.frames} frames at {facts.fps}, expected {expected} at {self._fps}"
                )
            self._check_sound(facts.sound)
            sync(self._part)
            settle(self._part, self._path)
        return facts

    def _check_sound(self, found: SoundFacts | None) -> None:
        """Refuse a file whose sound is too long or too short by more than a tick, the unit of its edit list."""
        expected_s = Fraction(self._sound.samples, _SOUND_RATE) if self._sound else Fraction(0)
        found_s = found.duration_s if found else Fraction(0)
        if abs(found_s - expected_s) > Fraction(1, timescale(self._fps)):
            raise OutputFailed(f"the file holds {float(found_s):g} s of sound, expected {float(expected_s):g} s")

    def _without_sets(self, access_unit: bytes) -> bytes:
        """Leave out the parameter sets, which are in `avcC`."""
        nals = split_nals(access_unit)
        sets = {nal for nal in nals if nal_type(nal) in _PARAMETER_SETS}
        if not sets <= self._parameter_sets:
            raise OutputFailed("the encoder changed its parameter sets within the stream")
        return join_nals([nal for nal in nals if nal not in sets])

    def _open(self, first: Sample, reordered: int) -> tuple[OutputContainer, VideoStream]:
        """Open the file with the first access unit, from whose SPS libavformat reads size, profile and colours."""
        if self._container is None or self._stream is None:
            scale = str(timescale(self._fps))
            self._container = av.open(
                str(self._part),
                "w",
                format=FORMATS.get(self._path.suffix.lower(), "mp4"),
                options={
                    "fflags": "+bitexact",  # no tag of libavformat's own
                    "movflags": "+faststart+write_colr",
                    "video_track_timescale": scale,
                    "write_tmcd": "1",  # of a timecode, which M4V files lose otherwise
                    "movie_timescale": scale,
                    "chunk_duration": CHUNK_US,
                },
            )
            self._container.set_chapters([self._chapter(*each) for each in enumerate(self._chapters)])
            self._container.metadata["creation_time"] = created_at()
            self._container.metadata["comment"] = _TOOL  # which `finish` makes the name of the tool
            nals = split_nals(first.data)
            self._parameter_sets = frozenset(nal for nal in nals if nal_type(nal) in _PARAMETER_SETS)
            described_unit = join_nals([_described(nal, reordered) for nal in nals])
            options = {**_UNDECODED, "framerate": str(self._fps)}
            with av.open(io.BytesIO(described_unit), format="h264", options=options) as parameters:
                self._stream = self._container.add_stream_from_template(parameters.streams.video[0])
            self._stream.time_base = self._frame_s
            self._stream.metadata["encoder"] = _TOOL
            if self._timecode:
                self._stream.metadata["timecode"] = self._timecode
            if self._sound is not None:
                self._muxed_sound = MuxedSound(self._container, self._sound)
            _copy_colour(described_unit, self._stream)
        return self._container, self._stream

    def _chapter(self, number: int, chapter: Chapter) -> "ChapterFields":
        return {
            "id": number,
            "start": chapter.start,
            "end": chapter.end,
            "time_base": self._frame_s,
            "metadata": {"title": chapter.title},
        }

    def _close(self) -> None:
        container, self._container, self._stream, self._muxed_sound = self._container, None, None, None
        if container is not None:
            container.close()


class MuxedSound:
    """The track of a soundtrack, whose packets libavformat puts between those of the video."""

    def __init__(self, container: OutputContainer, sound: "Soundtrack") -> None:
        """Add the track; the encoder that it gets says how the sound is coded, and codes nothing."""
        coding = sound.format
        stream = container.add_stream(coding.coder, rate=_SOUND_RATE)
        if not isinstance(stream, AudioStream):
            raise OutputFailed(f"libav has no encoder {coding.coder} for sound")
        stream.codec_context.layout = coding.layout
        stream.codec_context.bit_rate = coding.bit_rate
        stream.time_base = Fraction(1, _SOUND_RATE)
        stream.metadata["encoder"] = _TOOL
        self._container, self._stream = container, stream
        self._packets = iter(sound)
        self._next: av.Packet[Stream] | None = None

    def extend(self, until_s: Fraction | None = None) -> None:
        """Append the sound up to a moment, or all that is left.

        Raises:
            JobError: a sound is at fault.
        """
        while (packet := self._next or next(self._packets, None)) is not None:
            self._next = packet
            if until_s is not None and (packet.pts or 0) * packet.time_base >= until_s:
                return
            packet.stream = self._stream
            self._container.mux_one(packet)
            self._next = None


def timescale(fps: Fraction) -> int:
    """Return the ticks a second of a file at this rate."""
    ticks = fps.numerator
    while ticks < _LEAST_TIMESCALE:
        ticks *= 2
    return ticks


def read_facts(path: Path) -> VideoFacts:
    """Read back what a player will see.

    Raises:
        av.FFmpegError: this is not an MP4 with a video.
    """
    with av.open(str(path), options=_UNDECODED) as container:
        stream = container.streams.video[0]
        ticks, time_base, fps = stream.duration, stream.time_base, stream.average_rate
        if ticks is None or time_base is None or fps is None:
            raise OutputFailed("expected a file that states its duration, found none")
        size_bytes, sound = path.stat().st_size, _sound_facts(container)
        return VideoFacts(
            stream.width, stream.height, stream.frames, Fraction(fps), ticks * time_base, size_bytes, sound
        )


def _sound_facts(container: InputContainer) -> SoundFacts | None:
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    codec, rate, duration, time_base = stream.codec_context.name, stream.rate, stream.duration, stream.time_base
    if duration is None or time_base is None:
        raise OutputFailed("expected sound that states its duration, found none")
    return SoundFacts("aac" if codec == "aac" else "opus", stream.channels, rate, duration * time_base)


def _described(nal: bytes, reordered: int) -> bytes:
    """Return the NAL unit; if it is an SPS, with everything stated that players would otherwise guess."""
    return described(nal, is_reordered=reordered > 0) if nal_type(nal) == NalType.SPS else nal


def created_at() -> str:
    """Return the time of creation as ISO 8601, from SOURCE_DATE_EPOCH where that is set.

    Raises:
        OutputFailed: it is set to something else than seconds since 1970.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        moment_s = int(time.time()) if epoch is None else int(epoch)
        return datetime.fromtimestamp(moment_s, UTC).isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise OutputFailed(f"SOURCE_DATE_EPOCH: expected seconds since 1970, found {epoch!r}") from error


def _copy_colour(access_unit: bytes, stream: VideoStream) -> None:
    """Copy the colours of the SPS to the file; libavformat would have to decode a picture to find them."""
    sps = next((parse_sps(nal) for nal in split_nals(access_unit) if nal_type(nal) == NalType.SPS), None)
    colour = sps.vui.colour if sps and sps.vui else None
    if colour:
        context = stream.codec_context
        context.sample_aspect_ratio = Fraction(1)
        context.color_primaries = colour.primaries
        context.color_trc = colour.transfer
        context.colorspace = colour.matrix
        context.color_range = ColorRange.JPEG if colour.is_full_range else ColorRange.MPEG


@contextmanager
def as_write_failure() -> Iterator[None]:
    """Turn libavformat's and the system's errors into ours."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise write_failure(error.errno, error.strerror) from error
