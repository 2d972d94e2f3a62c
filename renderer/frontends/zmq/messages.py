"""Messages off a ZeroMQ socket, and connections whose message has no end.

A message is taken some frames at a time, and no more of them are kept than its answer needs.

ZeroMQ hands a message over when all its frames are there, however many they are, and taking 200,000 at once would stop
the loop for seconds. Its own limit is one for a frame, so what a message may hold is counted here.

A connection that sends too much of one message is cut off. ZeroMQ collects a message until its last frame is there,
and limits each frame but neither their number nor their sum: a client could fill the memory with one message, and
nobody would be asked. What has come in over a connection is known to the kernel (tcp(7), TCP_INFO), and each message
tells the descriptor of its connection. What the kernel has taken in since the last message of a connection is of
messages to come. Sockets of the file system have no such count, and are left to who may open them.
"""

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import zmq
import zmq.asyncio

from protocol import wire
from protocol.documents import most_values
from protocol.errors import ERRORS
from protocol.schema import Fault
from renderer.frontends.documents import cost_bytes

log = logging.getLogger(__name__)


_AT_A_TIME: Final = 200  # some milliseconds
_TO_ANSWER: Final = 3  # who sent it, the delimiter, and the document with the id of the call


@dataclass(frozen=True, slots=True)
class Message:
    """What was sent.

    Attributes:
        frames: all of them, or those that the answer to one that is too large needs.
        left_out: how many others there were.
        left_out_bytes: what those held.
    """

    frames: list[zmq.Frame]
    left_out: int = 0
    left_out_bytes: int = 0


async def receive(
    socket: zmq.asyncio.Socket, most_frames: int, most_bytes: int, on_first: Callable[[zmq.Frame], None]
) -> Message:
    """Wait for a message and take it.

    Args:
        most_frames: and most_bytes: of a message that is kept as a whole.
        on_first: called with the first frame, before the others are taken.

    Raises:
        zmq.ZMQError: it could not be received.
    """
    frames = [await socket.recv(copy=False)]
    on_first(frames[0])
    at_once: zmq.Socket[bytes] = zmq.Socket.shadow(socket)  # the frames that follow are there
    count, size_bytes = 1, len(frames[0])
    while frames[-1].more:
        frame = at_once.recv(zmq.DONTWAIT, copy=False)
        count += 1
        size_bytes += len(frame)
        if count > most_frames or size_bytes > most_bytes:
            del frames[_TO_ANSWER:]
        frames.append(frame)
        if count % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    kept = frames[:_TO_ANSWER] if count > len(frames) else frames
    return Message(kept, count - len(kept), size_bytes - sum(map(len, kept)))


