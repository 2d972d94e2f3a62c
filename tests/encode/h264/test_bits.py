import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderer.encode.h264.bits import (
    BitReader,
    BitWriter,
    Field,
    InvalidStream,
    escape,
    join_nals,
    split_nals,
    unescape,
    with_field,
)

# Mostly the bytes that make start codes.
zero_rich = st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 255]), max_size=200).map(bytes)
# What a NAL unit is before escaping: a header that is not 0, anything, and a stop bit or cabac_zero_words.
nals = st.builds(lambda body, end: b"\x65" + body + end, zero_rich, st.sampled_from([b"\x80", b"\x01", b"\x80\0\0"]))

elements = st.one_of(
    st.integers(1, 40).flatmap(lambda width: st.tuples(st.just("u"), st.just(width), st.integers(0, (1 << width) - 1))),
    st.tuples(st.just("ue"), st.none(), st.integers(0, (1 << 32) - 2)),
    st.tuples(st.just("se"), st.none(), st.integers(-(1 << 31) + 1, (1 << 31) - 1)),
    st.tuples(st.just("flag"), st.none(), st.booleans()),
)


@given(st.lists(elements))
def test_what_is_written_is_read_back(written):
    bits = BitWriter()
    for kind, width, value in written:
        getattr(bits, kind)(*([width] if width else []), value)
    end = bits.position
    bits.trailing_bits()
    read = BitReader(bits.to_bytes())
    for kind, width, value in written:
        assert getattr(read, kind)(*([width] if width else [])) == value
    assert read.position == end
    assert read.flag()


@pytest.mark.parametrize(
    ("value", "code"), [(0, "1"), (1, "010"), (2, "011"), (3, "00100"), (6, "00111"), (7, "0001000")]
)
def test_exp_golomb_codes_are_those_of_table_9_2(value, code):
    bits = BitWriter()
    bits.ue(value)
    assert f"{bits.value:0{bits.position}b}" == code


@pytest.mark.parametrize(("value", "number"), [(0, 0), (1, 1), (-1, 2), (2, 3), (-2, 4)])
def test_signed_codes_alternate_as_in_table_9_3(value, number):
    signed, unsigned = BitWriter(), BitWriter()
    signed.se(value)
    unsigned.ue(number)
    assert (signed.value, signed.position) == (unsigned.value, unsigned.position)


@given(st.binary(min_size=8, max_size=20), st.integers(0, 40), st.integers(1, 24), st.data())
def test_a_field_is_changed_and_nothing_else(before, position, width, data):
    value = data.draw(st.integers(0, (1 << width) - 1))
    after = with_field(before, Field(0, position, width), value)
    text_before, text_after = ("".join(f"{byte:08b}" for byte in text) for text in (before, after))
    assert text_after == text_before[:position] + f"{value:0{width}b}" + text_before[position + width :]


@pytest.mark.parametrize("read", [lambda bits: bits.u(9), lambda bits: bits.ue(), lambda bits: bits.se()])
def test_reading_past_the_end_is_refused(read):
    with pytest.raises(InvalidStream):
        read(BitReader(b"\0"))


def test_an_endless_exp_golomb_code_is_refused():
    with pytest.raises(InvalidStream, match="more than 32 leading zeros"):
        BitReader(bytes(1000)).ue()


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="does not fit in 4 bits"):
        BitWriter().u(4, 16)
    bits = BitWriter()
    bits.flag(True)
    with pytest.raises(ValueError, match="expected whole bytes"):
        bits.to_bytes()


@given(nals)
def test_escaping_is_undone(unescaped):
    escaped = escape(unescaped)
    assert unescape(escaped) == unescaped
    assert not re.search(rb"\0\0[\0-\2]", escaped)
    assert escaped[-1] != 0


@given(nals)
def test_escaping_is_what_the_standard_describes(unescaped):
    expected, zeros = bytearray(), 0
    for byte in unescaped:
        if zeros == 2 and byte <= 3:
            expected.append(3)
            zeros = 0
        expected.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    if expected[-1] == 0:
        expected.append(3)
    assert escape(unescaped) == bytes(expected)


@given(st.lists(nals.map(escape), max_size=5), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_nals_are_found_behind_any_start_code(expected, zero_bytes):
    stream = b"".join(bytes(count) + b"\0\0\1" + nal for count, nal in zip(zero_bytes, expected, strict=False))
    assert split_nals(stream + bytes(zero_bytes[-1])) == expected
    assert split_nals(join_nals(expected)) == expected


def test_long_start_codes_stand_at_the_head_and_before_parameter_sets():
    assert join_nals([b"\x06a", b"\x67b", b"\x68c", b"\x65d"]) == (
        b"\0\0\0\1\x06a" + b"\0\0\0\1\x67b" + b"\0\0\0\1\x68c" + b"\0\0\1\x65d"
    )


@given(zero_rich)
def test_any_bytes_can_be_split(stream):
    assert all(nal and nal[-1] for nal in split_nals(stream))
