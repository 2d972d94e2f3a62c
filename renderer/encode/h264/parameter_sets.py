"""Sequence and picture parameter sets of H.264 (7.3.2.1, 7.3.2.2, E.1.1) as frozen values.

Read up to the last element that matters for held pictures or for presentation order. Streams of any encoder may come
here, so every element is read and no value is assumed. Numbers are held against the bounds of the semantics where
they would otherwise lead to absurd sizes or loops. Keyword arguments below are in the order of the bitstream, in
which Python evaluates them too.

Video usability information (E.1.1) is the part of an SPS about colours, clock and reordering.
"""

from dataclasses import dataclass
from typing import Final

from renderer.encode.h264.bits import BitReader, InvalidStream, NalType, UnsupportedStream, nal_type, unescape

SQUARE: Final = 1  # aspect_ratio_idc, Table E-1
_EXTENDED_SAR: Final = 255


@dataclass(frozen=True, slots=True)
class Colour:
    """Colour description of the VUI (E.2.1), as the code points of ITU-T H.273; 2 is unspecified."""

    is_full_range: bool = False
    primaries: int = 2
    transfer: int = 2
    matrix: int = 2


@dataclass(frozen=True, slots=True)
class Vui:
    """Video usability information (E.1.1), without what concerns the clock."""

    aspect_ratio_idc: int | None
    chroma_location: tuple[int, int] | None
    """Of the top and the bottom field (Figure E-1); 0 is left."""
    colour: Colour | None
    needs_picture_timing: bool
    """Every access unit must carry a picture timing SEI message (D.2.3): for an HRD or for pic_struct."""
    num_reorder_frames: int | None
    """None without bitstream_restriction."""


def read_vui(bits: BitReader) -> Vui:
    """Read the VUI of an SPS, up to max_num_reorder_frames."""
    aspect_ratio_idc = read_aspect(bits)
    read_over_overscan(bits)
    colour = read_colour(bits)
    chroma_location = read_chroma_location(bits)
    read_over_clock(bits)
    needs_picture_timing = read_over_buffering(bits)
    num_reorder_frames = _num_reorder_frames(bits) if bits.flag() else None
    return Vui(aspect_ratio_idc, chroma_location, colour, needs_picture_timing, num_reorder_frames)


def read_aspect(bits: BitReader) -> int | None:
    """Read the sample aspect ratio; return its aspect_ratio_idc."""
    aspect_ratio_idc = bits.u(8) if bits.flag() else None
    if aspect_ratio_idc == _EXTENDED_SAR:
        bits.u(32)  # sar_width, sar_height
    return aspect_ratio_idc


def read_chroma_location(bits: BitReader) -> tuple[int, int] | None:
    """Read chroma_sample_loc_type of both fields."""
    return (bits.ue(), bits.ue()) if bits.flag() else None


def read_over_overscan(bits: BitReader) -> None:
    """Read the elements between the sample aspect ratio and video_signal_type_present_flag."""
    if bits.flag():
        bits.flag()  # overscan_appropriate_flag


def read_over_clock(bits: BitReader) -> None:
    """Read num_units_in_tick, time_scale and fixed_frame_rate_flag, if there are any."""
    if bits.flag():
        bits.u(65)


def read_over_buffering(bits: BitReader) -> bool:
    """Read on from the clock to bitstream_restriction_flag; say whether pictures need their timing."""
    has_hrd = _has_hrd(bits)
    has_pic_struct = bits.flag()
    return has_hrd or has_pic_struct


def read_colour(bits: BitReader) -> Colour | None:
    """Read video_signal_type_present_flag and what follows from it."""
    if not bits.flag():
        return None
    bits.u(3)  # video_format
    is_full_range = bits.flag()
    if not bits.flag():
        return Colour(is_full_range)
    return Colour(is_full_range, primaries=bits.u(8), transfer=bits.u(8), matrix=bits.u(8))


def _has_hrd(bits: BitReader) -> bool:
    """Read over the HRD parameters of NAL units and of the VCL (E.1.2), and say whether there are any."""
    present = 0
    for _ in range(2):
        if bits.flag():
            present += 1
            cpb_count = bits.at_most(31, "cpb_cnt_minus1") + 1
            bits.u(8)  # bit_rate_scale, cpb_size_scale
            for _ in range(cpb_count):
                bits.ue()  # bit_rate_value_minus1
                bits.ue()  # cpb_size_value_minus1
                bits.flag()  # cbr_flag
            bits.u(20)  # four lengths
    if present:
        bits.flag()  # low_delay_hrd_flag
    return present > 0


