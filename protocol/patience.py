"""How long a call waits before it is sent again, and before it is given up: arithmetic, no sockets.

The server says something about every accepted call at least once a second, so silence means a lost message, a lost
connection or a lost server. Every call is idempotent (render and submit through their request_id), so all three have
the same remedy: the message is sent again. The waits double, because a large message on a slow line causes silence too.
A daemon that is being restarted says so, and then the message is sent again after a pause.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from protocol.errors import ClientTimeout, KeyRefused, RemoteError, Unreachable
from protocol.wire import Answer, Failure, Notification, Part

# A message is given the time that it takes on a line of 64 Mbit/s before silence counts.
_TRANSFER_BYTES_PER_S = 8 * 1024 * 1024

# The pause after a refusal by a daemon that is stopping; it doubles from the first value up to the second.
_PAUSES_S = (0.25, 2.0)


class Signal(Enum):
    """What the client itself tells a waiting call."""

    LOST = "the connection that it was sent on is gone"
    CLOSED = "the client was closed"


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits of one call, in seconds.

    Args:
        timeout_s: the caller's own limit; None if there is no limit.
        connect_timeout_s: how long nothing may arrive from the server after the call was first sent.
        silence_s: how long nothing may arrive about this call before it is sent again; doubles each time.
        patience_s: how long nothing but refusals may arrive about this call before it is given up.
    """

    timeout_s: float | None = None
    connect_timeout_s: float = 5.0
    silence_s: float = 5.0
    patience_s: float = 120.0


@dataclass(slots=True, eq=False)
class Pending:
    """A call that waits for its answer; times are seconds on the event loop's clock.

    Args:
        bytes_ahead: the size of other calls' messages in the same socket, which this one may have to wait for.

    Attributes:
        repeats: how often it was sent again because of silence, since the server last answered it.
        rescues: how often it was sent again because its connection was lost, since the same time.
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
        """Record that it was given to a socket, where it waits until there is a connection."""
        self.sent_at = now
        self.is_paused = False

    def has_word(self, now: float) -> None:
        """Record that the server has accepted or answered this call."""
        self.word_at = now
        self.repeats = self.rescues = 0
        self._refusal, self._pause_s = None, 0.0

    def is_refused(self, refusal: RemoteError, now: float) -> None:
        """Record that the server is stopping and refuses this call, which is sent again after a pause."""
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
        """How long the message may take to arrive before silence counts."""
        return (self.bytes_ahead + self.size_bytes) / _TRANSFER_BYTES_PER_S

    @property
    def repeat_at(self) -> float:
        """When to send it again."""
        if self.is_paused:
            # A new connection ends the pause early, so a large message loses no time by a long one.
            return self.sent_at + max(self._pause_s, self.size_bytes / _TRANSFER_BYTES_PER_S)
        return max(self.sent_at, self.word_at) + self.patience.silence_s * 2.0**self.repeats + self.transfer_s

    def wake_at(self, heard_at: float) -> float:
        """Return when the silence must be dealt with; `heard_at` is when anything last arrived for any call."""
        return min(self.repeat_at, self._times_out_at, self._given_up_at(heard_at))

    def give_up_if_due(self, now: float, heard_at: float, endpoint: str) -> None:
        """Raise ClientTimeout, Unreachable or the server's refusal if a limit has been reached."""
        if now >= self._times_out_at:
            raise ClientTimeout(f"no answer from {endpoint} within {self.patience.timeout_s:g} s")
        if now >= self._given_up_at(heard_at):
            if self._refusal is not None:
                raise self._refusal
            silence_s = self._given_up_at(heard_at) - self.word_at
            raise Unreachable(f"no answer from {endpoint} for {silence_s:.4g} s")

    @property
    def _times_out_at(self) -> float:
        return float("inf") if self.patience.timeout_s is None else self.begun_at + self.patience.timeout_s

    def _given_up_at(self, heard_at: float) -> float:
        if heard_at < self.begun_at:
            return self.begun_at + self.patience.connect_timeout_s + self.transfer_s
        return self.word_at + self.patience.patience_s + self.transfer_s
