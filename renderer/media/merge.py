"""A video with another sound: its packets are copied unchanged, and the sound is coded meanwhile.

The video decides how long it is: sound that goes on is cut at the end of the last frame, and silence follows a shorter
one. The video's times begin with its first frame that is shown; what an edit list leaves out before that is copied as
well, because later frames need it, and left out by an edit list again. So is what is left out behind the last frame,
where it comes between frames that are shown.

Chapters are kept, at their times. Further videos, subtitles, data and attachments are left out, and a warning says so.
"""

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
from av.stream import Disposition
from av.video.stream import VideoStream

from protocol.errors import Loc
from protocol.media import MergeAudioVideo
from protocol.schema import AudioTrack, ResultWarning
from renderer.disk import part_of, settle, sync, write_failure
from renderer.errors import JobError, OutputFailed, UnsupportedVideo, VideoDamaged
from renderer.media.formats import COPIED, unsupported
from renderer.media.mp4 import CHUNK_US, MuxedSound, created_at, find, read_moov, timescale
from renderer.media.sound.decode import RATE, Samples, SoundFile
from renderer.media.sound.mix import Placed, mixed
from renderer.media.sound.soundtrack import SoundFormat, Soundtrack
from renderer.media.video import Access, Survey, VideoFile
from renderer.pictures.marks import Marks

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.container.core import Chapter as ChapterFields
    from av.packet import Packet

_BIT_RATE: Final = 192_000
_MOST_CHAPTERS: Final = 1000
_TITLE_BYTES: Final = 255  # of Nero's chapters, which have one byte for the length
_CHAPTER_TICK: Final = Fraction(1, 1_000_000)


def merge(
    video: VideoFile, sound: SoundFile, request: MergeAudioVideo, output: Path, marks: Marks
) -> tuple[ResultWarning, ...]:
    """Write the video with this sound; return what the client might not expect of the file.

    Raises:
        UnsupportedVideo: an MP4 cannot have it as it is.
        JobError: one of the two is damaged.
        OutputFailed, StorageFull: the file cannot be written.
    """
    survey = video.survey
    if survey.codec not in COPIED:
        words = f"expected a video that an MP4 can have as it is (H.264, HEVC, VP9 or AV1), found {survey.codec}"
        raise UnsupportedVideo(words, loc=video.loc)
    copied = _copied(survey, video)
    total = int(survey.duration_s * RATE)
    track = AudioTrack(url="-", at=max(0.0, request.start_offset), start=max(0.0, -request.start_offset))
    tracks = OneSound(track, sound, marks)
    part = part_of(output)
    try:
        with Soundtrack(tracks, total, None) as soundtrack, _blame(video):
            left_out = _write(part, video, copied, soundtrack)
            _cut(part, survey)
            _check(part, len(copied))
            sync(part)
            settle(part, output)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return (*tracks.warnings, *_warnings(left_out, video))


@dataclass
class OneSound:
    """The sound of one file, placed in a video.

    Attributes:
        warnings: what the client might not expect of it, once it was mixed.
    """

    track: AudioTrack
    file: SoundFile
    marks: Marks
    warnings: tuple[ResultWarning, ...] = ()
    format: SoundFormat = field(init=False)

    def __post_init__(self) -> None:
        self.format = SoundFormat("aac", self.file.channels, _BIT_RATE)

    def mixed(self, total: int) -> Iterator[Samples]:
        """Yield the sound of a video of `total` samples.

        Raises:
            JobError: the sound is at fault.
        """
        placed = Placed(self.track, self.file, total, self.marks)
        try:
            yield from mixed([placed], total)
        except JobError as error:
            error.loc = _asked(error.loc)
            raise
        self.warnings = tuple(each.model_copy(update={"loc": _asked(each.loc)}) for each in placed.warnings())

    def refuse_late(self, limit_s: float | None) -> None:
        """Do nothing: another process watches the decoder of a worker."""


def _asked(loc: Loc) -> Loc:
    """Return the field of the request for one of the track, of which its offset has made two."""
    return ("start_offset",) if loc in {("at",), ("start",)} else loc


def _copied(survey: Survey, video: VideoFile) -> list[Access]:
    """Return the packets that are copied: all but those behind the last one that is shown.

    Raises:
        UnsupportedVideo: packets in between are left out, or shown at one time.
    """
    packets = list(survey.packets)
    while not packets[-1].is_shown:
        packets.pop()
    hidden = [packet.pts for packet in packets if not packet.is_shown]
    if any(survey.first < pts < survey.last for pts in hidden) or len({packet.pts for packet in packets}) < len(
        packets
    ):
        raise unsupported("one whose edit list has several parts, or that shows two frames at one time").at(*video.loc)
    return packets


def _decoding_times(copied: list[Access]) -> Iterator[int]:
    """Yield when each packet is to be decoded, which not every container says: as late as the order of all allows."""
    shown = sorted(packet.pts for packet in copied)
    ahead = max(at - packet.pts for at, packet in zip(shown, copied, strict=True))
    return (at - ahead for at in shown)