def _num_reorder_frames(bits: BitReader) -> int:
    bits.flag()  # motion_vectors_over_pic_boundaries_flag
    for _ in range(4):
        bits.ue()  # max_bytes_per_pic_denom, max_bits_per_mb_denom, log2_max_mv_length_horizontal and _vertical
    num_reorder_frames = bits.at_most(16, "max_num_reorder_frames")
    bits.ue()  # max_dec_frame_buffering
    return num_reorder_frames


# 7.3.2.1.1: the profiles whose SPS states its chroma format.
_HIGH_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_CAVLC_444_INTRA: Final = 44

# Table A-1, level 6.2; A.3.1 bounds a side by the root of eight times that.
_MAX_PICTURE_SIZE_IN_MBS: Final = 139_264
_MAX_SIDE_IN_MBS: Final = 1055


@dataclass(frozen=True, slots=True)
class Chroma:
    """The chroma format; an SPS that states none means 4:2:0."""

    format_idc: int = 1
    separate_planes: bool = False

    @property
    def array_type(self) -> int:
        """ChromaArrayType (7.4.2.1.1)."""
        return 0 if self.separate_planes else self.format_idc


@dataclass(frozen=True, slots=True)
class PictureOrder:
    """How pictures state their place in presentation order (8.2.1)."""

    poc_type: int
    lsb_width: int = 0
    """Bits of pic_order_cnt_lsb; 0 unless poc_type is 0."""
    delta_always_zero: bool = False


