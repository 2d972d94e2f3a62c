"""The command `stillreel render`, and the arguments that it shares with `submit`: a manifest, or images."""

from pathlib import Path
from typing import Annotated

import typer

from protocol.schema import CanvasChoice, GapRule, OnError, RenderResult, Scaling
from renderer.cli import terminal, usage
from renderer.cli.output import Overwrite, refuse_manifest, written
from renderer.cli.usage import AsJson, ConfigFile
from renderer.errors import ConfigError, JobError
from renderer.manifests.sources import Asked, Wishes, ask, parse_hold
from renderer.manifests.still import naming_its_files, parse_overrides, warning_with_files

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
    str | None, typer.Option(metavar="FRAMES", help="How long each image is shown: 24 or 1.5s; one frame by default.")
]
Fps = Annotated[str | None, typer.Option(metavar="RATE", help="Frames per second: 30, 23.976, 30000/1001.")]
ScalingOption = Annotated[
    Scaling | None, typer.Option("--scaling", help="How images are scaled; nearest keeps pixel art sharp.")
]
CanvasOption = Annotated[
    CanvasChoice | None,
    typer.Option("--canvas", help="Which image sets the video's size: the first or the largest."),
]
OnErrorOption = Annotated[
    OnError | None,
    typer.Option(
        "--on-error",
        help="If an image cannot be read: the job fails, it is left out, or the one before is held for its time.",
    ),
]
Gaps = Annotated[
    GapRule | None,
    typer.Option(
        "--gaps",
        help="If a number is missing from the names: close the gap, hold the image before it for its time, or fail.",
    ),
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Set a field of the request, such as crf=18.")
]
Start = Annotated[int | None, typer.Option(metavar="NUMBER", help="A pattern's first number; by default the lowest.")]
KeepOrder = Annotated[
    bool, typer.Option("--keep-order", help="Keep the order as typed, even if it is alphabetical, as from a shell's *.")
]


def asked(
    sources: list[str],
    hold: str | None,
    assignments: list[str],
    start: int | None,
    *,
    keep_order: bool,
) -> Asked:
    """Return the request that was typed."""
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
    """Return what `--set` says, and what the options for single fields say, which take precedence."""
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
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Render images or a manifest here, without a daemon. It may name any file that you can read."""
    from renderer import config  # noqa: PLC0415 - `submit`, which shares this module's options, stays quick
    from renderer import render as render_here  # noqa: PLC0415 - as above
    from renderer.pictures.memory import keep_freed_memory  # noqa: PLC0415 - as above

    if output is None:
        raise ConfigError(f"expected -o and a name for the video: {_typed(sources)}")
    settings = config.load(config_file)
    terminal.keep_stdout()
    keep_freed_memory()
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
    """Add the warnings about what was typed to a result, and name the files that warnings are about."""
    warnings = warning_with_files(result.warnings, found.fields)
    return result.model_copy(update={"warnings": (*found.warnings, *warnings)})


def _typed(sources: list[str]) -> str:
    return f"stillreel render {' '.join(sources[:3])}{' ...' if len(sources) > 3 else ''} -o video.mp4"
