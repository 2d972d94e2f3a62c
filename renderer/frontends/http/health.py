"""What others may know about the daemon: /livez, /readyz, /metrics, and the public key for its webhooks."""

from typing import Final

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from protocol.schema import Health
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.schema import Described
from renderer.frontends.http.webhooks import Signer
from renderer.jobs.engine import Engine

_NOT_READY: Final[Described] = {
    200: {"model": Health},
    503: {"model": Health, "description": "No request would be accepted now; `reasons` says why"},
}
_NUMBERS: Final[Described] = {200: {"content": {"text/plain": {}}, "description": "For Prometheus"}}


class HealthRoutes:
    """Answers probes and scrapes."""

    def __init__(self, engine: Engine, signer: Signer) -> None:
        self._engine = engine
        self._signer = signer
        self.routes = Routes("health")
        self.routes.add("GET", "/livez", self.live, {})
        self.routes.add("GET", "/readyz", self.ready, _NOT_READY)
        self.routes.add("GET", "/metrics", self.metrics, _NUMBERS)
        self.routes.add("GET", "/.well-known/jwks.json", self.keys, {})

    async def live(self) -> Response:
        """Answer while the daemon is running."""
        return JSONResponse({"live": True})

    async def ready(self) -> Response:
        """Return whether a request would be accepted now."""
        health = self._engine.health()
        return JSONResponse(health.model_dump(mode="json"), 200 if health.ready else 503)

    async def keys(self) -> Response:
        """Return the public key that verifies webhooks."""
        return JSONResponse(self._signer.key_set(), headers={"cache-control": "public, max-age=3600"})

    async def metrics(self) -> Response:
        """Return the metrics in Prometheus' format."""
        text = await anyio.to_thread.run_sync(self._engine.metrics.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)
