"""The page's files and the routes that it uses: the jobs as they change, and what this daemon can do.

A content security policy lets the page contact only this server.
"""

import asyncio
import itertools
import json
import logging
import mimetypes
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from protocol.schema import Health, Jobs, JobsQuery
from renderer.config import Settings
from renderer.errors import InvalidRequest, JobNotFound, StillreelError, UnsupportedFormat, UnsupportedSound
from renderer.frontends.http.files import unless_known
from renderer.frontends.http.links import caller_of
from renderer.frontends.http.reading import chunks
from renderer.frontends.http.responses import error, event_stream
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import BYTES, UNKNOWN, About, Described, Details, Recognised, refused
from renderer.frontends.job_log import JobLogReader
from renderer.intake import invalid
from renderer.jobs import asked
from renderer.jobs.engine import Engine
from renderer.media.sound.formats import recognise as recognise_sound
from renderer.pictures.recognise import recognise
from renderer.processes import answer

log = logging.getLogger(__name__)

DIRECTORY: Final = Path(__file__).parent.parent / "web"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
_LOOK_S: Final = 0.5
_SHOWN: Final = 50
_EXAMINED_S: Final = 60.0
_DOCTOR: Final = "renderer.cli.doctor"
_DOCTOR_S: Final = 300.0
_EXAMINED: Final = {"pictures", "encode", "nvenc", "engine", "limits"}  # parts of the settings that hold no secrets
_BEGINNING_BYTES: Final = 16 * 1024  # of a file, enough to recognise its format

Findings = Sequence[dict[str, Any]]


