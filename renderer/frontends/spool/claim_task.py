"""The work on one claim: its manifest is read and submitted, and the claim is moved to `done` or `failed`.

A manifest only fails for reasons of its own: if the queue or the disk is full or the daemon is stopping, the task
waits. Nothing is lost if the daemon dies, because the claim is on disk and its job is in the store, so the next daemon
continues with both.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from protocol.objects import is_object
from protocol.schema import Fault, RenderRequest, RenderResult
from renderer.errors import BackendError, CapacityError, InvalidRequest, JobNotFound, OutputFailed, StillreelError
from renderer.frontends.intake import Door, Intake
from renderer.frontends.spool import layout
from renderer.frontends.spool.claim import Claims
from renderer.frontends.spool.incoming import read_fields
from renderer.frontends.spool.layout import Claim, Ending, has_files
from renderer.intake import parse_request
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job

log = logging.getLogger(__name__)

CLIENT = "spool"
_PAUSE_S, _PAUSE_MAX_S = 1.0, 30.0
_DEATHS_MAX = 2
_T = TypeVar("_T")


class _Lost(Exception):
    """Another daemon has taken the claim over."""


@dataclass(frozen=True, slots=True)
class SpoolContext:
    """What all claims of a daemon share.

    Attributes:
        turn: held while a manifest is read and submitted, so that jobs are queued in the order of their claims.
    """

    claims: Claims
    engine: Engine
    intake: Intake
    max_manifest_bytes: int
    turn: asyncio.Lock


class ClaimTask:
    """One claim and its progress; `run` it in a task of its own.

    Attributes:
        is_submitted: its job is in the queue.
        is_settling: it is being moved, so it is not lost if it cannot be found.
        is_over: it has ended, or is no longer ours.
    """

    def __init__(self, claim: Claim, spool: SpoolContext) -> None:
        self.claim = claim
        self.is_submitted = self.is_settling = self.is_over = False
        self._spool = spool

    @property
    def is_at_rest(self) -> bool:
        """Whether the claim is ours and stays where it is for now."""
        return not (self.is_settling or self.is_over)

    async def run(self) -> None:
        """Bring the claim to its end, whatever its manifest contains."""
        try:
            outcome = await self._outcome()
            if outcome:
                await self._patiently(partial(self._end, outcome))
        except _Lost:
            self.give_up()
        except Exception:
            log.exception("a claim could not be ended; the next start tries again", extra={"job": self.claim.job_id})

    def give_up(self) -> None:
        """Leave the claim to the daemon that has taken it over."""
        self.is_over = True
        self._tell(logging.WARNING, "lost", "another daemon has taken its manifest over")
        try:
            self._spool.engine.cancel(self.claim.job_id)
        except JobNotFound:
            pass  # it was not submitted yet
        except StillreelError as error:
            self._tell(logging.WARNING, "lost", "its job goes on although its result is not needed: %s", error)

    # The steps.

    async def _outcome(self) -> RenderResult | Fault | None:
        """Return what the manifest comes to; None if it no longer exists."""
        try:
            async with self._spool.turn:
                request = await self._patiently(self._take_in)
                self.is_submitted = request is not None
            if request:
                return await self._result(request)
            if await self._patiently(self._drop):
                return None
            missing = InvalidRequest("expected manifest.json, but it has disappeared", loc=("manifest",))
            return missing.fault()
        except StillreelError as error:
            return error.fault()
        except _Lost:
            raise
        except Exception:
            log.exception("a manifest failed unexpectedly", extra={"job": self.claim.job_id})
            return Fault(type="internal_error", message="the server failed; its log says why")

    async def _take_in(self) -> RenderRequest | None:
        """Read the manifest and submit its job, with a note on disk meanwhile, as reading it may kill the daemon."""
        deaths = await asyncio.to_thread(layout.deaths, self.claim)
        if deaths >= _DEATHS_MAX:
            raise InvalidRequest(
                f"expected a manifest that can be read; the daemon died {_DEATHS_MAX} times while it read this one, "
                "and does not try again",
                loc=("manifest",),
            )
        await asyncio.to_thread(layout.note_deaths, self.claim, deaths + 1)
        try:
            request = await asyncio.to_thread(self._read)
            if request:
                await self._submit(request)
            return request
        finally:
            await asyncio.to_thread(layout.note_deaths, self.claim, 0)

    def _read(self) -> RenderRequest | None:
        most = self._spool.intake.max_images
        try:
            return parse_request(read_fields(self.claim.manifest, self._spool.max_manifest_bytes, most), most)
        except FileNotFoundError:
            return None

    async def _drop(self) -> bool:
        with self._settling():
            if not await asyncio.to_thread(self._spool.claims.drop, self.claim):
                return False
            self.is_over = True
        self._tell(logging.INFO, "dropped", "%r disappeared before it was read", self.claim.name)
        return True

    async def _result(self, request: RenderRequest) -> RenderResult | Fault:
        while True:
            try:
                job = await self._patiently(partial(self._spool.engine.finished, self.claim.job_id))
                break
            except JobNotFound:
                self._tell(
                    logging.WARNING, "resubmitted", "its result expired before it was read; it is rendered again"
                )
                await self._patiently(partial(self._submit, request))
        outcome = job.outcome
        if isinstance(outcome, Fault):
            return outcome
        if not isinstance(outcome, RenderResult):
            raise OutputFailed("another request has the id of this manifest")
        if not job.is_object and not await asyncio.to_thread(has_files, self.claim, outcome.files().values()):
            raise OutputFailed("the video disappeared before it was handed over, or a picture beside it did")
        return outcome.model_copy(update={"request_id": request.request_id or self.claim.id})

    async def _submit(self, request: RenderRequest) -> Job:
        """Return the claim's job, which an earlier process may have submitted."""
        claim = self.claim
        if not await asyncio.to_thread(self._spool.claims.is_ours, claim):
            raise _Lost
        try:
            return self._spool.engine.job(claim.job_id)
        except JobNotFound:
            return await self._spool.intake.accept(request, Door(CLIENT, claim.job_id, claim.base, claim.output))

    async def _end(self, outcome: RenderResult | Fault) -> None:
        """Move the claim; a move that has begun is always finished, so that its outcome is known."""
        moving = asyncio.create_task(self._move(outcome))
        try:
            await asyncio.shield(moving)
        except asyncio.CancelledError:
            await asyncio.gather(moving, return_exceptions=True)
            raise

    async def _move(self, outcome: RenderResult | Fault) -> None:
        ending: Ending = "failed" if isinstance(outcome, Fault) else "done"
        with self._settling():
            end = await asyncio.to_thread(self._spool.claims.finish, self.claim, ending, partial(_report, outcome))
            if end is None:
                raise _Lost
            self.is_over = True
        self._tell(logging.INFO, "moved", "%r is in %s", end.name, ending)
        self._spool.engine.metrics.manifest_ended(ending)
        if ending == "done":
            self._spool.engine.relocate(self.claim.job_id, end)

    # Shared by the steps.

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat an attempt until it is not hindered by anything but the manifest itself."""
        pause_s = _PAUSE_S
        while True:
            try:
                return await attempt()
            except (OSError, CapacityError, BackendError) as error:
                self._tell(logging.WARNING, "waits", "tried again in %g s: %s", pause_s, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)

    @contextlib.contextmanager
    def _settling(self) -> Iterator[None]:
        self.is_settling = True
        try:
            yield
        finally:
            self.is_settling = False

    def _tell(self, level: int, action: str, words: str, *values: object) -> None:
        log.log(level, words, *values, extra={"job": self.claim.job_id, "action": action})


def _report(outcome: RenderResult | Fault, end: Path) -> str:
    if isinstance(outcome, RenderResult) and not is_object(outcome.video.url):
        outcome = outcome.with_urls(lambda file: (end / file.file_name).as_uri())
    return outcome.model_dump_json(indent=2) + "\n"
