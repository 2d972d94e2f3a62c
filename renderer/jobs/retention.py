"""The removal of finished jobs, their videos and logs: the oldest first, after a time or when there are too many.

Files are removed before the store forgets them, so that a kill in between leaves no file that the store does not know.
Every removal has a line in the log.
"""

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Collection
from dataclasses import replace

from renderer.config import RetentionSettings
from renderer.errors import StillreelError
from renderer.jobs.job import Job
from renderer.jobs.outcome import Places
from renderer.jobs.store import JobStore
from renderer.observe.descriptors import repeatedly

log = logging.getLogger(__name__)

_SWEEP_S = 60
_AT_ONCE = 100


class Retention:
    """Removes what is too old or too large; on the engine's loop."""

    def __init__(self, settings: RetentionSettings, store: JobStore, places: Places) -> None:
        self._settings = settings
        self._store = store
        self._places = places

    async def run(self) -> None:
        """Sweep once a minute until cancelled; a sweep that fails is tried again."""
        with contextlib.suppress(OSError, StillreelError):
            await self._remove_orphan_logs(time.time())
        await repeatedly("retention", lambda: self.sweep(time.time()), _SWEEP_S)

    async def sweep(self, now: float) -> None:
        """Remove the videos and the answers whose time is over at `now` (Unix seconds), and what ended jobs have left.

        Raises:
            OSError: a video could not be removed, and the store still knows of it.
        """
        await self._clean_again()
        too_much = self._store.video_bytes() - self._settings.outputs_bytes
        while job := self._store.oldest_with_video():
            is_old = (job.finished_at or now) < now - self._settings.outputs_s
            if not is_old and too_much <= 0:
                break
            too_much -= job.video_bytes
            await self._remove_video(job, "too old" if is_old else "too much is kept")
        while jobs := self._surplus(now):
            for job in jobs:
                await self._forget(job)
        if self._places.stills:
            await asyncio.to_thread(self._places.stills.bound)

    async def _clean_again(self) -> None:
        """Remove what could not be removed when its job ended; a job that is forgotten may have its id from another."""
        for job_id in list(self._places.uncleaned):
            job = self._store.get(job_id)
            if job and job.is_finished:
                await asyncio.to_thread(self._places.clean, job)
            else:
                self._places.uncleaned.discard(job_id)

    def _surplus(self, now: float) -> Collection[Job]:
        """Return some of the jobs whose answers are too old or too many; only a few at once, to spare the loop."""
        old = self._store.finished_before(now - self._settings.results_s, _AT_ONCE)
        return old or self._store.finished_beyond(self._settings.results, _AT_ONCE)

    async def _remove_video(self, job: Job, why: str) -> None:
        await asyncio.to_thread(self._places.remove_video, job.id)
        self._store.update(replace(job, video_bytes=0))
        words = "its video of %d bytes was removed: %s"
        log.info(words, job.video_bytes, why, extra={"job": job.id, "action": "retention"})

    async def _forget(self, job: Job) -> None:
        if job.video_bytes:
            await self._remove_video(job, "its answer goes")
        log.info("forgotten: its answer was kept long enough", extra={"job": job.id, "action": "retention"})
        await asyncio.to_thread(shutil.rmtree, self._places.logs / job.id, ignore_errors=True)
        self._store.forget([job.id])

    async def _remove_orphan_logs(self, now: float) -> None:
        """Remove old logs of what never became a job, such as a manifest that could not be read."""
        for directory in await asyncio.to_thread(lambda: list(self._places.logs.iterdir())):
            is_old = directory.stat().st_mtime < now - self._settings.results_s
            if is_old and self._store.get(directory.name) is None:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
