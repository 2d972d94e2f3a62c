"""A daemon for half an hour, with jobs through all doors and everything that goes wrong around it.

    make soak
    python -m tests.soak --minutes 5 --seed 7

Workers, encoders, the fork server and the daemon are killed, stopped and continued; as root, the disk of its data is a
small one that fills and turns read-only. In the first half the daemon is killed as well. In the second it lives on, and
what it holds at the end is compared with what it held at the half: memory, descriptors, processes. Prints a summary;
what it found makes the exit code 1.
"""

import argparse
import collections
import contextlib
import ctypes
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from protocol.client import Client
from protocol.errors import RemoteError
from tests.daemon_process import DaemonProcess, Start, request, starting, still
from tests.manifest_directory import put, tree

DISK_BYTES = 96 * 1024 * 1024
MORE_MEMORY_BYTES = 48 * 1024 * 1024  # that a daemon may take from the half to the end
MORE_DESCRIPTORS = 8
LEFT_S = 30.0  # in which a process that was just begun has come so far that it sees that its parent is gone
CLEAN_S = 120.0  # in which the daemon, which looks once a minute, has removed what a read-only disk kept
JOB_S = 180.0  # in which a job has ended, whatever happened to it meanwhile
QUEUE = "/queue/fal-ai/ffmpeg-api/images-to-video"
MAY_END_IN = {"internal_error", "storage_full", "output_write_error", "request_timeout"}
_BIND, _REMOUNT, _READ_ONLY, _DETACH = 4096, 32, 1, 2


