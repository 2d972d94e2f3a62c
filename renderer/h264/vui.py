"""Video usability information (E.1.1), the part of an SPS that tells colours, clock and reordering."""

from dataclasses import dataclass
from typing import Final

from renderer.h264.bits import BitReader

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
    colour = _colour(bits) if bits.flag() else None
    chroma_location = read_chroma_location(bits)
    needs_picture_timing = read_over_clock(bits)
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
    """Read what stands between the sample aspect ratio and video_signal_type_present_flag."""
    if bits.flag():
        bits.flag()  # overscan_appropriate_flag


def read_over_clock(bits: BitReader) -> bool:
    """Read on from the chroma location to bitstream_restriction_flag; say whether pictures need their timing."""
    if bits.flag():
        bits.u(65)  # num_units_in_tick, time_scale, fixed_frame_rate_flag
    has_hrd = _has_hrd(bits)
    has_pic_struct = bits.flag()
    return has_hrd or has_pic_struct


def _colour(bits: BitReader) -> Colour:
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
