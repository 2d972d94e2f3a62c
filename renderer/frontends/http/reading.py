"""From an HTTP request to the fields of a render request: the body, and what the hosted service puts elsewhere.

The start deadline, the priority, the webhook and the id travel in headers and in the query there; here they are fields
of the request, and one that the body has wins. A field that is not known is ignored, as there; but "frame" for
"frames" makes a video of one frame, so the result says what was ignored.
"""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from protocol.bounded import MAX_FAULTS, context_for
from protocol.errors import Loc
from protocol.schema import ResultWarning
from protocol.words import meant, wrongs_in
from renderer.errors import InvalidRequest, TooManyImages
from renderer.frontends.http.answers import REQUEST_ID
from renderer.frontends.http.links import Caller
from renderer.frontends.http.schema import ImageFrame, ImagesToVideoInput
from renderer.intake import invalid

_WORDS_MAX: Final = 300
_NAME_MAX: Final = 100
_IGNORED: Final = "field_ignored"


def render_request(
    document: Any, request: Request, caller: Caller, max_images: int
) -> tuple[ImagesToVideoInput, tuple[ResultWarning, ...]]:
    """Validate a body with what came beside it; return also what of the body was ignored.

    Args:
        max_images: more are not looked at.

    Raises:
        TooManyImages: there are more.
        InvalidRequest: the first twenty faults are in `details`, with what was found.
    """
    if isinstance(document, dict):
        document = {**_beside(request, caller), **document}
    try:
        # From attributes, as FastAPI does: so what is no object is a fault of the type that it is there.
        wanted = ImagesToVideoInput.model_validate(document, from_attributes=True, context=context_for(max_images))
    except ValidationError as error:
        raise _invalid(error) from error
    return wanted, _ignored(document)


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


def _ignored(document: Any) -> tuple[ResultWarning, ...]:
    """Return a warning for each field that is not known here: the first few by name, the others by number."""
    unknown = _unknown(document)
    warnings = [
        ResultWarning(type=_IGNORED, message=f"no such field, so it was ignored{likely}", loc=loc)
        for loc, likely in itertools.islice(unknown, MAX_FAULTS)
    ]
    if more := sum(1 for _ in unknown):
        words = "1 more field was ignored" if more == 1 else f"{more} more fields were ignored"
        warnings.append(ResultWarning(type=_IGNORED, message=words))
    return tuple(warnings)


def _unknown(document: Any) -> Iterator[tuple[Loc, str]]:
    """Yield the places of fields that are not known, and for each what may be meant."""
    yield from _unknown_in(document, ImagesToVideoInput, ())
    for number, image in enumerate(document["images"]):
        yield from _unknown_in(image, ImageFrame, ("images", number))


def _unknown_in(fields: Mapping[str, Any], model: type[BaseModel], place: Loc) -> Iterator[tuple[Loc, str]]:
    for name in fields:
        if name not in model.model_fields:
            yield (*place, name[:_NAME_MAX]), meant(name[:_NAME_MAX], model.model_fields)


def _invalid(error: ValidationError) -> InvalidRequest:
    """Return the faults as the hosted service lists them: with pydantic's contexts, and what was found."""
    fault = invalid(error, ImagesToVideoInput)
    if isinstance(fault, TooManyImages):
        return fault
    wrongs = zip(fault.details, wrongs_in(error, ImagesToVideoInput), strict=False)
    fault.details = tuple({**told, "ctx": _plain(wrong.context), "input": wrong.found} for told, wrong in wrongs)
    return fault


def _brief(words: str) -> str:
    """Shorten words that quote what a client has sent."""
    return words if len(words) <= _WORDS_MAX else f"{words[:_WORDS_MAX]}…"


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | bool) else _brief(str(value)) for name, value in context.items()
    }
