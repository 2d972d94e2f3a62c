"""What CURVE costs: the daemon's processor time for a status behind keys, beside the same status on loopback without.

One daemon has both doors. A hundred clients, one connection each, ask ten times a second at one door and then at the
other; the rounds are paired and take turns in going first. The clients are one process that does as little as it can.
"""

import contextlib
import heapq
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import zmq

from benchmarks.load import POLL_S
from benchmarks.peers.daemon import serving
from benchmarks.results import Curve, Spread
from protocol.client import Client
from protocol.curve import read_curve_file

CLIENTS = 100
_PICTURE = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"


def measure_curve(round_s: float, rounds: int, say: Callable[[str], None] = lambda _: None) -> Curve:
    plain: list[float] = []
    behind: list[float] = []
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        data_dir = folder / "daemon" / "data"
        command = [sys.executable, "-m", "renderer", "keys", "curve", "bench", "--data-dir", str(data_dir)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        file = folder / "bench.curve"
        options = ("--local", "tcp://127.0.0.1:*")
        with serving(folder / "daemon", folder, options=options) as daemon:
            doors = ((str(daemon.local), None), (daemon.endpoint, file))
            jobs = [_submitted(*door) for door in doors]
            for number in range(rounds + 1):
                say(f"round {number} of {rounds}" if number else "warm-up")
                for which in (0, 1) if number % 2 else (1, 0):
                    cost_us = _round(daemon.pid, doors[which], jobs[which], round_s)
                    if number:
                        (behind if which else plain).append(cost_us)
    return Curve(
        clients=CLIENTS,
        poll_s=POLL_S,
        round_s=round_s,
        plain_us_per_status=tuple(plain),
        curve_us_per_status=tuple(behind),
        curve_times_plain=Spread.of([one / other for one, other in zip(behind, plain, strict=True)]),
    )


def _submitted(endpoint: str, curve: Path | None) -> str:
    with Client(endpoint, curve=curve) as client:
        return client.render({"images": [{"url": _PICTURE}]}).request_id or ""


def _round(pid: int, door: tuple[str, Path | None], job_id: str, round_s: float) -> float:
    """Return the daemon's processor time for each status, in microseconds."""
    process = psutil.Process(pid)
    command = [sys.executable, "-m", "benchmarks.curve", door[0], str(door[1] or ""), job_id, str(round_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
        assert clients.stdout is not None
        clients.stdout.readline()  # all are connected and answered
        before = _cpu_s(process)
        asked = int(clients.stdout.readline())
        spent_s = _cpu_s(process) - before
    return spent_s / asked * 1e6


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _ask_all(endpoint: str, curve: str, job_id: str, round_s: float) -> None:
    """Connect, say so, ask for a while, and say how often an answer came."""
    keys = read_curve_file(curve) if curve else None
    call = {"jsonrpc": "2.0", "id": 1, "method": "status", "params": {"request_id": job_id}}
    question = json.dumps(call).encode()
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        poller, sockets = zmq.Poller(), []
        for _ in range(CLIENTS):
            socket = stack.enter_context(context.socket(zmq.DEALER))
            socket.linger = 0
            if keys is not None:
                keys.give_to(socket)
            socket.connect(endpoint)
            socket.send(question)
            poller.register(socket, zmq.POLLIN)
            sockets.append(socket)
        for socket in sockets:
            _checked(socket.recv())
        print("connected", flush=True)
        print(_answered(poller, sockets, question, time.monotonic() + round_s), flush=True)


def _answered(poller: zmq.Poller, sockets: list[Any], question: bytes, until: float) -> int:
    order, now = itertools.count(), time.monotonic()
    due = [(now + POLL_S * number / CLIENTS, next(order), socket) for number, socket in enumerate(sockets)]
    answers = 0
    while (now := time.monotonic()) < until:
        while due[0][0] <= now:
            at, _, socket = heapq.heappop(due)
            socket.send(question)
            heapq.heappush(due, (at + POLL_S, next(order), socket))
        for socket, _ in poller.poll(max(0, round((due[0][0] - time.monotonic()) * 1000))):
            _checked(socket.recv())
            answers += 1
    return answers


def _checked(answer: bytes) -> None:
    if b'"result"' not in answer:
        raise RuntimeError(f"status answered {answer[:200]!r}")


if __name__ == "__main__":
    _ask_all(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
