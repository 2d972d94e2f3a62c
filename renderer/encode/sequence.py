"""From coded pictures to the frames of the video: holds are synthesised, or presentation order is found.

Both sequences take an encoder's access units in decoding order and give samples, one per frame of the video, in
decoding order with their number in presentation order. Neither knows which encoder it was.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from renderer.encode.h264.bits import UnsupportedStream
from renderer.encode.h264.order import PresentationOrder
from renderer.encode.h264.repeat import HeldPictures, is_idr
from renderer.encode.plan import StreamPlan
from renderer.encode.stream import AccessUnit
from renderer.errors import EncodeFailed


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of the video as the file holds it.

    Attributes:
        frame: its number in presentation order.
        is_sync: a player may begin here.
    """

    data: bytes
    frame: int
    is_sync: bool


class FrameSequence(Protocol):
    """Turns one stream's access units into samples."""

    @property
    def reordered(self) -> int:
        """How many samples may come before one in decoding order and after it in presentation order."""

    @property
    def frames_done(self) -> int:
        """How many frames of the video the access units so far are."""

    def push(self, unit: AccessUnit) -> Iterable[Sample]:
        """Take the next access unit and return the samples it completes.

        Raises:
            encode.h264.bits.UnsupportedStream: pictures of this stream cannot be held; it has to be begun again.
            EncodeFailed: the stream cannot be used.
        """

    def flush(self) -> Iterable[Sample]:
        """Return what is still inside, after the last access unit."""


def sequence_for(plan: StreamPlan) -> FrameSequence:
    return HeldSequence(plan) if plan.is_held else CodedSequence()


class HeldSequence:
    """Holds every coded still as long as planned."""

    reordered = 0

    def __init__(self, plan: StreamPlan) -> None:
        self._stills = iter(enumerate(plan.stills))
        self._copied = {still.copy_of for still in plan.stills}
        self._held = HeldPictures()
        self._originals: dict[int, bytes] = {}
        self._known: dict[int, bytes] = {}
        self._waiting = next(self._stills, None)
        self._frames = 0

    @property
    def frames_done(self) -> int:
        return self._frames

    def push(self, unit: AccessUnit) -> Iterator[Sample]:
        yield from self._hold(unit.data)
        yield from self._hold_known()

    def know(self, index: int, access_unit: bytes) -> Iterator[Sample]:
        """Take the access unit of a still that is not given to the encoder, and return the samples it completes."""
        self._known[index] = access_unit
        yield from self._hold_known()

    @property
    def known_ahead(self) -> int:
        """How many of those stills wait for one that was given to the encoder."""
        return len(self._known)

    def flush(self) -> Iterable[Sample]:
        return ()

    def _hold_known(self) -> Iterator[Sample]:
        """Hold the stills whose turn it is and that need not be coded."""
        while self._waiting:
            index, still = self._waiting
            known = self._known.pop(index, None) if still.copy_of is None else self._originals[still.copy_of]
            if known is None:
                return
            yield from self._hold(known)

    def _hold(self, access_unit: bytes) -> Iterator[Sample]:
        if self._waiting is None:
            raise EncodeFailed("the encoder returned more access units than it was given stills")
        index, still = self._waiting
        self._waiting = next(self._stills, None)
        if index in self._copied:
            self._originals[index] = access_unit
        for data in self._held.hold(access_unit, still.hold - 1, sync_every=still.sync_every):
            yield Sample(data, self._frames, is_sync=is_idr(data))
            self._frames += 1


class CodedSequence:
    """Every frame was coded, perhaps out of order."""

    def __init__(self) -> None:
        self._order = PresentationOrder()
        self._units = 0

    @property
    def frames_done(self) -> int:
        return self._units

    @property
    def reordered(self) -> int:
        return self._order.num_reorder_frames

    def push(self, unit: AccessUnit) -> Iterator[Sample]:
        self._units += 1
        try:
            return _samples(self._order.push(unit.data))
        except UnsupportedStream as error:
            raise EncodeFailed(f"the order of the encoder's pictures cannot be found out: {error}") from error

    def flush(self) -> Iterator[Sample]:
        return _samples(self._order.flush())


def _samples(settled: Iterable[tuple[int, bytes]]) -> Iterator[Sample]:
    for frame, data in settled:
        yield Sample(data, frame, is_sync=is_idr(data))
