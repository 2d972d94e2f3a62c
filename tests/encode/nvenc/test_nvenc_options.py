"""What `crf`, `preset` and a plan become."""

from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest

from protocol.schema import Preset
from renderer.encode.nvenc import options as nvenc_options
from renderer.encode.nvenc.errors import code_name, error_code
from renderer.encode.nvenc.options import refusal_of, session_shape
from renderer.encode.stream import HeldCoding, StreamSettings
from renderer.geometry import Canvas
from renderer.work import NvencDevice, NvencLimits

STREAM = StreamSettings(Canvas(640, 480), Fraction(30000, 1001), crf=20, preset="veryfast", keyframe_interval=299)
LIMITS = NvencLimits(145, 4096, 49, 4096, engines=1, most_b_pictures=4)


def device(**limits: int) -> NvencDevice:
    return NvencDevice("GPU-1", "L4", limits=replace(LIMITS, **limits))


def options(stream: StreamSettings, **limits: int) -> dict[str, str]:
    return dict(session_shape(stream, [device(**limits)]).options)


def held(*is_idr: bool, offsets: tuple[float, ...] = ()) -> StreamSettings:
    return replace(STREAM, held=HeldCoding(is_idr, offsets or (0.0,) * len(is_idr)))


def test_every_frame_coded_is_vbr_of_constant_quality_with_b_pictures() -> None:
    assert options(STREAM) == {
        "codec": "h264",
        "preset": "P3",
        "tuning_info": "high_quality",
        "fps": "30000/1001",
        "bf": "2",
        "rc": "vbr",
        "cq": "20",
        "gop": "299",
        "idrperiod": "299",
    }


def test_held_pictures_have_one_reference_no_b_pictures_and_no_idr_but_the_plans() -> None:
    found = options(held(True, False, True))
    assert (found["bf"], found["gop"], found["numrefl0"], found["rc"]) == ("0", "-1", "1", "constqp")
    assert found["constqp"] == "23,23,20"


def test_all_devices_that_may_be_taken_must_be_able_to_count_references() -> None:
    stream = held(True, False)
    assert "numrefl0" not in options(stream, counts_references=0)
    both = session_shape(stream, [device(), device(counts_references=0)])
    assert "numrefl0" not in dict(both.options)
    assert "numrefl0" not in options(STREAM)


@pytest.mark.parametrize(
    ("is_idr", "offsets", "constqp"),
    [
        ((True, True), (-9.0, -9.0), "14,14,14"),
        ((True, False, False), (0.0, -4.6, -6.6), "18,18,15"),
        ((True, False), (-40.0, -40.0), "1,1,1"),
    ],
)
def test_the_plans_median_offset_moves_the_quantiser(is_idr, offsets, constqp: str) -> None:
    assert options(held(*is_idr, offsets=offsets))["constqp"] == constqp


def test_every_preset_has_its_own_and_slower_ones_are_no_faster() -> None:
    presets = [options(replace(STREAM, preset=preset))["preset"] for preset in get_args(Preset)]
    assert presets == sorted(presets)
    assert (presets[0], presets[-1]) == ("P1", "P7")


def test_the_documented_table_is_the_one_in_use() -> None:
    table = [
        line.split("|")
        for line in (nvenc_options.__doc__ or "").splitlines()
        if line.count("|") == 4 and line.split("|")[2].strip()[1:].isdigit()
    ]
    told = {
        name.strip().removesuffix(" (default)"): (preset.strip(), b_pictures.strip())
        for _, names, preset, b_pictures, _ in table
        for name in names.split(",")
    }
    found = {}
    for preset in get_args(Preset):
        found_options = options(replace(STREAM, preset=preset))
        found[preset] = (found_options["preset"], found_options["bf"])
    assert told == found


def test_b_pictures_need_a_device_that_codes_them_and_a_gop() -> None:
    assert options(STREAM, most_b_pictures=0)["bf"] == "0"
    assert options(replace(STREAM, keyframe_interval=1))["bf"] == "0"
    assert not session_shape(STREAM, [device(), device(most_b_pictures=0)]).is_reordered
    assert not session_shape(STREAM, [NvencDevice("GPU-1", "L4", is_busy=True)]).is_reordered


def test_only_a_fixed_quantiser_has_no_memory() -> None:
    assert session_shape(STREAM, [device()]).has_memory
    assert not session_shape(held(True), [device()]).has_memory


@pytest.mark.parametrize(
    ("canvas", "crf", "words"),
    [
        (Canvas(640, 480), 20, None),
        (Canvas(4096, 4096), 1, None),
        (Canvas(4098, 480), 20, "expected a canvas up to 4096x4096 for the GPU's encoder, found 4098x480"),
        (Canvas(640, 48), 20, "expected a canvas from 145x49 for the GPU's encoder, found 640x48"),
        (Canvas(640, 480), 0, "crf 0 is lossless, which is left to libx264"),
    ],
    ids=str,
)
def test_what_a_device_cannot_take_is_said(canvas: Canvas, crf: int, words: str | None) -> None:
    assert refusal_of(canvas, crf, LIMITS) == words
    assert refusal_of(canvas, crf, None) == words


def test_codes_have_the_names_of_the_header() -> None:
    assert [code_name(code) for code in (2, 10, 20, 21, 26)] == [
        "NV_ENC_ERR_UNSUPPORTED_DEVICE (2)",
        "NV_ENC_ERR_OUT_OF_MEMORY (10)",
        "NV_ENC_ERR_GENERIC (20)",
        "NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY (21)",
        "NV_ENC_ERR_NEED_MORE_OUTPUT (26)",
    ]
    assert code_name(99) == "error 99"
    assert (
        code_name(error_code(RuntimeError("Encode : \nError code : 8\nError Type : x")))
        == "NV_ENC_ERR_INVALID_PARAM (8)"
    )
    assert code_name(error_code(RuntimeError("it failed"))) == "no error code"
