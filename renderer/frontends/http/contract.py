"""The hosted service's routes: run, submit, status, status stream, result, cancel."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from protocol.schema import Fault
from renderer.errors import JobNotFound, QueueFull, StillreelError
from renderer.frontends.documents import read_aside
from renderer.frontends.http import answers, videos
from renderer.frontends.http.address import APP, ENDPOINT
from renderer.frontends.http.bodies import Bodies, Gone
from renderer.frontends.http.described import CANCEL, REQUEST_BODY, RESULT, RUN, STATUS, STREAM, SUBMIT
from renderer.frontends.http.inputs import Inputs
from renderer.frontends.http.links import CALLER, Caller
from renderer.frontends.http.reading import render_request
from renderer.frontends.http.tokens import Tokens
from renderer.frontends.http.uploads import Uploads
from renderer.frontends.http.waiting import Waiting
from renderer.frontends.job_log import JobLogReader
from renderer.intake import Door, Intake
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job, State

_LOOK_S: Final = 1.0
_SILENCE_S: Final = 10.0  # a comment comes after that; proxies cut what is silent for some time, often a minute
_TRUE: Final = {"1", "true", "yes", "on"}
_STATUS: Final = re.compile(f"/queue/{APP}/requests/([^/]+)/status")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes work with."""

    engine: Engine
    intake: Intake
    bodies: Bodies
    faults: answers.Faults
    logs: JobLogReader
    tokens: Tokens
    uploads: Uploads
    closing: asyncio.Event


