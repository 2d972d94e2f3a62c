"""What a daemon tries before it is ready, so that one message at the start says what is missing.

Everything here costs a second at most on a machine that is in order, and is bounded by a limit of seconds on one that
is not. A check tries the very thing that jobs will need: a limit that was read says less than a thread that was begun.
"""

import contextlib
import ctypes
import logging
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Final, NoReturn

from renderer.config import EncodeSettings, Settings, render_settings
from renderer.encode.ffmpeg import AccessUnitSplitter, arguments, runnable_ffmpeg
from renderer.encode.stream import StreamSettings
from renderer.errors import ConfigError
from renderer.geometry import Canvas
from renderer.jobs.slots import confinement
from renderer.jobs.slots.confinement import Roots
from renderer.jobs.slots.reach import Reach
from renderer.net.objects import missing_extra
from renderer.processes import Child

log = logging.getLogger(__name__)

_CANVAS: Final = Canvas(64, 48)
_PICTURES: Final = 3
_MOST_BYTES: Final = 1 << 20  # of three small pictures; a program that writes more is not an encoder
_LAST_WORDS: Final = 300
_THREADS_OF_A_WORKER: Final = 16  # the process itself, the server that it is forked from, what Pebble begins
_TEMPORARY_BYTES: Final = 65536  # what is tried below needs a fifth of it
_LEAST_DESCRIPTORS: Final = 32  # of a daemon that listens and has no clients yet
_DESCRIPTORS_BESIDE: Final = 64  # files, pipes and sockets of the daemon itself
_DESCRIPTORS_OF_A_WORKER: Final = 16
_M_MMAP_THRESHOLD: Final = -3  # malloc.h


def check(settings: Settings) -> None:
    """Refuse to start where no job could be done.

    Raises:
        ConfigError: what is missing, in one line.
    """
    for number in stopping_signals():
        if number != signal.SIGINT:  # which raises KeyboardInterrupt
            signal.signal(number, _leave)  # until the daemon drains, so that nothing that is tried is left behind
    _check_machine(settings.engine.workers)
    ffmpeg = runnable_ffmpeg(settings.encode)
    for root in settings.fetch.allow_roots:
        if not root.is_dir():
            raise ConfigError(f"fetch.allow_roots: expected a directory, found {root}")
    missing = missing_extra()
    if missing and (settings.fetch.allow_objects or settings.outputs.allow_objects):
        raise ConfigError(missing)
    _check_plain_encoding(ffmpeg, settings)
    _give_freed_memory_back()


def stopping_signals() -> list[signal.Signals]:
    """Return the signals that ask a daemon to stop: SIGHUP among them, unless nohup(1) or the like has it ignored."""
    asking = [signal.SIGTERM, signal.SIGINT]
    return asking if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [*asking, signal.SIGHUP]


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


# The machine.


def _check_machine(workers: int) -> None:
    """See whether the machine lets workers begin.

    Raises:
        ConfigError: it lacks what a worker process needs.
    """
    _check_room_for_files(workers)
    try:
        with tempfile.TemporaryFile(buffering=0) as trial:
            trial.write(bytes(_TEMPORARY_BYTES))
    except OSError as error:
        raise ConfigError(f"no temporary directory can be used ({error.strerror}); set TMPDIR to one") from error
    if sys.platform == "linux" and not Path("/proc/self/status").exists():
        raise ConfigError("/proc is not there, and workers are watched through it; mount it")
    try:
        multiprocessing.get_context("fork").Lock()  # of a kind that needs no process to look after it
    except OSError as error:
        raise ConfigError(f"worker processes need to write to /dev/shm: {error.strerror}") from error
    _check_room_for_processes()


def _check_room_for_processes() -> None:
    """Begin as many threads at once as a worker and its encoder have; the limit counts threads and processes alike.

    Raises:
        ConfigError: the limit on processes is too low for them.
    """
    wanted, over = _THREADS_OF_A_WORKER + 2 * (os.cpu_count() or 1), threading.Event()
    begun = []
    try:
        for _ in range(wanted):
            thread = threading.Thread(target=over.wait)
            thread.start()
            begun.append(thread)
    except RuntimeError as error:
        words = f"{wanted} threads were wanted for one, and {len(begun)} could be begun"
        limits = _limits_on_memory()
        what = "limits on processes and memory leave" if limits else "limit on processes leaves"
        raise ConfigError(
            f"the {what} no room for a worker: {words}; raise {' or '.join(['RLIMIT_NPROC', *limits])}"
        ) from error
    finally:
        over.set()
        for thread in begun:
            thread.join()


