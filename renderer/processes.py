"""Processes: those that are left over, as the kernel lists them (proc(5)), and children that end with their parent.

**Left over.** A process that was left over is recognised by its session and group. Workers lead sessions of their own.
The children that this process begins by `subprocess` or multiprocessing are in its session, and either in its group or
the leader of another. So a child that is neither was begun by a process that has died, was handed on to this one, and
nobody else waits for its end.

**Lifelines.** A child ends with its parent, however that ends. It holds one end of a pipe whose other end only
its parent has. When the other end is gone, the kernel signals the owner of the child's end. Signal and owner are ours
to choose: SIGKILL, to the child's whole process group (fcntl(2), F_SETOWN and F_SETSIG). The child itself takes no part
in it. So this also ends programs that are not ours, stopped processes, and a Python whose lock a decoder holds.

No code of a program runs before its end of the pipe has an owner: until then its process is a shell that reads from a
second pipe, and ends if that is closed without a line. So there is no moment at which a parent can be killed and leave
a program behind.

PR_SET_PDEATHSIG looks simpler and is not: only the child can set it, between fork and exec, where a parent that has
threads must not run Python; it depends on the thread that forked and not on its process; and the children of the child
do not inherit it.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_OOM_SCORE = Path("/proc/self/oom_score_adj")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36  # prctl.h of Linux


@dataclass(frozen=True, slots=True)
class Process:
    """A process, or the zombie of one that nobody has waited for.

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
    """Return the processes that run now; none where there is no /proc."""
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
    """Return whether a signal has stopped a process; a process that has ended is not stopped."""
    try:
        return _read(Path(f"/proc/{pid}/stat")).state == "T"
    except OSError:
        return False


def room_for_data(pid: int) -> int | None:
    """Return how much more a process may allocate (setrlimit(2), RLIMIT_DATA); None if it has no limit or has ended."""
    if sys.platform != "linux":
        return None
    try:
        limit, _ = resource.prlimit(pid, resource.RLIMIT_DATA)
        return None if limit == resource.RLIM_INFINITY else limit - allocated_bytes(pid)
    except OSError:
        return None


def allocated_bytes(pid: int | str = "self") -> int:
    """Return what counts towards that limit: private memory that may be written, touched or not.

    Raises:
        OSError: there is no such process.
    """
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    sizes = (int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
    return next(sizes, 0)  # a zombie has no memory


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
    """Kill the processes that a dead leader of a session has left, and wait for those that have become our children.

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
    """Become the parent of the processes that descendants of this one leave behind, in place of process 1."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """Kill the processes that were left to this one, and wait for those that are dead.

    Process 1 of a container is left others as well, such as those of a person who works in the container. It waits for
    those, and does not kill them.
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
    with contextlib.suppress(OSError, ValueError):  # not on Linux
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


# A shell that becomes the program after its first argument as soon as it reads a line from the pipe of that number.
_WAITS: Final = ("/bin/sh", "-c", 'read -r _ <"/proc/self/fd/$1" && shift && exec "$@"', "sh")


def tie(pipe: int, owner: int) -> None:
    """Have a process killed as soon as no process can write to a pipe any more; at once if none can now.

    Args:
        pipe: the end that is read from; there is one owner for it, however many processes share it.
        owner: a process, or the negative of a process group.
    """
    if sys.platform != "linux":  # elsewhere the signal cannot be chosen
        return
    fcntl.fcntl(pipe, fcntl.F_SETOWN, owner)
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    look = select.poll()
    look.register(pipe, 0)
    if look.poll(0):  # POLLHUP, which need not be asked for
        os.kill(owner, signal.SIGKILL)


class Child(subprocess.Popen[bytes]):
    """A program that leads a process group, which ends with this process at the latest, and with the block it is for.

    It stays in the session of this process, which distinguishes it from the processes that workers leave.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Begin it; its pipes are not buffered.

        Raises:
            OSError: it cannot be begun.
        """
        self._pipe: tuple[int, ...] = ()
        with _waiting(command) as (held, waiting):
            self._pipe = os.pipe()
            try:
                super().__init__(
                    waiting,
                    bufsize=0,
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env=environment,
                    process_group=0,
                    pass_fds=(self._pipe[0], *held),
                )
            except BaseException:
                self._let_go()
                raise
            tie(self._pipe[0], -self.pid)

    def __exit__(self, *exc: Any) -> None:  # noqa: PYI036 - handed on as they come
        self.end()
        super().__exit__(*exc)

    def end(self) -> None:
        """Kill it and the processes that it has begun, unless they have ended; harmless when repeated.

        The kernel knows the group by more than its number, so this is safe after the child was waited for as well.
        """
        if not self._pipe:
            return
        if sys.platform != "linux":
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._let_go()

    def _let_go(self) -> None:
        read_end, write_end = self._pipe
        self._pipe = ()
        os.close(write_end)  # first, so that the pipe has an owner to signal even if the child has closed its end
        os.close(read_end)


@contextlib.contextmanager
def _waiting(command: Sequence[str]) -> Iterator[tuple[tuple[int, ...], Sequence[str]]]:
    """Yield a command that becomes this one at the end of the block, and the pipe that it needs for that.

    Raises:
        OSError: there is no such program.
    """
    if sys.platform != "linux":  # where nothing is tied
        yield (), command
        return
    if shutil.which(command[0]) is None:
        number = errno.EACCES if Path(command[0]).exists() else errno.ENOENT
        raise OSError(number, os.strerror(number), command[0])
    read_end, write_end = os.pipe()
    try:
        yield (read_end,), [*_WAITS, str(read_end), *command]
        os.write(write_end, b"\n")
    finally:
        os.close(write_end)
        os.close(read_end)


def answer(
    command: Sequence[str], *, timeout_s: float, stdin: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output.

    Args:
        stdin: what the program reads.

    Raises:
        OSError: it cannot be begun.
        TimeoutExpired: it did not end in time, and was killed.
    """
    with Child(command, environment=environment) as child:
        said = [words.decode(errors="replace") for words in child.communicate(stdin.encode(), timeout_s)]
    return subprocess.CompletedProcess(command, child.returncode, *said)
