"""What the command line shows: a progress bar, the table of jobs, and the lines for a status, a result and an error.

Results go to stdout, messages and bars to stderr, so that a pipe only gets the answer. Text from elsewhere is escaped,
because an error may quote a file's name, and a terminal would obey control characters in it.

The library that draws (rich) is imported where it is used, so commands that print plain lines need not wait for it.
Nor do those that show a status wait for the models of the schema: a status is shown by its fields.
"""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

import click

from renderer.observe.redaction import printable

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.text import Text

    from protocol.schema import Health, JobStatus, LogLine, Progress, RenderResult, ResultWarning

ShowProgress = Callable[["JobStatus | Progress"], None]
Shown = Mapping[str, Any]  # the fields of a JobStatus

_BARE_STATES = {"IN_QUEUE": "queued", "IN_PROGRESS": "running", "COMPLETED": "done"}
_STYLES = {"failed": "red", "expired": "red", "cancelled": "yellow", "running": "green"}
_COLUMNS = ("request_id", "state", "images", "frames", "age", "took")
_LEFT_ALIGNED = 2


@functools.cache
def _err() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - drawn with only now

    return Console(stderr=True)


def keep_stdout() -> None:
    """Let libraries that print write to stderr from now on, since stdout may be the video that somebody waits for.

    OpenJPH, which reads OpenEXR's HTJ2K, is one of them.
    """
    ours: TextIO | None = sys.stdout
    if ours is None:  # it was closed before the command began
        return
    with contextlib.suppress(OSError):  # one of the two is closed
        kept = os.dup(ours.fileno())
        os.dup2(2, ours.fileno())
        sys.stdout = os.fdopen(
            kept, "w", encoding=ours.encoding, errors=ours.errors, buffering=1 if ours.isatty() else -1
        )


def show_error(message: str) -> None:
    """Print one line on stderr."""
    _say("error:", "bold red", message)


def show_note(message: str) -> None:
    """Print one line on stderr that is not an error."""
    click.echo(printable(message), err=True)


def _say(word: str, style: str, message: str) -> None:
    from rich.text import Text  # noqa: PLC0415 - drawn with only now

    _err().print(Text.assemble((word, style), " ", printable(message)), soft_wrap=True)


@contextlib.contextmanager
def progress_bar(*, quiet: bool) -> Iterator[ShowProgress]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    with _bar(_err()) as show:
        yield show


@contextlib.contextmanager
def _bar(err: "Console") -> Iterator[ShowProgress]:
    from rich import progress  # noqa: PLC0415 - drawn with only now

    from protocol.schema import JobStatus  # noqa: PLC0415 - who reports progress has imported it

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[frames]}"),
        progress.TimeElapsedColumn(),
        progress.TextColumn("eta"),
        progress.TimeRemainingColumn(compact=True),
    )
    with progress.Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("queued", total=None, frames="")

        def show(seen: "JobStatus | Progress") -> None:
            done = seen.progress if isinstance(seen, JobStatus) else seen
            ahead = seen.queue_position if isinstance(seen, JobStatus) else None
            stage = done.stage if ahead is None else f"{done.stage}, {ahead} ahead"
            # An encoder may hold all frames back until the end; none of them is coded then, which says nothing.
            counted = f"{done.frames_done}/{done.frames} frames" if done.frames_done else f"{done.frames} frames"
            total = done.frames if done.frames_done else None
            bar.update(task, description=stage, total=total, completed=done.frames_done, frames=counted)

        yield show


def show_status(seen: Shown, *, as_json: bool) -> None:
    """Print a job's status, and on stderr the error of one that failed."""
    line = status_line(seen)
    if as_json:
        click.echo(json.dumps(seen, indent=2, ensure_ascii=False))
        return
    click.echo(line)
    if error := seen.get("error"):
        show_error(error["message"])


def show_cancelled(seen: "Sequence[JobStatus]", *, as_json: bool) -> None:
    """Print a line for every job that was cancelled, which is not an error here."""
    if as_json:
        _show_json(seen)
        return
    for job in seen:
        click.echo(status_line(job.model_dump()))
    if not seen:
        show_note("none of your jobs is waiting or running")


