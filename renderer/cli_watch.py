"""`jobs --watch` and `cancel --all`: what asks about many jobs, and goes on asking."""

import sys
import time
from typing import TYPE_CHECKING

import typer

from protocol.errors import RemoteError
from protocol.schema import JobStatus, StateName
from renderer import terminal
from renderer.errors import ConfigError

if TYPE_CHECKING:
    from protocol.client import Client

_LOOK_S = 1.0
_MOST = 1000  # that one answer lists
_UNFINISHED: tuple[StateName, ...] = ("queued", "running")


def watch(client: "Client", states: list[StateName], limit: int, *, as_json: bool) -> None:
    """Show the jobs until Ctrl-C: drawn anew on a terminal, elsewhere a line for every job that is new or has moved."""
    try:
        with terminal.jobs_display(as_json=as_json) as show:
            while True:
                show(client.jobs(states, limit))
                time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        return


def cancel_all(client: "Client", *, is_sure: bool) -> list[JobStatus]:
    """Cancel the client's jobs that have not ended, once a person has agreed; scripts, which cannot answer, go on.

    Returns:
        What became of each.

    Raises:
        ConfigError: the person does not agree.
    """
    unfinished = client.jobs(_UNFINISHED, _MOST)
    if unfinished and not is_sure and sys.stdin.isatty() and sys.stderr.isatty():
        count = f"{len(unfinished)} or more" if len(unfinished) == _MOST else str(len(unfinished))
        if not typer.confirm(f"Cancel all jobs that have not ended ({count})?", err=True):
            raise ConfigError("nothing was cancelled")
    ended: dict[str, JobStatus | None] = {}
    while left := [job.request_id for job in unfinished if job.request_id not in ended]:
        for request_id in left:
            ended[request_id] = _cancelled(client, request_id)
        if len(unfinished) < _MOST:
            break
        unfinished = client.jobs(_UNFINISHED, _MOST)
    return [status for status in ended.values() if status]


def _cancelled(client: "Client", request_id: str) -> JobStatus | None:
    """Cancel a job; None if the daemon has forgotten it by now."""
    try:
        return client.cancel(request_id)
    except RemoteError as error:
        if error.kind.name == "not_found":
            return None
        raise
