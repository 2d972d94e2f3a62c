import json
import random
import shlex
import sys
from pathlib import Path

import av
import cv2
import pytest

from benchmarks import pareto, readme, simulate, workloads
from benchmarks.compare import Plan, compare, in_short
from benchmarks.measure import Memory, run
from benchmarks.peers.base import Peer, lay_out
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.peers.script import UNAVAILABLE
from benchmarks.photographs import photographs, png_photographs
from benchmarks.quality import examine, judge
from benchmarks.results import CHOSEN, Quality, Report, this_machine
from benchmarks.sound import measure_sound
from benchmarks.throughput import measure_throughput

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


@pytest.mark.parametrize("name", ["floor", "bare"])
def test_floor_has_one_frame_per_still(name: str, tmp_path: Path) -> None:
    task = lay_out(TINY, tmp_path)
    assert run(PEERS[name].command(task)).code == 0
    assert examine(task.output, 4, TINY.fps).frames == 4


def test_bare_program_makes_pictures_as_good_as_ours() -> None:
    work = workloads.Workload("bare-tiny", "", TINY.size, (6,) * 4)
    ours, bare = compare(
        work, [PEERS[OURS], PEERS["bare"]], Plan(rounds=1, with_quality=True, with_warm_up=False)
    ).peers
    assert ours.quality
    assert bare.quality
    assert bare.quality.ssim == pytest.approx(ours.quality.ssim, abs=0.005)
    assert bare.quality.rgb_psnr == pytest.approx(ours.quality.rgb_psnr, abs=0.5)


def test_bare_program_codes_large_stills_in_as_many_bytes_as_ours() -> None:
    work = workloads.Workload("bare-large-tiny", "", TINY.size, (1,) * 4, source=(450, 270))
    ours, bare = compare(work, [PEERS[OURS], PEERS["bare"]], Plan(rounds=1, with_warm_up=False)).peers
    assert ours.video
    assert bare.video
    assert bare.video.size_bytes == pytest.approx(ours.video.size_bytes, rel=0.05)


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


def test_colours_are_judged_as_a_player_shows_them(tmp_path: Path) -> None:
    work = workloads.Workload("png-tiny", "", TINY.size, (6,) * 4, png_photographs)
    by_default, accurate = (judged(PEERS[name], work, tmp_path) for name in ("image2", "image2-accurate"))
    assert accurate.rgb_psnr > by_default.rgb_psnr + 1
    assert accurate.colour_error < 0.5 < by_default.colour_error
    assert (accurate.colour, accurate.tagged) == ("bt709 limited", "bt709 limited")


def judged(peer: Peer, work: workloads.Workload, folder: Path) -> Quality:
    task = lay_out(work, folder / peer.name)
    assert run(peer.command(task)).code == 0
    return judge(task.output, work)


def test_stills_larger_than_the_canvas_are_scaled_by_every_peer(tmp_path: Path) -> None:
    work = workloads.Workload("large-tiny", "", (160, 96), (1,) * 4, source=(320, 192))
    for name in (OURS, "image2", "image2-accurate", "concat-accurate"):
        task = lay_out(work, tmp_path / name)
        assert run(PEERS[name].command(task)).code == 0
        with av.open(str(task.output)) as container:
            stream = container.streams.video[0]
            assert (stream.width, stream.height) == (160, 96)


def test_readme_gets_the_tables_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = readme.Row("4x6-tiny", "four photographs", Plan(rounds=1, with_quality=True))
    monkeypatch.setattr(readme, "ROWS", (row,))
    work = compare(TINY, [PEERS[name] for name in row.peers.split(",")], row.plan)
    page = tmp_path / "README.md"
    page.write_text(f"Before.\n\n{readme.BEGIN}\nold\n{readme.END}\n\nAfter.\n", encoding="utf-8")
    readme.write_tables(Report(machine=this_machine(), works=(work,)), page)
    text = page.read_text(encoding="utf-8")
    assert "old" not in text
    assert text.startswith("Before.")
    assert text.endswith("After.\n")
    speed, quality = text.split(readme.BEGIN)[1].split(readme.END)[0].strip().split("\n\n")
    assert [line.count("|") for line in speed.strip().splitlines()] == [7, 7, 7]
    assert "| four photographs | **" in speed
    assert [line.count("|") for line in quality.strip().splitlines()] == [12] * 5


def test_a_command_is_kept_without_paths_of_this_machine(tmp_path: Path) -> None:
    for name in ("bare", "concat", "pyav", "stillreel"):
        task = lay_out(TINY, tmp_path)
        short = in_short(PEERS[name].command(task), tmp_path, task.ffmpeg)
        assert not [word for word in shlex.split(short) if word.startswith("/")], short


