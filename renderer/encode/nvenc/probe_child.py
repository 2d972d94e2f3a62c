"""The child process of the probe: it asks the driver and the wheel, and writes one line of JSON unless they crash it.

It is run by path and imports nothing of ours: `python -P -S probe_child.py list`, or `python -P probe_child.py encode`
with CUDA_VISIBLE_DEVICES naming one device. Each device has its own child, because PyNvVideoCodec 2.2.4 always asks
device 0 for capabilities, ends the process with exit(1) if there is no GPU, and edits LD_LIBRARY_PATH, and because a
driver that hangs must not stop the daemon. (All this was seen with the software stand-in, so it is due to the wheel.)
"""

import ctypes
import json
import sys

MARK = "answer: "  # marks our line, because libraries may write to stdout as well
_CUDA = "libcuda.so.1"
_NVENC = "libnvidia-encode.so.1"
_KERNEL_MODULE = "/sys/module/nvidia/version"  # no pathlib: every process that renders waits for the list
_OLDEST_API = 12 * 16 + 1  # the wheel's older module; Video Codec SDK 12.1
_SIDE = 256
_CAPABILITIES = {
    "width_min": "width_min",
    "width_max": "width_max",
    "height_min": "height_min",
    "height_max": "height_max",
    "engines": "num_encoder_engines",
    "most_b_pictures": "num_max_bframes",
    "counts_references": "support_multiple_ref_frames",
}


def devices() -> dict[str, object]:
    """List the GPUs that this process may use, or say why there are none."""
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError:
        return {"reason": f"there is no NVIDIA driver: {_CUDA} is not found"}
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    found: dict[str, object] = {"driver": _driver_version(version.value), "devices": []}
    code = cuda.cuInit(0)
    if code:
        return {**found, "reason": f"the NVIDIA driver finds no usable GPU: {_cuda_error(cuda, code)}"}
    if refused := _api_refusal():
        return {**found, "reason": refused}
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    found["devices"] = [_device(cuda, index) for index in range(count.value)]
    return found


def _driver_version(cuda_version: int) -> str:
    cuda = f"CUDA {cuda_version // 1000}.{cuda_version % 1000 // 10}"
    try:
        with open(_KERNEL_MODULE, encoding="ascii") as version:  # noqa: PTH123 - as above
            return f"{version.read().strip()}, {cuda}"
    except OSError:
        return cuda


def _cuda_error(cuda: ctypes.CDLL, code: int) -> str:
    name = ctypes.c_char_p()
    cuda.cuGetErrorName(code, ctypes.byref(name))
    return f"{name.value.decode()} ({code})" if name.value else f"error {code}"


def _api_refusal() -> str | None:
    try:
        nvenc = ctypes.CDLL(_NVENC)
    except OSError:
        return f"{_NVENC} is not found; in a container, NVIDIA_DRIVER_CAPABILITIES must name video"
    version = ctypes.c_uint32()
    nvenc.NvEncodeAPIGetMaxSupportedVersion(ctypes.byref(version))
    if version.value >= _OLDEST_API:
        return None
    found = f"{version.value >> 4}.{version.value & 15}"
    return f"the NVIDIA driver is too old: expected NVENC API 12.1 or newer, found {found}"


def _device(cuda: ctypes.CDLL, index: int) -> dict[str, str]:
    name, uuid = ctypes.create_string_buffer(96), ctypes.create_string_buffer(16)
    cuda.cuDeviceGetName(name, len(name), index)
    cuda.cuDeviceGetUuid(uuid, index)
    text = uuid.raw.hex()
    parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
    return {"name": name.value.decode(errors="replace"), "uuid": "GPU-" + "-".join(parts)}


def encoded() -> dict[str, object]:
    """Encode one small picture on the only device in sight; return it with the device's limits, or the error."""
    import re  # noqa: PLC0415 - the list needs none of them

    import numpy as np  # noqa: PLC0415 - as above
    import PyNvVideoCodec  # noqa: PLC0415 - as above

    try:
        found = PyNvVideoCodec.GetEncoderCaps(0, "h264")
        limits = {name: int(found[theirs]) for name, theirs in _CAPABILITIES.items()}
        width, height = (max(_SIDE, limits[side] + limits[side] % 2) for side in ("width_min", "height_min"))
        encoder = PyNvVideoCodec.CreateEncoder(width, height, "NV12", True, codec="h264", preset="P1", bf=0)
        packets = encoder.Encode(np.full((height * 3 // 2, width), 128, np.uint8), int(PyNvVideoCodec.FORCEIDR))
        packets += encoder.EndEncode()
    except (PyNvVideoCodec.PyNvVCException, PyNvVideoCodec.PyNvVCExceptionUnsupported) as error:
        _destroy_lost_context()
        code = re.search(r"Error code : (\d+)", str(error))
        return {"code": int(code[1]) if code else None, "words": str(error)}
    return {"limits": limits, "stream": b"".join(packet["data"] for packet in packets).hex()}


def _destroy_lost_context() -> None:
    """Destroy the context that the wheel makes to ask for capabilities, and leaves current if it is refused."""
    cuda, context = ctypes.CDLL(_CUDA), ctypes.c_void_p()
    cuda.cuCtxGetCurrent(ctypes.byref(context))
    if context:
        cuda.cuCtxDestroy_v2(context)


if __name__ == "__main__":
    answer = devices() if sys.argv[1:] == ["list"] else encoded()
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
