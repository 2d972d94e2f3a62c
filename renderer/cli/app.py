"""The command line: serve, render, and the client of a running daemon."""

import json
import logging
import os
import sys
import uuid
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from protocol.errors import BadCurveFile, BadEndpoint, ClientError, KeyRefused, RemoteError, Unreachable
from protocol.schema import StateName
from renderer import config
from renderer.cli import keys, store, terminal, usage
from renderer.cli.batch import batch
from renderer.cli.client import cancel_all, fetched, health_over_http, place_to_fetch, watch
from renderer.cli.render import (
    Assignments,
    CanvasOption,
    Fps,
    Gaps,
    Hold,
    KeepOrder,
    OnErrorOption,
    Overwrite,
    ScalingOption,
    Sources,
    Start,
    asked,
    assigned,
    render,
    with_warnings,
)
from renderer.cli.usage import FAILED, TRY_AGAIN, UNREACHABLE, USAGE, Commands
from renderer.errors import CapacityError, ConfigError, DecodeTimedOut, StillreelError
from renderer.observe import logs

if TYPE_CHECKING:
    from protocol.client import Client

app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, help="Stills into an MP4, exactly."
)

app.add_typer(keys.app, name="keys")
app.add_typer(store.app, name="store")

_ENDPOINT = "tcp://127.0.0.1:5590"

# Stills are worked on side by side, so threads inside the libraries only get in each other's way. NumPy's OpenBLAS,
# which nothing here uses, spins one for each core while it is imported: two seconds of processor time on 16 cores.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}

# How long a daemon may be away: a short command leaves it to its caller to come again, one that waits goes on waiting.
_SHORT_PATIENCE_S, _LONG_PATIENCE_S = 10.0, 120.0

