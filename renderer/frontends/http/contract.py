"""The hosted service's routes: run, submit, status, status stream, result, cancel.

A job that `run` has created belongs to the connections that wait for it, and is cancelled when the last of them is
closed, unless it was also submitted. A short grace period lets a client that lost its connection ask again under the
same id.

When a job fails, the error body quotes the sources that the client gave. A job that has ended keeps nothing of its
request, and a request may be large, so only the urls of the newest requests are kept, shortened and in memory. After a
restart an error body names the place of a fault without quoting it.
"""

import asyncio
import contextlib
import json
import logging
import re
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from protocol.schema import Fault, RenderResult
from renderer.errors import JobNotFound, QueueFull, ShuttingDown, StillreelError
from renderer.frontends.documents import read_aside
from renderer.frontends.http import files, responses
from renderer.frontends.http.links import APP, CALLER, Caller, Tokens, caller_of
from renderer.frontends.http.reading import Bodies, Gone, wanted_of
from renderer.frontends.http.responses import at, shortened
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import APPS, CANCEL, RESULT, STATUS, STREAM, SUBMIT, run
from renderer.frontends.http.uploads import Uploads
from renderer.frontends.intake import Door, Intake
from renderer.frontends.job_log import JobLogReader
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job, State
from renderer.net.objects import opened

log = logging.getLogger(__name__)

_GRACE_S: Final = 0.4
_STORE_PAUSE_S: Final = 1.0


class WaitingClients:
    """Counts the connections that wait for each job, and cancels jobs that have lost all; on the engine's loop."""

    def __init__(self, engine: Engine, waited_for: set[str]) -> None:
        """Begin without connections.

        Args:
            waited_for: the intake's ids of jobs that only waiting connections have asked for.
        """
        self._engine = engine
        self._connections: Counter[str] = Counter()
        self._waited_for = waited_for

    async def finished(self, job: Job, receive: Receive) -> Job | None:
        """Return the job when it has ended, or None when the client has closed its connection.

        Args:
            receive: the connection's messages after the body of the request.

        Raises:
            ShuttingDown: the daemon is stopping before the job could run.
        """
        with self._at(job.id):
            following = asyncio.ensure_future(self._engine.finished(job.id))
            hung_up = asyncio.ensure_future(_hang_up(receive))
            try:
                await asyncio.wait({following, hung_up}, return_when=asyncio.FIRST_COMPLETED)
                return following.result() if following.done() else None
            except ShuttingDown:
                self._waited_for.discard(job.id)  # the next daemon runs it, as the answer says
                raise
            finally:
                for task in (following, hung_up):
                    task.cancel()
                await asyncio.gather(following, hung_up, return_exceptions=True)

    @contextlib.contextmanager
    def _at(self, job_id: str) -> Iterator[None]:
        self._connections[job_id] += 1
        try:
            yield
        finally:
            self._connections[job_id] -= 1
            if self._connections[job_id] == 0:
                asyncio.get_running_loop().call_later(_GRACE_S, self._leave, job_id)

    def _leave(self, job_id: str) -> None:
        if self._connections[job_id] > 0:
            return
        self._connections.pop(job_id, None)
        if job_id in self._waited_for:
            self._cancel(job_id)

    def _cancel(self, job_id: str) -> None:
        try:
            self._engine.cancel(job_id)
        except JobNotFound:
            pass
        except StillreelError as error:
            log.warning("it could not be cancelled yet: %s", error, extra={"job": job_id, "action": "not_cancelled"})
            asyncio.get_running_loop().call_later(_STORE_PAUSE_S, self._leave, job_id)
            return
        self._waited_for.discard(job_id)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


_URLS_KEPT: Final = 100_000
_OF_ONE_FILE: Final = ("video_url", "audio_url", "media_url")


