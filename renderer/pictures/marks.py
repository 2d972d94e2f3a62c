"""Which images and sounds are inside a decoder now, where another process can still read it when this one is gone.

A decoder that crashes takes its process along, and one that hangs in native code cannot be stopped by a thread beside
it. The process that watches needs to know whose bytes were being read.
"""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from protocol.errors import Loc
from renderer.errors import DecodeFailed, DecodeTimedOut, JobError, SoundDamaged, SoundTimedOut

MOST_THREADS = 65  # the most that decode pictures, and the one of the sound

_NOBODY = 0


class Cell(ctypes.Structure):
    """One decoding thread's line; each field is an aligned word, which is stored whole."""

    _fields_ = (("number", ctypes.c_int64), ("thread", ctypes.c_uint64), ("began_ns", ctypes.c_int64))


@dataclass(frozen=True, slots=True)
class Decoding:
    """An image or a sound inside a decoder.

    Attributes:
        loc: the url in the request that it came from.
        thread: the thread's `threading.get_ident()`.
        since_s: seconds since it went in.
    """

    loc: Loc
    thread: int
    since_s: float

    def timed_out(self, limit_s: float) -> DecodeTimedOut:
        what, error = ("a sound", SoundTimedOut) if self._is_sound else ("an image", DecodeTimedOut)
        words = f"expected {what} that is decoded within {limit_s:g} s, found one that takes longer"
        return error(words, loc=self.loc)

    def crashed(self, number: int) -> JobError:
        """Return the error for a decoder that has ended its process by this signal."""
        what, error = ("sound", SoundDamaged) if self._is_sound else ("image", DecodeFailed)
        words = f"expected a whole {what}, found one that crashes its decoder ({signal.Signals(number).name})"
        return error(words, loc=self.loc)

    @property
    def _is_sound(self) -> bool:
        return self.loc[0] == "audio"


class Marks:
    """What is inside decoders, one cell for each thread that decodes."""

    def __init__(self, cells: ctypes.Array[Cell] | None = None) -> None:
        """Take over the cells as they are.

        Args:
            cells: `MOST_THREADS` of them, in memory that processes share; None for this process alone.
        """
        self._cells = (Cell * MOST_THREADS)() if cells is None else cells
        self._free = list(range(MOST_THREADS))

    def clear(self) -> None:
        """Forget what a process that has ended was doing."""
        for cell in self._cells:
            cell.number = _NOBODY

    @contextlib.contextmanager
    def decoding(self, place: int, of: Literal["images", "audio"] = "images") -> Iterator[None]:
        """Mark an image or a sound as inside a decoder, on this thread, until the block ends."""
        free = self._free.pop()
        cell = self._cells[free]
        cell.thread = threading.get_ident()
        cell.began_ns = time.monotonic_ns()
        cell.number = place + 1 if of == "images" else -place - 1  # last, because a reader goes by it
        try:
            yield
        finally:
            cell.number = _NOBODY
            self._free.append(free)

    def inside(self) -> list[Decoding]:
        """Return what is inside decoders, the longest first."""
        now = time.monotonic_ns()  # of one clock for all processes of a machine
        found = (
            Decoding(_place(number), cell.thread, (now - cell.began_ns) / 1e9)
            for cell in self._cells
            if (number := cell.number) != _NOBODY
        )
        return sorted(found, key=lambda decoding: -decoding.since_s)


def _place(number: int) -> Loc:
    return ("images", number - 1, "url") if number > 0 else ("audio", -number - 1, "url")
