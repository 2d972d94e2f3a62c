"""What the hosted service's clients read: status documents, error bodies and events.

A fault of the request is a 422 with a list, as FastAPI writes it; every other error is a sentence and a type. The
JavaScript client shows only `message` and the Python client only `detail`, so both are present. Clients retry 408, 409
and 429 for a minute, so these are not used for errors that will last.
"""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from protocol.errors import ERRORS, Loc, dotted
from protocol.media import AnyResult
from protocol.schema import Fault
from renderer.config import FetchSettings, PictureSettings
from renderer.frontends.http.links import Links, Tokens
from renderer.jobs.job import WORDS, Job

if TYPE_CHECKING:
    from starlette.responses import JSONResponse, StreamingResponse

FAILED: Final = "the server failed; its log says why"
REQUEST_ID: Final = "x-fal-request-id"
_ERROR_TYPE: Final = "x-fal-error-type"
_TIMEOUT_TYPE: Final = "x-fal-request-timeout-type"
_INPUT_CHARACTERS = 200
_SILENCE_S: Final = 10.0
_TYPES: Final = {
    "too_short": "sequence_too_short",
    "too_long": "sequence_too_long",
    "invalid_params": "value_error",
    "parse_error": "bad_request",
    "method_not_found": "not_found",
}
_EXPLAINED_THERE: Final = {
    "file_download_error",
    "image_load_error",
    "unsupported_image_format",
    "unsupported_audio_format",
    "unsupported_video_format",
    "image_too_large",
    "file_too_large",
    "greater_than_equal",
    "less_than_equal",
    "sequence_too_short",
    "sequence_too_long",
}


def error_body(words: str, error_type: str) -> dict[str, Any]:
    """Return the body of an error that is not about a field of the request."""
    return {"detail": words, "error_type": error_type, "message": words}


def error(status: int, words: str, error_type: str, headers: Mapping[str, str] | None = None) -> "JSONResponse":
    """Return an answer with such an error."""
    from starlette.responses import JSONResponse  # noqa: PLC0415 - webhooks are called without an HTTP door as well

    return JSONResponse(error_body(words, error_type), status, {_ERROR_TYPE: error_type, **(headers or {})})


async def events(news: AsyncIterator[str | None], clock: Callable[[], float] = time.monotonic) -> AsyncIterator[bytes]:
    """Yield server-sent events, and a comment after ten seconds without one, as proxies cut silent connections.

    Args:
        news: the fields of each event; None if there is nothing new, which must come more often than that.
    """
    spoke_at = clock()
    async for event in news:
        if event is not None or clock() - spoke_at >= _SILENCE_S:
            spoke_at = clock()
            yield f"{event or ': still here'}\n\n".encode()


def event_stream(news: AsyncIterator[str | None], headers: Mapping[str, str] | None = None) -> "StreamingResponse":
    """Return an answer that sends events as they come; see `events`."""
    from starlette.responses import StreamingResponse  # noqa: PLC0415 - as above

    headers = {"cache-control": "no-store", "x-accel-buffering": "no", **(headers or {})}
    return StreamingResponse(events(news), media_type="text/event-stream", headers=headers)


