from itertools import chain, pairwise

import pytest

from renderer.encode.h264.bits import (
    InvalidStream,
    NalType,
    UnsupportedStream,
    join_nals,
    nal_type,
    split_nals,
    unescape,
)
from renderer.encode.h264.repeat import HeldPictures, is_idr
from renderer.encode.h264.syntax import I_SLICE, P_SLICE, ParameterSets

# Frames per picture; the mixed types are IDR at 0 and 9, I and P elsewhere.
HOLDS = [17, 1, 255, 2, 16, 3, 257, 31, 15, 256, 1, 1000, 2, 1, 33, 300, 3, 5]

# Entropy coder and tools, POC type 0's width or type 2, canvas.
SHAPES = {
    "cabac": ("", 0, (64, 48)),
    "cavlc": ("cabac=0", 0, (64, 48)),
    "cabac-poc0": ("", 8, (98, 66)),
    "cavlc-poc0": ("cabac=0", 8, (98, 66)),
    "cabac-slices-poc0-wide": ("slices=4", 16, (98, 66)),
    "cavlc-slices": ("cabac=0:slices=4", 0, (64, 80)),
    "cavlc-slices-baseline": ("cabac=0:slices=3:8x8dct=0:weightp=0", 0, (176, 144)),
    "main-unweighted": ("8x8dct=0:weightp=0", 0, (176, 144)),
    "no-deblocking": ("no-deblock=1:aud=1", 0, (64, 48)),
    "cabac-init-qp-1": ("qp=1", 0, (64, 48)),
    "cavlc-init-qp-50": ("qp=50:cabac=0", 8, (64, 48)),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request, encode, reshaped, mixed_types):
    options, poc_lsb_width, size = request.param
    units = encode(f"{mixed_types}:{options}", size)
    return (reshaped(units, poc_lsb_width=poc_lsb_width) if poc_lsb_width else units), size


def held(units, holds, sync_every=None):
    pictures = HeldPictures()
    return [
        unit
        for coded, frames in zip(units, holds, strict=True)
        for unit in pictures.hold(coded, frames - 1, sync_every=sync_every)
    ]


def expanded(frames, holds):
    return list(chain.from_iterable([frame] * hold for frame, hold in zip(frames, holds, strict=True)))


def headers_of(units):
    """Return the first slice header of each access unit."""
    sets = ParameterSets()
    headers = []
    for unit in units:
        slices = []
        for nal in split_nals(unit):
            sets.take(nal)
            if nal_type(nal) in (NalType.SLICE, NalType.IDR_SLICE):
                slices.append(sets.slice_header(unescape(nal)))
        headers.append(slices[0])
    return headers


def idr_pic_ids(units):
    return [header.idr_pic_id and header.idr_pic_id.value for header in headers_of(units)]


def test_ffmpeg_shows_every_picture_for_its_hold(shape, decode):
    units, _ = shape
    assert decode(b"".join(held(units, HOLDS))) == expanded(decode(b"".join(units)), HOLDS)


def test_openh264_shows_every_picture_for_its_hold(shape, decode, openh264):
    units, size = shape
    frames = decode(b"".join(units))
    assert openh264(b"".join(held(units, HOLDS)), size) == expanded(frames, HOLDS)


def test_every_shape_holds_idr_i_and_p_pictures(shape):
    headers = headers_of(shape[0])
    assert [number for number, header in enumerate(headers) if header.idr_pic_id] == [0, 9]
    assert {header.slice_type for header in headers if not header.idr_pic_id} == {I_SLICE, P_SLICE}


@pytest.mark.parametrize("poc_lsb_width", [0, 8])
def test_counters_go_up_by_one_frame_from_idr_to_idr(encode, reshaped, mixed_types, poc_lsb_width):
    units = encode(mixed_types)
    headers = headers_of(held(reshaped(units, poc_lsb_width=poc_lsb_width), HOLDS))
    for before, after in pairwise(headers):
        assert after.nal_ref_idc > 0
        if after.idr_pic_id:
            continue
        assert after.frame_num.value == (before.frame_num.value + 1) % (1 << after.frame_num.width)
        if poc_lsb_width:
            assert after.poc_lsb.value == (before.poc_lsb.value + 2) % (1 << poc_lsb_width)


