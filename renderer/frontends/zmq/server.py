"""The ZeroMQ door: ROUTER sockets on the daemon's loop, which a plain REQ socket in any language can call.

Each endpoint has its own socket, because a ZeroMQ socket either requires CURVE keys or accepts clients without them.
Once the daemon has a pair of keys, `server.bind` requires them, unless it is an ipc endpoint, which the file system
protects; `server.local` is for this machine and never requires them. The key of a message says whose jobs it may name,
and is valid until it is removed.

Every message is handled in a task of its own; the tasks share only the socket and the engine's state, on one loop. A
message that is too large is read and refused, because ZeroMQ's own limit would close the connection without an answer;
that limit is twice ours.

The memory that clients can make the daemon use is bounded. For incoming messages, each connection may have a few
waiting, none may be endless (messages.py), and no more are received while those in memory add up to more than the
largest one allowed; a message is released as soon as its job is stored. For outgoing messages, each connection has a
limit beyond which a ROUTER drops them, and the client asks again; videos are mapped files, which use address space but
no memory. A peer that does not answer ZeroMQ's heartbeats is disconnected.
"""

import asyncio
import contextlib
import logging
import mmap
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import zmq
import zmq.asyncio
from pydantic import BaseModel, ValidationError
from zmq.utils.monitor import recv_monitor_message

from protocol import wire
from protocol.bounded import context_for
from protocol.keepalive import keep_alive
from protocol.schema import (
    Fault,
    JobLog,
    JobsQuery,
    LogLine,
    RenderParams,
    RenderResult,
    RequestId,
    VideoPart,
    VideoQuery,
)
from renderer.config import ServerSettings
from renderer.errors import ConfigError, InvalidRequest, JobNotFound, NotSupported, StillInProgress, StillreelError
from renderer.frontends.documents import read_aside
from renderer.frontends.intake import Door, Intake
from renderer.frontends.job_log import JobLogReader
from renderer.frontends.refusals import Refusals
from renderer.frontends.zmq import curve, messages
from renderer.frontends.zmq.curve import USER, Admission, CurveRing, Handshakes, ask_for_keys
from renderer.frontends.zmq.messages import MessageLimits, Peer, Reply, Scales, ZmqCall, receive
from renderer.intake import invalid
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job, own_id
from renderer.net.objects import opened
from renderer.observe.descriptors import SPARE, are_short, say_short

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
_LOOK_S = 1.0  # between checks of the descriptors, and after a socket has failed
_LINGER_MS = 2000
_PART_BYTES = 2 * 1024 * 1024  # of a video in one message: two seconds on a line of 8 Mbit/s
_MESSAGES_IN, _MESSAGES_OUT = 4, 1000  # for each connection
_CONNECTIONS_WAITING = 1024  # ZeroMQ's own 100 are too few when 10,000 clients connect at once
_ANYBODY = Peer()
_NOT_DONE = "the job is not done yet; ask for its status"
_Params = TypeVar("_Params", bound=BaseModel)


