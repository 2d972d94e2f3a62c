"""What the GPUs of this machine do with stillreel, as one JSON document: `python scripts/gpu_check.py`.

For each GPU: does it encode, and why not; how fast page-locked and pageable frames reach it; and whether its decoder,
which is nobody's code of ours, shows every frame of our files as libavcodec does. Cards without an encoder, such as
H100, have a decoder and can judge.

For a GPU that encodes, also what nobody has told of a card yet: the parameter sets and slice headers that it writes
under our options; how near to the stills its pictures come beside libx264's at the same crf; how many distinct pictures
it codes in a second, by preset and by sessions at once; and how long a slideshow takes beside ffmpeg's own NVENC.

Every part runs in a child process with a time limit, and all of them have three minutes: a driver that crashes or is
slow costs one answer. Over the stand-in driver of the tests no speed is told, for it would be none.
"""

import argparse
import ctypes
import functools
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import gpu_engine
import numpy as np
import numpy.typing as npt
from gpu_engine import SIZES, is_standin, still

from protocol.schema import RenderRequest
from renderer.config import FetchSettings, NvencSettings, RenderSettings, RequestLimits
from renderer.encode.nvenc.probe import find
from renderer.errors import StillreelError
from renderer.intake import Origin, render_job
from renderer.pictures.cuda import CudaFailed, allocate_pinned, free_pinned, open_gpu
from renderer.pipeline import render
from renderer.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "results" / "gpu"
UPLOADED = ("1080p", "2160p")
COPIES = 200
# Holds past the sixteen that the shortest frame_num counts, and one that gets a sync sample in its middle.
HOLDS = (1, 2, 24, 17, 300, 3, 1, 48)

Frame = npt.NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the document there as well")
    parser.add_argument(
        "--keep", action="store_true", help=f"write it to {KEPT.relative_to(ROOT)} too, if there is a GPU"
    )
    parser.add_argument("--videos", choices=SIZES, default="1080p", help="size of the videos that are made and decoded")
    parser.add_argument("--seconds", type=float, default=175, help="for all parts together; what is left is not asked")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "JSON"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, told = arguments.part
        print(json.dumps(PARTS[name](**json.loads(told))))
        return
    document = check(arguments.videos, arguments.seconds)
    text = json.dumps(document, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if arguments.keep:
        if refused := keeping_refusal(document):
            sys.exit(f"not kept: {refused}")
        kept_file(document).write_text(text + "\n", encoding="utf-8")


def keeping_refusal(document: dict[str, Any]) -> str | None:
    """Say why a document tells nothing of a GPU."""
    if document["is_standin"]:
        return "this is the software stand-in of the tests, no GPU"
    return None if document["gpus"] else f"there is no GPU: {document['nvenc']}"


def kept_file(document: dict[str, Any]) -> Path:
    """Return where a document is kept: by card, size of the videos and day."""
    cards = "+".join(sorted({re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()) for gpu in document["gpus"]}))
    return KEPT / f"{cards}-{document['size']}-{document['taken'].partition('T')[0]}.json"


def check(size: str, seconds: float) -> dict[str, Any]:
    """Ask everything there is to ask, with videos of this size, each part for a third of the time at most."""
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="stillreel-") as directory:
        part = functools.partial(_part, ends=ends, limit_s=seconds / 3)
        settings = NvencSettings(cache_dir=Path(directory), keep_session_s=0)
        findings = find(settings)
        videos = {"auto": part("video", directory=directory, size=size, encoder="auto")}
        if videos["auto"].get("encoder") != "libx264":
            videos["libx264"] = part("video", directory=directory, size=size, encoder="libx264")
        told: dict[str, Any] = {"directory": directory, "size": size}
        paths = {video["encoder"]: video.pop("path") for video in videos.values() if "path" in video}
        gpus = [
            {
                **asdict(device),
                "upload": part("upload", uuid=device.uuid),
                "decode": {name: part("decode", uuid=device.uuid, video=path) for name, path in paths.items()},
                **({name: part(name, uuid=device.uuid, **told) for name in gpu_engine.PARTS} if device.limits else {}),
            }
            for device in findings.devices
        ]
        document = {
            "stillreel": VERSION,
            "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "cores": os.cpu_count(),
            "driver": findings.driver,
            "is_standin": part("standin").get("is_standin", False),
            "size": size,
            "nvenc": findings.refusal or "works",
            "videos": videos,
            "gpus": gpus,
        }
        return {**document, "summary": summary(document)}


def summary(document: dict[str, Any]) -> list[str]:
    """Say in sentences what the document says in numbers."""
    lines = [f"NVENC: {document['nvenc']}"]
    if document["is_standin"]:
        lines.append("This is the software stand-in of the tests, no GPU: nothing here tells anything of one.")
    auto = document["videos"]["auto"]
    if "encoder" in auto:
        because = f", because {auto['fallback_reason']}" if auto["fallback_reason"] else ""
        lines.append(f"auto encodes with {auto['encoder']}{because}")
    for gpu in document["gpus"]:
        for name, decoded in gpu["decode"].items():
            verdict = decoded.get("error") or ("every frame is equal" if decoded["is_equal"] else "FRAMES DIFFER")
            lines.append(f"{gpu['name']} decodes the {name} video: {verdict}")
        if "streams" in gpu:
            lines += gpu_engine.summary(gpu)
    return lines