def status_line(seen: Shown) -> str:
    """Return a job's status in one line.

    Raises:
        KeyError, TypeError, AttributeError: a field that it shows is missing, or holds something else.
    """
    parts = [state_name(seen)]
    if (ahead := seen.get("queue_position")) is not None:
        parts.append(f"{ahead} ahead")
    if (attempts := seen.get("attempts", 0)) > 1:
        parts.append(f"attempt {attempts}")
    if seen["progress"]["frames"]:
        parts.append(f"{_coded(seen['progress'])} frames")
    return f"{printable(seen['request_id'])}: {', '.join(parts)}"


def _coded(progress: Shown) -> str:
    """Return how many of the frames are coded; the stills say less, because encoders hold frames back."""
    frames = progress["frames"]
    return str(frames) if progress.get("stage") == "done" else f"{progress.get('frames_done', 0)}/{frames}"


def state_name(seen: Shown) -> str:
    """Return the precise state, or what can be derived of it if the daemon is of an earlier version."""
    state: str = seen.get("state") or ("failed" if seen.get("error") else _BARE_STATES[seen["status"]])
    return state


def show_result(made: "RenderResult", *, as_json: bool, on_stderr: bool = False) -> None:
    """Print a result, on stderr if stdout has the video itself; warnings always go to stderr."""
    show_warnings(made.warnings)
    if as_json:
        _show_json(made)
        return
    if not on_stderr:
        for file in made.files().values():
            click.echo(printable(file.url))
    seconds = f", rendered in {made.timings['total']:.2f} s" if "total" in made.timings else ""
    click.echo(
        f"{made.frames} frames, {made.duration:.3f} s at {printable(made.fps)} fps, {made.width}x{made.height}, "
        f"{made.video.file_size} bytes, {printable(made.encoder)}{seconds}",
        err=on_stderr,
    )


def show_warnings(warnings: "Iterable[ResultWarning]") -> None:
    """Print the warnings about a video on stderr."""
    for warning in warnings:
        _say("warning:", "yellow", str(warning))


def show_log(lines: "Sequence[LogLine]", *, as_json: bool) -> None:
    """Print a line per event."""
    if as_json:
        _show_json(lines)
        return
    for line in lines:
        click.echo(printable(f"{line.timestamp} {line.level:<5} {line.message}"))
    if not lines:
        show_note("the job's log is empty or was removed")


def show_health(seen: "Health", *, as_json: bool) -> None:
    """Print whether a job would be accepted now, or why not."""
    if as_json:
        _show_json(seen)
    elif seen.ready:
        if not seen.workers:
            waiting = f"{seen.jobs_queued} {'job waits' if seen.jobs_queued == 1 else 'jobs wait'}"
            click.echo(f"ready: jobs are accepted, but none can run: no node offers slots; {waiting}")
            return
        work = f"{seen.jobs_running} of {seen.workers} workers render, {seen.jobs_queued} jobs wait"
        is_spread = any(each.node for each in seen.slots)
        places = [
            f"{each.busy} of {each.slots} {f'on {each.node}' if each.node else 'here'} ({each.encoder})"
            for each in seen.slots
            if is_spread
        ]
        click.echo(printable("; ".join([f"ready: {work}, encoder {seen.encoder}", *places])))
    else:
        click.echo(f"not ready: {printable('; '.join(seen.reasons))}")


def show_jobs(jobs: "Sequence[JobStatus]", *, as_json: bool) -> None:
    """Print a line per job."""
    if as_json:
        _show_json(jobs)
        return
    from rich.console import Console  # noqa: PLC0415 - drawn with only now

    out = Console()
    shown = [job.model_dump() for job in jobs]
    for line in job_lines(shown, datetime.now(UTC), out.width if out.is_terminal else None):
        out.print(line, soft_wrap=True)


