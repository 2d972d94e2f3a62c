"""The command `stillreel store`: check the store and its files, back them up, restore them, and adopt unknown videos.

`check` and `backup` may be run while the daemon is running, the others only while it is not.
"""

import time
from pathlib import Path

import click

from renderer import config
from renderer.cli import usage
from renderer.cli.usage import PATH, config_option, data_dir_option
from renderer.config import Settings
from renderer.errors import ConfigError
from renderer.jobs.data_dir import STORE_NAME, held
from renderer.jobs.data_dir import data_dir as place_of


@click.group(epilog=usage.STORE)
def store() -> None:
    """Check, back up and mend the daemon's store of jobs and its files."""


file_argument = click.argument("file", type=PATH)


@store.command(epilog=usage.STORE_CHECK)
@data_dir_option
@config_option
def check(data_dir: Path | None, config_file: Path | None) -> None:
    """Show what the store knows, which files are missing, and which belong to no job."""
    from renderer.jobs.archive import examine  # noqa: PLC0415 - the client commands stay quick

    found = examine(_existing(_settings(data_dir, config_file)))
    states = ", ".join(f"{count} {state}" for state, count in sorted(found.jobs.items()))
    click.echo(f"jobs: {found.jobs.total()}{f' ({states})' if states else ''}")
    click.echo(f"videos: {found.videos}, of which {len(found.missing_videos)} are missing")
    for words, names in (
        ("its video is missing", found.missing_videos),
        ("its attachments are missing, so it will fail", found.missing_attachments),
        ("a video that belongs to no job of the store", found.unknown_videos),
    ):
        for name in names:
            click.echo(f"{name}: {words}")
    if found.unknown_videos:
        size_bytes = sum(found.unknown_videos.values())
        click.echo(f"unknown videos: {len(found.unknown_videos)}, {size_bytes} bytes; adopt or clear them")
    if not found.are_good:
        raise click.exceptions.Exit(usage.FAILED)


@store.command(epilog=usage.STORE)
@file_argument
@data_dir_option
@config_option
def backup(file: Path, data_dir: Path | None, config_file: Path | None) -> None:
    """Write the store and all its files into one archive. The daemon may be running."""
    from renderer.jobs.archive import back_up  # noqa: PLC0415 - as above

    settings = _settings(data_dir, config_file)
    count = back_up(_existing(settings), file, settings.spool.directory)
    click.echo(f"backed up: {count} jobs, {file.stat().st_size} bytes")


@store.command(epilog=usage.STORE)
@file_argument
@data_dir_option
@config_option
def restore(file: Path, data_dir: Path | None, config_file: Path | None) -> None:
    """Restore a backup into a data directory that has no jobs."""
    from renderer.jobs.archive import restore as lay_out  # noqa: PLC0415 - as above

    with held(place_of(_settings(data_dir, config_file).server)) as data:
        found = lay_out(file, data)
    click.echo(f"restored: {found.jobs.total()} jobs, {found.videos - len(found.missing_videos)} videos")


@store.command(epilog=usage.STORE)
@data_dir_option
@config_option
def adopt(data_dir: Path | None, config_file: Path | None) -> None:
    """Make a finished job of each video that has none. It can then be fetched, and expires like others."""
    from renderer.jobs.adoption import adopt as take_up  # noqa: PLC0415 - as above

    with held(_existing(_settings(data_dir, config_file))) as data:
        adopted, refused = take_up(data, time.time())
    click.echo(f"adopted: {len(adopted)} videos")
    for name, why in refused.items():
        click.echo(f"{name}: left alone: {why}")
    if refused:
        raise click.exceptions.Exit(usage.FAILED)


@store.command(epilog=usage.STORE)
@data_dir_option
@config_option
def clear(data_dir: Path | None, config_file: Path | None) -> None:
    """Remove the videos that belong to no job."""
    from renderer.jobs.adoption import clear as remove  # noqa: PLC0415 - as above

    with held(_existing(_settings(data_dir, config_file))) as data:
        removed = remove(data)
    click.echo(f"removed: {len(removed)} videos, {sum(removed.values())} bytes")


def _settings(data_dir: Path | None, config_file: Path | None) -> Settings:
    return config.load(config_file, flags={"server": {"data_dir": data_dir}})


def _existing(settings: Settings) -> Path:
    path = place_of(settings.server)
    if not (path / STORE_NAME).is_file():
        raise ConfigError(f"server.data_dir: {path} has no store of jobs")
    return path