def test_a_hold_of_65537_frames_is_exact(encode, decode, openh264, reshaped, mixed_types):
    units = reshaped(encode(mixed_types, (16, 16), 3), poc_lsb_width=8)
    holds = [2, 65537, 3]
    stream = b"".join(held(units, holds))
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(stream) == wanted
    assert openh264(stream, (16, 16)) == wanted


@pytest.mark.parametrize("options", ["", "cabac=0"])
def test_a_4k_picture_is_repeated_exactly(encode, decode, openh264, options):
    size = (3840, 2160)
    units = encode(f"preset=ultrafast:keyint=9:bframes=0:ref=1:weightp=0:subme=0:me=dia:{options}", size, 2)
    holds = [2, 3]
    stream = b"".join(held(units, holds))
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(stream) == wanted
    assert openh264(stream, size) == wanted
    assert max(len(unit) for unit in held(units, holds) if not is_idr(unit) and len(unit) < 1000) < 250


@pytest.mark.parametrize("sync_every", [1, 2, 3, 16])
@pytest.mark.parametrize("options", ["", "cabac=0:slices=4"])
def test_copies_of_the_idr_make_long_holds_seekable(encode, decode, openh264, mixed_types, options, sync_every):
    units = encode(f"{mixed_types}:{options}")
    holds = [max(1, hold % 40) for hold in HOLDS]
    output = held(units, holds, sync_every)
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(b"".join(output)) == wanted
    assert openh264(b"".join(output), (64, 48)) == wanted

    assert [number for number in range(holds[0]) if is_idr(output[number])] == list(range(0, holds[0], sync_every))
    later = max(number for number, unit in enumerate(output) if is_idr(unit))
    assert decode(b"".join(output[later:])) == wanted[later:]
    ids = idr_pic_ids(output)
    assert all(one is None or one != other for one, other in pairwise(ids))


def test_copies_leave_messages_about_one_moment_out(encode, mixed_types):
    first, second = list(HeldPictures().hold(encode(mixed_types)[0], 1, sync_every=1))
    assert [nal_type(nal) for nal in split_nals(first)] == [NalType.SPS, NalType.PPS, NalType.SEI, NalType.IDR_SLICE]
    assert [nal_type(nal) for nal in split_nals(second)] == [NalType.SPS, NalType.PPS, NalType.IDR_SLICE]


@pytest.mark.parametrize("options", ["", "cabac=0"])
def test_slice_data_with_raw_macroblocks_survives_another_idr_pic_id(encode, decode, openh264, options):
    # At this quantiser x264 finds noise cheaper as I_PCM, whose samples are aligned to bytes.
    units = encode(f"qp=1:keyint=2:min-keyint=1:bframes=0:ref=1:scenecut=0:{options}", (64, 48), 4, noise=200)
    holds = [3, 1, 4, 2]
    stream = b"".join(held(units, holds, sync_every=1))
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(stream) == wanted
    assert openh264(stream, (64, 48)) == wanted


def test_neighbouring_idrs_of_two_encoders_differ_in_their_id(encode, decode, openh264):
    # Both begin with idr_pic_id 0; parameter sets with the same ids change from CABAC to CAVLC on the way.
    units = [encode(f"keyint=9:bframes=0:ref=1:cabac={cabac}", (64, 48), 1)[0] for cabac in (1, 0, 1)]
    holds = [1, 1, 5]
    output = held(units, holds)
    assert idr_pic_ids(units) == [0, 0, 0]
    assert idr_pic_ids(output)[:3] == [0, 15, 0]
    wanted = expanded([decode(unit)[0] for unit in units], holds)
    assert decode(b"".join(output)) == wanted
    assert openh264(b"".join(output), (64, 48)) == wanted


def test_without_repeats_the_stream_passes_unchanged(encode, mixed_types):
    units = encode(mixed_types)
    assert held(units, [1] * len(units)) == units


