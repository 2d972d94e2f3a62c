"""scripts/gpu_check.py runs wherever it is started, and tells no speed of what is no GPU."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renderer.config import NvencSettings
from renderer.encode.nvenc.probe import find
from tests.nvenc_standin.process import Standin

pytestmark = pytest.mark.timeout(300)  # each run of the script is a dozen processes

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts" / "gpu_check.py"
KEPT = ROOT / "benchmarks" / "results" / "gpu"
NO_DRIVER = "there is no NVIDIA driver: libcuda.so.1 is not found"


def checked(environment: dict[str, str], tmp_path: Path, not_kept: str = "") -> dict[str, Any]:
    """Run the script; `not_kept` is why it is to refuse to keep the document."""
    command = [
        sys.executable,
        SCRIPT,
        "--videos",
        "360p",
        "--seconds",
        "3000",
        "--out",
        tmp_path / "check.json",
        *(["--keep"] if not_kept else []),
    ]
    kept = set(KEPT.iterdir())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stderr) == ((1, f"not kept: {not_kept}\n") if not_kept else (0, ""))
    assert set(KEPT.iterdir()) == kept
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "check.json").read_text())
    return dict(document)


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path) -> None:
    if (found := find(NvencSettings(cache_dir=tmp_path))).driver:
        pytest.skip(f"there is a driver, {found.driver}")
    document = checked(dict(os.environ), tmp_path, f"there is no GPU: {NO_DRIVER}")
    assert document["nvenc"] == NO_DRIVER
    assert document["gpus"] == []
    assert document["videos"]["auto"]["is_whole"]
    assert document["summary"][-1] == f"auto encodes with libx264, because {document['nvenc']}"


def test_over_the_stand_in_no_speed_is_told(standin: Standin, tmp_path: Path) -> None:
    document = checked(standin(nvenc_api=209), tmp_path, "this is the software stand-in of the tests, no GPU")
    assert document["is_standin"]
    assert document["videos"]["auto"]["encoder"] == "nvenc"
    assert [video["is_whole"] for video in document["videos"].values()] == [True, True]
    text = json.dumps(document)
    assert "per_s" not in text
    assert "timings" not in text
    assert str(tmp_path) not in text
    [gpu] = document["gpus"]
    assert gpu["reason"] is None
    assert set(gpu["decode"]) == {"nvenc", "libx264"}
    assert all(decoded["error"] for decoded in gpu["decode"].values())  # the stand-in has no decoder
    answers_of_an_engine(gpu)
    assert any("3 references in the SPS, up to 1 of a picture, IDR ids [0, 1]" in line for line in document["summary"])


def answers_of_an_engine(gpu: dict[str, Any]) -> None:
    held, coded, free = gpu["streams"].values()
    assert (held["poc_type"], held["idr_pic_ids"], held["tells_colours"]) == (2, [0, 1], False)
    assert max(held["references_of_pictures"]) == 1
    assert max(free["references_of_pictures"]) == 3
    assert (coded["poc_type"], coded["references_in_sps"]) == (0, 4)
    for videos in gpu["quality"].values():
        assert all(0.9 < videos[encoder]["ssim"] <= 1 and videos[encoder]["size_bytes"] for encoder in videos)
        assert list(videos) == ["nvenc", "libx264"]
    presets = ["P1", "P3", "P5", "P7"]
    assert {preset: one["all_coded"] for preset, one in gpu["rates"].items()} == dict.fromkeys(presets, True)
    assert [one["both_encode"] for one in gpu["slideshow"].values()] == [True] * 4


def test_a_gpu_without_an_encoder_falls_back_and_may_still_judge(standin: Standin, tmp_path: Path) -> None:
    document = checked(standin(no_encoder=1), tmp_path)
    assert document["videos"]["auto"]["encoder"] == "libx264"
    assert "NV_ENC_ERR_UNSUPPORTED_DEVICE (2)" in document["videos"]["auto"]["fallback_reason"]
    [gpu] = document["gpus"]
    assert gpu["reason"]
    assert list(gpu["decode"]) == ["libx264"]
    assert "streams" not in gpu


def test_a_gpus_document_is_kept_by_card_and_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = runpy.run_path(str(SCRIPT))
    gpus = [{"name": "NVIDIA L4"}, {"name": "NVIDIA L4"}, {"name": "NVIDIA A10"}]
    document = {"is_standin": False, "gpus": gpus, "taken": "2026-01-02T03:04:05Z", "size": "1080p"}
    assert script["keeping_refusal"](document) is None
    assert script["kept_file"](document) == KEPT / "nvidia-a10+nvidia-l4-1080p-2026-01-02.json"
