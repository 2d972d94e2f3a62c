"""Bits, NAL units and the Annex B byte stream.

A slice may have megabytes, its header has tens of bytes. So what touches a slice is one `bytes.find`, one
`bytes.replace` or one regular expression over all of it (above 400 MB/s, measured); only headers are read bit by bit.

Positions are bits from the first byte of the NAL unit, its one-byte header included, after the emulation prevention
bytes have been taken out.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

# 7.4.1: these must not occur in a NAL unit. Only cabac_zero_words can come at the end, and they need the 03 as well.
_START_CODE_LIKE = re.compile(rb"\0\0(?=[\0-\3]|\Z)")


class UnsupportedStream(ValueError):
    """The stream has a shape that this package does not treat; the message gives the reason in words."""


class InvalidStream(UnsupportedStream):
    """The bytes are not H.264, are cut short, or break the standard."""


class NalType(IntEnum):
    """nal_unit_type, Table 7-1: the types that this package distinguishes."""

    SLICE = 1
    IDR_SLICE = 5
    SEI = 6
    SPS = 7
    PPS = 8
    DELIMITER = 9
    END_OF_SEQUENCE = 10
    END_OF_STREAM = 11
    FILLER = 12


class Field(NamedTuple):
    """One syntax element and the bits that it occupies."""

    value: int
    position: int
    width: int


class BitReader:
    """Reads syntax elements (7.2, 9.1) from the front; raises InvalidStream past the end."""

    def __init__(self, unescaped: bytes) -> None:
        self._bytes = unescaped
        self._end = len(unescaped) * 8
        self.position = 0

    def u(self, width: int) -> int:
        """Read an unsigned number of `width` bits."""
        start, stop = self.position, self.position + width
        if stop > self._end:
            raise InvalidStream(f"expected {width} bits at bit {start}, found {self._end - start}")
        self.position = stop
        window = int.from_bytes(self._bytes[start >> 3 : (stop + 7) >> 3], "big")
        return window >> (-stop & 7) & ((1 << width) - 1)

    def flag(self) -> bool:
        """Read one bit."""
        return self.u(1) == 1

    def ue(self) -> int:
        """Read an unsigned Exp-Golomb code (9.1) of up to 32 leading zeros."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise InvalidStream(f"an Exp-Golomb code before bit {self.position} has more than 32 leading zeros")
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Read a signed Exp-Golomb code (9.1.1)."""
        code = self.ue()
        return (code + 1) >> 1 if code & 1 else -(code >> 1)

    def u_field(self, width: int) -> Field:
        """Read an unsigned number and return it with its position."""
        position = self.position
        return Field(self.u(width), position, width)

    def ue_field(self) -> Field:
        """Read an unsigned Exp-Golomb code and return it with its position."""
        position = self.position
        value = self.ue()
        return Field(value, position, self.position - position)

    def at_most(self, limit: int, name: str) -> int:
        """Read an unsigned Exp-Golomb code that the standard bounds."""
        value = self.ue()
        if value > limit:
            raise InvalidStream(f"{name} must be at most {limit}: {value}")
        return value


class BitWriter:
    """Collects syntax elements; the bits so far are one integer, so that what follows can be shifted in at once."""

    def __init__(self) -> None:
        self.value = 0
        self.position = 0

    def u(self, width: int, value: int) -> None:
        """Write an unsigned number in `width` bits."""
        if not 0 <= value < 1 << width:
            raise ValueError(f"{value} does not fit in {width} bits")
        self.value = self.value << width | value
        self.position += width

    def flag(self, value: bool) -> None:
        """Write one bit."""
        self.u(1, int(value))

    def ue(self, value: int) -> None:
        """Write an unsigned Exp-Golomb code (9.1)."""
        self.u(2 * (value + 1).bit_length() - 1, value + 1)

    def se(self, value: int) -> None:
        """Write a signed Exp-Golomb code (9.1.1)."""
        self.ue(2 * value - 1 if value > 0 else -2 * value)

    def u_field(self, width: int, value: int) -> Field:
        """Write an unsigned number and return it with its position."""
        self.u(width, value)
        return Field(value, self.position - width, width)

    def align(self, *, ones: bool) -> None:
        """Fill up to the next byte, with ones for cabac_alignment_one_bit and with zeros elsewhere."""
        width = -self.position & 7
        self.u(width, (1 << width) - 1 if ones else 0)

    def trailing_bits(self) -> None:
        """Write the stop bit and its alignment (7.3.2.11)."""
        self.flag(True)
        self.align(ones=False)

    def to_bytes(self) -> bytes:
        """Return what was written, which must end on a byte."""
        if self.position & 7:
            raise ValueError(f"expected whole bytes, found {self.position} bits")
        return self.value.to_bytes(self.position >> 3, "big")


def with_field(unescaped: bytes, field: Field, value: int) -> bytes:
    """Return the NAL unit with another number in a field, whose width stays."""
    start, stop = field.position >> 3, (field.position + field.width + 7) >> 3
    shift = -(field.position + field.width) & 7
    window = int.from_bytes(unescaped[start:stop], "big")
    window ^= (window >> shift & ((1 << field.width) - 1) ^ value) << shift
    return unescaped[:start] + window.to_bytes(stop - start, "big") + unescaped[stop:]


def nal_type(nal: bytes) -> int:
    """Return nal_unit_type (7.4.1) of a NAL unit without its start code."""
    return nal[0] & 31


def escape(unescaped: bytes) -> bytes:
    """Insert the emulation prevention bytes (7.4.1).

    Args:
        unescaped: a NAL unit that ends in its stop bit or in cabac_zero_words, as every one does.
    """
    return _START_CODE_LIKE.sub(b"\0\0\3", unescaped)


def unescape(nal: bytes) -> bytes:
    """Take out the emulation prevention bytes (7.3.1)."""
    return nal.replace(b"\0\0\3", b"\0\0")


def split_nals(stream: bytes) -> list[bytes]:
    """Return the NAL units of an Annex B byte stream without start codes and without zero bytes between them (B.1)."""
    nals = []
    start = stream.find(b"\0\0\1") + 3
    while start > 2:
        stop = stream.find(b"\0\0\1", start)
        nal = (stream[start:stop] if stop >= 0 else stream[start:]).rstrip(b"\0")
        if nal:
            nals.append(nal)
        start = stop + 3
    return nals


def join_nals(nals: Sequence[bytes]) -> bytes:
    """Return one access unit as an Annex B byte stream.

    The start code has four bytes before parameter sets and at the head of the access unit, else three (B.1.2).
    """
    parts: list[bytes] = []
    for index, nal in enumerate(nals):
        is_long = index == 0 or nal_type(nal) in (NalType.SPS, NalType.PPS)
        parts += (b"\0\0\0\1" if is_long else b"\0\0\1", nal)
    return b"".join(parts)
