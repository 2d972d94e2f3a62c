"""Tracks placed in time, faded, and added up; peaks that the sum would be cut off at are turned down.

Everything is counted in samples at 48 kHz from the video's first frame on. A fade is linear. A fade-out ends where its
track does, be that the end of its file, of its `duration` or of the video.

A single sound that is not made louder is not changed. The sum of several, or one that is made louder, is held below
-1 dBFS, so that its coded copy is not cut off either: the limiter sees a peak 20 ms ahead and turns the sound down
until it has passed, by no more than that takes. Silence stays silence.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from protocol.errors import Loc
from protocol.schema import AudioTrack, ResultWarning
from renderer.errors import InvalidRequest, SoundDamaged
from renderer.media.sound.decode import RATE, Reading, Samples, SoundFile, with_tail
from renderer.pictures.marks import Marks

PIECE: Final = RATE
CEILING: Final = 10 ** (-1 / 20)
_TAPS: Final = np.arange(-12, 13)
_BETWEEN: Final = [np.sinc(_TAPS - share / 4) * np.hanning(len(_TAPS) + 2)[1:-1] for share in (1, 2, 3)]
_KEPT_PIECES: Final = 64  # of a sound that is repeated; a longer one is decoded again
_NEARLY: Final = RATE // 10  # samples that a sound may be longer than the video without a word
_AHEAD: Final = RATE // 50  # samples that the limiter looks ahead, and back


def in_samples(seconds: float) -> int:
    return round(seconds * RATE)


@dataclass(slots=True)
class Placed:
    """A track in a video of `total` samples; iterate once.

    Attributes:
        ends_early_s: where its file ends although it should go on, once that was read.
        length: samples that it is heard for, until that is known those that its file says.
    """

    track: AudioTrack
    file: SoundFile
    total: int
    marks: Marks
    ends_early_s: float | None = None
    length: int = 0

    def __post_init__(self) -> None:
        self.length = max(0, round(self.file.about_s * RATE) - in_samples(self.track.start))

    @property
    def end(self) -> int:
        """The sample of the video that it ends before, were the video as long as that."""
        track, length = self.track, self.length
        if track.duration is not None:
            length = in_samples(track.duration) if track.loop else min(length, in_samples(track.duration))
        elif track.loop:
            length = max(0, self.total - in_samples(track.at))
        return in_samples(track.at) + length

    def pieces(self) -> Iterator[Samples]:
        """Yield it from the video's first sample on; it may end before the video does.

        Raises:
            JobError: it cannot be decoded, or has no sound where it is to start.
        """
        track, begin = self.track, in_samples(self.track.at)
        room = self.total - begin
        if room <= 0:
            return
        for at in range(0, begin, PIECE):
            yield np.zeros((self.file.channels, min(PIECE, begin - at)), np.float32)
        length = room if track.duration is None else min(room, in_samples(track.duration))
        heard = _first(self._looped() if track.loop else self._once(), length)
        yield from self._shaped(heard)

    def warnings(self) -> Iterator[ResultWarning]:
        """Say, once it was heard, what its client might not expect."""
        if in_samples(self.track.at) >= self.total:
            words = "this sound would begin after the end of the video, so it is not heard"
            yield ResultWarning(type="audio_unheard", message=words, loc=self._beside("at"))
        elif self.ends_early_s is not None:
            words = f"this file was cut short; its sound ends after {self.ends_early_s:.3f} s"
            yield ResultWarning(type="audio_ends_early", message=words, loc=self.file.loc)
        elif self.track.duration is None and self.end - self.total > _NEARLY:
            words = f"the sound is cut at the end of the video, {(self.end - self.total) / RATE:.3f} s before its own"
            yield ResultWarning(type="audio_cut", message=words, loc=self.file.loc)

    def _beside(self, field: str) -> Loc:
        """Return the place of another field of this track."""
        return (*self.file.loc[:-1], field)

    def _shaped(self, pieces: Iterator[Samples]) -> Iterator[Samples]:
        """Apply gain and fades."""
        gain, done = np.float32(10 ** (self.track.gain_db / 20)), 0
        fade_in, fade_out = in_samples(self.track.fade_in), in_samples(self.track.fade_out)
        for whole, is_tail in with_tail(pieces, fade_out) if fade_out else ((piece, False) for piece in pieces):
            piece = whole if gain == 1 else whole * gain
            size = piece.shape[1]
            if done < fade_in:
                piece = piece * np.minimum((done + np.arange(size)) / fade_in, 1).astype(np.float32)
            if is_tail:  # of a sound that is shorter than the fade, the end of it
                piece = piece * (np.arange(size - 1, -1, -1) / fade_out).astype(np.float32)
            done += size
            yield piece

    def _looped(self) -> Iterator[Samples]:
        kept: list[Samples] | None = []
        for piece in self._once():
            yield piece
            if kept is not None:
                kept = [*kept, piece] if len(kept) < _KEPT_PIECES else None
        if kept:
            again = np.concatenate(kept, axis=1)
            again = np.tile(again, -(-PIECE // again.shape[1]))
        while True:
            yield from (again,) if kept else self._once()

    def _once(self) -> Iterator[Samples]:
        skip, read = in_samples(self.track.start), 0
        reading = Reading(self.file, self.marks)
        for piece in reading:
            read += piece.shape[1]
            if read > skip:
                yield piece[:, max(0, piece.shape[1] - (read - skip)) :]
        self.ends_early_s, self.length = reading.ends_early_s, read - skip
        if read == 0:
            raise SoundDamaged("expected a sound, found one without samples", loc=self.file.loc)
        if read <= skip:
            words = f"expected less than {read / RATE:.3f} s, where this sound ends, found {self.track.start} s"
            raise InvalidRequest(words, loc=self._beside("start"))


def _first(pieces: Iterator[Samples], length: int) -> Iterator[Samples]:
    """Yield the first samples, as many as there are up to this length."""
    left = length
    for piece in pieces:
        yield piece[:, :left]
        left -= piece.shape[1]
        if left <= 0:
            return


class _Supply:
    """Pieces of any length, taken in pieces of one's own."""

    def __init__(self, pieces: Iterator[Samples]) -> None:
        self._pieces = pieces
        self._rest: Samples | None = None

    def add_to(self, sum_: Samples) -> None:
        """Add the next samples, as many as there are."""
        filled, size = 0, sum_.shape[1]
        while filled < size and (piece := next(self._pieces, None) if self._rest is None else self._rest) is not None:
            taken = min(piece.shape[1], size - filled)
            sum_[:, filled : filled + taken] += piece[:, :taken]
            filled += taken
            self._rest = piece[:, taken:] if taken < piece.shape[1] else None


