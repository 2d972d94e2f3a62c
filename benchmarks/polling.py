"""What asking costs: jobs rendered while many clients ask over HTTP for their status, beside the same jobs alone.

The rounds are paired and take turns in going first. The clients are one process with one connection each, and ask as
the hosted service's Python client does, every tenth of a second, with its headers. Where the daemon is given fewer
cores than the machine has, the clients have the rest, as clients on other machines would; else they take part of what
they measure.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.load import POLL_S, jobs_per_s
from benchmarks.peers.daemon import Daemon, serving
from benchmarks.photographs import cache_dir
from benchmarks.results import Polling, Spread
from benchmarks.workloads import Workload
from protocol.client import Client

CLIENTS = 200
WORKERS = 2
_STATUS = "/queue/fal-ai/ffmpeg-api/requests/{id}/status?logs=False"
_WARM_S = 1.0


def measure_polling(
    work: Workload, jobs: int, rounds: int, cores: int, say: Callable[[str], None] = lambda _: None
) -> Polling:
    """Measure on a daemon with two workers on the first `cores` of this machine's."""
    request = work.request()
    allowed = sorted(os.sched_getaffinity(0))
    ours, theirs = allowed[:cores], allowed[cores:] or allowed
    prefix = ("taskset", "--cpu-list", ",".join(map(str, ours)))
    options = ("--workers", str(WORKERS), "--http", "127.0.0.1:0")
    alone: list[float] = []
    asked: list[float] = []
    trips: list[float] = []
    cpu_us: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name,
        serving(Path(name) / "daemon", cache_dir(), prefix, options) as daemon,
        _only_on(theirs),
    ):
        watched = _submitted(daemon, request)
        for number in range(rounds + 1):
            say(f"{work.name}: " + (f"round {number} of {rounds}" if number else "warm-up"))
            for is_asked in (False, True) if number % 2 else (True, False):
                rate, seen, cost = _round(daemon, request, jobs, watched if is_asked else None)
                if number:
                    (asked if is_asked else alone).append(rate)
                    trips += seen
                    cpu_us += cost
    return Polling(
        work=work.name,
        workers=WORKERS,
        cores=len(ours),
        clients_share_cores=theirs == allowed,
        jobs=jobs,
        clients=CLIENTS,
        poll_s=POLL_S,
        alone_jobs_per_s=tuple(alone),
        asked_jobs_per_s=tuple(asked),
        asked_times_alone=Spread.of([one / other for one, other in zip(asked, alone, strict=True)]),
        status_ms=Spread.of(trips),
        status_p99_ms=round(statistics.quantiles(trips, n=100)[98], 3),
        asked=len(trips),
        daemon_us_per_status=round(statistics.median(cpu_us), 1),
    )


@contextlib.contextmanager
def _only_on(cores: Sequence[int]) -> Iterator[None]:
    """Keep this process, and those that it starts, to these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _submitted(daemon: Daemon, request: dict[str, Any]) -> str:
    with Client(daemon.endpoint) as client:
        return client.submit(request).request_id


def _round(
    daemon: Daemon, request: dict[str, Any], jobs: int, watched: str | None
) -> tuple[float, Sequence[float], list[float]]:
    """Return jobs per second, and the clients' round trips and the daemon's time for each, if they ask meanwhile."""
    if watched is None:
        return jobs_per_s(daemon, request, jobs), (), []
    process = psutil.Process(daemon.pid)
    command = [sys.executable, "-m", "benchmarks.polling", str(daemon.http), watched]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
        time.sleep(_WARM_S)
        before = _cpu_s(process)
        rate = jobs_per_s(daemon, request, jobs)
        spent_s = _cpu_s(process) - before
        told, _ = clients.communicate("enough\n")
    trips: list[float] = json.loads(told)
    per_status_us = spent_s / (jobs / rate) / (CLIENTS / POLL_S) * 1e6
    return rate, trips, [per_status_us]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _ask(place: tuple[str, int], path: str, delay_s: float, trips: list[float]) -> None:
    """Ask until cancelled; written on the socket, so that the asking itself takes little."""
    await asyncio.sleep(delay_s)
    reader, writer = await asyncio.open_connection(*place)
    head = f"GET {path} HTTP/1.1\r\nhost: {place[0]}:{place[1]}\r\naccept: */*\r\naccept-encoding: gzip, deflate\r\n"
    question = f"{head}connection: keep-alive\r\nuser-agent: fal-client/1.0.3 (python)\r\n\r\n".encode()
    while True:
        began = time.perf_counter()
        writer.write(question)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        took_s = time.perf_counter() - began
        if answer[9:12] not in {b"200", b"202"}:
            raise RuntimeError(f"status answered {answer[:40]!r}")
        trips.append(round(took_s * 1000, 3))
        await asyncio.sleep(max(0.0, POLL_S - took_s))


async def _ask_all(url: str, job_id: str) -> list[float]:
    """Ask until a line comes in on stdin."""
    parts = urlsplit(url)
    place = (str(parts.hostname), int(parts.port or 80))
    trips: list[float] = []
    async with asyncio.TaskGroup() as group:
        path = _STATUS.format(id=job_id)
        asking = [group.create_task(_ask(place, path, POLL_S * n / CLIENTS, trips)) for n in range(CLIENTS)]
        await asyncio.to_thread(sys.stdin.readline)
        for task in asking:
            task.cancel()
    return trips


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_ask_all(sys.argv[1], sys.argv[2]))))
