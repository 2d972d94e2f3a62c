"""The command `stillreel render`, and the arguments that it shares with `submit`: a manifest, or images as they lie."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from protocol.schema import RenderResult
from renderer.cli import terminal, usage
from renderer.cli.output import Overwrite, refuse_manifest, written
from renderer.errors import ConfigError, JobError
from renderer.manifests.sources import Asked, Wishes, ask, parse_hold
from renderer.manifests.still import naming_its_files, parse_overrides, warning_with_files


class ScalingName(StrEnum):
    """protocol.schema.Scaling, as choices of an option."""

    AUTO = "auto"
    LANCZOS = "lanczos"
    AREA = "area"
    NEAREST = "nearest"


class CanvasName(StrEnum):
    """protocol.schema.CanvasChoice, as choices of an option."""

    FIRST = "first"
    LARGEST = "largest"


class OnErrorName(StrEnum):
    """protocol.schema.OnError, as choices of an option."""

    FAIL = "fail"
    SKIP = "skip"
    HOLD = "hold"


class GapsName(StrEnum):
    """protocol.schema.GapRule, as choices of an option."""

    CLOSE = "close"
    HOLD = "hold"
    FAIL = "fail"


app = typer.Typer()

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="MANIFEST|IMAGE...",
        help="A manifest (.json, .jsonl, .csv, .ffconcat; - is stdin), or images: files, a directory, "
        "a quoted glob, or a pattern such as frames_%04d.png.",
    ),
]
Hold = Annotated[
    str | None, typer.Option(metavar="FRAMES", help="How long each image is shown: 24 or 1.5s; else for one frame.")
]
Fps = Annotated[str | None, typer.Option(metavar="RATE", help="Frames per second: 30, 23.976, 30000/1001.")]
ScalingOption = Annotated[
    ScalingName | None, typer.Option("--scaling", help="How images are scaled; nearest keeps pixel art sharp.")
]
CanvasOption = Annotated[
    CanvasName | None, typer.Option("--canvas", help="Whose size the video has: the first image's or the largest's.")
]
OnErrorOption = Annotated[
    OnErrorName | None,
    typer.Option(
        "--on-error",
        help="An image that cannot be had: the job fails, it is left out, or the one before is held for its time.",
    ),
]
Gaps = Annotated[
    GapsName | None,
    typer.Option(
        "--gaps",
        help="A number missing from the names: the images around it follow one another, the one before is held for its "
        "time, or the job fails.",
    ),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the request, as crf=18.")
]
Start = Annotated[int | None, typer.Option(metavar="NUMBER", help="A pattern's first number; else the lowest there.")]
KeepOrder = Annotated[
    bool, typer.Option("--keep-order", help="Leave images as typed, even in alphabetical order, as a shell's * is.")
]


def asked(
    sources: list[str],
    hold: str | None,
    assignments: list[str],
    start: int | None,
    *,
    keep_order: bool,
) -> Asked:
    """Read what was typed."""
    return ask(
        sources,
        Wishes(
            hold=parse_hold(hold) if hold else None,
            start=start,
            keeps_order=keep_order,
            overrides=parse_overrides(assignments),
        ),
    )


def assigned(assignments: list[str] | None, **options: str | None) -> list[str]:
    """Return what `--set` says and what options of the fields' own names say, which win."""
    return [*(assignments or ()), *(f"{name}={value}" for name, value in options.items() if value)]


@app.command(epilog=usage.RENDER)
def render(
    sources: Sources,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The video: .mp4, .m4v or .mov; - writes an MP4 to stdout.")
    ] = None,
    hold: Hold = None,
    fps: Fps = None,
    scaling: ScalingOption = None,
    canvas: CanvasOption = None,
    on_error: OnErrorOption = None,
    assignments: Assignments = None,
    start: Start = None,
    gaps: Gaps = None,
    keep_order: KeepOrder = False,
    overwrite: Overwrite = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")] = False,
    config_file: Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")] = None,
) -> None:
    """Render images or a manifest here, without a daemon. Any file that you can read may be in it."""
    from renderer import config  # noqa: PLC0415 - `submit`, which shares this module's options, stays quick
    from renderer import render as render_here  # noqa: PLC0415 - as above

    if output is None:
        raise ConfigError(f"expected -o and a name for the video: {_typed(sources)}")
    settings = config.load(config_file)
    terminal.keep_stdout()
    with written(output, overwrite=overwrite, as_json=as_json) as place:
        fields = assigned(assignments, fps=fps, scaling=scaling, canvas=canvas, gaps=gaps, on_error=on_error)
        found = asked(sources, hold, fields, start, keep_order=keep_order)
        if found.manifest:
            refuse_manifest(place, found.manifest)
        try:
            with terminal.progress_bar(quiet=as_json) as show:
                result = render_here(found.fields, place, base=found.base, settings=settings, on_progress=show)
        except JobError as error:
            raise naming_its_files(error, found.fields) from error.__cause__
    terminal.show_result(with_warnings(result, found), as_json=as_json, on_stderr=str(output) == "-")


def with_warnings(result: RenderResult, found: Asked) -> RenderResult:
    """Add to a result what was noticed before its request was made, and name the files that it warns of."""
    warnings = warning_with_files(result.warnings, found.fields)
    return result.model_copy(update={"warnings": (*found.warnings, *warnings)})


def _typed(sources: list[str]) -> str:
    return f"stillreel render {' '.join(sources[:3])}{' ...' if len(sources) > 3 else ''} -o video.mp4"
