"""What only a GPU with an NVENC engine can tell; scripts/gpu_check.py asks each part in a child process.

Nobody has told of a card's streams under stillreel's options, of their quality, or of their speed.
"""

import ctypes
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from protocol.schema import Preset, RenderRequest
from renderer.config import EncodeSettings, FetchSettings, NvencSettings, RenderSettings, RequestLimits
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.h264.bits import NalType, nal_type, split_nals, unescape
from renderer.encode.h264.syntax import ParameterSets
from renderer.encode.nvenc.encoder import NvencEncoder
from renderer.encode.nvenc.options import SessionShape, session_shape
from renderer.encode.nvenc.probe import find
from renderer.encode.nvenc.session import Opening
from renderer.encode.stream import HeldCoding, StreamSettings
from renderer.errors import StillreelError
from renderer.geometry import Canvas
from renderer.intake import Origin, render_job
from renderer.pictures.cuda import open_gpu
from renderer.pictures.memory import FramePool, pinned_memory
from renderer.pipeline import render

SIZES = {"360p": (640, 360), "1080p": (1920, 1080), "2160p": (3840, 2160)}
_TIMEOUT_S = 60
# stillreel's preset, NVENC's, and NVIDIA's own rates for it: the least and the most of the five cards of its NVENC
# Application Note (Video Codec SDK 13.0, section 4), 1080p pictures a second and engine.
PRESETS: dict[Preset, tuple[str, tuple[int, int]]] = {
    "ultrafast": ("P1", (692, 948)),
    "veryfast": ("P3", (398, 708)),
    "slow": ("P5", (264, 327)),
    "veryslow": ("P7", (207, 250)),
}
SESSIONS = (1, 2, 4)
PICTURES_OF_A_SESSION = 240
CRFS = (20, 28)
SHOWN = 10  # stills whose quality is judged, each for a second
HOLD = 24
TRIAL = "360p"  # the size of a trial, which does a small part of all this


def is_standin() -> bool:
    try:
        return hasattr(ctypes.CDLL("libcuda.so.1"), "standin_counter")
    except OSError:
        return False


def still(directory: Path, size: str, number: int) -> Path:
    path = directory / f"{number}.png"
    if not path.exists():
        coarse = np.random.default_rng(number).integers(0, 256, (68, 120, 3), np.uint8)
        Image.fromarray(coarse).resize(SIZES[size], Image.Resampling.BICUBIC).save(path, compress_level=1)
    return path


def summary(gpu: dict[str, Any]) -> list[str]:
    """Say in sentences what these parts found of a GPU."""
    told = {name: {key: one for key, one in gpu[name].items() if isinstance(one, dict)} for name in PARTS}
    lines = [
        f"{gpu['name']} writes {name}: POC type {one['poc_type']}, {one['references_in_sps']} references in the SPS, "
        f"up to {max(one['references_of_pictures'])} of a picture, IDR ids {one['idr_pic_ids']}"
        for name, one in told["streams"].items()
    ]
    for crf, videos in told["quality"].items():
        each = (f"{name} {one['ssim']:.4f} in {one['size_bytes']} bytes" for name, one in videos.items())
        lines.append(f"SSIM of the stills at crf {crf}: {', '.join(each)}")
    for preset, one in told["rates"].items():
        each = (f"{rate} with {count}" for count, rate in one.get("pictures_per_s", {}).items())
        least, most = one["nvidia"]
        lines.append(
            f"{preset}: pictures a second by sessions: {', '.join(each)}; NVIDIA's own {least} to {most} an engine"
        )
    lines += [
        f"{preset}: the slideshow takes ffmpeg's NVENC {one['ratio']} times as long as stillreel"
        for preset, one in told["slideshow"].items()
        if "ratio" in one
    ]
    return lines


def streams(*, uuid: str, directory: str, size: str) -> dict[str, Any]:  # noqa: ARG001 - the part's environment names it
    """Say what the card writes: two IDR pictures in a row, then some that are predicted."""
    devices = find(_settings(directory)).candidates
    held = HeldCoding((True, True, *(False,) * 8), (0.0,) * 10)
    stream = _stream(size, "veryfast", held)
    asked = {"held pictures": stream, "every frame coded": replace(stream, held=None)}
    shapes = {name: session_shape(each, devices) for name, each in asked.items()}
    free = tuple(option for option in shapes["held pictures"].options if option[0] != "numrefl0")
    shapes["held pictures, references left to the driver"] = replace(shapes["held pictures"], options=free)
    return {name: _written(_packets(shape, directory, held.is_idr)) for name, shape in shapes.items()}


