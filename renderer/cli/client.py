"""What the client commands do beyond one question and its answer.

`submit -o` and `result -o` check where a video goes before the work, and write it once it is there. `jobs --watch` and
`cancel --all` ask about many jobs and go on asking. `health --http` asks the HTTP door, which needs no key for that.
"""

import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer
from pydantic import ValidationError

from protocol.errors import RemoteError, Unreachable
from protocol.schema import Health, JobStatus, RenderResult, StateName
from renderer.cli import terminal
from renderer.cli.render import refuse_manifest, written
from renderer.errors import ConfigError, OutputFailed

if TYPE_CHECKING:
    from protocol.client import Client


@contextmanager
def place_to_fetch(
    output: Path | None, *, overwrite: bool | None, as_json: bool, manifest: Path | None = None
) -> Iterator[Path | None]:
    """Lend the place that the video is to be fetched to; None where nobody asks for it.

    Raises:
        ConfigError: no video can be put there.
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


def fetched(client: "Client", made: RenderResult, request_id: str, place: Path | None) -> RenderResult:
    """Fetch the video if there is a place for it, and return the result with the url that it then has.

    Raises:
        OutputFailed: it cannot be written.
    """
    if place is None:
        return made
    try:
        client.download(request_id, place)
    except OSError as error:
        raise OutputFailed(f"output: {place} cannot be written: {error.strerror}") from error
    except BaseException:
        terminal.show_note(f"the video was made but not fetched: stillreel result {request_id} -o FILE")
        raise
    video = made.video.model_copy(update={"url": place.absolute().as_uri(), "file_name": place.name})
    return made.model_copy(update={"video": video})


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


_ANSWER_S = 10.0
_MOST_BYTES = 1 << 20


def health_over_http(address: str) -> Health:
    """Ask `/readyz` below an address; no proxy is used, and a certificate is trusted as SSL_CERT_FILE says.

    Raises:
        ConfigError: it is no address.
        Unreachable: no daemon answers there.
    """
    if not _is_url(address):
        raise ConfigError(f"expected the address of an HTTP door, such as http://127.0.0.1:8480, found {address!r}")
    url = f"{address.rstrip('/')}/readyz"
    handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        return Health.model_validate_json(_body(urllib.request.build_opener(*handlers), url))
    except ValidationError as error:
        raise Unreachable(f"what answers at {url} is no stillreel daemon") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(f"no answer from {url}: {_why(reason)}") from error


def _is_url(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that is not closed, or a port that is none
        return False


def _why(reason: object) -> str:
    """Say in our words what came between."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "its certificate is not trusted; SSL_CERT_FILE names one that is to be"
    if isinstance(reason, ssl.SSLError):
        return "it does not speak TLS as it should"
    if isinstance(reason, TimeoutError):
        return f"it took longer than {_ANSWER_S:g} s"
    return getattr(reason, "strerror", None) or "it does not speak HTTP as it should"


def _body(opener: urllib.request.OpenerDirector, url: str) -> bytes:
    """Return what is answered; a daemon that is not ready answers 503, with the same document."""
    try:
        with opener.open(url, timeout=_ANSWER_S) as answer:
            return bytes(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read(_MOST_BYTES)
