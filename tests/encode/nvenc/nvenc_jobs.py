"""Whole jobs in children over the stand-in driver."""

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from protocol.schema import RenderRequest
from renderer.config import FetchSettings, NvencSettings, RenderSettings, RequestLimits
from renderer.encode.nvenc.locks import Seats, state_dir
from renderer.encode.nvenc.probe import findings_here
from renderer.errors import StillreelError
from renderer.intake import Origin, render_job
from renderer.pipeline import render
from renderer.work import RenderJob
from tests.encode.nvenc.nvenc_children import counter

Still = tuple[int, int]  # shade and hold


def request_of(stills: Sequence[Still], directory: Path, **fields: Any) -> RenderRequest:
    images = []
    for number, (shade, hold) in enumerate(stills):
        path = directory / f"{number}-{shade}.png"
        Image.new("L", (192, 128), shade).save(path)
        images.append({"url": str(path), "frames": hold})
    return RenderRequest.model_validate({"images": images, "fps": 24, **fields})


def job_of(request: RenderRequest) -> RenderJob:
    return render_job(request, RequestLimits(), FetchSettings(), Origin(any_path=True))


def rendered(
    *, directory: str, stills: list[Still], nvenc: dict[str, Any] | None = None, name: str = "video", **fields: Any
) -> dict[str, Any]:
    """Render a job and tell all that can be seen of it."""
    output = Path(directory) / f"{name}.mp4"
    settings = RenderSettings(nvenc=NvencSettings(**(nvenc or {})))
    try:
        report = render(job_of(request_of(stills, Path(directory), **fields)), output, settings)
    except StillreelError as error:
        return {
            "error": type(error).__name__,
            "words": str(error),
            "left": sorted(p.name for p in output.parent.glob("*video*")),
        }
    return {
        "encoder": report.encoder,
        "reason": report.fallback_reason,
        "encoded_reason": report.encoded_reason,
        **seen(output),
        "pageable": counter("h2d_pageable_bytes"),
        "pinned": counter("h2d_pinned_bytes"),
        "pinned_allocs": counter("pinned_allocs"),
        "sessions": counter("sessions_opened"),
    }


def psnr_between_encoders(*, directory: str, holds: list[int], crfs: list[int]) -> list[dict[str, Any]]:
    """Render pictures full of detail with both encoders; return the worst PSNR between equal frames, in dB, by CRF."""
    noise = np.random.default_rng(5)
    images = []
    for number, hold in enumerate(holds):
        path = Path(directory) / f"detail-{number}.png"
        coarse = noise.integers(0, 256, (24, 36, 3), np.uint8)
        Image.fromarray(coarse).resize((288, 192), Image.Resampling.BICUBIC).save(path)
        images.append({"url": str(path), "frames": hold})
    return [_psnr(Path(directory), {"images": images, "fps": 24, "crf": crf}) for crf in crfs]


def _psnr(directory: Path, asked: dict[str, Any]) -> dict[str, Any]:
    frames = {}
    for encoder in ("nvenc", "libx264"):
        request = RenderRequest.model_validate({**asked, "encoder": encoder})
        report = render(job_of(request), directory / f"{encoder}.mp4")
        assert report.encoder == encoder
        with av.open(str(directory / f"{encoder}.mp4")) as container:
            frames[encoder] = [frame.to_ndarray().astype(float) for frame in container.decode(video=0)]
    errors = [float(np.mean((a - b) ** 2)) for a, b in zip(frames["nvenc"], frames["libx264"], strict=True)]
    return {"frames": len(errors), "worst_db": round(10 * np.log10(255**2 / max(*errors, 1e-9)), 1)}


def recovered_second(*, directory: str, stills: list[Still]) -> list[Any]:
    """Render while the second device is left alone, then while it is back and the first one is busy."""
    settings = NvencSettings(keep_session_s=0)
    first, second = findings_here(settings).candidates
    failed = state_dir(settings) / f"{second.uuid}.failed"
    failed.write_text(json.dumps({"at_s": time.time(), "failures": 1, "reason": "it failed"}))
    found = [rendered(directory=directory, stills=stills, nvenc={"keep_session_s": 0})]
    failed.unlink()
    held = Seats(state_dir(settings)).take([first.uuid], 0)
    found.append(rendered(directory=directory, stills=stills, nvenc={"keep_session_s": 0}))
    held.release()
    return [[one["encoder"], one["reason"]] for one in found]


def withheld(*, directory: str, stills: list[Still]) -> list[dict[str, Any]]:
    """Render while the driver refuses, after it does no more, and once again."""
    asked = {"directory": directory, "stills": stills}
    found = [rendered(**asked, nvenc={"retry_after_s": 3600, "keep_session_s": 0})]
    del os.environ["STANDIN_NO_ENCODER"]
    nvenc = {"retry_after_s": 1e-6, "keep_session_s": 0}
    return found + [rendered(**asked, nvenc=nvenc, name=f"video-{number}") for number in range(2)]


def stuck(*, directory: str, stills: list[Still], nvenc: dict[str, Any]) -> None:
    """Begin a job whose device never returns, until the device is left alone; then end as a killed worker does."""
    threading.Thread(
        target=rendered, kwargs={"directory": directory, "stills": stills, "nvenc": nvenc}, daemon=True
    ).start()
    state = state_dir(NvencSettings(**nvenc))
    ends = time.monotonic() + 20
    while not list(state.glob("*.failed")) and time.monotonic() < ends:
        time.sleep(0.05)
    print("null", flush=True)  # noqa: T201 - how the answer gets back
    os._exit(0)


def several(
    *, directory: str, jobs: list[list[Still]], nvenc: dict[str, Any] | None = None, **fields: Any
) -> list[dict[str, Any]]:
    return [
        rendered(directory=directory, stills=stills, nvenc=nvenc, name=f"video-{number}", **fields)
        for number, stills in enumerate(jobs)
    ]


def rendered_by(*, directory: str, encoders: list[str], **told: Any) -> list[dict[str, Any]]:
    return [rendered(directory=directory, name=f"{name}-video", encoder=name, **told) for name in encoders]


def seen(video: Path) -> dict[str, Any]:
    """Look at a file with other eyes than ours."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        context = stream.codec_context
        rate = str(stream.average_rate)
        level = context.extradata[3]  # AVCLevelIndication (ISO/IEC 14496-15, 5.3.3.1.2)
        tags = [context.color_primaries, context.color_trc, context.colorspace, context.color_range]
    with av.open(str(video)) as container:
        shades = [round(float(frame.to_ndarray()[: frame.height].mean())) for frame in container.decode(video=0)]
    return {
        "shades": shades,
        "times": [str(packet.pts * packet.time_base) for packet in packets],
        "sync": [number for number, packet in enumerate(packets) if packet.is_keyframe],
        "tags": [int(tag) for tag in tags],
        "size": [context.width, context.height],
        "rate": rate,
        "level": level,
    }
