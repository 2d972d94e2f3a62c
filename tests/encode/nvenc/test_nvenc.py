"""NVENC over the stand-in driver, in child processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from renderer.encode.nvenc.options import MOST_PENDING_FRAMES
from tests.nvenc_standin.process import Standin

CHILDREN = "tests.encode.nvenc.nvenc_children"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "knobs", [{"late": 1}, {"nvenc_api": 193, "poc_type": 0, "gpus": 2, "no_engine_on": 0}], ids=["late", "others"]
)
def test_nvenc_keeps_what_every_encoder_promises(standin: Standin, knobs: dict[str, object]) -> None:
    suite = Path(__file__).parents[1] / "test_conformance.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    done = subprocess.run(
        command, env={**standin(**knobs), "CONFORM": "nvenc"}, capture_output=True, text=True, timeout=290, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(("preset", "api"), [("ultrafast", 193), ("veryfast", 208)])
def test_a_page_locked_frame_is_read_in_time(standin: Standin, preset: str, api: int) -> None:
    """Copies come as late as allowed: a frame that were given back too soon would show another's shade."""
    knobs = {"late": 1, "nvenc_api": api}
    found = standin.ask(CHILDREN, "lent_frames", knobs=knobs, preset=preset, frames=MOST_PENDING_FRAMES + 1, count=40)
    assert found["shades"] == pytest.approx([20 + 2 * index for index in range(40)], abs=1)
    assert 0 < found["most_pending"] <= MOST_PENDING_FRAMES
    assert standin.total("h2d_pinned_bytes") == 40 * 160 * 64 * 3 // 2


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("knobs", "stage", "words"),
    [
        ({"fail_after": 5}, "encode", "software stand-in 0 failed while encoding: NV_ENC_ERR_GENERIC (20)"),
        (
            {"fail_after": 0, "fail_code": 8},
            "encode",
            "software stand-in 0 failed while encoding: NV_ENC_ERR_INVALID_PARAM (8)",
        ),
        (
            {"fail": "nvEncLockBitstream@3=13"},
            "encode",
            "software stand-in 0 failed while encoding: NV_ENC_ERR_LOCK_BUSY (13)",
        ),
        (
            {"fail": "nvEncInitializeEncoder=12"},
            "open",
            "software stand-in 0 failed while being opened: NV_ENC_ERR_UNSUPPORTED_PARAM (12)",
        ),
        (
            {"fail": "nvEncOpenEncodeSessionEx=2"},
            "open",
            "software stand-in 0 failed while being opened: NV_ENC_ERR_UNSUPPORTED_DEVICE (2)",
        ),
        (
            {"fail": "cuMemAllocPitch_v2=2"},
            "open",
            "software stand-in 0 failed while being opened: NV_ENC_ERR_GENERIC (20)",
        ),
        (
            {"fail": "nvEncMapInputResource@2=16"},
            "encode",
            "software stand-in 0 failed while encoding: NV_ENC_ERR_MAP_FAILED (16)",
        ),
    ],
    ids=str,
)
def test_a_failure_names_device_code_and_what_was_done(standin: Standin, knobs, stage: str, words: str) -> None:
    found = standin.ask(CHILDREN, "failure", knobs=knobs)
    assert found == {"type": "DeviceFailed", "words": words, "stage": stage}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("code", [21, 10])
def test_a_driver_without_sessions_is_waited_for_then_busy(standin: Standin, code: int) -> None:
    found = standin.ask(CHILDREN, "failure", knobs={"no_encoder": code}, told={"session_timeout_s": 0.6})
    assert (found["type"], found["stage"]) == ("SessionsBusy", "open")
    assert "all encode sessions of software stand-in 0 are in use: NV_ENC_ERR_" in found["words"]
    assert f"({code})" in found["words"]


@pytest.mark.usefixtures("known")
def test_a_session_serves_the_next_job_of_its_shape(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "streams", crfs=[12, 12, 12], keep_session_s=60)
    assert found["sessions"] == 1
    assert found["shades"] == [pytest.approx([40 + n, 90 + n, 140 + n], abs=2) for n in range(3)]
    assert found["open"] == 1  # until the process ends, when the fixture finds it closed


