"""What a person sees of a batch: on a terminal a table that is drawn in place, elsewhere a line per video."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final, TextIO

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from renderer.batch.places import Output
from renderer.batch.plan import printable
from renderer.batch.run import Failure, Tally, View
from renderer.work import RenderReport

_STDERR: Final = 2
_KEPT_AT_ONCE_BYTES: Final = 1 << 16
_WIDTH_MAX: Final = 96
_NAME_MAX: Final = 40
_NAMED_MAX: Final = 10
_LINES_BESIDE: Final = 9  # of the terminal: the table, the bar, the last failure, and some air


@contextmanager
def watching(console: Console) -> Iterator[View]:
    """Lend the view that suits the console, which is on stderr: a table for a terminal, else lines."""
    if not console.is_terminal or console.is_dumb_terminal or not os.isatty(_STDERR):
        yield Lines(console)
        return
    with _stderr_kept() as (terminal, kept):
        console = Console(file=terminal)
        with Live(console=console, auto_refresh=False, transient=True) as live:
            view = LiveTable(live, terminal, kept)
            try:
                yield view
            finally:
                view.show_kept()


@contextmanager
def _stderr_kept() -> Iterator[tuple[TextIO, BinaryIO]]:
    """Keep the stderr of this process and of the workers out of the way of the table.

    libpng and libjpeg write about damaged files there, and logging does. A file takes it and not a pipe, since a full
    pipe would make them wait for the table. Yields the terminal, and that file.
    """
    sys.stderr.flush()
    before = os.dup(_STDERR)
    with (
        os.fdopen(before, "w", encoding=sys.stderr.encoding, errors="replace") as terminal,
        tempfile.TemporaryFile() as kept,
    ):
        os.dup2(kept.fileno(), _STDERR)
        try:
            yield terminal, kept
        finally:
            sys.stderr.flush()
            os.dup2(before, _STDERR)


class Lines(View):
    """Writes one line for each video that is done or has failed."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def done(self, tally: Tally, name: str, output: Output, report: RenderReport) -> None:
        facts = f"{report.facts.frames} frames in {report.timings['total']:.2f} s"
        self._say(tally, f"done    {printable(name)} -> {printable(output.name)}, {facts}")

    def failed(self, tally: Tally, failure: Failure) -> None:
        self._say(tally, f"failed  {_told(failure)}")

    def _say(self, tally: Tally, words: str) -> None:
        place = f"{tally.settled}/{'?' if tally.expected is None else tally.expected}"
        with suppress(OSError):  # nobody may be there any more, and the batch goes on
            self._console.print(Text(f"[{place}] {words}"), soft_wrap=True)


class LiveTable(View):
    """Shows counts, speed and what is left, with a bar for each video that is being made."""

    def __init__(self, live: Live, terminal: TextIO, kept: BinaryIO) -> None:
        """Draw on a terminal.

        Args:
            terminal: what the live display is drawn on.
            kept: what was written to stderr; shown above the table, so that it scrolls away.
        """
        self._live = live
        self._terminal = terminal
        self._kept = kept
        self._shown_bytes = 0

    def tick(self, tally: Tally) -> None:
        with suppress(OSError):  # the terminal may be gone, and the batch goes on
            size = os.get_terminal_size(self._terminal.fileno())
            self._live.console.size = ConsoleDimensions(size.columns or 80, size.lines or 24)
            self.show_kept()
            self._live.update(picture(tally, *self._live.console.size), refresh=True)

    def show_kept(self) -> None:
        """Show the new lines of stderr."""
        new = os.pread(self._kept.fileno(), _KEPT_AT_ONCE_BYTES, self._shown_bytes)
        whole = new[: new.rfind(b"\n") + 1] if len(new) < _KEPT_AT_ONCE_BYTES else new
        self._shown_bytes += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._live.console.print(Text(printable(line), style="dim"), soft_wrap=True)