_FRAME_BYTES = 512  # what a frame takes beside its content
Reply = tuple[dict[str, Any], tuple[wire.Part, ...]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a message, as far as its key tells.

    Attributes:
        name: of the key; None where none is needed.
        is_welcome: tells whether the key still counts.
    """

    name: str | None = None
    is_welcome: Callable[[], bool] = lambda: True

    @property
    def owner(self) -> str:
        """Whose jobs it sees: those of its key, or those of all that need none."""
        return f"curve.{self.name}" if self.name else ""


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What one message may hold.

    Attributes:
        size_bytes: of all its frames.
        images: and as many attachments.
    """

    size_bytes: int
    images: int

    @property
    def frames(self) -> int:
        """With who sent it, the delimiter and the document."""
        return self.images + 3

    @property
    def most(self) -> int:
        """Values and names in its document."""
        return most_values(self.images)


class ZmqCall:
    """A call, who sent it, and the answer's way back; what a client that went away does not take is dropped."""

    def __init__(
        self,
        message: Message,
        socket: zmq.asyncio.Socket,
        let_go: Callable[[int], None],
        peer: Peer,
        limits: MessageLimits,
    ) -> None:
        """Take a message as it came.

        Args:
            let_go: called with a number of bytes when the message's memory is free again.
        """
        envelope, self._body = wire.split_envelope([frame.buffer for frame in message.frames])
        self._envelope = [bytes(part) for part in envelope]
        self._socket = socket
        self._let_go = let_go
        self._left_out = message.left_out
        kept_bytes = sum(len(part) for part in self._body)
        self.size_bytes = kept_bytes + message.left_out_bytes
        self.document_bytes = len(self._body[0]) if self._body else 0
        kept_bytes += _FRAME_BYTES * len(message.frames)
        self.held_bytes = kept_bytes + cost_bytes(self.document_bytes, limits.most)
        self._limits = limits
        self.peer = peer
        self.client = f"zmq:{peer.name or self._envelope[0].hex()}"
        self.id: wire.MessageId | None = None
        self.method = ""
        self.params: dict[str, Any] = {}
        self.attachments: tuple[wire.Part, ...] = ()

    def read(self) -> None:
        """Read the call; refuse what is too large, with the call's id if that much can be read. Any thread may do it.

        Raises:
            WireError: it is none, or too large.
        """
        max_bytes, most_attachments = self._limits.size_bytes, self._limits.images
        is_too_large = wire.WireError(
            ERRORS["message_too_large"], f"expected a message of up to {max_bytes} bytes, found {self.size_bytes}"
        )
        if self._body and len(self._body[0]) > max_bytes:
            raise is_too_large
        call = wire.parse_call(self._body, self._limits.most)
        if self.size_bytes > max_bytes:
            is_too_large.id = call.id
            raise is_too_large
        attached = len(call.attachments) + self._left_out
        if attached > most_attachments:
            words = f"attachments: expected up to {most_attachments}, found {attached} (limits.max_images)"
            raise wire.WireError(ERRORS["sequence_too_long"], words, call.id)
        self.id, self.method, self.params, self.attachments = call.id, call.method, call.params, call.attachments

    def let_go(self) -> None:
        """Forget what the message held; harmless when repeated."""
        self._body, self.params, self.attachments = [], {}, ()
        held, self.held_bytes = self.held_bytes, 0
        self._let_go(held)

    async def answer(self, result: dict[str, Any], attachments: tuple[wire.Part, ...]) -> None:
        if self.id is not None:
            await self._send(wire.answer(self.id, result, attachments))

    async def fail(self, fault: Fault) -> None:
        await self._send(wire.failure(self.id, fault))

    async def notify(self, method: str, params: dict[str, Any]) -> None:
        await self._send(wire.notification(method, params))

    async def _send(self, frames: list[wire.Part]) -> None:
        if not self.peer.is_welcome():
            return  # its key was removed while it waited
        try:
            await self._socket.send_multipart([*self._envelope, *frames], copy=False)
        except zmq.ZMQError as error:
            log.warning("an answer could not be sent: %s", error)


EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_LOOK_S: Final = 0.1
_BYTES_RECEIVED: Final = 128  # where linux/tcp.h has it in struct tcp_info, since Linux 4.1
_KERNEL_BYTES: Final = 8 * 1024 * 1024  # more than a socket's own buffer holds


class Scales:
    """The connections of one socket.

    Attributes:
        is_waiting: nothing else is done than to wait for a message.
    """

    def __init__(self, endpoint: str, max_bytes: int, pending: int) -> None:
        """Remember the endpoint and its bounds.

        Args:
            endpoint: where it is bound.
            max_bytes: what connections may send before a message comes to its end.
            pending: messages that may be there whole, while none is taken.
        """
        self._max_bytes = max_bytes
        self._pending = pending
        self._port = urlsplit(endpoint).port if endpoint.startswith("tcp:") else None
        self._taken: dict[int, int] = {}
        self.is_waiting = self._is_still = False

    def on_event(self, kind: int, descriptor: int) -> None:
        """Take notice of a connection that begins or ends."""
        if kind == zmq.EVENT_ACCEPTED:
            self._taken[descriptor] = 0
        elif kind & EVENTS:
            self._taken.pop(descriptor, None)

    def on_message(self, frame: zmq.Frame) -> None:
        """Take notice of a message; what its connection has sent before is accounted for."""
        self.is_waiting = self._is_still = False
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return
        with opened(descriptor, self._port) as connection:
            if connection is not None:
                self._taken[descriptor] = _received(connection)

    async def run(self) -> None:
        """Cut off who sends too much, until cancelled.

        Whoever has waited from one look to the next has taken all messages that are there whole.
        """
        while True:
            await asyncio.sleep(_LOOK_S)
            limit = self._max_bytes * (1 if self._is_still else 1 + self._pending) + _KERNEL_BYTES
            self._is_still = self.is_waiting
            for descriptor, taken in list(self._taken.items()):
                with opened(descriptor, self._port) as connection:
                    if connection is not None and _received(connection) - taken > limit:
                        _cut(connection, limit)
                        del self._taken[descriptor]


@contextlib.contextmanager
def opened(descriptor: int, port: int | None = None) -> Iterator[socket.socket | None]:
    """Lend a connection of ZeroMQ's; None if it has ended, and its descriptor may belong to something else.

    Args:
        port: the port that the connection came in at, if it has one.
    """
    copy = -1
    try:
        copy = os.dup(descriptor)
        connection = socket.socket(fileno=copy)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(copy)
        yield None
        return
    with connection:
        try:
            is_ours = port is None or connection.getsockname()[1] == port
        except (OSError, IndexError):
            is_ours = False
        yield connection if is_ours else None


def _received(connection: socket.socket) -> int:
    try:
        found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
    except (OSError, AttributeError):  # not TCP, or not Linux
        return 0
    return int(struct.unpack_from("=Q", found, _BYTES_RECEIVED)[0]) if len(found) >= _BYTES_RECEIVED + 8 else 0


def _cut(connection: socket.socket, limit: int) -> None:
    """End a connection; ZeroMQ then forgets what it has of the message.

    Without SO_LINGER the kernel says goodbye politely, and a sender whose window is closed waits a minute to hear it.
    """
    with contextlib.suppress(OSError):
        words = "%s was cut off: it sent more than %d bytes, and no message came to its end"
        log.warning(words, connection.getpeername()[0], limit, extra={"action": "cut_off"})
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