def test_iterators_may_be_consumed_late(encode, mixed_types):
    units = encode(mixed_types)
    pictures = HeldPictures()
    late = [pictures.hold(unit, frames - 1) for unit, frames in zip(units, HOLDS, strict=True)]
    assert [unit for iterator in late for unit in iterator] == held(units, HOLDS)


def test_several_reference_frames_need_an_idr_after_a_hold(encode, decode, openh264, mixed_types):
    units = encode(f"{mixed_types}:ref=3")
    holds = [1] * 8 + [16] + [1] * 8 + [300]  # before the IDR, and at the end
    output = held(units, holds)
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(b"".join(output)) == wanted
    assert openh264(b"".join(output), (64, 48)) == wanted
    with pytest.raises(UnsupportedStream, match="without an IDR between"):
        held(units, [1, 1, 1, 2] + [1] * 14)


def test_several_reference_frames_do_no_harm_while_only_the_nearest_is_used(encode, decode, openh264, reshaped):
    units = reshaped(encode("keyint=9:bframes=0:ref=1:weightp=0", (64, 48), 9), max_num_ref_frames=4)
    holds = [3, 1, 20, 2, 5, 1, 7, 1, 40]
    output = held(units, holds)
    wanted = expanded(decode(b"".join(units)), holds)
    assert decode(b"".join(output)) == wanted
    assert openh264(b"".join(output), (64, 48)) == wanted


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("tff=1:bframes=0", "interlaced"),
        ("keyint=1", "intra"),
        ("keyint=1:8x8dct=0", "no reference frame"),
        ("nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500:bframes=0:ref=1", "timing message"),
        ("pic-struct=1:bframes=0:ref=1", "timing message"),
        ("bframes=2:b-adapt=0", "presentation order|B pictures"),
    ],
)
def test_what_cannot_be_held_is_refused_with_its_reason(encode, options, reason):
    units = encode(options, (64, 48), 6)
    with pytest.raises(UnsupportedStream, match=reason):
        held(units, [2] * len(units))


def test_a_picture_that_is_no_reference_is_not_held(encode, mixed_types):
    idr, p_picture = encode(mixed_types)[:2]
    disposable = join_nals([bytes([nal[0] & 0x1F]) + nal[1:] for nal in split_nals(p_picture)])
    pictures = HeldPictures()
    list(pictures.hold(idr, 0))
    with pytest.raises(UnsupportedStream, match="is not a reference picture"):
        pictures.hold(disposable, 1)


def test_a_stream_must_begin_with_an_idr(encode, mixed_types):
    units = encode(mixed_types)
    sets = join_nals(split_nals(units[0])[:2])
    with pytest.raises(InvalidStream, match="does not begin with an IDR"):
        HeldPictures().hold(sets + units[1], 0)
    with pytest.raises(InvalidStream, match="not complete"):
        HeldPictures().hold(units[1], 0)
    with pytest.raises(InvalidStream, match="no coded slice"):
        HeldPictures().hold(sets, 0)


@pytest.mark.parametrize(("repeats", "sync_every"), [(-1, None), (1, 0)])
def test_numbers_out_of_range_are_the_callers_fault(encode, mixed_types, repeats, sync_every):
    with pytest.raises(ValueError, match="expected repeats from 0"):
        HeldPictures().hold(encode(mixed_types)[0], repeats, sync_every=sync_every)


def test_an_end_of_stream_moves_out_of_the_way_of_repeats(encode, decode, mixed_types):
    unit = encode(mixed_types)[0]
    output = list(HeldPictures().hold(unit + b"\0\0\1\x0a\0\0\1\x0b", 3))
    assert decode(b"".join(output)) == decode(unit) * 4


def test_is_idr_looks_at_the_first_slice(encode, mixed_types):
    units = encode(mixed_types)
    assert [is_idr(unit) for unit in units] == [number in (0, 9) for number in range(len(units))]
    assert not is_idr(b"")
    assert not is_idr(b"\0\0\1")
    assert not is_idr(join_nals(split_nals(units[0])[:2]))
