"""What a peer is: a command line for a task, and nothing that only this harness could do."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

from benchmarks.workloads import Workload

MANIFEST, OUTPUT = "work.json", "out.mp4"


@dataclass(frozen=True, slots=True)
class Task:
    """One workload laid out in a folder for one peer.

    Attributes:
        endpoint: of a running daemon, for the peer that asks one; else empty.
    """

    work: Workload
    folder: Path
    ffmpeg: str
    endpoint: str = ""

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to do the work.

    Attributes:
        command: builds the argument list; what it needs beside the manifest it may write into the task's folder, which
            is not timed.
        why_not: says why this peer cannot do the work; None if it can.
        is_floor: encodes each still once, so its video has one frame per still; not a peer but the least there is.
        needs_daemon: the runner starts one for it beforehand.
    """

    name: str
    title: str
    command: Callable[[Task], list[str]]
    why_not: Callable[[Task], str | None] = lambda _: None
    is_floor: bool = False
    needs_daemon: bool = False

    def frames(self, work: Workload) -> int:
        """Return how many frames its video should have."""
        return len(work.holds) if self.is_floor else work.frames


def lay_out(work: Workload, folder: Path, endpoint: str = "") -> Task:
    """Write the manifest into the folder and return the task."""
    task = Task(work, folder, str(imageio_ffmpeg.get_ffmpeg_exe()), endpoint)
    folder.mkdir(parents=True, exist_ok=True)
    task.manifest.write_text(json.dumps(work.request()), encoding="utf-8")
    return task


def script(module: str) -> Callable[[Task], list[str]]:
    """Return the command of a peer that is a Python program: `python -m benchmarks.peers.MODULE MANIFEST OUTPUT`."""
    return lambda task: [sys.executable, "-m", f"benchmarks.peers.{module}", str(task.manifest), str(task.output)]