class Faults:
    """Writes faults as error bodies, with the limits that an accepted job may exceed."""

    def __init__(self, fetch: FetchSettings, pictures: PictureSettings) -> None:
        self._contexts: dict[str, dict[str, Any]] = {
            "file_too_large": {"max_size": fetch.max_image_bytes},
            "image_too_large": {"max_pixels": pictures.max_image_pixels},
        }
        sound, video = {"max_size": fetch.max_audio_bytes}, {"max_size": fetch.max_video_bytes}
        self._sizes = {"audio": sound, "audio_url": sound, "video_url": video, "media_url": video}

    def answer(self, fault: Fault, document: object = None, request_id: str | None = None) -> "JSONResponse":
        """Return the answer to a request that has failed.

        Args:
            document: the request's body, to quote what was found at the fault; None if it is no longer known.
        """
        from starlette.responses import JSONResponse  # noqa: PLC0415 - as above

        status, body = self.body(fault, document)
        headers = {_ERROR_TYPE: _TYPES.get(fault.type, fault.type)}
        if request_id is not None:
            headers[REQUEST_ID] = request_id
        if fault.type == "startup_timeout":
            headers[_TIMEOUT_TYPE] = "user"  # this tells clients not to try again
        if fault.type in {"queue_full", "shutting_down", "storage_full"}:
            headers["retry-after"] = "1"
        return JSONResponse(body, status, headers)

    def body(self, fault: Fault, document: object = None) -> tuple[int, dict[str, Any]]:
        """Return the status and the body for a fault."""
        status = ERRORS[fault.type].http_status
        if status != 422:
            words = "Request cancelled by the client." if fault.type == "client_cancelled" else fault.message
            return status, error_body(words, _TYPES.get(fault.type, fault.type))
        found = fault.errors or ({"loc": fault.loc, "msg": _bare(fault), "type": fault.type},)
        return status, {"detail": [self._entry(each, document) for each in found], "message": fault.message}

    def _entry(self, each: Mapping[str, Any], document: object) -> dict[str, Any]:
        loc = tuple(each["loc"])
        kind = _TYPES.get(each["type"], each["type"])
        context = self._contexts.get(kind, {})
        if kind == "file_too_large" and loc:
            context = self._sizes.get(str(loc[0]), context)
        entry = {
            "loc": ["body", *loc],
            "msg": each["msg"],
            "type": kind,
            "ctx": each.get("ctx") or context,
            "input": shortened(each["input"] if "input" in each else at(document, loc)),
        }
        if kind in _EXPLAINED_THERE:
            entry["url"] = f"https://docs.fal.ai/errors#{kind}"
        return entry


def submitted(job: Job, position: int | None, links: Links) -> dict[str, Any]:
    return {
        "status": "IN_QUEUE",
        "request_id": job.request_id,
        "queue_position": position or 0,
        **links.request(job.request_id),
    }


def status(job: Job, position: int | None, logs: list[dict[str, Any]], links: Links) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the document for a job's status."""
    word = WORDS[job.state]
    document: dict[str, Any] = {
        "status": word,
        "request_id": job.request_id,
        **links.request(job.request_id),
        "logs": logs,
    }
    if word == "IN_QUEUE":
        document["queue_position"] = position or 0
    if not job.is_finished:
        return 202, document
    took_s = (job.finished_at or 0) - job.started_at if job.started_at else 0.0
    document["metrics"] = {"inference_time": max(0.0, took_s)}
    if job.error:
        document["error"] = job.error.message
        document["error_type"] = job.error.type
    return 200, document


def linked(job: Job, result: AnyResult, tokens: Tokens, links: Links) -> dict[str, Any]:
    """Return the result as the client gets it, with urls that it can fetch."""
    if not job.is_object:
        fields = {file.file_name: field for field, file in result.files().items()}
        result = result.with_urls(lambda file: links.file(tokens.result(job, fields[file.file_name]), file.file_name))
    return result.model_dump(mode="json")


def shortened(value: Any) -> Any:
    """Return what was found at a fault, shortened: a body of many megabytes must not come back in an error."""
    if isinstance(value, str):
        return value if len(value) <= _INPUT_CHARACTERS else f"{value[:_INPUT_CHARACTERS]}…"
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 1 << 53 else None
    return None if value else value


def at(document: object, loc: Loc) -> Any:
    """Return the value at a place in a document, or None if there is none."""
    for part in loc:
        try:
            document = document[part]  # type: ignore[index] # the error shows what cannot be indexed
        except (LookupError, TypeError):
            return None
    return document


def _bare(fault: Fault) -> str:
    """Return the message without the place, which the body names separately."""
    return fault.message.removeprefix(f"{dotted(fault.loc)}: ")
