"""H.264 without a codec: every access unit is an IDR picture of mid-grey, and the frames are ignored.

For tests of the code above the seam, which need access units that decode and can be muxed, and should not wait for
an encoder. The bytes are real: Constrained Baseline with the canvas, the rate and the colours of the stream in its SPS.

One macroblock is one byte. It is Intra_16x16 with DC prediction (8.3.3.3), which is 128 where no neighbour is there and
the neighbours' 128 elsewhere, and it has no residual: mb_type 3 is ue(3) = 00100, intra_chroma_pred_mode 0 (DC),
mb_qp_delta 0 and a coeff_token of no coefficients (Table 9-5, 0 <= nC < 2) are one bit each, 1.
"""

from collections.abc import Sequence
from typing import Final

from renderer.config import EncodeSettings
from renderer.encode.base import Encoder, Nv12Frame, check_frame
from renderer.encode.h264.bits import BitWriter, NalType, escape, join_nals
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.errors import EncodeFailed

_GREY_MACROBLOCK: Final = b"\x27"
_I_SLICE: Final = 7  # Table 7-6: all slices of the picture are I
_PROFILE_IDC: Final = 66  # with constraint_set0_flag and constraint_set1_flag: Constrained Baseline (A.2.1.1)
_CONSTRAINTS: Final = 0b11000000
_LEVEL_IDC: Final = 62  # the highest of Table A-1: it admits what any lower one does
_BT709: Final = 1
_UNSPECIFIED_FORMAT: Final = 5


class NullEncoder(Encoder):
    """Takes frames without looking at them; see `encode.base.Encoder` for the contract.

    A test that needs a failure or a delay overrides `encode`.
    """

    def __init__(self, stream: StreamSettings, settings: EncodeSettings) -> None:  # noqa: ARG002 - as all encoders
        self._stream = stream
        # Two IDR pictures in a row differ in idr_pic_id (7.4.3).
        self._units = tuple(AccessUnit(_grey_idr(stream, idr_pic_id), is_idr=True) for idr_pic_id in (0, 1))
        self._frames = 0
        self._is_open = True

    def __repr__(self) -> str:
        return f"<NullEncoder {self._stream.canvas} frames={self._frames}{'' if self._is_open else ' closed'}>"

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        check_frame(frame, self._stream.canvas)
        if not self._is_open:
            raise EncodeFailed("no frame may follow flush() or close()")
        self._frames += 1
        return [self._units[self._frames % 2]]

    def flush(self) -> Sequence[AccessUnit]:
        self._is_open = False
        return []

    def close(self) -> None:
        self._is_open = False


def _grey_idr(stream: StreamSettings, idr_pic_id: int) -> bytes:
    return join_nals([_sps(stream), _pps(), _slice(stream, idr_pic_id)])


