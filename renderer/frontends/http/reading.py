"""From an HTTP request to the fields of a render request: the body, and what the hosted service puts elsewhere.

The start deadline, the priority, the webhook and the id travel in headers and in the query there; here they are fields
of the request, and one that the body has wins.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request

from protocol.bounded import MAX_FAULTS, context_for
from renderer.errors import InvalidRequest
from renderer.frontends.http.answers import REQUEST_ID
from renderer.frontends.http.links import Caller
from renderer.frontends.http.schema import ImagesToVideoInput
from renderer.intake import too_many_images

_WORDS_MAX = 300


def render_request(document: Any, request: Request, caller: Caller, max_images: int) -> ImagesToVideoInput:
    """Validate a body with what came beside it.

    Args:
        max_images: more are not looked at.

    Raises:
        TooManyImages: there are more.
        InvalidRequest: the first twenty faults are in `details`, with what was found.
    """
    if isinstance(document, dict):
        document = {**_beside(request, caller), **document}
    try:
        return ImagesToVideoInput.model_validate(document, context=context_for(max_images))
    except ValidationError as error:
        raise _invalid(error) from error


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
    """Return an id for an idempotency key, which is any text, and unique for one client only."""
    if not idempotency_key:
        return None
    words = f"{caller.client}\0{idempotency_key}".encode("utf-8", "surrogateescape")
    return f"key-{hashlib.sha256(words).hexdigest()[:32]}"


def _invalid(error: ValidationError) -> InvalidRequest:
    found = error.errors()
    if (found[0]["loc"], found[0]["type"]) == (("images",), "too_long"):
        return too_many_images(error)
    faults = found[:MAX_FAULTS]
    details = tuple(
        {
            "loc": list(fault["loc"]),
            "msg": _brief(fault["msg"]),
            "type": fault["type"],
            "ctx": _plain(fault.get("ctx", {})),
            "input": fault["input"],
            "url": fault.get("url"),
        }
        for fault in faults
    )
    first = faults[0]
    more = f"; {len(found)} faults in all" if len(found) > 1 else ""
    return InvalidRequest(f"{_brief(first['msg'])}{more}", loc=first["loc"], details=details)


def _brief(words: str) -> str:
    """Shorten words that quote what a client has sent."""
    return words if len(words) <= _WORDS_MAX else f"{words[:_WORDS_MAX]}…"


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | bool) else _brief(str(value)) for name, value in context.items()
    }
