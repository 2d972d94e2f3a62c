"""Decodes a sound to floats at 48 kHz, from its first sample on, in pieces: a track of hours takes little memory.

Where a sound begins is what its file says: libavcodec leaves out the samples that an encoder has put in front (LAME's
header, Opus' pre-skip, edit lists), and a sound that begins late in a video begins with silence. libswresample delays
nothing: it looks ahead by the length of its filter.

PyAV 17.1 to 18.1 free a channel layout twice that names its channels one by one, which corrupts the heap. Such layouts
come from four kinds of boxes in MP4 and from xHE-AAC: the boxes are blanked and the codec is refused, before any frame
is made. Sound with one or two channels is decoded just as well without them.

A file that was cut short is decoded as far as it goes. One in which sound comes again after something that cannot be
decoded is damaged and refused: what is heard would not be what was sent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import av
import numpy as np
import numpy.typing as npt

from protocol.errors import Loc
from renderer.errors import SoundDamaged, UnsupportedSound, blaming
from renderer.media.demux import opened, preferred
from renderer.media.sound.formats import LEAST_RATE, MOST_CHANNELS, MOST_RATE, Container, is_cut, recognise, unsupported
from renderer.pictures.marks import Marks

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

RATE: Final = 48_000
Samples = npt.NDArray[np.float32]  # (channels, samples)

_LEAST_GAP_S: Final = 0.04  # Matroska's times are rounded to milliseconds
_LAST_FRAME: Final = 8192  # samples; a codec's last frame is longer than what is left of the sound
_LOUDEST: Final = 64.0  # floats in a file may be anything; 36 dB above full scale
_UNREAD_S: Final = 0.5
_PIECE: Final = RATE
_PROBED_BYTES: Final = 1 << 17  # of a WAV, where libav looks for DTS among samples; its 5 MB take 35 ms
_LAYOUTS: Final = (b"chan", b"chnl", b"SA3D", b"cmov")
_ESCAPE: Final = 31  # ISO/IEC 14496-3, 1.6.2.1: an audio object type above 31 follows, as USAC's
_FRAME: Final = 1 << 14
_TAG: Final = b"ID3"  # may come between MP3 files that were joined, which is not damage


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A sound whose header has been read.

    Attributes:
        loc: its url's place in the request.
        channels: 1 or 2; more are mixed down.
        stated_s: how long it is, as its file says; None where that would be a guess.
        about_s: the same, or that guess; 0 if there is none.
        is_cut: the file has fewer bytes than it says.
        codec, rate, channels_stated: what its header says.
    """

    data: bytes
    loc: Loc
    container: Container
    channels: int
    stated_s: Fraction | None
    about_s: Fraction
    is_cut: bool = False
    codec: str = ""
    rate: int = RATE
    channels_stated: int = 0


def read_header(data: bytes, loc: Loc, marks: Marks) -> SoundFile:
    """Read what a file says of its sound; nothing is decoded.

    Raises:
        UnsupportedSound: no decoder of the table reads it; the message names what was found.
        SoundDamaged: its header is damaged.
    """
    try:
        row, begins = recognise(data)
    except UnsupportedSound as error:
        raise error.at(*loc) from error.__cause__
    data = data[begins:]
    if row.demuxer.startswith("mov"):
        data = _without_layouts(data)
    with marks.decoding(*loc), _opened(data, row, loc) as (container, stream):
        context = stream.codec_context
        if not context.sample_rate or not context.channels:
            raise SoundDamaged(f"expected a whole sound ({row.name}), found one without samples")
        _check(context.sample_rate, context.channels)
        stated_s = None
        if row.tells_length and stream.duration and stream.time_base:
            stated_s = stream.duration * stream.time_base + _begins_s(stream, row)
        about_s = stated_s or Fraction(max(0, container.duration or 0), av.time_base)
        heard = min(context.channels, 2)
        of_header = (context.codec.canonical_name, context.sample_rate, context.channels)
        return SoundFile(data, loc, row, heard, stated_s, about_s, is_cut(data), *of_header)


