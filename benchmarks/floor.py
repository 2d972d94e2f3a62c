"""How near `stillreel render` is to the least that a program of its parts can take (`benchmarks.peers.bare`)."""

import json
import math
from pathlib import Path

from benchmarks.peers.base import Task
from benchmarks.workloads import Workload
from protocol.schema import RenderParams
from renderer.config import EncodeSettings, FetchSettings, RequestLimits
from renderer.encode.ffmpeg import arguments
from renderer.encode.plan import as_montage, held_coding, plan_stream
from renderer.encode.stream import StreamSettings
from renderer.geometry import Canvas, Size
from renderer.intake import Origin, render_job
from renderer.pictures.compose import Framing, needed_size

FLOOR_WORKS = ("24x24-1080p", "24x240-1080p", "png", "120x1-1080p", "large")
"""The works of README.md whose stills are photographs of one size."""


def lay_out_bare(task: Task) -> Path:
    """Write into the task's folder what the bare program needs to know, and return the file."""
    work = task.work
    file = task.folder / "bare.json"
    told = {
        "command": [*arguments(task.ffmpeg, _stream(work), EncodeSettings().threads)[:-3], *_as_mp4(task.output)],
        "stills": [str(still) for still in work.stills()],
        "size": work.size,
        "reduction": _reduction(work),
    }
    file.write_text(json.dumps(told), encoding="utf-8")
    return file


def _as_mp4(output: Path) -> list[str]:
    return ["-f", "mp4", "-movflags", "+faststart", "-y", str(output)]


def _stream(work: Workload) -> StreamSettings:
    """Return the stream that our encoder is given: photographs one after another are a montage."""
    params = RenderParams.model_validate(work.request())
    timeline = render_job(params, RequestLimits(), FetchSettings(), Origin(any_path=True)).timeline
    interval = math.floor(params.max_keyframe_interval * timeline.fps)
    plan = plan_stream(timeline, list(range(len(work.holds))), interval, params.preset)
    held = held_coding([still for still in plan.stills if still.copy_of is None]) if plan.is_held else None
    if held is not None and held.holds:
        held = as_montage(held)
    return StreamSettings(Canvas(*work.size), timeline.fps, params.crf, params.preset, interval, held)


def _reduction(work: Workload) -> int:
    """Return the scale at which we read the stills."""
    width, height = work.source or work.size
    least = needed_size(Framing(Canvas(*work.size)))(Size(width, height))
    return next(by for by in (4, 2, 1) if width // by >= least.width and height // by >= least.height)
