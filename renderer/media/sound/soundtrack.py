"""The sound of a job: its files, and their mix, coded on a thread of its own beside the pictures.

libav lets go of the GIL, so a thread is enough. It waits when it is ten seconds ahead, so that hours of sound take
little memory. AAC is libavcodec's own. Its `fast` coder takes half of the time, but has one quantizer for everything:
it cut a loud sine by 3 dB and left 10 dB of pink noise's signal-to-noise ratio, of which the other leaves 27.
"""

import contextvars
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

import av
import numpy as np

from protocol.schema import ImageFrame, RenderRequest, ResultWarning
from renderer.errors import EncodeFailed, JobError, NotSupported, SoundDamaged, as_one
from renderer.media.sound.decode import RATE, Samples, SoundFile, read_header
from renderer.media.sound.loudness import Evened
from renderer.media.sound.mix import CEILING, Placed, limited, mixed
from renderer.pictures.fetch import Fetcher
from renderer.pictures.marks import Marks
from renderer.timeline import LengthLimits, Timeline, check_length, following, has_no_time

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_AHEAD: Final = 500  # packets; ten seconds
_LOOK_S: Final = 1.0
_FULL_SCALE: Final = 1.0
_CODERS: Final = {"aac": "aac", "opus": "libopus"}
_SAMPLES_AS: Final = {"aac": "fltp", "opus": "flt"}
_OPUS_MOST: Final = 256_000  # bits a second and channel


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """How the sound is coded."""

    codec: str
    channels: int
    bit_rate: int

    @property
    def coder(self) -> str:
        """The name of libavcodec's encoder."""
        return _CODERS[self.codec]

    @property
    def layout(self) -> str:
        return "mono" if self.channels == 1 else "stereo"

    def context(self) -> av.AudioCodecContext:
        context = av.CodecContext.create(self.coder, "w")
        if not isinstance(context, av.AudioCodecContext):
            raise EncodeFailed(f"libav has no encoder {self.coder} for sound")
        context.sample_rate, context.layout = RATE, self.layout
        context.format, context.time_base = _SAMPLES_AS[self.codec], Fraction(1, RATE)
        context.bit_rate = self.bit_rate
        return context


class Mix(Protocol):
    """What a soundtrack is made of."""

    @property
    def format(self) -> SoundFormat: ...

    def mixed(self, total: int) -> Iterator[Samples]:
        """Yield the sound of a video of `total` samples.

        Raises:
            JobError: a sound is at fault.
        """

    def refuse_late(self, limit_s: float | None) -> None:
        """Raise the fault of a decoder that has taken longer for a packet than this, if there is a limit."""


class Tracks:
    """The sounds of a request; each file is fetched once, however many attempts follow.

    Attributes:
        warnings: what the client might not expect of the sound, once that was mixed.
        duration_s: where the last sound ends, once they were mixed.
    """

    def __init__(self, request: RenderRequest, fetcher: Fetcher, marks: Marks) -> None:
        self._request = request
        self._fetcher = fetcher
        self._marks = marks
        self.warnings: tuple[ResultWarning, ...] = ()
        self.duration_s = Fraction(0)
        self._measured_s: Fraction | None = None
        self._is_longer = False

    @cached_property
    def files(self) -> Sequence[SoundFile]:
        """The files, their headers read.

        Raises:
            JobError: some cannot be had; all of them are named.
        """
        contents: dict[str, bytes] = {}
        faults: list[JobError] = []
        found: list[SoundFile] = []
        for place, track in enumerate(self._request.audio):
            try:
                if track.url not in contents:
                    contents[track.url] = self._fetched(track.url)
                found.append(read_header(contents[track.url], ("audio", place, "url"), self._marks))
            except JobError as error:
                faults.append(error.at("audio", place, "url"))
        if faults:
            raise as_one(faults)
        return found

    def _fetched(self, url: str) -> bytes:
        content = self._fetcher.fetch(url)
        if not isinstance(content, bytes):
            raise SoundDamaged("expected the file of a sound, found raw pixels")
        return content

    @property
    def format(self) -> SoundFormat:
        request, channels = self._request, max(file.channels for file in self.files)
        most = _OPUS_MOST * channels if request.audio_codec == "opus" else request.audio_bitrate
        return SoundFormat(request.audio_codec, channels, min(request.audio_bitrate, most))

    def check_codec(self, output: Path) -> None:
        """Refuse a codec that the file cannot hold."""
        if self._request.audio_codec == "opus" and output.suffix.lower() != ".mp4":
            raise NotSupported("only .mp4 files hold Opus; expected aac, or a name in .mp4", loc=("audio_codec",))

    def followed(
        self, line: Timeline, images: Sequence[ImageFrame], limits: LengthLimits, say: Callable[[], None]
    ) -> Timeline:
        """Return the timeline of these stills as the request lets it follow the sound.

        Args:
            say: called repeatedly while sounds are decoded.

        Raises:
            JobError: a sound is at fault.
            LimitExceeded: the video would be too long.
        """
        rule = self._request.length
        if rule == "stills":
            return line
        sound_s = self._measured(math.ceil(limits.max_duration_s), say)
        sharing = [index for index, image in enumerate(images) if has_no_time(image)]
        found = following(line, sharing, rule, sound_s)
        check_length(found, limits, ("length",))
        self._is_longer = found.duration_s - sound_s >= 1 / line.fps
        return found

    def _measured(self, most_s: int, say: Callable[[], None]) -> Fraction:
        """Decode the sounds and return how long they are together, without those that are repeated for ever.

        Nothing is decoded beyond `most_s`: longer sounds count as `most_s` and one second.
        """
        if self._measured_s is None:
            total = RATE * (most_s + 1)
            ends = [0]
            for track, file in zip(self._request.audio, self.files, strict=True):
                if track.duration is not None or not track.loop:
                    pieces = Placed(track, file, total, self._marks).pieces()
                    ends.append(sum(_counted(pieces, say)))
            self._measured_s = Fraction(max(ends), RATE)
        return self._measured_s

    def mixed(self, total: int) -> Iterator[Samples]:
        """Yield the sound of a video of `total` samples; see Mix."""
        placed: list[Placed] = []

        def mix() -> Iterator[Samples]:
            pairs = zip(self._request.audio, self.files, strict=True)
            placed[:] = [Placed(track, file, total, self._marks) for track, file in pairs]
            return mixed(placed, total)

        warnings: tuple[ResultWarning, ...] = ()
        if self._request.loudness is None:
            [first, *others] = self._request.audio
            yield from limited(mix(), CEILING if others or first.gain_db > 0 else _FULL_SCALE)
        else:
            evened = Evened(mix, self._request.loudness)
            yield from evened.pieces()
            warnings = evened.warnings
        self.warnings = (*self._silence(total), *(each for track in placed for each in track.warnings()), *warnings)
        self.duration_s = self._measured_s or Fraction(max(each.end for each in placed), RATE)

    def _silence(self, total: int) -> Iterator[ResultWarning]:
        """Warn if the stills, which follow the sound, need more time than it has."""
        sound_s, video_s = self._measured_s, Fraction(total, RATE)
        if self._request.length == "audio" and sound_s is not None and self._is_longer:
            words = f"the stills need {float(video_s):.3f} s, so silence follows the sound's {float(sound_s):.3f} s"
            yield ResultWarning(type="video_longer", message=words, loc=("length",))

    def refuse_late(self, limit_s: float | None) -> None:
        """Refuse a decoder that is late; see Mix."""
        late = [decoding for decoding in self._marks.inside() if limit_s is not None and decoding.since_s > limit_s]
        if late and limit_s is not None:
            raise late[0].timed_out(limit_s)


