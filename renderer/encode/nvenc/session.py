"""One open encode session of a GPU: the wheel's encoder, the seat that it occupies, and the rules for both.

- PyNvVideoCodec is imported at first use, and never in the daemon's own process. It edits LD_LIBRARY_PATH, which ffmpeg
  must not inherit, so the environment is restored.
- The very first Encode of a process must not overlap another one, since the wheel would deadlock. A lock prevents it.
- Opening takes two sessions, one after the other. If none is left, the driver returns 21, or 10 if it is old: then the
  process has to wait, but the card is not broken.
- A session that has finished a stream begins the next one with an IDR; FFmpeg's nvenc also goes on after an end of
  stream (libavcodec/nvenc.c, AV_CODEC_CAP_ENCODER_FLUSH).

A call into the driver that does not return is noticed, although nothing in this process can end it. The failure is
recorded for other processes, so that they do not use the device: when the job's time is up and its process is killed,
the next attempt uses another encoder.
"""

import contextlib
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from renderer.config import NvencSettings
from renderer.encode.base import Nv12Frame
from renderer.encode.nvenc.errors import ALL_SESSIONS_TAKEN, code_name, error_code
from renderer.encode.nvenc.locks import Seat, Seats, state_dir, waiting_for_a_session
from renderer.encode.nvenc.options import SessionShape
from renderer.errors import DeviceFailed, SessionsBusy
from renderer.pictures.cuda import CudaFailed, Gpu, no_context_lost, open_gpu
from renderer.work import NvencDevice

log = logging.getLogger(__name__)


_LOOKS = 4  # how often the watch looks within the limit


