from contextlib import suppress
from itertools import cycle, islice

from hypothesis import given, settings
from hypothesis import strategies as st

from renderer.encode.h264.bits import BitWriter, UnsupportedStream, escape, join_nals, split_nals, unescape
from renderer.encode.h264.order import PresentationOrder
from renderer.encode.h264.parameter_sets import parse_pps, parse_sps
from renderer.encode.h264.repeat import HeldPictures, is_idr
from renderer.encode.h264.syntax import B_SLICE, I_SLICE, P_SLICE, ParameterSets

ue = st.integers(0, 3)
flags = st.booleans()
slice_shapes = st.fixed_dictionaries(
    {
        "is_cabac": flags,
        "bottom_poc": st.none() | st.integers(-5, 5),
        "poc_type": st.sampled_from([0, 2]),
        "weighted": flags,
        "redundant": st.none() | st.integers(0, 127),
        "has_deblocking": flags,
        "ref_idc": st.integers(0, 3),
        "slice_type": st.sampled_from([P_SLICE, B_SLICE, I_SLICE]),
        "is_idr": flags,
        "first_mb": st.integers(0, 98),
        "pps_id": st.integers(0, 255),
        "frame_num": st.integers(0, 255),
        "idr_pic_id": st.integers(0, 65535),
        "poc_lsb": st.integers(0, 63),
        "active": st.none() | st.tuples(st.integers(1, 32), st.integers(1, 32)),
        "modifications": st.lists(
            st.none() | st.lists(st.tuples(ue.filter(lambda n: n < 3), ue)), min_size=2, max_size=2
        ),
        "weights": st.lists(
            st.none() | st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=5
        ),
        "marking": st.lists(st.integers(1, 6), max_size=5),
        "qp_delta": st.integers(-26, 25),
        "disable_deblocking": st.integers(0, 2),
    }
)


def optional(bits, value):
    """Write a flag that says whether the value is there."""
    bits.flag(value is not None)
    return value is not None


def written_slice(shape):
    """Return an access unit, whose SPS says 8 bits of frame_num and 6 of pic_order_cnt_lsb, and the header's end."""
    bits = BitWriter()
    is_idr = shape["is_idr"]
    slice_type = I_SLICE if is_idr else shape["slice_type"]
    lists = {P_SLICE: 1, B_SLICE: 2}.get(slice_type, 0)
    ref_idc = max(1, shape["ref_idc"]) if is_idr else shape["ref_idc"]
    bits.u(8, ref_idc << 5 | (5 if is_idr else 1))
    bits.ue(shape["first_mb"])
    bits.ue(slice_type + 5)
    bits.ue(shape["pps_id"])
    write_counters(bits, shape)
    if slice_type == B_SLICE:
        bits.flag(True)
    if lists and optional(bits, shape["active"]):
        for count in shape["active"][:lists]:
            bits.ue(count - 1)
    write_modifications(bits, shape["modifications"][:lists])
    if lists and shape["weighted"]:
        write_weights(bits, sum((shape["active"] or (2, 3))[:lists]), shape["weights"])
    if ref_idc:
        write_marking(bits, None if is_idr else shape["marking"])
    if shape["is_cabac"] and lists:
        bits.ue(2)
    bits.se(shape["qp_delta"])
    if shape["has_deblocking"]:
        write_deblocking(bits, shape["disable_deblocking"])
    end = bits.position
    bits.trailing_bits()
    return join_nals([small_sps(shape["poc_type"]), pps_for(shape), escape(bits.to_bytes())]), end


def write_counters(bits, shape):
    bits.u(8, shape["frame_num"])
    if shape["is_idr"]:
        bits.ue(shape["idr_pic_id"])
    if shape["poc_type"] == 0:
        bits.u(6, shape["poc_lsb"])
        if shape["bottom_poc"] is not None:
            bits.se(shape["bottom_poc"])
    if shape["redundant"] is not None:
        bits.ue(shape["redundant"])


def write_deblocking(bits, disable_deblocking):
    bits.ue(disable_deblocking)
    if disable_deblocking != 1:
        bits.se(-3)
        bits.se(2)


def write_modifications(bits, lists):
    for operations in lists:
        if optional(bits, operations):
            for code, operand in operations:
                bits.ue(code)
                bits.ue(operand)
            bits.ue(3)


def write_weights(bits, count, weights):
    bits.ue(5)
    bits.ue(7)
    for pair in islice(cycle(weights), count):
        for planes in (1, 2):
            if optional(bits, pair):
                for value in pair * planes:
                    bits.se(value)


