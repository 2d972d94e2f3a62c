"""The worker: a child process that renders, so that a decoder that crashes, hangs or eats memory costs one job.

Pebble runs it and enforces the job's time limit. Each slot of the engine has a pool of one: Pebble's workers share
locked pipes, and a worker that is killed while it holds a lock would block the others. Workers are forked from a server
process that has already imported OpenCV and libav, so a new one is ready in milliseconds.

A worker holds one end of a pipe, its lifeline, and only the daemon has the other end: when the daemon ends, in any way,
the worker ends too, and its ffmpeg with it (processes.py). The worker also ends with the fork server, because without
that server nobody would learn that a worker has ended.

The code that runs in the process is in rendering.py. Its functions are called by name, because importing them would
load the decoders into the daemon.
"""

import contextlib
import multiprocessing
import os
import pkgutil
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pebble import ProcessPool

from protocol.schema import Fault
from renderer.config import EncodeSettings, EngineSettings
from renderer.jobs.slots.base import RenderTask
from renderer.jobs.slots.confinement import Roots
from renderer.jobs.slots.said import Said
from renderer.observe.job_log import WorkerLog
from renderer.pictures.marks import MOST_THREADS, Cell, Marks
from renderer.processes import TICKS_PER_S, end_session, is_stopped, room_for_data, session_ticks
from renderer.work import Report

_RENDERING: Final = "renderer.jobs.slots.rendering"
_HELD_PICTURES: Final = "renderer.encode.selftest:x264_refusal"
_LAST_WORDS_S = 1.0  # a process that a library has started may hold the pipe open
# The share of a worker's memory limit that may still be in use after a job. Photographs of 48 megapixels left 70 MiB,
# which did not grow. Page-locked frames, which the next job uses again, should not count, since they are shared with
# the driver; this was not measured.
_MOST_KEPT: Final = 0.25


# Returns the files that exist now and that a worker may use for a task; None if no task is known yet.
Reach = Callable[[RenderTask | None], Roots]


@dataclass(frozen=True, slots=True)
class Terms:
    """The settings that every process of a worker gets when it starts.

    Attributes:
        temporary: the directory for its temporary files.
    """

    progress_address: str
    settings: EngineSettings
    log: WorkerLog
    temporary: Path
    crash_report: Path
    roots: Roots | None = None


