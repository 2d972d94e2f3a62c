"""What beginning costs: short commands, the way of `render` to its first still, a daemon until it is ready.

Processor time is the process's own (getrusage of children that have ended; /proc of a daemon that runs), and memory is
proportional (PSS): what processes share is counted once. `render` is ended when it opens its first image, by an audit
hook, so that its figures are those of all that comes before decoding. Of one whole job, of a picture of four pixels,
hardly anything is work: the rest is the muxer's import, ffmpeg's start, and the end of both processes.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.peers.daemon import Daemon, serving
from benchmarks.results import Begun, Spread, Startup
from protocol.client import Client

_PICTURE = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"
_REQUEST = '{"images": [{"url": "%s", "frames": 2}], "request_id": "%s"}'
_WAIT_S = 60.0
_SETTLED_S = 0.5  # until a worker that has just begun is known to the daemon
# A model is made, because the rest of pydantic is imported then; OpenBLAS starts no threads in a render either.
_CLIENT_FLOOR = "import zmq, pydantic; pydantic.create_model('Floor', value=(int, 1))"
_RENDER_FLOOR = (
    "import os; os.environ['OPENBLAS_NUM_THREADS'] = '1'; import numpy, cv2, pydantic; "
    "pydantic.create_model('Floor', value=(int, 1))"
)
_ENDS_AT_THE_FIRST_STILL = """
import os, sys
def hook(event, arguments):
    if event == "open" and os.fsdecode(str(arguments[0])).endswith("still.pgm"):
        os._exit(0)
sys.addaudithook(hook)
from renderer.__main__ import main
main()
"""


def measure_startup(rounds: int, say: Callable[[str], None] = lambda _: None) -> Startup:
    """Measure everything, `rounds` times after a warm-up that writes what Python compiles."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process would compile what it imports
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        (folder / "still.pgm").write_bytes(b"P5 2 2 255\n" + bytes(4))
        (folder / "reel.json").write_text(_REQUEST % (_PICTURE, "reel"))
        stillreel = [sys.executable, "-m", "renderer"]
        to_first_still = [sys.executable, "-c", _ENDS_AT_THE_FIRST_STILL, "render", "still.pgm", "-o", "out.mp4"]
        say("version and render")
        version = _commands([*stillreel, "--version"], rounds, folder)
        first_still = _commands(to_first_still, rounds, folder)
        one_still = _commands([*stillreel, "render", "still.pgm", "--hold", "24", "-o", "out.mp4"], rounds, folder)
        say("what is imported in any case")
        client_floor = _commands([sys.executable, "-c", _CLIENT_FLOOR], rounds, folder)
        render_floor = _commands([sys.executable, "-c", _RENDER_FLOOR], rounds, folder)
        with serving(folder / "asked", folder) as daemon, Client(daemon.endpoint) as client:
            client.render({"images": [{"url": _PICTURE, "frames": 2}], "request_id": "done"})
            say("status, submit, and a worker that dies")
            to = ("--connect", daemon.endpoint)
            status = _commands([*stillreel, "status", "done", *to], rounds, folder)
            submit = _commands([*stillreel, "submit", "reel.json", *to], rounds, folder)
            client.wait("reel")
            back_ms = [_worker_back_ms(daemon, client) for _ in range(rounds + 1)][1:]
            idle_back_ms = [_idle_worker_back_ms(daemon) for _ in range(rounds + 1)][1:]
        say("daemons")
        plain = [_daemon(folder / f"plain-{number}", ()) for number in range(rounds + 1)][1:]
        http = [_daemon(folder / f"http-{number}", ("--http", "127.0.0.1:0")) for number in range(rounds + 1)][1:]
    return Startup(
        version=version,
        status=status,
        submit=submit,
        first_still=first_still,
        one_still=one_still,
        client_floor=client_floor,
        render_floor=render_floor,
        daemon=_begun([each[0] for each in plain]),
        daemon_idle_bytes=Spread.of([each[1] for each in plain]),
        daemon_with_http=_begun([each[0] for each in http]),
        daemon_with_http_idle_bytes=Spread.of([each[1] for each in http]),
        worker_back_ms=Spread.of(back_ms),
        idle_worker_back_ms=Spread.of(idle_back_ms),
    )


def _begun(measured: Sequence[tuple[float, float]]) -> Begun:
    return Begun(
        cpu_s=Spread.of([cpu_s for cpu_s, _ in measured]), wall_s=Spread.of([wall_s for _, wall_s in measured])
    )


def _commands(command: Sequence[str], rounds: int, folder: Path) -> Begun:
    return _begun([_command(command, folder) for _ in range(rounds + 1)][1:])


def _command(command: Sequence[str], folder: Path) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_s


def _daemon(folder: Path, options: Sequence[str]) -> tuple[tuple[float, float], float]:
    """Return the processor and wall time of a daemon until it is ready, and its memory once its worker is there."""
    began = time.perf_counter()
    with serving(folder, folder, options=options) as daemon:
        wall_s = time.perf_counter() - began
        process = psutil.Process(daemon.pid)
        times = process.cpu_times()
        _wait(lambda: _workers(daemon))
        return (float(times.user + times.system), wall_s), float(process.memory_full_info().pss)


def _worker_back_ms(daemon: Daemon, client: Client) -> float:
    """Return the milliseconds that a job takes longer whose worker has just been killed."""
    usual_s = _job_s(client)
    for worker in _wait(lambda: _workers(daemon)):
        worker.send_signal(signal.SIGKILL)
        worker.wait(_WAIT_S)
    return (_job_s(client) - usual_s) * 1000


def _idle_worker_back_ms(daemon: Daemon) -> float:
    """Return the milliseconds from the death of a worker that has nothing to do until another is there."""
    time.sleep(_SETTLED_S)
    before = _wait(lambda: _workers(daemon))
    began = time.perf_counter()
    for worker in before:
        worker.send_signal(signal.SIGKILL)
    _wait(lambda: [worker for worker in _workers(daemon) if worker not in before])
    return (time.perf_counter() - began) * 1000


def _job_s(client: Client) -> float:
    began = time.perf_counter()
    client.render({"images": [{"url": _PICTURE, "frames": 2}]})
    return time.perf_counter() - began


def _wait(look: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    ends_at = time.monotonic() + _WAIT_S
    while time.monotonic() < ends_at:
        if found := look():
            return found
        time.sleep(0.001)
    raise TimeoutError(f"no worker within {_WAIT_S:g} s")


def _workers(daemon: Daemon) -> list[psutil.Process]:
    """Return the living children of the daemon's fork server."""
    found = []
    with suppress(psutil.Error):
        for child in psutil.Process(daemon.pid).children():
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                found += [each for each in child.children() if each.status() != psutil.STATUS_ZOMBIE]
    return found
