"""Loudness by EBU R128: measured by libavfilter, then reached by one gain for the whole sound.

The first pass measures the mix. Where the gain would bring its true peaks above the limit, the limiter turns those
down, which costs loudness; then the result is measured again and the gain raised by what is missing, three times at
most.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
import numpy as np

from protocol.schema import Loudness, ResultWarning
from renderer.media.sound.decode import RATE, Samples
from renderer.media.sound.mix import limited

_SILENCE_LUFS: Final = -70.0  # the gate of EBU Tech 3341, below which nothing counts
_NEAR: Final = 0.1
_MOST_OFF: Final = 0.5
_PASSES: Final = 4


@dataclass(frozen=True, slots=True)
class Measure:
    """What the meter has found of a whole sound; the peak is a share of full scale."""

    lufs: float
    true_peak: float


def measured(pieces: Iterator[Samples]) -> Measure:
    """Measure a sound (ITU-R BS.1770); one of a single channel counts as such, and not as two."""
    graph, at, source = av.filter.Graph(), 0, None
    found: dict[str, str] = {}
    for piece in pieces:
        layout = "mono" if len(piece) == 1 else "stereo"
        if source is None:
            source = graph.add_abuffer(None, RATE, "fltp", layout, time_base=Fraction(1, RATE))
            meter, sink = graph.add("ebur128", "metadata=1:peak=true:framelog=quiet"), graph.add("abuffersink")
            source.link_to(meter)
            meter.link_to(sink)
            graph.configure()
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        at += piece.shape[1]
        graph.push(frame)
        found = _last(graph) or found
    if source is not None:
        graph.push(None)
        found = _last(graph) or found
    lufs, peak = (float(found.get(f"lavfi.r128.{name}", "-inf")) for name in ("I", "true_peak"))
    return Measure(lufs, peak)


def _last(graph: av.filter.Graph) -> dict[str, str]:
    """Return what the meter says of the newest part."""
    found: dict[str, str] = {}
    while True:
        try:
            found = graph.pull().metadata or found
        except (av.BlockingIOError, av.EOFError):
            return found


class Evened:
    """A sound at a wanted loudness.

    Attributes:
        warnings: what the client might not expect of it, once it was found.
    """

    def __init__(self, make: Callable[[], Iterator[Samples]], wanted: Loudness) -> None:
        """Measure the sound, as often as it takes.

        Args:
            make: returns the sound anew.
        """
        self._make = make
        self._ceiling = 10 ** (wanted.true_peak_db / 20)
        self._gain = 1.0
        self.warnings: tuple[ResultWarning, ...] = ()
        found = measured(make())
        if not found.lufs > _SILENCE_LUFS:
            self._warn("this sound is too quiet, or too short, to have a loudness, so it is left as it is")
            return
        self._gain = 10 ** ((wanted.target_lufs - found.lufs) / 20)
        if found.true_peak * self._gain <= self._ceiling:
            return
        for _ in range(_PASSES - 1):
            missing = wanted.target_lufs - measured(self.pieces()).lufs
            if abs(missing) < _NEAR:
                return
            self._gain *= 10 ** (missing / 20)
        if abs(missing) > _MOST_OFF:
            self._warn(f"the sound is about {abs(missing):.1f} LU off, since its peaks may not be higher than that")

    def pieces(self) -> Iterator[Samples]:
        """Yield the sound."""
        gain = np.float32(self._gain)
        yield from limited((piece * gain for piece in self._make()), self._ceiling, is_true=True)

    def _warn(self, words: str) -> None:
        self.warnings = (ResultWarning(type="loudness_missed", message=words, loc=("loudness",)),)
