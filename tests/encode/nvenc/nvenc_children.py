"""What the children of the NVENC tests do; the fixture `standin` runs them over the stand-in driver."""

import contextlib
import ctypes
import io
import itertools
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from protocol.schema import Preset
from renderer.cli.doctor import examine
from renderer.config import EncodeSettings, NvencSettings, Settings
from renderer.encode.h264.repeat import NeedsIdr
from renderer.encode.nvenc import probe
from renderer.encode.nvenc.encoder import NvencEncoder
from renderer.encode.nvenc.findings import with_gpus_tested
from renderer.encode.nvenc.locks import state_dir, waiting_for_a_session
from renderer.encode.nvenc.session import Opening
from renderer.encode.plan import PlannedStill, StreamPlan
from renderer.encode.selftest import refusal
from renderer.encode.sequence import HeldSequence
from renderer.encode.stream import AccessUnit, HeldCoding, StreamSettings
from renderer.errors import StillreelError
from renderer.geometry import Canvas
from renderer.pictures.cuda import CudaFailed, open_gpu
from renderer.pictures.memory import FramePool, Lease, pinned_memory

Frame = npt.NDArray[np.uint8]

_UUIDS = [f"GPU-{4 * b}-{2 * b}-{2 * b}-{2 * b}-{6 * b}" for b in ("a0", "a1")]


def counter(name: str) -> int:
    """What the stand-in has counted in this process."""
    told = ctypes.CDLL("libcuda.so.1").standin_counter
    told.restype = ctypes.c_ulonglong
    return int(told(name.encode()))


def found(**settings: Any) -> dict[str, Any]:
    """Probe; say also what that did to this process."""
    environment = dict(os.environ)
    findings = probe.find(NvencSettings(**settings))
    return {
        **asdict(findings),
        "refusal": findings.refusal,
        "candidates": [device.name for device in findings.candidates],
        "imported": [name for name in sys.modules if "PyNvVideoCodec" in name],
        "is_environment_same": environment == dict(os.environ),
        "maps_driver": "libcuda" in open("/proc/self/maps").read(),  # noqa: PTH123 - a child that ends at once
    }


def opening(**settings: Any) -> Opening:
    chosen = NvencSettings(**{"keep_session_s": 0, **settings})
    return Opening(chosen, probe.findings_here(chosen).candidates)


def open_nvenc(stream: StreamSettings, _settings: EncodeSettings) -> NvencEncoder:
    return NvencEncoder(stream, opening())


_STREAM = StreamSettings(Canvas(160, 64), Fraction(24), crf=12, preset="ultrafast", keyframe_interval=50)


def _shades(units: Sequence[AccessUnit]) -> list[int]:
    with av.open(io.BytesIO(b"".join(unit.data for unit in units)), format="h264") as container:
        return [round(float(picture.to_ndarray()[: picture.height].mean())) for picture in container.decode(video=0)]


def _frame(luma: int) -> Frame:
    return np.full(_STREAM.canvas.nv12_shape, luma, np.uint8)


def lent_frames(*, preset: Preset, frames: int, count: int) -> dict[str, Any]:
    """Encode shades from a small page-locked pool, each frame given back as soon as it is not pending."""
    told = opening()
    pool = FramePool(_STREAM.canvas.nv12_shape, frames, pinned_memory(open_gpu(told.devices[0].uuid)))
    lent: deque[Lease] = deque()
    units: list[AccessUnit] = []
    most = 0
    with NvencEncoder(replace(_STREAM, preset=preset), told) as encoder:
        for index in range(count):
            lent.append(pool.lend())
            lent[-1].frame[:] = 20 + 2 * index
            units += encoder.encode(lent[-1].frame)
            most = max(most, encoder.pending_frames)
            while len(lent) > encoder.pending_frames:
                lent.popleft().release()
        units += encoder.flush()
    for lease in lent:
        lease.release()
    pool.close()
    return {"shades": sorted(_shades(units)), "most_pending": most}


def failure(*, told: dict[str, Any] | None = None) -> dict[str, Any]:
    """Encode forty frames and return what goes wrong."""
    stage = "open"
    try:
        with NvencEncoder(_STREAM, opening(**(told or {}))) as encoder:
            stage = "encode"
            for index in range(40):
                encoder.encode(_frame(20 + index))
            stage = "flush"
            list(encoder.flush())
    except StillreelError as error:
        return {"type": type(error).__name__, "words": str(error), "stage": stage}
    return {"stage": "none"}


