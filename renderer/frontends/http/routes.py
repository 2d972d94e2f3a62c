"""The routes of the HTTP door: Starlette serves them, and FastAPI describes them when a client asks for OpenAPI.

FastAPI makes the OpenAPI document from the same table. Importing it takes a third of a second and 20 MB, which most
daemons never need, and it takes twice as long as Starlette to find a route.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from renderer.frontends.http.schema import Described

Endpoint = Callable[..., Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class _Described:
    """One route as FastAPI's `add_api_route` takes it."""

    path: str
    endpoint: Endpoint
    options: dict[str, Any]


class Routes:
    """The routes of one part of the door, in order."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self._all: list[_Described] = []

    def add(self, method: str, path: str, endpoint: Endpoint, described: Described | None = None, **more: Any) -> None:
        """Add a route.

        Args:
            endpoint: called with the parts of the path and the query that it has parameters for, as text, and with the
                request if it has a parameter for that.
            described: its responses; a route without them is left out of the OpenAPI document.
            more: what else FastAPI's `add_api_route` takes, for the OpenAPI document alone.
        """
        options = {"responses": described, "include_in_schema": described is not None, "response_model": None}
        self._all.append(_Described(path, endpoint, {"methods": [method], **options, **more}))

    def answered(self) -> list[Route]:
        """Return them as routes of Starlette."""
        return [_answered(route.path, route.endpoint, route.options["methods"]) for route in self._all]

    def described(self) -> Any:
        """Return them as a router of FastAPI."""
        from fastapi import APIRouter  # noqa: PLC0415 - for those who ask for the document alone

        router = APIRouter(tags=[self.tag])
        for route in self._all:
            router.add_api_route(route.path, route.endpoint, **route.options)
        return router


def _answered(path: str, endpoint: Endpoint, methods: Sequence[str]) -> Route:
    names = list(inspect.signature(endpoint).parameters)

    async def answer(request: Request) -> Response:
        given = {**request.query_params, **request.path_params, "request": request}
        return await endpoint(**{name: given[name] for name in names if name in given})

    route = Route(path, answer)
    route.methods = set(methods)  # else a GET would answer HEAD as well
    return route


def document(routes: Iterable[Routes], *, title: str, version: str, summary: str) -> dict[str, Any]:
    """Return the OpenAPI document of the routes."""
    from fastapi.openapi.utils import get_openapi  # noqa: PLC0415 - as above

    described = [route for each in routes for route in each.described().routes]
    return get_openapi(title=title, version=version, summary=summary, routes=described)
