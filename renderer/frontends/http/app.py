"""The app: every route, what becomes of errors, and the document that describes them all."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from renderer.config import VERSION
from renderer.errors import StillreelError
from renderer.frontends.http import answers, schema
from renderer.frontends.http.bodies import Gone
from renderer.frontends.http.contract import Failed

log = logging.getLogger(__name__)

_BODIES = (schema.ImagesToVideoInput, schema.UploadRequest)
_REF = "#/components/schemas/{model}"


def build(routers: Iterable[APIRouter], faults: answers.Faults) -> FastAPI:
    """Return the app without its gate."""
    app = FastAPI(
        title="stillreel",
        version=VERSION,
        summary="Stills into an MP4, with exact frame counts",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for router in routers:
        app.include_router(router)
    describe = _describing(app)
    app.add_api_route("/openapi.json", lambda: JSONResponse(describe()), methods=["GET"], include_in_schema=False)

    @app.exception_handler(Failed)
    async def failed(_: Request, error: Failed) -> Response:
        return faults.answer(error.fault, error.document)

    @app.exception_handler(StillreelError)
    async def refused(_: Request, error: StillreelError) -> Response:
        return faults.answer(error.fault())

    @app.exception_handler(Gone)
    async def gone(_: Request, __: Gone) -> Response:
        return Response(status_code=499)  # for nobody

    @app.exception_handler(HTTPException)
    async def unrouted(_: Request, error: HTTPException) -> Response:
        kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return answers.error(error.status_code, str(error.detail), kind, error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, __: Exception) -> Response:
        return answers.error(500, "the server failed; its log says why", "internal_error")

    return app


def _describing(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the OpenAPI document once, with the models of bodies that the routes read themselves."""
    made: dict[str, Any] = {}

    def describe() -> dict[str, Any]:
        if not made:
            made.update(get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes))
            bodies: list[tuple[Any, Any]] = [(each, "validation") for each in _BODIES]
            _, definitions = models_json_schema(bodies, ref_template=_REF)
            made.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
            key = {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Key, a space, the key"}
            made["components"]["securitySchemes"] = {"key": key}
            made["security"] = [{"key": []}, {}]
        return made

    return describe