class Disk:
    """Where the daemon keeps its data; a small one that can be troubled, if this is root."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self._libc = ctypes.CDLL(None)
        size = f"size={DISK_BYTES},mode=700".encode()
        self.is_small = self._libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, size) == 0

    @contextlib.contextmanager
    def filled(self) -> Iterator[None]:
        filler = self.directory / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        yield
        filler.unlink(missing_ok=True)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        outputs = os.fsencode(self.directory / "outputs")
        self._libc.mount(outputs, outputs, b"", _BIND, None)
        self._libc.mount(b"", outputs, b"", _REMOUNT | _BIND | _READ_ONLY, None)
        yield
        self._libc.umount2(outputs, _DETACH)

    def close(self) -> None:
        if self.is_small:
            self._libc.umount2(os.fsencode(self.directory), _DETACH)


class Soak:
    """The daemon, those who ask it for videos, and those who trouble it."""

    def __init__(self, start: Start, directory: Path, disk: Disk, dice: random.Random) -> None:
        self._start = start
        self._directory = directory
        self._disk = disk
        self._dice = dice
        self.spool = directory / "spool"
        self.counts: collections.Counter[str] = collections.Counter()
        self.found: list[str] = []
        self.daemon = self._begin("tcp://127.0.0.1:*", "127.0.0.1:0")
        self._may_ask = threading.Event()
        self._is_over = threading.Event()
        doors = [self._ask_zmq, self._ask_http, self._ask_spool]
        self._idle = [threading.Event() for _ in doors]
        self._askers = [
            threading.Thread(target=self._ask_on, args=(door, idle))
            for door, idle in zip(doors, self._idle, strict=True)
        ]

    def run(self, minutes: float) -> None:
        for asker in self._askers:
            asker.start()
        try:
            self._trouble_for(minutes * 30, [*self._troubles(), self._kill_daemon])
            before = self._calm_figures()
            self._trouble_for(minutes * 30, self._troubles())
            after = self._calm_figures()
        finally:
            self._is_over.set()
            self._may_ask.set()
            for asker in self._askers:
                asker.join()
        for name, more in zip(
            ("memory", "descriptors", "processes"), (MORE_MEMORY_BYTES, MORE_DESCRIPTORS, 0), strict=True
        ):
            print(f"{name}: {before[name]} at the half, {after[name]} at the end")
            if after[name] - before[name] > more:
                self.found.append(f"{name} grew from {before[name]} to {after[name]}")
        self._look_at_what_is_left()

    def _begin(self, bind: str, http: str) -> DaemonProcess:
        return self._start(
            *("--http", http, "--spool", self.spool), bind=bind, ENGINE__WORKERS=2, ENGINE__RETRY_PAUSE_S=0.1,
            ENGINE__MIN_FREE_BYTES=8 << 20, ENGINE__PROGRESS_TIMEOUT_S=20, RETENTION__OUTPUTS_BYTES=16 << 20,
            RETENTION__RESULTS=2000,  # the logs of six thousand jobs fill the small disk by themselves
        )  # fmt: skip

    # Asking.

    def _ask_on(self, ask: Callable[[dict[str, Any]], str], idle: threading.Event) -> None:
        dice = random.Random(self._dice.random())
        while not self._is_over.is_set():
            if not self._may_ask.is_set():
                idle.set()
                self._may_ask.wait()
                continue
            idle.clear()
            stills = [
                still((n * 9, 60, 200), frames=dice.randint(1, 40), size=(320, 240)) for n in range(dice.randint(1, 8))
            ]
            name = uuid.uuid4().hex
            asked = request(*stills, request_id=name) | {"width": 320, "height": 240}
            began = time.monotonic()
            try:
                ended = ask(asked)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
                ended = f"{ask.__name__}: {type(error).__name__}: {error}"
                self.found.append(ended)
            if time.monotonic() - began > JOB_S:
                self.found.append(f"{ask.__name__}: {name} took {time.monotonic() - began:.0f} s")
            self.counts[f"{ask.__name__.removeprefix('_ask_')}: {ended}"] += 1
            time.sleep(0 if ended == "done" else 0.5)

    def _ask_zmq(self, asked: dict[str, Any]) -> str:
        with Client(self.daemon.endpoint, timeout_s=JOB_S, connect_timeout_s=60, silence_s=3) as client:
            try:
                client.render(asked)
            except RemoteError as error:
                return self._ended_in(error.kind.name, str(error))
        return "done"

    def _ask_http(self, asked: dict[str, Any]) -> str:
        """Ask as a program does that tries again until it knows; the id makes it one job."""
        ends = time.monotonic() + JOB_S
        place = f"{QUEUE}/requests/{asked['request_id']}"
        while time.monotonic() < ends:
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=self.daemon.http, timeout=20) as http:
                if http.post(QUEUE, json=asked).status_code != 200:
                    time.sleep(0.5)
                    continue
                while http.get(f"{place}/status").json().get("status") != "COMPLETED":
                    time.sleep(0.2)
                answer = http.get(place)
                if answer.status_code == 200:
                    return "done"
                return self._ended_in(answer.headers.get("x-fal-error-type", "internal_error"), answer.text[:200])
            time.sleep(0.2)
        raise TimeoutError(asked["request_id"])

    def _ask_spool(self, asked: dict[str, Any]) -> str:
        name = asked.pop("request_id")
        put(self.spool, name, asked)
        done, failed = self.spool / "done" / name, self.spool / "failed" / name
        ends = time.monotonic() + JOB_S
        while time.monotonic() < ends:
            if (done / "result.json").exists():
                return "done" if (done / "video.mp4").exists() else "done without a video"
            if (failed / "error.json").exists():
                error = json.loads((failed / "error.json").read_text())
                return self._ended_in(str(error.get("type")), str(error)[:200])
            time.sleep(0.1)
        raise TimeoutError(name)

    def _ended_in(self, kind: str, words: str) -> str:
        if kind not in MAY_END_IN:
            self.found.append(f"a job ended in {kind}: {words}")
        return kind

    # Trouble.

    def _troubles(self) -> list[Callable[[], None]]:
        disk = [self._fill_disk, self._make_read_only] if self._disk.is_small else []
        return [self._kill_worker, self._stop_worker, self._kill_encoder, self._stop_encoder, self._stop_daemon,
                self._kill_server, *disk]  # fmt: skip

    def _trouble_for(self, seconds: float, troubles: list[Callable[[], None]]) -> None:
        self._may_ask.set()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(self._dice.uniform(0.2, 3))
            trouble = self._dice.choice(troubles)
            with contextlib.suppress(psutil.Error, IndexError):
                trouble()
                self.counts[trouble.__name__.removeprefix("_")] += 1

    def _kill_worker(self) -> None:
        self._dice.choice(self.daemon.workers()).kill()

    def _stop_worker(self) -> None:
        self._stop_for_a_while(self._dice.choice(self.daemon.workers()))

    def _kill_encoder(self) -> None:
        self._dice.choice(self.daemon.encoders()).kill()

    def _stop_encoder(self) -> None:
        self._stop_for_a_while(self._dice.choice(self.daemon.encoders()))

    def _kill_server(self) -> None:
        self._dice.choice(self.daemon.workers()).parent().kill()

    def _stop_daemon(self) -> None:
        self._stop_for_a_while(psutil.Process(self.daemon.child.pid))

    def _stop_for_a_while(self, process: psutil.Process) -> None:
        process.suspend()
        time.sleep(self._dice.uniform(0.1, 8))
        process.resume()

    def _kill_daemon(self) -> None:
        killed = self.daemon
        killed.signal(signal.SIGKILL)
        killed.child.wait()
        ends = time.monotonic() + LEFT_S
        while (left := killed.processes()) and time.monotonic() < ends:
            time.sleep(0.1)
        if left:
            self.found.append(f"a killed daemon left {left}")
        killed.close()
        self.daemon = self._begin(killed.endpoint, killed.http.removeprefix("http://"))

    def _fill_disk(self) -> None:
        with self._disk.filled():
            time.sleep(self._dice.uniform(0.5, 4))

    def _make_read_only(self) -> None:
        with self._disk.read_only():
            time.sleep(self._dice.uniform(0.5, 4))

    # Looking.

    def _calm_figures(self) -> dict[str, int]:
        """Let what was asked for end, and return what is held then."""
        self._may_ask.clear()
        for idle in self._idle:
            if not idle.wait(2 * JOB_S):
                self.found.append("a job did not end when all was calm")
        time.sleep(12)  # the daemon looks for what was left every ten seconds
        daemon = psutil.Process(self.daemon.child.pid)
        zombies = [child for child in daemon.children() if child.status() == psutil.STATUS_ZOMBIE]
        if zombies:
            self.found.append(f"nobody has waited for {zombies}")
        return {
            "memory": daemon.memory_info().rss,
            "descriptors": daemon.num_fds(),
            "processes": len(self.daemon.processes()),
        }

    def _unfinished_videos(self) -> list[str]:
        """Return what attempts have left, once the daemon has had time to remove what it could not at first."""
        ends = time.monotonic() + CLEAN_S
        while True:
            left = [name for place in (self.daemon.data_dir, self.spool) for name in tree(place) if ".attempt-" in name]
            if not left or time.monotonic() > ends:
                return left
            time.sleep(1)

    def _look_at_what_is_left(self) -> None:
        if left := list((self.daemon.data_dir / "attachments").iterdir()):
            self.found.append(f"attachments are left: {left}")
        if parts := self._unfinished_videos():
            self.found.append(f"unfinished videos are left: {parts}")
        if active := list((self.spool / "active").iterdir()):
            self.found.append(f"manifests are left in active: {active}")
        if self.daemon.stop() != 0:
            self.found.append("the daemon did not stop well")
        time.sleep(1)
        if processes := self.daemon.processes():
            self.found.append(f"processes are left: {processes}")
        for log in self._directory.glob("daemon-*.log"):
            if "Traceback" in log.read_text():
                self.found.append(f"a traceback in {log}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    disk = Disk(directory / "data")
    print(f"seed {options.seed}, logs in {directory}", "" if disk.is_small else "; not root, so the disk is left alone")
    try:
        with starting(directory) as start:
            soak = Soak(start, directory, disk, random.Random(options.seed))
            soak.run(options.minutes)
    finally:
        disk.close()
    for what, count in sorted(soak.counts.items()):
        print(f"{count:6} {what}")
    for finding in soak.found:
        print(f"FOUND {finding}")
    sys.exit(1 if soak.found else 0)


if __name__ == "__main__":
    main()
