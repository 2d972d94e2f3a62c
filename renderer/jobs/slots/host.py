"""A process that renders on a node: one slot, as a daemon has them on its own machine.

It is a child of the process in which Ray runs an attempt (ray_task.py), and ends with it, however that ends: a worker
is its child in turn, and an encoder the worker's. The process of Ray itself starts no worker, because multiprocessing
would import Ray's own program into each.

It gets the name of the node and the terms first, then one task after the other. It answers each with progress, and last
with the ending. While an attempt reports nothing, it sends the daemon a sign of life now and then.
"""

import asyncio
import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from protocol.schema import Progress
from renderer.config import RenderSettings, Settings
from renderer.disk import scratch_dir, write_failure
from renderer.encode.nvenc.findings import with_gpus_tested
from renderer.jobs.slots import finished
from renderer.jobs.slots.base import Ending, RenderTask, Slot
from renderer.jobs.slots.local import local_slots
from renderer.jobs.slots.progress import receiving
from renderer.jobs.slots.reach import Reach
from renderer.jobs.slots.remote import Alive, Peer, Terms
from renderer.observe.job_log import configure_worker
from renderer.work import RenderReport

_PROGRESS_S: Final = 0.25  # between two reports: every one travels through Ray, at a cost of milliseconds
_ALIVE_S: Final = 10.0


class _Host:
    def __init__(self, parent: Peer, node: str, terms: Terms) -> None:
        self._parent = parent
        self._node = node
        self._terms = terms
        self._slot: Slot
        self._fitted: RenderSettings  # the daemon's settings, with what was found here
        self._news: Progress | None = None

    async def serve(self) -> None:
        """Do one task after the other until the parent is gone."""
        with scratch_dir() as scratch, receiving(str(scratch / "progress"), self._hear):
            task: RenderTask = await self._parent.receive()
            self._slot = await self._opened(task.settings, str(scratch / "progress"))
            try:
                while True:
                    await self._attempt(_at_home(task, scratch))
                    task = await self._parent.receive()
            finally:
                await asyncio.to_thread(self._slot.close)

    async def _opened(self, settings: RenderSettings, address: str) -> Slot:
        """Find out what encodes here, which need not be what encodes on the daemon's machine, and open the slot."""
        terms = self._terms
        here = Settings(nvenc=settings.nvenc)
        tested, gpus = await asyncio.to_thread(with_gpus_tested, here)
        fitted = settings.model_copy(update={"nvenc": tested.nvenc, "gpus": gpus})
        reach = replace(terms.reach, settings=fitted) if terms.reach else None
        engine = terms.engine if reach else terms.engine.model_copy(update={"confine_workers": False})
        slot = local_slots(engine, reach or Reach(fitted), worker_log=terms.log)(address)
        if fitted.encode.hold_pictures and (refused := await slot.held_pictures_refusal(fitted.encode)):
            findings = {"hold_pictures": False, "hold_pictures_refusal": refused}
            fitted = fitted.model_copy(update={"encode": fitted.encode.model_copy(update=findings)})
        self._fitted = fitted
        return slot

    def _hear(self, _: str, progress: Progress) -> None:
        self._slot.heard()
        self._news = progress

    async def _attempt(self, task: RenderTask) -> None:
        telling = asyncio.create_task(self._tell())
        try:
            await self._slot.prepare()
            ending = await self._slot.run(replace(task, settings=self._fitted))
        finally:
            telling.cancel()
        if news := self._taken():
            self._parent.send(news)
        self._parent.send(await asyncio.to_thread(self._kept, task, ending))

    def _kept(self, task: RenderTask, ending: Ending) -> Ending:
        if not isinstance(ending, RenderReport) or not task.content:
            return ending
        try:
            return finished.keep(task, ending, self._node)
        except OSError as error:
            return write_failure(error.errno, error.strerror).fault()

    def _taken(self) -> Progress | None:
        news, self._news = self._news, None
        return news

    async def _tell(self) -> None:
        told_at = time.monotonic()
        while True:
            await asyncio.sleep(_PROGRESS_S)
            news = self._taken()
            if news or time.monotonic() - told_at > _ALIVE_S:
                self._parent.send(news or Alive())
                told_at = time.monotonic()


def _at_home(task: RenderTask, directory: Path) -> RenderTask:
    """Let a video that becomes an object be made in a directory of this node, where nobody has to look for it."""
    return replace(task, output=directory / task.output.name) if task.destination else task


async def _main() -> None:
    parent = await Peer.parent()
    with contextlib.suppress(EOFError):
        node, terms = await parent.receive()
        configure_worker(terms.log)
        await _Host(parent, node, terms).serve()


def main() -> None:
    """Run until the parent is gone."""
    asyncio.run(_main())
