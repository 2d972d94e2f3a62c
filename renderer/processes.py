"""The machine's processes as the kernel lists them: whose they are, and what processor time they took (proc(5)).

Which ones are left over is told by session and group. Workers lead sessions of their own, and whatever is begun in this
process by way of `subprocess` or multiprocessing is of its session and either of its group or the leader of another. So
a child that is neither was not begun here but handed on by a parent that has died, and nobody else waits for its end.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36  # prctl.h of Linux


@dataclass(frozen=True, slots=True)
class Process:
    """A process, or what is left of one that nobody has waited for.

    Attributes:
        state: one letter; Z is a zombie, T one that was stopped.
        ticks: processor time that its threads took, and those that it has waited for.
        resident_bytes: memory that it holds, with what it shares.
    """

    pid: int
    state: str
    parent: int
    group: int
    session: int
    ticks: int
    resident_bytes: int


def listed() -> Iterator[Process]:
    """Return what runs now; nothing where there is no /proc."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield _read(path)


def _children() -> Iterator[Process]:
    """Return this process's children, dead or alive; one may be missed while another ends."""
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in path.read_text(encoding="ascii").split():
                yield _read(Path(f"/proc/{pid}/stat"))


def _read(path: Path) -> Process:
    state, *numbers = path.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    parent, group, session = map(int, numbers[:3])
    ticks, resident_bytes = sum(map(int, numbers[10:14])), int(numbers[20]) * _PAGE_BYTES
    return Process(int(path.parent.name), state, parent, group, session, ticks, resident_bytes)


def group_ticks(group: int) -> int:
    """Return the processor time that the living processes of a group took."""
    return sum(process.ticks for process in listed() if process.group == group)


def session_ticks(leaders: Collection[int]) -> int:
    """Return the processor time that the living processes of these sessions took."""
    return sum(process.ticks for process in listed() if process.session in leaders)


def is_stopped(pid: int) -> bool:
    """Say whether a signal has stopped a process; one that has ended is not stopped."""
    try:
        return _read(Path(f"/proc/{pid}/stat")).state == "T"
    except OSError:
        return False


def resident_below(ancestor: int) -> int:
    """Return the memory that a process's children, their children and so on hold."""
    children: dict[int, list[Process]] = {}
    for process in listed():
        children.setdefault(process.parent, []).append(process)
    below = [*children.get(ancestor, ())]
    for process in below:  # which grows meanwhile
        below += children.pop(process.pid, ())
    return sum(process.resident_bytes for process in below)


def end_session(leader: int) -> None:
    """Kill what a process has left that led a session of its own and is dead; as its new parent, wait for it too.

    No other process gets the leader's number while anything of its session or groups is left (POSIX.1-2017, fork).
    """
    left = [process for process in listed() if process.session == leader]
    if any(process.pid == leader and process.state != "Z" for process in left):
        return
    for process in left:
        with contextlib.suppress(OSError):
            os.kill(process.pid, signal.SIGKILL)
    for process in left:
        if process.parent == os.getpid():  # as process 1 of a container
            with contextlib.suppress(OSError):
                os.waitpid(process.pid, 0)


def adopt_orphans() -> None:
    """Become the parent of what this process's descendants leave behind, in place of process 1."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """Kill the processes that were left to this one, and wait for those that are dead.

    As process 1 of a container it is left others as well, such as those of somebody who looks around in there. Those
    are waited for only.
    """
    group, session = os.getpgrp(), os.getsid(0)
    for process in _children():
        if process.session == session and process.group in (group, process.pid):
            continue
        with contextlib.suppress(OSError):
            if os.getpid() != 1:
                os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, os.WNOHANG)


def first_to_kill(score: int) -> int | None:
    """Let the kernel, when memory runs out, end this process before others; return its score of before if that rose.

    Args:
        score: 0 for a process like any other, 1000 for the first (proc(5), oom_score_adj).
    """
    with contextlib.suppress(OSError, ValueError):  # no Linux
        before = int(_OOM_SCORE.read_text(encoding="ascii"))
        if before < score:
            _OOM_SCORE.write_text(str(score), encoding="ascii")
            return before
    return None


@contextlib.contextmanager
def starting_first_to_kill(score: int) -> Iterator[None]:
    """Do the same for the processes that are begun meanwhile: they inherit it.

    A confined worker may write to no other process's part of /proc. What this process had before it may have again:
    the kernel lets nobody without rights go below what somebody with rights has set, and it was not below that.
    """
    before = first_to_kill(score)
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                _OOM_SCORE.write_text(str(before), encoding="ascii")