def _write(part: Path, video: VideoFile, copied: list[Access], soundtrack: Soundtrack) -> list[str]:
    """Write the file; return what kinds of streams it does not have of those that the video has beside its sound."""
    survey = video.survey
    scale = timescale(1 / survey.time_base)
    options = {
        "fflags": "+bitexact",
        "movflags": "+faststart",
        "video_track_timescale": str(scale),
        "movie_timescale": str(scale),
        "chunk_duration": CHUNK_US,
    }
    with av.open(str(part), "w", format="mp4", options=options) as target:
        target.metadata["creation_time"] = created_at()
        with video.opened() as (source, stream):
            target.set_chapters(list(_chapters(source.chapters(), survey)))
            left_out = _left_out(source)
            made = target.add_stream_from_template(stream, opaque=True)
            if not isinstance(made, VideoStream):
                raise OutputFailed("this libavformat cannot copy a video")
            if survey.codec == "hevc" and stream.codec_context.codec_tag != "hev1":
                made.codec_context.codec_tag = "hvc1"  # which Apple's players ask for
            # What the container says of the shape is right where the stream says something else.
            made.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(0, 1)
            if stream.language:
                made.metadata["language"] = stream.language
        sound = MuxedSound(target, soundtrack)
        for access, decoded_at, packet in zip(copied, _decoding_times(copied), _packets(video), strict=False):
            packet.stream = made
            packet.pts, packet.dts = access.pts - survey.first, decoded_at - survey.first
            target.mux_one(packet)
            sound.extend(packet.dts * survey.time_base)
        sound.extend()
    return left_out


def _chapters(found: "Iterable[ChapterFields]", survey: Survey) -> "Iterator[ChapterFields]":
    """Yield the chapters that begin within the video, one after the other, with titles that an MP4 can have."""
    begins_s, ends_s = survey.first * survey.time_base, survey.end * survey.time_base
    starts: dict[Fraction, str] = {}
    for each in islice(found, _MOST_CHAPTERS):
        at = max(each["start"] * (each["time_base"] or Fraction(1)), begins_s)
        if at < ends_s and each["end"] * (each["time_base"] or Fraction(1)) > begins_s:
            starts[at - begins_s] = _shortened(each["metadata"].get("title", ""))
    edges = [*sorted(starts), ends_s - begins_s]
    for number, (start, end) in enumerate(pairwise(edges)):
        yield {
            "id": number,
            "start": round(start / _CHAPTER_TICK),
            "end": round(end / _CHAPTER_TICK),
            "time_base": _CHAPTER_TICK,
            "metadata": {"title": starts[start]},
        }


def _shortened(title: str) -> str:
    return title.encode()[:_TITLE_BYTES].decode(errors="ignore")


def _left_out(source: "InputContainer") -> list[str]:
    videos = [each for each in source.streams.video if not each.disposition & Disposition.attached_pic]
    streams, chapters = source.streams, len(source.chapters())
    kinds = {
        "further videos": videos[1:],
        "subtitles": streams.subtitles,
        "data tracks": [each for each in streams.data if not chapters or each.frames != chapters],  # QuickTime's titles
        "attachments": streams.attachments,
    }
    return [kind for kind, found in kinds.items() if found]


def _warnings(left_out: list[str], video: VideoFile) -> Iterator[ResultWarning]:
    if left_out:
        words = f"{' and '.join(left_out)} of the file are left out"
        yield ResultWarning(type="streams_left_out", message=words, loc=video.loc)


def _packets(video: VideoFile) -> "Iterator[Packet[VideoStream]]":
    """Yield the packets of the video; an error of libav is blamed on the video only if it is raised in here."""
    with video.opened() as (source, stream):
        yield from source.demux(stream)


@contextmanager
def _blame(video: VideoFile) -> Iterator[None]:
    """Turn the system's errors into ours, and call a video damaged if the muxer cannot write its packets."""
    try:
        yield
    except OSError as error:
        raise write_failure(error.errno, error.strerror) from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoDamaged("expected a video that can be copied, found a damaged one", loc=video.loc) from error


def _cut(part: Path, survey: Survey) -> None:
    """Make the edit list of the video end with the last frame that is shown, even if other packets follow it."""
    if all(packet.pts <= survey.last for packet in survey.packets if not packet.is_shown):
        return
    with part.open("r+b") as file:
        start, moov = read_moov(file)
        scale = _movie_timescale(moov)
        found = find(moov, (b"moov", b"trak", b"edts", b"elst"))
        if found is not None:
            _shorten(moov, found[0], round(survey.duration_s * scale))
            file.seek(start)
            file.write(moov)


def _movie_timescale(moov: bytearray) -> int:
    header = find(moov, (b"moov", b"mvhd"))
    if header is None:
        raise OutputFailed("the file has no header")
    at = header[0] + (20 if moov[header[0]] else 12)  # ISO/IEC 14496-12, 8.2.2: longer times in version 1
    (scale,) = struct.unpack_from(">I", moov, at)
    return int(scale)


def _shorten(moov: bytearray, elst: int, duration: int) -> None:
    """Write the duration of each edit that shows something (8.6.6)."""
    version, (count,) = moov[elst], struct.unpack_from(">I", moov, elst + 4)
    entry, form = (20, ">Qq") if version else (12, ">Ii")
    for at in range(elst + 8, elst + 8 + count * entry, entry):
        before, media_time = struct.unpack_from(form, moov, at)
        if media_time >= 0:
            struct.pack_into(form, moov, at, min(before, duration), media_time)


def _check(part: Path, packets: int) -> None:
    with av.open(str(part), options={"skip_frame": "all"}) as made:
        found = made.streams.video[0].frames
    if found != packets:
        raise ValueError(f"the file holds {found} packets of the video, expected {packets}")