def _limits_on_memory() -> list[str]:
    """Return the limits that are set and count the stacks of threads."""
    names = ("RLIMIT_AS", "RLIMIT_DATA")
    return [name for name in names if resource.getrlimit(getattr(resource, name))[0] != resource.RLIM_INFINITY]


def _check_room_for_files(workers: int) -> None:
    """Raise the limit on descriptors, for every connection takes one, and open as many as there are without any.

    The usual limit of 1024 is for programs that use select().

    Raises:
        ConfigError: fewer could be opened; ZeroMQ would end the process when it needs more.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    wanted, opened = _LEAST_DESCRIPTORS + _DESCRIPTORS_OF_A_WORKER * workers, list[int]()
    try:
        while len(opened) < wanted:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        words = f"{wanted} were wanted for a daemon with {workers} workers, and {len(opened)} could be opened"
        raise ConfigError(f"the limit on open files is too low: {words}; raise RLIMIT_NOFILE") from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def say_if_descriptors_are_few(settings: Settings) -> None:
    """Warn where there are fewer than all connections and workers need."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    has_http = settings.http.bind is not None or settings.http.tls_bind is not None
    connections = settings.http.max_connections if has_http else 0
    wanted = connections + _DESCRIPTORS_BESIDE + _DESCRIPTORS_OF_A_WORKER * settings.engine.workers
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        words = "%d files may be open at once, and %d connections with %d workers need %d: raise RLIMIT_NOFILE"
        values = (allowed, connections, settings.engine.workers, wanted)
        log.warning(words, *values, extra={"action": "few_descriptors"})


def _give_freed_memory_back() -> None:
    """Map every block of a mebibyte or more on its own, so that it goes back to the system when it is freed.

    glibc raises its limit for that to the largest block that was freed, 32 MiB at most, and then keeps what large
    messages took (mallopt(3), M_MMAP_THRESHOLD: setting it stops that).
    """
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


# The encoder.


def _check_plain_encoding(ffmpeg: str, settings: Settings) -> None:
    """Encode three pictures as a worker would, with no more files than one may use, within `encode.probe_timeout_s`.

    Raises:
        ConfigError: it cannot, with its last words.
    """
    ends_at = time.monotonic() + settings.encode.probe_timeout_s
    is_confined = settings.engine.confine_workers and confinement.refusal() is None
    roots = Reach(render_settings(settings))(None) if is_confined else None
    trouble = _trouble(ffmpeg, settings.encode, ends_at, roots)
    has_time = time.monotonic() < ends_at
    if trouble and roots and has_time and _trouble(ffmpeg, settings.encode, ends_at) is None:
        trouble += "; it can with files that workers may not use: engine.confine_workers = false lets them"
    if trouble:
        raise ConfigError(f"encode.ffmpeg: {ffmpeg} {trouble}")


def _trouble(ffmpeg: str, settings: EncodeSettings, ends_at: float, roots: Roots | None = None) -> str | None:
    """Encode as a job without holds would, until a moment of the clock, and say what is wrong, if anything.

    The child reads a file and not a pipe, and what it writes is bounded, so that nothing but the clock is waited for.
    """
    stream = StreamSettings(_CANVAS, Fraction(24), crf=20, preset="ultrafast", keyframe_interval=240)
    with tempfile.TemporaryFile() as pictures, tempfile.TemporaryFile() as words:
        pictures.write(bytes([128]) * (_CANVAS.width * _CANVAS.height * 3 // 2 * _PICTURES))
        pictures.seek(0)

        def begin() -> Child:
            return Child(arguments(ffmpeg, stream, settings.threads), stdin=pictures, stderr=words)

        try:
            child = begin() if roots is None else confinement.confined(roots, begin)
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            made = _output(child, ends_at)
        finally:
            child.end()
            code = child.wait()
        words.seek(0)
        said = " ".join(words.read().decode(errors="replace").split())[-_LAST_WORDS:] or "nothing"
    if made is None:
        return f"does not end within {settings.probe_timeout_s:g} s; it said {said}"
    splitter = AccessUnitSplitter()
    count = len(splitter.feed(made)) + len(splitter.finish())
    if code == 0 and count == _PICTURES:
        return None
    return f"cannot encode with libx264 (exit code {code}, {count} of {_PICTURES} pictures); it said {said}"


def _output(child: Child, ends_at: float) -> bytes | None:
    """Return what a child writes until it ends; None if it does not end in time, though it wrote too much."""
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    made = bytearray()
    with child.stdout as stdout:
        while len(made) < _MOST_BYTES:
            ready, _, _ = select.select([stdout], [], [], max(0.0, ends_at - time.monotonic()))
            data = os.read(stdout.fileno(), 65536) if ready else None
            if not data:
                break
            made += data
    try:
        child.wait(max(0.0, ends_at - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    return bytes(made)
