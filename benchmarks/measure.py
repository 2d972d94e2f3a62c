"""One command's cost: wall and CPU seconds, page faults, peak memory.

CPU and page faults are those of the child and all its descendants that were waited for (getrusage); a daemon's, which
is no child, are read from its process tree before and after. Memory is sampled in a run of its own that is not timed,
because looking at it costs the machine something. It is not ru_maxrss: that starts at what the parent had when the
child was forked.
"""

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

TIMEOUT_S = 1800
_SAMPLE_S = 0.01


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str
    wall_s: float
    cpu_s: float
    faults: int


class Memory:
    """The most memory seen: of the largest process, and of the whole tree (what two share is counted twice)."""

    def __init__(self) -> None:
        self.process_bytes = 0
        self.tree_bytes = 0

    def sample(self, root: psutil.Process) -> None:
        sizes = [process.memory_info().rss for process in _tree(root) if process.is_running()]
        self.process_bytes = max(self.process_bytes, *sizes, 0)
        self.tree_bytes = max(self.tree_bytes, sum(sizes))


def run(command: Sequence[str], *, daemon_pid: int | None = None, memory: Memory | None = None) -> Finished:
    """Run a command to its end and return what it cost.

    Args:
        daemon_pid: a daemon that works for the command; its CPU, page faults and memory count too.
        memory: filled with what was seen; the times are then not fit for use.
    """
    before = spent(daemon_pid)
    began = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    with _sampled([child.pid, daemon_pid], memory):
        try:
            stdout, stderr = child.communicate(timeout=TIMEOUT_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise
        wall_s = time.perf_counter() - began
    cpu_s, faults = (after - earlier for after, earlier in zip(spent(daemon_pid), before, strict=True))
    return Finished(child.returncode, stdout, stderr, wall_s, cpu_s, int(faults))


@contextlib.contextmanager
def _sampled(pids: Sequence[int | None], memory: Memory | None) -> Iterator[None]:
    if memory is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        roots = [psutil.Process(pid) for pid in pids if pid is not None and psutil.pid_exists(pid)]
        while not done.wait(_SAMPLE_S):
            for root in roots:
                with contextlib.suppress(psutil.Error):  # it has ended
                    memory.sample(root)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def spent(daemon_pid: int | None) -> tuple[float, int]:
    """Return the processor seconds and the page faults of all children that have ended, and of the daemon."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s, faults = usage.ru_utime + usage.ru_stime, usage.ru_minflt + usage.ru_majflt
    for process in _tree(psutil.Process(daemon_pid)) if daemon_pid is not None else ():
        times = process.cpu_times()
        cpu_s += times.user + times.system + times.children_user + times.children_system
        faults += _faults(process.pid)
    return cpu_s, faults


def _faults(pid: int) -> int:
    """Return the page faults of a process and of its children that have ended: proc(5), /proc/pid/stat, 10 to 13."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(map(int, fields[7:11]))
