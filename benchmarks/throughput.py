"""Jobs per second: a daemon with two workers, and `xargs -P2 ffmpeg`, on the same jobs, round after round.

Both keep two jobs going at a time. ffmpeg is the concat demuxer's command, once for each job, in both conversions.
"""

import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.load import jobs_per_s
from benchmarks.peers import ffmpeg
from benchmarks.peers.base import lay_out
from benchmarks.peers.daemon import serving
from benchmarks.photographs import cache_dir
from benchmarks.results import Spread, Throughput
from benchmarks.workloads import Workload

_WORKERS = 2


def measure_throughput(
    work: Workload, jobs: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> Throughput:
    """Render the work `jobs` times each way, `rounds` times after a warm-up."""
    ours: list[float] = []
    theirs: list[float] = []
    accurate: list[float] = []
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        usual, exact = lay_out(work, folder / "concat"), lay_out(work, folder / "accurate")
        commands = (ffmpeg.concat(usual), ffmpeg.concat_accurate(exact))
        with serving(folder / "daemon", cache_dir(), options=("--workers", str(_WORKERS))) as daemon:
            for number in range(rounds + 1):
                say(f"{work.name}: jobs per second, " + (f"round {number} of {rounds}" if number else "warm-up"))
                ours.append(jobs_per_s(daemon, work.request(), jobs if number else _WORKERS))
                for rates, command in zip((theirs, accurate), commands, strict=True):
                    rates.append(xargs(command, jobs if number else _WORKERS, _WORKERS))
    return Throughput(
        work=work.name,
        workers=_WORKERS,
        jobs=jobs,
        daemon_jobs_per_s=tuple(ours[1:]),
        concat_jobs_per_s=tuple(theirs[1:]),
        accurate_jobs_per_s=tuple(accurate[1:]),
        daemon_times_concat=Spread.of([a / b for a, b in zip(ours[1:], theirs[1:], strict=True)]),
        daemon_times_accurate=Spread.of([a / b for a, b in zip(ours[1:], accurate[1:], strict=True)]),
    )


def xargs(command: Sequence[str], jobs: int, at_once: int) -> float:
    """Run the command `jobs` times, so many at a time, each into a file of its own; return jobs per second."""
    *before, output = command
    numbered = shlex.join(before) + f" {shlex.quote(output)}.{{}}.mp4"
    numbers = "\n".join(str(number) for number in range(jobs))
    began = time.perf_counter()
    subprocess.run(["xargs", f"-P{at_once}", "-I{}", "sh", "-c", numbered], input=numbers, text=True, check=True)
    return round(jobs / (time.perf_counter() - began), 3)