@dataclass(frozen=True, slots=True)
class FrameShape:
    """The size of a coded frame, and what of it is shown."""

    width_in_mbs: int
    height_in_mbs: int
    is_progressive: bool
    """frame_mbs_only_flag."""
    crop: tuple[int, int, int, int]
    """Left, right, top, bottom, in luma samples."""

    @property
    def size_in_mbs(self) -> int:
        """Macroblocks of a frame."""
        return self.width_in_mbs * self.height_in_mbs

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height after cropping, in luma samples."""
        left, right, top, bottom = self.crop
        return self.width_in_mbs * 16 - left - right, self.height_in_mbs * 16 - top - bottom


@dataclass(frozen=True, slots=True)
class Sps:
    """A sequence parameter set."""

    profile_idc: int
    constraint_flags: int
    """constraint_set0_flag is the highest of eight bits."""
    level_idc: int
    sps_id: int
    chroma: Chroma
    frame_num_width: int
    order: PictureOrder
    max_num_ref_frames: int
    allows_frame_num_gaps: bool
    frame: FrameShape
    vui_position: int
    """Bit of vui_parameters_present_flag in the NAL unit, emulation prevention taken out."""
    vui: Vui | None

    @property
    def is_intra_only(self) -> bool:
        """The profile, or constraint_set3_flag beside it, forbids P slices (A.2.8 to A.2.11)."""
        is_constrained = self.profile_idc in (100, 110, 122, 244) and bool(self.constraint_flags & 0x10)
        return self.profile_idc == _CAVLC_444_INTRA or is_constrained


@dataclass(frozen=True, slots=True)
class Pps:
    """A picture parameter set, up to the flags that shape slice headers."""

    pps_id: int
    sps_id: int
    is_cabac: bool
    has_bottom_poc: bool
    num_ref_idx_default: tuple[int, int]
    weighted_pred: bool
    weighted_bipred_idc: int
    pic_init_qp: int
    has_deblocking_control: bool
    has_redundant_pic_cnt: bool


def parse_sps(nal: bytes) -> Sps:
    """Read a sequence parameter set, with its emulation prevention bytes, as in the stream."""
    bits = _payload(nal, NalType.SPS)
    profile_idc = bits.u(8)
    sps = Sps(
        profile_idc=profile_idc,
        constraint_flags=bits.u(8),
        level_idc=bits.u(8),
        sps_id=bits.at_most(31, "seq_parameter_set_id"),
        chroma=(chroma := _chroma(bits) if profile_idc in _HIGH_PROFILES else Chroma()),
        frame_num_width=bits.at_most(12, "log2_max_frame_num_minus4") + 4,
        order=_picture_order(bits),
        max_num_ref_frames=bits.at_most(16, "max_num_ref_frames"),
        allows_frame_num_gaps=bits.flag(),
        frame=_frame_shape(bits, chroma),
        vui_position=bits.position,
        vui=read_vui(bits) if bits.flag() else None,
    )
    if sps.frame.size_in_mbs > _MAX_PICTURE_SIZE_IN_MBS or min(sps.frame.shown) <= 0:
        raise InvalidStream(f"no level has pictures of {sps.frame.size_in_mbs} macroblocks showing {sps.frame.shown}")
    return sps


def parse_pps(nal: bytes) -> Pps:
    """Read a picture parameter set, with its emulation prevention bytes, as in the stream."""
    bits = _payload(nal, NalType.PPS)
    pps_id, sps_id = bits.at_most(255, "pic_parameter_set_id"), bits.at_most(31, "seq_parameter_set_id")
    is_cabac, has_bottom_poc = bits.flag(), bits.flag()
    if bits.ue():
        raise UnsupportedStream("the picture is divided into slice groups (FMO)")
    num_ref_idx_default = (
        bits.at_most(31, "num_ref_idx_l0_default_active_minus1") + 1,
        bits.at_most(31, "num_ref_idx_l1_default_active_minus1") + 1,
    )
    weighted_pred, weighted_bipred_idc = bits.flag(), bits.u(2)
    pic_init_qp = 26 + bits.se()
    bits.se()  # pic_init_qs_minus26
    bits.se()  # chroma_qp_index_offset
    has_deblocking_control = bits.flag()
    bits.flag()  # constrained_intra_pred_flag
    return Pps(
        pps_id=pps_id,
        sps_id=sps_id,
        is_cabac=is_cabac,
        has_bottom_poc=has_bottom_poc,
        num_ref_idx_default=num_ref_idx_default,
        weighted_pred=weighted_pred,
        weighted_bipred_idc=weighted_bipred_idc,
        pic_init_qp=pic_init_qp,
        has_deblocking_control=has_deblocking_control,
        has_redundant_pic_cnt=bits.flag(),
    )


def _payload(nal: bytes, expected: NalType) -> BitReader:
    if not nal or nal_type(nal) != expected:
        raise InvalidStream(f"expected a NAL unit of type {expected}, found {nal[:1].hex() or 'nothing'}")
    bits = BitReader(unescape(nal))
    bits.u(8)
    return bits


def _chroma(bits: BitReader) -> Chroma:
    format_idc = bits.at_most(3, "chroma_format_idc")
    chroma = Chroma(format_idc, separate_planes=format_idc == 3 and bits.flag())
    bits.at_most(6, "bit_depth_luma_minus8")
    bits.at_most(6, "bit_depth_chroma_minus8")
    bits.flag()  # qpprime_y_zero_transform_bypass_flag
    if bits.flag():  # seq_scaling_matrix_present_flag
        for index in range(8 if format_idc != 3 else 12):
            if bits.flag():
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    """Read over a scaling list (7.3.2.1.1.1), which ends early at a next scale of 0."""
    scale = 8
    for _ in range(size):
        scale = (scale + bits.se()) % 256
        if scale == 0:
            return


def _picture_order(bits: BitReader) -> PictureOrder:
    poc_type = bits.at_most(2, "pic_order_cnt_type")
    if poc_type == 0:
        return PictureOrder(poc_type, lsb_width=bits.at_most(12, "log2_max_pic_order_cnt_lsb_minus4") + 4)
    delta_always_zero = poc_type == 1 and bits.flag()
    if poc_type == 1:
        bits.se()  # offset_for_non_ref_pic
        bits.se()  # offset_for_top_to_bottom_field
        for _ in range(bits.at_most(255, "num_ref_frames_in_pic_order_cnt_cycle")):
            bits.se()
    return PictureOrder(poc_type, delta_always_zero=delta_always_zero)


def _frame_shape(bits: BitReader, chroma: Chroma) -> FrameShape:
    width_in_mbs = bits.at_most(_MAX_SIDE_IN_MBS - 1, "pic_width_in_mbs_minus1") + 1
    height_in_map_units = bits.at_most(_MAX_SIDE_IN_MBS - 1, "pic_height_in_map_units_minus1") + 1
    is_progressive = bits.flag()
    if not is_progressive:
        bits.flag()  # mb_adaptive_frame_field_flag
    bits.flag()  # direct_8x8_inference_flag
    fields = 1 if is_progressive else 2
    # CropUnitX and CropUnitY (7.4.2.1.1): a chroma sample, and a row of either field.
    unit_x = 2 if chroma.array_type in (1, 2) else 1
    unit_y = (2 if chroma.array_type == 1 else 1) * fields
    left, right, top, bottom = (bits.ue(), bits.ue(), bits.ue(), bits.ue()) if bits.flag() else (0, 0, 0, 0)
    return FrameShape(
        width_in_mbs=width_in_mbs,
        height_in_mbs=height_in_map_units * fields,
        is_progressive=is_progressive,
        crop=(left * unit_x, right * unit_x, top * unit_y, bottom * unit_y),
    )
