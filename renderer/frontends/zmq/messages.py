"""Messages from a ZeroMQ socket, the calls in them, and connections that send a message without end.

A message is received a number of frames at a time. ZeroMQ delivers a message once all its frames have arrived, however
many there are, and receiving 200,000 at once would stop the loop for seconds. ZeroMQ only limits the size of a frame,
so the frames and bytes of a message are counted here, and of a message that is too large only the frames that its
answer needs are kept.

A connection that sends too much of one message is closed. ZeroMQ collects a message until its last frame has arrived,
and limits neither the number of frames nor their sum, so one message could fill the memory. The kernel counts the bytes
received over a connection (tcp(7), TCP_INFO), and every message carries the descriptor of its connection: bytes that
came after a connection's last message belong to messages that are not complete yet. Sockets in the file system have no
such count; they are protected by their permissions.
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
_TO_ANSWER: Final = 3  # the sender's identity, the delimiter, and the document with the id of the call


@dataclass(frozen=True, slots=True)
class Message:
    """What was received.

    Attributes:
        frames: all frames, or only those needed to answer a message that is too large.
        left_out: the number of the other frames.
        left_out_bytes: the size of the other frames.
    """

    frames: list[zmq.Frame]
    left_out: int = 0
    left_out_bytes: int = 0


async def receive(
    socket: zmq.asyncio.Socket,
    at_once: "zmq.Socket[bytes]",
    most_frames: int,
    most_bytes: int,
    on_first: Callable[[zmq.Frame], None],
) -> Message:
    """Wait for a message and receive it.

    Args:
        at_once: the same socket, without asyncio.
        most_frames: the most frames of a message that is kept whole.
        most_bytes: the most bytes of such a message.
        on_first: called with the first frame, before the others are received.

    Raises:
        zmq.ZMQError: it could not be received.
    """
    frames = [await socket.recv(copy=False)]
    on_first(frames[0])
    count, size_bytes = 1, len(frames[0])
    while frames[-1].more:
        frame = at_once.recv(zmq.DONTWAIT, copy=False)  # it has arrived with the first
        count += 1
        size_bytes += len(frame)
        if count > most_frames or size_bytes > most_bytes:
            del frames[_TO_ANSWER:]
        frames.append(frame)
        if count % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    kept = frames[:_TO_ANSWER] if count > len(frames) else frames
    return Message(kept, count - len(kept), size_bytes - sum(map(len, kept)))


_FRAME_BYTES = 512  # memory that a frame takes besides its content
Reply = tuple[dict[str, Any], tuple[wire.Part, ...]]


@dataclass(frozen=True, slots=True)
class Peer:
    """Who sent a message, as far as its key shows.

    Attributes:
        name: the name of the key; None if no key is required.
        is_welcome: returns whether the key is still valid.
    """

    name: str | None = None
    is_welcome: Callable[[], bool] = lambda: True

    @property
    def owner(self) -> str:
        """Whose jobs it may see: those of its key, or those of all clients without one."""
        return f"curve.{self.name}" if self.name else ""


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """The limits on one message.

    Attributes:
        size_bytes: the size of all its frames.
        images: the number of images, and also of attachments.
    """

    size_bytes: int
    images: int

    @property
    def frames(self) -> int:
        """The number of frames, with the identity, the delimiter and the document."""
        return self.images + 3

    @property
    def most(self) -> int:
        """The number of values and names in its document."""
        return most_values(self.images)


class ZmqCall:
    """A call, its sender, and the way to answer it; answers to a client that has gone are dropped."""

    def __init__(
        self,
        message: Message,
        socket: zmq.asyncio.Socket,
        let_go: Callable[[int], None],
        peer: Peer,
        limits: MessageLimits,
    ) -> None:
        """Keep a message; `read` reads the call in it.

        Args:
            let_go: called with a number of bytes when the message's memory has been released.
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
        """Read the call; any thread may do so.

        Raises:
            WireError: it is not a valid call, or too large; the error has the call's id if that can be read.
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
        """Release the message's memory; safe to call again."""
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
            return  # its key was removed in the meantime
        try:
            await self._socket.send_multipart([*self._envelope, *frames], copy=False)
        except zmq.ZMQError as error:
            log.warning("an answer could not be sent: %s", error)


EVENTS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
_LOOK_S: Final = 0.1
_BYTES_RECEIVED: Final = 128  # its offset in struct tcp_info (linux/tcp.h), since Linux 4.1
_KERNEL_BYTES: Final = 8 * 1024 * 1024  # more than a socket's receive buffer holds


class Scales:
    """The bytes that the connections of one socket have sent, by descriptor.

    Attributes:
        is_waiting: whether the socket's reader is waiting for a message.
    """

    def __init__(self, endpoint: str, max_bytes: int, pending: int) -> None:
        """Begin without connections.

        Args:
            endpoint: where the socket is bound.
            max_bytes: how much a connection may send before its message is complete.
            pending: how many complete messages of a connection may wait to be received.
        """
        self._max_bytes = max_bytes
        self._pending = pending
        self._port = urlsplit(endpoint).port if endpoint.startswith("tcp:") else None
        self._taken: dict[int, int] = {}
        self.is_waiting = self._is_still = False

    def on_event(self, kind: int, descriptor: int) -> None:
        """Record that a connection has begun or ended."""
        if kind == zmq.EVENT_ACCEPTED:
            self._taken[descriptor] = 0
        elif kind & EVENTS:
            self._taken.pop(descriptor, None)

    def on_message(self, frame: zmq.Frame) -> None:
        """Record that a message has been received, which accounts for all that its connection has sent until now."""
        self.is_waiting = self._is_still = False
        try:
            descriptor = int(frame.get(zmq.SRCFD))
        except zmq.ZMQError:
            return
        if descriptor not in self._taken:
            return
        with contextlib.suppress(OSError):  # it has ended
            # Without a copy, which costs as much as the rest: if another socket has the descriptor by now, what is
            # recorded here is dropped or replaced with the next report of a connection.
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, descriptor)
            try:
                self._taken[descriptor] = _received(connection)
            finally:
                connection.detach()

    async def run(self) -> None:
        """Close connections that send too much, until cancelled.

        If the reader waited from one check to the next, it has received all complete messages.
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
    """Close a connection, so that ZeroMQ drops the incomplete message.

    SO_LINGER makes the kernel reset it; otherwise a sender with a closed window would only learn of it after a minute.
    """
    with contextlib.suppress(OSError):
        words = "%s was cut off: it sent more than %d bytes without completing a message"
        log.warning(words, connection.getpeername()[0], limit, extra={"action": "cut_off"})
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