class Reading:
    """One reading of a sound from its beginning to its end; iterate once.

    Attributes:
        ends_early_s: where the file ends although it should go on; None where it is whole, so far.
    """

    def __init__(self, file: SoundFile, marks: Marks) -> None:
        self.ends_early_s: float | None = None
        self._file = file
        self._marks = marks
        self._done = 0  # samples yielded

    def __iter__(self) -> Iterator[Samples]:
        """Yield the sound, (channels, samples) each.

        Raises:
            UnsupportedSound, SoundDamaged: it cannot be decoded.
        """
        stated = None if self._file.stated_s is None else round(self._file.stated_s * RATE)
        for piece, is_tail in with_tail(self._pieces(), _LAST_FRAME):
            self._done += piece.shape[1]
            excess = self._done - stated if is_tail and stated is not None else 0
            yield piece[:, : piece.shape[1] - excess] if 0 < excess < piece.shape[1] else piece
        if self._file.is_cut or (stated is not None and self._done < stated - _UNREAD_S * RATE):
            self.ends_early_s = self._done / RATE

    def _pieces(self) -> Iterator[Samples]:
        file = self._file
        with _opened(file.data, file.container, file.loc) as (container, stream):
            resampler = _Resampler(file.channels)
            for frame, begins_s in self._frames(container, stream):
                if begins_s is not None:
                    yield from resampler.finish()
                    yield from _silence(file.channels, round(begins_s * RATE) - resampler.made)
                    resampler.made = round(begins_s * RATE)
                yield from resampler.take(frame)
            yield from resampler.finish()

    def _frames(
        self, container: "InputContainer", stream: "AudioStream"
    ) -> "Iterator[tuple[AudioFrame, float | None]]":
        """Yield what can be decoded; nothing may come after what cannot.

        A frame that begins later than the last one has ended comes with its time, where its container has a timeline.
        """
        packets, failed_at = container.demux(stream), None
        due_s: float | None = 0.0 if self._file.container.has_times else None
        while True:
            packet, frames, has_failed = self._decoded(packets, stream)
            for frame in frames:
                begins_s = due_s if frame.time is None else frame.time
                is_late = due_s is not None and begins_s is not None and begins_s > due_s + _LEAST_GAP_S
                if failed_at is not None or (is_late and not self._file.container.has_times):
                    raise SoundDamaged(f"expected a whole sound, found one that is damaged at about {due_s or 0:.1f} s")
                yield frame, begins_s if is_late else None
                due_s = max(due_s or 0.0, begins_s or 0.0) + frame.samples / frame.sample_rate
            if has_failed and failed_at is None:
                failed_at = self.ends_early_s = due_s or 0.0
            if packet is None:
                return

    def _decoded(
        self, packets: "Iterator[Packet[AudioStream]]", stream: "AudioStream"
    ) -> "tuple[Packet[AudioStream] | None, list[AudioFrame], bool]":
        """Return the next packet, None after the last; what was decoded of it; and whether that has failed."""
        with self._marks.decoding(*self._file.loc):
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                return None, [], True
            if packet is None:
                return None, [], False
            if packet.has_sidedata("new_extradata"):
                raise unsupported("one that changes its coding on the way")
            try:
                return packet, stream.codec_context.decode(packet), False
            except av.EOFError:
                return packet, [], False
            except av.FFmpegError:
                return packet, [], bytes(packet)[: len(_TAG)] != _TAG


class _Resampler:
    """Turns frames into 48 kHz and one or two channels; a stream may change its format on the way.

    Attributes:
        made: samples so far.
    """

    def __init__(self, channels: int) -> None:
        self.made = 0
        self._layout = "mono" if channels == 1 else "stereo"
        self._format: tuple[object, ...] | None = None
        self._resampler = self._fresh()

    def _fresh(self) -> av.AudioResampler:
        return av.AudioResampler("fltp", self._layout, RATE, _FRAME)

    def take(self, frame: "AudioFrame") -> Iterator[Samples]:
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if found != self._format:
            _check(frame.sample_rate, frame.layout.nb_channels)
            yield from self.finish()
            self._format = found
        frame.pts = None  # they would be taken for gaps
        yield from self._resampled(frame)

    def finish(self) -> Iterator[Samples]:
        """Yield what is still inside, and begin anew."""
        if self._format is not None:
            yield from self._resampled(None)
            self._resampler, self._format = self._fresh(), None

    def _resampled(self, frame: "AudioFrame | None") -> Iterator[Samples]:
        for made in self._resampler.resample(frame):
            self.made += made.samples
            yield _samples(made)


