"""`stillreel` as its users run it: a child process, with pipes or on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from tests import warm

Ended = subprocess.CompletedProcess[str]

COMMAND = [sys.executable, "-m", "renderer"]


def run(*arguments: str | Path, cwd: Path, stdin: str = "", **environment: str) -> Ended:
    """Run it to its end, with pipes."""
    return warm.run([*map(str, arguments)], environment={**os.environ, **environment}, stdin=stdin, cwd=cwd)


def failed(ended: Ended, code: int) -> str:
    """Check that a command ended with a code, nothing on stdout and one line on stderr; return the line."""
    assert (ended.returncode, ended.stdout) == (code, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    return line


class Terminal:
    """It runs with this pseudo-terminal for stdin, stdout and stderr; `drawn` is all that it has written so far."""

    def __init__(self, *arguments: str | Path, columns: int = 100) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        hidden = {"COLUMNS", "NO_COLOR"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | {"TERM": "xterm"}
        self.drawn = ""
        self._child = warm.begin(
            [*map(str, arguments)], environment=environment, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)

    @property
    def words(self) -> str:
        """What was drawn, without colours and cursor movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.drawn)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._child.send_signal(2)

    def read_until(self, is_enough: Callable[[str], bool], deadline_s: float = 90) -> None:
        """Read on until the words are enough, or it has ended."""
        ends_at = time.monotonic() + deadline_s
        while not is_enough(self.words):
            assert time.monotonic() < ends_at, f"not within {deadline_s:g} s; drawn: ...{self.words[-500:]!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.drawn += os.read(self._master, 65536).decode(errors="replace")
                except OSError:  # EIO: the child has closed its side
                    return

    def ended(self) -> int:
        """Read to the end and return the exit code."""
        self.read_until(lambda _: False)
        return self._child.wait(90)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._master)