def mixed(tracks: Sequence[Placed], total: int) -> Iterator[Samples]:
    """Yield the sum of the tracks, `total` samples: stereo unless all are mono."""
    channels = max(placed.file.channels for placed in tracks)
    supplies = [_Supply(placed.pieces()) for placed in tracks]
    for begin in range(0, total, PIECE):
        sum_ = np.zeros((channels, min(PIECE, total - begin)), np.float32)
        for supply in supplies:
            supply.add_to(sum_)
        yield sum_


def limited(pieces: Iterable[Samples], ceiling: float, *, is_true: bool = False) -> Iterator[Samples]:
    """Turn the sound down around peaks above the ceiling, so that none is left; nothing is delayed.

    Args:
        is_true: peaks between samples count too (ITU-R BS.1770-5, annex 2).
    """
    before: Samples | None = None
    now: Samples | None = None
    for after in chain(pieces, (None,)):
        if now is not None:
            yield _turned_down(before, now, after, ceiling, is_true=is_true)
        before, now = now, after


def _turned_down(
    before: Samples | None, now: Samples, after: Samples | None, ceiling: float, *, is_true: bool
) -> Samples:
    """Return `now` with the gain that its peaks, and those just before and after it, ask for."""
    around = [np.zeros((len(now), 2 * _AHEAD), np.float32), now, np.zeros((len(now), 2 * _AHEAD), np.float32)]
    if before is not None:
        around[0] = before[:, -2 * _AHEAD :]
    if after is not None:
        around[2] = after[:, : 2 * _AHEAD]
    whole = np.concatenate(around, axis=1)
    peaks = np.abs(whole).max(axis=0)
    for taps in _BETWEEN if is_true else ():
        for channel in whole:
            peaks = np.maximum(peaks, np.abs(np.convolve(channel, taps, "same")))
    if peaks.max() <= ceiling:
        return now
    allowed = ceiling / np.maximum(peaks.astype(np.float64), ceiling)
    # The mean of numbers each of which is at most what a sample allows is at most that, too.
    begin = around[0].shape[1]
    gain = _means(_minima(allowed))[begin : begin + now.shape[1]]
    return (now * gain).astype(np.float32)


def _minima(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each value the least one within `_AHEAD` of it."""
    found, width, wanted = np.pad(values, _AHEAD, constant_values=1), 1, 2 * _AHEAD + 1
    while 2 * width <= wanted:
        found = np.minimum(found[:-width], found[width:])
        width *= 2
    return np.minimum(found[: len(values)], found[wanted - width :])


def _means(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each value the mean of those within `_AHEAD` of it."""
    sums = np.cumsum(np.pad(values, (_AHEAD + 1, _AHEAD), constant_values=1))
    return (sums[2 * _AHEAD + 1 :] - sums[: len(values)]) / (2 * _AHEAD + 1)