Connect = Annotated[str, typer.Option(envvar="STILLREEL_CONNECT", help="The daemon's endpoint.")]
Curve = Annotated[
    Path | None,
    typer.Option(envvar="STILLREEL_CURVE", metavar="FILE", help="Your keys, from `stillreel keys curve`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
RequestId = Annotated[str, typer.Argument(help="The job's request_id.")]
FetchTo = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Fetch the video into this .mp4; - writes it to stdout."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]


class State(StrEnum):
    """protocol.schema.StateName: typer makes no choices of a Literal in a list."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


def main() -> None:
    """Run the command line and leave with one of the exit codes."""
    for variable, threads in _SINGLE_THREADED.items():
        os.environ.setdefault(variable, threads)  # read when NumPy and OpenCV are imported, here and in workers
    try:
        app()
    except (StillreelError, RemoteError, ClientError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    option = "--connect: " if isinstance(error, BadEndpoint) else "--curve: " if isinstance(error, BadCurveFile) else ""
    hint = "; start a daemon with: stillreel serve" if isinstance(error, Unreachable) else ""
    terminal.show_error(f"{option}{error}{hint}")
    if isinstance(error, DecodeTimedOut):  # an orderly exit would wait for the thread that does not come back
        sys.stdout.flush()
        os._exit(_exit_code(error))
    sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, ConfigError | BadEndpoint | BadCurveFile | KeyRefused):
        return USAGE
    if isinstance(error, Unreachable):
        return UNREACHABLE
    if isinstance(error, CapacityError):
        return TRY_AGAIN
    if isinstance(error, RemoteError) and error.kind.name in {"queue_full", "shutting_down", "storage_full"}:
        return TRY_AGAIN
    return FAILED


@app.callback(invoke_without_command=True, epilog=usage.ALL)
def _common(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Log more; twice for everything.")] = 0,
) -> None:
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logs.configure(levels[min(verbose, 2)])
    if version:
        print(f"stillreel {config.VERSION}")
        raise typer.Exit


@app.command(epilog=usage.SERVE)
def serve(
    *,
    bind: Annotated[str | None, typer.Option(help="ZeroMQ endpoint; asks for CURVE keys once some are made.")] = None,
    local: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="One more, loopback or ipc, that never asks for keys.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the daemon keeps its files.")] = None,
    allow_root: Annotated[list[Path] | None, typer.Option(help="Directory that requests may read from.")] = None,
    allow_http: Annotated[
        bool | None, typer.Option("--allow-http/--no-allow-http", help="Requests may name http(s) URLs; so by default.")
    ] = None,
    allow_network: Annotated[
        list[str] | None, typer.Option(metavar="CIDR", help="Network that http(s) URLs may reach though not public.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Jobs rendered at once.")] = None,
    spool: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory that manifests are dropped in.")] = None,
    http: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Speak HTTP here, the page included.")] = None,
    https: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Speak HTTPS here.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Its certificate; else keys --tls's.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's key.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Loopback address for Prometheus.")] = None,
    log_format: Annotated[str | None, typer.Option(metavar="text|json", help="How the log is written.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Run the daemon; a line on stdout says when it is ready. SIGTERM or SIGHUP drains, a second one stops at once."""
    from renderer.daemon import serve as serve_until_stopped  # noqa: PLC0415 - the client commands stay quick

    settings = config.load(
        config_file,
        flags={
            "server": {"bind": bind, "local": local, "data_dir": data_dir},
            "fetch": {
                "allow_roots": [root.absolute() for root in allow_root] if allow_root else None,
                "allow_http": allow_http,
                "allow_networks": allow_network or None,
            },
            "engine": {"workers": workers},
            "http": {"bind": http, "tls_bind": https, "tls_cert": tls_cert, "tls_key": tls_key},
            "spool": {"directory": spool.absolute() if spool else None},
            "observe": {"metrics": metrics, "log_format": log_format},
        },
    )
    logs.configure(min(logging.getLogger().level, logging.INFO), settings.observe.log_format)
    serve_until_stopped(settings, lambda line: print(line, flush=True))


app.command(epilog=usage.RENDER)(render)
app.command(epilog=usage.BATCH)(batch)


@app.command(epilog=usage.CLIENT)
def submit(
    sources: Sources,
    *,
    hold: Hold = None,
    fps: Fps = None,
    scaling: ScalingOption = None,
    canvas: CanvasOption = None,
    on_error: OnErrorOption = None,
    assignments: Assignments = None,
    start: Start = None,
    gaps: Gaps = None,
    keep_order: KeepOrder = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end and show progress.")] = False,
    output: FetchTo = None,
    overwrite: Overwrite = None,
    connect: Connect = _ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Give images or a manifest to a running daemon; local files go by absolute path and must lie under its roots."""
    if output is not None and not wait:
        raise ConfigError("expected --wait with -o; without it, fetch the video later: stillreel result ID -o FILE")
    fields = assigned(assignments, fps=fps, scaling=scaling, canvas=canvas, gaps=gaps, on_error=on_error)
    found = asked(sources, hold, fields, start, keep_order=keep_order)
    request = _absolute(found.fields, found.base)
    if not wait:
        terminal.show_warnings(found.warnings)
        with _client(connect, curve) as client:
            terminal.show_status(client.submit(request), as_json=as_json)
        return
    if request.get("request_id") is None:
        request["request_id"] = uuid.uuid4().hex
    with (
        place_to_fetch(output, overwrite=overwrite, as_json=as_json, manifest=found.manifest) as place,
        _client(connect, curve, _LONG_PATIENCE_S) as client,
    ):
        try:
            with terminal.progress_bar(quiet=as_json) as show:
                rendered = client.render(request, progress=show)
        except (KeyboardInterrupt, Unreachable):
            terminal.show_note(f"the job goes on if it was accepted: stillreel status {request['request_id']}")
            raise
        made = fetched(client, with_warnings(rendered, found), request["request_id"], place)
    terminal.show_result(made, as_json=as_json, on_stderr=str(output) == "-")


@app.command(epilog=usage.CLIENT)
def status(request_id: RequestId, connect: Connect = _ENDPOINT, curve: Curve = None, as_json: AsJson = False) -> None:
    """Say how a job is doing."""
    with _client(connect, curve) as client:
        terminal.show_status(client.status(request_id), as_json=as_json)


@app.command(epilog=usage.CLIENT)
def result(
    request_id: RequestId,
    output: FetchTo = None,
    overwrite: Overwrite = None,
    connect: Connect = _ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Say what a job that is done has made; -o fetches the video."""
    with (
        place_to_fetch(output, overwrite=overwrite, as_json=as_json) as place,
        _client(connect, curve) as client,
    ):
        made = fetched(client, client.result(request_id), request_id, place)
    terminal.show_result(made, as_json=as_json, on_stderr=str(output) == "-")


@app.command(epilog=usage.CLIENT)
def cancel(
    request_id: Annotated[str | None, typer.Argument(help="The job's request_id.", show_default=False)] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All jobs that are yours and have not ended.")] = False,
    is_sure: Annotated[bool, typer.Option("-y", help="Do not ask before --all.")] = False,
    connect: Connect = _ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Ask that a job end, or with --all every job of yours: those of your key, or of all clients without one."""
    if every == (request_id is not None):
        raise ConfigError("expected the job's request_id or --all, and not both: stillreel cancel ID")
    with _client(connect, curve) as client:
        if request_id is not None:
            terminal.show_status(client.cancel(request_id), as_json=as_json)
        else:
            terminal.show_cancelled(cancel_all(client, is_sure=is_sure), as_json=as_json)


@app.command("logs", epilog=usage.CLIENT)
def course(request_id: RequestId, connect: Connect = _ENDPOINT, curve: Curve = None, as_json: AsJson = False) -> None:
    """Tell the course of a job: what became of it, and what one might not expect of its video."""
    with _client(connect, curve) as client:
        terminal.show_log(client.logs(request_id), as_json=as_json)


@app.command(epilog=usage.CLIENT)
def retry(request_id: RequestId, connect: Connect = _ENDPOINT, curve: Curve = None, as_json: AsJson = False) -> None:
    """Ask again, as a new job, for what a job that failed, expired or was cancelled was asked for."""
    with _client(connect, curve) as client:
        terminal.show_status(client.retry(request_id), as_json=as_json)


@app.command(epilog=usage.CLIENT)
def jobs(
    state: Annotated[list[State] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The newest so many.")] = 100,
    *,
    watched: Annotated[bool, typer.Option("--watch", help="Go on showing them until Ctrl-C.")] = False,
    connect: Connect = _ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs that the daemon knows, in order of arrival."""
    states: list[StateName] = [each.value for each in state or ()]
    with _client(connect, curve, _LONG_PATIENCE_S if watched else _SHORT_PATIENCE_S) as client:
        if watched:
            watch(client, states, limit, as_json=as_json)
        else:
            terminal.show_jobs(client.jobs(states, limit), as_json=as_json)


@app.command(epilog=usage.HEALTH)
def health(
    *,
    http: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask the HTTP door here, such as http://127.0.0.1:8480.")
    ] = None,
    connect: Connect = _ENDPOINT,
    curve: Curve = None,
    as_json: AsJson = False,
) -> None:
    """Say in one line whether a daemon would take a job now, and end with 0 if it would, with 4 if not."""
    if http is not None:
        found = health_over_http(http)
    else:
        with _client(connect, curve) as client:
            found = client.health()
    terminal.show_health(found, as_json=as_json)
    if not found.ready:
        raise typer.Exit(TRY_AGAIN)


@app.command(epilog=usage.DOCTOR)
def doctor(as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Say what works on this machine, and why not where it does not."""
    from renderer.cli.doctor import examine  # noqa: PLC0415 - the client commands stay quick

    findings = examine(config.load(config_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        terminal.show_findings((finding.works, finding.what, finding.found) for finding in findings)
    if not all(finding.works for finding in findings if finding.is_needed):
        raise typer.Exit(FAILED)


def _client(endpoint: str, curve: Path | None, patience_s: float = _SHORT_PATIENCE_S) -> "Client":
    from protocol.client import Client  # noqa: PLC0415 - asyncio and zmq take 100 ms that `render` does not need

    if faults := config.unknown_variables(os.environ):
        raise ConfigError("; ".join(faults))
    return Client(endpoint, curve=curve, patience_s=patience_s)


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
