"""One message that came in over ZeroMQ, and the way back to its sender."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq
import zmq.asyncio

from protocol import wire
from protocol.documents import most_values
from protocol.errors import ERRORS
from protocol.schema import Fault
from renderer.frontends.documents import cost_bytes
from renderer.frontends.zmq.messages import Message

log = logging.getLogger(__name__)

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
