"""The encoder's side of the cache: stills that are coded already pass by it, and it begins when one is not.

Where every still is an IDR picture, each is coded for itself: the same picture gives the same slices wherever it comes
in a stream, but for idr_pic_id and the last bits, which no decoder looks at (x264 marks them by the number of the
frame). `encode.h264.repeat` changes idr_pic_id where two that are alike would meet.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from renderer.config import EncodeSettings
from renderer.encode.base import Encoder, Nv12Frame
from renderer.encode.ffmpeg import find_ffmpeg, has_own_offsets, identity_of
from renderer.encode.h264.repeat import parted
from renderer.encode.sequence import FrameSequence, HeldSequence, Sample
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.pictures.kept import CodedStill, Recall
from renderer.pictures.memory import PLAIN_STOCK, FrameStock

_MOST_AHEAD = 32  # coded stills in memory; an encoder with many threads keeps as many pictures until more come


def is_cacheable(stream: StreamSettings) -> bool:
    """Whether no still of the stream is coded otherwise because of another one."""
    return stream.held is not None and stream.held.is_all_idr and has_own_offsets(stream.held)


def coded_by(stream: StreamSettings, settings: EncodeSettings) -> tuple[object, ...]:
    """Return what decides, beside its own offset, how libx264 codes a still of this stream."""
    of_any_still = replace(stream.held, is_idr=(), quantiser_offsets=()) if stream.held else None
    return identity_of(find_ffmpeg(settings)), replace(stream, held=of_any_still)


def offsets_of(stream: StreamSettings, images: Sequence[int]) -> Mapping[int, float]:
    """Return the quantiser's offset for each still, by its place in the request."""
    return dict(zip(images, stream.held.quantiser_offsets if stream.held else (), strict=True))


class OtherStream(Exception):
    """A still of the cache has other parameter sets than the stream that it was found for."""


class LateEncoder(Encoder):
    """The encoder that `open_encoder` opens, once it is needed; see `encode.base.Encoder` for the contract.

    An encoder gets the offsets of the quantiser when it begins, so it gets those of all stills that may still come. If
    stills are left out, so that a still takes the place of one with another offset, the encoder is begun anew.
    """

    def __init__(self, stream: StreamSettings, open_encoder: Callable[[StreamSettings], Encoder]) -> None:
        """Open nothing yet."""
        self._stream = stream
        self._open_encoder = open_encoder
        self._encoder: Encoder | None = None
        self._stills = 0  # coded or left out
        self._expected = 0  # the still that the encoder takes the next frame for

    @property
    def stock(self) -> FrameStock:
        return self._encoder.stock if self._encoder else PLAIN_STOCK

    @property
    def pending_frames(self) -> int:
        return self._encoder.pending_frames if self._encoder else 0

    def begin(self) -> Encoder:
        """Open the encoder, for the next still and all that follow, unless it is open."""
        if self._encoder is None:
            self._encoder = self._open_encoder(self._rest())
            self._expected = self._stills
        return self._encoder

    def begun(self) -> Self:
        """Open the encoder now, and return this one."""
        self.begin()
        return self

    def leave_out(self) -> None:
        """Note that the next still is not given to the encoder."""
        self._stills += 1

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        finished = self.end() if self._is_told_otherwise() else []
        units = self.begin().encode(frame)
        self._stills += 1
        self._expected += 1
        return [*finished, *units]

    def end(self) -> list[AccessUnit]:
        """Return what is still inside, and close the encoder; a frame that follows begins it anew."""
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return []
        with encoder:
            return list(encoder.flush())

    def flush(self) -> Iterable[AccessUnit]:
        return self._encoder.flush() if self._encoder else ()

    def close(self) -> None:
        if self._encoder:
            self._encoder.close()

    def _rest(self) -> StreamSettings:
        held = self._stream.held
        if held is None or self._stills == 0:
            return self._stream
        is_idr, offsets = held.is_idr[self._stills :], held.quantiser_offsets[self._stills :]
        return replace(self._stream, held=replace(held, is_idr=is_idr, quantiser_offsets=offsets))

    def _is_told_otherwise(self) -> bool:
        """Whether the encoder would give the next frame an offset that is not its own."""
        held = self._stream.held
        if held is None or self._encoder is None:
            return False
        return held.quantiser_offsets[self._expected] != held.quantiser_offsets[self._stills]


@dataclass(slots=True)
class CodedFrames:
    """The way of access units into the file, and of those that are new into the cache.

    Attributes:
        write: takes samples of the video.
        counts: of the stills that could be in the cache, those "found" there and those "coded".
    """

    sequence: FrameSequence
    recall: Recall | None
    write: Callable[[Iterable[Sample]], None]
    counts: Counter[str] = field(default_factory=Counter)
    _at_encoder: deque[int] = field(default_factory=deque)
    _sets: bytes | None = None

    def expect(self, image: int) -> None:
        """Note that the encoder is given the still of this place in the request."""
        self._at_encoder.append(image)

    def add(self, units: Iterable[AccessUnit]) -> None:
        """Add what the encoder has returned."""
        for unit in units:
            if self.recall:
                sets, slices = parted(unit.data)
                self._check(sets)
                self.recall.put(self._at_encoder.popleft(), sets + slices)
                self.counts["coded"] += 1
            self.write(self.sequence.push(unit))

    def know(self, index: int, still: CodedStill) -> None:
        """Add a still that an earlier job has coded, by its place in the plan."""
        assert isinstance(self.sequence, HeldSequence)  # noqa: S101 - no other stream has a cache
        self._check(parted(still.access_unit)[0])
        self.counts["found"] += 1
        self.write(self.sequence.know(index, still.access_unit))

    @property
    def is_behind(self) -> bool:
        """Whether so many known stills wait behind one in the encoder that the encoder should finish that one now."""
        return isinstance(self.sequence, HeldSequence) and self.sequence.known_ahead >= _MOST_AHEAD

    def _check(self, sets: bytes) -> None:
        self._sets = self._sets or sets
        if sets != self._sets:
            raise OtherStream("a still that was kept has other parameter sets than the rest of the stream")