def _packets(shape: SessionShape, directory: str, is_idr: Sequence[bool]) -> bytes:
    opening = Opening(_settings(directory), find(_settings(directory)).candidates)
    session = opening.open(shape)
    try:
        frames = [
            np.full((shape.height * 3 // 2, shape.width), 40 + 15 * number, np.uint8) for number in range(len(is_idr))
        ]
        packets = [
            packet
            for frame, forced in zip(frames, is_idr, strict=True)
            for packet in session.encode(frame, is_idr=forced)
        ]
        return b"".join(packet["data"] for packet in [*packets, *session.flush()])
    finally:
        session.close()


def _written(stream: bytes) -> dict[str, Any]:
    """Read what of a stream decides how it can be treated."""
    sets, nals = ParameterSets(), split_nals(stream)
    known = [sps for nal in nals if (sps := sets.take(nal))]
    slices = [sets.slice_header(unescape(nal)) for nal in nals if nal_type(nal) in (NalType.SLICE, NalType.IDR_SLICE)]
    sps, vui = known[0], known[0].vui
    return {
        "parameter_sets": list(dict.fromkeys(nal.hex() for nal in nals if nal_type(nal) in (NalType.SPS, NalType.PPS))),
        "nal_units": [nal_type(nal) for nal in nals],
        "level_idc": sps.level_idc,
        "poc_type": sps.order.poc_type,
        "references_in_sps": sps.max_num_ref_frames,
        "references_of_pictures": [one.num_ref_idx_active[0] for one in slices],
        "frame_nums": [one.frame_num.value for one in slices],
        "idr_pic_ids": [one.idr_pic_id.value for one in slices if one.idr_pic_id],
        "tells_colours": vui is not None and vui.colour is not None,
        "times_pictures": vui is not None and vui.needs_picture_timing,
        "num_reorder_frames": vui.num_reorder_frames if vui else None,
    }


def quality(*, uuid: str, directory: str, size: str) -> dict[str, Any]:  # noqa: ARG001
    """Hold stills of both encoders against the same stills without loss."""
    whole = _slideshow(directory, size, "lossless", encoder="libx264", crf=0)
    found: dict[str, Any] = {}
    for crf in CRFS[: 1 if size == TRIAL else None]:
        found[str(crf)] = {}
        for encoder in ("nvenc", "libx264"):
            video = _slideshow(directory, size, f"{encoder}-{crf}", encoder=encoder, crf=crf)
            found[str(crf)][encoder] = {"ssim": _ssim(video, whole), "size_bytes": video.stat().st_size}
    return found


def _slideshow(directory: str, size: str, name: str, **fields: Any) -> Path:
    stills = [str(still(Path(directory), size, number)) for number in range(_shown(size))]
    request = {"images": [{"url": still, "frames": HOLD} for still in stills], "fps": 24, **fields}
    output = Path(directory) / f"{name}.mp4"
    job = render_job(RenderRequest.model_validate(request), RequestLimits(), FetchSettings(), Origin(any_path=True))
    render(job, output, RenderSettings(nvenc=_settings(directory)))
    return output


def _ssim(video: Path, whole: Path) -> float:
    """Return ffmpeg's SSIM of one frame of each still."""
    once = f"select='not(mod(n,{HOLD}))'"
    judge = f"[0:v]{once}[a];[1:v]{once}[b];[a][b]ssim"
    command = [find_ffmpeg(EncodeSettings()), "-hide_banner", "-nostdin", "-i", str(video), "-i", str(whole)]
    done = subprocess.run([*command, "-lavfi", judge, "-f", "null", "-"], capture_output=True, text=True, check=True)
    return float(re.findall(r"All:([0-9.]+)", done.stderr)[-1])


def rates(*, uuid: str, directory: str, size: str) -> dict[str, Any]:
    """Code distinct pictures in several sessions at once, every preset, and count them."""
    return {
        PRESETS[preset][0]: {
            "nvidia": PRESETS[preset][1],
            **_told_per_s(
                {
                    count: _rate(uuid, directory, size, preset, count)
                    for count in (SESSIONS[:2] if size == TRIAL else SESSIONS)
                }
            ),
        }
        for preset in PRESETS
    }


def _told_per_s(found: dict[int, float | str]) -> dict[str, Any]:
    return {"all_coded": True} if is_standin() else {"pictures_per_s": found}


def _rate(uuid: str, directory: str, size: str, preset: Preset, count: int) -> float | str:
    opening = Opening(_settings(directory), find(_settings(directory)).candidates)
    stream, total = _stream(size, preset, None), 8 if size == TRIAL else PICTURES_OF_A_SESSION
    pool = FramePool(stream.canvas.nv12_shape, 8, pinned_memory(open_gpu(uuid)))
    leases = [pool.lend() for _ in range(8)]
    for number, lease in enumerate(leases):
        lease.frame[:] = np.random.default_rng(number).integers(40, 200, lease.frame.shape, np.uint8)
    ready = threading.Barrier(count + 1)

    def code() -> None:
        with NvencEncoder(stream, opening) as encoder:
            ready.wait(_TIMEOUT_S)
            for number in range(total):
                encoder.encode(leases[number % 8].frame)
            encoder.flush()

    try:
        with ThreadPoolExecutor(count) as threads:
            jobs = [threads.submit(code) for _ in range(count)]
            for job in jobs:
                job.add_done_callback(lambda done: ready.abort() if done.exception() else None)
            ready.wait(_TIMEOUT_S)
            began = time.perf_counter()
            for job in jobs:
                job.result()
            return round(count * total / (time.perf_counter() - began), 1)
    except (StillreelError, threading.BrokenBarrierError) as error:
        return str(error) or "not all sessions could be opened"
    finally:
        for lease in leases:
            lease.release()
        pool.close()


def slideshow(*, uuid: str, directory: str, size: str) -> dict[str, Any]:  # noqa: ARG001
    """Time one slideshow by stillreel and by ffmpeg's concat demuxer, both on the card, at every preset."""
    stills = [still(Path(directory), size, number) for number in range(_shown(size))]
    script = Path(directory) / "list.ffconcat"
    lines = [line for still in stills for line in (f"file '{still}'", "duration 1")]
    script.write_text("\n".join(["ffconcat version 1.0", *lines, ""]), encoding="utf-8")
    found = {}
    for preset, (theirs, _) in PRESETS.items():
        began = time.perf_counter()
        _slideshow(directory, size, "ours", encoder="nvenc", preset=preset)
        ours_s = time.perf_counter() - began
        command = [find_ffmpeg(EncodeSettings()), "-nostdin", "-loglevel", "error", "-y", "-f", "concat", "-safe", "0"]
        command += ["-i", str(script), "-r", "24", "-c:v", "h264_nvenc", "-preset", theirs.lower(), "-rc", "vbr"]
        command += ["-cq", "20", "-pix_fmt", "yuv420p", str(Path(directory) / "theirs.mp4")]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        theirs_s = time.perf_counter() - began
        if done.returncode:
            return {"error": f"ffmpeg's h264_nvenc: {done.stderr.strip().partition(chr(10))[0]}"}
        told = {"stillreel_s": round(ours_s, 3), "ffmpeg_s": round(theirs_s, 3), "ratio": round(theirs_s / ours_s, 2)}
        found[theirs] = {"both_encode": True} if is_standin() else told
    return found


def _shown(size: str) -> int:
    return 2 if size == TRIAL else SHOWN


def _stream(size: str, preset: Preset, held: HeldCoding | None) -> StreamSettings:
    return StreamSettings(Canvas(*SIZES[size]), Fraction(24), crf=20, preset=preset, keyframe_interval=240, held=held)


def _settings(directory: str) -> NvencSettings:
    return NvencSettings(cache_dir=Path(directory), keep_session_s=0, session_timeout_s=2)


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    "streams": streams,
    "quality": quality,
    "rates": rates,
    "slideshow": slideshow,
}
