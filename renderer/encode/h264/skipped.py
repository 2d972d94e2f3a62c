"""The picture that repeats the one before it: a P slice in which every macroblock is P_Skip, in 10 to 240 bytes.

It copies its reference exactly. No neighbour has motion, so the predicted motion is zero everywhere (8.4.1.1). There is
no residual, and with one reference and equal motion the deblocking strength is 0 (8.7.2.1).

CAVLC needs one mb_skip_run. With CABAC (9.3) each macroblock has two bins, mb_skip_flag = 1 and end_of_slice_flag. The
neighbours are skipped as well or not there, so mb_skip_flag has ctxIdx 11 throughout (9.3.3.1.1.1), and the slice QP
chosen here makes 1 the more probable symbol from the start. Neither a more probable symbol nor an end_of_slice_flag of
0 moves codILow, which begins as 0 (9.3.4.2, 9.3.4.5). So the code word is zeros, one for each shift of the interval,
until the last bin: counting the shifts is all there is to do.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from renderer.encode.h264.bits import BitWriter, Field, NalType, escape
from renderer.encode.h264.parameter_sets import Pps, Sps
from renderer.encode.h264.syntax import P_SLICE

_START_CODE: Final = b"\0\0\0\1"

_CABAC_INIT_IDC: Final = 0
_SLICE_QP: Final = 26

# Table 9-13, ctxIdx 11 with cabac_init_idc 0: m and n. By 9.3.1.1 preCtxState is 70, so valMPS is 1 and pStateIdx 6.
_M, _N = 23, 33
_FIRST_STATE: Final = (_M * _SLICE_QP >> 4) + _N - 64
_LAST_ADAPTIVE_STATE: Final = 62

# Table 9-44, rangeTabLPS: for each pStateIdx from 0 the values for qCodIRangeIdx 0, 1, 2, 3.
_TABLE_9_44: Final = """
    128 176 208 240  128 167 197 227  128 158 187 216  123 150 178 205  116 142 169 195  111 135 160 185
    105 128 152 175  100 122 144 166   95 116 137 158   90 110 130 150   85 104 123 142   81  99 117 135
     77  94 111 128   73  89 105 122   69  85 100 116   66  80  95 110   62  76  90 104   59  72  86  99
     56  69  81  94   53  65  77  89   51  62  73  85   48  59  69  80   46  56  66  76   43  53  63  72
     41  50  59  69   39  48  56  65   37  45  54  62   35  43  51  59   33  41  48  56   32  39  46  53
     30  37  43  50   29  35  41  48   27  33  39  45   26  31  37  43   24  30  35  41   23  28  33  39
     22  27  32  37   21  26  30  35   20  24  29  33   19  23  27  31   18  22  26  30   17  21  25  28
     16  20  23  27   15  19  22  25   14  18  21  24   14  17  20  23   13  16  19  22   12  15  18  21
     12  14  17  20   11  14  16  19   11  13  15  18   10  12  15  17   10  12  14  16    9  11  13  15
      9  11  12  14    8  10  12  14    8   9  11  13    7   9  11  12    7   9  10  12    7   8  10  11
      6   8   9  11    6   7   9  10    6   7   8   9    2   2   2   2
"""
_RANGE_LPS: Final = tuple(map(int, _TABLE_9_44.split()))


@dataclass(frozen=True, slots=True)
class SkippedPicture:
    """The access unit that repeats the picture before it, but for its two counters."""

    template: int
    """The NAL unit with both counters 0."""
    size_bytes: int
    frame_num: Field
    poc_lsb: Field | None

    def access_unit(self, frame_num: int, poc_lsb: int) -> bytes:
        """Write it with these counters, each modulo its range."""
        nal = self.template
        for counter, value in ((self.frame_num, frame_num), (self.poc_lsb, poc_lsb)):
            if counter is not None:
                shift = 8 * self.size_bytes - counter.position - counter.width
                nal |= (value & ((1 << counter.width) - 1)) << shift
        return _START_CODE + escape(nal.to_bytes(self.size_bytes, "big"))


@lru_cache(maxsize=16)
def skipped_picture(sps: Sps, pps: Pps) -> SkippedPicture:
    """Write the slice (7.3.3) in which every macroblock is P_Skip, with the entropy coder that the PPS names."""
    bits = BitWriter()
    bits.u(8, 1 << 5 | NalType.SLICE)  # nal_ref_idc 1
    bits.ue(0)  # first_mb_in_slice
    bits.ue(P_SLICE + 5)  # all slices of the picture are P
    bits.ue(pps.pps_id)
    frame_num = bits.u_field(sps.frame_num_width, 0)
    poc_lsb = bits.u_field(sps.order.lsb_width, 0) if sps.order.poc_type == 0 else None
    if poc_lsb and pps.has_bottom_poc:
        bits.se(0)  # delta_pic_order_cnt_bottom
    if pps.has_redundant_pic_cnt:
        bits.ue(0)
    bits.flag(
        True
    )  # num_ref_idx_active_override_flag: FFmpeg warns of missing references if the PPS says more than one
    bits.ue(0)  # num_ref_idx_l0_active_minus1
    bits.flag(False)  # ref_pic_list_modification_flag_l0
    if pps.weighted_pred:
        _write_default_weights(bits, has_chroma=sps.chroma.array_type != 0)
    bits.flag(False)  # adaptive_ref_pic_marking_mode_flag
    if pps.is_cabac:
        bits.ue(_CABAC_INIT_IDC)
    bits.se(_SLICE_QP - pps.pic_init_qp)
    if pps.has_deblocking_control:
        bits.ue(1)  # off: there is nothing to smooth, so decoders need not look
    if pps.is_cabac:
        bits.align(ones=True)
        value, width = _cabac_slice_data(sps.frame.size_in_mbs)
        bits.u(width, value)
        bits.align(ones=False)
    else:
        bits.ue(sps.frame.size_in_mbs)  # mb_skip_run
        bits.trailing_bits()
    return SkippedPicture(bits.value, bits.position >> 3, frame_num, poc_lsb)


def _write_default_weights(bits: BitWriter, *, has_chroma: bool) -> None:
    """Write pred_weight_table (7.3.3.2) for one reference: weight 1 and offset 0, as inferred (7.4.3.2)."""
    bits.ue(0)  # luma_log2_weight_denom
    if has_chroma:
        bits.ue(0)  # chroma_log2_weight_denom
    bits.flag(False)  # luma_weight_l0_flag
    if has_chroma:
        bits.flag(False)  # chroma_weight_l0_flag


@lru_cache(maxsize=16)
def _cabac_slice_data(macroblocks: int) -> tuple[int, int]:
    """Return the slice data, rbsp_stop_one_bit included, as a number and how many bits it has."""
    interval, state, shifts = 510, _FIRST_STATE, 0
    for remaining in range(macroblocks - 1, -1, -1):
        interval -= _RANGE_LPS[4 * state + (interval >> 6 & 3)]
        if interval < 256:  # RenormE (9.3.4.3); these bins never cost more than one shift
            interval <<= 1
            shifts += 1
        state = min(state + 1, _LAST_ADAPTIVE_STATE)
        interval -= 2
        if remaining and interval < 256:
            interval <<= 1
            shifts += 1
    # The last end_of_slice_flag adds the interval to codILow. EncodeFlush (9.3.4.5) writes that in nine bits more, of
    # which the lowest becomes the stop bit; the very first bit of a code word is never written (firstBitFlag).
    return interval | 1, shifts + 9
