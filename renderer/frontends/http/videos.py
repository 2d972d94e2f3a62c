"""A finished job's video on its way to a client: as a link, or inside the answer where sync_mode asks for that."""

import base64
import json
import os
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Final

import anyio.to_thread
from starlette.responses import JSONResponse, Response, StreamingResponse

from protocol.schema import RenderResult
from renderer.errors import JobNotFound
from renderer.frontends.http.answers import REQUEST_ID
from renderer.frontends.http.links import Links
from renderer.frontends.http.tokens import Tokens
from renderer.jobs.job import Job

_CHUNK_BYTES: Final = 3 * 256 * 1024  # a multiple of three, so that base64 needs no padding in between
_PLACE: Final = "data:video/mp4;base64,"


def linked(job: Job, result: RenderResult, tokens: Tokens, links: Links) -> dict[str, Any]:
    """Return the result as a client reads it, with an url that it can fetch."""
    document = result.model_dump(mode="json")
    document["video"]["url"] = links.file(tokens.result(job), result.video.file_name)
    return document


async def inline(job: Job, result: RenderResult) -> Response:
    """Answer with the video as a data URI, read from disk as it is sent.

    Raises:
        JobNotFound: the video is not there any more.
    """
    try:
        file = await anyio.to_thread.run_sync((job.output / result.video.file_name).open, "rb")
        size_bytes = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise JobNotFound("the video was removed when its time was over", loc=("request_id",)) from error
    document = result.model_dump(mode="json")
    document["video"]["url"] = _PLACE
    before, place, after = json.dumps(document).partition(_PLACE)
    length = len(before.encode()) + len(place) + 4 * -(-size_bytes // 3) + len(after.encode())
    return StreamingResponse(
        _parts(file, (before + place).encode(), after.encode()),
        media_type="application/json",
        headers={"content-length": str(length), REQUEST_ID: job.request_id},
    )


def answer(job: Job, result: RenderResult, tokens: Tokens, links: Links) -> Response:
    return JSONResponse(linked(job, result, tokens, links), headers={REQUEST_ID: job.request_id})


async def _parts(file: BinaryIO, before: bytes, after: bytes) -> AsyncIterator[bytes]:
    with file:
        yield before
        while chunk := await anyio.to_thread.run_sync(file.read, _CHUNK_BYTES):
            yield base64.b64encode(chunk)
        yield after