def _counted(pieces: Iterator[Samples], say: Callable[[], None]) -> Iterator[int]:
    for piece in pieces:
        say()
        yield piece.shape[1]


class Soundtrack:
    """The coded sound of one attempt. Use as a context manager, iterate once; its thread begins and ends with it."""

    def __init__(self, tracks: Mix, total: int, decode_limit_s: float | None) -> None:
        """Prepare the sound of a video of `total` samples.

        Args:
            decode_limit_s: for one packet inside a decoder; None if another process watches the marks.
        """
        self.samples = total
        self._tracks = tracks
        self._decode_limit_s = decode_limit_s
        self._made: queue.Queue[object] = queue.Queue(_AHEAD)
        self._is_over = threading.Event()
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._work,), name="sound", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over.set()
        with suppress(queue.Empty):
            while True:
                self._made.get_nowait()  # so that the thread can put what it waits with, and sees that it is over
        self._thread.join(_LOOK_S)  # a decoder that hangs keeps its thread

    @cached_property
    def format(self) -> SoundFormat:
        """How it is coded; waits until the headers of the files were read.

        Raises:
            JobError: a sound is at fault.
        """
        found = self._taken()
        if not isinstance(found, SoundFormat):
            raise TypeError("the format comes first")
        return found

    def __iter__(self) -> "Iterator[Packet[Stream]]":
        """Yield the packets in order, as they are made.

        Raises:
            JobError: a sound is at fault.
        """
        _ = self.format
        while isinstance(packet := self._taken(), av.Packet):
            yield packet

    def _taken(self) -> object:
        while True:
            try:
                found = self._made.get(timeout=_LOOK_S)
            except queue.Empty:
                self._tracks.refuse_late(self._decode_limit_s)
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def _work(self) -> None:
        try:
            self._put(self._tracks.format)
            for packet in _coded(self._tracks.mixed(self.samples), self._tracks.format):
                self._put(packet)
            self._put(None)
        except _Over:
            return
        except Exception as error:  # noqa: BLE001 - it is raised where the packets are taken
            with suppress(_Over):
                self._put(error)

    def _put(self, made: object) -> None:
        while not self._is_over.is_set():
            with suppress(queue.Full):
                self._made.put(made, timeout=_LOOK_S)
                return
        raise _Over


class _Over(Exception):
    """Nobody takes packets any more."""


def _coded(pieces: Iterator[Samples], sound: SoundFormat) -> "Iterator[Packet[Stream]]":
    """Code the sound; its first packets have times before 0, for what a decoder leaves out."""
    try:
        coder, at = sound.context(), 0
        for piece in pieces:
            planes = piece if sound.codec == "aac" else piece.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(planes), _SAMPLES_AS[sound.codec], sound.layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
            at += piece.shape[1]
            yield from coder.encode(frame)
        yield from coder.encode(None)
    except av.FFmpegError as error:
        raise EncodeFailed(f"the sound could not be coded: {error.strerror}") from error
