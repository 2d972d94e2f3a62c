"""What works on this machine, and why other things do not: `stillreel doctor`.

`python -m renderer.cli.doctor` reads settings as JSON from stdin and prints the findings as JSON. A daemon runs it,
because it does not import the libraries that are tried here (frontends/http/page.py).
"""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec

import av
import zmq

from protocol.errors import counted
from protocol.schema import ImageFrame, RenderRequest
from renderer.config import Settings, render_settings
from renderer.disk import scratch_dir
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.nvenc.findings import nvenc_refusal
from renderer.encode.nvenc.probe import find
from renderer.encode.selftest import refusal
from renderer.encode.x264 import X264Encoder
from renderer.errors import ConfigError, StillreelError
from renderer.intake import Origin, render_job
from renderer.jobs.slots import confinement
from renderer.jobs.slots.ray import joined
from renderer.jobs.slots.remote import Node, Terms
from renderer.observe.job_log import WorkerLog
from renderer.pictures.cuda import CudaFailed, open_gpu
from renderer.pictures.memory import pinned_memory
from renderer.pipeline import render
from renderer.processes import answer
from renderer.work import NvencDevice, NvencFindings

# A grey PGM of two by two pixels: the smallest picture that can be rendered.
_TINY_PICTURE = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"
# The optional dependencies by the names that pip knows, what tells that each is there, and what it is for.
_EXTRAS = (
    ("objects", "obstore", "images and videos in object storage (s3:, gs:, az:)"),
    ("ray", "ray", "jobs on the nodes of a Ray cluster (--slots ray)"),
    ("jxl", "pyjpegxl", "JPEG XL images"),
)
_HELD = "decode to what they repeat"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        is_needed: whether nothing can be rendered without it.
    """

    what: str
    works: bool
    found: str
    is_needed: bool = True


def examine(settings: Settings) -> list[Finding]:
    """Try everything; what does not work is a finding and never an error."""
    limits, engine = settings.limits, settings.engine
    findings = find(settings.nvenc)
    return [
        Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        _tried("ffmpeg", lambda: _ffmpeg_version(settings)),
        _tried("libx264", lambda: _render_tiny(settings)),
        _optional("held pictures", refusal(X264Encoder, settings.encode), _HELD),
        *_gpus(settings, findings),
        _pinned_memory(findings),
        Finding("muxer", True, f"PyAV {av.__version__}"),
        _curve(),
        _optional("no_new_privs", confinement.no_new_privs_refusal(), "workers gain no rights from programs"),
        _optional(
            "Landlock",
            confinement.refusal() if settings.engine.confine_workers else "off (engine.confine_workers)",
            "confines the files of a daemon's workers",
        ),
        *(_extra(name, package, use) for name, package, use in _EXTRAS),
        *_cluster(settings),
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
    except StillreelError as error:
        return Finding(what, False, str(error))
    except OSError as error:
        return Finding(what, False, f"{error.filename} cannot be run: {error.strerror}")
    except subprocess.TimeoutExpired as error:
        return Finding(what, False, f"it did not answer within {error.timeout:g} s")
    except subprocess.CalledProcessError as error:
        return Finding(what, False, f"it ended with {error.returncode}")


def _optional(what: str, refused: str | None, found: str) -> Finding:
    """Return a finding about something optional; `found` describes it if it works."""
    return Finding(what, refused is None, refused or found, is_needed=False)


def _curve() -> Finding:
    version = f"ZeroMQ {zmq.zmq_version()}"
    refused = None if zmq.has("curve") else f"{version}, built without CURVE: no other machine can be let in"
    return _optional("curve", refused, f"{version}, other machines may be let in with keys")


def _extra(name: str, package: str, use: str) -> Finding:
    lacking = None if find_spec(package) else f"{use}: not installed; pip install 'stillreel[{name}]'"
    return _optional(f"extra {name}", lacking, f"{use}: installed")


def _ffmpeg_version(settings: Settings) -> str:
    ffmpeg = find_ffmpeg(settings.encode)
    version = answer([ffmpeg, "-hide_banner", "-version"], timeout_s=20)
    encoders = answer([ffmpeg, "-hide_banner", "-encoders"], timeout_s=20)
    for asked in (version, encoders):
        asked.check_returncode()
    if "libx264" not in encoders.stdout:
        raise ConfigError(f"{ffmpeg} has no libx264")
    return f"{' '.join(version.stdout.split()[:3])} at {ffmpeg}"


def _render_tiny(settings: Settings) -> str:
    request = RenderRequest(images=(ImageFrame(url=_TINY_PICTURE, frames=3),), fps=24)
    job = render_job(request, settings.limits, settings.fetch, Origin())
    with scratch_dir() as directory:
        report = render(job, directory / "tiny.mp4", render_settings(settings))
    return f"rendered {report.facts.frames} frames in {report.timings['total']:.2f} s"


def _gpus(settings: Settings, findings: NvencFindings) -> list[Finding]:
    """Return one finding for the encoder, one for each GPU, and one for held pictures."""
    encoding = [device for device in findings.devices if device.limits]
    found = findings.refusal or f"{len(encoding)} of {len(findings.devices)} GPUs encode"
    driver = f"; driver {findings.driver}" if findings.driver else ""
    return [
        Finding("nvenc", not findings.refusal, found + driver, is_needed=False),
        *(
            Finding(f"gpu {index}", device.reason is None, _encodes(device), is_needed=False)
            for index, device in enumerate(findings.devices)
        ),
        *([] if findings.refusal else [_optional("nvenc held pictures", nvenc_refusal(settings.nvenc), _HELD)]),
    ]


def _cluster(settings: Settings) -> list[Finding]:
    """Return a finding for the cluster that the settings name, if they do, and one for each node with slots."""

    async def look() -> tuple[Node, ...]:
        cluster = await joined(Terms(settings.engine, WorkerLog()))
        if cluster is None:
            return ()
        await cluster.leave()
        return cluster.nodes

    if all(word == "local" for word in settings.engine.slots):
        return []
    is_needed = "local" not in settings.engine.slots
    try:
        return _nodes(asyncio.run(look()), is_needed=is_needed)
    except ConfigError as error:
        return [Finding("ray", False, str(error), is_needed)]


def _nodes(nodes: Sequence[Node], *, is_needed: bool) -> list[Finding]:
    usable = [node for node in nodes if not node.refusal]
    in_all = f"{counted(len(usable), 'node')} with {counted(sum(node.slots for node in usable), 'slot')} in all"
    return [
        Finding("ray", bool(usable), in_all if usable else "the cluster has no node with slots yet", is_needed),
        *(
            Finding(
                f"node {node.name}",
                not node.refusal,
                node.refusal or f"{counted(node.slots, 'slot')}, {node.encoder}",
                is_needed=False,
            )
            for node in sorted(nodes, key=lambda node: node.name)
        ),
    ]


def _encodes(device: NvencDevice) -> str:
    limits = device.limits
    if limits is None:
        return f"{device.reason}; {device.uuid}"
    return (
        f"{device.name} encodes from {limits.width_min}x{limits.height_min} to {limits.width_max}x{limits.height_max} "
        f"with {counted(limits.engines, 'engine')}; {device.uuid}"
    )


def _pinned_memory(findings: NvencFindings) -> Finding:
    """Try to lock memory for the first GPU that encodes; without a GPU, frames are in plain memory."""
    why_not = findings.refusal
    if why_not is None:
        encoding = [device.uuid for device in findings.candidates]
        try:
            memory = pinned_memory(open_gpu(encoding[0], encoding))
            memory.give_back(memory.take((3, 2)))
        except CudaFailed as error:
            why_not = str(error)
    return _optional("pinned memory", why_not and f"plain memory: {why_not}", "page-locked frames")


def _main() -> None:
    settings = Settings.model_validate_json(sys.stdin.read())
    sys.stdout.write("\n" + json.dumps([asdict(finding) for finding in examine(settings)]) + "\n")


if __name__ == "__main__":
    _main()
