"""Who waits at a connection for which job.

A job that was asked for by `run` belongs to the connections that wait for it: when the last of them is dropped, its
work is for nobody. It goes on if it was submitted as well, or was there before. A moment's grace lets a client that
lost its connection ask again under the same id.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Final

from starlette.types import Receive

from renderer.errors import JobNotFound, ShuttingDown, StillreelError
from renderer.jobs.engine import Engine
from renderer.jobs.job import Job

log = logging.getLogger(__name__)

_GRACE_S: Final = 0.4
_STORE_PAUSE_S: Final = 1.0


class Waiting:
    """Keeps the count, and cancels what nobody waits for any more; on the engine's loop."""

    def __init__(self, engine: Engine, waited_for: set[str]) -> None:
        """Begin with nobody who waits.

        Args:
            waited_for: the intake's note of the jobs that nobody else has asked for.
        """
        self._engine = engine
        self._connections: Counter[str] = Counter()
        self._waited_for = waited_for

    async def finished(self, job: Job, receive: Receive) -> Job | None:
        """Return the job when it has ended, or None when the client has hung up.

        Args:
            receive: the connection's, its body read to the end.

        Raises:
            ShuttingDown: the daemon stops before it can run.
        """
        with self._at(job.id):
            following = asyncio.ensure_future(self._engine.finished(job.id))
            hung_up = asyncio.ensure_future(_hang_up(receive))
            try:
                await asyncio.wait({following, hung_up}, return_when=asyncio.FIRST_COMPLETED)
                return following.result() if following.done() else None
            except ShuttingDown:
                self._waited_for.discard(job.id)  # for the next daemon, as its client is told
                raise
            finally:
                for task in (following, hung_up):
                    task.cancel()
                await asyncio.gather(following, hung_up, return_exceptions=True)

    @contextlib.contextmanager
    def _at(self, job_id: str) -> Iterator[None]:
        self._connections[job_id] += 1
        try:
            yield
        finally:
            self._connections[job_id] -= 1
            if self._connections[job_id] == 0:
                asyncio.get_running_loop().call_later(_GRACE_S, self._leave, job_id)

    def _leave(self, job_id: str) -> None:
        if self._connections[job_id] > 0:
            return
        self._connections.pop(job_id, None)
        if job_id in self._waited_for:
            self._cancel(job_id)

    def _cancel(self, job_id: str) -> None:
        try:
            self._engine.cancel(job_id)
        except JobNotFound:
            pass
        except StillreelError as error:
            log.warning("not cancelled yet: %s", error, extra={"job": job_id, "action": "not_cancelled"})
            asyncio.get_running_loop().call_later(_STORE_PAUSE_S, self._leave, job_id)
            return
        self._waited_for.discard(job_id)


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
