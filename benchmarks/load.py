"""How a busy daemon does: its throughput against `render` in a loop, and its answers while a thousand jobs wait.

Throughput is paired: as many processes as the daemon has workers render the jobs in a loop, then the daemon renders the
same ones, round after round, nobody asking. Then the queue is filled and clients poll from a process of their own; what
they see is the round trip with all cores rendering, their own Python included.
"""

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from benchmarks.peers.daemon import Daemon, serving
from benchmarks.photographs import cache_dir
from benchmarks.results import Load, Spread
from benchmarks.workloads import Workload
from protocol.client import AsyncClient, Client
from renderer import render

CLIENTS = 50
POLL_S = 0.1  # the hosted service's Python client asks as often
_ASKING_S = 20.0


def measure_load(
    work: Workload, jobs: int, waiting: int, rounds: int, say: Callable[[str], None] = lambda _: None
) -> Load:
    """Measure on a daemon with one worker for each core."""
    request, workers = work.request(), os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        with serving(folder / "daemon", cache_dir(), options=("--workers", str(workers))) as daemon:
            process = psutil.Process(daemon.pid)
            memory = [process.memory_info().rss]
            loop, through_daemon = [], []
            for number in range(rounds + 1):
                say(f"{work.name}: throughput, " + (f"round {number} of {rounds}" if number else "warm-up"))
                loop.append(round(jobs / _loop_s(request, jobs, workers, folder), 3))
                through_daemon.append(jobs_per_s(daemon, request, jobs))
            say(f"{work.name}: {CLIENTS} clients ask while {waiting} jobs wait")
            trips = _trips_while_waiting(daemon, request, waiting, lambda: memory.append(process.memory_info().rss))
            memory.append(process.memory_info().rss)
    loop, through_daemon = loop[1:], through_daemon[1:]
    return Load(
        work=work.name,
        workers=workers,
        jobs=jobs,
        waiting=waiting,
        clients=CLIENTS,
        poll_s=POLL_S,
        loop_jobs_per_s=tuple(loop),
        daemon_jobs_per_s=tuple(through_daemon),
        daemon_times_loop=Spread.of([ours / theirs for ours, theirs in zip(through_daemon, loop, strict=True)]),
        status_ms=Spread.of(trips),
        status_p99_ms=round(statistics.quantiles(trips, n=100)[98], 3),
        asked=len(trips),
        memory_bytes=(memory[0], memory[1], memory[2]),
    )


def _loop_s(request: dict[str, Any], jobs: int, workers: int, folder: Path) -> float:
    """Return the seconds that `workers` warm processes take for all jobs."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        outputs = [folder / f"loop-{index}.mp4" for index in range(workers)]
        list(pool.map(_render_loop, [request] * workers, outputs, [1] * workers))
        shares = [len(range(index, jobs, workers)) for index in range(workers)]
        began = time.perf_counter()
        list(pool.map(_render_loop, [request] * workers, outputs, shares))
        return time.perf_counter() - began


def _render_loop(request: dict[str, Any], output: Path, jobs: int) -> None:
    for _ in range(jobs):
        render(request, output)


def jobs_per_s(daemon: Daemon, request: dict[str, Any], jobs: int) -> float:
    """Let the daemon render the same request so many times, all submitted at once."""
    return round(jobs / asyncio.run(_daemon_s(daemon, request, jobs)), 3)


async def _daemon_s(daemon: Daemon, request: dict[str, Any], jobs: int) -> float:
    """Return the seconds from the first submit to the last result."""
    async with AsyncClient(daemon.endpoint) as client:
        began = time.perf_counter()
        await asyncio.gather(*(client.render(request) for _ in range(jobs)))
        return time.perf_counter() - began


def _trips_while_waiting(
    daemon: Daemon, request: dict[str, Any], waiting: int, when_full: Callable[[], None]
) -> list[float]:
    """Fill the queue, let the clients ask, empty it again; return the round trips in milliseconds."""
    with Client(daemon.endpoint) as client:
        accepted = [client.submit(request).request_id for _ in range(waiting)]
        when_full()
        command = [sys.executable, "-m", "benchmarks.load", daemon.endpoint, accepted[-1]]
        asked = subprocess.run(command, check=True, capture_output=True, text=True)
        for job_id in reversed(accepted):
            client.cancel(job_id)
    trips: list[float] = json.loads(asked.stdout)
    return trips


async def _ask(endpoint: str, job_id: str, trips: list[float]) -> None:
    async with AsyncClient(endpoint) as client:
        await client.health()  # connected
        end = time.perf_counter() + _ASKING_S
        while (began := time.perf_counter()) < end:
            await client.status(job_id)
            trips.append(round((time.perf_counter() - began) * 1000, 3))
            await asyncio.sleep(POLL_S)


async def _ask_all(endpoint: str, job_id: str) -> list[float]:
    trips: list[float] = []
    await asyncio.gather(*(_ask(endpoint, job_id, trips) for _ in range(CLIENTS)))
    return trips


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_ask_all(sys.argv[1], sys.argv[2]))))