class ZmqServer:
    """Answers JSON-RPC calls in the format of protocol/wire.py."""

    def __init__(
        self, settings: ServerSettings, engine: Engine, intake: Intake, ring: CurveRing, logs: JobLogReader
    ) -> None:
        """Bind the sockets; call this on the loop.

        Args:
            ring: the keys of the clients on other machines.
            logs: reads the logs of jobs.

        Raises:
            ConfigError: an endpoint is malformed, in use, or open to other machines while there are no keys.
        """
        self._max_request_bytes = settings.max_request_bytes
        self._limits = MessageLimits(settings.max_request_bytes, intake.max_images)
        self._engine = engine
        self._intake = intake
        self._logs = logs
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[object] | None = None
        self._refusals = Refusals()
        self._ring = ring
        self._context = zmq.asyncio.Context()
        self._admission: Admission | None = None
        self._monitors: dict[zmq.asyncio.Socket, zmq.asyncio.Socket] = {}
        self._scales: dict[zmq.asyncio.Socket, Scales] = {}
        self._keyed: zmq.asyncio.Socket | None = None
        self._sockets: list[zmq.asyncio.Socket] = []
        try:
            self._open(settings)
        except BaseException:
            self._hang_up(0)
            raise
        self.endpoints = [socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0") for socket in self._sockets]
        self._held_bytes = 0
        self._has_let_go = asyncio.Event()
        self._methods: dict[str, Callable[[ZmqCall], Awaitable[Reply]]] = {
            "render": self._render,
            "submit": self._submit,
            "status": self._status,
            "result": self._result,
            "video": self._video,
            "cancel": self._cancel,
            "logs": self._read_log,
            "retry": self._retry,
            "jobs": self._jobs,
            "health": self._health,
        }

    @property
    def asks_for_keys(self) -> bool:
        """Whether clients at the first endpoint need a CURVE key."""
        return self._keyed is not None

    async def serve(self) -> None:
        """Answer until cancelled or closed."""
        self._serving = asyncio.current_task()
        async with asyncio.TaskGroup() as serving:
            for socket in self._sockets:
                serving.create_task(self._receive(socket))
                serving.create_task(self._watch_connections(socket))
                serving.create_task(self._scales[socket].run())
            serving.create_task(self._look_after_descriptors())
            if self._admission is not None:
                serving.create_task(self._admission.serve())

    async def _watch_connections(self, socket: zmq.asyncio.Socket) -> None:
        """Pass on ZeroMQ's reports of connections that begin, fail and end."""
        on_events = [self._scales[socket].on_event]
        if socket is self._keyed:
            on_events.append(Handshakes(self._refusals).on_event)
        while True:
            event = await recv_monitor_message(self._monitors[socket])
            for on_event in on_events:
                on_event(event["event"], event["value"])

    async def _look_after_descriptors(self) -> None:
        """Accept no new connections while no descriptor is free, because libzmq would try again without a pause."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not are_short(1):
                continue
            say_short()
            for socket, endpoint in zip(self._sockets, self.endpoints, strict=True):
                socket.unbind(endpoint)
            shut = dict(zip(self._sockets, self.endpoints, strict=True))
            while shut:
                await asyncio.sleep(_LOOK_S)
                for socket, endpoint in [] if are_short(SPARE) else list(shut.items()):
                    with contextlib.suppress(zmq.ZMQError):  # the address is not free yet
                        socket.bind(endpoint)
                        del shut[socket]

    async def _receive(self, socket: zmq.asyncio.Socket) -> None:
        scales = self._scales[socket]
        at_once: zmq.Socket[bytes] = zmq.Socket.shadow(socket)
        while True:
            while self._held_bytes > self._max_request_bytes:
                self._has_let_go.clear()
                await self._has_let_go.wait()
            scales.is_waiting = True
            try:
                message = await receive(
                    socket, at_once, self._limits.frames, self._max_request_bytes, scales.on_message
                )
            except zmq.ZMQError as error:
                log.warning("a message could not be received: %s", error)
                await asyncio.sleep(_LOOK_S)  # it may keep failing
                continue
            peer = self._peer(message.frames[0]) if socket is self._keyed else _ANYBODY
            if peer is None:
                continue
            call = ZmqCall(message, socket, self._let_go, peer, self._limits)
            del message
            self._held_bytes += call.held_bytes
            task = asyncio.create_task(self._handle(call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _peer(self, frame: zmq.Frame) -> Peer | None:
        """Return who sent a message; None if its key is no longer valid, and then it gets no answer."""
        try:
            key = str(frame.get(USER))
        except zmq.ZMQError:  # this connection was never admitted
            return None
        name = self._ring.name_of(key)
        if name is None:
            self._refusals.note(str(frame.get("Peer-Address")), "its CURVE key was removed")
            return None
        return Peer(name, lambda: self._ring.name_of(key) == name)

    def _let_go(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._has_let_go.set()

    async def close(self, timeout_s: float = 2) -> None:
        """Wait for the answers that are due, then end `serve` and close the sockets."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        ending = {*self._tasks, *([self._serving] if self._serving else [])}
        for task in ending:
            task.cancel()
        if ending:  # closing a socket while it is being read makes the reader fail
            await asyncio.wait(ending, timeout=timeout_s)
        self._hang_up(_LINGER_MS)

    # The sockets.

    def _open(self, settings: ServerSettings) -> None:
        if self._ring.is_made and not settings.bind.startswith("ipc:"):
            self._admission = Admission(self._context, self._ring, self._refusals)
            self._admission.start()
            self._keyed = self._bind("server.bind", settings.bind)
        elif _is_local(settings.bind):
            self._bind("server.bind", settings.bind)
        else:
            raise ConfigError(
                f"server.bind: {settings.bind} is open to other machines, and there are no CURVE keys yet; "
                "make one first: stillreel keys curve NAME"
            )
        if settings.local is not None:
            if not _is_local(settings.local):
                raise ConfigError(f"server.local: expected a loopback or ipc endpoint, found {settings.local}")
            self._bind("server.local", settings.local)

    def _bind(self, setting: str, endpoint: str) -> zmq.asyncio.Socket:
        socket = self._context.socket(zmq.ROUTER)
        self._sockets.append(socket)
        socket.setsockopt(zmq.IPV6, int("[" in endpoint))
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * self._max_request_bytes)
        socket.setsockopt(zmq.RCVHWM, _MESSAGES_IN)
        socket.setsockopt(zmq.SNDHWM, _MESSAGES_OUT)
        socket.setsockopt(zmq.BACKLOG, _CONNECTIONS_WAITING)
        keep_alive(socket)
        if self._admission is not None and self._keyed is None:
            ask_for_keys(socket, self._ring)
        self._monitors[socket] = socket.get_monitor_socket(curve.EVENTS | messages.EVENTS)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise ConfigError(f"{setting}: {endpoint}: {zmq.strerror(error.errno or 0)}") from error
        bound = socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._scales[socket] = Scales(bound, 2 * self._max_request_bytes, _MESSAGES_IN)
        return socket

    def _hang_up(self, linger_ms: int) -> None:
        for socket in self._monitors:
            socket.disable_monitor()
        for socket in (*self._sockets, *self._monitors.values()):
            socket.close(linger=linger_ms)
        if self._admission is not None:
            self._admission.stop()
        self._context.term()

    async def _handle(self, call: ZmqCall) -> None:
        """Answer one message, whatever it contains."""
        try:
            await read_aside(call.read, call.document_bytes)
            method = self._methods.get(call.method)
            if method is None:
                known = ", ".join(self._methods)
                words = f"expected one of {known}; found {call.method[:80]!r}"
                await call.fail(Fault(type="method_not_found", message=words))
            else:
                await call.answer(*await method(call))
        except wire.WireError as error:
            call.id = error.id
            await call.fail(error.fault())
        except StillreelError as error:
            await call.fail(error.fault())
        except Exception:
            log.exception("a message could not be answered")
            await call.fail(Fault(type="internal_error", message="the server failed; its log says why"))
        finally:
            call.let_go()

    async def _render(self, call: ZmqCall) -> Reply:
        params = await self._render_params(call)
        job = await self._accept(params, call)
        wants_progress = params.progress
        del params
        async for job in self._engine.updates(job.id, HEARTBEAT_S):  # noqa: B020 - the same job, newer
            if wants_progress and not job.is_finished:
                await call.notify("progress", self._engine.status(job).model_dump(mode="json"))
        return await self._outcome(job)

    async def _submit(self, call: ZmqCall) -> Reply:
        job = await self._accept(await self._render_params(call), call)
        return self._engine.status(job).model_dump(mode="json"), ()

    async def _render_params(self, call: ZmqCall) -> RenderParams:
        parse = partial(_parse, RenderParams, call.params, context_for(self._limits.images))
        return await read_aside(parse, call.document_bytes)

    async def _accept(self, params: RenderParams, call: ZmqCall) -> Job:
        job = await self._intake.accept(params, Door(call.client, owner=call.peer.owner), call.attachments)
        call.let_go()
        return job

    async def _status(self, call: ZmqCall) -> Reply:
        return self._engine.status(self._job(call)).model_dump(mode="json"), ()

    async def _result(self, call: ZmqCall) -> Reply:
        job = self._job(call)
        if not job.is_finished:
            raise StillInProgress(_NOT_DONE)
        return await self._outcome(job)

    async def _video(self, call: ZmqCall) -> Reply:
        wanted = _parse(VideoQuery, call.params)
        job = self._engine.job(own_id(call.peer.owner, wanted.request_id))
        if not job.is_finished:
            raise StillInProgress(_NOT_DONE)
        file = _made(job).files().get(wanted.file)
        if file is None:
            raise JobNotFound(f"the job's request asked for no {wanted.file}", loc=("file",))
        if job.is_object:
            raise JobNotFound("the video is an object; fetch it from its url", loc=("request_id",))
        if job.is_kept_elsewhere:  # others may shorten it, and the daemon would crash if a mapped file shrank
            raise JobNotFound("the video was put beside its manifest; fetch it there", loc=("request_id",))
        content = await asyncio.to_thread(_mapped, job.output / file.file_name)
        if wanted.offset > len(content):
            words = f"expected at most the file's {len(content)} bytes, found {wanted.offset}"
            raise InvalidRequest(words, loc=("offset",))
        part = VideoPart(offset=wanted.offset, file_size=len(content), file_name=file.file_name)
        return part.model_dump(mode="json"), (content[wanted.offset : wanted.offset + _PART_BYTES],)

    async def _cancel(self, call: ZmqCall) -> Reply:
        job = self._engine.cancel(self._job(call).id)
        return self._engine.status(job).model_dump(mode="json"), ()

    async def _read_log(self, call: ZmqCall) -> Reply:
        job = self._job(call)
        lines = await asyncio.to_thread(self._logs.lines, job.id)
        return JobLog(lines=tuple(LogLine.model_validate(line) for line in lines)).model_dump(mode="json"), ()

    async def _retry(self, call: ZmqCall) -> Reply:
        work = self._engine.work_again(self._job(call).id)
        request = work.request.model_copy(update={"request_id": None})
        door = Door(call.client, owner=call.peer.owner, warnings=work.warnings)
        return self._engine.status(await self._intake.accept(request, door)).model_dump(mode="json"), ()

    async def _jobs(self, call: ZmqCall) -> Reply:
        statuses = self._engine.jobs(_parse(JobsQuery, call.params), call.peer.owner)
        return {"jobs": [status.model_dump(mode="json") for status in statuses]}, ()

    async def _health(self, call: ZmqCall) -> Reply:
        if call.params:
            raise InvalidRequest(f"health takes no params; found {', '.join(call.params)[:80]}")
        return self._engine.health().model_dump(mode="json"), ()

    def _job(self, call: ZmqCall) -> Job:
        return self._engine.job(own_id(call.peer.owner, _parse(RequestId, call.params).request_id))

    async def _outcome(self, job: Job) -> Reply:
        """Return the result, and if sync_mode was asked for, its files as the answer's attachments, the video first."""
        result = await opened(_made(job), self._engine.render_settings)
        if not job.sync_mode:
            return result.model_dump(mode="json"), ()
        names = [file.file_name for file in result.files().values()]
        files = [await asyncio.to_thread(_mapped, job.output / name) for name in names]
        attached = result.with_urls(lambda file: f"cid:{names.index(file.file_name)}")
        return attached.model_dump(mode="json"), tuple(files)