def _samples(frame: "AudioFrame") -> Samples:
    found = np.asarray(frame.to_ndarray(), np.float32)
    if not np.abs(found).max(initial=0) <= _LOUDEST:  # written so that it holds for NaN as well
        found = np.clip(np.nan_to_num(found), -_LOUDEST, _LOUDEST)
    return found


def _silence(channels: int, samples: int) -> Iterator[Samples]:
    for begin in range(0, samples, _PIECE):
        yield np.zeros((channels, min(_PIECE, samples - begin)), np.float32)


def with_tail(pieces: Iterator[Samples], size: int) -> Iterator[tuple[Samples, bool]]:
    """Yield the same samples; the last `size` of them, or fewer, come as one piece that is marked."""
    kept: list[Samples] = []
    held = 0
    for piece in pieces:
        kept.append(piece)
        held += piece.shape[1]
        while held - kept[0].shape[1] >= size:
            held -= kept[0].shape[1]
            yield kept.pop(0), False
    if kept:
        rest = np.concatenate(kept, axis=1)
        cut = max(0, held - size)
        if cut:
            yield rest[:, :cut], False
        yield rest[:, cut:], True


def _check(rate: int, channels: int) -> None:
    if channels > MOST_CHANNELS:
        raise unsupported(f"one of {channels} channels; up to {MOST_CHANNELS} are read")
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise unsupported(f"one of {rate} samples a second; {LEAST_RATE} to {MOST_RATE} are read")


@contextmanager
def _opened(data: bytes, row: Container, loc: Loc) -> "Iterator[tuple[InputContainer, AudioStream]]":
    def chosen(container: "InputContainer") -> "AudioStream":
        if not container.streams.audio:
            raise unsupported(f"a file without sound ({row.name})")
        stream = preferred(container.streams.audio)
        context = stream.codec_context
        if context is None or context.name not in row.codecs:
            name = "something unknown" if context is None else context.codec.canonical_name
            raise unsupported(f"a sound coded as {name}")
        if context.name == "aac" and (context.extradata or b"\0")[0] >> 3 == _ESCAPE:
            raise unsupported("a sound coded as xHE-AAC or another extension of AAC")
        return stream

    limits = {"probesize": _PROBED_BYTES} if row.demuxer == "wav" else {}
    reading = opened(data, row.demuxer, row.codecs, chosen, limits)
    with blaming(SoundDamaged, f"sound ({row.name})", loc), reading as found:
        yield found


def _without_layouts(data: bytes) -> bytes:
    """Return an MP4 without the boxes that may name channels one by one, nor a compressed index, which may hold some.

    Anything with the name of such a box and a possible size is taken for one, since libav might read it as one.
    """
    found = [
        at
        for name in _LAYOUTS
        for at in _places(data, name)
        if at >= 4 and ((size := int.from_bytes(data[at - 4 : at], "big")) < 2 or 8 <= size <= len(data) - at + 4)
    ]
    if not found:
        return data
    changed = bytearray(data)
    for at in found:
        changed[at : at + 4] = b"free"
    return bytes(changed)


def _places(data: bytes, name: bytes) -> Iterator[int]:
    at = data.find(name)
    while at >= 0:
        yield at
        at = data.find(name, at + 1)


def _begins_s(stream: "AudioStream", row: Container) -> Fraction:
    if not row.has_times or stream.start_time is None or stream.time_base is None:
        return Fraction(0)
    return stream.start_time * stream.time_base
