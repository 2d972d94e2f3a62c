"""What libraries write to a worker's stderr and stdout: the first lines of each job, as lines of the log.

A decoder writes a line for every small fault of a file, and a file of 5 MB has room for 300,000 of them. The pipe is
read by the daemon and not by the worker: a library may write while it holds the interpreter's lock, and its last words
before it dies are the ones that matter.
"""

import contextlib
import logging
import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Final, TextIO

log = logging.getLogger(__name__)

_MOST_LINES: Final = 20  # of one job
_MOST_CHARACTERS: Final = 300  # of one line
_MOST_BYTES: Final = 4 * _MOST_CHARACTERS  # UTF-8
_READ_BYTES: Final = 65536
_READS_AT_AN_END: Final = 64  # a library that still writes after its job's end must not delay the next job


def turn_to(pipe: Connection) -> TextIO:
    """Send the stdout and stderr of this process to the pipe, and return the former stderr."""
    before = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(pipe.fileno(), number)
    return before


class Said:
    """Listens to one worker process after the other, and logs what it hears under the job that runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: Connection | None = None
        self._thread: threading.Thread | None = None
        self._rest = b""
        self._begin(None)

    def listen(self, pipe: Connection) -> None:
        """Listen on a thread until the pipe's last writer closes it; the pipe is closed then."""
        os.set_blocking(pipe.fileno(), False)
        self._pipe = pipe
        self._thread = threading.Thread(target=self._listen, args=(pipe,), name="worker's stderr", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> None:
        """Wait for the end of the pipe that is listened to."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def job(self, job_id: str | None) -> None:
        """Log how much of the last job was left out; lines from now on are of this job, or of no job."""
        with self._lock:
            for _ in range(_READS_AT_AN_END):
                if self._pipe is None or not self._read(self._pipe):
                    break
            if self._rest:
                self._take(b"\n")
            if self._left_out:
                log.warning(
                    "lines of libraries that are left out here: %d", self._left_out, extra={"job": self._job, **_ACTION}
                )
            self._begin(job_id)

    def _begin(self, job_id: str | None) -> None:
        self._job = job_id
        self._room = _MOST_LINES
        self._left_out = 0

    def _listen(self, pipe: Connection) -> None:
        poll = select.poll()
        poll.register(pipe.fileno(), select.POLLIN)
        is_open = True
        while is_open:
            poll.poll()
            with self._lock:
                is_open = self._read(pipe) is not None
        with self._lock, pipe:
            if self._pipe is pipe:
                self._pipe = None

    def _read(self, pipe: Connection) -> int | None:
        """Take what is there; return how much that was, None at the end."""
        try:
            data = os.read(pipe.fileno(), _READ_BYTES)
        except BlockingIOError:
            return 0
        self._take(data)
        return len(data) or None

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n", self._room)
        for line in lines:
            self._tell(line)
        if not self._room:
            self._left_out += rest.count(b"\n")
            rest = rest[rest.rfind(b"\n") + 1 :]
        self._rest = rest[:_MOST_BYTES]

    def _tell(self, line: bytes) -> None:
        self._room -= 1
        text = line[:_MOST_BYTES].decode(errors="replace").strip()[:_MOST_CHARACTERS]
        with contextlib.suppress(
            Exception
        ):  # a failure to log must not stop the reading, or the worker would stand still
            log.warning("a library says: %s", text, extra={"job": self._job, **_ACTION})


_ACTION: Final = {"action": "library"}
