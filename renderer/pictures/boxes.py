"""The boxes that MP4, HEIF, AVIF and JPEG 2000 files consist of (ISO/IEC 14496-12, 4.2; ISO/IEC 15444-1, I.4)."""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

_MOST: Final = 4096  # children of one box; real files have a few dozen

Span = tuple[int, int]


def within(data: bytes, spans: Sequence[Span], *path: bytes) -> list[Span]:
    """Return the contents of the boxes that a path of kinds leads to."""
    for wanted in path:
        spans = [content for span in spans for kind, content in boxes(data, span) if kind == wanted]
    return list(spans)


def boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """Yield the kind and the content of each box, up to the first damaged one."""
    at, end = span
    for _ in range(_MOST):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= end:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or end - at
        if size < head or at + size > end:
            return
        yield kind, (at + head, at + size)
        at += size
