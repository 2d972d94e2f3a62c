"""Log lines: for people or as JSON, each with its job, none with a secret.

A line says which job it is about: `extra={"job": ...}` if given, else the job of the context that logs (asyncio tasks
inherit it), else the job of the whole process. The last is for workers: a thread does not inherit the context of the
thread that starts it, and native libraries call back in threads of their own, but a worker renders one job at a time.
Lines that a thread logs after its job has ended would then count for the next job; so a pool that may outlive its job
is given the job when it is made: `ThreadPoolExecutor(initializer=current_job.set, initargs=(current_job.get(),))`.
"""

import contextlib
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from renderer.observe.redaction import bounded, printable, redact

log = logging.getLogger(__name__)

LogFormat = Literal["text", "json"]

current_job: ContextVar[str | None] = ContextVar("current_job", default=None)
_process_job: str | None = None

_MAX_DEPTH = 6  # of lists and objects in extras; one that holds itself has no end
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "job", "action"}
_HIDDEN = _STANDARD | {"exc", "color_message"}  # the second is uvicorn's message again, in colours
# A request_id as in protocol.schema, behind whose it is where a key owns the job; fit for the name of a directory.
JOB_ID = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._@-]{0,95}~)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def configure(level: int | str, log_format: LogFormat = "text", stderr: TextIO | None = None) -> None:
    """Write this process's log to stderr; in place of what an earlier call set up, if there was one.

    Args:
        stderr: where to write; None: to `sys.stderr` as it is when each line is written.
    """
    handler = _StderrHandler(stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    install(handler)
    logging.getLogger().setLevel(level)


@contextlib.contextmanager
def job_context(job_id: str) -> Iterator[None]:
    """Mark the lines that this task or thread logs as being about a job."""
    token = current_job.set(job_id)
    try:
        yield
    finally:
        current_job.reset(token)


@contextlib.contextmanager
def process_job(job_id: str) -> Iterator[None]:
    """Mark the lines that all threads of this process log as being about a job; workers have one job at a time."""
    global _process_job  # noqa: PLW0603 - it is the process that has a job
    before, _process_job = _process_job, job_id
    try:
        with job_context(job_id):
            yield
    finally:
        _process_job = before


def job_of(record: logging.LogRecord) -> str | None:
    """Return the job that a record is about; to be called where it was logged."""
    job = getattr(record, "job", None) or current_job.get() or _process_job
    return None if job is None else str(job)


class TextFormatter(logging.Formatter):
    """One line for people; a traceback follows it indented."""

    def format(self, record: logging.LogRecord) -> str:
        job = job_of(record) or "-"
        job = job if JOB_ID.fullmatch(job) or job == "-" else json.dumps(job)  # a space would begin another field
        line = f"{_moment(record)} {record.levelname} {record.name} job={job} {_message(record)}"
        exception = _exception(record)
        return "\n    ".join(map(printable, [line, *(exception.split("\n") if exception else ())]))


class JsonFormatter(logging.Formatter):
    """One JSON object on one line; ASCII, so that no reader sees a line break within it."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "ts": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "job": job_of(record),
        }
        if isinstance(action := getattr(record, "action", None), str):
            fields["action"] = redact(action)
        for name, value in vars(record).items():  # what begins with "_" is a library's own, such as Ray's clock
            if name not in _HIDDEN and name not in fields and not name.startswith("_"):
                with contextlib.suppress(TypeError):
                    fields[name] = _plain(value)
        if exception := _exception(record):
            fields["exc"] = exception
        return json.dumps(fields, separators=(",", ":"))


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to the present `sys.stderr`, which the tests of commands and a terminal's progress bar replace."""

    def __init__(self, stderr: TextIO | None = None) -> None:
        logging.Handler.__init__(self)
        self._stderr = stderr

    @property
    def stream(self) -> TextIO:  # type: ignore[override] # the base class sets what is looked up here
        return self._stderr or sys.stderr

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: stderr is gone, and there is nowhere else to say so."""


def install(handler: logging.Handler) -> None:
    """Let the root logger have one handler of this kind."""
    root = logging.getLogger()
    for old in [other for other in root.handlers if type(other) is type(handler)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message must not cost the line
        text = f"{record.msg!r} with arguments that do not fit it: {record.args!r}"
    return bounded(redact(text))


def _exception(record: logging.LogRecord) -> str:
    """Return the traceback and the stack that a record brings, empty for none."""
    if not (record.exc_info or record.stack_info):
        return ""
    parts = [logging.Formatter().formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    return bounded(redact("\n".join([*parts, record.stack_info] if record.stack_info else parts)))


def _plain(value: object, depth: int = 0) -> Any:
    """Return an extra as JSON takes it, without secrets.

    Raises:
        TypeError: JSON has no such value.
    """
    if value is None or (isinstance(value, int | float) and abs(value) <= sys.float_info.max):  # not NaN either
        return value
    if isinstance(value, str):
        return bounded(redact(value))
    if depth < _MAX_DEPTH and isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {redact(str(name)): _plain(item, depth + 1) for name, item in value.items()}
    raise TypeError(f"no JSON: {type(value).__name__}")
