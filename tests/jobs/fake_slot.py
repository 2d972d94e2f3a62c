"""A slot without a process, to try the engine and the slots' contract with: what a task shows decides how it ends."""

import asyncio
from fractions import Fraction

from protocol.schema import Fault, Progress
from renderer.config import EncodeSettings
from renderer.jobs.slots.base import AttemptLost, Ending, RenderTask
from renderer.jobs.slots.progress import ProgressSender
from renderer.work import RenderReport, VideoFacts

UNREADABLE = Fault(type="unsupported_image_format", message="images[0].url: nonsense", loc=("images", 0, "url"))
LATE = "late.ppm"  # ends the url of a picture that does not come before the slot is let go on


class FakeSlot:
    """Renders nothing: writes a file of a few bytes, and reports what the request asks for."""

    node = ""
    encoder = None

    def __init__(self, progress_address: str) -> None:
        self.begun: list[str] = []
        self.goes_on = asyncio.Event()
        self._lost = asyncio.Event()
        self._report_progress = ProgressSender(progress_address)
        self._attempt: asyncio.Future[Ending] | None = None
        self._verdict: Ending | None = None

    async def prepare(self) -> None:
        pass

    async def lost(self) -> None:
        await self._lost.wait()
        self._lost.clear()

    async def held_pictures_refusal(self, _: EncodeSettings) -> str | None:
        return None

    async def run(self, task: RenderTask) -> Ending:
        self._verdict = None
        self._attempt = attempt = asyncio.ensure_future(self._render(task))
        try:
            await asyncio.wait([attempt])
            return self._verdict if attempt.cancelled() else attempt.result()
        finally:
            attempt.cancel()

    def stop(self, verdict: Ending) -> None:
        if self._attempt and not self._attempt.done() and self._verdict is None:
            self._verdict = verdict
            self._attempt.cancel()

    def lose(self) -> None:
        """End the attempt, or the wait for one, as one whose place is gone."""
        self.stop(AttemptLost("its place is gone"))
        if not self.is_at_work:
            self._lost.set()

    @property
    def is_at_work(self) -> bool:
        return self._attempt is not None and not self._attempt.done()

    def heard(self) -> None:
        pass

    def close(self) -> None:
        self._report_progress.close()

    async def _render(self, task: RenderTask) -> Ending:
        self.begun.append(task.job_id)
        request, line = task.work.request, task.work.timeline
        if any(image.url.endswith(LATE) for image in request.images):
            await self.goes_on.wait()
        if any(image.url == "data:,nonsense" for image in request.images):
            return UNREADABLE
        self._report_progress(task.job_id, Progress(images=len(request.images), frames=line.frames, stage="rendering"))
        size_bytes = task.output.write_bytes(b"a video")
        facts = VideoFacts(64, 48, line.frames, Fraction(line.fps), line.frames / Fraction(line.fps), size_bytes)
        return RenderReport(facts, "libx264", None, None, {"total": 0.0})
