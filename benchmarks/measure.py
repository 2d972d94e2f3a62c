"""One command's cost: wall and CPU seconds, peak memory.

CPU is that of the child and all its descendants that were waited for (getrusage); a daemon's, which is no child, is
read from its process tree before and after. Memory is sampled in a run of its own that is not timed, because looking at
it costs the machine something. It is not ru_maxrss: that starts at what the parent had when the child was forked.
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
        daemon_pid: a daemon that works for the command; its CPU and memory count too.
        memory: filled with what was seen; the times are then not fit for use.
    """
    daemon_before_s, before_s = _daemon_cpu_s(daemon_pid), _children_cpu_s()
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
    cpu_s = _children_cpu_s() - before_s + _daemon_cpu_s(daemon_pid) - daemon_before_s
    return Finished(child.returncode, stdout, stderr, wall_s, cpu_s)


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


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _daemon_cpu_s(pid: int | None) -> float:
    if pid is None:
        return 0.0
    times = [process.cpu_times() for process in _tree(psutil.Process(pid))]
    return float(sum(t.user + t.system + t.children_user + t.children_system for t in times))