def _part(name: str, *, ends: float, limit_s: float, **told: Any) -> dict[str, Any]:
    """Run one part in a child; whatever happens to it is an answer."""
    left_s = min(limit_s, ends - time.monotonic())
    if left_s < 1:
        return {"error": "not asked: the time of all parts was over"}
    command = [sys.executable, __file__, "--part", name, json.dumps(told)]
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": told["uuid"]} if "uuid" in told else {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=left_s, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"did not end within {left_s:.0f} s"}
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "nothing was said")
        return {"error": f"ended with exit code {done.returncode}: {last}"}


# What follows runs in children.


def standin() -> dict[str, Any]:
    return {"is_standin": is_standin()}


def video(*, directory: str, size: str, encoder: str) -> dict[str, Any]:
    """Render stills full of detail with held pictures, and look at the file."""
    output = Path(directory) / f"{encoder}.mp4"
    images = [{"url": str(still(Path(directory), size, number)), "frames": hold} for number, hold in enumerate(HOLDS)]
    request = RenderRequest.model_validate({"images": images, "fps": 24, "encoder": encoder})
    job = render_job(request, RequestLimits(), FetchSettings(), Origin(any_path=True))
    settings = RenderSettings(nvenc=NvencSettings(cache_dir=Path(directory), keep_session_s=0))
    try:
        report = render(job, output, settings)
    except StillreelError as error:
        return {"error": str(error)}
    with av.open(str(output)) as container:
        decoded = sum(1 for _ in container.decode(video=0))
    answer = {
        "path": str(output),
        "encoder": report.encoder,
        "fallback_reason": report.fallback_reason,
        "held_pictures_reason": report.encoded_reason,
        "size": size,
        "frames": report.facts.frames,
        "is_whole": decoded == report.facts.frames == sum(HOLDS),
        "size_bytes": report.facts.size_bytes,
    }
    return answer if is_standin() else {**answer, "timings_s": report.timings}


def upload(*, uuid: str) -> dict[str, Any]:
    """Copy frames to the device from both kinds of memory."""
    from cuda.bindings import driver  # noqa: PLC0415 - only where there is a driver

    if is_standin():
        return {"error": "not measured: this is the stand-in"}
    try:
        gpu = open_gpu(uuid)
        gpu.make_current()
        answer = {}
        for name in UPLOADED:
            size_bytes = math.prod(SIZES[name]) * 3 // 2
            status, target = driver.cuMemAlloc(size_bytes)
            if int(status):
                return {"error": f"cuMemAlloc: {status.name}"}
            pinned = allocate_pinned(gpu, size_bytes)
            plain = np.ones(size_bytes, np.uint8)
            for kind, source in {"pinned": pinned, "pageable": plain.ctypes.data}.items():
                seconds = _copy_time_s(functools.partial(driver.cuMemcpyHtoD, target, source, size_bytes))
                answer[f"{name}_{kind}_gib_per_s"] = round(size_bytes * COPIES / seconds / 2**30, 2)
            free_pinned(gpu, pinned)
            driver.cuMemFree(target)
    except CudaFailed as error:
        return {"error": str(error)}
    return answer


def _copy_time_s(copy: Callable[[], tuple[Any]]) -> float:
    began = time.perf_counter()
    for number in range(-COPIES // 10, COPIES):
        if number == 0:
            began = time.perf_counter()
        (status,) = copy()
        if int(status):
            raise CudaFailed(f"cuMemcpyHtoD: {status.name}")
    return time.perf_counter() - began


def decode(*, uuid: str, video: str) -> dict[str, Any]:  # noqa: ARG001 - CUDA_VISIBLE_DEVICES names the device
    """Decode a file on the GPU and hold every frame against libavcodec's."""
    import PyNvVideoCodec  # noqa: PLC0415 - only where there is a driver

    demuxer = PyNvVideoCodec.CreateDemuxer(video)
    decoder = PyNvVideoCodec.CreateDecoder(gpuid=0, codec=demuxer.GetNvCodecId(), usedevicememory=False)
    hardware = (_copied(frame) for packet in demuxer for frame in decoder.Decode(packet))
    frames, worst = 0, 0
    with av.open(video) as container:
        for frame in container.decode(video=0):
            expected = frame.to_ndarray(format="nv12")
            found = next(hardware, None)
            if found is None or found.size != expected.size:
                size = "none" if found is None else f"{found.size} bytes"
                return {"error": f"frame {frames}: expected {expected.size} bytes, found {size}"}
            worst = max(worst, int(np.abs(found.reshape(expected.shape).astype(int) - expected).max()))
            frames += 1
    left = sum(1 for _ in hardware)
    return {"frames": frames, "frames_too_many": left, "largest_difference": worst, "is_equal": not worst and not left}


def _copied(frame: Any) -> Frame:
    size_bytes = int(frame.framesize())
    memory = (ctypes.c_uint8 * size_bytes).from_address(int(frame.GetPtrToPlane(0)))
    return np.ctypeslib.as_array(memory).copy()


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "standin": standin,
    "video": video,
    "upload": upload,
    "decode": decode,
    **gpu_engine.PARTS,
}

if __name__ == "__main__":
    main()
