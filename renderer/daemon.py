"""The daemon's life: start, serve, drain, stop.

Starting fails early and in words: the endpoint, the directories and the encoder are tried before the ready line. The
first SIGTERM, SIGINT or SIGHUP drains: no job is begun, those that run come to their end, and what waits is kept for
the next daemon. The second stops at once, and what ran is kept as well.

The daemon tells the service manager that requests are answered, and later that it is about to stop, by the protocol of
sd_notify(3): lines in one datagram to the socket that NOTIFY_SOCKET names, where `@` stands for the zero byte that an
abstract address begins with. Without that variable nothing is sent.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from protocol.schema import Health
from renderer.config import Settings, render_settings
from renderer.disk import absolute, keep_fresh
from renderer.encode.nvenc.findings import with_gpus_tested
from renderer.errors import ConfigError, StillreelError
from renderer.frontends.http.webhooks import Webhooks
from renderer.frontends.intake import Intake
from renderer.frontends.job_log import JobLogReader
from renderer.frontends.zmq.curve import CurveRing
from renderer.frontends.zmq.server import ZmqServer
from renderer.jobs.data_dir import STORE_NAME, daemon_id, data_dir, held, scratch, shut, shut_socket
from renderer.jobs.engine import Engine
from renderer.jobs.outcome import Places
from renderer.jobs.retention import Retention
from renderer.jobs.slots.local import local_slots
from renderer.jobs.slots.ray import joined
from renderer.jobs.slots.remote import Terms
from renderer.jobs.start import check, say_if_descriptors_are_few, stopping_signals
from renderer.jobs.stills import KeptStills
from renderer.jobs.store import JobStore
from renderer.net.addresses import Guard
from renderer.observe import descriptors
from renderer.observe.descriptors import repeatedly
from renderer.observe.job_log import JobLogs, WorkerLog, below
from renderer.observe.metrics import Snapshot
from renderer.processes import adopt_orphans, end_orphans
from renderer.version import VERSION
from renderer.work import NvencFindings

log = logging.getLogger(__name__)

_VARIABLE: Final = "NOTIFY_SOCKET"
_SEND_S: Final = 2.0  # a manager that does not read must not hold the daemon up


class ServiceManager:
    """The program that started this process and waits for its messages, such as systemd."""

    def __init__(self) -> None:
        """Take the address out of the environment: the processes that this one starts must not write to it."""
        self._address = os.environ.pop(_VARIABLE, "")

    def tell(self, state: str, words: str) -> None:
        """Say a state, such as `READY=1`, and what `systemctl status` shows beside it."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(_SEND_S)
                sending.sendto(f"{state}\nSTATUS={words}".encode(), address)
        except OSError as error:
            log.warning(
                "%s could not be sent to the service manager: %s", state, error, extra={"action": "not_notified"}
            )


if TYPE_CHECKING:
    from renderer.frontends.http.app import HttpDoor
    from renderer.frontends.spool.door import Spool
    from renderer.observe.prometheus import PrometheusMetrics
    from renderer.observe.scrape import MetricsServer


