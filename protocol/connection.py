"""One DEALER socket and the calls that wait on it, each until its answer, its time limit or its cancellation.

A lost message or a lost server shows as silence, and the message is then sent again (patience.py has the rules). If
nothing at all has arrived through the socket, it is sent through a new one, because a half-open connection never
recovers. ZeroMQ's monitor reports at once that a connection has broken, and messages sent over it are sent again as
soon as there is a new one. The monitor also reports that a server has refused this client's key. ZeroMQ does not try
again then, so the waiting calls end with KeyRefused. An answer that arrives after its call was cancelled is dropped.
"""

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from protocol.curve import CurveKeys
from protocol.endpoint import checked_endpoint
from protocol.errors import BadEndpoint, ClientError, KeyRefused
from protocol.keepalive import keep_alive
from protocol.patience import Patience, Pending, Signal
from protocol.wire import Answer, Failure, Notification, Part, WireError, call, parse_answer

_log = logging.getLogger(__name__)

_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


def _now() -> float:
    return asyncio.get_running_loop().time()


class Connection:
    """The connection to one server, opened by the first call; it belongs to one event loop."""

    def __init__(self, endpoint: str, keys: CurveKeys | None = None) -> None:
        self.endpoint = endpoint
        self._keys = keys
        self._ids = itertools.count(1)
        self._pending: dict[int | str, Pending] = {}
        self._waiting_bytes = 0
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._monitor: zmq.asyncio.Socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._opened_at = self._lost_at = self._heard_at = float("-inf")
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._pending)} calls waiting"
        return f"<{type(self).__name__} {self.endpoint}, {state}>"

    @property
    def is_heard(self) -> bool:
        """Whether anything has ever arrived from the server."""
        return self._heard_at > float("-inf")

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any],
        patience: Patience,
        attachments: Sequence[Part] = (),
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> Answer:
        """Return the answer to a call; `on_progress` is called with the params of each notification before it.

        Raises:
            RemoteError: the server answered with an error; shutting_down is raised only after `patience_s` of it.
            Unreachable, ClientTimeout: no answer came within the limits.
            KeyRefused: the server does not let this client in.
            ClientError: the connection was closed.
            BadEndpoint: the endpoint is not a valid address.
        """
        id_ = next(self._ids)
        frames = call(id_, method, params, attachments)
        pending = Pending(frames, params.get("request_id"), patience, _now(), self._waiting_bytes)
        self._pending[id_] = pending
        self._waiting_bytes += pending.size_bytes
        try:
            await self._send(pending)
            while isinstance(word := await self._next_word(pending), Notification):
                if on_progress is not None:
                    on_progress(word.params)
            if isinstance(word, Failure):
                raise word.error
            return word
        finally:
            del self._pending[id_]
            self._waiting_bytes -= pending.size_bytes

    async def close(self) -> None:
        """Close the socket and end the calls that still wait with a ClientError; safe to call again."""
        self._is_closed = True
        for pending in self._pending.values():
            pending.inbox.put_nowait(Signal.CLOSED)
        ending = self._tasks
        self._hang_up()
        if ending:
            await asyncio.wait(ending)
        if self._context is not None:
            self._context.term()
            self._context = None

    async def _next_word(self, pending: Pending) -> Answer | Failure | Notification:
        """Return the server's next message about this call; send the call again whenever that is due."""
        while True:
            word = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(pending.wake_at(self._heard_at)):
                    word = await pending.inbox.get()
            if word is None:
                await self._end_silence(pending)
            elif word is Signal.CLOSED:
                raise ClientError(f"the connection to {self.endpoint} was closed before the answer came")
            elif isinstance(word, KeyRefused):
                raise word
            elif word is Signal.LOST:
                if pending.sent_at < self._lost_at:
                    await self._send(pending)
            elif isinstance(word, Failure) and word.error.kind.name == "shutting_down":
                pending.is_refused(word.error, _now())
            else:
                pending.has_word(_now())
                return word

    async def _end_silence(self, pending: Pending) -> None:
        now = _now()
        pending.give_up_if_due(now, self._heard_at, self.endpoint)
        if now < pending.repeat_at:
            return
        if not pending.is_paused:
            pending.repeats += 1
            if now >= max(self._opened_at, self._heard_at) + pending.patience.silence_s + pending.transfer_s:
                self._hang_up()
                for other in self._pending.values():
                    other.inbox.put_nowait(Signal.LOST)
        _log.info("no answer from %s yet; asking again", self.endpoint, extra={"action": "client_repeat"})
        await self._send(pending)

    async def _send(self, pending: Pending) -> None:
        if self._is_closed:
            raise ClientError(f"the connection to {self.endpoint} is closed")
        socket = self._socket or self._open()
        pending.is_sent(_now())
        # This never waits, as the socket queues without limit: no call is stuck in a socket that another call replaces.
        await socket.send_multipart(pending.frames, copy=False)

    # The socket.

    def _open(self) -> zmq.asyncio.Socket:
        self._context = self._context or zmq.asyncio.Context()
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDHWM, 0)
        keep_alive(socket)
        if self._keys is not None:
            self._keys.give_to(socket)
        monitor = socket.get_monitor_socket(_WATCHED)
        self._socket, self._monitor = socket, monitor
        try:
            socket.connect(checked_endpoint(self.endpoint))
        except (zmq.ZMQError, ValueError) as error:
            self._hang_up()
            why = f"expected an address that can be connected to, found {self.endpoint!r}"
            raise BadEndpoint(why if isinstance(error, zmq.ZMQError | UnicodeError) else str(error)) from error
        self._opened_at = self._lost_at = _now()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen(socket)), loop.create_task(self._watch(monitor))]
        return socket

    def _hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._socket is not None and self._monitor is not None:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=0)
        self._socket = self._monitor = None
        self._tasks = []

    async def _listen(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            self._heard_at = _now()
            try:
                word = parse_answer(frames)
            except WireError as error:
                _log.warning("unreadable message from %s: %s", self.endpoint, error, extra={"action": "client_ignore"})
                continue
            for pending in self._concerned(word):
                pending.inbox.put_nowait(word)

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        """Send messages that a broken connection may have lost again, once a new connection has replaced it."""
        is_up = False
        while True:
            event = await recv_monitor_message(monitor)
            if why := self._refusal(event["event"], event["value"]):
                for pending in self._pending.values():
                    pending.inbox.put_nowait(KeyRefused(why))
                self._hang_up()  # the next call tries a new socket
                return
            was_up, is_up = is_up, event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if was_up:
                self._lost_at = _now()
            for pending in self._pending.values() if is_up else ():
                # Only once until the server answers: a message that makes it hang up would be sent again for ever.
                if pending.sent_at < self._lost_at and not pending.rescues:
                    pending.rescues += 1
                    pending.inbox.put_nowait(Signal.LOST)

    def _refusal(self, event: int, value: int) -> str | None:
        """Return why a handshake failed, or None if ZeroMQ tries again by itself."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"{self.endpoint} does not accept this client's CURVE key"
        if event != zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or value != zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return None
        wants = "only accepts clients without a CURVE key" if self._keys else "only accepts clients with a CURVE key"
        return f"{self.endpoint} {wants}"

    def _concerned(self, word: Answer | Failure | Notification) -> list[Pending]:
        """Return the calls that a message is for; there are none if its call has ended."""
        waiting = list(self._pending.values())
        if isinstance(word, Notification):
            request_id = word.params.get("request_id") if word.method == "progress" else None
            return [pending for pending in waiting if request_id is not None and pending.request_id == request_id]
        if word.id is None:  # the server could not read the id, so the call is only known if just one waits
            return waiting if len(waiting) == 1 else []
        return [self._pending[word.id]] if word.id in self._pending else []