@pytest.mark.usefixtures("known")
def test_another_shape_gets_another_session(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "streams", crfs=[12, 14, 12], keep_session_s=60)
    assert found["sessions"] == 3
    assert found["open"] == 1


@pytest.mark.usefixtures("known")
def test_a_session_that_is_wanted_is_not_kept(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "streams", crfs=[12, 12], keep_session_s=60, wanted=True)
    assert (found["sessions"], found["open"]) == (2, 0)
    assert standin.ask(CHILDREN, "kept_session_goes_when_wanted") == {"before": 1, "after": 0}


@pytest.mark.usefixtures("known")
def test_a_kept_session_goes_after_a_moment(standin: Standin) -> None:
    assert standin.ask(CHILDREN, "kept_session_goes_after_a_moment") == {"before": 1, "after": 0}


@pytest.mark.usefixtures("known")
def test_threads_that_begin_together_do_not_deadlock(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "threads_at_once", knobs={"encode_ms": 20})
    assert found == [pytest.approx([40 + n, 90 + n, 140 + n], abs=2) for n in range(4)]


SHAPES: list[dict[str, object]] = [
    {},
    {"refs": 1},
    {"l0": 3},
    {"poc_type": 0},
    {"poc_type": 0, "refs": 4, "late": 1},
    {"slices": 4},
    {"idr_id": 0},
    {"hrd": 0},
    {"restriction": 0},
]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("knobs", SHAPES, ids=str)
def test_pictures_are_held_whatever_a_card_writes(standin: Standin, knobs: dict[str, object]) -> None:
    told = standin.ask(CHILDREN, "held_pictures", knobs=knobs)
    assert told is None


def test_a_card_that_cannot_count_references_is_not_told_how_many(standin: Standin) -> None:
    """It would refuse, and has one anyway."""
    assert standin.ask(CHILDREN, "held_pictures", knobs={"many_refs": 0, "refs": 1}) is None


@pytest.mark.usefixtures("known")
def test_the_wheel_leaves_the_environment_as_it_was(standin: Standin) -> None:
    assert standin.ask(CHILDREN, "environment_after_the_wheel") == {"same": True, "imported": True}


def test_doctor_shows_a_row_for_each_gpu(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "examined", knobs={"gpus": 2, "no_engine_on": 1, "least_side": 33})
    assert found["nvenc"]["works"]
    assert found["nvenc"]["found"] == "1 of 2 GPUs encode; driver CUDA 12.8"
    words = (
        "software stand-in 0 encodes from 145x49 to 4096x4096 with 1 engine; GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0"
    )
    assert found["gpu 0"]["found"] == words
    assert not found["gpu 1"]["works"]
    refused = "software stand-in 1: the driver refuses to encode here; in a container, NVIDIA_DRIVER_CAPABILITIES"
    assert found["gpu 1"]["found"].startswith(f"{refused} must name video: NV_ENC_ERR_UNSUPPORTED_DEVICE (2); GPU-a1")
    assert found["nvenc held pictures"]["found"] == "decode to what they repeat"
    assert found["pinned memory"]["found"] == "page-locked frames"
    assert found["libx264"]["works"]
    assert not found["imported"]["works"]


def test_doctor_says_why_memory_is_plain(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "examined", knobs={"gpus": 0})
    reason = "the NVIDIA driver finds no usable GPU: CUDA_ERROR_NO_DEVICE (100)"
    assert found["nvenc"]["found"] == f"{reason}; driver CUDA 12.8"
    assert found["pinned memory"]["found"] == f"plain memory: {reason}"
    assert "nvenc held pictures" not in found


@pytest.mark.usefixtures("known")
def test_a_gpu_that_fails_its_self_test_encodes_every_frame(standin: Standin) -> None:
    hold_pictures, reason, refusal = standin.ask(CHILDREN, "tested", knobs={"fail_after": 1})
    assert (hold_pictures, refusal) == (False, None)
    assert "NV_ENC_ERR_GENERIC (20)" in reason
