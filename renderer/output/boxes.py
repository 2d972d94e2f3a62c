"""What libavformat cannot be told: two boxes of a finished file are written over where they stand, size for size.

- `btrt` (ISO/IEC 14496-12, 8.5.2.2): its maxBitrate is that of the busiest second; libavformat repeats the average.
- The tag of the encoding tool, `©too` or `©swr`: libavformat insists on its own name there. It is asked to leave it
  out and to write a comment, which is told from the tag by its four letters alone.
"""

import struct
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

_HEAD: Final = 8
_STSD_HEAD: Final = 8  # version, flags, entry_count
_VISUAL_ENTRY: Final = 78  # SampleEntry and VisualSampleEntry before their boxes (12.1.3)
_SAMPLES: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
_BTRT: Final = (*_SAMPLES, b"stsd", b"avc1", b"btrt")
_COMMENTS: Final = {
    (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt"): b"\xa9too",
    (b"moov", b"udta", b"\xa9cmt"): b"\xa9swr",  # as QuickTime has it
}
_BEFORE_CHILDREN: Final = {b"stsd": _STSD_HEAD, b"avc1": _VISUAL_ENTRY, b"meta": 4}


def finish(path: Path, fps: Fraction) -> None:
    """Write the peak bit rate, and make the comment the name of the encoding tool."""
    with path.open("r+b") as file:
        start, moov = _read_moov(file)
        for comment, tool in _COMMENTS.items():
            if found := _find(moov, comment):
                moov[found[0] - 4 : found[0]] = tool
        btrt, sizes = _find(moov, _BTRT), _find(moov, (*_SAMPLES, b"stsz"))
        if btrt and sizes:
            (average,) = struct.unpack_from(">I", moov, btrt[0] + 8)
            peak = max(average, _peak(_sample_sizes(moov, sizes[0]), fps))
            struct.pack_into(">I", moov, btrt[0] + 4, min(peak, 2**32 - 1))
        file.seek(start)
        file.write(moov)


def _read_moov(file: BinaryIO) -> tuple[int, bytearray]:
    """Return where `moov` stands in the file, and the whole box."""
    at = 0
    while len(head := file.read(_HEAD)) == _HEAD:
        size, kind = struct.unpack(">I4s", head)
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
        if kind == b"moov":
            file.seek(at)
            return at, bytearray(file.read(size))
        if size < _HEAD:  # 0: it goes on to the file's end
            break
        at += size
        file.seek(at)
    raise ValueError("there is no moov box")


def _find(data: bytearray, path: tuple[bytes, ...]) -> tuple[int, int] | None:
    """Return where the payload of the first box at this path begins and ends."""
    start, end = 0, len(data)
    for name in path:
        found = _child(data, start, end, name)
        if found is None:
            return None
        start, end = found
        start += _BEFORE_CHILDREN.get(name, 0)
    return start, end


def _child(data: bytearray, start: int, end: int, name: bytes) -> tuple[int, int] | None:
    while start + _HEAD <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if kind == name:
            return start + _HEAD, start + size
        start += max(size, _HEAD)
    return None


def _sample_sizes(data: bytearray, stsz: int) -> npt.NDArray[np.int64]:
    size, count = struct.unpack_from(">II", data, stsz + 4)
    if size:
        return np.full(count, size, np.int64)
    return np.frombuffer(data, ">u4", count, stsz + 12).astype(np.int64)


def _peak(sizes: npt.NDArray[np.int64], fps: Fraction) -> int:
    """Return the most bits that any second has, samples counted where they begin."""
    window = min(-(-fps.numerator // fps.denominator), len(sizes))
    sums = np.concatenate(([0], np.cumsum(sizes)))
    return 8 * int((sums[window:] - sums[: len(sums) - window]).max())