class Page:
    """Answers the page."""

    def __init__(
        self, engine: Engine, about: About, logs: JobLogReader, settings: Settings, closing: asyncio.Event
    ) -> None:
        """Make the routes.

        Args:
            about: what does not change while the daemon runs.
            settings: for `doctor`.
        """
        self._engine = engine
        self._about = about
        self._logs = logs
        self._settings = settings
        self._closing = closing
        self._findings: tuple[float, Findings] | None = None
        self._examining = asyncio.Lock()
        self._listed: dict[str, tuple[float, str]] = {}
        self.routes = Routes("page")
        add = self.routes.add
        add("GET", "/api/jobs", self.jobs, {200: {"model": Jobs}, **refused(422, 401)})
        add("GET", "/api/jobs/{request_id}", self.job, {200: {"model": Details}, **refused(401), **UNKNOWN})
        add("GET", "/api/about", self.about, {200: {"model": About}})
        add("POST", "/api/recognise", self.recognise, _RECOGNISED, openapi_extra=BYTES)
        add("GET", "/api/health", self.health, {200: {"model": Health}})
        add("GET", "/api/events", self.events, _STREAM)
        add("GET", "/api/doctor", self.doctor, {})
        for path, method in itertools.product(("/", "/web/{name:path}"), ("GET", "HEAD")):
            add(method, path, self.file)

    async def file(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.path_params.get("name") or "index.html"
        path = DIRECTORY / name
        if ".." in name.split("/") or not path.resolve().is_relative_to(DIRECTORY) or not path.is_file():
            return error(404, "no such file", "not_found")
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        response = FileResponse(path, media_type=kind, headers=_HEADERS, stat_result=path.stat())
        return unless_known(request, response)

    async def jobs(self, request: Request, limit: str = "50", states: str = "") -> Response:
        """List the newest jobs, in order of arrival."""
        wanted = [state for state in states.split(",") if state]
        try:
            query = JobsQuery.model_validate({"limit": limit, "states": wanted})
        except ValidationError as failed:
            raise _of_query(invalid(failed, JobsQuery)) from failed
        return JSONResponse(
            {"jobs": [job.model_dump(mode="json") for job in self._engine.jobs(query, caller_of(request).owner)]}
        )

    async def job(self, request: Request, request_id: str) -> Response:
        """Return a job's request, its log, and the warnings about its video."""
        try:
            job = self._engine.job(caller_of(request).job_id(request_id))
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        found = Details(
            job=self._engine.status(job),
            request=asked.read(self._logs.directory_of(job.id)),
            log=self._logs.lines(job.id),
            warnings=list(job.result.warnings) if job.result else [],
        )
        return JSONResponse(found.model_dump(mode="json"))

    async def about(self) -> Response:
        """Return what the page may offer."""
        return JSONResponse(self._about.model_dump())

    async def recognise(self, request: Request, kind: str = "image") -> Response:
        """Return the format of a file whose first bytes are the body, so that it can be refused without an upload.

        It is to be a sound if `kind` is `audio`, otherwise an image.
        """
        beginning = b"".join([chunk async for chunk in chunks(request, _BEGINNING_BYTES)])
        try:
            name = recognise_sound(beginning)[0].name if kind == "audio" else recognise(beginning)
            found = Recognised(format=name)
        except (UnsupportedFormat, UnsupportedSound) as refused:
            found = Recognised(message=refused.message)
        return JSONResponse(found.model_dump())

    async def health(self) -> Response:
        """Return the daemon's health."""
        return JSONResponse(self._engine.health().model_dump(mode="json"))

    async def doctor(self) -> Response:
        """Return what works on this machine, and why other things do not."""
        async with self._examining:
            known = self._findings
            if known is None or time.monotonic() - known[0] > _EXAMINED_S:
                known = self._findings = time.monotonic(), await asyncio.to_thread(_examined, self._settings)
        return JSONResponse({"findings": [{**each, "found": _without_paths(each["found"])} for each in known[1]]})

    async def events(self, request: Request) -> Response:
        """Send the newest jobs at once and whenever one has changed, at most twice a second, as server-sent events."""
        return event_stream(self._changes(caller_of(request).owner))

    async def _changes(self, owner: str) -> AsyncIterator[str | None]:
        shown = ""
        while not self._closing.is_set():
            newest = self._newest(owner, shown)
            yield f"event: jobs\ndata: {newest}" if newest != shown else None
            shown = newest
            await asyncio.sleep(_LOOK_S)

    def _newest(self, owner: str, otherwise: str) -> str:
        """Return an owner's newest jobs as JSON; all who watch them share one look-up."""
        now = time.monotonic()
        listed = self._listed.get(owner)
        if listed and now - listed[0] < _LOOK_S / 2:
            return listed[1]
        try:
            jobs = self._engine.jobs(JobsQuery(limit=_SHOWN), owner)
        except StillreelError as failed:
            log.warning("the jobs could not be listed: %s", failed, extra={"action": "not_listed"})
            return otherwise
        text = json.dumps([job.model_dump(mode="json") for job in jobs])
        self._listed[owner] = now, text
        return text


def _of_query(fault: InvalidRequest) -> InvalidRequest:
    details = tuple({**each, "loc": ["query", *each["loc"]]} for each in fault.details)
    return InvalidRequest(fault.message, loc=("query", *fault.loc), details=details)


def _examined(settings: Settings) -> Findings:
    """Run `doctor`, which loads the libraries that it tries, in a child process; its failure is a finding, too."""
    document = settings.model_dump_json(include=_EXAMINED)
    try:
        done = answer([sys.executable, "-m", _DOCTOR], timeout_s=_DOCTOR_S, stdin=document)
    except (subprocess.TimeoutExpired, OSError) as error:
        log.warning("the machine could not be examined: %s", error, extra={"action": "not_examined"})
        return [_unknown("the examination did not end")]
    if done.returncode:
        words = done.stderr.strip()
        log.warning(
            "the machine could not be examined; the last output was: %s", words, extra={"action": "not_examined"}
        )
        return [_unknown(f"the examination ended with exit code {done.returncode}")]
    return list(json.loads(done.stdout.splitlines()[-1]))


def _unknown(why: str) -> dict[str, Any]:
    return {"what": "doctor", "works": False, "found": why, "is_needed": False}


def _without_paths(words: str) -> str:
    """Shorten paths to their last part, because the page need not know where things are on the server."""
    return re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", words)


_RECOGNISED: Final[Described] = {200: {"model": Recognised}, **refused(400, 401, 403, 413)}
_STREAM: Final[Described] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events named `jobs`, each with a list of jobs"}
}
