"""The command line: serve, render, and the client of a running daemon.

Exit codes: 0 done, 1 the job failed, 2 usage or configuration, 3 the daemon cannot be reached, 4 try again later.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from pydantic_core import from_json
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from protocol.errors import ClientError, RemoteError, Unreachable
from protocol.schema import JobStatus, Progress, RenderResult
from renderer import config
from renderer.errors import CapacityError, ConfigError, StillreelError

if TYPE_CHECKING:
    from protocol.client import Client

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Stills into an MP4, exactly."
)
err = Console(stderr=True)

DONE, FAILED, USAGE, UNREACHABLE, TRY_AGAIN = range(5)
_ENDPOINT = "tcp://127.0.0.1:5590"

Connect = Annotated[str, typer.Option(envvar="STILLREEL_CONNECT", help="The daemon's endpoint.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
RequestId = Annotated[str, typer.Argument(help="The job's request_id.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
Manifest = Annotated[Path, typer.Argument(help="A request as JSON; paths in it are relative to it; - is stdin.")]


def main() -> None:
    """Run the command line and leave with one of the exit codes above."""
    try:
        app()
    except (StillreelError, RemoteError, ClientError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    err.print(f"[bold red]error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
    sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, CapacityError):
        return TRY_AGAIN
    if isinstance(error, RemoteError) and error.kind.name in {"queue_full", "shutting_down"}:
        return TRY_AGAIN
    return FAILED


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more; twice for everything.")] = 0,
) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logging.basicConfig(level=levels[min(verbose, 2)], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if version:
        print(f"stillreel {config.VERSION}")
        raise typer.Exit


@app.command()
def serve(
    bind: Annotated[str | None, typer.Option(help="ZeroMQ endpoint.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the daemon keeps its files.")] = None,
    allow_root: Annotated[list[Path] | None, typer.Option(help="Directory that requests may read from.")] = None,
    allow_http: Annotated[bool | None, typer.Option("--allow-http", help="Requests may name http(s) URLs.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Jobs rendered at once.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Run the daemon; a line on stdout says when it is ready. SIGTERM drains, a second one stops at once."""
    from renderer.daemon import serve as serve_until_stopped  # noqa: PLC0415 - the client commands stay quick

    if logging.getLogger().level > logging.INFO:
        logging.getLogger().setLevel(logging.INFO)
    settings = config.load(
        config_file,
        flags={
            "server": {"bind": bind, "data_dir": data_dir},
            "fetch": {
                "allow_roots": [root.absolute() for root in allow_root] if allow_root else None,
                "allow_http": allow_http,
            },
            "engine": {"workers": workers},
        },
    )
    serve_until_stopped(settings, lambda line: print(line, flush=True))


