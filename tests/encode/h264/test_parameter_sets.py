from itertools import cycle, islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.encode.h264.bits import BitWriter, InvalidStream, escape, split_nals
from renderer.encode.h264.parameter_sets import Colour, parse_sps

# Sizes with and without cropping.
SIZES = [(64, 48), (98, 66), (176, 144)]

ue = st.integers(0, 3)
flags = st.booleans()
sps_shapes = st.fixed_dictionaries(
    {
        "profile_idc": st.sampled_from([66, 77, 100, 110, 122, 244]),
        "chroma": st.tuples(st.integers(0, 3), flags),
        # Steps of 12 lists, walked round and round.
        "scaling": st.none() | st.lists(st.none() | st.lists(st.integers(-5, 5), min_size=1, max_size=3), min_size=12),
        "frame_num_width": st.integers(4, 16),
        "poc_type": st.integers(0, 2),
        "lsb_width": st.integers(4, 16),
        "delta_always_zero": flags,
        "cycle": st.lists(st.integers(-9, 9), max_size=4),
        "max_num_ref_frames": st.integers(0, 16),
        "width_in_mbs": st.integers(1, 300),
        "height_in_mbs": st.integers(1, 300),
        "crop": st.none() | st.tuples(ue, ue, ue, ue),
        "vui": st.none()
        | st.fixed_dictionaries(
            {
                "sar": st.none() | st.just(255) | st.integers(0, 16),
                "overscan": st.none() | flags,
                "colour": st.none() | st.tuples(flags, st.none() | st.tuples(*[st.integers(0, 255)] * 3)),
                "hrds": st.tuples(*[st.none() | st.lists(st.tuples(ue, ue), min_size=1, max_size=3)] * 2),
                "pic_struct": flags,
                "num_reorder_frames": st.none() | st.integers(0, 16),
            }
        ),
    }
)


def optional(bits, value):
    """Write a flag that says whether the value is there."""
    bits.flag(value is not None)
    return value is not None


def written_sps(shape):
    bits = BitWriter()
    bits.u(8, 0x67)
    bits.u(8, shape["profile_idc"])
    bits.u(16, 40)
    bits.ue(0)
    if shape["profile_idc"] >= 100:
        write_chroma(bits, *shape["chroma"], shape["scaling"])
    bits.ue(shape["frame_num_width"] - 4)
    bits.ue(shape["poc_type"])
    if shape["poc_type"] == 0:
        bits.ue(shape["lsb_width"] - 4)
    if shape["poc_type"] == 1:
        bits.flag(shape["delta_always_zero"])
        bits.se(-3)
        bits.se(4)
        bits.ue(len(shape["cycle"]))
        for offset in shape["cycle"]:
            bits.se(offset)
    bits.ue(shape["max_num_ref_frames"])
    bits.flag(False)
    bits.ue(shape["width_in_mbs"] - 1)
    bits.ue(shape["height_in_mbs"] - 1)
    bits.flag(True)
    bits.flag(True)
    if optional(bits, shape["crop"]):
        for edge in shape["crop"]:
            bits.ue(edge)
    if optional(bits, shape["vui"]):
        write_vui(bits, shape["vui"])
    bits.trailing_bits()
    return escape(bits.to_bytes())


def write_chroma(bits, format_idc, separate_planes, scaling):
    bits.ue(format_idc)
    if format_idc == 3:
        bits.flag(separate_planes)
    bits.ue(2)
    bits.ue(2)
    bits.flag(False)
    if not optional(bits, scaling):
        return
    for index, steps in enumerate(scaling[: 12 if format_idc == 3 else 8]):
        if optional(bits, steps):
            scale = 8
            for step in islice(cycle(steps), 16 if index < 6 else 64):
                bits.se(step)
                scale = (scale + step) % 256
                if scale == 0:
                    break


def write_vui(bits, vui):
    if optional(bits, vui["sar"]):
        bits.u(8, vui["sar"])
        if vui["sar"] == 255:
            bits.u(32, 0x00010001)
    if optional(bits, vui["overscan"]):
        bits.flag(vui["overscan"])
    if optional(bits, vui["colour"]):
        write_colour(bits, *vui["colour"])
    bits.flag(False)
    bits.flag(True)
    bits.u(32, 1001)
    bits.u(32, 60000)
    bits.flag(True)
    write_hrds(bits, vui["hrds"])
    bits.flag(vui["pic_struct"])
    if optional(bits, vui["num_reorder_frames"]):
        bits.flag(True)
        for value in (0, 0, 11, 11, vui["num_reorder_frames"], 16):
            bits.ue(value)


