"""Files over HTTP: results and uploads under names that cannot be guessed, read from disk, whole or by range.

The client of a finished job gets a link to each file of its result, or the files within the answer if it asked for
sync_mode.
"""

import base64
import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Sequence
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
    200: {"content": {"*/*": {}}, "description": "The file: of a result, or an upload"},
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

    async def file(self, request: Request, token: str, name: str) -> Response:  # noqa: ARG002 - in the token
        """Return a file of a result, or an uploaded one. No key is needed, because nobody can guess the name."""
        found = self._upload(token) if is_upload(token) else self._made(token)
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

    def _made(self, token: str) -> tuple[Path, str, str] | None:
        found = self._tokens.file_of(token, self._engine.job)
        if found is None:
            return None
        job, file = found
        return job.output / file.file_name, file.content_type, file.file_name


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
_PLACE: Final = "data:{};base64,"


async def inline(job: Job, result: RenderResult) -> Response:
    """Return an answer with the files as data URIs, which are read from disk while it is sent.

    Raises:
        JobNotFound: they have been removed.
    """
    document = json.dumps(result.with_urls(lambda file: _PLACE.format(file.content_type)).model_dump(mode="json"))
    parts: list[bytes | BinaryIO] = []
    length = len(document.encode())
    try:
        for file in result.files().values():  # which the document holds in this order
            before, place, document = document.partition(_PLACE.format(file.content_type))
            content = await anyio.to_thread.run_sync((job.output / file.file_name).open, "rb")
            parts += [(before + place).encode(), content]
            length += 4 * -(-os.fstat(content.fileno()).st_size // 3)
    except OSError as error:
        _close(parts)
        raise JobNotFound("the video has expired and was removed", loc=("request_id",)) from error
    return StreamingResponse(
        _joined([*parts, document.encode()]),
        media_type="application/json",
        headers={"content-length": str(length), REQUEST_ID: job.request_id},
    )


async def _joined(parts: Sequence[bytes | BinaryIO]) -> AsyncIterator[bytes]:
    try:
        for part in parts:
            if isinstance(part, bytes):
                yield part
                continue
            while chunk := await anyio.to_thread.run_sync(part.read, _CHUNK_BYTES):
                yield base64.b64encode(chunk)
    finally:
        _close(parts)


def _close(parts: Iterable[bytes | BinaryIO]) -> None:
    for part in parts:
        if not isinstance(part, bytes):
            part.close()
