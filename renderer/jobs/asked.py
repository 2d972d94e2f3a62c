"""A description of each request, kept for people beside the log of its job.

The store clears a request when its job ends, because it may hold whole pictures. The description keeps what a person
wants to read again: the settings, and where the first stills came from, without the secrets that a url may hold. It is
removed with the log of the job.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from protocol.media import AnyRequest, MediaRequest
from protocol.schema import AudioTrack, ImageFrame
from renderer.disk import open_private
from renderer.observe.redaction import printable, redact

NAME: Final = "request.json"

_STILLS: Final = 200
_URL_CHARACTERS: Final = 300
_LEFT_OUT: Final = {
    "images",
    "audio",
    "metadata",
    "webhook_url",
    "request_id",
}  # written apart, private, or known anyway


def keep(directory: Path, request: AnyRequest) -> None:
    """Write down the description of a request; a failure is ignored, because the job matters more than its description.

    Args:
        directory: of the job's log; made if it is not there.
    """
    with contextlib.suppress(OSError):
        directory.mkdir(mode=0o700, exist_ok=True)
        with open(directory / NAME, "x", opener=open_private, encoding="utf-8") as file:  # Path.open has no opener
            file.write(json.dumps(described(request)))  # in C, unlike dump


def read(directory: Path | None) -> dict[str, Any] | None:
    """Return the description of a request; None if it is missing or cut short."""
    try:
        found = json.loads((directory / NAME).read_bytes()) if directory else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def described(request: AnyRequest) -> dict[str, Any]:
    """Return a request as a document that a person may read: no defaults, no secrets, and a bounded size."""
    settings = request.model_dump(mode="json", exclude_defaults=True, exclude=_LEFT_OUT)
    if isinstance(request, MediaRequest):
        return settings | {str(field): _shown(url) for (field, *_), url in request.urls()}
    stills = request.images[:_STILLS]
    left_out = len(request.images) - len(stills)
    audio = {"audio": _sources(request.audio)} if request.audio else {}
    return {"images": _sources(stills), **({"images_left_out": left_out} if left_out else {}), **audio, **settings}


def _sources(sources: Sequence[ImageFrame | AudioTrack]) -> list[dict[str, Any]]:
    return [{"url": _shown(each.url), **each.model_dump(exclude={"url"}, exclude_unset=True)} for each in sources]


def _shown(url: str) -> str:
    text = printable(redact(url[: 4 * _URL_CHARACTERS]))
    return text if len(text) <= _URL_CHARACTERS else f"{text[:_URL_CHARACTERS]}…"
