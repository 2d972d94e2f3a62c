"""The commands that ask a running daemon about its jobs.

`submit -o` and `result -o` check the video's place before the work begins, and fetch the video at the end. `jobs
--watch` and `cancel --all` ask repeatedly about many jobs.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from protocol.endpoint import DEFAULT_ENDPOINT as ENDPOINT
from protocol.errors import RemoteError
from renderer.cli import terminal, usage
from renderer.cli.output import overwrite_option, refuse_manifest, written
from renderer.cli.usage import PATH, json_option
from renderer.errors import ConfigError, OutputFailed

if TYPE_CHECKING:
    from protocol.client import Client
    from protocol.schema import File, JobStatus, RenderResult, StateName

# How long a daemon may be unreachable: a short command soon gives up, and a command that waits keeps waiting.
_SHORT_PATIENCE_S, LONG_PATIENCE_S = 10.0, 120.0

_UNFINISHED: "tuple[StateName, ...]" = ("queued", "running")

_connect_option = click.option(
    "--connect", envvar="STILLREEL_CONNECT", show_envvar=True, default=ENDPOINT, help="The daemon's endpoint."
)
_curve_option = click.option(
    "--curve",
    type=PATH,
    envvar="STILLREEL_CURVE",
    show_envvar=True,
    metavar="FILE",
    help="Your keys, from `stillreel keys curve`.",
)
fetch_option = click.option(
    "--output", "-o", type=PATH, metavar="FILE", help="Fetch the video into this .mp4; - writes it to stdout."
)


@dataclass(frozen=True, slots=True)
class Daemon:
    """The daemon that a command asks."""

    endpoint: str
    curve: Path | None

    def client(self, patience_s: float = _SHORT_PATIENCE_S) -> "Client":
        """Return a client of it.

        Raises:
            ConfigError: an environment variable begins with STILLREEL_ but is unknown.
        """
        from protocol.client import Client  # noqa: PLC0415 - pydantic takes as long as all else

        _refuse_unknown_variables()
        return Client(self.endpoint, curve=self.curve, patience_s=patience_s)

    def show_answer(
        self, method: Literal["submit", "status", "cancel", "retry"], params: Mapping[str, Any], *, as_json: bool
    ) -> None:
        """Ask about one job, and show the status that is the answer.

        Raises:
            ClientError: the answer is not a status; the message says what is wrong.
        """
        answer = asyncio.run(self._answer(method, params))
        try:
            terminal.show_status(answer, as_json=as_json)
        except (KeyError, TypeError, AttributeError):
            from protocol.client import read_answer  # noqa: PLC0415 - to say what is wrong, which takes as long
            from protocol.schema import JobStatus  # noqa: PLC0415 - as above

            read_answer(JobStatus, answer)
            raise

    async def _answer(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of the answer as the daemon says them; for the model of them, see protocol.client."""
        from protocol.connection import Connection  # noqa: PLC0415 - the help of all commands stays quick
        from protocol.curve import read_curve_file  # noqa: PLC0415 - as above
        from protocol.patience import Patience  # noqa: PLC0415 - as above

        _refuse_unknown_variables()
        connection = Connection(self.endpoint, read_curve_file(self.curve) if self.curve else None)
        try:
            return (await connection.ask(method, params, Patience(patience_s=_SHORT_PATIENCE_S))).result
        finally:
            await connection.close()


def _refuse_unknown_variables() -> None:
    if any(name.startswith("STILLREEL_") for name in os.environ):
        from renderer import config  # noqa: PLC0415 - as long as all else, and only to name what is misspelt

        if faults := config.unknown_variables(os.environ):
            raise ConfigError("; ".join(faults))


def daemon_options(command: Callable[..., object]) -> Callable[..., object]:
    """Add the options that say which daemon is asked; the command gets it as `daemon`."""

    def collected(*, connect: str, curve: Path | None, **others: Any) -> object:
        return command(daemon=Daemon(connect, curve), **others)

    return _connect_option(_curve_option(update_wrapper(collected, command)))


@click.command(epilog=usage.CLIENT)
@click.argument("request_id")
@daemon_options
@json_option
def status(request_id: str, *, daemon: Daemon, as_json: bool) -> None:
    """Show the status of a job."""
    daemon.show_answer("status", {"request_id": request_id}, as_json=as_json)


@click.command(epilog=usage.CLIENT)
@click.argument("request_id")
@fetch_option
@overwrite_option
@daemon_options
@json_option
def result(
    request_id: str,
    output: Path | None,
    *,
    overwrite: bool | None,
    daemon: Daemon,
    as_json: bool,
) -> None:
    """Show the result of a finished job; -o fetches the video."""
    with (
        place_to_fetch(output, overwrite=overwrite, as_json=as_json) as place,
        daemon.client() as client,
    ):
        made = fetched(client, client.result(request_id), request_id, place, is_alone=str(output) == "-")
    terminal.show_result(made, as_json=as_json, on_stderr=str(output) == "-")


@click.command(epilog=usage.CLIENT)
@click.argument("request_id", required=False)
@click.option("--all", "every", is_flag=True, help="All jobs of yours that have not ended.")
@click.option("-y", "is_sure", is_flag=True, help="Do not ask before --all.")
@daemon_options
@json_option
def cancel(request_id: str | None, *, every: bool, is_sure: bool, daemon: Daemon, as_json: bool) -> None:
    """Cancel a job, or with --all every job of yours. Without a key, those of all clients without one are yours."""
    if every == (request_id is not None):
        raise ConfigError("expected the job's request_id or --all, and not both: stillreel cancel ID")
    if request_id is not None:
        daemon.show_answer("cancel", {"request_id": request_id}, as_json=as_json)
        return
    with daemon.client() as client:
        terminal.show_cancelled(cancel_all(client, is_sure=is_sure), as_json=as_json)


