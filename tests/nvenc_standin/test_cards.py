"""What cards write, from logs, headers and files of others: our parser reads it, and the stand-in writes it."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest

from renderer.encode.h264.bits import UnsupportedStream, split_nals
from renderer.encode.h264.parameter_sets import Vui, parse_pps, parse_sps
from renderer.encode.h264.repeat import HeldPictures
from tests.nvenc_standin.process import Standin
from tests.nvenc_standin.trace import Fields, of_kind, traced

CASES = "tests.nvenc_standin.cases"
SPS_720P30 = "6764001fac2b200a00b76022000007d00001d4c108"
SPS_1080P60_B = "6764002aac2ca501e0089f97011000003e80001d4c0840"
PPS = "68eb8f2c"
PPS_ONE_REFERENCE = "68ee3cb0"
SETS = [
    (SPS_720P30, PPS),
    (SPS_1080P60_B, PPS),
    ("674d401f965281a877602d4080805000003e80000ea60e000005b8d0001e848bbcb828", "68eb8f20"),  # Main, HRD
    ("6764002aac2b280f0044fcb808800001f40000ea60478e152c", PPS_ONE_REFERENCE),  # bitstream_restriction
]
SLICE = "6588840000"  # so that a reader takes it for a stream


def annex_b(*nals: str) -> bytes:
    return b"".join(b"\0\0\0\1" + bytes.fromhex(nal) for nal in nals)


@pytest.mark.parametrize(("sps", "pps"), SETS)
def test_a_cards_sequence_parameter_set_reads_as_ffmpeg_reads_it(sps: str, pps: str) -> None:
    theirs = of_kind(traced(annex_b(sps, pps, SLICE)), "Sequence Parameter Set")[0]
    ours = parse_sps(bytes.fromhex(sps))
    flags = [theirs[f"constraint_set{number}_flag"] for number in range(6)]
    assert ours.constraint_flags == int("".join(map(str, flags)), 2) << 2
    assert (ours.profile_idc, ours.level_idc) == (theirs["profile_idc"], theirs["level_idc"])
    assert ours.sps_id == theirs["seq_parameter_set_id"]
    assert ours.chroma.format_idc == theirs.get("chroma_format_idc", 1)
    assert not ours.chroma.separate_planes
    assert ours.frame_num_width == theirs["log2_max_frame_num_minus4"] + 4
    assert ours.order.poc_type == theirs["pic_order_cnt_type"]
    assert ours.order.lsb_width == theirs.get("log2_max_pic_order_cnt_lsb_minus4", -4) + 4
    assert ours.max_num_ref_frames == theirs["max_num_ref_frames"]
    assert ours.allows_frame_num_gaps == theirs["gaps_in_frame_num_allowed_flag"]
    assert ours.frame.width_in_mbs == theirs["pic_width_in_mbs_minus1"] + 1
    assert ours.frame.height_in_mbs == theirs["pic_height_in_map_units_minus1"] + 1
    assert ours.frame.is_progressive == theirs["frame_mbs_only_flag"]
    sides = ("left", "right", "top", "bottom")
    assert ours.frame.crop == tuple(2 * theirs.get(f"frame_crop_{side}_offset", 0) for side in sides)
    assert (ours.vui is not None) == theirs["vui_parameters_present_flag"]
    assert ours.vui is not None
    assert_same_vui(ours.vui, theirs)


def assert_same_vui(ours: Vui, theirs: Fields) -> None:
    assert ours.aspect_ratio_idc == theirs.get("aspect_ratio_idc")
    assert (ours.chroma_location is not None) == theirs["chroma_loc_info_present_flag"]
    assert (ours.colour is not None) == theirs["video_signal_type_present_flag"]
    if ours.colour:
        found = [theirs[name] for name in ("colour_primaries", "transfer_characteristics", "matrix_coefficients")]
        assert [ours.colour.primaries, ours.colour.transfer, ours.colour.matrix] == found
        assert ours.colour.is_full_range == theirs["video_full_range_flag"]
    promised = ("nal_hrd_parameters_present_flag", "vcl_hrd_parameters_present_flag", "pic_struct_present_flag")
    assert ours.needs_picture_timing == any(theirs[name] for name in promised)
    assert ours.num_reorder_frames == theirs.get("max_num_reorder_frames")


@pytest.mark.parametrize(("sps", "pps"), SETS)
def test_a_cards_picture_parameter_set_reads_as_ffmpeg_reads_it(sps: str, pps: str) -> None:
    theirs = of_kind(traced(annex_b(sps, pps, SLICE)), "Picture Parameter Set")[0]
    ours = parse_pps(bytes.fromhex(pps))
    assert (ours.pps_id, ours.sps_id) == (theirs["pic_parameter_set_id"], theirs["seq_parameter_set_id"])
    assert ours.is_cabac == theirs["entropy_coding_mode_flag"]
    assert ours.has_bottom_poc == theirs["bottom_field_pic_order_in_frame_present_flag"]
    defaults = [theirs[f"num_ref_idx_l{number}_default_active_minus1"] + 1 for number in (0, 1)]
    assert list(ours.num_ref_idx_default) == defaults
    assert ours.weighted_pred == theirs["weighted_pred_flag"]
    assert ours.weighted_bipred_idc == theirs["weighted_bipred_idc"]
    assert ours.pic_init_qp == 26 + theirs["pic_init_qp_minus26"]
    assert ours.has_deblocking_control == theirs["deblocking_filter_control_present_flag"]
    assert ours.has_redundant_pic_cnt == theirs["redundant_pic_cnt_present_flag"]


def stream_of(standin: Standin, knobs: dict[str, Any] | None = None, **told: Any) -> bytes:
    return bytes.fromhex(standin.ask(CASES, "stream", knobs=knobs or {}, **told))


def sets_of(stream: bytes) -> list[str]:
    return [nal.hex() for nal in split_nals(stream)[:2]]


def slices_of(stream: bytes) -> list[Fields]:
    return of_kind(traced(stream), "Slice Header")


@pytest.mark.parametrize(
    ("knobs", "told", "sps", "pps"),
    [
        ({}, {"size": [1280, 720], "fps": "30"}, SPS_720P30, PPS),
        ({}, {"size": [1920, 1080], "fps": "60", "bf": "2"}, SPS_1080P60_B, PPS),
        ({"restriction": 1, "refs": 4}, {"size": [1920, 1080], "fps": "60", "numrefl0": "1"}, *SETS[3]),
    ],
    ids=["P", "B", "one reference"],
)
def test_the_stand_in_writes_the_parameter_sets_that_cards_wrote(standin: Standin, knobs, told, sps, pps) -> None:
    """The clients of those cards asked for less than the wheel does, so here the wheel is not listened to."""
    stream = stream_of(standin, {"hrd": 0, "restriction": 0, **knobs}, frames=1, **told)
    assert sets_of(stream) == [sps, pps]


def test_what_the_wheel_asks_for_unasked(standin: Standin) -> None:
    (sps,) = of_kind(traced(stream_of(standin, frames=1)), "Sequence Parameter Set")[:1]
    asked = ("nal_hrd_parameters_present_flag", "pic_struct_present_flag", "bitstream_restriction_flag")
    assert [sps[name] for name in asked] == [1, 1, 1]
    assert sps["video_signal_type_present_flag"] == 0


def test_the_clock_of_ntsc_rates_is_told_as_cards_tell_it(standin: Standin) -> None:
    (sps,) = of_kind(traced(stream_of(standin, fps="24000/1001", frames=1)), "Sequence Parameter Set")[:1]
    assert (sps["num_units_in_tick"], sps["time_scale"], sps["fixed_frame_rate_flag"]) == (1001, 48000, 1)


def test_slice_headers_are_a_cards(standin: Standin) -> None:
    slices = slices_of(stream_of(standin, frames=270, idrs=[0, 4]))
    assert [one["slice_type"] for one in slices[:7]] == [2, 0, 0, 0, 2, 0, 0]
    assert {one["nal_ref_idc"] for one in slices} == {3}
    # Three by default, fewer while there are fewer.
    overridden = [one.get("num_ref_idx_active_override_flag") for one in slices[:9]]
    assert overridden == [None, 1, 1, 0, None, 1, 1, 0, 0]
    assert [slices[number]["num_ref_idx_l0_active_minus1"] for number in (1, 2)] == [0, 1]
    assert [one["frame_num"] for one in slices[4:]] == [number % 256 for number in range(266)]
    assert all("modification_of_pic_nums_idc" not in one for one in slices)
    assert not any(one.get("adaptive_ref_pic_marking_mode_flag") for one in slices)
    assert {one["disable_deblocking_filter_idc"] for one in slices} == {0}
    assert [slices[number]["idr_pic_id"] for number in (0, 4)] == [0, 1]


def test_b_pictures_are_no_references_and_predict_by_time(standin: Standin) -> None:
    slices = slices_of(stream_of(standin, frames=10, bf="2"))
    b_pictures = [one for one in slices if one["slice_type"] == 1]
    assert b_pictures
    assert {(one["nal_ref_idc"], one["direct_spatial_mv_pred_flag"]) for one in b_pictures} == {(0, 0)}
    assert sorted(one["pic_order_cnt_lsb"] for one in slices) == list(range(0, 20, 2))


@pytest.mark.parametrize(
    ("knobs", "found"),
    [({"idr_id": 0}, {0}), ({"slices": 4}, {0, 1}), ({"poc_type": 0}, {0, 1})],
    ids=str,
)
def test_shapes_that_are_seen_seldom_are_played_when_asked_for(standin: Standin, knobs, found: set[int]) -> None:
    slices = slices_of(stream_of(standin, knobs, frames=6, idrs=[0, 1, 2]))
    assert {one["idr_pic_id"] for one in slices if "idr_pic_id" in one} == found
    assert len(slices) == 6 * knobs.get("slices", 1)
    assert ("pic_order_cnt_lsb" in slices[0]) == ("poc_type" in knobs)


@pytest.mark.parametrize("api", [208, 193])
def test_the_wheel_asks_for_timing_messages_and_such_pictures_are_not_held(standin: Standin, api: int) -> None:
    stream = stream_of(standin, {"nvenc_api": api}, frames=3)
    headers = traced(stream)
    sps = of_kind(headers, "Sequence Parameter Set")[0]
    assert (sps["nal_hrd_parameters_present_flag"], sps["pic_struct_present_flag"]) == (1, 1)
    assert len(of_kind(headers, "Picture Timing")) == 3
    with pytest.raises(UnsupportedStream, match="timing message"):
        HeldPictures().hold(stream, 1)


FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SIDES = (320, 192)


@pytest.mark.parametrize(
    "options",
    [
        ["-bf", "0", "-pix_fmt", "yuv420p"],
        ["-bf", "3", "-g", "12"],
        ["-profile:v", "main", "-rc", "vbr", "-bf", "2"],
        ["-profile:v", "baseline", "-bf", "0"],
        ["-coder", "cavlc", "-bf", "2", "-dpb_size", "2"],
    ],
    ids=" ".join,
)
def test_ffmpegs_own_nvenc_encodes_over_it(standin: Standin, tmp_path: Path, options: Sequence[str]) -> None:
    """A client that runs on real cards gets what it asks for, in order, and gives all back."""
    pictures = [moving(number) for number in range(30)]
    command = [FFMPEG, "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "nv12", "-video_size", "320x192", "-r", "25"]
    command += ["-i", "pipe:0", "-c:v", "h264_nvenc", "-qp", "18", *options, str(tmp_path / "theirs.h264")]
    raw = b"".join(picture.tobytes() for picture in pictures)
    # It is built for NVENC API 13.1.
    done = subprocess.run(command, input=raw, env=standin(nvenc_api=209), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    with av.open(str(tmp_path / "theirs.h264")) as container:
        decoded = [frame.to_ndarray(format="nv12") for frame in container.decode(video=0)]
    worst = max(float(np.abs(ours.astype(int) - theirs).mean()) for ours, theirs in zip(pictures, decoded, strict=True))
    assert worst < 3
    assert standin.total("frames_in") == standin.total("packets_out") == 30
    assert standin.total("sessions_opened") == 1


def moving(number: int) -> Any:
    """Return a picture whose place in the order shows."""
    width, height = SIDES
    picture = np.full((height * 3 // 2, width), 128, np.uint8)
    picture[:height] = (np.arange(width) + 7 * number) % 200 + 20
    return picture
