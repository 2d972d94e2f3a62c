"""What reading a document costs the daemon: time, for which the loop does not wait, and memory, which is counted.

Small documents are read where they come in, since a way to a thread and back takes longer than they do.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

_LARGE_BYTES: Final = 64 * 1024
_PER_BYTE, _PER_VALUE = 30, 100  # measured: lists of empty lists, and of objects with one field each
_T = TypeVar("_T")


async def read_aside(work: Callable[[], _T], size_bytes: int) -> _T:
    """Do the work that a document of this size causes: a large one's on a thread, so that others are answered."""
    return await asyncio.to_thread(work) if size_bytes > _LARGE_BYTES else work()


def cost_bytes(size_bytes: int, most_values: int) -> int:
    """Return what a document may take in memory once it is read, beside its text."""
    return min(_PER_BYTE * size_bytes, _PER_VALUE * most_values)
