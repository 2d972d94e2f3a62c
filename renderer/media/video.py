"""Videos that were made elsewhere: what is in a file, and single frames of it, exactly.

A survey reads every packet's times and decodes nothing. Which packets an edit list leaves out is libavformat's to say:
it marks them, and libavcodec decodes them without showing them. A frame is then found by its time, and what is decoded
for it begins at the last keyframe before it. Where that does not lead to the frame, because a packet was marked as a
keyframe and cannot be decoded alone, the video is decoded from its beginning.

Decoders are told to report every fault that they notice, and a video with a fault on the way to the frame is refused:
what they would show in its place may be anything. They run on the thread that asks, so that a crash shows whose it is.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Final

from av.stream import Disposition

from protocol.errors import Loc
from protocol.media import FrameType
from renderer.config import RenderSettings
from renderer.errors import ImageTooLarge, LimitExceeded, UnsupportedVideo, VideoDamaged, blaming
from renderer.media.demux import opened, preferred
from renderer.media.formats import DECODERS, recognise, unsupported
from renderer.media.sound.formats import is_cut
from renderer.pictures.marks import Marks

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST_STREAMS: Final = 64
_STRICT: Final = {"err_detect": "crccheck+bitstream+buffer+explode"}


class NoVideo(UnsupportedVideo):
    """The file has no video, but may have sound."""


@dataclass(frozen=True, slots=True)
class Access:
    """One packet of the video, in ticks of its time base; `is_shown` is false where an edit list leaves it out."""

    pts: int
    duration: int
    size_bytes: int
    is_key: bool
    is_shown: bool


@dataclass(frozen=True)
class Survey:
    """What a file says of its video, and the times of all its packets, in decoding order.

    Values that depend on all packets are computed once, since they are needed again for each packet that is copied.
    """

    codec: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction | None
    packets: tuple[Access, ...]

    @cached_property
    def first(self) -> int:
        """When the first frame is shown."""
        return min(packet.pts for packet in self.packets if packet.is_shown)

    @cached_property
    def last(self) -> int:
        """When the last frame is shown."""
        return max(packet.pts for packet in self.packets if packet.is_shown)

    @cached_property
    def end(self) -> int:
        """When the last frame ends."""
        return max(packet.pts + packet.duration for packet in self.packets if packet.is_shown)

    @cached_property
    def frames(self) -> int:
        return sum(packet.is_shown for packet in self.packets)

    @cached_property
    def duration_s(self) -> Fraction:
        return (self.end - self.first) * self.time_base

    def latest(self, frame: FrameType) -> Fraction:
        """Return a moment in ticks; the wanted frame is the last one at or before it."""
        if frame == "middle":
            return Fraction(self.first + self.end, 2)
        return Fraction(self.first if frame == "first" else self.last)


class VideoFile:
    """A video in memory; used on one thread."""

    def __init__(self, data: bytes, loc: Loc, settings: RenderSettings, marks: Marks) -> None:
        """Recognise the container.

        Raises:
            UnsupportedVideo: it is not read here.
        """
        self.data = data
        self.loc = loc
        try:
            self.container = recognise(data)
        except UnsupportedVideo as error:
            raise error.at(*loc) from error.__cause__
        self._settings = settings
        self._marks = marks

    @cached_property
    def survey(self) -> Survey:
        """What is in the file; nothing is decoded for it except what libavformat itself decodes to open a file.

        Raises:
            UnsupportedVideo, VideoDamaged: it cannot be used.
            ImageTooLarge, LimitExceeded: it is above a limit.
        """
        with self.opened() as (container, stream):
            context, time_base = stream.codec_context, stream.time_base
            if time_base is None or not context.width or not context.height:
                raise VideoDamaged(f"expected a video ({self.container.name}), found one without a size")
            self._check_size(context.width, context.height)
            if is_cut(self.data):
                raise VideoDamaged("expected a whole video, found one that is cut short")
            if "enc_key_id" in stream.metadata:  # of Matroska; MP4's packets tell
                raise unsupported("one that is encrypted")
            packets = tuple(self._accesses(container, stream))
            if not any(packet.is_shown for packet in packets):
                raise VideoDamaged(f"expected a video ({self.container.name}), found one without frames")
            if len(packets) < len(stream.index_entries) and self.container.name == "MP4":
                raise VideoDamaged(f"expected {len(stream.index_entries)} frames, found the data of {len(packets)}")
            found = Survey(
                context.codec.canonical_name, context.width, context.height, time_base, stream.average_rate, packets
            )
        if found.duration_s > self._settings.limits.max_duration_s:
            most = self._settings.limits.max_duration_s
            words = f"expected up to {most:g} s, found {float(found.duration_s):g} s (limits.max_duration_s)"
            raise LimitExceeded(words, loc=self.loc, context={"le": most})
        return found

    def frame(self, wanted: FrameType) -> "VideoFrame":
        """Decode one frame.

        Raises:
            VideoDamaged: something that the frame needs is damaged.
        """
        latest, packets = self.survey.latest(wanted), self.survey.packets
        exact = max(packet.pts for packet in packets if packet.is_shown and packet.pts <= latest)
        at = next(place for place, packet in enumerate(packets) if packet.is_shown and packet.pts == exact)
        keys = (place for place in range(at, -1, -1) if packets[place].is_key and packets[place].pts <= exact)
        begin = next(keys, 0)
        if begin:
            try:
                found = self._decoded(begin, latest)
            except VideoDamaged:
                found = None
            if found is not None and found.pts == exact:
                return found
        found = self._decoded(0, latest)
        if found is None:
            raise VideoDamaged("expected a whole video, found one without the frame")
        return found

    def _decoded(self, begin: int, latest: Fraction) -> "VideoFrame | None":
        """Decode from a packet on, and return the last frame that is shown at or before a moment, else the first.

        Raises:
            VideoDamaged: a packet on the way cannot be decoded.
        """
        found = None
        for frame in self._frames(begin):
            if found is not None and (frame.pts or 0) > latest:
                break
            found = frame
        return found

    def _frames(self, begin: int) -> "Iterator[VideoFrame]":
        with self.opened() as (container, stream):
            stream.codec_context.options = {**_STRICT, "max_pixels": str(self._settings.pictures.max_image_pixels)}
            packets = container.demux(stream)
            for _ in range(begin):
                next(packets)
            while True:
                with self._marks.decoding(*self.loc):
                    packet = next(packets, None)
                    frames = [] if packet is None else stream.codec_context.decode(packet if packet.size else None)
                for frame in frames:
                    if frame.is_corrupt or frame.pts is None:
                        raise VideoDamaged("expected a whole video, found one that is damaged before the frame")
                    self._check_size(frame.width, frame.height)
                    yield frame
                if packet is None or not packet.size:
                    return

    def _accesses(self, container: "InputContainer", stream: "VideoStream") -> Iterator[Access]:
        most = self._settings.limits.max_frames
        packets = container.demux(stream)
        for count in range(most + 1):
            with self._marks.decoding(*self.loc):
                packet = next(packets, None)
            if packet is None or not packet.size:
                return
            if count == most:
                words = f"expected up to {most} frames, found more (limits.max_frames)"
                raise LimitExceeded(words, loc=self.loc, context={"le": most})
            yield _access(packet)

    def _check_size(self, width: int, height: int) -> None:
        most = self._settings.pictures.max_image_pixels
        if width * height > most:
            words = f"expected up to {most} pixels, found {width}x{height} (pictures.max_image_pixels)"
            raise ImageTooLarge(words, loc=self.loc)

    @contextmanager
    def opened(self) -> "Iterator[tuple[InputContainer, VideoStream]]":
        """Open the file by the demuxer of its container, which may open no other file and only decoders of the table.

        Raises:
            UnsupportedVideo, VideoDamaged: at the place of its url; so is what libav raises within the block.
        """
        limits = {"max_streams": _MOST_STREAMS, "max_pixels": self._settings.pictures.max_image_pixels}
        demuxer = self.container.demuxer
        with blaming(VideoDamaged, f"video ({self.container.name})", self.loc), ExitStack() as stack:
            with self._marks.decoding(*self.loc):
                found = stack.enter_context(opened(self.data, demuxer, DECODERS.values(), _chosen, limits))
            yield found


def _chosen(container: "InputContainer") -> "VideoStream":
    """Return the video that the file prefers, or its first; the picture of a cover does not count as a video."""
    videos = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not videos:
        raise NoVideo(unsupported("a file without video").message)
    stream = preferred(videos)
    context = stream.codec_context
    if context is None or context.name not in DECODERS.values():
        raise unsupported(f"a video coded as {'something unknown' if context is None else context.name}")
    return stream


def _access(packet: "Packet[VideoStream]") -> Access:
    if packet.pts is None or packet.is_corrupt:
        raise VideoDamaged("expected a whole video, found one that is cut short or has no times")
    if packet.has_sidedata("new_extradata"):
        raise unsupported("one that changes its coding on the way")
    if packet.has_sidedata("encryption_info"):
        raise unsupported("one that is encrypted")
    return Access(packet.pts, packet.duration or 0, packet.size, packet.is_keyframe, not packet.is_discard)
