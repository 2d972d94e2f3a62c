"""What a second worker adds: jobs per second with one and two workers, on one core and on two, and the same of ffmpeg.

Two workers on two cores stand against one on one core, which is how workers scale, and against one that has both,
whose encoder and decoders use the second already. `xargs ffmpeg` on the same cores is what the machine itself gains:
two of its cores may be two threads of one. All ways take turns in every round.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.load import jobs_per_s
from benchmarks.measure import spent
from benchmarks.peers import ffmpeg
from benchmarks.peers.base import lay_out
from benchmarks.peers.daemon import serving
from benchmarks.photographs import cache_dir
from benchmarks.results import Spread, Workers
from benchmarks.throughput import xargs
from benchmarks.workloads import Workload

_WAYS = ((1, 1), (1, 2), (2, 2))  # workers, cores


def measure_workers(
    work: Workload, jobs: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> tuple[Workers, ...]:
    """Render the work `jobs` times each way, `rounds` times after a warm-up (Linux, with taskset).

    Raises:
        ValueError: there is one core only.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ValueError("expected two cores at least, found one")
    rates: list[list[float]] = [[] for _ in _WAYS]
    cpu_s: list[list[float]] = [[] for _ in _WAYS]
    theirs: list[list[float]] = [[] for _ in _WAYS]
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name, ExitStack() as running:
        folder = Path(name)
        command = ffmpeg.concat(lay_out(work, folder / "concat"))
        prefixes = [("taskset", "--cpu-list", ",".join(map(str, allowed[:cores]))) for _, cores in _WAYS]
        daemons = [
            running.enter_context(serving(folder / str(way), cache_dir(), prefix, ("--workers", str(workers))))
            for way, ((workers, _), prefix) in enumerate(zip(_WAYS, prefixes, strict=True))
        ]
        for number in range(rounds + 1):
            say(f"{work.name}: one worker and two, " + (f"round {number} of {rounds}" if number else "warm-up"))
            count = jobs if number else 2
            for way, (workers, _) in enumerate(_WAYS):
                before_s, _ = spent(daemons[way].pid)
                rates[way].append(jobs_per_s(daemons[way], work.request(), count))
                cpu_s[way].append(round((spent(daemons[way].pid)[0] - before_s) / count, 4))
                theirs[way].append(xargs([*prefixes[way], *command], count, workers))
    timed, timed_theirs = [each[1:] for each in rates], [each[1:] for each in theirs]
    return tuple(
        Workers(
            work=work.name,
            workers=workers,
            cores=cores,
            jobs_per_s=tuple(timed[way]),
            cpu_s_per_job=tuple(cpu_s[way][1:]),
            ffmpeg_jobs_per_s=tuple(timed_theirs[way]),
            two_times_this=Spread.of([a / b for a, b in zip(timed[-1], timed[way], strict=True)]),
            two_times_this_ffmpeg=Spread.of([a / b for a, b in zip(timed_theirs[-1], timed_theirs[way], strict=True)]),
        )
        for way, (workers, cores) in enumerate(_WAYS)
    )
