"""A connection that must get to the point: its headers come in time and are not endless.

uvicorn limits neither with the fast parser: a client that sends one byte of a header now and then holds a connection
for ever. Headers may follow a body as well (RFC 9112, 7.1.2), so what is neither body nor its framing is counted too.
"""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEAD_BYTES: Final = 64 * 1024
_FRAMING: Final = 8  # bytes for one of the body: chunks of one byte take six
_MAX_EXTRA_BYTES: Final = 1024 * 1024
_GATHERED_BYTES: Final = 16 * 1024


class Config(uvicorn.Config):
    """uvicorn's settings with one more."""

    header_timeout_s = 10.0


class Connection(HttpToolsProtocol):
    """HTTP/1.1 by httptools, with limits on headers."""

    config: Config
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _is_in_head = True
    _extra_bytes = 0

    def connection_made(self, transport: Any) -> None:
        gathering: Any = _Gathering(transport, self.loop)
        super().connection_made(gathering)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._await_head()
        else:
            self._extra_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self._forget_deadline()
            self.send_400_response("The headers of the request are too large.")
        if self._extra_bytes > _MAX_EXTRA_BYTES and not self.transport.is_closing():
            self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._extra_bytes = max(0, self._extra_bytes - _FRAMING * len(body))
        super().on_body(body)

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        self._is_in_head, self._head_bytes, self._extra_bytes = False, 0, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = True
        super().on_message_complete()

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(self.config.header_timeout_s, self._cut_off)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut_off(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()


class _Gathering:
    """A transport that sends what is written in one turn of the loop at once.

    uvicorn writes head and body apart. Each write wakes the client, which takes longer than a small answer does.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if len(data) > _GATHERED_BYTES:
            self._send()
            self._transport.write(data)
            return
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > _GATHERED_BYTES:
            self._send()

    def close(self) -> None:
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if held and not self._transport.is_closing():
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))
