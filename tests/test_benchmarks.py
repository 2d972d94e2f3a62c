import json
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks import workloads
from benchmarks.compare import Plan, compare
from benchmarks.measure import Memory, run
from benchmarks.peers.base import lay_out
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.script import UNAVAILABLE
from benchmarks.quality import examine, judge
from benchmarks.results import Report, this_machine

pytestmark = pytest.mark.timeout(60)

TINY = workloads.find("4x6-tiny")
EXACT = ("stillreel", "image2", "moviepy", "imageio", "pyav")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLREEL_BENCHMARK_CACHE", str(tmp_path_factory.getbasetemp() / "stills"))


@pytest.mark.parametrize("name", ["4x6-tiny", "mixed-tiny", "twos-tiny"])
def test_stills_are_distinct_and_of_the_workloads_size(name: str) -> None:
    work = workloads.find(name)
    stills = work.stills()
    assert len({still.read_bytes() for still in stills}) == len(work.holds)
    assert {cv2.imread(str(still)).shape for still in stills} == {(work.size[1], work.size[0], 3)}


def test_any_count_hold_and_size_is_a_workload() -> None:
    work = workloads.find("100x48-720p")
    assert (len(work.holds), work.hold, work.frames, work.size) == (100, 48, 4800, (1280, 720))


@pytest.mark.parametrize("name", ["0x4-tiny", "4x4-8k", "nothing"])
def test_unknown_workload_is_refused_by_name(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        workloads.find(name)


@pytest.mark.parametrize("name", EXACT)
def test_peer_makes_a_video_of_the_workloads_frames(name: str, tmp_path: Path) -> None:
    if name == "moviepy":
        pytest.importorskip("moviepy", reason="comes with the bench extra")
    peer = PEERS[name]
    task = lay_out(TINY, tmp_path)
    done = run(peer.command(task))
    assert done.code == 0, done.stderr
    video = examine(task.output, TINY.frames, TINY.fps)
    assert (video.frames, video.duration_s, video.is_constant_rate) == (24, 1.0, True)


def test_floor_has_one_frame_per_still(tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    assert run(PEERS["floor"].command(task)).code == 0
    assert examine(task.output, 4, TINY.fps).frames == 4


def test_concat_makes_a_video_of_whatever_length(tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    assert run(PEERS["concat"].command(task)).code == 0
    assert examine(task.output, TINY.frames, TINY.fps).frames > 0


def test_opencv_writes_h264_or_says_that_it_cannot(tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    assert run(PEERS["opencv"].command(task)).code in {0, UNAVAILABLE}


def test_a_frame_of_the_wrong_still_is_found(tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    assert run(PEERS["image2"].command(task)).code == 0
    right = judge(task.output, TINY)
    shifted = workloads.Workload("shifted", "", TINY.size, (5, 7, 6, 6))
    assert (right.edges_wrong, judge(task.output, shifted).edges_wrong) == (0, 1)
    assert right.ssim > 0.9


def test_memory_and_cpu_of_a_child_are_seen() -> None:
    memory = Memory()
    spend = "import time\nx = bytearray(80_000_000)\nwhile time.process_time() < 0.3: pass"
    done = run([sys.executable, "-c", spend], memory=memory)
    assert done.cpu_s >= 0.29
    assert 80e6 < memory.process_bytes <= memory.tree_bytes < 200e6


def test_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    peers = [PEERS[OURS], PEERS["image2"], PEERS["concat-nvenc"]]
    work = compare(TINY, peers, Plan(rounds=1, with_quality=True))
    file = Report(machine=this_machine(), works=(work,)).save("tiny", tmp_path)
    assert Report.load(file).works == (work,)
    told = json.loads(file.read_text(encoding="utf-8"))
    ours = told["works"][0]["peers"][0]
    assert told["schema_version"] == 1
    assert ours["times_ours"] == {"median": 1.0, "least": 1.0, "most": 1.0}
    assert ours["video"]["frames"] == ours["video"]["frames_expected"] == 24
    assert ours["command"] == "python -m renderer render WORK/stillreel/work.json -o WORK/stillreel/out.mp4 --json"


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the bench extra")
    from benchmarks.plots import plot_holds

    peers = [PEERS["image2"], PEERS["floor"]]
    works = tuple(compare(workloads.uniform(2, hold, "tiny"), peers, Plan(rounds=1)) for hold in (1, 4))
    file = plot_holds(Report(machine=this_machine(), works=works), tmp_path / "holds.png")
    assert cv2.imread(str(file)).shape[0] > 500