@app.command()
def render(
    manifest: Manifest,
    output: Annotated[Path, typer.Option("--output", "-o", help="The MP4 to write.")],
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Render one manifest here, without a daemon. Any file that you can read may be in it."""
    from renderer import render as render_here  # noqa: PLC0415 - the client commands stay quick

    settings = config.load(config_file)
    if not output.parent.is_dir():
        raise ConfigError(f"output: {output.parent} is no directory")
    request = _read_manifest(manifest)
    with _bar(quiet=as_json) as show:
        result = render_here(request, output, base=_base(manifest), settings=settings, on_progress=show)
    _show_result(result, as_json=as_json)


@app.command()
def submit(
    manifest: Manifest,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and show progress.")] = False,
    connect: Connect = _ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Give a manifest to a running daemon; local files are named by absolute path and must lie under its roots."""
    request = _absolute(_read_manifest(manifest), _base(manifest))
    with _client(connect) as client:
        if not wait:
            _show_status(client.submit(request), as_json=as_json)
            return
        with _bar(quiet=as_json) as show:
            rendered = client.render(request, progress=lambda status: show(status.progress))
        _show_result(rendered, as_json=as_json)


@app.command()
def status(request_id: RequestId, connect: Connect = _ENDPOINT, as_json: AsJson = False) -> None:
    """Say how a job is doing."""
    with _client(connect) as client:
        _show_status(client.status(request_id), as_json=as_json)


@app.command()
def result(request_id: RequestId, connect: Connect = _ENDPOINT, as_json: AsJson = False) -> None:
    """Say what a job that is done has made."""
    with _client(connect) as client:
        _show_result(client.result(request_id), as_json=as_json)


@app.command()
def cancel(request_id: RequestId, connect: Connect = _ENDPOINT, as_json: AsJson = False) -> None:
    """Ask that a job end."""
    with _client(connect) as client:
        _show_status(client.cancel(request_id), as_json=as_json)


@app.command()
def jobs(connect: Connect = _ENDPOINT, as_json: AsJson = False) -> None:
    """List the jobs that the daemon knows."""
    with _client(connect) as client:
        known = client.jobs()
    if as_json:
        print(json.dumps([job.model_dump(mode="json") for job in known], indent=2))
        return
    table = Table("request_id", "status", "images", "frames", "error", box=None)
    for job in known:
        images = f"{job.progress.images_done}/{job.progress.images}"
        error = _plain(job.error.message) if job.error else ""
        table.add_row(job.request_id, job.status, images, str(job.progress.frames), error)
    Console().print(table)


@app.command()
def doctor(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Say what works on this machine, and why not where it does not."""
    from renderer.doctor import examine  # noqa: PLC0415 - the client commands stay quick

    findings = examine(config.load(config_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table("", "what", "found", box=None)
        for finding in findings:
            table.add_row("[green]ok[/]" if finding.works else "[yellow]no[/]", finding.what, _plain(finding.found))
        Console().print(table)
    if not all(finding.works for finding in findings if finding.is_needed):
        raise typer.Exit(FAILED)


def _client(endpoint: str) -> "Client":
    from protocol.client import Client  # noqa: PLC0415 - asyncio and zmq take 100 ms that `render` does not need

    return Client(endpoint)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        manifest = from_json(text, allow_inf_nan=False)
        json.dumps(manifest, allow_nan=False)  # 1e999 is JSON and yet no number that could be sent
    except (OSError, ValueError) as error:
        raise ConfigError(f"manifest {path}: {error}") from error
    if not isinstance(manifest, dict):
        raise ConfigError(f"manifest {path}: expected a JSON object")
    return manifest


def _base(manifest: Path) -> Path:
    return Path.cwd() if str(manifest) == "-" else manifest.absolute().parent


def _absolute(request: dict[str, Any], base: Path) -> dict[str, Any]:
    """Name local files so that the daemon, which runs elsewhere, finds them; all else is left to its checks."""
    images = request.get("images")
    if not isinstance(images, list):
        return request

    def absolute(image: object) -> object:
        url = image.get("url") if isinstance(image, dict) else None
        if not isinstance(image, dict) or not isinstance(url, str) or ":" in url.split("/")[0]:
            return image
        return {**image, "url": os.path.normpath(base / url)}

    return {**request, "images": [absolute(image) for image in images]}


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=err, disable=quiet or not err.is_terminal, transient=True) as bar:
        task = bar.add_task("queued", total=None)
        yield lambda seen: bar.update(task, description=seen.stage, total=seen.images, completed=seen.images_done)


def _show_status(seen: JobStatus, *, as_json: bool) -> None:
    if as_json:
        print(seen.model_dump_json(indent=2))
        return
    place = f", {seen.queue_position} ahead" if seen.queue_position is not None else ""
    print(f"{seen.request_id}: {seen.status}{place}, {seen.progress.images_done}/{seen.progress.images} images")
    if seen.error:
        err.print(f"[bold red]error:[/] {_plain(seen.error.message)}", highlight=False)


def _show_result(made: RenderResult, *, as_json: bool) -> None:
    if as_json:
        print(made.model_dump_json(indent=2))
        return
    print(made.video.url)
    print(
        f"{made.frames} frames, {made.duration:.3f} s at {made.fps} fps, {made.width}x{made.height}, "
        f"{made.video.file_size} bytes, {made.encoder}, rendered in {made.timings['total']:.2f} s"
    )