@click.command(epilog=usage.CLIENT)
@click.argument("request_id")
@daemon_options
@json_option
def logs(request_id: str, *, daemon: Daemon, as_json: bool) -> None:
    """Show the log of a job. It tells what happened to it, and what you might not expect of its video."""
    with daemon.client() as client:
        terminal.show_log(client.logs(request_id), as_json=as_json)


@click.command(epilog=usage.CLIENT)
@click.argument("request_id")
@daemon_options
@json_option
def retry(request_id: str, *, daemon: Daemon, as_json: bool) -> None:
    """Submit a job again that failed, expired or was cancelled. It becomes a new job."""
    daemon.show_answer("retry", {"request_id": request_id}, as_json=as_json)


@click.command(epilog=usage.CLIENT)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([*_UNFINISHED, "done", "failed", "cancelled", "expired"]),
    help="Only jobs in this state; may be repeated.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="How many jobs to list at most, the newest.")
@click.option("--watch", "watched", is_flag=True, help="Keep showing them until Ctrl-C.")
@daemon_options
@json_option
def jobs(states: "tuple[StateName, ...]", limit: int, *, watched: bool, daemon: Daemon, as_json: bool) -> None:
    """List the jobs that the daemon knows, in order of arrival."""
    with daemon.client(LONG_PATIENCE_S if watched else _SHORT_PATIENCE_S) as client:
        if watched:
            watch(client, states, limit, as_json=as_json)
        else:
            terminal.show_jobs(client.jobs(states, limit), as_json=as_json)


@contextmanager
def place_to_fetch(
    output: Path | None, *, overwrite: bool | None, as_json: bool, manifest: Path | None = None
) -> Iterator[Path | None]:
    """Lend the path that the video will be fetched to; None if it was not asked for.

    Raises:
        ConfigError: the video cannot be written there.
    """
    if output is None:
        yield None
        return
    if str(output) != "-" and output.suffix.lower() != ".mp4":
        raise ConfigError(f"output: a daemon makes MP4 files; expected a name that ends in .mp4, found {output}")
    with written(output, overwrite=overwrite, as_json=as_json) as place:
        if manifest:
            refuse_manifest(place, manifest)
        yield place


def fetched(
    client: "Client", made: "RenderResult", request_id: str, place: Path | None, *, is_alone: bool
) -> "RenderResult":
    """Fetch the video if it was asked for, and what was made beside it, and return the result with their urls here.

    Args:
        is_alone: nothing but the video is fetched.

    Raises:
        OutputFailed: the file cannot be written.
    """
    if place is None:
        return made
    places = {field: place.with_suffix(_ending(file)) for field, file in ({} if is_alone else made.files()).items()}
    places["video"] = place
    try:
        for field, each in places.items():
            client.download(request_id, each, field)
    except OSError as error:
        raise OutputFailed(f"output: {place} cannot be written: {error.strerror}") from error
    except BaseException:
        terminal.show_note(f"the video was made but not fetched: stillreel result {request_id} -o FILE")
        raise
    here: dict[str, File] = {
        field: made.files()[field].model_copy(update={"url": each.absolute().as_uri(), "file_name": each.name})
        for field, each in places.items()
    }
    return made.model_copy(update=here)


def _ending(file: "File") -> str:
    """Return what the name of a result's file has after that of its video: ".mp4", ".poster.jpg" and so on."""
    return "." + file.file_name.partition(".")[2]


_LOOK_S = 1.0
_MOST = 1000  # jobs that one answer can list


def watch(client: "Client", states: "Sequence[StateName]", limit: int, *, as_json: bool) -> None:
    """Show the jobs until Ctrl-C: redrawn on a terminal, elsewhere a line for every job that is new or has changed."""
    try:
        with terminal.jobs_display(as_json=as_json) as show:
            while True:
                show(client.jobs(states, limit))
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        return


def cancel_all(client: "Client", *, is_sure: bool) -> "list[JobStatus]":
    """Cancel the client's jobs that have not ended, after asking on a terminal, and return their statuses.

    Raises:
        ConfigError: the answer was no.
    """
    unfinished = client.jobs(_UNFINISHED, _MOST)
    if unfinished and not is_sure and sys.stdin.isatty() and sys.stderr.isatty():
        count = f"{len(unfinished)} or more" if len(unfinished) == _MOST else str(len(unfinished))
        if not click.confirm(f"Cancel all jobs that have not ended ({count})?", err=True):
            raise ConfigError("nothing was cancelled")
    ended: dict[str, JobStatus | None] = {}
    while left := [job.request_id for job in unfinished if job.request_id not in ended]:
        for request_id in left:
            ended[request_id] = _cancelled(client, request_id)
        if len(unfinished) < _MOST:
            break
        unfinished = client.jobs(_UNFINISHED, _MOST)
    return [status for status in ended.values() if status]


def _cancelled(client: "Client", request_id: str) -> "JobStatus | None":
    """Cancel a job; return None if the daemon no longer knows it."""
    try:
        return client.cancel(request_id)
    except RemoteError as error:
        if error.kind.name == "not_found":
            return None
        raise
