"""Slice headers of H.264 (7.3.3), read with the parameter sets that the stream has sent so far.

Read to their last bit, because every element can make a picture unfit for being held, and because CABAC slice
data is aligned after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from renderer.encode.h264.bits import BitReader, Field, InvalidStream, NalType, UnsupportedStream, nal_type
from renderer.encode.h264.parameter_sets import Pps, Sps, parse_pps, parse_sps

P_SLICE: Final = 0
B_SLICE: Final = 1
I_SLICE: Final = 2

_FORGET_ALL: Final = 5
_DEBLOCKING_OFF: Final = 1


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """A slice header, and where in its NAL unit the fields lie that holding rewrites."""

    nal_ref_idc: int
    first_mb: int
    slice_type: int
    """Modulo 5."""
    pps_id: int
    frame_num: Field
    idr_pic_id: Field | None
    """None unless the picture is an IDR."""
    poc_lsb: Field | None
    """None unless pic_order_cnt_type is 0."""
    delta_poc_bottom: int
    redundant_pic_cnt: int
    num_ref_idx_active: tuple[int, int]
    """0 for a list that the slice type does not have."""
    modifies_ref_lists: bool
    marking: tuple[int, ...]
    """The memory_management_control_operation codes, without the closing 0."""
    is_long_term: bool
    slice_qp_delta: int
    disable_deblocking_idc: int
    end: int
    """Position of the slice data, before any cabac_alignment_one_bit."""

    @property
    def resets_order(self) -> bool:
        """The picture forgets all others without being an IDR (memory_management_control_operation 5)."""
        return _FORGET_ALL in self.marking


class ParameterSets:
    """The parameter sets of one stream; a set sent again replaces the one with the same id (7.4.1.2.1)."""

    def __init__(self) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}

    def take(self, nal: bytes) -> Sps | None:
        """Keep the NAL unit if it is a parameter set, and return it if it is an SPS."""
        if nal_type(nal) == NalType.PPS:
            pps = parse_pps(nal)
            self._pps[pps.pps_id] = pps
        if nal_type(nal) != NalType.SPS:
            return None
        sps = parse_sps(nal)
        self._sps[sps.sps_id] = sps
        return sps

    def active(self, pps_id: int) -> tuple[Sps, Pps]:
        """Return the parameter sets that a slice names."""
        pps = self._pps.get(pps_id)
        sps = self._sps.get(pps.sps_id) if pps else None
        if pps is None or sps is None:
            raise InvalidStream(f"a slice names picture parameter set {pps_id}, which is not complete")
        return sps, pps

    def slice_header(self, unescaped: bytes) -> SliceHeader:
        """Read a slice header from the NAL unit of a coded slice without its emulation prevention bytes."""
        bits = BitReader(unescaped)
        bits.u(1)  # forbidden_zero_bit
        nal_ref_idc, nal_unit_type = bits.u(2), bits.u(5)
        if nal_unit_type not in (NalType.SLICE, NalType.IDR_SLICE):
            raise InvalidStream(f"expected a coded slice, found a NAL unit of type {nal_unit_type}")
        first_mb, slice_type = bits.ue(), bits.at_most(9, "slice_type") % 5
        if slice_type not in (P_SLICE, B_SLICE, I_SLICE):
            raise UnsupportedStream("there are SP or SI slices")
        sps, pps = self.active(bits.at_most(255, "pic_parameter_set_id"))
        if not sps.frame.is_progressive:
            raise UnsupportedStream("the pictures are interlaced (frame_mbs_only_flag is 0)")
        return _slice_header(bits, _Slice(sps, pps, first_mb, slice_type, nal_ref_idc, nal_unit_type))


@dataclass(frozen=True, slots=True)
class _Slice:
    """What decides how the rest of a slice header reads."""

    sps: Sps
    pps: Pps
    first_mb: int
    slice_type: int
    nal_ref_idc: int
    nal_unit_type: int

    @property
    def is_idr(self) -> bool:
        return self.nal_unit_type == NalType.IDR_SLICE

    @property
    def is_weighted(self) -> bool:
        if self.slice_type == B_SLICE:
            return self.pps.weighted_bipred_idc == 1
        return self.slice_type == P_SLICE and self.pps.weighted_pred


def _slice_header(bits: BitReader, that: _Slice) -> SliceHeader:
    sps, pps = that.sps, that.pps
    if sps.chroma.separate_planes:
        bits.u(2)  # colour_plane_id
    frame_num = bits.u_field(sps.frame_num_width)
    idr_pic_id = bits.ue_field() if that.is_idr else None
    poc_lsb = bits.u_field(sps.order.lsb_width) if sps.order.poc_type == 0 else None
    delta_poc_bottom = _delta_poc(bits, that)
    redundant_pic_cnt = bits.at_most(127, "redundant_pic_cnt") if pps.has_redundant_pic_cnt else 0
    num_ref_idx_active = _num_ref_idx_active(bits, that)
    modifies_ref_lists = _modifies_ref_lists(bits, that.slice_type)
    if that.is_weighted:
        _skip_weights(bits, num_ref_idx_active, has_chroma=sps.chroma.array_type != 0)
    marking, is_long_term = _marking(bits, that) if that.nal_ref_idc else ((), False)
    if pps.is_cabac and that.slice_type != I_SLICE:
        bits.at_most(2, "cabac_init_idc")
    return SliceHeader(
        nal_ref_idc=that.nal_ref_idc,
        first_mb=that.first_mb,
        slice_type=that.slice_type,
        pps_id=pps.pps_id,
        frame_num=frame_num,
        idr_pic_id=idr_pic_id,
        poc_lsb=poc_lsb,
        delta_poc_bottom=delta_poc_bottom,
        redundant_pic_cnt=redundant_pic_cnt,
        num_ref_idx_active=num_ref_idx_active,
        modifies_ref_lists=modifies_ref_lists,
        marking=marking,
        is_long_term=is_long_term,
        slice_qp_delta=bits.se(),
        disable_deblocking_idc=_deblocking(bits) if pps.has_deblocking_control else 0,
        end=bits.position,
    )


def _delta_poc(bits: BitReader, that: _Slice) -> int:
    """Read delta_pic_order_cnt_bottom, or read over the deltas of type 1."""
    order = that.sps.order
    if order.poc_type == 0 and that.pps.has_bottom_poc:
        return bits.se()
    if order.poc_type == 1 and not order.delta_always_zero:
        bits.se()
        if that.pps.has_bottom_poc:
            bits.se()
    return 0


def _num_ref_idx_active(bits: BitReader, that: _Slice) -> tuple[int, int]:
    lists = {P_SLICE: 1, B_SLICE: 2}.get(that.slice_type, 0)
    if that.slice_type == B_SLICE:
        bits.flag()  # direct_spatial_mv_pred_flag
    l0, l1 = that.pps.num_ref_idx_default
    if lists and bits.flag():
        l0 = bits.at_most(31, "num_ref_idx_l0_active_minus1") + 1
        l1 = bits.at_most(31, "num_ref_idx_l1_active_minus1") + 1 if lists == 2 else 0
    return (l0 if lists else 0), (l1 if lists == 2 else 0)


def _codes(bits: BitReader, end: int, limit: int) -> Iterator[int]:
    """Read codes up to the one that ends their list; the caller reads what follows each."""
    while (code := bits.at_most(limit, "an operation on the reference pictures")) != end:
        yield code


def _modifies_ref_lists(bits: BitReader, slice_type: int) -> bool:
    """Read over ref_pic_list_modification (7.3.3.1)."""
    is_modified = False
    for _ in range({P_SLICE: 1, B_SLICE: 2}.get(slice_type, 0)):
        if bits.flag():
            is_modified = True
            for _ in _codes(bits, end=3, limit=3):
                bits.ue()  # abs_diff_pic_num_minus1 or long_term_pic_num
    return is_modified


def _skip_weights(bits: BitReader, num_ref_idx_active: tuple[int, int], *, has_chroma: bool) -> None:
    """Read over pred_weight_table (7.3.3.2)."""
    bits.at_most(7, "luma_log2_weight_denom")
    if has_chroma:
        bits.at_most(7, "chroma_log2_weight_denom")
    for _ in range(sum(num_ref_idx_active)):
        for plane_count in (1, 2) if has_chroma else (1,):
            if bits.flag():
                for _ in range(2 * plane_count):
                    bits.se()  # weight or offset


def _marking(bits: BitReader, that: _Slice) -> tuple[tuple[int, ...], bool]:
    """Read dec_ref_pic_marking (7.3.3.3): the operations, and whether an IDR becomes a long-term reference."""
    if that.is_idr:
        bits.flag()  # no_output_of_prior_pics_flag
        return (), bits.flag()
    if not bits.flag():
        return (), False
    operations = []
    for code in _codes(bits, end=0, limit=6):
        operations.append(code)
        for _ in range({3: 2, _FORGET_ALL: 0}.get(code, 1)):
            bits.ue()
    return tuple(operations), False


def _deblocking(bits: BitReader) -> int:
    disable_deblocking_idc = bits.at_most(2, "disable_deblocking_filter_idc")
    if disable_deblocking_idc != _DEBLOCKING_OFF:
        bits.se()  # slice_alpha_c0_offset_div2
        bits.se()  # slice_beta_offset_div2
    return disable_deblocking_idc
