"""The command `stillreel batch`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protocol.objects import ObjectUrl, is_object, parse_prefix
from renderer import config
from renderer.cli import usage
from renderer.cli.render import Fields, field_options, fps_option, stills_option
from renderer.cli.usage import config_option, json_option, slots_option
from renderer.errors import ConfigError, FetchFailed

if TYPE_CHECKING:
    from renderer.batch.places import Place
    from renderer.batch.plan import Plan
    from renderer.batch.run import Tally
    from renderer.batch.trees import Tree
    from renderer.net.objects import Access


@click.command(epilog=usage.BATCH)
@click.argument("directory", metavar="DIR")
@click.option("--out", required=True, metavar="DIR", help="Where the videos go, in the same subdirectories.")
@click.option(
    "--shard", metavar="I/N", help="Render part I of N, from 0 to N-1; auto or auto/N reads a job array's variables."
)
@click.option(
    "--hold",
    metavar="FRAMES",
    help="Also make videos of directories of images, each image held for 24 frames or 1.5s.",
)
@fps_option
@field_options
@stills_option
@click.option(
    "--jobs", "-j", type=click.IntRange(min=1), metavar="NUMBER", help="How many videos to make here at once."
)
@slots_option
@json_option
@config_option
def batch(
    directory: str,
    *,
    out: str,
    shard: str | None,
    hold: str | None,
    fields: Fields,
    stills: Path | None,
    jobs: int | None,
    slots: tuple[str, ...],
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Render every manifest below a directory, without a daemon. Videos that are finished already are skipped.

    Manifests are .json, .jsonl, .ndjson, .csv and .ffconcat files. Each DIR may be a prefix of a bucket too, such as s3://reels/manifests.
    """
    from rich.console import Console  # noqa: PLC0415 - the help of all commands stays quick

    from renderer.batch.display import summary, watching  # noqa: PLC0415 - as above
    from renderer.batch.plan import Plan  # noqa: PLC0415 - as above
    from renderer.batch.run import run_batch  # noqa: PLC0415 - as above
    from renderer.batch.shard import Shard, parse_shard  # noqa: PLC0415 - as above
    from renderer.manifests.sources import parse_hold  # noqa: PLC0415 - as above
    from renderer.manifests.still import parse_overrides  # noqa: PLC0415 - as above

    settings = config.load(config_file, flags={"engine": {"workers": jobs, "slots": slots or None}})
    tree, place = _ends(directory, out, parse_hold(hold) if hold else None, settings)
    plan = Plan(
        tree,
        place,
        workers=settings.engine.workers,
        shard=parse_shard(shard, os.environ) if shard else Shard(),
        overrides=parse_overrides(fields.assignments),
        stills=stills.absolute() if stills else None,
    )
    console = Console(stderr=True)
    with watching(console) as view:
        tally = run_batch(plan, settings, view)
    for line in summary(tally, str(plan.shard) if shard else None):
        console.print(line, soft_wrap=not console.is_terminal)
    if as_json:
        click.echo(json.dumps(_document(plan, tally), indent=2))
    raise click.exceptions.Exit(_exit_code(plan, tally))


def _ends(directory: str, out: str, hold: dict[str, Any] | None, settings: config.Settings) -> "tuple[Tree, Place]":
    """Return where manifests come from and where videos go; a directory, or a prefix of a bucket that was looked at."""
    from renderer.batch.places import DirectoryPlace, ObjectPlace  # noqa: PLC0415 - as above
    from renderer.batch.trees import DirectoryTree, ObjectTree  # noqa: PLC0415 - as above
    from renderer.net.objects import access_for  # noqa: PLC0415 - as above

    reading = access_for(settings.fetch)
    root, goal = (_prefix(each, reading) if is_object(each) else None for each in (directory, out))
    place: Place = ObjectPlace(goal, reading) if goal else DirectoryPlace(_made(Path(out)))
    if root is None:
        outputs = place.out if isinstance(place, DirectoryPlace) else None
        return DirectoryTree(_existing(Path(directory)), outputs, hold), place
    if hold is not None:
        raise ConfigError(f"--hold takes directories of images on disk, and {directory} is a bucket's")
    return ObjectTree(root, goal, reading), place


def _prefix(url: str, access: "Access") -> ObjectUrl:
    from renderer.net.objects import missing_extra, names_below  # noqa: PLC0415 - as above

    if missing := missing_extra():
        raise ConfigError(missing)
    try:
        prefix = parse_prefix(url)
        next(names_below(prefix, access), None)
    except ValueError as error:
        raise ConfigError(f"{url}: {error}") from error
    except FetchFailed as error:
        if error.is_retryable:
            error.message = f"{url} cannot be listed: {error.message}"
            raise
        raise ConfigError(f"{url} cannot be listed: {error.message}") from error
    return prefix


def _existing(directory: Path) -> Path:
    if not directory.is_dir():
        raise ConfigError(f"expected a directory, found {directory}")
    return directory.absolute()


def _made(out: Path) -> Path:
    if out.is_file():
        raise ConfigError(f"--out {out}: expected a directory, found a file")
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
    """Return the exit code, by which a scheduler decides whether to run the batch again.

    An empty shard is fine, but a whole batch with nothing to render is a mistake.
    """
    if tally.stopped:
        return usage.STOPPED
    if any(each.fault.retryable for each in tally.failures):
        return usage.TRY_AGAIN
    return usage.FAILED if tally.failures or (tally.has_found_nothing and plan.shard.count == 1) else 0
