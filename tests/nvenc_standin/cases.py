"""What the children of test_standin.py do: the wheel alone, with nothing of ours between it and the stand-in."""

import ctypes
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import PyNvVideoCodec as codec  # noqa: N813 - its own documentation calls it so

from renderer.encode.h264.bits import NalType, nal_type, split_nals
from renderer.encode.h264.parameter_sets import parse_sps

Frame = npt.NDArray[np.uint8]
Packet = dict[str, Any]

WIDTH, HEIGHT = 320, 240


def encoder(**options: object) -> Any:
    options |= {"cudacontext": _primary_context(), "cudastream": 0}
    low = {"preset": "P4", "tuning_info": "low_latency", "bf": 0, "gop": 250, "rc": "constqp", "constqp": "18,18,18"}
    try:
        return codec.CreateEncoder(WIDTH, HEIGHT, "NV12", True, codec="h264", **{**low, **options})
    except codec.PyNvVCException:
        _destroy_lost_context()
        raise


def _destroy_lost_context() -> None:
    """Give back the context that the wheel makes to ask for capabilities, and leaves current where it is refused."""
    lib, current = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert not lib.cuCtxGetCurrent(ctypes.byref(current))
    if current.value != _primary_context():
        assert not lib.cuCtxDestroy_v2(current)


@functools.cache
def _primary_context() -> int:
    lib, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
    assert not lib.cuInit(0)
    assert not lib.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
    assert not lib.cuCtxPushCurrent_v2(context)
    assert context.value
    return context.value


def frames(count: int) -> Iterator[Frame]:
    """Grey frames, each of another shade."""
    for index in range(count):
        yield np.full((HEIGHT * 3 // 2, WIDTH), 40 + 7 * index, np.uint8)


def encode(encoder: Any, frames: Iterable[Frame], idrs: Sequence[int] = ()) -> list[Packet]:
    packets = []
    for index, frame in enumerate(frames):
        packets += encoder.Encode(frame, int(codec.FORCEIDR) if index in idrs else 0)
    return [*packets, *encoder.EndEncode()]


def shades(packets: Iterable[Packet]) -> list[int]:
    decoder = av.CodecContext.create("h264", "r")
    pictures = [picture for packet in packets for picture in decoder.decode(av.Packet(packet["data"]))]
    pictures += decoder.decode(None)
    return [round(float(picture.to_ndarray()[:HEIGHT].mean())) for picture in pictures]


def sixty_pictures() -> dict[str, Any]:
    variant = re.search(r"PyNvVideoCodec_(\d+)\.", Path("/proc/self/maps").read_text())
    packets = encode(encoder(), frames(20), idrs=[8])
    sps = parse_sps(next(nal for nal in split_nals(packets[0]["data"]) if nal_type(nal) == NalType.SPS))
    return {
        "variant": variant and variant[1],
        "types": "".join("PBIK"[packet["picture_type"]] for packet in packets),
        "stamps": [packet["timestamp"] for packet in packets],
        "shades": shades(packets),
        "poc_type": sps.order.poc_type,
        "references": sps.max_num_ref_frames,
    }


def error_text(*, kept: int = 0) -> str:
    """Open encoders, keep so many, and return what the first failure says."""
    held = []
    try:
        for _ in range(kept + 1):
            held.append(encoder())  # noqa: PERF401 - those before the failure are kept
        encode(held[-1], frames(12))
    except codec.PyNvVCException as error:
        return str(error)
    return ""


def pinned(*, buffers: int) -> list[int]:
    """Encode twenty shades from so many pinned buffers in turn, and return what came out."""
    _primary_context()
    lib = ctypes.CDLL("libcuda.so.1")
    ring, addresses = [], []
    for _ in range(buffers):
        address = ctypes.c_void_p()
        assert not lib.cuMemHostAlloc(ctypes.byref(address), ctypes.c_size_t(WIDTH * HEIGHT * 3 // 2), 1)
        memory = (ctypes.c_uint8 * (WIDTH * HEIGHT * 3 // 2)).from_address(address.value or 0)
        ring.append(np.frombuffer(memory, np.uint8).reshape(-1, WIDTH))
        addresses.append(address)
    engine, packets = encoder(), []
    for index, frame in enumerate(frames(20)):
        ring[index % buffers][:] = frame
        packets += engine.Encode(ring[index % buffers])
    packets += engine.EndEncode()
    for address in addresses:
        lib.cuMemFreeHost(address)
    return shades(packets)


def stream(
    *, frames: int, size: Sequence[int] = (320, 240), fps: str = "25", idrs: Sequence[int] = (), **options: str
) -> str:
    """Return a stream of grey pictures, in hexadecimal digits."""
    width, height = size
    told = {"preset": "P4", "tuning_info": "high_quality", "bf": "0", "gop": "-1", "rc": "constqp", **options}
    context = {"cudacontext": _primary_context(), "cudastream": 0}
    engine = codec.CreateEncoder(width, height, "NV12", True, codec="h264", fps=fps, **context, **told)
    pictures = (np.full((height * 3 // 2, width), 40 + 7 * number % 150, np.uint8) for number in range(frames))
    return b"".join(packet["data"] for packet in encode(engine, pictures, idrs)).hex()
