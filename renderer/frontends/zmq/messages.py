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
from typing import Final
from urllib.parse import urlsplit

import zmq
import zmq.asyncio

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
        with _opened(descriptor, self._port) as connection:
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
                with _opened(descriptor, self._port) as connection:
                    if connection is not None and _received(connection) - taken > limit:
                        _cut(connection, limit)
                        del self._taken[descriptor]


@contextlib.contextmanager
def _opened(descriptor: int, port: int | None) -> Iterator[socket.socket | None]:
    """Lend a connection of ZeroMQ's; None if it is gone, and the descriptor perhaps somebody else's."""
    try:
        connection = socket.socket(fileno=os.dup(descriptor))
    except OSError:
        yield None
        return
    with connection:
        try:
            is_ours = port is not None and connection.getsockname()[1] == port
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
