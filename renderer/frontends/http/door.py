"""The HTTP door as the daemon sees it: made of its parts, open, served, closed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderer.config import Settings
from renderer.frontends.http import app as app_of_routes
from renderer.frontends.http.answers import Faults
from renderer.frontends.http.bodies import Bodies
from renderer.frontends.http.contract import Contract, Parts, Polled
from renderer.frontends.http.files import Files
from renderer.frontends.http.gate import Gate
from renderer.frontends.http.health import Standing
from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.page import Page
from renderer.frontends.http.schema import About
from renderer.frontends.http.server import Listeners
from renderer.frontends.http.signing import Signer
from renderer.frontends.http.storage import Storage
from renderer.frontends.http.tokens import Tokens
from renderer.frontends.http.uploads import Uploads
from renderer.frontends.job_log import JobLogReader
from renderer.intake import Intake
from renderer.jobs.engine import Engine

Examine = Callable[[], Sequence[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class ZmqAddress:
    """Where the ZeroMQ door is, and whether its first endpoint asks for CURVE keys."""

    endpoints: Sequence[str]
    asks_for_keys: bool


class HttpDoor:
    """Answers HTTP and HTTPS over the same engine as the other doors."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        engine: Engine,
        intake: Intake,
        *,
        zmq: ZmqAddress,
        examine: Examine,
    ) -> None:
        """Bind the ports.

        Args:
            zmq: where else this daemon answers, for the page.
            examine: says what works on this machine; called on a thread.

        Raises:
            ConfigError: an address, a certificate or a file of the data directory does not allow to begin.
        """
        keys = KeyRing(data_dir, settings.http.key_file)
        self._listeners = Listeners(settings.http, data_dir, has_keys=bool(keys.keys))
        try:
            tokens = Tokens(data_dir)
            self._uploads = Uploads(data_dir / "uploads", settings.retention)
            self._closing = asyncio.Event()
            bodies = Bodies(settings.http.max_body_bytes, settings.limits.max_images)
            faults = Faults(settings.fetch, settings.pictures)
            logs = JobLogReader(data_dir / "logs")
            contract = Contract(Parts(engine, intake, bodies, faults, logs, tokens, self._uploads, self._closing))
            storage = Storage(self._uploads, tokens, bodies, settings.fetch.max_image_bytes)
            files = Files(engine, tokens, self._uploads)
            about = _about(settings, engine, zmq, self._listeners.addresses)
            page = Page(engine, about, logs, examine, self._closing)
            standing = Standing(engine, engine.metrics, Signer(data_dir))
            routers = [part.routes for part in (contract, storage, files, standing, page)]
            needs_key = self._listeners.is_open_to_others
            app = Polled(app_of_routes.build(routers, faults), contract)
            self._app = Gate(app, settings.http, keys, tokens, always_needs_key=needs_key)
        except BaseException:
            self._listeners.abandon()
            raise

    @property
    def addresses(self) -> list[str]:
        return self._listeners.addresses

    async def serve(self) -> None:
        """Answer until `close`, then let what is being answered come to its end."""
        sweeping = asyncio.create_task(self._uploads.run())
        try:
            await self._listeners.serve(self._app)
        finally:
            sweeping.cancel()

    def close(self) -> None:
        """Take nothing new; `serve` ends soon."""
        self._closing.set()
        self._listeners.close()


def _about(settings: Settings, engine: Engine, zmq: ZmqAddress, addresses: Sequence[str]) -> About:
    """Return what the page may offer: a daemon that runs has libx264, for it was tried before it began."""
    return About(
        max_image_bytes=settings.fetch.max_image_bytes,
        max_images=settings.limits.max_images,
        encoders=["auto", *dict.fromkeys([engine.health().encoder, "libx264"])],
        zmq=list(zmq.endpoints),
        zmq_needs_key=zmq.asks_for_keys,
        https=next((address for address in addresses if address.startswith("https://")), None),
    )
