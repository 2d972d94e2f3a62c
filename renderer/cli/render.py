"""The command `stillreel render`, and the arguments that it shares with `submit`: a manifest, or images."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Any, get_args

import click

from protocol.schema import CanvasChoice, GapRule, LengthRule, OnError, RenderResult, Scaling
from renderer.cli import terminal, usage
from renderer.cli.output import overwrite_option, refuse_manifest, written
from renderer.cli.usage import PATH, config_option, json_option
from renderer.errors import ConfigError, JobError
from renderer.manifests.sources import SOUNDS_TWICE, Asked, Wishes, ask, parse_hold, source_url
from renderer.manifests.still import naming_its_files, parse_overrides, warning_with_files

_Command = Callable[..., object]
_FIELDS = ("fps", "scaling", "canvas", "gaps", "on_error", "length")


def _choice(name: str, values: object, words: str) -> Callable[[_Command], _Command]:
    """Return an option that takes one of the values of a Literal."""
    return click.option(name, type=click.Choice(get_args(values)), help=words)


sources_argument = click.argument("sources", nargs=-1, required=True, metavar="MANIFEST|IMAGE...")
hold_option = click.option(
    "--hold", metavar="FRAMES", help="How long each image is shown: 24 or 1.5s; one frame by default."
)
fps_option = click.option("--fps", metavar="RATE", help="Frames per second: 30, 23.976, 30000/1001.")
scaling_option = _choice("--scaling", Scaling, "How images are scaled; nearest keeps pixel art sharp.")
canvas_option = _choice("--canvas", CanvasChoice, "Which image sets the video's size: the first or the largest.")
on_error_option = _choice(
    "--on-error",
    OnError,
    "If an image cannot be read: the job fails, it is left out, or the one before is held for its time.",
)
gaps_option = _choice(
    "--gaps",
    GapRule,
    "If a number is missing from the names: close the gap, hold the image before it for its time, or fail.",
)
audio_option = click.option(
    "--audio",
    multiple=True,
    metavar="FILE",
    help="A sound under the images; may be repeated. --set audio=[...] in its place sets times, fades and gain.",
)
length_option = _choice(
    "--length",
    LengthRule,
    "What the video is as long as: the stills, the sounds (images without --hold share it), or the longest.",
)
set_option = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a field of the request, such as crf=18; may be repeated.",
)
start_option = click.option(
    "--start", type=int, metavar="NUMBER", help="A pattern's first number; by default the lowest."
)
keep_order_option = click.option(
    "--keep-order", is_flag=True, help="Keep the order as typed, even if it is alphabetical, as from a shell's *."
)
stills_option = click.option(
    "--stills",
    type=PATH,
    metavar="DIR",
    help="Keep coded stills in this directory, and take those of earlier runs from it instead of coding them again.",
)


@dataclass(frozen=True, slots=True)
class Fields:
    """Fields of the request that were typed, each as NAME=VALUE; those with an option of their own come last."""

    assignments: tuple[str, ...]
    has_sounds: bool


@dataclass(frozen=True, slots=True)
class Typed:
    """A request as it was typed: a manifest or images, how these are shown, and fields of the request."""

    sources: tuple[str, ...]
    hold: str | None
    start: int | None
    keep_order: bool
    fields: Fields

    def ask(self, *, for_daemon: bool = False) -> Asked:
        """Read the sources.

        Raises:
            ConfigError, InvalidRequest: as `manifests.sources.ask` does.
        """
        wishes = Wishes(
            hold=parse_hold(self.hold) if self.hold else None,
            start=self.start,
            keeps_order=self.keep_order,
            overrides=parse_overrides(self.fields.assignments, for_daemon=for_daemon),
            has_sounds=self.fields.has_sounds,
        )
        found = ask(self.sources, wishes)
        if "length=audio" in self.fields.assignments and not found.fields.get("audio"):
            raise ConfigError("--length audio needs a sound: add --audio FILE")
        return found


def request_options(command: _Command) -> _Command:
    """Add the argument and the options that say what is shown; the command gets them as one, `typed`."""

    def collected(
        *,
        sources: tuple[str, ...],
        hold: str | None,
        start: int | None,
        keep_order: bool,
        fields: Fields,
        **others: Any,
    ) -> object:
        return command(typed=Typed(sources, hold, start, keep_order, fields), **others)

    options = (sources_argument, hold_option, fps_option, field_options, start_option, keep_order_option)
    return _with(options, update_wrapper(collected, command))


def field_options(command: _Command) -> _Command:
    """Add the options that set fields of the request; the command gets them, and a field `fps`, as one, `fields`.

    The command ends with a ConfigError if sounds are named in two ways.
    """

    def collected(*, assignments: tuple[str, ...], audio: tuple[str, ...], **others: Any) -> object:
        if audio and any(each.startswith("audio=") for each in assignments):
            raise ConfigError(SOUNDS_TWICE)
        values = {name: others.pop(name) for name in _FIELDS if name in others}
        if audio:
            values["audio"] = json.dumps([{"url": source_url(name)} for name in audio])
        named = (f"{name}={value}" for name, value in values.items() if value)
        return command(fields=Fields((*assignments, *named), bool(audio)), **others)

    options = (scaling_option, canvas_option, on_error_option, gaps_option, audio_option, length_option, set_option)
    return _with(options, update_wrapper(collected, command))


def _with(options: Sequence[Callable[[_Command], _Command]], command: _Command) -> _Command:
    for option in reversed(options):  # the last one that is applied comes first in the help
        command = option(command)
    return command


@click.command(epilog=usage.RENDER)
@click.option(
    "--output", "-o", type=PATH, metavar="FILE", help="The video: .mp4, .m4v or .mov; - writes an MP4 to stdout."
)
@request_options
@stills_option
@overwrite_option
@json_option
@config_option
def render(
    *,
    typed: Typed,
    output: Path | None,
    stills: Path | None,
    overwrite: bool | None,
    as_json: bool,
    config_file: Path | None,
) -> None:
    """Render images or a manifest here, without a daemon. It may name any file that you can read.

    A manifest is a .json, .jsonl, .csv or .ffconcat file, or - for stdin. Images are files, urls, a directory, a quoted
    glob, or a pattern such as frames_%04d.png.
    """
    from renderer import config  # noqa: PLC0415 - `submit`, which shares this module's options, stays quick
    from renderer import render as render_here  # noqa: PLC0415 - as above
    from renderer.pictures.memory import keep_freed_memory  # noqa: PLC0415 - as above

    if output is None:
        raise ConfigError(f"expected -o and a name for the video: {_completed(typed.sources)}")
    settings = config.load(config_file)
    terminal.keep_stdout()
    keep_freed_memory()
    with written(output, overwrite=overwrite, as_json=as_json) as place:
        found = typed.ask()
        if found.manifest:
            refuse_manifest(place, found.manifest)
        if str(output) == "-" and (beside := _beside(found)):
            raise ConfigError(f"-o - writes only the video to stdout; expected no {beside}, or a file for the video")
        try:
            with terminal.progress_bar(quiet=as_json) as show:
                result = render_here(
                    found.fields, place, base=found.base, settings=settings, on_progress=show, stills=stills
                )
        except JobError as error:
            raise naming_its_files(error, found.fields) from error.__cause__
    terminal.show_result(with_warnings(result, found), as_json=as_json, on_stderr=str(output) == "-")


def with_warnings(result: RenderResult, found: Asked) -> RenderResult:
    """Add the warnings about what was typed to a result, and name the files that warnings are about."""
    warnings = warning_with_files(result.warnings, found.fields)
    return result.model_copy(update={"warnings": (*found.warnings, *warnings)})


def _beside(found: Asked) -> str:
    """Return what is wanted beside the video, in words."""
    return " and no ".join(field for field in ("poster", "contact_sheet") if found.fields.get(field))


def _completed(sources: Sequence[str]) -> str:
    return f"stillreel render {' '.join(sources[:3])}{' ...' if len(sources) > 3 else ''} -o video.mp4"
