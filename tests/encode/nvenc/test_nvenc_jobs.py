"""Whole jobs over the stand-in driver: each case ends in a right MP4 or in a clear error, and gives everything back."""

import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import wait_until
from tests.nvenc_standin.process import Standin

JOBS = "tests.encode.nvenc.nvenc_jobs"
STILLS = [(40, 3), (90, 30), (140, 1), (190, 12)]
FRAMES = 46
# A full-range grey of 40, 90, 140, 190 in BT.709 limited range.
SHADES = [50] * 3 + [93] * 30 + [136] + [179] * 12


@pytest.fixture
def job(standin: Standin, tmp_path: Path) -> Any:
    """Return a function that renders a job in a child: job(knobs, **fields of the request)."""

    def render(knobs: dict[str, object] | None = None, *, stills: Any = STILLS, **told: Any) -> Any:
        return standin.ask(JOBS, "rendered", knobs=knobs or {}, directory=str(tmp_path), stills=stills, **told)

    return render


@pytest.fixture
def job_by(standin: Standin, tmp_path: Path) -> Any:
    """Return a function that renders a job once by each encoder, in one child: job_by(encoders, knobs, **fields)."""

    def render(
        encoders: list[str], knobs: dict[str, object] | None = None, *, stills: Any = STILLS, **told: Any
    ) -> Any:
        told |= {"directory": str(tmp_path), "stills": stills, "encoders": encoders}
        return standin.ask(JOBS, "rendered_by", knobs=knobs or {}, **told)

    return render


def is_right(found: dict[str, Any]) -> bool:
    assert found.get("words") is None
    assert found["shades"] == pytest.approx(SHADES, abs=2)
    assert found["tags"] == [1, 1, 1, 1]
    assert found["sync"][0] == 0
    assert found["level"] == 11  # what 96 macroblocks at 24 fps take
    return sorted(found["times"]) == sorted(str(Fraction(number, 24)) for number in range(FRAMES))


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"late": 1, "nvenc_api": 193},
        {"encode_ms": 30},
        {"poc_type": 0, "late": 1},
        {"refs": 1, "hrd": 0},
        {"l0": 3},
        {"poc_type": 0, "l0": 3, "refs": 4, "late": 1},
        {"slices": 4},
        {"idr_id": 0, "restriction": 0, "level": 10},
        {"max_sessions": 1},
    ],
    ids=str,
)
def test_the_gpu_encodes_and_holds_pictures(job, knobs: dict[str, object]) -> None:
    found = job(knobs)
    assert (found["encoder"], found["reason"], found["encoded_reason"]) == ("nvenc", None, None)
    assert is_right(found)
    assert found["pageable"] == 0
    if "l0" not in knobs:  # such a stream is begun again with IDR pictures only
        assert found["pinned"] == 4 * 192 * 128 * 3 // 2  # each still once


@pytest.mark.parametrize("without", [0, 1])
def test_of_two_gpus_the_one_that_encodes_is_taken(job, without: int) -> None:
    found = job({"gpus": 2, "no_engine_on": without})
    assert (found["encoder"], found["reason"]) == ("nvenc", None)
    assert is_right(found)


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"gpus": 0}, "the NVIDIA driver finds no usable GPU: CUDA_ERROR_NO_DEVICE (100)"),
        ({"nvenc_api": 177}, "the NVIDIA driver is too old: expected NVENC API 12.1 or newer, found 11.1"),
        (
            {"no_encoder": 1, "name": "NVIDIA H200"},
            "NVIDIA H200 has decoders but no NVENC engine: NV_ENC_ERR_UNSUPPORTED_DEVICE (2)",
        ),
        (
            {"no_encoder": 1},
            "NVIDIA_DRIVER_CAPABILITIES must name video: NV_ENC_ERR_UNSUPPORTED_DEVICE (2); the GPU is",
        ),
        ({"fail": "nvEncInitializeEncoder=12"}, "encoding a picture failed: NV_ENC_ERR_UNSUPPORTED_PARAM (12)"),
        ({"hang": "nvEncOpenEncodeSessionEx"}, "the probe did not end within 3 s"),
        ({"no_encoder": 21}, "NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY (21)"),
        ({"no_encoder": 10}, "NV_ENC_ERR_OUT_OF_MEMORY (10)"),
    ],
    ids=str,
)
def test_without_a_usable_gpu_auto_is_libx264_and_nvenc_an_error(job_by, knobs: dict[str, object], reason: str) -> None:
    nvenc = {"probe_timeout_s": 3 if "hang" in knobs else 60, "session_timeout_s": 0.3}
    found, refused = job_by(["auto", "nvenc"], knobs, nvenc=nvenc)
    assert found["encoder"] == "libx264"
    assert reason in found["reason"]
    assert is_right(found)
    is_busy = "no_encoder" in knobs and knobs["no_encoder"] != 1
    assert refused["error"] == ("SessionsBusy" if is_busy else "NotSupported")
    assert reason in refused["words"]
    assert is_busy or refused["words"].startswith("encoder: ")


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"fail_after": 0}, "software stand-in 0 failed while encoding: NV_ENC_ERR_GENERIC (20)"),
        ({"fail_after": 2}, "software stand-in 0 failed while e"),
        ({"fail": "nvEncLockBitstream@1=13"}, "software stand-in 0 failed while e"),
        ({"fail": "nvEncInitializeEncoder=12"}, "failed while being opened: NV_ENC_ERR_UNSUPPORTED_PARAM (12)"),
        ({"fail": "nvEncOpenEncodeSessionEx@1=2"}, "failed while being opened: NV_ENC_ERR_UNSUPPORTED_DEVICE (2)"),
        ({"fail": "cuMemAllocPitch_v2=2"}, "failed while being opened"),
    ],
    ids=str,
)
def test_a_device_that_fails_in_a_job_hands_it_to_libx264(job, standin: Standin, tmp_path: Path, knobs, reason) -> None:
    found = job(knobs)
    assert found["encoder"] == "libx264"
    assert reason in found["reason"]
    assert is_right(found)
    again = job({})
    assert again["encoder"] == "libx264"
    assert reason in again["reason"]
    assert "the GPU is tried again in" in again["reason"]
    assert again["sessions"] == 0
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.usefixtures("known")
def test_a_device_that_fails_under_nvenc_is_an_error(job, standin: Standin) -> None:
    failed = job({"fail_after": 2}, encoder="nvenc")
    assert failed["error"] == "DeviceFailed"
    assert "NV_ENC_ERR_GENERIC (20)" in failed["words"]
    assert failed["left"] == []
    refused = job({}, encoder="nvenc")
    assert refused["error"] == "NotSupported"
    assert "the GPU is tried again in" in refused["words"]


