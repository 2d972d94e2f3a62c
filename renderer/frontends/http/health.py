"""What others may know of the daemon: /livez, /readyz, /metrics, and the key that it signs webhooks with."""

from typing import Any, Final

import anyio.to_thread
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, Response

from protocol.schema import Health
from renderer.frontends.http.routes import Routes
from renderer.frontends.http.webhooks import Signer
from renderer.jobs.engine import Engine
from renderer.observe.metrics import Metrics

_NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": Health},
    503: {"model": Health, "description": "No request would be accepted now; `reasons` says why"},
}
_NUMBERS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/plain": {}}, "description": "For Prometheus"}
}


class HealthRoutes:
    """Answers to probes and scrapes."""

    def __init__(self, engine: Engine, metrics: Metrics, signer: Signer) -> None:
        self._engine = engine
        self._metrics = metrics
        self._signer = signer
        self.routes = Routes("health")
        for path, endpoint, described in (
            ("/livez", self.live, {}),
            ("/readyz", self.ready, _NOT_READY),
            ("/metrics", self.metrics, _NUMBERS),
            ("/.well-known/jwks.json", self.keys, {}),
        ):
            self.routes.add(path, endpoint, "GET", responses=described)

    async def live(self) -> Response:
        """Answer as long as the daemon lives."""
        return JSONResponse({"live": True})

    async def ready(self) -> Response:
        """Say whether a request would be accepted now."""
        health = self._engine.health()
        return JSONResponse(health.model_dump(mode="json"), 200 if health.ready else 503)

    async def keys(self) -> Response:
        """Return the public key that webhooks are signed with."""
        return JSONResponse(self._signer.key_set(), headers={"cache-control": "public, max-age=3600"})

    async def metrics(self) -> Response:
        """Return what is counted, as Prometheus reads it."""
        text = await anyio.to_thread.run_sync(generate_latest, self._metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)