def _sides_in_mbs(stream: StreamSettings) -> tuple[int, int]:
    return -(-stream.canvas.width // 16), -(-stream.canvas.height // 16)


def _sps(stream: StreamSettings) -> bytes:
    """Write the sequence parameter set (7.3.2.1.1)."""
    width_in_mbs, height_in_mbs = _sides_in_mbs(stream)
    bits = _nal(NalType.SPS)
    for byte in (_PROFILE_IDC, _CONSTRAINTS, _LEVEL_IDC):
        bits.u(8, byte)
    bits.ue(0)  # seq_parameter_set_id
    bits.ue(0)  # log2_max_frame_num_minus4
    bits.ue(2)  # pic_order_cnt_type: output order is decoding order
    bits.ue(1)  # max_num_ref_frames
    bits.flag(False)  # gaps_in_frame_num_value_allowed_flag
    bits.ue(width_in_mbs - 1)
    bits.ue(height_in_mbs - 1)
    bits.flag(True)  # frame_mbs_only_flag
    bits.flag(True)  # direct_8x8_inference_flag
    bits.flag(True)  # frame_cropping_flag
    # A crop unit is one chroma sample, two luma samples (7.4.2.1.1).
    for crop in (0, width_in_mbs * 8 - stream.canvas.width // 2, 0, height_in_mbs * 8 - stream.canvas.height // 2):
        bits.ue(crop)
    bits.flag(True)  # vui_parameters_present_flag
    _write_vui(bits, stream)
    return _ended(bits)


def _write_vui(bits: BitWriter, stream: StreamSettings) -> None:
    """Write the video usability information (E.1.1): BT.709 limited, a fixed rate, no picture out of order."""
    bits.u(2, 0)  # aspect_ratio_info_present_flag, overscan_info_present_flag
    bits.flag(True)  # video_signal_type_present_flag
    bits.u(3, _UNSPECIFIED_FORMAT)
    bits.flag(False)  # video_full_range_flag
    bits.flag(True)  # colour_description_present_flag
    for _ in ("colour_primaries", "transfer_characteristics", "matrix_coefficients"):
        bits.u(8, _BT709)
    bits.flag(False)  # chroma_loc_info_present_flag
    bits.flag(True)  # timing_info_present_flag
    bits.u(32, stream.fps.denominator)
    bits.u(32, 2 * stream.fps.numerator)  # a tick is a field's time
    bits.flag(True)  # fixed_frame_rate_flag
    bits.u(3, 0)  # no HRD parameters, no pic_struct_present_flag
    bits.flag(True)  # bitstream_restriction_flag
    bits.flag(True)  # motion_vectors_over_pic_boundaries_flag
    for value in (
        0,
        0,
        16,
        16,
        0,
        1,
    ):  # no limits on bytes and vectors; max_num_reorder_frames, max_dec_frame_buffering
        bits.ue(value)


def _pps() -> bytes:
    """Write the picture parameter set (7.3.2.2)."""
    bits = _nal(NalType.PPS)
    bits.ue(0)  # pic_parameter_set_id
    bits.ue(0)  # seq_parameter_set_id
    bits.u(2, 0)  # CAVLC; bottom_field_pic_order_in_frame_present_flag
    bits.ue(0)  # num_slice_groups_minus1
    bits.ue(0)  # num_ref_idx_l0_default_active_minus1
    bits.ue(0)  # num_ref_idx_l1_default_active_minus1
    bits.u(3, 0)  # weighted_pred_flag, weighted_bipred_idc
    for _ in ("pic_init_qp_minus26", "pic_init_qs_minus26", "chroma_qp_index_offset"):
        bits.se(0)
    bits.flag(True)  # deblocking_filter_control_present_flag
    bits.u(2, 0)  # constrained_intra_pred_flag, redundant_pic_cnt_present_flag
    return _ended(bits)


def _slice(stream: StreamSettings, idr_pic_id: int) -> bytes:
    """Write the slice (7.3.3, 7.3.4) that is the whole picture."""
    width_in_mbs, height_in_mbs = _sides_in_mbs(stream)
    macroblocks = _GREY_MACROBLOCK * (width_in_mbs * height_in_mbs)
    bits = _nal(NalType.IDR_SLICE)
    bits.ue(0)  # first_mb_in_slice
    bits.ue(_I_SLICE)
    bits.ue(0)  # pic_parameter_set_id
    bits.u(4, 0)  # frame_num
    bits.ue(idr_pic_id)
    bits.u(2, 0)  # no_output_of_prior_pics_flag, long_term_reference_flag
    bits.se(0)  # slice_qp_delta
    bits.ue(1)  # disable_deblocking_filter_idc: there is nothing to smooth
    bits.u(8 * len(macroblocks), int.from_bytes(macroblocks, "big"))
    return _ended(bits)


def _nal(kind: NalType) -> BitWriter:
    bits = BitWriter()
    bits.u(8, 3 << 5 | kind)  # nal_ref_idc 3
    return bits


def _ended(bits: BitWriter) -> bytes:
    bits.trailing_bits()
    return escape(bits.to_bytes())