_GAUGES_S = 1.0
_ORPHANS_S = 10.0
_FRESH_S = 3600.0  # systemd-tmpfiles waits for ten days in /tmp, others for one
_HTTP_CLOSE_S = 8.0
_NO_NODE: Final = "no machine that renders for this daemon has a GPU's encoder now"
Part = Callable[[], Coroutine[Any, Any, None]]


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the daemon until a signal stops it.

    Args:
        announce: gets one line when requests are answered: where, the ZeroMQ endpoint first.

    Raises:
        ConfigError: it cannot start; the message says which setting to change.
    """
    check(settings)
    settings, gpus = with_gpus_tested(settings)
    adopt_orphans()
    with held(data_dir(settings.server)) as data, scratch(data) as sockets:
        store = JobStore(data / STORE_NAME)
        spool = absolute(settings.spool.directory, "spool.directory") if settings.spool.directory else None
        secret = (settings.http.tls_key,) if settings.http.tls_key else ()
        stills = KeptStills(data / "stills", settings.retention, settings.engine.min_free_bytes)
        places = Places(data / "outputs", data / "attachments", data / "logs", sockets, spool, secret, stills)
        try:
            shut(data, spool)
            stills.begin()
            with JobLogs(below(places.logs)):
                asyncio.run(_Daemon(settings, gpus, store, places, data).run(announce))
        finally:
            store.close()


def _look_for_orphans() -> None:
    """End the processes that workers have left; on the loop only, since two calls at once could disturb each other."""
    try:
        end_orphans()
    except OSError as error:
        if not descriptors.is_why(error):
            raise


async def _end_orphans() -> None:
    """End the processes that workers have left, every few seconds: no signal reports an orphan that is alive."""

    async def look() -> None:
        _look_for_orphans()

    await repeatedly("ending what workers have left", look, _ORPHANS_S)


class _Daemon:
    def __init__(
        self,
        settings: Settings,
        gpus: NvencFindings,
        store: JobStore,
        places: Places,
        data_dir: Path,
    ) -> None:
        self._settings = settings
        self._gpus = gpus
        self._store = store
        self._places = places
        self._data_dir = data_dir
        self._drain = asyncio.Event()
        self._stop = asyncio.Event()
        self._manager = ServiceManager()

    async def run(self, announce: Callable[[str], None]) -> None:
        settings = self._settings
        level = logging.getLogger().level
        worker_log = WorkerLog(level, settings.observe.log_format, self._places.logs)
        render, metrics = render_settings(settings, self._gpus), self._counts()
        reach = self._places.reach(render)
        open_slot = local_slots(settings.engine, reach, metrics=metrics, worker_log=worker_log)
        cluster = await joined(Terms(settings.engine, worker_log, reach))
        engine = Engine(
            settings.engine,
            render,
            self._store,
            self._places,
            open_slot if "local" in settings.engine.slots else None,
            elsewhere=cluster,
            metrics=metrics,
            tries_holds=True,
        )
        gpus = self._gpus if "local" in settings.engine.slots else NvencFindings(reason=_NO_NODE)
        callees = Guard(settings.webhooks.allow_networks, setting="webhooks.allow_networks")
        intake = Intake(
            settings.limits,
            settings.fetch,
            engine,
            self._places.attachments,
            gpus,
            callees=callees,
            outputs=settings.outputs.allow_objects,
        )
        ring, logs = CurveRing(self._data_dir), JobLogReader(self._places.logs)
        server = ZmqServer(settings.server, engine, intake, ring, logs)
        for endpoint in server.endpoints:
            shut_socket(self._data_dir, endpoint)
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(descriptors.pass_on)
        for signum in stopping_signals():
            loop.add_signal_handler(signum, self._on_signal)
        loop.add_signal_handler(signal.SIGCHLD, _look_for_orphans)
        http, spool = self._http(engine, intake, server), self._spool(engine, intake)
        addresses = [*server.endpoints, *(http.addresses if http else [])]
        keeping = Retention(settings.retention, self._store, self._places)
        parts: list[Part] = [engine.run, keeping.run, server.serve, _end_orphans, descriptors.watch, self._keep_fresh]
        parts += [spool.serve] if spool else []
        parts += [Webhooks(settings, self._data_dir, engine, self._store.hooks).run]
        async with self._scraped(metrics, engine, spool) as port:  # the last part of the start that may fail
            self._say_start(addresses, engine.health(), port)
            await self._take_up(engine, spool)

            def ready() -> None:
                announce(f"stillreel {VERSION} ready on {', '.join(addresses)}")
                self._manager.tell("READY=1", f"ready on {', '.join(addresses)}")

            await self._serve(engine, server, http, parts, ready)
        log.info("stopped", extra={"action": "stop"})

    async def _take_up(self, engine: Engine, spool: "Spool | None") -> None:
        """Go on where an earlier daemon has stopped."""
        say_if_descriptors_are_few(self._settings)
        try:
            engine.recover()
        except StillreelError as error:
            raise ConfigError(f"server.data_dir: the jobs of the store could not be taken up: {error}") from error
        if spool:
            await spool.adopt()

    async def _serve(
        self,
        engine: Engine,
        server: ZmqServer,
        http: "HttpDoor | None",
        parts: Sequence[Part],
        ready: Callable[[], None],
    ) -> None:
        """Run all parts until a signal comes, then drain."""
        settings = self._settings
        async with asyncio.TaskGroup() as tasks:
            serving = [tasks.create_task(self._lasting(part)) for part in parts]
            answering = [tasks.create_task(self._lasting(http.serve))] if http else []
            ready()
            await self._drain.wait()
            self._manager.tell("STOPPING=1", "draining: jobs that run come to their end")
            words = "draining: jobs that run get up to %g s to end, others are kept; a second signal stops at once"
            log.info(words, settings.server.drain_timeout_s, extra={"action": "drain"})
            draining = tasks.create_task(engine.drain(settings.server.drain_timeout_s))
            stopping = tasks.create_task(self._stop.wait())
            await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await engine.hand_back()
            if http:
                http.close()
                await asyncio.wait(answering, timeout=_HTTP_CLOSE_S)
            await server.close()
            for task in (draining, stopping, *answering, *serving):
                task.cancel()

    def _say_start(self, addresses: Sequence[str], health: Health, port: "MetricsServer | None") -> None:
        """Write the first line of the log, with the facts that a reader of the other lines needs."""
        words = "stillreel %s listens on %s; data directory %s; encoder %s%s"
        verdict = health.encoder + (f" ({health.encoder_reason})" if health.encoder_reason else "")
        metrics = f"http://{port.address}/metrics" if port else None
        extra = {
            "action": "start",
            "version": VERSION,
            "addresses": list(addresses),
            "data_dir": str(self._data_dir),
            "metrics": metrics,
            "encoder": health.encoder,
            "encoder_reason": health.encoder_reason,
        }
        at = f"; metrics at {metrics}" if metrics else ""
        log.info(words, VERSION, ", ".join(addresses), self._data_dir, verdict, at, extra=extra)

    async def _lasting(self, part: Part) -> None:
        """Run a part that ends with the daemon only.

        Raises:
            RuntimeError: it has ended too early. This and any exception of its own end the daemon.
        """
        try:
            await part()
        except Exception:
            log.exception("a part of the daemon failed, so the daemon stops", extra={"action": "stop"})
            raise
        if not self._drain.is_set():
            raise RuntimeError(f"{part.__qualname__} has ended, and the daemon cannot go on without it")

    async def _keep_fresh(self) -> None:
        """Keep sockets and workers' directories from being tidied away; without them no worker could be begun."""
        look = partial(asyncio.to_thread, keep_fresh, self._places.scratch)
        await repeatedly("keeping temporary files", look, _FRESH_S)

    def _spool(self, engine: Engine, intake: Intake) -> "Spool | None":
        """Return the manifest directory's door, if there is one."""
        settings = self._settings
        if settings.spool.directory is None:
            return None
        from renderer.frontends.spool.door import Spool  # noqa: PLC0415 - what watches directories is for this door alone

        known = daemon_id(self._data_dir)
        return Spool(settings.spool, engine, intake, daemon_id=known, workers=settings.engine.workers)

    def _counts(self) -> "PrometheusMetrics | None":
        """Return what counts, if anybody can read it."""
        if self._settings.observe.metrics is None and not self._has_http:
            return None
        from renderer.observe.prometheus import PrometheusMetrics  # noqa: PLC0415 - 2 MB that others do not need

        return PrometheusMetrics()

    @contextlib.asynccontextmanager
    async def _scraped(
        self, metrics: "PrometheusMetrics | None", engine: Engine, spool: "Spool | None"
    ) -> "AsyncIterator[MetricsServer | None]":
        """Answer scrapes, on a port and threads of their own if that is wished for; the HTTP door has them as well.

        The gauges are read on this loop, once a second.
        """
        if metrics is None:
            yield None
            return
        from renderer.observe.scrape import MetricsServer  # noqa: PLC0415 - as for the metrics

        address = self._settings.observe.metrics
        began = time.monotonic()
        seen: list[Snapshot | None] = [None]

        async def look() -> None:
            seen[0] = None  # old figures are worse than none
            claims, backlog = (spool.claims, spool.unclaimed) if spool else (None, None)
            seen[0] = engine.snapshot(time.monotonic() - began, claims, backlog)

        metrics.watch(lambda: seen[0])
        metrics.watch_processes()
        with contextlib.ExitStack() as open_port:
            port = open_port.enter_context(MetricsServer(metrics, address)) if address else None
            looking = asyncio.create_task(repeatedly("reading the gauges", look, _GAUGES_S))
            try:
                yield port
            finally:
                looking.cancel()

    @property
    def _has_http(self) -> bool:
        http = self._settings.http
        return http.bind is not None or http.tls_bind is not None

    def _http(self, engine: Engine, intake: Intake, server: ZmqServer) -> "HttpDoor | None":
        """Return the HTTP door, bound, if there is one."""
        settings = self._settings
        if not self._has_http:
            return None
        from renderer.frontends.http.app import HttpDoor  # noqa: PLC0415 - FastAPI takes 300 ms that others do not need

        return HttpDoor(settings, self._data_dir, engine, intake, zmq=server)

    def _on_signal(self) -> None:
        if self._drain.is_set():
            self._stop.set()
        self._drain.set()
