"""The CUDA driver in this process: devices by UUID, their primary contexts, and page-locked memory.

It is called through cuda-bindings, which uses libcuda.so.1 and needs no toolkit. Everything is opened once, at first
use: a process that renders with libx264 never calls the driver. Nothing here may run before a fork, because CUDA does
not survive one.

The first initialisation sees only the devices that encode. PyNvVideoCodec 2.2.4 always asks device 0 for capabilities,
so on a machine whose first card has no encoder it would refuse the second card as well.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any, Final

_PORTABLE: Final = 1  # CU_MEMHOSTALLOC_PORTABLE: page-locked for every context
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_opening = threading.Lock()


class CudaFailed(Exception):
    """The driver refused; the message names its error."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A device of this process, with its primary context retained.

    Attributes:
        index: its number in this process, which need not be its number elsewhere.
        context: the CUcontext as a number.
    """

    uuid: str
    index: int
    context: int

    def make_current(self) -> None:
        """Direct the next calls of this thread to this device."""
        _call("cuCtxSetCurrent", _driver().CUcontext(self.context))

    def synchronize(self) -> None:
        """Wait until this device has finished all work that it was given."""
        self.make_current()
        _call("cuCtxSynchronize")


def open_gpu(uuid: str, encoding: Sequence[str] = ()) -> Gpu:
    """Return a device.

    Args:
        uuid: the device's UUID, in the form that `renderer.work` uses.
        encoding: the devices that encode; others are hidden from this process if nobody has initialised CUDA in it yet.

    Raises:
        CudaFailed: there is no driver, it refuses, or this process cannot see the device.
    """
    with _opening:
        return _open_gpu(uuid, tuple(encoding))


def allocate_pinned(gpu: Gpu, size_bytes: int) -> int:
    """Return the address of page-locked memory; `free_pinned` gives it back."""
    gpu.make_current()
    return int(_call("cuMemHostAlloc", size_bytes, _PORTABLE))


def free_pinned(gpu: Gpu, address: int) -> None:
    gpu.make_current()
    _call("cuMemFreeHost", address)


@contextlib.contextmanager
def no_context_lost(gpu: Gpu) -> Iterator[None]:
    """Destroy the contexts that a failing block leaves current.

    The wheel makes a context to ask for capabilities and, where it is refused, leaves it: some hundred megabytes of
    device memory for every attempt.
    """
    gpu.make_current()
    try:
        yield
    except BaseException:
        while (current := int(_call("cuCtxGetCurrent"))) not in (0, gpu.context):
            _call("cuCtxDestroy", _driver().CUcontext(current))
        raise


@functools.cache
def _open_gpu(uuid: str, encoding: tuple[str, ...]) -> Gpu:
    _initialize(encoding)
    for index in range(int(_call("cuDeviceGetCount"))):
        device = _call("cuDeviceGet", index)
        if _uuid_text(bytes(_call("cuDeviceGetUuid", device).bytes)) == uuid:
            gpu = Gpu(uuid, index, int(_call("cuDevicePrimaryCtxRetain", device)))
            Finalize(None, _release, (device,), exitpriority=10)  # after everything that uses the context
            return gpu
    raise CudaFailed(f"{uuid} is not visible to this process")


def _release(device: Any) -> None:
    with contextlib.suppress(CudaFailed):
        _call("cuDevicePrimaryCtxRelease", device)


def _initialize(encoding: tuple[str, ...]) -> None:
    before = os.environ.get(_VISIBLE)
    if encoding:
        os.environ[_VISIBLE] = ",".join(encoding)
    try:
        _call("cuInit", 0)
    finally:
        if before is None:
            os.environ.pop(_VISIBLE, None)
        else:
            os.environ[_VISIBLE] = before


def _uuid_text(raw: bytes) -> str:
    text = raw.hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@functools.cache
def _driver() -> Any:
    try:
        from cuda.bindings import driver  # noqa: PLC0415 - needs a tenth of a second, and not every machine has it
    except ImportError as error:
        raise CudaFailed(f"cuda-bindings cannot be imported: {error}") from error
    return driver


def _call(name: str, *arguments: object) -> Any:
    """Call the driver and return its result, if it has one.

    Raises:
        CudaFailed: the driver refused; the message has the name of its error.
    """
    try:
        status, *results = getattr(_driver(), name)(*arguments)
    except RuntimeError as error:  # cuda-bindings raises this if libcuda.so.1, or a function in it, is not found
        raise CudaFailed(f"{name}: {error}") from error
    if int(status):
        raise CudaFailed(f"{name}: {status.name} ({int(status)})")
    return results[0] if results else None