class Worker:
    """One worker process, and how to start, use and stop it."""

    def __init__(
        self,
        progress_address: str,
        settings: EngineSettings,
        log_settings: WorkerLog | None = None,
        reach: Reach | None = None,
    ) -> None:
        """Prepare what the process needs; `restart()` starts it.

        Args:
            progress_address: name of the datagram socket that progress is sent to.
            settings: among other things the memory limit of a job and the niceness of the process.
            reach: the files that it may use; None means all files that this user may use.
        """
        self._cells = multiprocessing.get_context("forkserver").RawArray(Cell, MOST_THREADS)
        self.marks = Marks(self._cells)
        self._directory = Path(tempfile.mkdtemp(prefix="worker-", dir=Path(progress_address).parent))
        self._crash_report = self._directory / "crash"
        self._crash_report.touch()
        temporary = self._directory / "tmp"
        temporary.mkdir()
        self._reach = reach
        self._terms = Terms(progress_address, settings, log_settings or WorkerLog(), temporary, self._crash_report)
        self._said = Said()
        self._lock = threading.Lock()  # a restart and a close may come from two threads
        self._is_closed = False
        self._pool: ProcessPool | None = None

    def run(self, task: RenderTask, timeout_s: float) -> "Future[Report | Fault]":
        """Start a job.

        The future ends with a report, with a fault if the job failed, with TimeoutError when the time is up, or with
        another exception when the process died. After either exception, or a cancel, call `stop()`.

        Raises:
            RuntimeError: there is no process.
        """
        if self._pool is None:
            raise RuntimeError("no process was started")
        self._said.job(task.job_id)
        future: Future[Report | Fault] = self._pool.schedule(call, args=(f"{_RENDERING}:run", task), timeout=timeout_s)
        future.add_done_callback(lambda _: self._said.job(None))
        return future

    def try_held_pictures(self, settings: EncodeSettings, timeout_s: float) -> "Future[str | None]":
        """Start the self-test of held pictures; the future has the test's verdict, or fails as that of `run` does.

        Raises:
            RuntimeError: there is no process.
        """
        if self._pool is None:
            raise RuntimeError("no process was started")
        verdict: Future[str | None] = self._pool.schedule(call, args=(_HELD_PICTURES, settings), timeout=timeout_s)
        return verdict

    def suits(self, task: RenderTask) -> bool:
        """Whether the process may use the files that this task needs; if not, the next process that is started may.

        A process may use the files that existed when it started, and names do not count then: a directory that was
        mounted or created later under an allowed name is out of its reach. Where no more files can be opened, none is
        known to suit.
        """
        if self._reach is None:
            return True
        try:
            before, self._terms = self._terms.roots, replace(self._terms, roots=self._reach(task))
        except OSError:
            return False
        return before == self._terms.roots

    def crashed_thread(self) -> int | None:
        """Return the thread, as in `marks`, that took the process down by a fault of its own; None if unknown."""
        found = re.search(r"^Current thread 0x([0-9a-f]+) ", self._report(), re.MULTILINE)
        return int(found[1], 16) if found else None

    def open_process(self) -> int | None:
        """Return a descriptor that can be read from once the process has ended; None while none can be had."""
        begun = self._processes()[-1:]
        with contextlib.suppress(OSError):  # it has ended, there are no descriptors left, or Linux is older than 5.3
            return os.pidfd_open(begun[0]) if begun else None
        return None

    def worked_s(self) -> float:
        """Return the processor time that the process and its child processes have used so far."""
        return session_ticks(self._processes()[-1:]) / TICKS_PER_S

    def is_stopped(self) -> bool:
        """Say whether a signal has stopped the process."""
        return any(map(is_stopped, self._processes()[-1:]))

    def has_grown(self) -> bool:
        """Say whether earlier jobs left so much memory in use that the next one might have too little."""
        begun = self._begun()
        room = room_for_data(begun[-1][0]) if begun else None
        return room is not None and room < (1 - _MOST_KEPT) * begun[-1][1]

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, so that no process is started any more."""
        return self._is_closed

    @property
    def is_broken(self) -> bool:
        """Whether nothing can run: the process was not started, died while it was idle, or was stopped."""
        return self._pool is None or not self._pool.active

    def restart(self) -> None:
        """Make sure that no process is left, and start one unless closed.

        Blocks until that is done: the first start waits until the fork server has imported its modules, which takes
        seconds on a busy machine.

        Raises:
            OSError, BrokenProcessPool: no process can be started now.
        """
        with self._lock:
            self._kill()
            if not self._is_closed:
                self._pool = self._start()

    def stop(self) -> None:
        """Kill the process; blocks until it is gone. Harmless when repeated."""
        with self._lock:
            self._kill()

    def close(self) -> None:
        """Kill the process and start no other."""
        with self._lock:
            self._is_closed = True
            self._kill()
            shutil.rmtree(self._directory, ignore_errors=True)

    def _kill(self) -> None:
        if self._pool is None:
            return
        self._pool.stop()  # type: ignore[no-untyped-call] # Pebble leaves this one untyped
        theirs, ours = self._lifeline
        ours.close()
        self._pool.join()
        self._end_encoders()
        theirs.close()  # not earlier: Pebble may be starting a process that gets this end
        self._words.close()
        self._said.wait(_LAST_WORDS_S)

    def _end_encoders(self) -> None:
        """End the child processes of workers that are gone; a worker that was killed could not end them itself."""
        for pid in self._processes():
            end_session(pid)

    def _processes(self) -> list[int]:
        """Return the process ids of all workers since the last start; the current one comes last."""
        return [pid for pid, _ in self._begun()]

    def _begun(self) -> list[tuple[int, int]]:
        """Return the same process ids, each with the bytes that the process could allocate when it was ready."""
        found = re.findall(r"^process ([0-9]+) (-?[0-9]+)$", self._report(), re.MULTILINE)
        return [(int(pid), int(room)) for pid, room in found]

    def _report(self) -> str:
        """Return what the processes have written about themselves; nothing while it cannot be read."""
        with contextlib.suppress(OSError):  # closed, or no more files can be opened
            return self._crash_report.read_text(encoding="ascii", errors="replace")
        return ""

    def _start(self) -> ProcessPool:
        if not _is_somewhere():
            os.chdir("/")  # no process can be started in a directory that was removed, and no path is relative to it
        self.marks.clear()
        self._crash_report.write_bytes(b"")
        if self._reach and self._terms.roots is None:
            self._terms = replace(self._terms, roots=self._reach(None))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["renderer.jobs.slots.fork_server"])
        self._lifeline = context.Pipe(duplex=False)
        heard, self._words = context.Pipe(duplex=False)
        self._said.listen(heard)
        pool = ProcessPool(
            max_workers=1,
            initializer=call,
            initargs=(f"{_RENDERING}:begin", self._terms, (self._lifeline[0], self._words), self._cells),
            context=context,
        )
        pool.schedule(_ready)
        return pool


def _is_somewhere() -> bool:
    """Whether the current directory still exists."""
    try:
        os.getcwd()  # noqa: PTH109 - no path is wanted
    except FileNotFoundError:
        return False
    return True


def _ready() -> None:
    """Do nothing: this first task only makes the process start before the first job comes."""


def call(name: str, *arguments: Any) -> Any:
    """Call a function, given as "module:function"; only ever run in the worker process."""
    return pkgutil.resolve_name(name)(*arguments)
