"""Files over HTTP: videos and uploads under names that cannot be guessed, read from disk, whole or by range.

The client of a finished job gets a link to its video, or the video within the answer if it asked for sync_mode.
"""

import base64
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from protocol.schema import RenderResult
from renderer.errors import JobNotFound
from renderer.frontends.http.links import Tokens, is_upload
from renderer.frontends.http.responses import REQUEST_ID, error
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import Described
from renderer.frontends.http.uploads import Uploads
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job

_SHOWN: Final = re.compile(r"image/(png|jpe?g|webp|gif|bmp|tiff|avif)|video/mp4")  # SVG and HTML could run scripts
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "cross-origin",
    "cache-control": "private, max-age=3600",
}
_KEPT_WITHOUT_BODY: Final = {"etag", "cache-control", "content-security-policy", "cross-origin-resource-policy"}
_DESCRIBED: Final[Described] = {
    200: {"content": {"*/*": {}}, "description": "The file: a video or an upload"},
    206: {"content": {"*/*": {}}, "description": "A part of it"},
    304: {"description": "It has not changed"},
    404: {"description": "No such file, or it has expired"},
    416: {"description": "It has no such part"},
}


class Files:
    """Answers below /files."""

    def __init__(self, engine: Engine, tokens: Tokens, uploads: Uploads) -> None:
        self._engine = engine
        self._tokens = tokens
        self._uploads = uploads
        self.routes = Routes("files")
        self.routes.add("GET", "/files/{token}/{name}", self.file, _DESCRIBED, response_class=Response)
        self.routes.add("HEAD", "/files/{token}/{name}", self.file)

    async def file(self, request: Request, token: str, name: str) -> Response:  # noqa: ARG002 - the token says it all
        """Return a video or an uploaded file. No key is needed, because nobody can guess the name."""
        found = self._upload(token) if is_upload(token) else self._video(token)
        if found is None:
            return _gone()
        path, content_type, file_name = found
        try:
            state = await anyio.to_thread.run_sync(os.stat, path)
        except OSError:
            return _gone()
        kind = "inline" if _SHOWN.fullmatch(content_type) else "attachment"
        content_type = content_type if kind == "inline" else "application/octet-stream"
        response = FileResponse(
            path,
            headers=_HEADERS,
            media_type=content_type,
            filename=file_name,
            stat_result=state,
            content_disposition_type=kind,
        )
        return unless_known(request, response)

    def _upload(self, token: str) -> tuple[Path, str, str] | None:
        about = self._uploads.about(token)
        return (self._uploads.path(token), about.content_type, about.file_name) if about else None

    def _video(self, token: str) -> tuple[Path, str, str] | None:
        job = self._tokens.job_of(token, self._engine.job)
        if job is None or job.result is None:
            return None
        video = job.result.video
        return job.output / video.file_name, video.content_type, video.file_name


def unless_known(request: Request, response: FileResponse) -> Response:
    """Return the response, or a 304 if the client already has the file (RFC 9110, 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if response.headers["etag"] not in known and "*" not in known:
        return response
    kept = {name: value for name, value in response.headers.items() if name in _KEPT_WITHOUT_BODY}
    return Response(status_code=304, headers=kept)


def _gone() -> Response:
    return error(404, "no such file, or it has expired", "not_found")


_CHUNK_BYTES: Final = 3 * 256 * 1024  # a multiple of three, so that base64 only needs padding at the end
_PLACE: Final = "data:video/mp4;base64,"


async def inline(job: Job, result: RenderResult) -> Response:
    """Return an answer with the video as a data URI, which is read from disk while it is sent.

    Raises:
        JobNotFound: the video has been removed.
    """
    try:
        file = await anyio.to_thread.run_sync((job.output / result.video.file_name).open, "rb")
        size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise JobNotFound("the video has expired and was removed", loc=("request_id",)) from error
    document = result.model_dump(mode="json")
    document["video"]["url"] = _PLACE
    before, place, after = json.dumps(document).partition(_PLACE)
    length = len(before.encode()) + len(place) + 4 * -(-size_bytes // 3) + len(after.encode())
    return StreamingResponse(
        _parts(file, (before + place).encode(), after.encode()),
        media_type="application/json",
        headers={"content-length": str(length), REQUEST_ID: job.request_id},
    )


async def _parts(file: BinaryIO, before: bytes, after: bytes) -> AsyncIterator[bytes]:
    with file:
        yield before
        while chunk := await anyio.to_thread.run_sync(file.read, _CHUNK_BYTES):
            yield base64.b64encode(chunk)
        yield after
