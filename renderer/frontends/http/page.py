"""What the page is made of, and what it asks: its files, the jobs as they change, and what this daemon can do.

The page comes with a policy that lets it load and ask nothing but this server.
"""

import asyncio
import json
import logging
import mimetypes
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse

from protocol.schema import Health, Jobs, JobsQuery
from renderer.errors import InvalidRequest, JobNotFound, StillreelError, UnsupportedFormat
from renderer.frontends.http.files import unless_known
from renderer.frontends.http.links import CALLER, Caller
from renderer.frontends.http.reading import chunks
from renderer.frontends.http.responses import error
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import REFUSALS, About, Details, Recognised, Unknown
from renderer.frontends.job_log import JobLogReader
from renderer.intake import invalid
from renderer.jobs import asked
from renderer.jobs.engine import Engine
from renderer.pictures.recognise import recognise

log = logging.getLogger(__name__)

DIRECTORY: Final = Path(__file__).parent.parent / "web"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
_LOOK_S: Final = 0.5
_HEARTBEAT_S: Final = 10.0
_SHOWN: Final = 50
_EXAMINED_S: Final = 60.0
_BEGINNING_BYTES: Final = 16 * 1024  # of a file, to tell what it is

Findings = Sequence[dict[str, Any]]


class Page:
    """Answers to the page."""

    def __init__(
        self, engine: Engine, about: About, logs: JobLogReader, examine: Callable[[], Findings], closing: asyncio.Event
    ) -> None:
        """Make the routes.

        Args:
            about: what does not change while the daemon runs.
            examine: says what works on this machine; takes seconds, so it runs on a thread.
        """
        self._engine = engine
        self._about = about
        self._logs = logs
        self._examine = examine
        self._closing = closing
        self._findings: tuple[float, Findings] | None = None
        self._examining = asyncio.Lock()
        self._listed: dict[str, tuple[float, str]] = {}
        self.routes = Routes("page")
        add = self.routes.add
        described: dict[int | str, dict[str, Any]] = {200: {"model": Jobs}, 422: REFUSALS[422], 401: REFUSALS[401]}
        add("/api/jobs", self.jobs, "GET", responses=described)
        add("/api/jobs/{request_id}", self.job, "GET", responses=_DETAILS)
        add("/api/about", self.about, "GET", responses={200: {"model": About}})
        add("/api/recognise", self.recognise, "POST", **_RECOGNISING)
        add("/api/health", self.health, "GET", responses={200: {"model": Health}})
        add("/api/events", self.events, "GET", responses=_STREAM)
        add("/api/doctor", self.doctor, "GET")
        for path in ("/", "/web/{name:path}"):
            add(path, self.file, "GET", "HEAD", include_in_schema=False)

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
            {"jobs": [job.model_dump(mode="json") for job in self._engine.jobs(query, _owner(request))]}
        )

    async def job(self, request: Request, request_id: str) -> Response:
        """Tell what was asked for, how it went, and what is noteworthy about the video."""
        caller: Caller = request.scope[CALLER]
        try:
            job = self._engine.job(caller.job_id(request_id))
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
        """Say what the page may offer."""
        return JSONResponse(self._about.model_dump())

    async def recognise(self, request: Request) -> Response:
        """Say what a file is by its first bytes, which are the body: so it need not be sent to be refused."""
        beginning = b"".join([chunk async for chunk in chunks(request, _BEGINNING_BYTES)])
        try:
            found = Recognised(format=recognise(beginning))
        except UnsupportedFormat as refused:
            found = Recognised(message=refused.message)
        return JSONResponse(found.model_dump())

    async def health(self) -> Response:
        """Say how the daemon stands."""
        return JSONResponse(self._engine.health().model_dump(mode="json"))

    async def doctor(self) -> Response:
        """Say what works on this machine, and why not where it does not."""
        async with self._examining:
            known = self._findings
            if known is None or time.monotonic() - known[0] > _EXAMINED_S:
                known = self._findings = time.monotonic(), await asyncio.to_thread(self._examine)
        return JSONResponse({"findings": [{**each, "found": _without_paths(each["found"])} for each in known[1]]})

    async def events(self, request: Request) -> Response:
        """Tell the newest jobs at once, and whenever one changes, twice a second at most, as server-sent events."""
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._changes(_owner(request)), media_type="text/event-stream", headers=headers)

    async def _changes(self, owner: str) -> AsyncIterator[bytes]:
        shown, spoke_at = "", 0.0
        while not self._closing.is_set():
            newest = self._newest(owner, shown)
            if newest != shown:
                shown, spoke_at = newest, time.monotonic()
                yield f"event: jobs\ndata: {shown}\n\n".encode()
            elif time.monotonic() - spoke_at > _HEARTBEAT_S:
                spoke_at = time.monotonic()
                yield b": still here\n\n"
            await asyncio.sleep(_LOOK_S)

    def _newest(self, owner: str, otherwise: str) -> str:
        """Return an owner's newest jobs as JSON; asked once for all who watch them."""
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


def _owner(request: Request) -> str:
    caller: Caller = request.scope[CALLER]
    return caller.owner


def _of_query(fault: InvalidRequest) -> InvalidRequest:
    details = tuple({**each, "loc": ["query", *each["loc"]]} for each in fault.details)
    return InvalidRequest(fault.message, loc=("query", *fault.loc), details=details)


def _without_paths(words: str) -> str:
    """Leave of a path what it ends in: where things lie on the server is not the page's business."""
    return re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", words)


_DETAILS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": Details},
    401: REFUSALS[401],
    404: {"model": Unknown, "description": "Unknown, or forgotten since"},
}
_RECOGNISING: Final[dict[str, Any]] = {
    "responses": {200: {"model": Recognised}, **{code: REFUSALS[code] for code in (400, 401, 403, 413)}},
    "openapi_extra": {
        "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    },
}
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events named `jobs`, each with a list of jobs"}
}
