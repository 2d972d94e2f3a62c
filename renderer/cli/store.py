"""The command `stillreel store`: check the store and its files, back them up, restore them, and adopt unknown videos.

`check` and `backup` may be run while the daemon is running, the others only while it is not.
"""

import time
from pathlib import Path
from typing import Annotated

import typer

from renderer import config
from renderer.cli import usage
from renderer.cli.usage import ConfigFile, DataDir
from renderer.config import Settings
from renderer.errors import ConfigError
from renderer.jobs.data_dir import STORE_NAME, data_dir, held

app = typer.Typer(
    name="store",
    help="The daemon's store of jobs and the files that belong to it.",
    no_args_is_help=True,
    epilog=usage.STORE,
)

Backup = Annotated[Path, typer.Argument(help="The backup: a tar archive.")]


@app.command(epilog=usage.STORE_CHECK)
def check(directory: DataDir = None, config_file: ConfigFile = None) -> None:
    """Show what the store knows, which files are missing, and which videos belong to no job."""
    from renderer.jobs.archive import examine  # noqa: PLC0415 - the client commands stay quick

    found = examine(_existing(_settings(directory, config_file)))
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.jobs.items()))
    typer.echo(f"jobs: {found.jobs.total()}{f' ({states})' if states else ''}")
    typer.echo(f"videos: {found.videos}, of which {len(found.missing_videos)} are missing")
    for words, names in (
        ("its video is missing", found.missing_videos),
        ("its attachments are missing, so it will fail", found.missing_attachments),
        ("a video that belongs to no job of the store", found.unknown_videos),
    ):
        for name in names:
            typer.echo(f"{name}: {words}")
    if found.unknown_videos:
        size_bytes = sum(found.unknown_videos.values())
        typer.echo(f"unknown videos: {len(found.unknown_videos)}, {size_bytes} bytes; adopt or clear them")
    if not found.are_good:
        raise typer.Exit(usage.FAILED)


@app.command(epilog=usage.STORE)
def backup(file: Backup, directory: DataDir = None, config_file: ConfigFile = None) -> None:
    """Write the store and all files that belong to it into one archive; the daemon may be running."""
    from renderer.jobs.archive import back_up  # noqa: PLC0415 - as above

    settings = _settings(directory, config_file)
    count = back_up(_existing(settings), file, settings.spool.directory)
    typer.echo(f"backed up: {count} jobs, {file.stat().st_size} bytes")


@app.command(epilog=usage.STORE)
def restore(file: Backup, directory: DataDir = None, config_file: ConfigFile = None) -> None:
    """Restore a backup into a data directory that has no jobs."""
    from renderer.jobs.archive import restore as lay_out  # noqa: PLC0415 - as above

    with held(data_dir(_settings(directory, config_file).server)) as data:
        found = lay_out(file, data)
    typer.echo(f"restored: {found.jobs.total()} jobs, {found.videos - len(found.missing_videos)} videos")


@app.command(epilog=usage.STORE)
def adopt(directory: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a finished job of each video that has none, so that it can be fetched and expires like others."""
    from renderer.jobs.adoption import adopt as take_up  # noqa: PLC0415 - as above

    with held(_existing(_settings(directory, config_file))) as data:
        adopted, refused = take_up(data, time.time())
    typer.echo(f"adopted: {len(adopted)} videos")
    for name, why in refused.items():
        typer.echo(f"{name}: left alone: {why}")
    if refused:
        raise typer.Exit(usage.FAILED)


@app.command(epilog=usage.STORE)
def clear(directory: DataDir = None, config_file: ConfigFile = None) -> None:
    """Remove the videos that belong to no job."""
    from renderer.jobs.adoption import clear as remove  # noqa: PLC0415 - as above

    with held(_existing(_settings(directory, config_file))) as data:
        removed = remove(data)
    typer.echo(f"removed: {len(removed)} videos, {sum(removed.values())} bytes")


def _settings(directory: Path | None, config_file: Path | None) -> Settings:
    return config.load(config_file, flags={"server": {"data_dir": directory}})


def _existing(settings: Settings) -> Path:
    path = data_dir(settings.server)
    if not (path / STORE_NAME).is_file():
        raise ConfigError(f"server.data_dir: {path} has no store of jobs")
    return path
