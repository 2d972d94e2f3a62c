"""What a Ray cluster costs on one machine: the same jobs through a daemon's own workers and through a node, in turn.

Both daemons have the same cores, and one slot for each of them; the node's part is that of a whole cluster, head
included, which runs beside both. What is timed goes from the first submit to the last result.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.load import jobs_per_s
from benchmarks.peers.daemon import serving
from benchmarks.photographs import cache_dir
from benchmarks.results import OnRay, Spread
from benchmarks.workloads import Workload

_HEAD_S = 120.0


def measure_ray(work: Workload, jobs: int, rounds: int, say: Callable[[str], None] = lambda _: None) -> OnRay:
    """Measure round after round: jobs through the local pool, then the same ones through Ray."""
    request, workers = work.request(), os.cpu_count() or 1
    local, on_ray = [], []
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name, _cluster(Path(name), workers) as address:
        pool = serving(Path(name) / "local", cache_dir(), options=("--workers", str(workers)))
        nodes = serving(Path(name) / "ray", cache_dir(), options=("--slots", f"ray://{address}"))
        with pool as here, nodes as there:
            for number in range(rounds + 1):
                say(f"{work.name}: " + (f"round {number} of {rounds}" if number else "warm-up"))
                local.append(jobs_per_s(here, request, jobs))
                on_ray.append(jobs_per_s(there, request, jobs))
    local, on_ray = local[1:], on_ray[1:]
    return OnRay(
        work=work.name,
        slots=workers,
        jobs=jobs,
        local_jobs_per_s=tuple(local),
        ray_jobs_per_s=tuple(on_ray),
        ray_times_local_s=Spread.of([ours / theirs for ours, theirs in zip(local, on_ray, strict=True)]),
    )


@contextlib.contextmanager
def _cluster(folder: Path, slots: int) -> Iterator[str]:
    """Lend a cluster of one node; its token is in the environment until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(16)
    command = [sys.executable, "-m", "renderer", "ray-node", "--port", str(port), "--slots", str(slots)]
    log = folder / "node.log"
    with log.open("wb") as words:
        node = subprocess.Popen([*command, "--temp-dir", str(folder)], stdout=words, stderr=words)
    try:
        ends_at = time.monotonic() + _HEAD_S
        while "Ray runtime started" not in log.read_text(errors="replace"):
            if node.poll() is not None or time.monotonic() > ends_at:
                raise RuntimeError(f"the node did not begin: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        del os.environ["RAY_AUTH_TOKEN"]
        node.terminate()
        node.wait()
