"""Where a video goes: what is checked and asked before it is made, and writing it to stdout afterwards."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from renderer.disk import place_for, refuse_inputs, scratch_dir
from renderer.errors import ConfigError, OutputFailed

overwrite_option = click.option(
    "-y/-n",
    "overwrite",
    default=None,
    help="Replace an existing video, or never; by default a terminal asks, a script replaces.",
)


@contextmanager
def written(output: Path, *, overwrite: bool | None, as_json: bool) -> Iterator[Path]:
    """Lend the path that the video will be written to, after all checks that are possible before the work."""
    if str(output) != "-":
        place_for(output)
        may_replace(output, overwrite=overwrite)
        yield output
        return
    if as_json:
        raise ConfigError("-o - writes the video to stdout, where --json would write as well")
    if sys.stdout.isatty():
        raise ConfigError("-o - writes the video to stdout, which is a terminal; expected a pipe or a file")
    # The index comes first, so that every reader of a pipe can use it, and is only known once all is rendered.
    with scratch_dir() as scratch:
        place = scratch / "stdout.mp4"
        yield place
        _copy_to_stdout(place)


def may_replace(output: Path, *, overwrite: bool | None) -> None:
    """Ask on a terminal whether a file may be replaced; a script replaces it unless it says `-n`.

    Raises:
        ConfigError: the file may not be replaced.
    """
    if overwrite or not output.exists():
        return
    is_asked = overwrite is None and sys.stdin.isatty() and sys.stderr.isatty()
    if overwrite is False or (is_asked and not click.confirm(f"{output} exists. Replace it?", err=True)):
        raise ConfigError(f"output: {output} exists; -y replaces it")


def _copy_to_stdout(video: Path) -> None:
    try:
        with video.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes stdout again when it exits
        raise OutputFailed("-o -: stdout was closed before the whole video was written") from error
    except OSError as error:
        raise OutputFailed(f"-o -: the video cannot be written to stdout: {error.strerror}") from error


def refuse_manifest(place: Path, manifest: Path) -> None:
    refuse_inputs(place_for(place), [("the manifest", manifest.stat())])
