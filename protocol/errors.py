"""Every way a request can fail, in one table: its name, its JSON-RPC code, its HTTP status, and whether to try again.

Where the hosted service has a name for an error, that name is used, so that its users' error handling keeps working.
-32700 and -32600 to -32603 are JSON-RPC 2.0's own codes (https://www.jsonrpc.org/specification, section 5.1); ours lie
in -32000 to -32099, which it leaves to servers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Loc = tuple[str | int, ...]

MAX_FAULTS: Final = 20
"""Faults that an answer names."""


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """One row of the table: what a client may rely on when it handles an error."""

    name: str
    code: int
    http_status: int
    retryable: bool
    meaning: str


_ROWS = (
    ErrorKind("parse_error", -32700, 400, False, "the message is not JSON"),
    ErrorKind("bad_request", -32600, 400, False, "the message is not a JSON-RPC 2.0 request"),
    ErrorKind("method_not_found", -32601, 404, False, "no method has that name"),
    ErrorKind("invalid_params", -32602, 422, False, "a field is missing, unknown or has a wrong value"),
    ErrorKind("internal_error", -32603, 500, True, "the server is at fault"),
    ErrorKind("file_download_error", -32001, 422, False, "an image, a sound or a video could not be fetched"),
    ErrorKind("image_load_error", -32002, 422, False, "an image is damaged or cut short"),
    ErrorKind("unsupported_image_format", -32003, 422, False, "the bytes are not in a known image format"),
    ErrorKind("image_too_large", -32004, 422, False, "an image or the canvas has too many pixels"),
    ErrorKind("file_too_large", -32005, 422, False, "the file of an image, a sound or a video has too many bytes"),
    ErrorKind("less_than_equal", -32006, 422, False, "a number is above the limit"),
    ErrorKind("sequence_too_long", -32007, 422, False, "a list is longer than the limit"),
    ErrorKind("not_supported", -32008, 422, False, "this server or version cannot do what a field asks"),
    ErrorKind("request_id_conflict", -32009, 422, False, "another request already has this request_id"),
    ErrorKind("not_found", -32010, 404, False, "no request has this request_id"),
    ErrorKind("still_in_progress", -32011, 400, True, "the result is asked for before the job is done"),
    ErrorKind("client_cancelled", -32012, 499, False, "the job was cancelled"),
    ErrorKind("request_timeout", -32013, 504, False, "the job took longer than its limit"),
    ErrorKind("startup_timeout", -32015, 504, False, "the job was not begun within its start_timeout"),
    ErrorKind("message_too_large", -32014, 413, False, "the message has more bytes than the server takes"),
    ErrorKind("audio_load_error", -32016, 422, False, "a sound is damaged"),
    ErrorKind("unsupported_audio_format", -32017, 422, False, "the bytes are not in a known sound format"),
    ErrorKind("video_load_error", -32018, 422, False, "a video is damaged or cut short"),
    ErrorKind("unsupported_video_format", -32019, 422, False, "the bytes are not a video that can be used here"),
    ErrorKind("queue_full", -32020, 429, True, "too many jobs are waiting; try again later"),
    ErrorKind("shutting_down", -32021, 503, True, "the server is draining; try again once it is back"),
    ErrorKind("storage_full", -32022, 507, True, "the server's disk is full; try again later"),
)

ERRORS: Mapping[str, ErrorKind] = {row.name: row for row in _ROWS}

WRONG_REQUESTS: Final = frozenset(
    {"invalid_params", "less_than_equal", "sequence_too_long", "not_supported", "request_id_conflict"}
)
"""Kinds that say that the request has to be written in another way; the others are about files, jobs and servers."""


def dotted(loc: Loc) -> str:
    """Write a location as people do: ("images", 3, "url") becomes images[3].url."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def counted(count: int, one: str) -> str:
    """Return a number of things in words, such as "1 job" or "2 jobs"."""
    return f"{count} {one}{'' if count == 1 else 's'}"


class RemoteError(Exception):
    """An error that the server answered with.

    Attributes:
        kind: the row of the table above.
        message: the server's message, which names the field.
        loc: the field at fault, such as ("images", 3, "url"); empty if it is not about one field.
        details: for a request with several faults, all of them, as dicts with "loc", "msg" and "type".
        retryable: whether the server says that trying again may help, which depends on more than the kind.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        loc: Loc = (),
        details: tuple[dict[str, Any], ...] = (),
        *,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = kind.retryable if retryable is None else retryable
        self.kind = kind
        self.message = message
        self.loc = loc
        self.details = details


class ClientError(Exception):
    """The client got no answer, or one that it cannot read, so it is not known what became of the request.

    Asking again with the same request_id is safe. If the server answered with an error, that is a RemoteError instead.
    """


class BadEndpoint(ClientError):
    """The endpoint given to the client is not an address that it can connect to."""


class BadCurveFile(ClientError):
    """The CURVE file given to the client holds no keys that it can use."""


class KeyRefused(ClientError):
    """The daemon does not accept the client's key, or requires one and the client has none."""


class Unreachable(ClientError):
    """Nothing arrived from the server for as long as the client waits."""


class ClientTimeout(ClientError):
    """The caller's own time limit ran out; the job may still be running."""
