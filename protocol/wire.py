"""JSON-RPC 2.0 in ZeroMQ multipart messages, as values and pure functions; no sockets here.

A message is one JSON document in frame 0 and attachments in the frames after it (https://www.jsonrpc.org/specification).
This is narrower than JSON-RPC where the rest would leave a REQ socket waiting for ever or make an error hard to locate:
there are no batches, every request has an id, and params are passed by name. protocol/documents.py limits a document.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeGuard

from protocol.documents import MAX_IMAGES, DocumentRefused, kind_of, most_values, read_document
from protocol.errors import ERRORS, ErrorKind, RemoteError

if TYPE_CHECKING:
    from protocol.schema import Fault

Part = bytes | bytearray | memoryview
MessageId = int | str
_ID_MAX = 1024  # it comes back with every answer


class WireError(Exception):
    """A message that is not a valid request or answer.

    Attributes:
        kind: parse_error or bad_request.
        message: what was expected and what was found.
        id: the id of the faulty message if it could be read, for the answer to it.
    """

    def __init__(self, kind: ErrorKind, message: str, id: MessageId | None = None) -> None:  # noqa: A002 - JSON-RPC's word
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.id = id

    def fault(self) -> "Fault":
        """Return the error as the value that `failure` sends."""
        from protocol.schema import Fault  # noqa: PLC0415 - pydantic takes a tenth of a second, and only a server sends

        return Fault(type=self.kind.name, message=self.message, retryable=self.kind.retryable)


@dataclass(frozen=True, slots=True)
class Call:
    """A request: the method's name, its params, and the attachments that came with them."""

    id: MessageId
    method: str
    params: dict[str, Any]
    attachments: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of the call with this id."""

    id: MessageId
    result: dict[str, Any]
    attachments: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """The error that the call with this id ended with; the id is None if the server could not read it."""

    id: MessageId | None
    error: RemoteError


@dataclass(frozen=True, slots=True)
class Notification:
    """A message from the server that is not an answer, such as `progress`, whose params are a JobStatus."""

    method: str
    params: dict[str, Any]


# The server's side: what came in.


def split_envelope(frames: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Split what a ROUTER received into the envelope, to be put before every reply, and the message's own frames.

    The envelope is the identity, and the empty delimiter that a REQ socket always sends and a DEALER may send. A JSON
    document is never empty, so an empty second frame is always the delimiter.
    """
    size = 2 if len(frames) > 1 and len(frames[1]) == 0 else 1
    return list(frames[:size]), list(frames[size:])


def parse_call(body: Sequence[Part], most: int = most_values(MAX_IMAGES)) -> Call:
    """Read one request.

    Args:
        body: the message's own frames, the JSON document first. Attachments are not copied.
        most: how many values and names the document may hold.

    Raises:
        WireError: it is not a JSON-RPC 2.0 request with an id and named params.
    """
    document = _read_document(body, partial(read_document, most=most))
    id_ = document.get("id")
    if not _is_id(id_):
        raise WireError(ERRORS["bad_request"], _wrong_id(document))
    method, params = document.get("method"), document.get("params", {})
    if not isinstance(method, str):
        raise WireError(ERRORS["bad_request"], f"method: expected a string, found {_found(method)}", id_)
    if not isinstance(params, dict):
        raise WireError(
            ERRORS["bad_request"], f"params: expected an object of named fields, found {_found(params)}", id_
        )
    return Call(id_, method, params, tuple(body[1:]))


# The server's side: what goes out.


def answer(id: MessageId, result: Mapping[str, Any], attachments: Sequence[Part] = ()) -> list[Part]:  # noqa: A002
    """Return the frames that answer a call."""
    return [_document({"id": id, "result": result}), *attachments]


def failure(id: MessageId | None, fault: "Fault") -> list[Part]:  # noqa: A002
    """Return the frames that answer a call with an error.

    Args:
        id: None if the call's id could not be read.
        fault: its type must be in the table of errors.
    """
    data = {"type": fault.type, "loc": fault.loc, "retryable": fault.retryable}
    if fault.errors:
        data["errors"] = fault.errors
    error = {"code": ERRORS[fault.type].code, "message": fault.message, "data": data}
    return [_document({"id": id, "error": error})]


def notification(method: str, params: Mapping[str, Any]) -> list[Part]:
    """Return the frames of a message that expects no answer."""
    return [_document({"method": method, "params": params})]


# The client's side.