class _Failed(StillreelError):
    """The fault of a job that failed, raised on its way to the client."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self._fault = fault

    def fault(self) -> Fault:
        return self._fault


def _made(job: Job) -> RenderResult:
    """Return the result of a finished job, or raise the fault that it ended in."""
    outcome = job.outcome
    if isinstance(outcome, Fault):
        raise _Failed(outcome)
    if not isinstance(outcome, RenderResult):
        where = f"GET /queue/fal-ai/ffmpeg-api/requests/{job.request_id}"
        raise NotSupported(
            f"a job of another app than images-to-video has its answer there: {where}", loc=("request_id",)
        )
    return outcome


def _parse(model: type[_Params], params: dict[str, Any], context: dict[str, Any] | None = None) -> _Params:
    try:
        return model.model_validate(params, context=context)
    except ValidationError as error:
        raise invalid(error, model) from error


def _mapped(path: Path) -> memoryview:
    """Map a file into memory, so that no copy is held for a client that reads it slowly.

    Raises:
        JobNotFound: the video has been removed.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise JobNotFound("the job's video has expired and was removed", loc=("request_id",)) from error


def _is_local(endpoint: str) -> bool:
    with contextlib.suppress(ValueError):
        parts = urlsplit(endpoint)
        if parts.scheme == "ipc":
            return True
        return parts.scheme == "tcp" and (
            parts.hostname == "localhost" or ip_address(parts.hostname or "0.0.0.0").is_loopback  # noqa: S104 - refused
        )
    return False
