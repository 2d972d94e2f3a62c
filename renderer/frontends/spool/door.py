"""The manifest directory: what is renamed into `incoming` is rendered, and ends in `done` or `failed`.

One task looks for manifests, one renews our claims, and every claim has a task of its own. No more manifests are
claimed than fit into the queue, so several daemons can share a directory, and any of them may take what waits.
"""

import asyncio
import contextlib
import logging
from collections import deque

from watchfiles import Change, awatch

from renderer.config import SpoolSettings
from renderer.disk import absolute
from renderer.errors import ConfigError
from renderer.frontends.intake import Intake
from renderer.frontends.spool.claim import Claims
from renderer.frontends.spool.claim_task import CLIENT, ClaimTask, SpoolContext
from renderer.frontends.spool.incoming import Waiting
from renderer.frontends.spool.layout import Claim
from renderer.jobs.engine import Engine
from renderer.observe import descriptors
from renderer.observe.descriptors import repeatedly

log = logging.getLogger(__name__)

_DEBOUNCE_MS = 200
_WATCH_PAUSE_S = 1.0


class Spool:
    """The door for manifests, on the engine's loop."""

    def __init__(
        self, settings: SpoolSettings, engine: Engine, intake: Intake, *, daemon_id: str, workers: int
    ) -> None:
        """Prepare the directory.

        Args:
            daemon_id: names the data directory, as long as that exists.

        Raises:
            ConfigError: the directory cannot be used.
        """
        if settings.directory is None:
            raise ConfigError("spool.directory: expected a directory, found none")
        self._settings = settings
        self._engine = engine
        self._max_claims = settings.max_claims or 2 * workers
        self._claims = Claims(absolute(settings.directory, "spool.directory"), daemon_id, settings.lease_s)
        self._context = SpoolContext(self._claims, engine, intake, settings.max_manifest_bytes, asyncio.Lock())
        self._adopted: list[Claim] = []
        self._running: dict[ClaimTask, asyncio.Task[None]] = {}
        self._backlog: deque[Waiting] = deque()
        self.unclaimed = 0  # manifests in `incoming` when it was last read
        self._refused: set[str] = set()
        self._has_news = True
        self._wake = asyncio.Event()

    @property
    def claims(self) -> int:
        """How many manifests we have claimed."""
        return sum(not claimed.is_over for claimed in self._running)

    async def adopt(self) -> None:
        """Take back the claims of an earlier process of this daemon, and cancel the jobs of claims that it has lost.

        Call this after the engine has read its jobs and before it runs them.
        """
        self._adopted = await asyncio.to_thread(self._claims.adopt)
        kept = {claim.job_id for claim in self._adopted}
        for job in self._engine.unfinished(CLIENT):
            if job.id not in kept:
                log.warning("another daemon has taken its manifest over", extra={"job": job.id, "action": "lost"})
                self._engine.cancel(job.id)

    async def serve(self) -> None:
        """Claim, render and end manifests until cancelled; claims that are held then are kept for the next start."""
        loop = asyncio.get_running_loop()
        look_s = min(self._settings.rescan_s, self._settings.lease_s)
        look_at = 0.0
        async with asyncio.TaskGroup() as tasks:
            for claim in self._adopted:
                self._begin(tasks, claim)
            tasks.create_task(self._watch())
            tasks.create_task(self._renew())
            while True:
                self._wake.clear()
                try:
                    if loop.time() >= look_at:
                        look_at = loop.time() + look_s
                        await self._look_again(tasks)
                    await self._claim_what_fits(tasks)
                except OSError as error:
                    if not descriptors.is_why(error):
                        words = "the manifest directory cannot be used now: %s"
                        log.warning(words, error.strerror, extra={"action": "waits"})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(look_at):
                        await self._wake.wait()

    # Claiming.

    def _room(self) -> int:
        """Return how many more claims our limit and the queue allow, minus those that are not in the queue yet."""
        on_their_way = sum(not claimed.is_submitted and not claimed.is_over for claimed in self._running)
        return max(0, min(self._max_claims - self.claims, self._engine.room() - on_their_way))

    async def _look_again(self, tasks: asyncio.TaskGroup) -> None:
        """Look at everything again: a notice may be lost, and the death of a daemon causes none."""
        for claim in await asyncio.to_thread(self._claims.take_over, self._room()):
            log.warning("taken over: its owner is gone", extra={"job": claim.job_id, "action": "taken over"})
            self._begin(tasks, claim)
        await self._read_incoming()

    async def _claim_what_fits(self, tasks: asyncio.TaskGroup) -> None:
        while self._room() and (found := await self._next()):
            try:
                claim = await asyncio.to_thread(self._claims.claim, found)
            except PermissionError as error:  # the others may still be claimed
                if found.entry not in self._refused:
                    self._refused.add(found.entry)
                    log.warning("%r cannot be claimed: %s", found.entry, error.strerror, extra={"action": "refused"})
                continue
            self.unclaimed -= 1
            if claim:
                self._begin(tasks, claim)

    async def _next(self) -> Waiting | None:
        """Return the oldest waiting manifest. The directory is read when it has changed, not for every manifest."""
        if not self._backlog and self._has_news:
            await self._read_incoming()
        return self._backlog.popleft() if self._backlog else None

    async def _read_incoming(self) -> None:
        self._has_news = False  # a manifest that arrives meanwhile sets it again
        found = await asyncio.to_thread(self._claims.waiting)
        self._backlog, self.unclaimed = deque(found), len(found)
        self._refused &= {waiting.entry for waiting in found}

    async def _watch(self) -> None:
        """Watch `incoming` for arrivals; where that is not possible, it is only read again from time to time."""
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would log every change
        incoming = self._claims.incoming
        while True:
            try:
                async for _ in awatch(incoming, watch_filter=_is_arrival, debounce=_DEBOUNCE_MS, recursive=False):
                    self._hear()
            except (OSError, RuntimeError, UnicodeError) as error:  # a limit on watches, or a path that is not UTF-8
                words = "incoming cannot be watched and is read every %g s instead: %s"
                log.warning(words, self._settings.rescan_s, error, extra={"action": "not watched"})
                return
            except ExceptionGroup as group:  # it has failed in its thread, for example over a name that is not UTF-8
                log.info("incoming is watched again: %r", group.exceptions[0], extra={"action": "watched anew"})
            await asyncio.sleep(_WATCH_PAUSE_S)
            self._hear()

    def _hear(self) -> None:
        self._has_news = True
        self._wake.set()

    # Holding.

    def _begin(self, tasks: asyncio.TaskGroup, claim: Claim) -> None:
        claimed = ClaimTask(claim, self._context)
        log.info("claimed %r", claim.name, extra={"job": claim.job_id, "action": "claimed"})
        self._running[claimed] = task = tasks.create_task(claimed.run())
        task.add_done_callback(lambda _: self._forget(claimed))

    def _forget(self, claimed: ClaimTask) -> None:
        del self._running[claimed]
        self._wake.set()

    async def _renew(self) -> None:
        pause_s = self._settings.lease_s / 3
        await asyncio.sleep(pause_s)
        await repeatedly("renewing the claims", self._renew_once, pause_s)

    async def _renew_once(self) -> None:
        held = {claimed.claim: claimed for claimed in self._running if claimed.is_at_rest}
        for claim in await asyncio.to_thread(self._claims.renew, list(held)):
            claimed = held[claim]
            if claimed in self._running and claimed.is_at_rest:  # it may have changed during the renewal
                claimed.give_up()
                self._running[claimed].cancel()


def _is_arrival(change: Change, _: str) -> bool:
    return change is not Change.deleted  # our own claims cause deletions
