"""NVENC in the benchmarks: the same work beside libx264, and no number of what is no GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import workloads
from benchmarks.compare import Plan, compare
from benchmarks.peers.base import lay_out
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.gpu import STANDIN
from benchmarks.quality import examine, judge
from renderer.config import NvencSettings
from renderer.encode.nvenc.probe import find
from tests.nvenc_standin.process import Standin

TINY = workloads.find("4x6-tiny")
NVENC = ("stillreel-nvenc", "concat-nvenc")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLREEL_BENCHMARK_CACHE", str(tmp_path_factory.getbasetemp() / "stills"))


def test_nvenc_peers_are_left_out_with_the_probes_reason(tmp_path: Path) -> None:
    refused = find(NvencSettings(cache_dir=tmp_path)).refusal
    if refused is None:
        pytest.skip("a GPU of this machine encodes")
    work = compare(TINY, [PEERS[name] for name in NVENC], Plan(rounds=1))
    assert [(peer.name, peer.why_not) for peer in work.peers] == [(name, refused) for name in NVENC]


def test_nvenc_peer_makes_a_video_of_the_workloads_frames(standin: Standin, tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    done = subprocess.run(
        PEERS["stillreel-nvenc"].command(task), env=standin(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["encoder"] == "nvenc"
    video = examine(task.output, TINY.frames, TINY.fps)
    assert (video.frames, video.duration_s, video.is_constant_rate) == (24, 1.0, True)
    assert judge(task.output, TINY).edges_wrong == 0


def test_over_the_stand_in_no_nvenc_peer_is_timed(standin: Standin, tmp_path: Path) -> None:
    told = _run(standin(), tmp_path)
    libx264, *nvenc = told["works"][0]["peers"]
    assert libx264["wall"]["median"] > 0
    assert [(peer["name"], peer["why_not"], peer["wall"], peer["wall_s"]) for peer in nvenc] == [
        (name, STANDIN, None, []) for name in NVENC
    ]
    assert told["machine"]["gpus"] == []
    assert standin.total("sessions_opened") == 0


def test_stillreel_beside_nvenc_is_timed_with_libx264() -> None:
    assert TINY.request()["encoder"] == "libx264"


def _run(environment: dict[str, str], folder: Path) -> dict[str, Any]:
    peers = ",".join(("stillreel", *NVENC))
    command = [sys.executable, "-m", "benchmarks", "run", TINY.name, "--peers", peers, "--rounds", "1"]
    command += ["--name", "tiny", "--out", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((folder / "tiny.json").read_text(encoding="utf-8")))