@pytest.mark.usefixtures("known")
def test_a_device_that_recovered_is_used_again_after_the_pause(job, standin: Standin) -> None:
    nvenc = {"retry_after_s": 0.01}
    assert job({"fail_after": 2}, nvenc=nvenc)["encoder"] == "libx264"
    assert job({}, nvenc=nvenc)["encoder"] == "nvenc"


def test_a_device_that_the_driver_withheld_when_the_process_began_is_used_once_it_encodes(
    standin: Standin, tmp_path: Path
) -> None:
    """Its held pictures are tested first, and its limits are known from then on."""
    found = standin.ask(JOBS, "withheld", knobs={"no_encoder": 2}, directory=str(tmp_path), stills=STILLS)
    assert [one["encoder"] for one in found] == ["libx264", "nvenc", "nvenc"]
    assert "the GPU is tried again in" in found[0]["reason"]
    assert all(is_right(one) for one in found)
    assert found[1]["pinned"] == 4 * 192 * 128 * 3 // 2  # each still once: it was told to use one reference


@pytest.mark.usefixtures("known")
def test_pages_that_cannot_be_locked_do_not_stop_the_gpu(job) -> None:
    found = job({"fail": "cuMemHostAlloc=2"})
    assert found["encoder"] == "nvenc"
    assert found["pinned"] == 0
    assert found["pageable"] == 4 * 192 * 128 * 3 // 2
    assert is_right(found)


@pytest.mark.usefixtures("known")
def test_a_frame_of_1080p_goes_from_where_it_was_composed(job) -> None:
    found = job({"late": 1}, stills=[(40, 2), (190, 2)], width=1920, height=1080)
    assert found["encoder"] == "nvenc"
    assert found["pinned"] == 2 * 1920 * 1080 * 3 // 2
    assert found["pageable"] == 0


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"width": 4098, "height": 64}, "expected a canvas up to 4096x4096 for the GPU's encoder, found 4098x64"),
        ({"width": 64, "height": 64}, "expected a canvas from 145x49 for the GPU's encoder, found 64x64"),
        ({"crf": 0}, "crf 0 is lossless, which is left to libx264"),
    ],
    ids=str,
)
def test_what_the_device_cannot_take_goes_to_libx264(job_by, fields: dict[str, int], reason: str) -> None:
    found, refused = job_by(["auto", "nvenc"], **fields)
    assert (found["encoder"], found["reason"], found["sessions"]) == ("libx264", reason, 0)
    side = "width: this makes a video of 4098x64; expected up to 4096x4096 and 139264 macroblocks of 16x16"
    words = side if fields.get("width") == 4098 else f"encoder: {reason}"  # a size is named where it was asked for
    assert refused == {"error": "NotSupported", "words": words, "left": ["auto-video.mp4"]}


def test_libx264_by_name_asks_no_driver(job) -> None:
    found = job({"hang": "cuInit"}, encoder="libx264")
    assert (found["encoder"], found["reason"]) == ("libx264", None)


