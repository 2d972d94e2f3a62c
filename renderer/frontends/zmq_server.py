"""The ZeroMQ door: a ROUTER on the daemon's loop, so that a plain REQ socket in any language can call.

Every message is handled in a task of its own; only this module's socket and the engine's state are shared, both on one
loop. A message that is too large is read and refused, because ZeroMQ's own limit would hang up without a word; that
limit stands at twice ours as the last guard of memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

import zmq
import zmq.asyncio
from pydantic import BaseModel, ValidationError

from protocol import wire
from protocol.errors import ERRORS
from protocol.schema import Fault, RenderParams, RenderResult, RequestId
from renderer.config import ServerSettings
from renderer.errors import ConfigError, InvalidRequest, StillInProgress, StillreelError
from renderer.intake import Intake, invalid
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
_LINGER_MS = 2000
_Reply = tuple[dict[str, Any], tuple[wire.Part, ...]]
_Params = TypeVar("_Params", bound=BaseModel)


class ZmqServer:
    """Answers JSON-RPC calls; protocol/wire.py says what they look like."""

    def __init__(self, settings: ServerSettings, engine: Engine, intake: Intake) -> None:
        """Bind the socket.

        Raises:
            ConfigError: the endpoint is malformed, not local, or taken.
        """
        self._max_request_bytes = settings.max_request_bytes
        self._engine = engine
        self._intake = intake
        self._tasks: set[asyncio.Task[None]] = set()
        self._context = zmq.asyncio.Context()
        self._socket = _bind(self._context, settings)
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._methods: dict[str, Callable[[wire.Call, _Sender], Awaitable[_Reply]]] = {
            "render": self._render,
            "submit": self._submit,
            "status": self._status,
            "result": self._result,
            "cancel": self._cancel,
            "jobs": self._jobs,
            "health": self._health,
        }

    async def serve(self) -> None:
        """Answer until cancelled."""
        while True:
            try:
                frames = await self._socket.recv_multipart(copy=False)
            except zmq.ZMQError as error:
                log.warning("a message could not be received: %s", error)
                continue
            task = asyncio.create_task(self._handle([frame.buffer for frame in frames]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self, timeout_s: float = 2) -> None:
        """Let the answers that are due go out, then close the socket."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        self._socket.close(linger=_LINGER_MS)
        self._context.term()

    async def _handle(self, frames: list[memoryview]) -> None:
        """Answer one message, whatever it holds."""
        envelope, body = wire.split_envelope(frames)
        send = _Sender(self._socket, [bytes(part) for part in envelope])
        call_id: wire.MessageId | None = None
        try:
            call = self._read(body)
            call_id = call.id
            if call.method not in self._methods:
                known = ", ".join(self._methods)
                fault = Fault(type="method_not_found", message=f"expected one of {known}; found {call.method[:80]!r}")
                await send(wire.failure(call_id, fault))
            else:
                result, attachments = await self._methods[call.method](call, send)
                await send(wire.answer(call_id, result, attachments))
        except wire.WireError as error:
            await send(wire.failure(error.id, error.fault()))
        except StillreelError as error:
            await send(wire.failure(call_id, error.fault()))
        except Exception:
            log.exception("a message could not be answered")
            await send(
                wire.failure(call_id, Fault(type="internal_error", message="the server failed; its log says why"))
            )

    def _read(self, body: list[wire.Part]) -> wire.Call:
        """Refuse what is too large, with the call's id if that much can be read."""
        size = sum(len(part) for part in body)
        is_too_large = wire.WireError(
            ERRORS["message_too_large"], f"expected a message of up to {self._max_request_bytes} bytes, found {size}"
        )
        if body and len(body[0]) > self._max_request_bytes:
            raise is_too_large
        call = wire.parse_call(body)
        if size > self._max_request_bytes:
            is_too_large.id = call.id
            raise is_too_large
        return call

    async def _render(self, call: wire.Call, send: "_Sender") -> _Reply:
        params = _parse(RenderParams, call.params)
        job = await self._intake.accept(params, call.attachments)
        async for job in self._engine.updates(job.id, HEARTBEAT_S):  # noqa: B020 - the same job, newer
            if params.progress and not job.is_finished:
                await send(wire.notification("progress", self._engine.status(job).model_dump(mode="json")))
        return await self._outcome(job)

    async def _submit(self, call: wire.Call, _: "_Sender") -> _Reply:
        job = await self._intake.accept(_parse(RenderParams, call.params), call.attachments)
        return self._engine.status(job).model_dump(mode="json"), ()

    async def _status(self, call: wire.Call, _: "_Sender") -> _Reply:
        return self._engine.status(self._job(call)).model_dump(mode="json"), ()

    async def _result(self, call: wire.Call, _: "_Sender") -> _Reply:
        job = self._job(call)
        if not job.is_finished:
            raise StillInProgress("the job is not done yet; ask for its status")
        return await self._outcome(job)

    async def _cancel(self, call: wire.Call, _: "_Sender") -> _Reply:
        job = self._engine.cancel(self._job(call).id)
        return self._engine.status(job).model_dump(mode="json"), ()

    async def _jobs(self, call: wire.Call, _: "_Sender") -> _Reply:
        _refuse_params(call)
        return {"jobs": [status.model_dump(mode="json") for status in self._engine.jobs()]}, ()

    async def _health(self, call: wire.Call, _: "_Sender") -> _Reply:
        _refuse_params(call)
        return self._engine.health().model_dump(mode="json"), ()

    def _job(self, call: wire.Call) -> Job:
        return self._engine.job(_parse(RequestId, call.params).request_id)

    async def _outcome(self, job: Job) -> _Reply:
        """Answer with the result, and with sync_mode the video's bytes as the reply's attachment 0."""
        if job.error is not None or job.result is None:
            raise _Failed(job.error or Fault(type="internal_error", message="the job has no result"))
        result: RenderResult = job.result
        if not job.work.request.sync_mode:
            return result.model_dump(mode="json"), ()
        video = await asyncio.to_thread((job.output / result.video.file_name).read_bytes)
        attached = result.video.model_copy(update={"url": "cid:0"})
        return result.model_copy(update={"video": attached}).model_dump(mode="json"), (video,)