class RecentUrls:
    """The urls of the newest requests, for error bodies."""

    def __init__(self) -> None:
        self._urls: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._count = 0

    def keep(self, job_id: str, document: object) -> None:
        """Remember the urls of a request."""
        urls: dict[str, Any] = {}
        for name in ("images", "audio"):
            found = at(document, (name,))
            sources = found if isinstance(found, list) else []
            urls[name] = [{"url": shortened(at(each, ("url",)))} for each in sources]
        for name in _OF_ONE_FILE:
            urls[name] = shortened(at(document, (name,)))
        self._count += _counted(urls) - _counted(self._urls.pop(job_id, {}))
        self._urls[job_id] = urls
        while self._count > _URLS_KEPT:
            self._count -= _counted(self._urls.popitem(last=False)[1])

    def of(self, job_id: str) -> dict[str, Any]:
        """Return the part of the request's document that is known."""
        return self._urls.get(job_id, {})


def _counted(urls: dict[str, Any]) -> int:
    return sum(len(found) if isinstance(found, list) else 1 for found in urls.values())


_LOOK_S: Final = 1.0
_TRUE: Final = {"1", "true", "yes", "on"}
_STATUS: Final = re.compile(f"/queue/{APP}/requests/([^/]+)/status")


@dataclass(eq=False)
class Contract:
    """Answers under /run and /queue."""

    engine: Engine
    intake: Intake
    bodies: Bodies
    faults: responses.Faults
    logs: JobLogReader
    tokens: Tokens
    uploads: Uploads
    closing: asyncio.Event

    def __post_init__(self) -> None:
        self._clients = WaitingClients(self.engine, self.intake.waited_for)
        self._urls = RecentUrls()
        one = f"/queue/{APP}/requests/{{request_id}}"
        self.routes = Routes("render")
        add = self.routes.add
        add("GET", f"{one}/status", self.status, STATUS)
        add("GET", one, self.result, RESULT)
        for name, app in APPS.items():
            add("POST", f"/queue/{APP}/{name}", self.submit, SUBMIT, openapi_extra=app.body)
            add("POST", f"/run/{APP}/{name}", self.run, run(app), openapi_extra=app.body)
        add("PUT", f"{one}/cancel", self.cancel, CANCEL)
        add("GET", f"{one}/status/stream", self.stream, STREAM)

    # Asking for work.

    async def run(self, request: Request) -> Response:
        """Do what is asked for and answer when it is done. Closing the connection cancels the job."""
        job = await self._accept(request, waits=True)
        done = await self._clients.finished(job, request.receive)
        if done is None:
            raise Gone
        return await self._outcome(done, caller_of(request))

    async def submit(self, request: Request, fal_webhook: str | None = None) -> Response:  # noqa: ARG002 - for OpenAPI
        """Accept a request and answer at once; its status can be asked for, or a webhook named."""
        job = await self._accept(request)
        position = self.engine.status(job).queue_position
        document = responses.submitted(job, position, caller_of(request).links)
        return JSONResponse(document, headers={responses.REQUEST_ID: job.request_id})

    async def _accept(self, request: Request, *, waits: bool = False) -> Job:
        caller = caller_of(request)
        async with self.bodies.document(request) as body:
            document = body.document
            try:
                self._check_queue(request)
                app = APPS[request.url.path.rpartition("/")[2]]
                read = partial(wanted_of, document, app.wanted, request, caller, self.intake.max_images)
                wanted, warnings = await read_aside(read, body.size_bytes)
                with self.uploads.taken(wanted, caller.links, self._made) as (wanted, files):
                    links = caller.links.base
                    door = Door(caller.client, links=links, owner=caller.owner, waits=waits, warnings=warnings)
                    job = await self.intake.accept(wanted, door, files)
            except StillreelError as error:
                raise Failed(error.fault(), document) from error
            self._urls.keep(job.id, document)
        return job

    def _made(self, token: str) -> Path | None:
        """Return the file of a result that a token stands for, if it is still here."""
        found = self.tokens.file_of(token, self.engine.job)
        place = found[0].output / found[1].file_name if found and not found[0].is_kept_elsewhere else None
        return place if place and place.exists() else None

    def _check_queue(self, request: Request) -> None:
        limit = request.query_params.get("fal_max_queue_length", "")
        waiting = self.engine.health().jobs_queued if limit.isdecimal() else 0
        if limit.isdecimal() and len(limit) < 10 and waiting >= int(limit):
            raise QueueFull(f"expected fewer than {limit} waiting jobs, found {waiting}")

    # Asking about it.

    async def status(self, request: Request, request_id: str, logs: str = "") -> Response:
        """Return the status of a request."""
        return self.status_now(request_id, caller_of(request), wants_logs=logs.lower() in _TRUE)

    def status_now(self, request_id: str, caller: Caller, *, wants_logs: bool) -> Response:
        try:
            job = self.engine.job(caller.job_id(request_id))
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        lines = self.logs.lines(job.id) if wants_logs else []
        status, document = self._status(job, lines, caller)
        return Response(to_json(document), status, media_type="application/json")  # takes half of JSONResponse's time

    async def stream(self, request: Request, request_id: str, logs: str = "") -> Response:
        """Send every change of a request's status, with its new log lines, as server-sent events until it has ended."""
        try:
            job = self.engine.job(caller_of(request).job_id(request_id))
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        news = self._news(job, caller_of(request), wants_logs=logs.lower() in _TRUE)
        return responses.event_stream(news, {responses.REQUEST_ID: job.request_id})

    async def _news(self, job: Job, caller: Caller, *, wants_logs: bool) -> AsyncIterator[str | None]:
        told, last = 0, None
        with contextlib.suppress(StillreelError):  # the daemon is stopping; the job is kept
            async for newer in self.engine.updates(job.id, _LOOK_S):
                lines = self.logs.lines(job.id)[told:] if wants_logs else []
                told += len(lines)
                document = self._status(newer, lines, caller)[1]
                yield f"data: {json.dumps(document)}" if lines or document != last else None
                last = {**document, "logs": []}
                if self.closing.is_set():
                    return

    def _status(self, job: Job, lines: list[dict[str, Any]], caller: Caller) -> tuple[int, dict[str, Any]]:
        position = self.engine.status(job).queue_position if job.state is State.QUEUED else None
        return responses.status(job, position, lines, caller.links)

    async def result(self, request: Request, request_id: str) -> Response:
        """Return the answer to a finished request, or the error that it ended with."""
        try:
            job = self.engine.job(caller_of(request).job_id(request_id))
        except JobNotFound:
            return responses.error(404, "Request not found", "not_found")
        if not job.is_finished:
            return responses.error(400, "Request is still in progress", "still_in_progress")
        return await self._outcome(job, caller_of(request))

    async def cancel(self, request: Request, request_id: str) -> Response:
        """Cancel a request; one that is running ends as soon as its worker has been stopped."""
        try:
            job = self.engine.job(caller_of(request).job_id(request_id))
            if job.is_finished:
                return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
            self.engine.cancel(job.id)
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    def failed(self, fault: Fault) -> Response:
        """Return the answer to a request that failed."""
        return self.faults.answer(fault)

    async def _outcome(self, job: Job, caller: Caller) -> Response:
        outcome = job.outcome
        if isinstance(outcome, Fault):
            return self.faults.answer(outcome, self._urls.of(job.id), job.request_id)
        if job.sync_mode and isinstance(outcome, RenderResult):
            return await files.inline(job, outcome)
        if isinstance(outcome, RenderResult):
            outcome = await opened(outcome, self.engine.render_settings)
        document = responses.linked(job, outcome, self.tokens, caller.links)
        return JSONResponse(document, headers={responses.REQUEST_ID: job.request_id})


class Polled:
    """Answers requests for a status itself, and passes all others on to the app.

    Every client asks for the status ten times a second, and finding the route takes longer than the answer;
    `python -m benchmarks polling` measures it.
    """

    def __init__(self, app: ASGIApp, contract: Contract) -> None:
        self._app = app
        self._contract = contract

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _STATUS.fullmatch(scope["path"]) if scope["method"] == "GET" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        asked = parse_qsl(scope["query_string"].decode("latin-1"))
        wants_logs = dict(asked).get("logs", "").lower() in _TRUE
        try:
            response: Response = self._contract.status_now(found[1], scope[CALLER], wants_logs=wants_logs)
        except StillreelError as error:
            response = self._contract.failed(error.fault())
        await response(scope, receive, send)


class Failed(Exception):
    """A request that is not accepted, and its document if that could be read."""

    def __init__(self, fault: Fault, document: object) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.document = document
