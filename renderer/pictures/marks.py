"""Notes which images, sounds and videos are being decoded, in memory that outlives this process.

A decoder that crashes takes its process along, and one that hangs in native code cannot be stopped by a thread beside
it. The process that watches needs to know whose bytes were being read.
"""

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from protocol.errors import Loc
from renderer.errors import (
    DecodeFailed,
    DecodeTimedOut,
    JobError,
    SoundDamaged,
    SoundTimedOut,
    VideoDamaged,
    VideoTimedOut,
)

MOST_THREADS = 65  # the most that decode pictures, and the one of the sound

_NOBODY = 0
_IMAGE: Final = ("an image", DecodeFailed, DecodeTimedOut)
_SOUND: Final = ("a sound", SoundDamaged, SoundTimedOut)
_VIDEO: Final = ("a video", VideoDamaged, VideoTimedOut)
# The fields of requests that name what is decoded; a number in a cell is the place in this table and in the field.
_FIELDS: Final[Mapping[str, tuple[str, type[JobError], type[DecodeTimedOut]]]] = {
    "images": _IMAGE, "audio": _SOUND, "audio_url": _SOUND, "video_url": _VIDEO, "media_url": _VIDEO,
}  # fmt: skip
_PLACES: Final = 1 << 32


class Cell(ctypes.Structure):
    """One decoding thread's line; each field is an aligned word, which is stored whole."""

    _fields_ = (("number", ctypes.c_int64), ("thread", ctypes.c_uint64), ("began_ns", ctypes.c_int64))


@dataclass(frozen=True, slots=True)
class Decoding:
    """An image, a sound or a video inside a decoder.

    Attributes:
        loc: the url in the request that it came from.
        thread: the thread's `threading.get_ident()`.
        since_s: seconds since it went in.
    """

    loc: Loc
    thread: int
    since_s: float

    def timed_out(self, limit_s: float) -> DecodeTimedOut:
        what, _, error = _FIELDS[str(self.loc[0])]
        words = f"expected {what} that is decoded within {limit_s:g} s, found one that takes longer"
        return error(words, loc=self.loc)

    def crashed(self, number: int) -> JobError:
        """Return the error for a decoder that has ended its process by this signal."""
        what, error, _ = _FIELDS[str(self.loc[0])]
        what = what.partition(" ")[2]
        words = f"expected a whole {what}, found one that crashes its decoder ({signal.Signals(number).name})"
        return error(words, loc=self.loc)


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
    def decoding(self, *loc: str | int) -> Iterator[None]:
        """Mark what a url of the request names as inside a decoder, on this thread, until the block ends."""
        free = self._free.pop()
        cell = self._cells[free]
        cell.thread = threading.get_ident()
        cell.began_ns = time.monotonic_ns()
        cell.number = _number(loc)  # last, because a reader goes by it
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


def _number(loc: Loc) -> int:
    field, place = str(loc[0]), int(loc[1]) if len(loc) > 1 else 0
    return list(_FIELDS).index(field) * _PLACES + place + 1


def _place(number: int) -> Loc:
    field, place = divmod(number - 1, _PLACES)
    name = list(_FIELDS)[field]
    return (name,) if name.endswith("_url") else (name, place, "url")
