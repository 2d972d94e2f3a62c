"""Child processes that end with whoever began them, however that came to its end.

A child holds one end of a pipe whose other end only its parent has. When that is gone the kernel signals the owner of
the child's end, and both are ours to choose: SIGKILL, to the child's whole process group (fcntl(2), F_SETOWN and
F_SETSIG). Nothing in the child takes part in it. So it ends programs of others, processes that are stopped, and Python
whose lock a decoder does not let go of.

Nothing of a program runs before its end of the pipe has an owner: until then its process is a shell that reads from a
second pipe, and ends where that ends with nothing said. So there is no moment at which a parent can be killed and leave
a program behind.

PR_SET_PDEATHSIG looks simpler and is not: only the child can set it, between fork and exec, where a parent that has
threads must not run Python; it goes by the thread that forked and not by its process; and what the child itself begins
does not get it.
"""

import contextlib
import errno
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

# Becomes the program after its first argument as soon as it is told a line by the pipe of that number.
_WAITS: Final = ("/bin/sh", "-c", 'read -r _ <"/proc/self/fd/$1" && shift && exec "$@"', "sh")


def tie(pipe: int, owner: int) -> None:
    """Have a process killed as soon as nobody can write to a pipe any more; at once where nobody can already.

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

    It stays in this process's session: that tells it from what workers leave (processes.py).
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
        """Kill it and what it has begun, as far as that has not ended yet; harmless when repeated.

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
        os.close(write_end)  # first, so that there is somebody to be signalled for whatever the child has closed
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
    command: Sequence[str], *, timeout_s: float, told: str = "", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said.

    Args:
        told: what it reads from its stdin.

    Raises:
        OSError: it cannot be begun.
        TimeoutExpired: it did not end in time, and was killed.
    """
    with Child(command, environment=environment) as child:
        said = [words.decode(errors="replace") for words in child.communicate(told.encode(), timeout_s)]
    return subprocess.CompletedProcess(command, child.returncode, *said)
