"""An SPS that tells no colours gets them, and loses nothing else."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.config import EncodeSettings
from renderer.encode.h264.bits import BitWriter, NalType, escape, nal_type, split_nals
from renderer.encode.h264.description import BT709, described
from renderer.encode.h264.levels import least_level
from renderer.encode.h264.parameter_sets import Colour, FrameShape, parse_sps
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.geometry import Canvas

REORDERED = (False, True)


def sps_nal(write_vui=None, *, references: int = 1) -> bytes:
    """Write a Main profile SPS of 640x480, with what the function writes after vui_parameters_present_flag."""
    bits = BitWriter()
    bits.u(8, 3 << 5 | NalType.SPS)
    for byte in (77, 0, 31):
        bits.u(8, byte)
    for code in (0, 0, 2, references):
        bits.ue(code)
    bits.flag(False)
    bits.ue(39)
    bits.ue(29)
    for flag in (True, True, False):
        bits.flag(flag)
    bits.flag(write_vui is not None)
    if write_vui:
        write_vui(bits)
    bits.trailing_bits()
    return escape(bits.to_bytes())


def present(bits: BitWriter, part: object) -> bool:
    """Write the flag that says whether a part is there."""
    bits.flag(part is not None)
    return part is not None


def vui(**parts: Any) -> Callable[[BitWriter], None]:
    """Return a function that writes a VUI; what is None or not named is left out."""
    told = {**dict.fromkeys(("aspect", "overscan", "colour", "chroma", "timing", "hrd", "restriction")), **parts}

    def write(bits: BitWriter) -> None:
        if present(bits, told["aspect"]):
            bits.u(8, told["aspect"])
            bits.u(32 if told["aspect"] == 255 else 0, 0x0004_0003 if told["aspect"] == 255 else 0)
        if present(bits, told["overscan"]):
            bits.flag(told["overscan"])
        if present(bits, told["colour"]):
            full_range, points = told["colour"]
            bits.u(4, 5 << 1 | full_range)
            if present(bits, points):
                bits.u(24, points[0] << 16 | points[1] << 8 | points[2])
        write_clock(bits, told)
        bits.flag(False)  # pic_struct_present_flag
        if present(bits, told["restriction"]):
            bits.flag(True)
            for code in told["restriction"]:
                bits.ue(code)

    return write


def write_clock(bits: BitWriter, told: dict[str, Any]) -> None:
    if present(bits, told["chroma"]):
        bits.ue(told["chroma"])
        bits.ue(told["chroma"])
    if present(bits, told["timing"]):
        bits.u(65, told["timing"])
    write_hrd(bits, told["hrd"])


def write_hrd(bits: BitWriter, told: object) -> None:
    for _ in range(2):
        if present(bits, told):
            bits.ue(0)
            bits.u(8, 0x12)
            bits.ue(1000)
            bits.ue(2000)
            bits.flag(True)
            bits.u(20, 0x12345)
    bits.u(0 if told is None else 1, 0)


MAYBE = st.none()
vuis = st.builds(
    vui,
    aspect=MAYBE | st.sampled_from([1, 14, 255]),
    overscan=MAYBE | st.booleans(),
    colour=MAYBE | st.tuples(st.booleans(), MAYBE | st.tuples(*[st.integers(0, 255)] * 3)),
    chroma=MAYBE | st.integers(0, 5),
    timing=MAYBE | st.integers(0, 2**65 - 1),
    hrd=MAYBE | st.just(True),
    restriction=MAYBE | st.tuples(*[st.integers(0, 16)] * 6),
)


@settings(deadline=None)
@given(write_vui=MAYBE | vuis, references=st.integers(0, 4), is_reordered=st.booleans())
def test_colours_are_told_and_all_else_stays(write_vui, references: int, is_reordered: bool) -> None:
    before = sps_nal(write_vui, references=references)
    old, new = parse_sps(before), parse_sps(described(before, is_reordered=is_reordered))
    assert new.vui is not None
    assert new.vui.colour == BT709
    assert replace(new, vui=None) == replace(old, vui=None)
    told = old.vui.num_reorder_frames if old.vui else None
    assert new.vui.num_reorder_frames == (told if told is not None or is_reordered else 0)
    assert new.vui.needs_picture_timing == (old.vui.needs_picture_timing if old.vui else False)


@settings(deadline=None)
@given(write_vui=vuis)
def test_what_stands_around_the_colours_is_copied_bit_by_bit(write_vui) -> None:
    """Twice described is once described, and the VUI that already says all is the one that comes out."""
    once = described(sps_nal(write_vui), is_reordered=True)
    assert described(once, is_reordered=True) == once
    bits = BitWriter()
    write_vui(bits)
    assert len(once) * 8 >= bits.position + 8


def test_a_vui_with_other_colours_keeps_every_other_bit() -> None:
    parts = {
        "aspect": 255,
        "overscan": True,
        "chroma": 2,
        "timing": 12345,
        "hrd": True,
        "restriction": (1, 2, 3, 4, 1, 2),
    }
    before = sps_nal(vui(colour=(True, (9, 16, 9)), **parts))
    told = {**parts, "aspect": 1, "chroma": 0}
    assert described(before, is_reordered=True) == sps_nal(vui(colour=(False, (1, 1, 1)), **told))


@pytest.mark.parametrize("is_reordered", REORDERED)
def test_an_sps_of_libx264_is_told_the_shape_of_samples_alone(is_reordered: bool) -> None:
    stream = StreamSettings(Canvas(64, 48), Fraction(24), crf=20, preset="ultrafast", keyframe_interval=8)
    with X264Encoder(stream, EncodeSettings()) as encoder:
        units = [*encoder.encode(np.zeros(stream.canvas.nv12_shape, np.uint8)), *encoder.flush()]
    (nal,) = (nal for nal in split_nals(units[0].data) if nal_type(nal) == NalType.SPS)
    before, after = parse_sps(nal), parse_sps(described(nal, is_reordered=is_reordered))
    assert after == replace(before, vui=replace(before.vui, aspect_ratio_idc=1, chroma_location=(0, 0)))


def test_an_unspecified_colour_is_not_bt709() -> None:
    assert Colour() != BT709


# Of NVENC: Main profile, level 3.1, 848x464 at 30 fps, with an HRD and pic_struct.
TIMED = bytes.fromhex("674d401f965281a877602d4080805000003e80000ea60e000005b8d0001e848bbcb828")


def test_an_sps_announces_no_timing_messages_where_they_were_taken_out() -> None:
    before, after = parse_sps(TIMED), parse_sps(described(TIMED, is_reordered=True, is_timed=False))
    assert before.vui is not None
    assert after.vui is not None
    assert before.vui.needs_picture_timing
    assert not after.vui.needs_picture_timing
    assert described(TIMED, is_reordered=True, is_timed=False) == described(
        described(TIMED, is_reordered=True), is_reordered=True, is_timed=False
    )
    kept = parse_sps(described(TIMED, is_reordered=True)).vui
    assert kept is not None
    assert kept.needs_picture_timing


@pytest.mark.parametrize(
    ("fps", "level_idc"), [(1, 31), (30, 31), (70, 31), (71, 32), (140, 32), (141, 40), (12_000, 62)]
)
def test_a_level_that_is_too_low_for_the_rate_is_raised(fps: int, level_idc: int) -> None:
    assert parse_sps(described(TIMED, Fraction(fps), is_reordered=True)).level_idc == level_idc


@pytest.mark.parametrize(
    ("size", "fps", "references", "level_idc"),
    [
        ((192, 128), 24, 1, 11),
        ((1280, 720), 30, 3, 31),
        ((1280, 720), 60, 3, 32),
        ((1920, 1080), 30, 4, 40),
        ((1920, 1080), 30, 5, 50),
        ((1920, 1080), 60, 4, 42),
        ((3840, 2160), 30, 1, 51),
        ((4096, 16), 24, 1, 40),  # no longer than the root of eight times the largest picture
    ],
)
def test_the_least_level_is_that_of_table_a_1(size, fps: int, references: int, level_idc: int) -> None:
    width, height = (-(-side // 16) for side in size)
    frame = FrameShape(width, height, is_progressive=True, crop=(0, 0, 0, 0))
    sps = replace(parse_sps(TIMED), frame=frame, max_num_ref_frames=references)
    assert least_level(sps, Fraction(fps)) == level_idc