def picture(tally: Tally, columns: int, rows: int) -> RenderableType:
    """Draw how the batch is doing in a window of that many columns and rows."""
    width = min(columns - 2, _WIDTH_MAX)
    grid = Table.grid(padding=(0, 0, 0, 1))
    grid.add_column(max_width=width + 1)
    grid.add_row(_counts(tally, width))
    grid.add_row(_bar(tally.settled, tally.expected, width))
    grid.add_row()
    grid.add_row(_running(tally, width, max(1, rows - _LINES_BESIDE)))
    if tally.failures:
        last = f"failed: {_told(tally.failures[-1])}"
        grid.add_row(Text(last, style="red", no_wrap=True, overflow="ellipsis"))
    return grid


def _counts(tally: Tally, width: int) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0), pad_edge=False)
    left = None if tally.expected is None else tally.expected - tally.settled
    cells = {
        "done": Text(f"{tally.done:,}", style="green" if tally.done else ""),
        "skipped": Text(f"{tally.skipped:,}"),
        "failed": Text(f"{tally.failed:,}", style="bold red" if tally.failures else ""),
        **({"warned": Text(f"{_warned(tally):,}", style="yellow")} if tally.warnings else {}),
        "left": Text("" if left is None else f"{left:,}"),
        "frames/s": Text("" if tally.frames_per_s is None else f"{tally.frames_per_s:,.0f}"),
        "elapsed": Text(clock(tally.elapsed_s)),
        "eta": Text("" if tally.eta_s is None else clock(tally.eta_s)),
    }
    least = 8 if width >= 10 * len(cells) else None
    for name in cells:
        table.add_column(name, justify="right", min_width=least, no_wrap=True)
    table.add_row(*cells.values())
    return table


def _running(tally: Tally, width: int, most: int) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=min(_NAME_MAX, width // 2))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    running = list(tally.running.values())
    for each in running[:most]:
        seen = each.progress
        words = f"{seen.frames_done}/{seen.frames}" if seen.stage == "rendering" else seen.stage
        table.add_row(Text(printable(each.name)), _bar(seen.frames_done, seen.frames, width // 4), Text(words, "dim"))
    if len(running) > most:
        table.add_row(Text(f"and {len(running) - most} more", style="dim"))
    return table


def _bar(completed: int, total: int | None, width: int) -> ProgressBar:
    return ProgressBar(total=total, completed=completed, width=width, pulse=total is None)


def summary(tally: Tally, shard: str | None = None) -> list[Text]:
    """Return the last lines: one with the counts, then one for each failure."""
    counts = [f"{tally.done:,} done"]
    counts += [f"{tally.skipped:,} finished before"] if tally.skipped else []
    counts += [f"{tally.failed:,} failed"] if tally.failures else []
    counts += [f"{len(tally.left_out):,} left out"] if tally.left_out else []
    counts += [f"{_warned(tally):,} with warnings"] if tally.warnings else []
    if tally.total == 0:
        counts = ["no manifest in it" if shard else "no manifest found; --hold takes directories of images too"]
    words = ", ".join(counts)
    if tally.done:
        words += f": {tally.frames:,} frames in {clock(tally.elapsed_s)}"
        words += f", {tally.frames_per_s:,.0f} frames/s" if tally.frames_per_s else ""
    if shard:
        words = f"shard {shard}: {words}"
    if tally.stopped:
        words = f"stopped: {words}; run it again to go on"
    lines = [Text(words, style="bold"), *(Text(f"failed: {_told(each)}", style="red") for each in tally.failures)]
    notes = [f"left out: {each.name}: {each.why}" for each in tally.left_out]
    notes_of_videos = [f"warning: {each.name}: {each.warning}" for each in tally.warnings]
    return [*lines, *_named("left out", notes), *_named("warning", notes_of_videos)]


def _named(what: str, notes: list[str]) -> list[Text]:
    """Return the first few notes, and how many there are beside them."""
    lines = [Text(printable(note), style="yellow") for note in notes[:_NAMED_MAX]]
    more = len(notes) - len(lines)
    return [*lines, *([Text(f"{what}: {more:,} more; --json names all", style="yellow")] if more > 0 else [])]


def _warned(tally: Tally) -> int:
    return len({each.name for each in tally.warnings})


def clock(seconds: float) -> str:
    """Write a time as people do: 0:07, 12:30, 3:05:00."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _told(failure: Failure) -> str:
    return printable(f"{failure.name}: {failure.fault.message}")
