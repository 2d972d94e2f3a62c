"""Writes into an SPS what an encoder left out: colours, the shape of samples, and that no picture is out of order.

Where the messages that time every picture (D.2.2, D.2.3) have been taken out of a stream, its SPS may not announce them
either: the buffer that a decoder at a certain bit rate has (HRD), and how a display shows fields (pic_struct).

Players guess what a stream does not state, and guess by its height. So the SPS of every encoder says the same as
libx264's does (E.2.1): video_format 5 (unspecified), limited range, and code point 1, BT.709, for all three of Table
E-3, E-4 and E-5; samples are square, and chroma lies on its left luma column, as `pictures.compose` puts it. The rest
of the SPS stays as its encoder wrote it.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import Final

from renderer.encode.h264.bits import BitReader, BitWriter, escape, unescape
from renderer.encode.h264.levels import least_level
from renderer.encode.h264.parameter_sets import (
    SQUARE,
    Colour,
    Vui,
    parse_sps,
    read_aspect,
    read_chroma_location,
    read_colour,
    read_over_buffering,
    read_over_clock,
    read_over_overscan,
)

BT709: Final = Colour(is_full_range=False, primaries=1, transfer=1, matrix=1)

_LEVEL_POSITION: Final = 24  # after the NAL unit's header, profile_idc and the constraint flags
_UNSPECIFIED_FORMAT: Final = 5
_LEFT: Final = 0
_NO_LIMIT: Final = 0
_LONGEST_VECTOR: Final = 15  # log2_max_mv_length: what holds where nothing is said


def described(sps_nal: bytes, fps: Fraction | None = None, *, is_reordered: bool, is_timed: bool = True) -> bytes:
    """Return the SPS with colours and the shape of samples stated.

    Args:
        sps_nal: with its emulation prevention bytes, as in the stream.
        fps: rate of the pictures that are shown; a level that is too low for it is raised.
        is_reordered: there may be B pictures; otherwise an SPS without bitstream_restriction gets one, so that players
            need not wait for a picture that could come late.
        is_timed: there may be messages that time every picture.

    Raises:
        InvalidStream: it is not an SPS.
    """
    sps = parse_sps(sps_nal)
    level_idc = max(sps.level_idc, least_level(sps, fps)) if fps else sps.level_idc
    if sps.vui and _is_finished(sps.vui, is_reordered=is_reordered, is_timed=is_timed) and level_idc == sps.level_idc:
        return sps_nal
    unescaped = unescape(sps_nal)
    source, written = BitReader(unescaped), BitWriter()
    _copy(source, written, _LEVEL_POSITION)
    source.u(8)
    written.u(8, level_idc)
    _copy(source, written, sps.vui_position)
    has_vui = source.flag()
    written.flag(True)
    written.flag(True)  # aspect_ratio_info_present_flag
    written.u(8, SQUARE)
    if has_vui:
        read_aspect(source)
        _copy_over(source, written, read_over_overscan)
        read_colour(source)
        read_chroma_location(source)
    else:
        written.flag(False)  # overscan_info_present_flag
    _write_colour(written)
    written.flag(True)  # chroma_loc_info_present_flag
    for _ in ("top field", "bottom field"):
        written.ue(_LEFT)
    if has_vui:
        _copy_clock(source, written, is_timed=is_timed)
    else:
        written.u(4, 0)  # timing, both HRDs, pic_struct
    is_restricted = has_vui and source.flag()
    written.flag(is_restricted or not is_reordered)
    if is_restricted:
        _copy(source, written, _payload_bits(unescaped))
    elif not is_reordered:
        _write_restriction(written, max(1, sps.max_num_ref_frames))
    written.trailing_bits()
    return escape(written.to_bytes())


def _is_finished(vui: Vui, *, is_reordered: bool, is_timed: bool) -> bool:
    tells_all = (vui.aspect_ratio_idc, vui.colour, vui.chroma_location) == (SQUARE, BT709, (_LEFT, _LEFT))
    tells_order = is_reordered or vui.num_reorder_frames is not None
    return tells_all and tells_order and (is_timed or not vui.needs_picture_timing)


def _payload_bits(unescaped: bytes) -> int:
    """Return the position of rbsp_stop_one_bit (7.3.2.11)."""
    value = int.from_bytes(unescaped, "big")
    return len(unescaped) * 8 - (value & -value).bit_length()


def _copy(source: BitReader, written: BitWriter, end: int) -> None:
    width = end - source.position
    written.u(width, source.u(width))


def _copy_over(source: BitReader, written: BitWriter, read_over: Callable[[BitReader], object]) -> None:
    """Copy what a function reads."""
    start = source.position
    read_over(source)
    end, source.position = source.position, start
    _copy(source, written, end)


def _copy_clock(source: BitReader, written: BitWriter, *, is_timed: bool) -> None:
    _copy_over(source, written, read_over_clock)
    if is_timed:
        _copy_over(source, written, read_over_buffering)
    else:
        read_over_buffering(source)
        written.u(3, 0)  # both HRDs, pic_struct


def _write_colour(written: BitWriter) -> None:
    written.flag(True)  # video_signal_type_present_flag
    written.u(3, _UNSPECIFIED_FORMAT)
    written.flag(BT709.is_full_range)
    written.flag(True)  # colour_description_present_flag
    for code_point in (BT709.primaries, BT709.transfer, BT709.matrix):
        written.u(8, code_point)


def _write_restriction(written: BitWriter, frame_buffering: int) -> None:
    written.flag(True)  # motion_vectors_over_pic_boundaries_flag
    for value in (_NO_LIMIT, _NO_LIMIT, _LONGEST_VECTOR, _LONGEST_VECTOR, 0, frame_buffering):
        written.ue(value)
