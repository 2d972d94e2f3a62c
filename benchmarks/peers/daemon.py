"""stillreel's daemon: `serving` runs one, and as a program this module asks it over ZeroMQ for the manifest's video.

The client is what is timed; the daemon has been started beforehand, as it would be. The finished file is linked to
where the harness looks for it.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from benchmarks.peers.base import Task
from benchmarks.peers.script import Unavailable

_READY_S = 30


@dataclass(frozen=True, slots=True)
class Daemon:
    """A daemon that runs.

    Attributes:
        http: where it answers HTTP, if it was asked to.
        local: its endpoint that never asks for keys, if it was asked for one.
    """

    endpoint: str
    pid: int
    http: str | None = None
    local: str | None = None


def command(task: Task) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers.daemon", task.endpoint, str(task.manifest), str(task.output)]


@contextlib.contextmanager
def serving(folder: Path, root: Path, prefix: Sequence[str] = (), options: Sequence[str] = ()) -> Iterator[Daemon]:
    """Run a daemon that may read below `root`.

    Args:
        prefix: what the command line begins with, such as taskset.
        options: more of `serve`'s.

    Raises:
        Unavailable: it did not start; the message has its last words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    serve = [*prefix, sys.executable, "-m", "renderer", "serve", "--bind", "tcp://127.0.0.1:*"]
    serve += ["--data-dir", str(folder / "data"), "--allow-root", str(root), *options]
    environment = {"STILLREEL_RETENTION__STILLS_BYTES": "0", **os.environ}  # or it would code stills in one round only
    with (folder / "daemon.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(serve, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment)
        try:
            endpoint, *more = _addresses(process, folder / "daemon.log")
            http, local = (next((each for each in more if each.startswith(kind)), None) for kind in ("http:", "tcp:"))
            yield Daemon(endpoint, process.pid, http, local)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_READY_S)
            process.kill()
            process.wait()


def _addresses(process: "subprocess.Popen[bytes]", log: Path) -> list[str]:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        ready = [line for line in log.read_text(encoding="utf-8").splitlines() if " ready on " in line]
        if ready:
            return ready[0].split(" ready on ")[1].split(", ")
        time.sleep(0.02)
    raise Unavailable(f"the daemon did not start: {log.read_text(encoding='utf-8')[-500:]}")


def main() -> None:
    from protocol.client import Client  # noqa: PLC0415 - only the child that calls needs it

    endpoint, manifest, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    request = json.loads(manifest.read_text(encoding="utf-8"))
    with Client(endpoint) as client:
        client.health()  # connected, so that what follows is the round trip of a job and nothing else
        began = time.perf_counter()
        result = client.render(request)
        inside_s = time.perf_counter() - began
    made = Path(unquote(urlsplit(result.video.url).path))
    try:
        os.link(made, output)
    except OSError:
        shutil.copyfile(made, output)
    print(json.dumps({"inside_s": inside_s, "timings": result.timings}))


if __name__ == "__main__":
    main()