@pytest.mark.usefixtures("known")
def test_jobs_of_one_shape_share_a_session_and_its_frames(standin: Standin, tmp_path: Path) -> None:
    found = standin.ask(JOBS, "several", directory=str(tmp_path), jobs=[STILLS] * 4)
    assert [one["encoder"] for one in found] == ["nvenc"] * 4
    assert all(is_right(one) for one in found)
    assert len({one["sessions"] for one in found}) == 1
    assert len({one["pinned_allocs"] for one in found}) == 1


@pytest.mark.usefixtures("known")
def test_a_kept_session_that_fails_is_replaced_by_a_fresh_one(standin: Standin, tmp_path: Path) -> None:
    """A session fails at its sixth picture, in the middle of the second job; a fresh one has room for the whole job."""
    jobs = [[(40, 3), (90, 30), (140, 2), (190, 12)]] * 3
    found = standin.ask(JOBS, "several", knobs={"fail_after": 5}, directory=str(tmp_path), jobs=jobs)
    assert [(one["encoder"], one["reason"]) for one in found] == [("nvenc", None)] * 3


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("holds", [[1] * 20, [1, 2] * 8, [24] * 2, [2] * 10], ids=str)
@pytest.mark.parametrize("fps", [24, 29.97])
def test_both_encoders_give_the_same_video(job_by, holds: list[int], fps: float) -> None:
    """Frame count, time stamps, tags and sync samples are equal; the pictures differ by coding noise only."""
    stills = [(30 + 5 * number, hold) for number, hold in enumerate(holds)]
    gpu, cpu = job_by(["nvenc", "libx264"], stills=stills, fps=fps)
    assert (gpu["encoder"], cpu["encoder"]) == ("nvenc", "libx264")
    assert sorted(gpu["times"]) == sorted(cpu["times"])
    assert gpu["shades"] == pytest.approx(cpu["shades"], abs=1)
    for equal in ("tags", "size", "encoded_reason", "rate", "level"):
        assert gpu[equal] == cpu[equal]
    if gpu["encoded_reason"] is None:
        assert gpu["sync"] == cpu["sync"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("holds", [[1] * 8, [24, 3, 5], [25] * 2], ids=str)
def test_both_encoders_show_the_same_pictures(standin: Standin, tmp_path: Path, holds: list[int]) -> None:
    """A swapped plane or a wrong range would be below 20 dB. Both are libx264 here: this tells nothing of NVENC."""
    least_db = {12: 36, 20: 32, 30: 27}  # by CRF
    found = standin.ask(JOBS, "psnr_between_encoders", directory=str(tmp_path), holds=holds, crfs=list(least_db))
    assert [one["frames"] for one in found] == [sum(holds)] * 3
    assert all(one["worst_db"] >= least for one, least in zip(found, least_db.values(), strict=True)), found


@pytest.mark.usefixtures("known")
def test_where_the_gpu_may_not_hold_pictures_it_encodes_every_frame(job) -> None:
    nvenc = {"hold_pictures": False, "hold_pictures_refusal": "the self-test failed"}
    found = job(nvenc=nvenc)
    assert (found["encoder"], found["encoded_reason"]) == ("nvenc", "the self-test failed")
    assert is_right(found)
    assert job(nvenc=nvenc, encoder="libx264")["encoded_reason"] is None


@pytest.mark.usefixtures("known")
def test_a_device_that_never_returns_is_left_alone_by_the_next_attempt(job, standin: Standin, tmp_path: Path) -> None:
    hanging = {"hang": "nvEncEncodePicture"}
    standin.ask(JOBS, "stuck", knobs=hanging, directory=str(tmp_path), stills=STILLS, nvenc={"stall_timeout_s": 0.5})
    found = job(hanging)
    assert found["encoder"] == "libx264"
    assert "software stand-in 0 took longer than 0.5 s for a picture; the GPU is tried again in" in found["reason"]


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("code", [21, 10])
def test_a_session_of_another_program_is_waited_for(job, standin: Standin, code: int) -> None:
    knobs = {**standin.seats(1), "session_code": code}
    holder = "from tests.nvenc_standin.cases import *; e = encoder(); print('open', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", holder], env=standin(**knobs), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"

        def free_it_once_refused() -> None:
            try:
                wait_until(lambda: "refused" in [what for what, _ in standin.journal()], "the session is refused")
            finally:
                other.kill()

        freeing = threading.Thread(target=free_it_once_refused)
        freeing.start()
        found = job(knobs, nvenc={"session_timeout_s": 60})
        freeing.join()
    assert (found["encoder"], found["reason"]) == ("nvenc", None)
    assert is_right(found)
    assert "refused" in [what for what, _ in standin.journal()]


def test_a_device_that_recovered_is_in_sight_of_a_process_that_began_without_it(
    standin: Standin, tmp_path: Path
) -> None:
    found = standin.ask(JOBS, "recovered_second", knobs={"gpus": 2}, directory=str(tmp_path), stills=STILLS)
    assert found == [["nvenc", None]] * 2