def call(id: MessageId, method: str, params: Mapping[str, Any], attachments: Sequence[Part] = ()) -> list[Part]:  # noqa: A002
    """Return the frames of a request."""
    return [_document({"id": id, "method": method, "params": params}), *attachments]


def parse_answer(body: Sequence[Part]) -> Answer | Failure | Notification:
    """Read a message from a server.

    Raises:
        WireError: it is not an answer, a failure or a notification.
    """
    document = _read_document(body, _read_answer)
    id_, params, result = document.get("id"), document.get("params", {}), document.get("result")
    if "error" in document and "result" not in document and (id_ is None or _is_id(id_)):
        return Failure(id_, _remote_error(document["error"]))
    if "error" not in document and isinstance(result, dict) and _is_id(id_):
        return Answer(id_, result, tuple(body[1:]))
    method = document.get("method")
    if "id" not in document and isinstance(method, str) and isinstance(params, dict):
        return Notification(method, params)
    raise WireError(
        ERRORS["bad_request"], "expected a result, an error or a notification", id_ if _is_id(id_) else None
    )


# Both sides.


def _document(members: Mapping[str, Any]) -> bytes:
    text = json.dumps({"jsonrpc": "2.0", **members}, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


def _read_answer(text: bytes | bytearray) -> Any:
    """Read what a server has written, whose size it may choose; with what Python has, so that a client begins soon."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentRefused(f"expected a JSON document in UTF-8: {error}") from error


def _read_document(body: Sequence[Part], read: Callable[[bytes | bytearray], Any]) -> dict[str, Any]:
    if not body:
        raise WireError(ERRORS["parse_error"], "expected a JSON document in the first frame, found no frame")
    text = body[0] if isinstance(body[0], bytes | bytearray) else bytes(body[0])
    try:
        document = read(text)
    except DocumentRefused as error:
        raise WireError(ERRORS["parse_error"], str(error)) from error
    if isinstance(document, list):
        raise WireError(ERRORS["bad_request"], "expected one request, found an array; batches are not supported")
    if not isinstance(document, dict):
        raise WireError(ERRORS["bad_request"], f"expected a JSON object, found {_found(document)}")
    id_ = document.get("id") if _is_id(document.get("id")) else None
    if document.get("jsonrpc") != "2.0":
        found = _found(document.get("jsonrpc"))
        raise WireError(ERRORS["bad_request"], f'jsonrpc: expected the string "2.0", found {found}', id_)
    return document


def _is_id(value: object) -> TypeGuard[MessageId]:
    if isinstance(value, str):
        return len(value) <= _ID_MAX
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong_id(document: dict[str, Any]) -> str:
    if "id" not in document:
        return (
            "id: expected a string or an integer, found none; a notification would get no answer and is not supported"
        )
    if isinstance(document["id"], str):
        return f"id: expected up to {_ID_MAX} characters, found {len(document['id'])}"
    return f"id: expected a string or an integer, found {_found(document['id'])}"


def _found(value: object) -> str:
    """Return a short JSON value as it is written, and only the kind of any other."""
    if value is None:
        return "nothing"
    if isinstance(value, str | int | float) and len(repr(value)) <= 40:
        return json.dumps(value)
    return kind_of(value)


def _remote_error(error: object) -> RemoteError:
    """Return the server's error; if this version does not know its type, its row is made from what the server says."""
    members = error if isinstance(error, dict) else {}
    code, message, data = members.get("code"), members.get("message"), members.get("data")
    if not isinstance(code, int) or not isinstance(message, str):
        raise WireError(ERRORS["bad_request"], "error: expected an object with a code and a message")
    by_code = next((row.name for row in ERRORS.values() if row.code == code), "internal_error")
    told = data if isinstance(data, dict) else {}
    name, loc, retryable = told.get("type", by_code), told.get("loc", ()), told.get("retryable")
    errors = told.get("errors", ())
    is_as_expected = (
        isinstance(name, str)
        and isinstance(retryable, bool | None)
        and isinstance(loc, list | tuple)
        and all(isinstance(part, str | int) for part in loc)
        and isinstance(errors, list | tuple)
        and all(isinstance(each, dict) for each in errors)
    )
    if not is_as_expected:
        raise WireError(ERRORS["bad_request"], "error.data: expected type, loc and retryable")
    unknown = ErrorKind(name, code, 500, bool(retryable), "an error that this version does not know")
    return RemoteError(ERRORS.get(name, unknown), message, tuple(loc), tuple(errors), retryable=retryable)