def write_marking(bits, operations):
    if operations is None:
        bits.flag(False)
        bits.flag(True)
        return
    bits.flag(bool(operations))
    if operations:
        for code in operations:
            bits.ue(code)
            for _ in range({3: 2, 5: 0}.get(code, 1)):
                bits.ue(1)
        bits.ue(0)


def small_sps(poc_type):
    bits = BitWriter()
    bits.u(32, 0x674D0028)
    for value in (0, 4, poc_type, *([2] if poc_type == 0 else []), 4):
        bits.ue(value)
    bits.flag(False)
    bits.ue(10)
    bits.ue(8)
    bits.u(4, 0b1100)
    bits.trailing_bits()
    return escape(bits.to_bytes())


def pps_for(shape):
    bits = BitWriter()
    bits.u(8, 0x68)
    bits.ue(shape["pps_id"])
    bits.ue(0)
    bits.flag(shape["is_cabac"])
    bits.flag(shape["bottom_poc"] is not None)
    bits.ue(0)
    bits.ue(1)
    bits.ue(2)
    bits.flag(shape["weighted"])
    bits.u(2, int(shape["weighted"]))
    for _ in range(3):
        bits.se(-2)
    bits.flag(shape["has_deblocking"])
    bits.flag(False)
    bits.flag(shape["redundant"] is not None)
    bits.trailing_bits()
    return escape(bits.to_bytes())


@settings(deadline=None)
@given(slice_shapes)
def test_any_slice_header_is_read_as_written(shape):
    unit, end = written_slice(shape)
    sps, pps, nal = split_nals(unit)
    sets = ParameterSets()
    sets.take(sps)
    sets.take(pps)
    header = sets.slice_header(unescape(nal))
    slice_type = I_SLICE if shape["is_idr"] else shape["slice_type"]
    lists = {P_SLICE: 1, B_SLICE: 2}.get(slice_type, 0)
    assert (header.first_mb, header.slice_type, header.pps_id) == (shape["first_mb"], slice_type, shape["pps_id"])
    assert header.frame_num.value == shape["frame_num"]
    assert (header.idr_pic_id.value if header.idr_pic_id else None) == (
        shape["idr_pic_id"] if shape["is_idr"] else None
    )
    if shape["poc_type"] == 0:
        assert header.poc_lsb.value == shape["poc_lsb"]
        assert header.delta_poc_bottom == (shape["bottom_poc"] or 0)
    assert header.redundant_pic_cnt == (shape["redundant"] or 0)
    active = (shape["active"] or (2, 3))[:lists]
    assert header.num_ref_idx_active == (*active, 0, 0)[:2]
    modifications = shape["modifications"][:lists]
    assert header.modifies_ref_lists == any(operations is not None for operations in modifications)
    marks = not shape["is_idr"] and shape["ref_idc"]
    assert header.marking == (tuple(shape["marking"]) if marks else ())
    assert header.resets_order == (5 in header.marking)
    assert header.is_long_term == shape["is_idr"]
    assert header.slice_qp_delta == shape["qp_delta"]
    assert header.end == end


def feed(stream):
    """Bring bytes to every entrance; each either takes them or says why not."""
    pictures, order = HeldPictures(), PresentationOrder()
    is_idr(stream)
    entrances = [
        lambda: parse_sps(stream),
        lambda: parse_pps(stream),
        lambda: list(pictures.hold(stream, 2, sync_every=2)),
        lambda: list(pictures.hold(stream, 1)),
        lambda: (order.push(stream), order.push(stream), order.flush()),
    ]
    for enter in entrances:
        with suppress(UnsupportedStream):
            enter()


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_crash(stream):
    feed(stream)
    feed(b"\0\0\1\x67" + stream)
    feed(b"\x67" + stream)
    feed(b"\x68" + stream)


@settings(deadline=None)
@given(slice_shapes, st.binary(max_size=20))
def test_random_headers_never_crash(shape, tail):
    unit, _ = written_slice(shape)
    feed(unit)
    feed(unit[: len(unit) - len(tail)] + tail)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_streams_never_crash(encode, data):
    options = data.draw(st.sampled_from(["bframes=0:ref=1", "cabac=0:slices=2:bframes=0", "bframes=3"]))
    stream = bytearray(data.draw(st.sampled_from(encode(options, (64, 48), 6)[:4])))
    head = min(len(stream), 60)
    for _ in range(data.draw(st.integers(1, 6))):
        position = data.draw(st.integers(0, head - 1) | st.integers(0, len(stream) - 1))
        stream[position] ^= 1 << data.draw(st.integers(0, 7))
    feed(bytes(stream))
    feed(bytes(stream[: data.draw(st.integers(0, len(stream)))]))
