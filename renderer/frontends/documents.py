"""The cost of reading a document: time, during which the loop must not wait, and memory, which is counted.

Small documents are read on the loop, because handing them to a thread takes longer than reading them.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

_LARGE_BYTES: Final = 64 * 1024
_PER_BYTE, _PER_VALUE = 30, 100  # measured: lists of empty lists, and of objects with one field each
_T = TypeVar("_T")


async def read_aside(work: Callable[[], _T], size_bytes: int) -> _T:
    """Do the work that a document of this size causes; for a large one on a thread, so that others are answered."""
    return await asyncio.to_thread(work) if size_bytes > _LARGE_BYTES else work()


def cost_bytes(size_bytes: int, most_values: int) -> int:
    """Return how much memory a document may take once it is read, in addition to its text."""
    return min(_PER_BYTE * size_bytes, _PER_VALUE * most_values)