class _Sender:
    """Sends to one client; what a client that went away does not take is dropped by the ROUTER."""

    def __init__(self, socket: zmq.asyncio.Socket, envelope: list[bytes]) -> None:
        self._socket = socket
        self._envelope = envelope

    async def __call__(self, frames: list[wire.Part]) -> None:
        try:
            await self._socket.send_multipart([*self._envelope, *frames], copy=False)
        except zmq.ZMQError as error:
            log.warning("an answer could not be sent: %s", error)


class _Failed(StillreelError):
    """A job that ended in a fault, on its way to the client."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self._fault = fault

    def fault(self) -> Fault:
        return self._fault


def _parse(model: type[_Params], params: dict[str, Any]) -> _Params:
    try:
        return model.model_validate(params)
    except ValidationError as error:
        raise invalid(error) from error


def _refuse_params(call: wire.Call) -> None:
    if call.params:
        raise InvalidRequest(f"{call.method} takes no params; found {', '.join(call.params)[:80]}")


def _bind(context: zmq.asyncio.Context, settings: ServerSettings) -> zmq.asyncio.Socket:
    if not _is_local(settings.bind):
        raise ConfigError(
            f"server.bind: {settings.bind} is neither loopback nor ipc; other machines need CURVE keys, "
            "which this version does not have yet"
        )
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.IPV6, int("[" in settings.bind))
    socket.setsockopt(zmq.MAXMSGSIZE, 2 * settings.max_request_bytes)
    try:
        socket.bind(settings.bind)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        context.term()
        raise ConfigError(f"server.bind: {settings.bind}: {zmq.strerror(error.errno or 0)}") from error
    return socket


def _is_local(endpoint: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(endpoint)
        if parts.scheme == "ipc":
            return True
        return parts.scheme == "tcp" and (
            parts.hostname == "localhost" or ip_address(parts.hostname or "0.0.0.0").is_loopback  # noqa: S104 - refused
        )
    return False
