"""libx264 in an ffmpeg child process: NV12 on its stdin, Annex B on its stdout.

A child process because a codec that crashes must not take the renderer along, and because the binary that
imageio-ffmpeg ships needs no system package. One thread does all the talking: it polls the three pipes, so a child that
fills its stderr, dies or stalls is met by a deadline instead of a deadlock.

Stills that are held for less than a second are drawings of an animation, each like the one before, or a montage of
photographs, which x264 codes otherwise: plan.py says how they differ in quality. Which they are is seen in the first
three stills, so the child is started once these are there.
"""

import contextlib
import fcntl
import itertools
import logging
import os
import select
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO

import numpy as np

from renderer.config import EncodeSettings
from renderer.encode.base import Encoder, Nv12Frame, check_frame
from renderer.encode.ffmpeg import AccessUnitSplitter, arguments, find_ffmpeg
from renderer.encode.plan import as_montage
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.errors import EncodeFailed
from renderer.observe.redaction import without_directories
from renderer.processes import Child, group_ticks, starting_first_to_kill

log = logging.getLogger(__name__)

# Photographs one after another differ by more than 8 levels in 84 to 100 of 100 samples, slides with other backgrounds
# in 97, screenshots of one program in 7 to 20, frames of a time-lapse in 20, of an animation in 3 (measured).
_FIRST_STILLS = 3
_SAMPLED_EVERY = 8
_OTHER_LEVELS = 8

_OOM_SCORE = 500
_STDERR_TAIL_BYTES = 8 * 1024
_READ_BYTES = 1024 * 1024
_PIPE_BYTES = 1024 * 1024  # Linux's default of 64 KiB costs a wake-up of both sides for every 64 KiB of picture.


def open_x264(stream: StreamSettings, settings: EncodeSettings) -> Encoder:
    """Open libx264, or what does so after a look at the first stills.

    Raises:
        EncodeFailed: the child cannot be started.
    """
    if stream.held is None or not stream.held.holds:
        return X264Encoder(stream, settings)
    return _LookingFirst(stream, settings)


def is_montage(stills: Sequence[Nv12Frame]) -> bool:
    """Return whether each still differs from the one before in most of its samples."""
    lumas = [still[: len(still) * 2 // 3 : _SAMPLED_EVERY, ::_SAMPLED_EVERY].astype(np.int16) for still in stills]
    changed = [np.mean(np.abs(later - earlier) > _OTHER_LEVELS) for earlier, later in itertools.pairwise(lumas)]
    return bool(changed and min(changed) > 0.5)


class _LookingFirst(Encoder):
    """Keeps the first stills until it has seen whether they are a montage."""

    def __init__(self, stream: StreamSettings, settings: EncodeSettings) -> None:
        self._stream = stream
        self._settings = settings
        self._first: list[Nv12Frame] = []
        self._encoder: X264Encoder | None = None

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        if self._encoder is not None:
            return self._encoder.encode(frame)
        check_frame(frame, self._stream.canvas)
        self._first.append(frame.copy())
        return list(self._begin()) if len(self._first) == _FIRST_STILLS else ()

    def flush(self) -> Iterator[AccessUnit]:
        if self._first:
            yield from self._begin()
        if self._encoder is not None:
            yield from self._encoder.flush()

    def close(self) -> None:
        self._first = []
        if self._encoder is not None:
            self._encoder.close()

    def _begin(self) -> Iterator[AccessUnit]:
        first, self._first = self._first, []
        stream = self._stream
        if stream.held is not None and is_montage(first):
            stream = replace(stream, held=as_montage(stream.held))
        self._encoder = X264Encoder(stream, self._settings)
        for frame in first:
            yield from self._encoder.encode(frame)


class X264Encoder(Encoder):
    """One ffmpeg child process; see `encode.base.Encoder` for the contract."""

    def __init__(self, stream: StreamSettings, settings: EncodeSettings) -> None:
        """Start the child.

        Raises:
            EncodeFailed: it cannot be started.
        """
        self._stream = stream
        self._stall_timeout_s = settings.stall_timeout_s
        self._splitter = AccessUnitSplitter()
        self._frames_in = self._units_out = 0
        self._stderr_tail = bytearray()
        command = arguments(find_ffmpeg(settings), stream, settings.threads)
        log.debug("starting %s", shlex.join(command), extra={"action": "start_encoder"})
        try:
            with starting_first_to_kill(_OOM_SCORE):
                self._child = Child(command)
        except OSError as error:
            raise EncodeFailed(f"ffmpeg could not be started: {error.strerror}") from error
        self._pipes = _nonblocking(self._child)
        self._poll = select.poll()
        for pipe in self._pipes[1:]:
            self._poll.register(pipe, select.POLLIN)

    def __repr__(self) -> str:
        return f"<X264Encoder {self._stream.canvas} pid={self._child.pid} exit={self._child.returncode}>"

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        check_frame(frame, self._stream.canvas)
        if self._child.stdin is None or self._child.stdin.closed:
            raise EncodeFailed("no frame may follow flush() or close()")
        self._frames_in += 1
        units = self._exchange(frame.data.cast("B"))
        self._units_out += len(units)
        return units

    def flush(self) -> Iterator[AccessUnit]:
        stdin = self._child.stdin
        if stdin is None or stdin.closed:
            return
        stdin.close()
        for unit in self._drain():
            self._units_out += 1
            yield unit
        if self._exit_code() != 0:
            raise self._failure("did not end well")
        if self._units_out != self._frames_in:
            raise self._failure(f"made {self._units_out} access units for {self._frames_in} frames")

    def close(self) -> None:
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.close()
        self._child.end()
        self._child.wait()

    def _exit_code(self) -> int:
        """Wait for the child's end for as long as it works."""
        before = -1
        while True:
            try:
                return self._reap(self._stall_timeout_s / 2)
            except subprocess.TimeoutExpired:
                now = group_ticks(self._child.pid)
                if now <= before:
                    raise self._failure("did not exit after its last byte") from None
                before = now

    def _reap(self, timeout_s: float | None = None) -> int:
        """Wait for the child's end, then end what it started."""
        code = self._child.wait(timeout_s)
        self._child.end()
        return code

    def _exchange(self, picture: memoryview) -> list[AccessUnit]:
        """Write the picture, and read the output of the child meanwhile."""
        stdin = self._pipes[0]
        units: list[AccessUnit] = []
        self._poll.register(stdin, select.POLLOUT)
        try:
            while picture:
                ready = self._wait()
                if stdin.fileno() in ready:
                    picture = picture[self._write(picture) :]
                units += self._read(ready)
        finally:
            self._poll.unregister(stdin)
        return units

    def _drain(self) -> Iterator[AccessUnit]:
        """Read stdout to its end."""
        while not self._pipes[1].closed:
            yield from self._read(self._wait())
        yield from self._splitter.finish()

    def _wait(self) -> dict[int, int]:
        """Return the pipes that are ready, by file descriptor."""
        half_ms = self._stall_timeout_s * 500
        ready = self._poll.poll(half_ms)
        before = -1 if ready else group_ticks(self._child.pid)
        while not (ready := ready or self._poll.poll(half_ms)):
            now = group_ticks(self._child.pid)
            if now <= before:  # slow is not stalled: one that works gets on
                raise self._failure(f"moved no byte for {self._stall_timeout_s:g} s")
            before = now
        return dict(ready)

    def _write(self, picture: memoryview) -> int:
        try:
            return os.write(self._pipes[0].fileno(), picture)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            raise self._failure("stopped reading") from None

    def _read(self, ready: dict[int, int]) -> list[AccessUnit]:
        _, stdout, stderr = self._pipes
        if not stderr.closed and stderr.fileno() in ready:
            self._stderr_tail += self._take(stderr)
            del self._stderr_tail[:-_STDERR_TAIL_BYTES]
        if not stdout.closed and stdout.fileno() in ready:
            return self._splitter.feed(self._take(stdout))
        return []

    def _take(self, pipe: IO[bytes]) -> bytes:
        """Read what is there; at its end the pipe is closed and no longer polled."""
        try:
            data = os.read(pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._poll.unregister(pipe)
            pipe.close()
        return data

    def _failure(self, what: str) -> EncodeFailed:
        """Kill the child, collect its last words and make the error; the caller raises it."""
        deadline = time.monotonic() + 1
        if self._child.returncode is None:
            try:
                self._reap(0.2)  # a child that is just ending gets the time to end with its own exit code
            except subprocess.TimeoutExpired:
                self._child.end()
        while not self._pipes[2].closed and time.monotonic() < deadline:
            if not self._poll.poll(100):
                break
            self._read(dict.fromkeys([pipe.fileno() for pipe in self._pipes[1:] if not pipe.closed], select.POLLIN))
        code = self._child.wait()
        last_words = without_directories(bytes(self._stderr_tail).decode(errors="replace").strip())
        log.error("ffmpeg %s (exit code %s): %s", what, code, last_words, extra={"action": "encoder_failed"})
        return EncodeFailed(f"ffmpeg {what} (exit code {code}); its last words: {last_words or 'none'}")


def _nonblocking(child: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    """Return the child's stdin, stdout and stderr, made non-blocking."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - all are PIPE
    pipes = (child.stdin, child.stdout, child.stderr)
    for pipe in pipes:
        os.set_blocking(pipe.fileno(), False)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or above the user's pipe limit
        fcntl.fcntl(child.stdin.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return pipes
