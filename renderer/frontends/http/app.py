"""The HTTP door that the daemon runs, and its app: the routes, the answers to errors, and the OpenAPI document."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from renderer.config import Settings
from renderer.errors import StillreelError
from renderer.frontends.http import responses, schema
from renderer.frontends.http.contract import Contract, Failed, Polled
from renderer.frontends.http.files import Files
from renderer.frontends.http.gate import Gate
from renderer.frontends.http.health import HealthRoutes
from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.links import Tokens
from renderer.frontends.http.page import Page
from renderer.frontends.http.reading import Bodies, Gone
from renderer.frontends.http.responses import Faults
from renderer.frontends.http.routes import Routes, document
from renderer.frontends.http.schema import About
from renderer.frontends.http.server import Listeners
from renderer.frontends.http.uploads import Storage, Uploads
from renderer.frontends.http.webhooks import Signer
from renderer.frontends.intake import Intake
from renderer.frontends.job_log import JobLogReader
from renderer.jobs.engine import Engine
from renderer.version import VERSION

if TYPE_CHECKING:
    from renderer.frontends.zmq.server import ZmqServer

log = logging.getLogger(__name__)

_BODIES = (*(app.wanted for app in schema.APPS.values()), schema.UploadRequest)
_REF = "#/components/schemas/{model}"


def build(parts: Sequence[Routes], faults: responses.Faults) -> Starlette:
    """Return the app without the gate before it."""

    async def failed(_: Request, error: Failed) -> Response:
        return faults.answer(error.fault, error.document)

    async def refused(_: Request, error: StillreelError) -> Response:
        return faults.answer(error.fault())

    async def gone(_: Request, __: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it

    async def unrouted(_: Request, error: HTTPException) -> Response:
        kind = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return responses.error(error.status_code, str(error.detail), kind, error.headers)

    async def unforeseen(_: Request, __: Exception) -> Response:
        return responses.error(500, responses.FAILED, "internal_error")

    described = Routes("")
    described.add("GET", "/openapi.json", _describing(parts))
    handlers: dict[Any, Any] = {
        Failed: failed,
        StillreelError: refused,
        Gone: gone,
        HTTPException: unrouted,
        Exception: unforeseen,
    }
    app = Starlette(
        routes=[route for part in (*parts, described) for route in part.answered()], exception_handlers=handlers
    )
    app.router.redirect_slashes = False
    return app


def _describing(parts: Sequence[Routes]) -> Callable[[], Awaitable[Response]]:
    """Return an endpoint for the OpenAPI document, which is made once and on a thread, because that takes a while."""
    making = asyncio.Lock()
    made: list[dict[str, Any]] = []

    async def describe() -> Response:
        async with making:
            if not made:
                made.append(await asyncio.to_thread(_description, parts))
        return JSONResponse(made[0])

    return describe


def _description(parts: Sequence[Routes]) -> dict[str, Any]:
    """Return the OpenAPI document, with the models of bodies that the routes read themselves."""
    about = "Stills into an MP4, with exact frame counts"
    made = document(parts, title="stillreel", version=VERSION, summary=about)
    bodies: list[tuple[Any, Any]] = [(each, "validation") for each in _BODIES]
    _, definitions = models_json_schema(bodies, ref_template=_REF)
    made.setdefault("components", {}).setdefault("schemas", {}).update(definitions["$defs"])
    key = {"type": "apiKey", "in": "header", "name": "Authorization", "description": "Key, a space, the key"}
    made["components"]["securitySchemes"] = {"key": key}
    made["security"] = [{"key": []}, {}]
    return made


class HttpDoor:
    """Answers over HTTP and HTTPS, with the same engine as the other doors."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        engine: Engine,
        intake: Intake,
        *,
        zmq: "ZmqServer",
    ) -> None:
        """Bind the ports.

        Args:
            zmq: the daemon's ZeroMQ door, whose endpoints the page shows.

        Raises:
            ConfigError: an address, a certificate or a file of the data directory cannot be used.
        """
        keys = KeyRing(data_dir, settings.http.key_file)
        self._listeners = Listeners(settings.http, data_dir, has_keys=bool(keys.keys))
        try:
            tokens, fetch = Tokens(data_dir), settings.fetch
            self._uploads = Uploads(data_dir / "uploads", settings.retention)
            self._closing = asyncio.Event()
            bodies = Bodies(settings.http.max_body_bytes, settings.limits.max_images)
            faults = Faults(settings.fetch, settings.pictures)
            logs = JobLogReader(data_dir / "logs")
            contract = Contract(engine, intake, bodies, faults, logs, tokens, self._uploads, self._closing)
            most_bytes = max(fetch.max_image_bytes, fetch.max_audio_bytes, fetch.max_video_bytes)
            storage = Storage(self._uploads, tokens, bodies, most_bytes)
            files = Files(engine, tokens, self._uploads)
            about = _about(settings, engine, zmq, self._listeners.addresses)
            page = Page(engine, about, logs, settings, self._closing)
            standing = HealthRoutes(engine, Signer(data_dir))
            parts = [part.routes for part in (contract, storage, files, standing, page)]
            needs_key = self._listeners.is_open_to_others
            app = Polled(build(parts, faults), contract)
            self._app = Gate(app, settings.http, keys, tokens, always_needs_key=needs_key)
        except BaseException:
            self._listeners.abandon()
            raise

    @property
    def addresses(self) -> list[str]:
        return self._listeners.addresses

    async def serve(self) -> None:
        """Answer until `close`, then finish the answers that have begun."""
        sweeping = asyncio.create_task(self._uploads.run())
        try:
            await self._listeners.serve(self._app)
        finally:
            sweeping.cancel()

    def close(self) -> None:
        """Accept nothing new, and let `serve` end soon."""
        self._closing.set()
        self._listeners.close()


def _about(settings: Settings, engine: Engine, zmq: "ZmqServer", addresses: Sequence[str]) -> About:
    """Return what the page may offer; libx264 is there, because the daemon has tried it at its start."""
    return About(
        max_image_bytes=settings.fetch.max_image_bytes,
        max_audio_bytes=settings.fetch.max_audio_bytes,
        max_images=settings.limits.max_images,
        encoders=["auto", *dict.fromkeys([engine.health().encoder, "libx264"])],
        zmq=list(zmq.endpoints),
        zmq_needs_key=zmq.asks_for_keys,
        https=next((address for address in addresses if address.startswith("https://")), None),
    )