class Contract:
    """Answers under /run and /queue."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._engine = parts.engine
        self._waiting = Waiting(parts.engine, parts.intake.waited_for)
        self._inputs = Inputs()
        one = f"/queue/{APP}/requests/{{request_id}}"
        self.routes = APIRouter(tags=["render"])
        self._add("GET", f"{one}/status", self.status, STATUS)
        self._add("GET", one, self.result, RESULT)
        self._add("POST", f"/queue/{APP}/{ENDPOINT}", self.submit, SUBMIT, REQUEST_BODY)
        self._add("POST", f"/run/{APP}/{ENDPOINT}", self.run, RUN, REQUEST_BODY)
        self._add("PUT", f"{one}/cancel", self.cancel, CANCEL)
        self._add("GET", f"{one}/status/stream", self.stream, STREAM)

    def _add(self, method: str, path: str, endpoint: Any, described: Any, extra: Any = None) -> None:
        self.routes.add_api_route(
            path, endpoint, methods=[method], response_model=None, responses=described, openapi_extra=extra
        )

    # Asking for a video.

    async def run(self, request: Request) -> Response:
        """Render, and answer when it is done. Dropping the connection cancels the work."""
        job = await self._accept(request, waits=True)
        done = await self._waiting.finished(job, request.receive)
        if done is None:
            raise Gone
        return await self._outcome(done, _caller(request))

    async def submit(self, request: Request, fal_webhook: str | None = None) -> Response:  # noqa: ARG002 - for OpenAPI
        """Accept a request and answer at once; ask for its status, or name a webhook."""
        job = await self._accept(request)
        position = self._engine.status(job).queue_position
        document = answers.submitted(job, position, _caller(request).links)
        return JSONResponse(document, headers={answers.REQUEST_ID: job.request_id})

    async def _accept(self, request: Request, *, waits: bool = False) -> Job:
        caller = _caller(request)
        async with self._parts.bodies.document(request) as body:
            document = body.document
            try:
                self._check_queue(request)
                read = partial(render_request, document, request, caller, self._parts.intake.max_images)
                wanted, warnings = await read_aside(read, body.size_bytes)
                with self._parts.uploads.taken(wanted, caller.links) as (wanted, files):
                    links = caller.links.base
                    door = Door(caller.client, links=links, owner=caller.owner, waits=waits, warnings=warnings)
                    job = await self._parts.intake.accept(wanted, door, files)
            except StillreelError as error:
                raise Failed(error.fault(), document) from error
            self._inputs.keep(job.id, document)
        return job

    def _check_queue(self, request: Request) -> None:
        limit = request.query_params.get("fal_max_queue_length", "")
        waiting = self._engine.health().jobs_queued if limit.isdecimal() else 0
        if limit.isdecimal() and len(limit) < 10 and waiting >= int(limit):
            raise QueueFull(f"expected less than {limit} jobs to wait, found {waiting}")

    # Asking about it.

    async def status(self, request: Request, request_id: str, logs: str = "") -> Response:
        """Say how a request is doing."""
        return self.status_now(request_id, _caller(request), wants_logs=logs.lower() in _TRUE)

    def status_now(self, request_id: str, caller: Caller, *, wants_logs: bool) -> Response:
        try:
            job = self._engine.job(caller.job_id(request_id))
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        lines = self._parts.logs.lines(job.id) if wants_logs else []
        status, document = self._status(job, lines, caller)
        return Response(to_json(document), status, media_type="application/json")  # in half of JSONResponse's time

    async def stream(self, request: Request, request_id: str, logs: str = "") -> Response:
        """Tell every change as a server-sent event, with the log lines that are new, until the end."""
        try:
            job = self._engine.job(_caller(request).job_id(request_id))
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        events = self._events(job, _caller(request), wants_logs=logs.lower() in _TRUE)
        return StreamingResponse(
            events,
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no", answers.REQUEST_ID: job.request_id},
        )

    async def _events(self, job: Job, caller: Caller, *, wants_logs: bool) -> AsyncIterator[bytes]:
        told, silence, last = 0, Silence(), None
        with contextlib.suppress(StillreelError):  # the daemon stops, and the job is kept
            async for newer in self._engine.updates(job.id, _LOOK_S):
                lines = self._parts.logs.lines(job.id)[told:] if wants_logs else []
                told += len(lines)
                document = self._status(newer, lines, caller)[1]
                if lines or document != last:
                    last = {**document, "logs": []}
                    silence.end()
                    yield f"data: {json.dumps(document)}\n\n".encode()
                elif silence.is_long:
                    silence.end()
                    yield b": still here\n\n"
                if self._parts.closing.is_set():
                    return

    def _status(self, job: Job, lines: list[dict[str, Any]], caller: Caller) -> tuple[int, dict[str, Any]]:
        position = self._engine.status(job).queue_position if job.state is State.QUEUED else None
        return answers.status(job, position, lines, caller.links)

    async def result(self, request: Request, request_id: str) -> Response:
        """Return the video of a request that is done, or the error that it has ended in."""
        try:
            job = self._engine.job(_caller(request).job_id(request_id))
        except JobNotFound:
            return answers.error(404, "Request not found", "not_found")
        if not job.is_finished:
            return answers.error(400, "Request is still in progress", "still_in_progress")
        return await self._outcome(job, _caller(request))

    async def cancel(self, request: Request, request_id: str) -> Response:
        """Ask that a request end; one that runs ends as soon as its worker is stopped."""
        try:
            job = self._engine.job(_caller(request).job_id(request_id))
            if job.is_finished:
                return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
            self._engine.cancel(job.id)
        except JobNotFound:
            return JSONResponse({"status": "NOT_FOUND"}, 404)
        return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)

    def failed(self, fault: Fault) -> Response:
        """Answer to a question that could not be answered."""
        return self._parts.faults.answer(fault)

    async def _outcome(self, job: Job, caller: Caller) -> Response:
        if job.error is not None or job.result is None:
            fault = job.error or Fault(type="internal_error", message="the job has no result")
            return self._parts.faults.answer(fault, self._inputs.of(job.id), job.request_id)
        if job.sync_mode:
            return await videos.inline(job, job.result)
        return videos.answer(job, job.result, self._parts.tokens, caller.links)


class Polled:
    """Answers the one question that is asked all the time, ahead of the app; everything else goes on to it.

    Every client asks for the status ten times a second. FastAPI's way to a route takes longer than the answer.
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


class Silence:
    """How long a stream has said nothing, whatever woke it meanwhile."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()

    @property
    def is_long(self) -> bool:
        return self._clock() - self._since >= _SILENCE_S

    def end(self) -> None:
        """Note that something is said now."""
        self._since = self._clock()


class Failed(Exception):
    """A request that is not accepted, with its body as far as that could be read."""

    def __init__(self, fault: Fault, document: object) -> None:
        super().__init__(fault.message)
        self.fault = fault
        self.document = document


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller
