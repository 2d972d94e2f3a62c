"""Sequences in HEIF files: what a track shows beside, or without, a still picture (ISO/IEC 23008-12, 7).

A still picture is an item of the file's `meta` box; a sequence is a track, as in a video.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from renderer.pictures.formats import unsupported

_BOXES_MAX: Final = 4096  # of one box; real files have a few dozen
_SHOWN: Final = (b"pict", b"vide")
_COUNT_AT: Final = {b"stsz": 8, b"stz2": 8}  # ISO/IEC 14496-12, 8.7.3: after the version, the flags and a size

Span = tuple[int, int]


def pictures_in_track(data: bytes) -> int:
    """Return how many pictures the longest sequence of a file has; 0 if there is none."""
    tracks = _within(data, [(0, len(data))], b"moov", b"trak")
    return max((_samples(data, track) for track in tracks if _is_shown(data, track)), default=0)


def refuse_sequence(data: bytes, name: str) -> None:
    """Refuse a file that holds a sequence and no still picture.

    Raises:
        UnsupportedFormat: it does; the words name what it is.
    """
    kinds = {kind for kind, _ in _boxes(data, (0, len(data)))}
    if b"meta" not in kinds and b"moov" in kinds:
        raise unsupported(f"{name} sequence without a still picture")


def _is_shown(data: bytes, track: Span) -> bool:
    return any(data[start + 8 : start + 12] in _SHOWN for start, _ in _within(data, [track], b"mdia", b"hdlr"))


def _samples(data: bytes, track: Span) -> int:
    tables = _within(data, [track], b"mdia", b"minf", b"stbl")
    found = [
        struct.unpack_from(">I", data, start + _COUNT_AT[kind])[0]
        for table in tables
        for kind, (start, end) in _boxes(data, table)
        if kind in _COUNT_AT and end - start >= 12
    ]
    return max(found, default=0)


def _within(data: bytes, spans: Sequence[Span], *path: bytes) -> list[Span]:
    """Return the contents of the boxes that a path of kinds leads to."""
    for wanted in path:
        spans = [content for span in spans for kind, content in _boxes(data, span) if kind == wanted]
    return list(spans)


def _boxes(data: bytes, span: Span) -> Iterator[tuple[bytes, Span]]:
    """Yield the kind and the content of each box; a damaged one ends them (ISO/IEC 14496-12, 4.2)."""
    at, end = span
    for _ in range(_BOXES_MAX):
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