@contextlib.contextmanager
def jobs_display(*, as_json: bool) -> "Iterator[Callable[[Sequence[JobStatus]], None]]":
    """Lend a function that shows jobs: redrawn on a terminal, elsewhere a line for each change."""
    from rich.console import Console, Group  # noqa: PLC0415 - drawn with only now
    from rich.live import Live  # noqa: PLC0415 - as above

    out = Console()
    if as_json or not out.is_terminal:
        printed: dict[str, str] = {}

        def show(jobs: "Sequence[JobStatus]") -> None:
            lines = {
                job.request_id: job.model_dump_json() if as_json else _change_line(job.model_dump()) for job in jobs
            }
            for line in (line for name, line in lines.items() if printed.get(name) != line):
                click.echo(line)
            printed.clear()
            printed.update(lines)

        yield show
        return
    with Live(console=out, auto_refresh=False) as live:

        def draw(jobs: "Sequence[JobStatus]") -> None:
            heading, *lines = job_lines([job.model_dump() for job in jobs], datetime.now(UTC), None)
            shown = [heading, *lines[-max(1, out.height - 2) :]]
            for line in shown:
                line.truncate(out.width, overflow="ellipsis")
            live.update(Group(*shown), refresh=True)

        yield draw


def _change_line(job: Shown) -> str:
    return f"{status_line(job)}: {printable(job['error']['message'])}" if job["error"] else status_line(job)


def job_lines(jobs: Sequence[Shown], now: datetime, width: int | None) -> "list[Text]":
    """Return a heading and a line per job, with an error at its end, or below it if it would not fit.

    Args:
        width: columns of the terminal; None if every job must be on one line.
    """
    from rich.text import Text  # noqa: PLC0415 - drawn with only now

    rows = [_COLUMNS, *(_row(job, now) for job in jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    heading, *lines = [
        "  ".join(
            cell.ljust(size) if number < _LEFT_ALIGNED else cell.rjust(size)
            for number, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [Text(heading, "bold"), *(_with_error(line, job, width) for line, job in zip(lines, jobs, strict=True))]


def _row(job: Shown, now: datetime) -> tuple[str, ...]:
    accepted_at, started_at, progress = job["accepted_at"], job["started_at"], job["progress"]
    age = now - accepted_at if accepted_at else None
    took = (job["finished_at"] or now) - started_at if started_at and state_name(job) != "queued" else None
    # A job of another app, such as metadata, has neither stills nor frames.
    size = (str(progress["images"]), _coded(progress)) if progress["frames"] else ("-", "-")
    cells = (*size, span_words(age), span_words(took))
    return printable(job["request_id"]), state_name(job), *cells


def _with_error(line: str, job: Shown, width: int | None) -> "Text":
    from rich.cells import cell_len  # noqa: PLC0415 - drawn with only now
    from rich.text import Text  # noqa: PLC0415 - as above

    style = _STYLES.get(state_name(job), "")
    if job["error"] is None:
        return Text(line, style)
    error = printable(job["error"]["message"])
    is_room = width is None or len(line) + 2 + cell_len(error) <= width
    return Text(f"{line}  {error}" if is_room else f"{line}\n  {error}", style)


def span_words(span: timedelta | None) -> str:
    """Return a length of time in up to six characters: 4.2s, 3m05s, 2h10m, 5d03h; never below zero."""
    if span is None:
        return "-"
    # The daemon's clock may be ahead of ours.
    seconds = max(0.0, span.total_seconds())
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours = minutes // 60
    if not hours:
        return f"{minutes}m{rest:02}s"
    if hours < 24:
        return f"{hours}h{minutes % 60:02}m"
    return f"{hours // 24}d{hours % 24:02}h"


def show_findings(findings: Iterable[tuple[bool, str, str]]) -> None:
    """Print what `doctor` has tried: whether it works, its name, and what was found."""
    from rich.console import Console  # noqa: PLC0415 - drawn with only now
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table("", "what", "found", box=None)
    for works, what, found in findings:
        table.add_row(Text("ok", "green") if works else Text("no", "yellow"), what, Text(printable(found)))
    Console().print(table)


def _show_json(value: "BaseModel | Sequence[BaseModel]") -> None:
    from pydantic_core import to_json  # noqa: PLC0415 - there is a model of it

    click.echo(to_json(value, indent=2))