def streams(*, crfs: list[int], keep_session_s: float, wanted: bool = False) -> dict[str, Any]:
    """Encode one stream after the other; tell what each showed, and how many sessions the stand-in counted by then."""
    told = opening(keep_session_s=keep_session_s)
    found: list[list[int]] = []
    held = HeldCoding((True, False, False), (0.0, 0.0, 0.0))
    opened = counter("sessions_opened")
    waiting = waiting_for_a_session(state_dir(told.settings)) if wanted else contextlib.nullcontext()
    with waiting:
        for number, crf in enumerate(crfs):
            with NvencEncoder(replace(_STREAM, crf=crf, held=held), told) as encoder:
                units = [unit for luma in (40, 90, 140) for unit in encoder.encode(_frame(luma + number))]
                units += encoder.flush()
            found.append(_shades(units))
    return {"shades": found, "sessions": (counter("sessions_opened") - opened) // 2, "open": _open_sessions()}


def kept_session_goes_when_wanted() -> dict[str, Any]:
    """Keep a session for a minute, then let somebody wait for one."""
    told = opening(keep_session_s=60)
    held = HeldCoding((True,), (0.0,))
    with NvencEncoder(replace(_STREAM, held=held), told) as encoder:
        encoder.encode(_frame(50))
        list(encoder.flush())
    before = _open_sessions()
    with waiting_for_a_session(state_dir(told.settings)):
        ends = time.monotonic() + 10
        while _open_sessions() and time.monotonic() < ends:
            time.sleep(0.02)
    return {"before": before, "after": _open_sessions()}


def kept_session_goes_after_a_moment() -> dict[str, Any]:
    told = opening(keep_session_s=0.2)
    held = HeldCoding((True,), (0.0,))
    with NvencEncoder(replace(_STREAM, held=held), told) as encoder:
        encoder.encode(_frame(50))
        list(encoder.flush())
    before = _open_sessions()
    ends = time.monotonic() + 10
    while _open_sessions() and time.monotonic() < ends:
        time.sleep(0.02)
    return {"before": before, "after": _open_sessions()}


def _open_sessions() -> int:
    return counter("sessions_opened") - counter("sessions_closed")


def threads_at_once() -> list[list[int]]:
    """Let four threads encode the first picture of this process together."""
    told = opening()
    ready = threading.Barrier(4)

    def encode(number: int) -> list[int]:
        with NvencEncoder(_STREAM, told) as encoder:
            ready.wait()
            units = [unit for luma in (40, 90, 140) for unit in encoder.encode(_frame(luma + number))]
            return _shades([*units, *encoder.flush()])

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(encode, range(4)))


def held_pictures() -> str | None:
    return refusal(open_nvenc, EncodeSettings())


def environment_after_the_wheel() -> dict[str, Any]:
    before = dict(os.environ)
    failure()
    return {"same": before == dict(os.environ), "imported": "PyNvVideoCodec" in sys.modules}


def pinned_pools(*, shapes: list[list[int]]) -> dict[str, Any]:
    """Make one pool after the other over page-locked memory, and say what the stand-in counted."""
    gpu = open_gpu(_UUIDS[0], _UUIDS[:1])
    memory = pinned_memory(gpu)
    addresses: list[set[int]] = []
    pinned: list[bool] = []
    for rows, columns in shapes:
        pool = FramePool((rows, columns), 3, memory)
        leases = [pool.lend() for _ in range(3)]
        addresses.append({lease.frame.ctypes.data for lease in leases})
        for lease in leases:
            lease.frame[:] = 7
        leases[0].release()
        pool.close()
        for lease in leases:
            lease.release()
        pinned.append("PinnedMemory" in repr(pool))
    return {
        "pinned": pinned,
        "allocated": counter("pinned_allocs"),
        "same": [before == after for before, after in itertools.pairwise(addresses)],
        "distinct": [len(found) for found in addresses],
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def plain_pool_after_a_failure() -> dict[str, Any]:
    pool = FramePool((6, 8), 3, pinned_memory(open_gpu(_UUIDS[0])))
    with pool.lend() as lease:
        lease.frame[:] = 1
    return {"pinned": "PinnedMemory" in repr(pool)}


def gpu_out_of_sight(*, uuid: str) -> str:
    try:
        open_gpu(uuid)
    except CudaFailed as error:
        return str(error)
    return ""


def second_of_two() -> dict[str, Any]:
    """Open the second device of two where only it encodes."""
    gpu = open_gpu(_UUIDS[1], _UUIDS[1:])
    return {"index": gpu.index, "uuid": gpu.uuid}


def examined() -> dict[str, dict[str, Any]]:
    """What `stillreel doctor` finds, and whether it imported the wheel itself."""
    findings = {finding.what: asdict(finding) for finding in examine(Settings())}
    return {**findings, "imported": {"works": "PyNvVideoCodec" in sys.modules}}


def tested() -> list[Any]:
    settings, findings = with_gpus_tested(Settings())
    return [settings.nvenc.hold_pictures, settings.nvenc.hold_pictures_refusal, findings.refusal]


def held_streams(
    *, shapes: dict[str, dict[str, Any]], size: list[int], holds: list[int], idrs: list[bool]
) -> dict[str, list[str]]:
    """Return the coded and the held stream of every shape, in hexadecimal digits."""
    told = opening()
    found = {}
    for name, knobs in shapes.items():
        chosen = {f"STANDIN_{knob}": str(value) for knob, value in knobs.items()}
        os.environ.update(chosen)
        try:
            found[name] = _held_stream(told, Canvas(*size), holds, idrs)
        except NeedsIdr:
            found[name] = _held_stream(told, Canvas(*size), holds, [True] * len(idrs))
        for knob in chosen:
            del os.environ[knob]
    return found


def _held_stream(told: Opening, canvas: Canvas, holds: list[int], idrs: list[bool]) -> list[str]:
    plan = StreamPlan(tuple(PlannedStill(hold, is_idr) for hold, is_idr in zip(holds, idrs, strict=True)))
    stream = replace(_STREAM, canvas=canvas, held=HeldCoding(tuple(idrs), (0.0,) * len(idrs)))
    noise = np.random.default_rng(3)
    with NvencEncoder(stream, told) as encoder:
        units = []
        for _ in holds:
            frame = np.full(canvas.nv12_shape, 128, np.uint8)
            frame[: canvas.height] = noise.integers(16, 236, (canvas.height, canvas.width), np.uint8)
            units += encoder.encode(frame)
        units += encoder.flush()
    sequence = HeldSequence(plan)
    held = [sample.data for unit in units for sample in sequence.push(unit)]
    return [b"".join(parts).hex() for parts in ([unit.data for unit in units], held)]
