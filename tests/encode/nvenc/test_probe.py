"""Every answer that a machine can give to the question which GPU encodes here."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from renderer.config import NvencSettings
from renderer.encode.nvenc import probe, probe_child
from renderer.encode.nvenc.errors import has_engine
from renderer.work import NvencDevice, NvencFindings, NvencLimits
from tests.nvenc_standin.process import Standin

CHILDREN = "tests.encode.nvenc.nvenc_children"
A100 = "NVIDIA A100-SXM4-80GB"


def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "stillreel" / "nvenc.json"


def test_a_device_that_encodes_is_found_with_its_limits_by_a_process_that_stays_clean(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "found")
    assert (found["imported"], found["is_environment_same"], found["maps_driver"]) == ([], True, False)
    assert found["refusal"] is None
    assert found["driver"] == "CUDA 12.8"
    (device,) = found["devices"]
    assert (device["name"], device["reason"]) == ("software stand-in 0", None)
    assert device["uuid"] == "GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0"
    assert (device["limits"]["width_min"], device["limits"]["height_max"]) == (145, 4096)


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"gpus": 0}, r"the NVIDIA driver finds no usable GPU: CUDA_ERROR_NO_DEVICE \(100\)"),
        ({"fail": "cuInit=999"}, r"finds no usable GPU: CUDA_ERROR_UNKNOWN \(999\)"),
        ({"nvenc_api": 177}, r"driver is too old: expected NVENC API 12\.1 or newer, found 11\.1"),
        (
            {"no_encoder": 1, "name": "NVIDIA H100 80GB HBM3"},
            r"NVIDIA H100 80GB HBM3 has decoders but no NVENC engine: NV_ENC_ERR_UNSUPPORTED_DEVICE \(2\)",
        ),
        (
            {"no_encoder": 1, "name": "NVIDIA L4"},
            r"NVIDIA L4: the driver refuses .*CAPABILITIES must name video: .*\(2\)",
        ),
        ({"fail": "nvEncInitializeEncoder=8"}, r"encoding a picture failed: NV_ENC_ERR_INVALID_PARAM \(8\)"),
        ({"fail": "nvEncLockBitstream=20"}, r"encoding a picture failed: NV_ENC_ERR_GENERIC \(20\)"),
    ],
    ids=str,
)
def test_every_no_has_its_reason(standin: Standin, knobs: dict[str, object], reason: str) -> None:
    found = standin.ask(CHILDREN, "found", knobs=knobs)
    assert re.search(reason, found["refusal"])
    assert found["candidates"] == []


def test_a_device_whose_sessions_are_taken_is_busy_and_asked_again(standin: Standin, tmp_path: Path) -> None:
    for code in (21, 10):
        knobs = {"no_encoder": code}
        found = standin.ask(CHILDREN, "found", knobs=knobs)
        assert f"({code})" in found["devices"][0]["reason"]
        assert found["candidates"] == ["software stand-in 0"]
    assert not cache_file(tmp_path).exists()


def test_a_driver_that_hangs_is_given_up(standin: Standin) -> None:
    found = standin.ask(CHILDREN, "found", knobs={"hang": "cuInit"}, probe_timeout_s=0.1)
    assert found["refusal"] == "the NVIDIA driver could not be asked: did not end within 0.1 s"


def test_a_machine_without_a_driver_says_so() -> None:
    found = probe.find(NvencSettings())
    if found.driver:
        pytest.skip("there is a driver")
    assert found.refusal == "there is no NVIDIA driver: libcuda.so.1 is not found"


def test_each_device_answers_for_itself(standin: Standin) -> None:
    for bad in (0, 1):
        found = standin.ask(CHILDREN, "found", knobs={"gpus": 2, "no_engine_on": bad})
        names = [device["name"] for device in found["devices"]]
        assert names == ["software stand-in 0", "software stand-in 1"]
        assert found["candidates"] == [f"software stand-in {1 - bad}"]
        Path(standin()["XDG_CACHE_HOME"], "stillreel", "nvenc.json").unlink()


def test_what_is_known_is_not_asked_again(standin: Standin) -> None:
    first = standin.ask(CHILDREN, "found")
    opened = standin.total("sessions_opened")
    assert opened > 0
    assert standin.ask(CHILDREN, "found") == first
    assert standin.total("sessions_opened") == opened


def test_processes_that_ask_together_ask_once(standin: Standin) -> None:
    knobs = standin.seats(1)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: standin.ask(CHILDREN, "found", knobs=knobs), range(4)))
    assert [one["refusal"] for one in found] == [None] * 4
    assert "refused" not in [what for what, _ in standin.journal()]


def test_a_card_without_an_engine_is_not_asked_again(standin: Standin) -> None:
    first = standin.ask(CHILDREN, "found", knobs={"no_encoder": 1, "name": A100})
    assert standin.ask(CHILDREN, "found", knobs={"name": A100}) == first
    assert standin.ask(CHILDREN, "found", knobs={"name": A100, "cuda": 13000})["refusal"] is None  # another driver


def test_a_card_that_is_refused_and_may_have_an_engine_is_asked_again(standin: Standin) -> None:
    standin.ask(CHILDREN, "found", knobs={"no_encoder": 1})
    assert standin.ask(CHILDREN, "found")["refusal"] is None


@pytest.mark.parametrize(
    ("name", "may_encode"),
    [
        (A100, False),
        ("NVIDIA H100 NVL", False),
        ("NVIDIA H200", False),
        ("NVIDIA GH200 480GB", False),
        ("Tesla T4", True),
        ("NVIDIA A10", True),
        ("NVIDIA RTX A1000", True),
        ("NVIDIA GeForce RTX 5090", True),
    ],
)
def test_cards_without_an_engine_are_known_by_name(name: str, may_encode: bool) -> None:
    assert has_engine(name) is may_encode


@pytest.mark.usefixtures("known")
def test_a_damaged_cache_is_an_empty_one_and_written_anew(standin: Standin, tmp_path: Path) -> None:
    cache_file(tmp_path).write_text("{")
    assert standin.ask(CHILDREN, "found")["refusal"] is None
    assert json.loads(cache_file(tmp_path).read_text())["devices"]


@pytest.fixture
def recalled(found_once, tmp_path: Path) -> Callable[[str], NvencLimits | None]:
    """Return a function from the text of a cache file to the limits that it tells of the one device."""
    directory, found = found_once
    (device,) = found["devices"]
    kept = (directory / "stillreel" / "nvenc.json").read_text()

    def recall(text: str | None = None, **entries: object) -> NvencLimits | None:
        document = json.loads(kept)
        document["devices"][device["uuid"]] = entries.get("entry", document["devices"][device["uuid"]])
        (tmp_path / "nvenc.json").write_text(json.dumps(document) if text is None else text)
        bare = NvencDevice(device["uuid"], device["name"])
        return probe.recalled(NvencSettings(cache_dir=tmp_path), found["driver"], bare).limits

    return recall


def test_a_whole_cache_tells_limits(recalled) -> None:
    assert recalled() == NvencLimits(145, 4096, 49, 4096, engines=1, most_b_pictures=4)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"made_by": 1}', "\0\0"], ids=repr)
def test_a_damaged_cache_tells_nothing(recalled, damage: str) -> None:
    assert recalled(damage) is None


@pytest.mark.parametrize(
    "entry", [None, 7, {}, {"name": "x", "limits": {"width": 1}}, {"name": "x", "limits": [1]}], ids=repr
)
def test_a_damaged_entry_tells_nothing(recalled, entry: object) -> None:
    assert recalled(entry=entry) is None


def test_a_cache_that_cannot_be_written_is_no_error(standin: Standin, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the directory should be")
    assert standin.ask(CHILDREN, "found")["refusal"] is None


def test_the_child_runs_without_anything_of_ours() -> None:
    command = [sys.executable, "-P", "-X", "importtime", probe_child.__file__, "list"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", env={"PATH": os.environ["PATH"]}, check=True
    )
    assert "renderer" not in done.stderr
    assert "numpy" not in done.stderr
    assert json.loads(done.stdout.splitlines()[-1].removeprefix(probe_child.MARK))["reason"]


@pytest.mark.parametrize(
    ("system", "machine", "is_installed", "reason"),
    [
        ("Darwin", "arm64", False, "PyNvVideoCodec has no build for Darwin on arm64"),
        ("Linux", "aarch64", False, "PyNvVideoCodec has no build for Linux on aarch64"),
        ("Linux", "x86_64", False, "PyNvVideoCodec is not installed"),
        ("Linux", "x86_64", True, None),
    ],
)
def test_a_missing_wheel_is_a_reason(system: str, machine: str, is_installed: bool, reason: str | None) -> None:
    assert probe.wheel_refusal(system, machine, is_installed=is_installed) == reason


def test_reasons_that_are_alike_are_said_once() -> None:
    findings = NvencFindings("570", tuple(NvencDevice(uuid, "A100", "A100 has none") for uuid in "ab"))
    assert findings.refusal == "A100 has none"
    assert NvencFindings("570").refusal == "the driver lists no GPU"
