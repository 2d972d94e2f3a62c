"""How long a call waits before it is sent again, and before it is given up: arithmetic, no sockets.

The server says something about every accepted call at least once a second, so silence means a lost message, a lost
connection or a lost server. Every call is idempotent (render and submit by their request_id), so one cure does for all
three: send the same message again. The waits double, because a large message on a slow line is silent too. A daemon
that is about to be restarted says so, and the same cure does for that, with pauses in place of the silence.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from protocol.errors import ClientTimeout, KeyRefused, RemoteError, Unreachable
from protocol.wire import Answer, Failure, Notification, Part

# A message gets a second more per so many bytes before the silence after it counts: a line of 64 Mbit/s.
_TRANSFER_BYTES_PER_S = 8 * 1024 * 1024

# Between one refusal of a daemon that is stopping and the next question; doubles from the first to the second.
_PAUSES_S = (0.25, 2.0)


class Signal(Enum):
    """What a waiting call hears from its own client."""

    LOST = "the connection that it was sent on is gone"
    CLOSED = "the client was closed"


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits of one call, in seconds.

    Args:
        timeout_s: the caller's own limit, None for none.
        connect_timeout_s: without any word from the server since the call was first sent.
        silence_s: without a word on this call, before it is sent again; doubles each time.
        patience_s: without a good word on this call, before it is given up.
    """

    timeout_s: float | None
    connect_timeout_s: float
    silence_s: float
    patience_s: float


@dataclass(slots=True, eq=False)
class Pending:
    """A call that waits for its answer; times are seconds on the event loop's clock.

    Args:
        bytes_ahead: what other calls have given to the same socket, which this one may have to queue behind.

    Attributes:
        repeats: times that it was sent again for silence since the server last spoke of it.
        rescues: times that it was sent again, since then, because its connection was lost.
    """

    frames: Sequence[Part]
    request_id: object
    patience: Patience
    begun_at: float
    bytes_ahead: int = 0
    inbox: asyncio.Queue[Answer | Failure | Notification | Signal | KeyRefused] = field(default_factory=asyncio.Queue)
    sent_at: float = field(init=False)
    word_at: float = field(init=False)
    repeats: int = field(default=0, init=False)
    rescues: int = field(default=0, init=False)
    _refusal: RemoteError | None = field(default=None, init=False)
    _pause_s: float = field(default=0.0, init=False)
    is_paused: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.sent_at = self.word_at = self.begun_at

    def is_sent(self, now: float) -> None:
        """Note that it was given to a socket, where it waits for a connection if there is none."""
        self.sent_at = now
        self.is_paused = False

    def has_word(self, now: float) -> None:
        """Note that the server said something good about this call."""
        self.word_at = now
        self.repeats = self.rescues = 0
        self._refusal, self._pause_s = None, 0.0

    def is_refused(self, refusal: RemoteError, now: float) -> None:
        """Note that the server is stopping and will not take this call: it is asked again after a pause."""
        self.sent_at = now
        self.repeats = self.rescues = 0
        self._refusal, self.is_paused = refusal, True
        shortest, longest = _PAUSES_S
        self._pause_s = min(max(self._pause_s * 2, shortest), longest)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.frames))

    @property
    def transfer_s(self) -> float:
        """What the message is given to get through, before silence after it counts."""
        return (self.bytes_ahead + self.size_bytes) / _TRANSFER_BYTES_PER_S

    @property
    def repeat_at(self) -> float:
        """When to send it again."""
        if self.is_paused:
            # A reconnection ends the pause, so that a large message loses nothing by a long one.
            return self.sent_at + max(self._pause_s, self.size_bytes / _TRANSFER_BYTES_PER_S)
        return max(self.sent_at, self.word_at) + self.patience.silence_s * 2.0**self.repeats + self.transfer_s

    def wake_at(self, heard_at: float) -> float:
        """Return when the silence calls for something to be done; `heard_at` is the last word on any call."""
        return min(self.repeat_at, self._times_out_at, self._given_up_at(heard_at))

    def give_up_if_due(self, now: float, heard_at: float, endpoint: str) -> None:
        """Raise Unreachable, ClientTimeout or the server's own refusal once its time has come."""
        if now >= self._times_out_at:
            raise ClientTimeout(f"no answer from {endpoint} within {self.patience.timeout_s:g} s")
        if now >= self._given_up_at(heard_at):
            if self._refusal is not None:
                raise self._refusal
            silence_s = self._given_up_at(heard_at) - self.word_at
            raise Unreachable(f"not a word from {endpoint} for {silence_s:.4g} s")

    @property
    def _times_out_at(self) -> float:
        return float("inf") if self.patience.timeout_s is None else self.begun_at + self.patience.timeout_s

    def _given_up_at(self, heard_at: float) -> float:
        if heard_at < self.begun_at:
            return self.begun_at + self.patience.connect_timeout_s + self.transfer_s
        return self.word_at + self.patience.patience_s + self.transfer_s
