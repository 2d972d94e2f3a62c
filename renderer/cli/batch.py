"""The command `stillreel batch`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from renderer import config
from renderer.cli import usage
from renderer.cli.render import (
    assigned,
    audio_option,
    canvas_option,
    gaps_option,
    on_error_option,
    scaling_option,
    set_option,
    sounds,
)
from renderer.cli.usage import PATH, config_option, json_option
from renderer.errors import ConfigError

if TYPE_CHECKING:
    from renderer.batch.plan import Plan
    from renderer.batch.run import Tally


@click.command(epilog=usage.BATCH)
@click.argument("directory", type=PATH, metavar="DIR")
@click.option("--out", type=PATH, required=True, metavar="DIR", help="Where the videos go, in the same subdirectories.")
@click.option(
    "--shard", metavar="I/N", help="Render part I of N, from 0 to N-1; auto or auto/N reads a job array's variables."
)
@click.option(
    "--hold",
    metavar="FRAMES",
    help="Also make videos of directories of images, each image held for 24 frames or 1.5s.",
)
@scaling_option
@canvas_option
@gaps_option
@on_error_option
@audio_option
@set_option
@click.option("--jobs", "-j", type=click.IntRange(min=1), metavar="NUMBER", help="How many videos to make at a time.")
@json_option
@config_option
def batch(
    directory: Path,
    *,
    out: Path,
    shard: str | None,
    hold: str | None,
    scaling: str | None,
    canvas: str | None,
    gaps: str | None,
    on_error: str | None,
    audio: tuple[str, ...],
    assignments: tuple[str, ...],
    jobs: int | None,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Render every manifest below a directory, without a daemon. Videos that are finished already are skipped.

    Manifests are .json, .jsonl and .csv files.
    """
    from rich.console import Console  # noqa: PLC0415 - the help of all commands stays quick

    from renderer.batch.display import summary, watching  # noqa: PLC0415 - as above
    from renderer.batch.plan import Plan  # noqa: PLC0415 - as above
    from renderer.batch.run import run_batch  # noqa: PLC0415 - as above
    from renderer.batch.shard import Shard, parse_shard  # noqa: PLC0415 - as above
    from renderer.manifests.sources import parse_hold  # noqa: PLC0415 - as above
    from renderer.manifests.still import parse_overrides  # noqa: PLC0415 - as above

    settings = config.load(config_file, flags={"engine": {"workers": jobs}})
    plan = Plan(
        directory=_existing(directory),
        out=_made(out),
        workers=settings.engine.workers,
        shard=parse_shard(shard, os.environ) if shard else Shard(),
        hold=parse_hold(hold) if hold else None,
        overrides=parse_overrides(
            assigned(assignments, scaling=scaling, canvas=canvas, gaps=gaps, on_error=on_error, audio=sounds(audio))
        ),
    )
    console = Console(stderr=True)
    with watching(console) as view:
        tally = run_batch(plan, settings, view)
    for line in summary(tally, str(plan.shard) if shard else None):
        console.print(line, soft_wrap=not console.is_terminal)
    if as_json:
        click.echo(json.dumps(_document(plan, tally), indent=2))
    raise click.exceptions.Exit(_exit_code(plan, tally))


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise ConfigError(f"expected a directory, found {directory}")
    return directory.absolute()


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from error
    return out.absolute()


def _document(plan: "Plan", tally: "Tally") -> dict[str, Any]:
    from renderer.batch.plan import as_text  # noqa: PLC0415 - as above

    return {
        "done": tally.done,
        "skipped": tally.skipped,
        "failed": tally.failed,
        "ignored": tally.ignored,
        "stopped": tally.stopped,
        "frames": tally.frames,
        "seconds": round(tally.elapsed_s, 3),
        "shard": str(plan.shard),
        "failures": [
            {"manifest": as_text(each.name), "error": each.fault.model_dump(mode="json")} for each in tally.failures
        ],
        "warnings": [
            {"manifest": as_text(each.name), "warning": each.warning.model_dump(mode="json")} for each in tally.warnings
        ],
        "left_out": [{"file": as_text(each.name), "why": each.why} for each in tally.left_out],
    }


def _exit_code(plan: "Plan", tally: "Tally") -> int:
    """Return the exit code; an empty shard is fine, but a whole batch with nothing to render is a mistake."""
    if tally.stopped:
        return usage.STOPPED
    return usage.FAILED if tally.failures or (tally.has_found_nothing and plan.shard.count == 1) else 0
