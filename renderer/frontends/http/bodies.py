"""Reading what comes in a request, within a number of bytes and a pace.

The Content-Type is not looked at: cURL's examples send JSON as a form. Bodies in memory are counted together, and one
more than fits is refused: to let it wait would hold a connection, and clients come back by themselves.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from protocol.documents import DocumentRefused, most_values, read_document
from protocol.schema import Fault
from renderer.errors import StillreelError
from renderer.frontends.documents import cost_bytes, read_aside

_PATIENCE_S: Final = 30.0
_LEAST_RATE: Final = 16 * 1024  # bytes a second; whoever is slower only holds a connection


class Refused(StillreelError):
    """A body that is not taken; `fault` says why."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self._kind = kind

    def fault(self) -> Fault:
        return Fault(type=self._kind, message=self.message)


class Gone(Exception):
    """The client hung up before its request was whole; nobody reads an answer."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read: its document, None if it was empty, and how long its text was."""

    document: Any
    size_bytes: int


class Bodies:
    """Reads bodies; all that are in memory at a time have room for two of the largest."""

    def __init__(self, max_bytes: int, max_images: int) -> None:
        self._max_bytes = max_bytes
        self._most_values = most_values(max_images)
        self._held_bytes = 0

    @contextlib.asynccontextmanager
    async def document(self, request: Request) -> AsyncIterator[Body]:
        """Lend the JSON document of a request.

        Raises:
            Refused: it is too large, too slow, or not JSON.
            Gone: it did not come to its end.
        """
        content = bytearray()
        counted = 0
        try:
            async for chunk in chunks(request, self._max_bytes):
                content += chunk
                counted += self._hold(len(chunk))
            # What is made of it counts too; half the room is kept for what comes in.
            counted += self._hold(min(cost_bytes(len(content), self._most_values), self._max_bytes // 2))
            document = await read_aside(partial(_parse, content, self._most_values), len(content)) if content else None
            size_bytes = len(content)
            del content
            yield Body(document, size_bytes)
        finally:
            self._held_bytes -= counted

    def _hold(self, size_bytes: int) -> int:
        if self._held_bytes + size_bytes > 2 * self._max_bytes:
            raise Refused("shutting_down", "too many large requests are being read; send this one again")
        self._held_bytes += size_bytes
        return size_bytes


async def chunks(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield a body as it comes.

    Raises:
        Refused: it is too large, or comes too slowly.
        Gone: it did not come to its end.
    """
    too_large = Refused("message_too_large", f"expected a body of up to {max_bytes} bytes")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > max_bytes):
        raise too_large
    stream = request.stream()
    began, size_bytes = time.monotonic(), 0
    try:
        while True:
            left_s = began + _PATIENCE_S + size_bytes / _LEAST_RATE - time.monotonic()
            async with asyncio.timeout(max(0.0, left_s)):
                chunk = await anext(stream, None)
            if chunk is None:
                return
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise too_large
            yield chunk
    except TimeoutError as error:
        raise Refused("bad_request", "the body came too slowly") from error
    except ClientDisconnect as error:
        raise Gone from error


def _parse(content: bytearray, most: int) -> Any:
    try:
        return read_document(content, most)
    except DocumentRefused as error:
        raise Refused("parse_error", str(error)) from error