def test_two_workers_are_timed_beside_two_ffmpegs() -> None:
    found = measure_throughput(TINY, jobs=3, rounds=1)
    assert min(found.daemon_jobs_per_s + found.concat_jobs_per_s + found.accurate_jobs_per_s) > 0


def test_a_sound_is_timed_beside_its_coder_alone() -> None:
    found = measure_sound(TINY, rounds=1)
    assert found.seconds == TINY.frames / TINY.fps
    assert min(found.without_cpu_s + found.with_cpu_s + found.floor_cpu_s) > 0


def test_options_are_weighed_at_equal_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "KINDS", {"photographs": (photographs, 2)})
    chosen, cavlc = pareto.measure_pareto("veryfast", 24, [CHOSEN, "CAVLC"], "tiny")
    assert (chosen.stills, chosen.options, cavlc.options) == (2, CHOSEN, "CAVLC")
    assert 0 < chosen.cpu_s < chosen.held_cpu_s
    for metric in ("ssim", "vmaf", "rgb_psnr"):
        assert 0.5 < chosen.sizes[metric] < cavlc.sizes[metric]  # the same pictures in more bytes
        assert chosen.crfs[metric] == pytest.approx(cavlc.crfs[metric])


def test_a_size_is_read_off_between_the_points_that_were_coded() -> None:
    quality = Quality(
        stills=1, ssim=0.9, vmaf=90, vmaf_least=90, edges=0, edges_wrong=0, colour="bt709 full", tagged=""
    )
    points = [
        pareto.Point(crf, size_bytes, 1, quality.model_copy(update={"vmaf": vmaf}))
        for crf, size_bytes, vmaf in ((17, 400, 96), (20, 200, 94), (23, 100, 90))
    ]
    for wanted, size_bytes, crf in ((94, 200, 20), (95, 200 * 2**0.5, 18.5), (92, 100 * 2**0.5, 21.5), (98, 800, 14)):
        assert pareto.reached(points, lambda quality: quality.vmaf, wanted) == pytest.approx((size_bytes, crf))


def test_memory_and_cpu_of_a_child_are_seen() -> None:
    memory = Memory()
    spend = "import time\nx = bytearray(80_000_000)\nwhile time.process_time() < 0.3: pass"
    done = run([sys.executable, "-c", spend], memory=memory)
    assert done.cpu_s >= 0.29
    assert done.faults > 80e6 / (2 * 1024 * 1024)  # even if its pages are huge
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


def test_simulated_jobs_wait_for_slots_and_for_the_loop() -> None:
    one = simulate.play(random.Random(1), 1, 1, [(0, 2), (0, 2), (1, 2)], 0.0, goes_on=False)
    assert (one.took_s, one.waits_s, one.lost) == (6, [0, 2, 3], 0)
    many = simulate.play(random.Random(1), 100, 2, [(0, 0.1)] * 50, 1.0, goes_on=False)
    assert many.took_s == pytest.approx(50.1), "one after the other through the loop"


def test_simulated_jobs_survive_their_nodes_and_shards_lose_less() -> None:
    long = [(0.0, simulate.LIFE_S / 4)] * 20
    anew, goes_on = (simulate.play(random.Random(3), 5, 2, long, 0.0, goes_on=goes_on) for goes_on in (False, True))
    assert anew.lost > 0
    assert goes_on.lost > 0
    assert anew.took_s > goes_on.took_s > long[0][1] * 2
    assert len(anew.waits_s) == len(goes_on.waits_s) == 20, "of each job's first attempt"


def test_what_is_simulated_is_kept_and_plotted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the bench extra")
    from benchmarks.plots import plot_simulated

    measured = simulate.Measured.kept()
    once, again = (tuple(simulate.simulate(measured, 2, 20, range(2))) for _ in range(2))
    assert once == again
    assert cv2.imread(str(plot_simulated(Report(machine=this_machine(), simulated=once), tmp_path / "a.png"))).size


def test_plots_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="comes with the bench extra")
    from benchmarks.plots import plot_holds

    peers = [PEERS["image2"], PEERS["floor"]]
    works = tuple(compare(workloads.uniform(2, hold, "tiny"), peers, Plan(rounds=1)) for hold in (1, 4))
    file = plot_holds(Report(machine=this_machine(), works=works), tmp_path / "holds.png")
    assert cv2.imread(str(file)).shape[0] > 500
