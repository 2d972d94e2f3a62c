"""Parameter sets and slice headers of real streams, read by this package and by FFmpeg's trace_headers."""

import re
import subprocess

import imageio_ffmpeg
import pytest

from renderer.encode.h264.bits import NalType, nal_type, split_nals, unescape
from renderer.encode.h264.parameter_sets import parse_pps, parse_sps
from renderer.encode.h264.syntax import ParameterSets

STREAMS = {
    "defaults": "keyint=5",
    "cavlc": "cabac=0:bframes=0",
    "slices": "slices=4:bframes=0:ref=3",
    "one-reference": "ref=1:bframes=0:weightp=0",
    "weighted": "ref=3:bframes=0:weightp=2:weightb=1",
    "b-pyramid": "bframes=3:b-adapt=0:b-pyramid=normal:keyint=9:open-gop=1",
    "no-8x8dct": "8x8dct=0:aud=1",
    "level": "level=5.1:ref=2",
    "custom-matrices": "cqm=jvt",
    "hrd": "nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500:pic-struct=1",
    "vui": "sar=255x7:overscan=show:videoformat=pal:chromaloc=1:fullrange=on:colorprim=bt709:colormatrix=bt709",
    "deblocking-offsets": "deblock=-2,1:qp=40",
    "intra-only": "keyint=1",
}
SPS_NAMES = {
    "profile_idc": lambda sps: sps.profile_idc,
    "level_idc": lambda sps: sps.level_idc,
    "seq_parameter_set_id": lambda sps: sps.sps_id,
    "log2_max_frame_num_minus4": lambda sps: sps.frame_num_width - 4,
    "pic_order_cnt_type": lambda sps: sps.order.poc_type,
    "log2_max_pic_order_cnt_lsb_minus4": lambda sps: sps.order.lsb_width - 4,
    "max_num_ref_frames": lambda sps: sps.max_num_ref_frames,
    "pic_width_in_mbs_minus1": lambda sps: sps.frame.width_in_mbs - 1,
    "pic_height_in_map_units_minus1": lambda sps: sps.frame.height_in_mbs - 1,
    "frame_mbs_only_flag": lambda sps: sps.frame.is_progressive,
    "colour_primaries": lambda sps: sps.vui.colour.primaries,
    "transfer_characteristics": lambda sps: sps.vui.colour.transfer,
    "matrix_coefficients": lambda sps: sps.vui.colour.matrix,
    "video_full_range_flag": lambda sps: sps.vui.colour.is_full_range,
    "max_num_reorder_frames": lambda sps: sps.vui.num_reorder_frames,
}
PPS_NAMES = {
    "pic_parameter_set_id": lambda pps: pps.pps_id,
    "entropy_coding_mode_flag": lambda pps: pps.is_cabac,
    "bottom_field_pic_order_in_frame_present_flag": lambda pps: pps.has_bottom_poc,
    "num_ref_idx_l0_default_active_minus1": lambda pps: pps.num_ref_idx_default[0] - 1,
    "num_ref_idx_l1_default_active_minus1": lambda pps: pps.num_ref_idx_default[1] - 1,
    "weighted_pred_flag": lambda pps: pps.weighted_pred,
    "weighted_bipred_idc": lambda pps: pps.weighted_bipred_idc,
    "pic_init_qp_minus26": lambda pps: pps.pic_init_qp - 26,
    "deblocking_filter_control_present_flag": lambda pps: pps.has_deblocking_control,
    "redundant_pic_cnt_present_flag": lambda pps: pps.has_redundant_pic_cnt,
}
SLICE_NAMES = {
    "nal_ref_idc": lambda header: header.nal_ref_idc,
    "first_mb_in_slice": lambda header: header.first_mb,
    "pic_parameter_set_id": lambda header: header.pps_id,
    "frame_num": lambda header: header.frame_num.value,
    "idr_pic_id": lambda header: header.idr_pic_id.value,
    "pic_order_cnt_lsb": lambda header: header.poc_lsb.value,
    "num_ref_idx_l0_active_minus1": lambda header: header.num_ref_idx_active[0] - 1,
    "num_ref_idx_l1_active_minus1": lambda header: header.num_ref_idx_active[1] - 1,
    "adaptive_ref_pic_marking_mode_flag": lambda header: bool(header.marking),
    "slice_qp_delta": lambda header: header.slice_qp_delta,
    "disable_deblocking_filter_idc": lambda header: header.disable_deblocking_idc,
}
POSITIONS = {"frame_num": "frame_num", "idr_pic_id": "idr_pic_id", "pic_order_cnt_lsb": "poc_lsb"}


def traced(units, tmp_path):
    """Let FFmpeg's own header reader tell each NAL unit: its title, and (bit, name, code, value) of each element."""
    path = tmp_path / "stream.h264"
    path.write_bytes(b"".join(units))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "verbose", "-nostats", "-f", "h264", "-i", str(path)]
    command += ["-c", "copy", "-bsf:v", "trace_headers", "-f", "null", "-"]
    log = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    sections = []
    for line in log[log.index("Packet:") :].splitlines():
        speaker, _, text = line.partition("] ")
        if not speaker.startswith("[trace_headers"):
            continue
        element = re.fullmatch(r"(\d+)\s+(\S+)\s+([01]*) = (-?\d+)", text)
        if element and sections:
            sections[-1][1].append((int(element[1]), element[2], element[3], int(element[4])))
        elif text in ("Slice Header", "Sequence Parameter Set", "Picture Parameter Set"):
            sections.append((text, []))
        elif not element:
            sections.append(("other", []))
    return [section for section in sections if section[0] != "other"]


def parsed(units):
    sets = ParameterSets()
    for unit in units:
        for nal in split_nals(unit):
            sets.take(nal)
            if nal_type(nal) == NalType.SPS:
                yield "Sequence Parameter Set", parse_sps(nal)
            elif nal_type(nal) == NalType.PPS:
                yield "Picture Parameter Set", parse_pps(nal)
            elif nal_type(nal) in (NalType.SLICE, NalType.IDR_SLICE):
                yield "Slice Header", sets.slice_header(unescape(nal))


@pytest.mark.parametrize("options", STREAMS.values(), ids=STREAMS.keys())
def test_headers_read_as_ffmpeg_reads_them(encode, tmp_path, options):
    units = encode(options, (98, 66), 12)
    theirs, ours = traced(units, tmp_path), list(parsed(units))
    assert [title for title, _ in ours] == [title for title, _ in theirs]
    for (title, header), (_, elements) in zip(ours, theirs, strict=True):
        names = {"Sequence Parameter Set": SPS_NAMES, "Picture Parameter Set": PPS_NAMES}.get(title, SLICE_NAMES)
        told = {name: (bit, value) for bit, name, _, value in elements}
        assert {name: names[name](header) for name in names if name in told} == {
            name: told[name][1] for name in names if name in told
        }
        if title == "Slice Header":
            assert header.slice_type == told["slice_type"][1] % 5
            for name, field in POSITIONS.items():
                assert name not in told or getattr(header, field).position == told[name][0]
            bit, _, code, _ = [element for element in elements if element[1] != "cabac_alignment_one_bit"][-1]
            assert header.end == bit + len(code)
