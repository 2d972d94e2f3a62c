"""What /openapi.json says of the hosted service's routes; data only."""

from typing import Any, Final

from renderer.frontends.http import schema

Described = dict[int | str, dict[str, Any]]

_SCHEMA: Final = "#/components/schemas"

REQUEST_BODY: Final = {
    "requestBody": {
        "required": True,
        "description": "Read as JSON whatever the Content-Type says.",
        "content": {"application/json": {"schema": {"$ref": f"{_SCHEMA}/ImagesToVideoInput"}}},
    }
}

_FAULT: Final = {"model": schema.Fault}
REFUSALS: Final[Described] = {
    400: {**_FAULT, "description": "Not a request that could be read"},
    401: {**_FAULT, "description": "No key of this server's"},
    403: {**_FAULT, "description": "A page of this origin may not ask"},
    413: {**_FAULT, "description": "The body is too large"},
    422: {"model": schema.ValidationFault, "description": "Fields are at fault"},
    500: {**_FAULT, "description": "The server is at fault"},
    503: {**_FAULT, "description": "The server is stopping; ask again"},
}
_ACCEPTING: Final[Described] = {
    **REFUSALS,
    429: {**_FAULT, "description": "The queue is full"},
    507: {**_FAULT, "description": "The server's disk is full"},
}
_ENDINGS: Final[Described] = {
    499: {**_FAULT, "description": "Cancelled by the client"},
    504: {**_FAULT, "description": "Not begun in time, or took too long"},
    404: {**_FAULT, "description": "Unknown, or forgotten since"},
}
_UNKNOWN: Final[Described] = {404: {"model": schema.Unknown, "description": "Unknown, or forgotten since"}}

RUN: Final[Described] = {200: {"model": schema.ImagesToVideoOutput}, **_ACCEPTING, **_ENDINGS}
SUBMIT: Final[Described] = {200: {"model": schema.Submitted}, **_ACCEPTING}
RESULT: Final[Described] = {200: {"model": schema.ImagesToVideoOutput}, **REFUSALS, **_ENDINGS}
STATUS: Final[Described] = {
    200: {"model": schema.QueueStatus, "description": "Done"},
    202: {"model": schema.QueueStatus, "description": "Waits or runs"},
    **{code: REFUSALS[code] for code in (400, 401, 403, 422)},
    **_UNKNOWN,
}
STREAM: Final[Described] = {
    200: {"content": {"text/event-stream": {}}, "description": "Documents as /status answers with"},
    **{code: REFUSALS[code] for code in (400, 401, 403, 422)},
    **_UNKNOWN,
}
CANCEL: Final[Described] = {
    202: {"model": schema.Cancellation},
    400: {"model": schema.Cancellation, "description": "It has ended already"},
    **{code: REFUSALS[code] for code in (401, 403, 500)},
    **_UNKNOWN,
}
