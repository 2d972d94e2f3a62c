"""The code of a worker process: it gives up the rights that it does not need, and renders one job after another.

Only the fork server imports this module (fork_server.py), and workers inherit it from there; the daemon calls the
functions by their names (worker.py).
"""

import contextlib
import ctypes
import faulthandler
import logging
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from protocol.schema import Fault, Progress
from renderer.errors import StillreelError
from renderer.jobs.slots.base import RenderTask
from renderer.jobs.slots.confinement import Roots, confine, find, limit_process, overwrite_memory
from renderer.jobs.slots.delivery import Reporter, delivered
from renderer.jobs.slots.progress import ProgressSender
from renderer.jobs.slots.said import turn_to
from renderer.jobs.slots.worker import Terms
from renderer.media.perform import perform
from renderer.observe.job_log import configure_worker
from renderer.observe.logs import process_job
from renderer.pictures.marks import Cell, Marks
from renderer.pictures.memory import keep_freed_memory
from renderer.pipeline import render
from renderer.processes import allocated_bytes, first_to_kill, tie
from renderer.work import MediaJob, Report

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 300  # when memory runs out, workers are killed before the daemon and after the encoders
_KEPT_SHARE = 32  # of the memory limit; a worker that kept a quarter would be replaced (worker.py)
_imported_by = os.getpid()  # the fork server; workers inherit this number

_report_progress: Callable[[str, Progress], None] = lambda _job_id, _progress: None  # noqa: E731 - replaced by begin()

_marks = Marks()
_lifeline: Connection  # kept here because it must stay open


def begin(terms: Terms, pipes: tuple[Connection, Connection], cells: "ctypes.Array[Cell]") -> None:
    """Prepare a new worker process.

    Args:
        pipes: the lifeline, and the pipe for what libraries write to stderr.
    """
    global _report_progress, _marks, _lifeline  # noqa: PLW0603 - one process, one worker
    settings = terms.settings
    _lifeline, words = pipes
    configure_worker(terms.log, turn_to(words))
    _marks = Marks(cells)
    # faulthandler names the thread of a crash here. The file is appended to, because Pebble replaces a process at once
    # and the report of the last one has to stay.
    report = os.open(terms.crash_report, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    faulthandler.enable(report, all_threads=True)
    os.setsid()  # so that the children of this process can be found after its death
    os.write(report, f"process {os.getpid()} {_limit_memory(settings.worker_memory_bytes)}\n".encode("ascii"))
    first_to_kill(_OOM_SCORE)
    os.nice(settings.worker_nice)  # so that the daemon gets a core before its own workers, and answers in time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which drains
    signal.signal(signal.SIGTERM, lambda *_: _end())
    tie(_lifeline.fileno(), os.getpid())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # the fork server has one thread
        if _imported_by not in (os.getpid(), os.getppid()):
            _end()  # the fork server died before the call above
    limit_process(settings.worker_file_bytes)
    keep_freed_memory(settings.worker_memory_bytes // _KEPT_SHARE)
    if settings.overwrite_memory:
        overwrite_memory()
    if terms.roots is not None:
        _confine(terms.roots, terms.temporary)  # before another thread starts, which would not be confined
    _report_progress = ProgressSender(terms.progress_address)


def _limit_memory(size_bytes: int) -> int:
    """Limit the memory that this process may still allocate; return the limit, which the operator's own may lower."""
    if sys.platform != "linux":
        return size_bytes
    before = allocated_bytes()  # the libraries alone map 270 MiB, most of it never touched
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = before + size_bytes if most == resource.RLIM_INFINITY else min(before + size_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return limit - before


def _confine(roots: Roots, temporary: Path) -> None:
    """Deny this process all files but these and its temporary ones."""
    tempfile.tempdir = str(temporary)
    try:
        confine(roots | Roots(change=find(temporary)))
    except OSError as error:
        log.warning("a worker can reach all files that the daemon can: %s", error.strerror, extra={"action": "confine"})


def _end() -> None:
    """End this process at once; the kernel frees everything that it holds."""
    os.kill(os.getpid(), signal.SIGKILL)


def run(task: RenderTask) -> Report | Fault:
    """Do one job; every failure comes back as a value."""
    reporter = Reporter(lambda progress: _report_progress(task.job_id, progress))
    with process_job(task.job_id), _umask(task):
        try:
            if isinstance(task.work, MediaJob):
                return perform(task.work, task.output, task.settings, on_progress=reporter.say, marks=_marks)
            report = render(
                task.work, task.output, task.settings, on_progress=reporter.say, marks=_marks, cache=task.cache
            )
            return delivered(task, report, reporter)
        except StillreelError as error:
            return error.fault()
        except MemoryError:
            return Fault(type="internal_error", message="the job needs more memory than a worker may take")
        except Exception:
            log.exception("the job failed with an unexpected error")
            return Fault(type="internal_error", message="the renderer failed; the server's log says why")


@contextlib.contextmanager
def _umask(task: RenderTask) -> Iterator[None]:
    """Make the files of a job unreadable to other users if its task is private; a worker has one job at a time."""
    before = os.umask(0o077)
    try:
        if not task.is_private:
            os.umask(before)
        yield
    finally:
        os.umask(before)
