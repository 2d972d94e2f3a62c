"""What works on this machine and, where something does not, why: `stillreel doctor`."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av

from protocol.schema import ImageFrame, RenderRequest
from renderer.config import Settings, render_settings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.selftest import refusal
from renderer.encode.x264 import X264Encoder
from renderer.errors import ConfigError, StillreelError
from renderer.intake import Origin, render_job
from renderer.pictures.memory import FramePool
from renderer.pipeline import NO_GPU_ENCODER, render

# A grey PGM of two by two pixels: the smallest picture that goes all the way through.
_TINY_PICTURE = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        is_needed: without it nothing can be rendered.
    """

    what: str
    works: bool
    found: str
    is_needed: bool = True


def examine(settings: Settings) -> list[Finding]:
    """Try everything; a thing that fails is a finding, never an error."""
    limits, engine = settings.limits, settings.engine
    return [
        Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        _tried("ffmpeg", lambda: _ffmpeg_version(settings)),
        _tried("libx264", lambda: _render_tiny(settings)),
        _held_pictures(settings),
        Finding("nvenc", False, NO_GPU_ENCODER, is_needed=False),
        _pinned_memory(),
        Finding("muxer", True, f"PyAV {av.__version__}"),
        Finding("workers", True, f"{engine.workers} of {os.cpu_count()} cores, {engine.max_queued} jobs may wait"),
        Finding(
            "limits",
            True,
            f"{limits.max_images} images, {limits.max_frames} frames, {limits.max_duration_s:g} s, "
            f"canvas sides up to {limits.max_canvas_side}",
        ),
    ]


def _tried(what: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, attempt())
    except (StillreelError, OSError, subprocess.SubprocessError) as error:
        return Finding(what, False, str(error))


def _ffmpeg_version(settings: Settings) -> str:
    ffmpeg = find_ffmpeg(settings.encode)
    told = subprocess.run([ffmpeg, "-hide_banner", "-version"], capture_output=True, text=True, timeout=20, check=True)
    encoders = subprocess.run(
        [ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=20, check=True
    )
    if "libx264" not in encoders.stdout:
        raise ConfigError(f"{ffmpeg} has no libx264")
    return f"{' '.join(told.stdout.split()[:3])} at {ffmpeg}"


def _render_tiny(settings: Settings) -> str:
    request = RenderRequest(images=(ImageFrame(url=_TINY_PICTURE, frames=3),), fps=24)
    job = render_job(request, settings.limits, settings.fetch, Origin())
    with tempfile.TemporaryDirectory(prefix="stillreel-") as directory:
        report = render(job, Path(directory) / "tiny.mp4", render_settings(settings))
    return f"rendered {report.facts.frames} frames in {report.timings['total']:.2f} s"


def _held_pictures(settings: Settings) -> Finding:
    refused = refusal(X264Encoder, settings.encode)
    return Finding("held pictures", refused is None, refused or "decode to what they repeat", is_needed=False)


def _pinned_memory() -> Finding:
    pool = FramePool((3, 2), 1)
    try:
        found = "page-locked frames" if pool.is_pinned else "plain memory: page-locked frames come with the GPU encoder"
        return Finding("pinned memory", pool.is_pinned, found, is_needed=False)
    finally:
        pool.close()
