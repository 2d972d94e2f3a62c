"""What the daemon and the message add to `pipeline.render`, and how that compares with the ffmpeg command line.

All three on the same images and settings, in turn, round after round. The ffmpeg command is image2 where the holds
allow it, else concat.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.compare import in_short
from benchmarks.peers import ffmpeg
from benchmarks.peers.base import lay_out
from benchmarks.peers.daemon import serving
from benchmarks.photographs import cache_dir
from benchmarks.results import Overhead, Spread
from benchmarks.workloads import Workload
from protocol.client import Client
from renderer import render


def measure_overhead(work: Workload, rounds: int, say: Callable[[str], None] = lambda _: None) -> Overhead:
    """Time a render in this process, the ffmpeg command and a client's round trip, `rounds` times after a warm-up."""
    request = work.request()
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        task = lay_out(work, folder)
        command = ffmpeg.concat(task) if ffmpeg.holds_differ(task) else ffmpeg.image2(task)
        with serving(folder / "daemon", cache_dir()) as daemon, Client(daemon.endpoint) as client:
            here, by_ffmpeg, asked, inside = [], [], [], []
            for number in range(rounds + 1):
                say(f"{work.name}: overhead, " + (f"round {number} of {rounds}" if number else "warm-up"))
                here.append(_seconds(lambda: render(request, folder / "here.mp4")))
                by_ffmpeg.append(_seconds(lambda: subprocess.run(command, check=True)))
                began = time.perf_counter()
                result = client.render(request)
                asked.append(round(time.perf_counter() - began, 4))
                inside.append(result.timings["total"])
    here, by_ffmpeg, asked, inside = here[1:], by_ffmpeg[1:], asked[1:], inside[1:]
    return Overhead(
        work=work.name,
        ffmpeg_command=in_short(command, folder, task.ffmpeg),
        warm_render_s=tuple(here),
        ffmpeg_s=tuple(by_ffmpeg),
        daemon_s=tuple(asked),
        daemon_inside_s=tuple(inside),
        daemon_adds_s=Spread.of([trip - job for trip, job in zip(asked, inside, strict=True)]),
        render_times_ffmpeg=Spread.of([ours / theirs for ours, theirs in zip(here, by_ffmpeg, strict=True)]),
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(time.perf_counter() - began, 4)
