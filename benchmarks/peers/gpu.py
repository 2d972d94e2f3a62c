"""stillreel with NVENC, and whether this machine has an encoder of which a speed may be told.

The stand-in driver of the tests encodes with libx264 behind NVENC's calls. A time taken over it would pass for a GPU's
and be none, so every peer that uses NVENC is left out there.
"""

import ctypes
import functools
import json
import sys

from benchmarks.peers.base import Task
from renderer.config import NvencSettings
from renderer.encode.nvenc.probe import findings_here

STANDIN = "this is the software stand-in of the tests, no GPU: there is no speed to tell"


# stillreel's presets and the names that NVENC has for what they become (renderer/encode/nvenc/options.py).
PRESETS = {"ultrafast": "p1", "veryfast": "p3", "slow": "p5", "veryslow": "p7"}


def render_nvenc(task: Task, preset: str) -> list[str]:
    """Render with `encoder` set to nvenc, which fails sooner than it falls back."""
    manifest = task.folder / "nvenc.json"
    asked = {**task.work.request(), "encoder": "nvenc", "preset": preset}
    manifest.write_text(json.dumps(asked), encoding="utf-8")
    return [sys.executable, "-m", "renderer", "render", str(manifest), "-o", str(task.output), "--json"]


def no_gpu(_: Task) -> str | None:
    """Say why no GPU of this machine encodes, as `stillreel doctor` does."""
    return refusal()


def refusal() -> str | None:
    """Say why NVENC cannot be timed here; None where it can."""
    return STANDIN if is_standin() else findings_here(NvencSettings()).refusal


def encoding_gpus() -> tuple[str, ...]:
    """Name the GPUs that encode, each with its driver; none over the stand-in."""
    if refusal() is not None:
        return ()
    findings = findings_here(NvencSettings())
    return tuple(f"{device.name}, driver {findings.driver}" for device in findings.candidates)


@functools.cache
def is_standin() -> bool:
    """Tell the stand-in by a function that no driver of NVIDIA's has."""
    try:
        return hasattr(ctypes.CDLL("libcuda.so.1"), "standin_counter")
    except OSError:
        return False
