"""The log of each job: the lines of the daemon and of its workers that are about the job, in a file of its own."""

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TextIO

from renderer.config import MEBIBYTE
from renderer.disk import try_lock
from renderer.observe.logs import JOB_ID, JsonFormatter, LogFormat, configure, install, job_of

log = logging.getLogger(__name__)

LOG_NAME: Final = "log.jsonl"
DirectoryOf = Callable[[str], Path | None]

_CUT: Final = b'"action":"log_cut"}\n'
_CUT_ROOM = 512  # bytes kept free for the line that says that the log was cut
_LOCK_TRIES = 50  # of a millisecond


@dataclass(frozen=True, slots=True)
class WorkerLog:
    """How a worker process logs; `logs` holds one directory per job, named by its id. None: jobs have no logs."""

    level: int = logging.WARNING
    log_format: LogFormat = "text"
    logs: Path | None = None


def configure_worker(settings: WorkerLog, stderr: TextIO | None = None) -> None:
    """Have a new worker process log as its daemon does, to the stderr that it has inherited."""
    configure(settings.level, settings.log_format, stderr)
    if settings.logs is not None:
        # A directory that is missing was removed with its job, and a late worker must not make it again.
        install(JobLogs(below(settings.logs), makes_directories=False))


def below(logs: Path) -> DirectoryOf:
    """Return a function that names a job's directory below `logs`; None for an id that is unfit for a file name."""
    return lambda job_id: logs / job_id if JOB_ID.fullmatch(job_id) else None


class JobLogs(logging.Handler):
    """Appends the lines of each job to a file of its own, `log.jsonl` in the job's directory.

    The daemon and a worker write to the same file. Each line is one write to a file that is opened for it, so that
    thousands of jobs hold no descriptor, and is made under the file's lock, so that the bound is kept. As a context
    manager it listens to all loggers. Lines that cannot be written are lost; the daemon's log tells of the first one.
    """

    def __init__(self, directory_of: DirectoryOf, *, max_bytes: int = MEBIBYTE, makes_directories: bool = True) -> None:
        """Remember where logs go and how long they may grow.

        Args:
            directory_of: from a job's id; None for a job whose lines are not kept. Called where the line is logged.
            max_bytes: of one job's log; after that comes one last line, which says so.
            makes_directories: whether the first line makes the job's directory (mode 0700), in one that is there.
        """
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._directory_of = directory_of
        self._max_bytes = max_bytes
        self._makes_directories = makes_directories
        self._is_busy = False
        self._is_failing = False

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
        self.close()

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_busy:  # the functions called below log as well; the handler's lock keeps other threads out
            return
        self._is_busy = True
        try:
            self._write(record)
        except FileNotFoundError:
            pass  # the directory was removed with its job
        except Exception as error:  # noqa: BLE001 - the code that logs must not fail because of its log
            if not self._is_failing:
                self._is_failing = True
                log.warning("lines are missing in the logs of jobs: %s", error, extra={"action": "log_lost"})
        finally:
            self._is_busy = False

    def _write(self, record: logging.LogRecord) -> None:
        job = job_of(record)
        directory = self._directory_of(job) if job else None
        if directory is None:
            return
        line = self._line(record)
        file = self._open(directory)
        try:
            self._append(file, line, job)
        finally:
            os.close(file)
        self._is_failing = False

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode("ascii")

    def _append(self, file: int, line: bytes, job: str | None) -> None:
        """Append a line; where it has no room, the log's last line instead, and nothing after that."""
        is_locked = _lock(file)
        size = os.fstat(file).st_size
        tail = os.pread(file, len(_CUT), max(0, size - len(_CUT)))
        if tail == _CUT:
            return
        if size + len(line) + _CUT_ROOM > self._max_bytes:
            line = self._line(_cut(job, self._max_bytes))
        if tail and not tail.endswith(b"\n"):
            line = b"\n" + line  # a process was killed in the middle of a line
        if os.write(file, line) < len(line):
            if is_locked:
                os.ftruncate(file, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, directory: Path) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(directory / LOG_NAME, flags, 0o600)
        except FileNotFoundError:
            if not self._makes_directories:
                raise
        directory.mkdir(mode=0o700, exist_ok=True)
        return os.open(directory / LOG_NAME, flags, 0o600)


def _cut(job: str | None, max_bytes: int) -> logging.LogRecord:
    """Return the last line of a job's log that is full; `_CUT` is how it ends."""
    words = f"the log of this job ends here: it may have {max_bytes} bytes"
    fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "job": job, "action": "log_cut"}
    return logging.makeLogRecord({**fields, "msg": words})


def _lock(file: int) -> bool:
    """Lock the file until it is closed; give up after a while, for a process that was stopped may have the lock.

    Without the lock a line is still whole (O_APPEND), but the log may pass its bound, and have its last line twice.
    """
    for _ in range(_LOCK_TRIES):
        if (is_locked := try_lock(file)) is not False:
            return bool(is_locked)
        time.sleep(0.001)
    return False