def write_colour(bits, is_full_range, points):
    bits.u(3, 5)
    bits.flag(is_full_range)
    if optional(bits, points):
        for point in points:
            bits.u(8, point)


def write_hrds(bits, hrds):
    for rates_and_sizes in hrds:
        if optional(bits, rates_and_sizes):
            bits.ue(len(rates_and_sizes) - 1)
            bits.u(8, 0)
            for rate, size in rates_and_sizes:
                bits.ue(rate)
                bits.ue(size)
                bits.flag(False)
            bits.u(20, 0)
    if any(hrds):
        bits.flag(False)


@settings(deadline=None)
@given(sps_shapes.filter(lambda shape: not is_cropped_away(shape)))
def test_any_sps_is_read_as_written(shape):
    is_high = shape["profile_idc"] >= 100
    size = shape["width_in_mbs"], shape["height_in_mbs"]
    sps = parse_sps(written_sps(shape))
    assert (sps.profile_idc, sps.level_idc, sps.frame_num_width) == (shape["profile_idc"], 40, shape["frame_num_width"])
    format_idc, separate_planes = shape["chroma"] if is_high else (1, False)
    assert (sps.chroma.format_idc, sps.chroma.separate_planes) == (format_idc, separate_planes and format_idc == 3)
    assert sps.order.poc_type == shape["poc_type"]
    assert sps.order.lsb_width == (shape["lsb_width"] if shape["poc_type"] == 0 else 0)
    assert sps.order.delta_always_zero == (shape["poc_type"] == 1 and shape["delta_always_zero"])
    assert sps.max_num_ref_frames == shape["max_num_ref_frames"]
    assert (sps.frame.width_in_mbs, sps.frame.height_in_mbs) == size
    assert sps.frame.crop == cropped(shape)
    assert (sps.vui is None) == (shape["vui"] is None)
    if shape["vui"]:
        vui = shape["vui"]
        assert sps.vui.num_reorder_frames == vui["num_reorder_frames"]
        assert sps.vui.needs_picture_timing == (any(vui["hrds"]) or vui["pic_struct"])
        colour = vui["colour"]
        assert sps.vui.colour == (Colour(colour[0], *(colour[1] or ())) if colour else None)


def cropped(shape):
    """Table 6-1: chroma is halved in width for 4:2:0 and 4:2:2, in height for 4:2:0."""
    format_idc, separate_planes = shape["chroma"] if shape["profile_idc"] >= 100 else (1, False)
    x, y = {1: (2, 2), 2: (2, 1)}.get(0 if separate_planes and format_idc == 3 else format_idc, (1, 1))
    left, right, top, bottom = shape["crop"] or (0, 0, 0, 0)
    return left * x, right * x, top * y, bottom * y


def is_cropped_away(shape):
    left, right, top, bottom = cropped(shape)
    return left + right >= shape["width_in_mbs"] * 16 or top + bottom >= shape["height_in_mbs"] * 16


@pytest.mark.parametrize("size", SIZES)
def test_the_shown_size_is_the_cropped_one(encode, size):
    sps = parse_sps(split_nals(encode("ref=1", size, 1)[0])[0])
    assert sps.frame.shown == size
    assert (sps.frame.width_in_mbs, sps.frame.height_in_mbs) == (-(-size[0] // 16), -(-size[1] // 16))


def test_colour_tags_are_read(encode):
    nals = split_nals(encode("colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv", (64, 48), 1)[0])
    assert parse_sps(nals[0]).vui.colour == Colour(is_full_range=False, primaries=1, transfer=1, matrix=1)


@pytest.mark.parametrize("size_in_mbs", [(1055, 1055), (1, 1056), (140, 1000)])
def test_pictures_beyond_every_level_are_refused(size_in_mbs):
    shape = {"profile_idc": 77, "frame_num_width": 4, "poc_type": 2, "max_num_ref_frames": 1, "crop": None, "vui": None}
    with pytest.raises(InvalidStream):
        parse_sps(written_sps(shape | {"width_in_mbs": size_in_mbs[0], "height_in_mbs": size_in_mbs[1]}))
