"""Where the official clients upload to: the JavaScript client in two steps, the Python client with a token of its own.

Both send large files in parts. They begin to do so above the size that an image may have by default, so that parts are
refused in words, and not supported.
"""

from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from protocol.documents import read_document
from renderer.frontends.http import schema
from renderer.frontends.http.answers import error
from renderer.frontends.http.bodies import Bodies, chunks
from renderer.frontends.http.described import REFUSALS
from renderer.frontends.http.links import CALLER, Caller
from renderer.frontends.http.tokens import Tokens
from renderer.frontends.http.uploads import AlreadyThere, Uploads, safe_name

_LIFECYCLE_VALUES: Final = 100
_FULL: Final[dict[int | str, dict[str, Any]]] = {
    507: {"model": schema.Fault, "description": "No room for more uploads"}
}
_BYTES: Final = {
    "requestBody": {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
}
_PLACE: Final = {
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/UploadRequest"}}}}
}


class Storage:
    """Answers to the clients' uploads."""

    def __init__(self, uploads: Uploads, tokens: Tokens, bodies: Bodies, max_bytes: int) -> None:
        """Make the routes.

        Args:
            max_bytes: of one file.
        """
        self._uploads = uploads
        self._tokens = tokens
        self._bodies = bodies
        self._max_bytes = max_bytes
        self.routes = APIRouter(tags=["uploads"])
        self._add("/storage/upload/initiate", self.initiate, schema.UploadPlace, _PLACE)
        self._add("/storage/auth/token", self.token, schema.UploadToken)
        self._add("/files/upload", self.upload, schema.Uploaded, _BYTES)
        for path in ("/storage/upload/initiate-multipart", "/files/upload/multipart"):
            self.routes.add_api_route(path, self.parts, methods=["POST"], response_model=None, include_in_schema=False)
        self.routes.add_api_route(
            "/files/upload/{token}/{name}",
            self.put,
            methods=["PUT"],
            response_model=None,
            responses={200: {"description": "Kept"}, **REFUSALS, **_FULL, 404: {"model": schema.Fault}},
            openapi_extra=_BYTES,
        )

    def _add(self, path: str, endpoint: Any, model: Any, extra: Any = None) -> None:
        described: dict[int | str, dict[str, Any]] = {200: {"model": model}, **REFUSALS, **_FULL}
        self.routes.add_api_route(
            path, endpoint, methods=["POST"], response_model=None, responses=described, openapi_extra=extra
        )

    async def initiate(self, request: Request) -> Response:
        """Say where a file is to be sent, and under which url it can be named then."""
        async with self._bodies.document(request) as body:
            try:
                asked = schema.UploadRequest.model_validate({} if body.document is None else body.document)
            except ValidationError:
                return error(400, "expected an object with content_type and file_name", "bad_request")
        token, name, links = self._tokens.new_upload(), safe_name(asked.file_name), _caller(request).links
        place = links.file(f"upload/{self._tokens.writable(token)}", name)
        return JSONResponse({"upload_url": place, "file_url": links.file(token, name)})

    async def put(self, request: Request, token: str, name: str) -> Response:
        """Take the bytes of a file that was announced; the url is the permission, for one file."""
        upload = self._tokens.upload_of(token)
        if upload is None:
            return error(404, "no such place to upload to", "not_found")
        try:
            await self._take(request, upload, name)
        except AlreadyThere:
            return error(
                403, "another file was sent here before, and files do not change; ask for a new place", "forbidden"
            )
        return JSONResponse({})

    async def token(self, request: Request) -> Response:
        """Return a token to upload with."""
        caller = _caller(request)
        token, ends = self._tokens.for_uploads(caller.key)
        answer = {"token": token, "token_type": "Bearer", "base_url": caller.links.base, "expires_at": ends.isoformat()}
        return JSONResponse(answer)

    async def upload(self, request: Request) -> Response:
        """Take the bytes of a file, named by the header X-Fal-File-Name."""
        token = self._tokens.new_upload()
        name = await self._take(request, token, request.headers.get("x-fal-file-name"))
        return JSONResponse({"access_url": _caller(request).links.file(token, name)})

    async def parts(self) -> Response:
        """Refuse a file that comes in parts."""
        return error(
            413,
            f"expected a file of up to {self._max_bytes} bytes; larger ones cannot be read anyway",
            "file_too_large",
        )

    async def _take(self, request: Request, token: str, name: str | None) -> str:
        about = self._uploads.wanted(request.headers.get("content-type"), name, _life_s(request))
        await self._uploads.write(token, about, chunks(request, self._max_bytes))
        return about.file_name


def _life_s(request: Request) -> float | None:
    """Return the seconds that the client wants the file to be kept, if it says so."""
    try:
        wanted = read_document(request.headers.get("x-fal-object-lifecycle", "{}"), _LIFECYCLE_VALUES)
        life_s = wanted.get("expiration_duration_seconds")
    except (ValueError, AttributeError):
        return None
    is_number = isinstance(life_s, int | float) and not isinstance(life_s, bool)
    return float(life_s) if is_number and 0 < life_s < 1e10 else None


def _caller(request: Request) -> Caller:
    caller: Caller = request.scope[CALLER]
    return caller