class StallWatch:
    """Calls back once if a block takes too long; a separate thread watches, from the first block to `close`.

    It counts its own checks and not the time, because the device is not to blame if the process was stopped for a while
    or the machine slept.
    """

    def __init__(self, limit_s: float, on_stall: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._block: object | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one block; only one block may run at a time."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)
            self._thread.start()
        self._block = object()
        try:
            yield
        finally:
            self._block = None

    def close(self) -> None:
        """Stop watching; harmless when repeated."""
        self._closed.set()

    def _watch(self) -> None:
        seen, looks = None, 0
        while not self._closed.wait(self._limit_s / _LOOKS):
            block = self._block
            looks = looks + 1 if block is seen else 0
            seen = block
            if block is not None and looks >= _LOOKS:
                self._on_stall()
                return


_FORCE_IDR: Final = 2  # NV_ENC_PIC_FLAG_FORCEIDR
_FIRST_PAUSE_S: Final = 0.25
_opening = threading.Lock()
_first_encode = threading.Lock()
_has_encoded = threading.Event()

Packet = dict[str, Any]


@functools.cache
def _wheel() -> Any:
    before = dict(os.environ)
    try:
        import PyNvVideoCodec  # noqa: PLC0415 - fails without a driver, and must not be imported where none is used
    except (ImportError, RuntimeError, OSError) as error:
        raise DeviceFailed(f"PyNvVideoCodec cannot be imported: {str(error).partition(chr(10))[0]}") from error
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
    return PyNvVideoCodec


@contextlib.contextmanager
def _translated(what: str, device: NvencDevice, *, was_kept: bool = False) -> Iterator[None]:
    """Turn the exceptions of the wheel and the driver into our error, with the code and its name."""
    try:
        yield
    except CudaFailed as error:
        words = f"{device.name} failed while {what}: {error}"
        raise DeviceFailed(words, device=device.uuid, was_kept=was_kept) from error
    except (_wheel().PyNvVCException, _wheel().PyNvVCExceptionUnsupported) as error:
        log.info("%s failed while %s: %s", device.uuid, what, error, extra={"action": "nvenc_failed"})
        words = f"{device.name} failed while {what}: {code_name(error_code(error))}"
        raise DeviceFailed(words, device=device.uuid, was_kept=was_kept) from error


class Session:
    """The wheel's encoder with its seat; used by one job at a time.

    Attributes:
        was_kept: whether another job has used it before.
    """

    def __init__(
        self, device: NvencDevice, shape: SessionShape, gpu: Gpu, engine: Any, seat: Seat, watch: StallWatch
    ) -> None:
        self._watch = watch
        self.device = device
        self.shape = shape
        self.gpu = gpu
        self.was_kept = False
        self._engine = engine
        self._seat = seat
        self._has_frames = False

    def __repr__(self) -> str:
        state = "" if self._engine else ", closed"
        return f"<Session {self.shape.width}x{self.shape.height} on {self.device.uuid}{state}>"

    def encode(self, frame: Nv12Frame, *, is_idr: bool) -> Sequence[Packet]:
        """Give the driver a frame, which it reads later, and return the packets that are ready.

        Raises:
            DeviceFailed: the message has the driver's code; the session cannot be used any more.
        """
        self._has_frames = True
        with self._translated("encoding"), _one_at_first(), self._watch.watching():
            return list(self._engine.Encode(frame, _FORCE_IDR if is_idr else 0))

    def flush(self) -> Sequence[Packet]:
        """Return the packets still inside; the session may begin another stream.

        Raises:
            DeviceFailed: as for `encode`.
        """
        with self._translated("ending the stream"), self._watch.watching():
            packets = list(self._engine.EndEncode())
        self._has_frames = False
        return packets

    def finish_copies(self) -> None:
        """Wait until the device has copied all frames that it was given."""
        with self._translated("waiting for its copies"):
            self.gpu.synchronize()

    def is_wanted(self) -> bool:
        return self._seat.is_wanted()

    def close(self) -> None:
        """Give the session back; harmless when repeated or after a failure."""
        engine, self._engine = self._engine, None
        if engine is not None and self._has_frames:
            # If a session is dropped with pictures inside, they stay locked.
            with contextlib.suppress(DeviceFailed), self._translated("closing"):
                engine.EndEncode()
        del engine  # before the seat is free
        self._watch.close()
        self._seat.release()

    def _translated(self, what: str) -> contextlib.AbstractContextManager[None]:
        return _translated(what, self.device, was_kept=self.was_kept)


@contextlib.contextmanager
def _one_at_first() -> Iterator[None]:
    if _has_encoded.is_set():
        yield
        return
    with _first_encode:
        yield
        _has_encoded.set()


@dataclass(frozen=True, slots=True)
class Opening:
    """How sessions are opened: on which devices, and with which time limits.

    Attributes:
        devices: the devices that may be used now.
        in_sight: the UUIDs of all devices that encode, since a process always sees the devices that it saw first; empty
            means those of `devices`.
        on_stall: called, on another thread, with a device that does not return from a call.
    """

    settings: NvencSettings
    devices: tuple[NvencDevice, ...]
    in_sight: tuple[str, ...] = ()
    on_stall: Callable[[NvencDevice, str], None] = lambda _device, _words: None

    def open(self, shape: SessionShape) -> Session:
        """Open a session on the least busy device, waiting for one if need be.

        Raises:
            SessionsBusy: no session became free in time.
            DeviceFailed: the device refuses for another reason; the message has its code.
        """
        deadline = time.monotonic() + self.settings.session_timeout_s
        directory = state_dir(self.settings)
        seats = Seats(directory, self.settings.sessions_per_device)
        by_uuid = {device.uuid: device for device in self.devices}
        seat = seats.take(list(by_uuid), deadline)
        try:
            device = by_uuid[seat.uuid]
            with _translated("being opened", device):
                gpu = open_gpu(device.uuid, self.in_sight or tuple(by_uuid))
            engine = _patiently_opened(device, shape, gpu, deadline, directory)
            return Session(device, shape, gpu, engine, seat, self._watch(device))
        except BaseException:
            seat.release()
            raise

    def _watch(self, device: NvencDevice) -> StallWatch:
        limit_s = self.settings.stall_timeout_s
        words = f"{device.name} took longer than {limit_s:g} s for a picture"
        return StallWatch(limit_s, lambda: self.on_stall(device, words))


def _patiently_opened(device: NvencDevice, shape: SessionShape, gpu: Gpu, deadline: float, directory: Path) -> Any:
    """Create the wheel's encoder; while the driver has no session left, try again, with longer and longer pauses.

    The pauses grow because every attempt makes the driver create two contexts.
    """
    pause_s = _FIRST_PAUSE_S
    with contextlib.ExitStack() as waiting:
        while True:
            try:
                return _created(device, shape, gpu)
            except _AllTaken as error:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    words = f"all encode sessions of {device.name} are in use: {error}"
                    raise SessionsBusy(words) from error.__cause__
                waiting.enter_context(waiting_for_a_session(directory))
                time.sleep(min(pause_s, left_s))
                pause_s *= 2


def _created(device: NvencDevice, shape: SessionShape, gpu: Gpu) -> Any:
    wheel = _wheel()
    with _translated("being opened", device), no_context_lost(gpu), _opening:
        try:
            return wheel.CreateEncoder(
                shape.width,
                shape.height,
                "NV12",
                True,
                gpu_id=gpu.index,
                cudacontext=gpu.context,
                **dict(shape.options),
            )
        except wheel.PyNvVCException as error:
            code = error_code(error)
            if code in ALL_SESSIONS_TAKEN:
                raise _AllTaken(code_name(code)) from error
            raise


class _AllTaken(Exception):
    """The driver opens no more sessions; the message is its code."""
