"""From an HTTP request to the fields of what is asked for, some of which the hosted service puts into headers.

There the start deadline, the priority, the webhook and the id are sent in headers and in the query; here they are
fields of the request, and a field in the body takes precedence. Unknown fields are ignored, as there. But "frame" in
place of "frames" would make a video of a single frame, so the result says what was ignored.

A body may have a limited size and must arrive at a minimum pace. Its Content-Type does not matter, because cURL's
examples send JSON as a form. The bodies in memory share a limit, and a body that does not fit is refused: waiting would
occupy a connection, and clients try again by themselves.
"""

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from protocol.bounded import context_for
from protocol.documents import DocumentRefused, most_values, read_document
from protocol.errors import MAX_FAULTS, Loc
from protocol.media import AnyRequest
from protocol.schema import Fault, ResultWarning
from protocol.words import meant, wrongs_in
from renderer.errors import InvalidRequest, StillreelError, TooManyImages
from renderer.frontends.documents import cost_bytes, read_aside
from renderer.frontends.http.links import Caller
from renderer.frontends.http.responses import REQUEST_ID
from renderer.frontends.http.schema import (
    AudioTrack,
    ContactSheet,
    ImageFrame,
    ImagesToVideoInput,
    Loudness,
    Output,
    Poster,
)
from renderer.intake import invalid

_WORDS_MAX: Final = 300
_NAME_MAX: Final = 100
_IGNORED: Final = "field_ignored"
_OBJECTS: Final[Mapping[str, type[BaseModel]]] = {
    "output": Output,
    "loudness": Loudness,
    "poster": Poster,
    "contact_sheet": ContactSheet,
}


def wanted_of(
    document: Any, model: type[AnyRequest], request: Request, caller: Caller, max_images: int
) -> tuple[AnyRequest, tuple[ResultWarning, ...]]:
    """Return the validated request, and a warning for each field of the body that was ignored.

    Args:
        model: what its app is sent.
        max_images: the most images that are checked.

    Raises:
        TooManyImages: there are more images.
        InvalidRequest: the first twenty faults are in `details`, with what was found.
    """
    if isinstance(document, dict):
        document = {**_beside(request, caller), **document}
    try:
        # From attributes, as FastAPI does, so that a value that is not an object gets the same type of error as there.
        wanted = model.model_validate(document, from_attributes=True, context=context_for(max_images))
    except ValidationError as error:
        raise _invalid(error, model) from error
    return wanted, _ignored(document, model)


def _beside(request: Request, caller: Caller) -> dict[str, Any]:
    headers, query = request.headers, request.query_params
    found = {
        "start_timeout": headers.get("x-fal-request-timeout"),
        "priority": headers.get("x-fal-queue-priority"),
        "webhook_url": query.get("fal_webhook"),
        "request_id": headers.get(REQUEST_ID) or _id_of(headers.get("idempotency-key"), caller),
    }
    return {name: value for name, value in found.items() if value is not None}


def _id_of(idempotency_key: str | None, caller: Caller) -> str | None:
    """Return a request_id for an idempotency key, which may be any text and is only unique for one client."""
    if not idempotency_key:
        return None
    words = f"{caller.client}\0{idempotency_key}".encode("utf-8", "surrogateescape")
    return f"key-{hashlib.sha256(words).hexdigest()[:32]}"


def _ignored(document: Any, model: type[AnyRequest]) -> tuple[ResultWarning, ...]:
    """Return warnings about unknown fields: the first ones by name, the others by their number."""
    unknown = _unknown(document, model)
    warnings = [
        ResultWarning(type=_IGNORED, message=f"no such field, so it was ignored{likely}", loc=loc)
        for loc, likely in itertools.islice(unknown, MAX_FAULTS)
    ]
    if more := sum(1 for _ in unknown):
        words = "1 more field was ignored" if more == 1 else f"{more} more fields were ignored"
        warnings.append(ResultWarning(type=_IGNORED, message=words))
    return tuple(warnings)


def _unknown(document: Any, model: type[AnyRequest]) -> Iterator[tuple[Loc, str]]:
    """Yield the places of unknown fields, each with a suggestion of what may have been meant."""
    yield from _unknown_in(document, model, ())
    if model is not ImagesToVideoInput:
        return
    for name, part in _OBJECTS.items():
        if isinstance(fields := document.get(name), dict):
            yield from _unknown_in(fields, part, (name,))
    for name, item in (("images", ImageFrame), ("audio", AudioTrack)):
        for number, fields in enumerate(document.get(name, ())):
            yield from _unknown_in(fields, item, (name, number))


def _unknown_in(fields: Mapping[str, Any], model: type[BaseModel], place: Loc) -> Iterator[tuple[Loc, str]]:
    for name in fields:
        if name not in model.model_fields:
            yield (*place, name[:_NAME_MAX]), meant(name[:_NAME_MAX], model.model_fields)


def _invalid(error: ValidationError, model: type[AnyRequest]) -> InvalidRequest:
    """Return the faults as the hosted service lists them, with pydantic's contexts and what was found."""
    fault = invalid(error, model)
    if isinstance(fault, TooManyImages):
        return fault
    wrongs = zip(fault.details, wrongs_in(error, model), strict=False)
    fault.details = tuple({**told, "ctx": _plain(wrong.context), "input": wrong.found} for told, wrong in wrongs)
    return fault


def _brief(words: str) -> str:
    """Shorten a text that quotes what a client has sent."""
    return words if len(words) <= _WORDS_MAX else f"{words[:_WORDS_MAX]}…"


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | bool) else _brief(str(value)) for name, value in context.items()
    }


_PATIENCE_S: Final = 30.0
_LEAST_RATE: Final = 16 * 1024  # bytes a second; a slower client only occupies a connection


class Refused(StillreelError):
    """A body that is refused; `fault` says why."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self._kind = kind

    def fault(self) -> Fault:
        return Fault(type=self._kind, message=self.message)


class Gone(Exception):
    """The client closed its connection before its request was complete, so nobody reads an answer."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read: its document, or None if it was empty, and the length of its text."""

    document: Any
    size_bytes: int


class Bodies:
    """Reads bodies; those in memory at a time may add up to two of the largest."""

    def __init__(self, max_bytes: int, max_images: int) -> None:
        self._max_bytes = max_bytes
        self._most_values = most_values(max_images)
        self._held_bytes = 0

    @contextlib.asynccontextmanager
    async def document(self, request: Request) -> AsyncIterator[Body]:
        """Lend the JSON document of a request.

        Raises:
            Refused: it is too large, too slow, or not JSON.
            Gone: it ended too early.
        """
        content = bytearray()
        counted = 0
        try:
            async for chunk in chunks(request, self._max_bytes):
                content += chunk
                counted += self._hold(len(chunk))
            # The document counts too, but leaves half of the limit for bodies that are arriving.
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
    """Yield a body as it arrives.

    Raises:
        Refused: it is too large or too slow.
        Gone: it ended too early.
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
        raise Refused("bad_request", "the body arrived too slowly") from error
    except ClientDisconnect as error:
        raise Gone from error


def _parse(content: bytearray, most: int) -> Any:
    try:
        return read_document(content, most)
    except DocumentRefused as error:
        raise Refused("parse_error", str(error)) from error
