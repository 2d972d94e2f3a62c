"""A whole job on one page: stills in, one MP4 out.

The frames of a hold are encoded one by one. The encoder is asked for through a function, so that what stands here does
not change with who encodes.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import ParamSpec, TypeVar

from protocol.schema import File, Progress, RenderRequest, RenderResult
from renderer.config import EncodeSettings, RenderSettings
from renderer.encode.base import Encoder, StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.errors import ImageTooLarge, JobError
from renderer.geometry import Canvas, canvas_for, even_up
from renderer.output.mp4 import Mp4Writer, VideoFacts
from renderer.pictures.compose import Look
from renderer.pictures.decode import read_size
from renderer.pictures.fetch import Attachment, Fetcher
from renderer.pictures.prepare import Source, Stills
from renderer.timeline import Timeline

NO_GPU_ENCODER = "this version has no GPU encoder yet"

_ENDLESS = 1 << 30  # frames; X264_KEYINT_MAX_INFINITE, and ffmpeg takes nothing above 2^31 - 1

OpenEncoder = Callable[[StreamSettings, EncodeSettings], Encoder]
OnProgress = Callable[[Progress], None]
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RenderJob:
    """A request that has been checked, with everything needed to render it; plain values, fit for another process.

    Attributes:
        base: directory that relative paths start from, such as a manifest's; None for none.
        any_path: local files need not lie under an allowed root; the command line's own jobs only.
    """

    request: RenderRequest
    timeline: Timeline
    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What was rendered, read back from the file, and where the time went.

    Attributes:
        timings: wall-clock seconds of the whole job ("total"), of waiting for stills ("stills"), encoding ("encode")
            and muxing ("mux"); "stills_busy" adds up what the decoding threads worked meanwhile.
    """

    facts: VideoFacts
    encoder: str
    fallback_reason: str | None
    timings: dict[str, float] = field(default_factory=dict)

    def result(self, video_url: str, file_name: str, request: RenderRequest) -> RenderResult:
        """Return the report as clients read it."""
        facts = self.facts
        return RenderResult(
            video=File(url=video_url, file_name=file_name, file_size=facts.size_bytes),
            frames=facts.frames,
            fps=f"{facts.fps.numerator}/{facts.fps.denominator}",
            duration=float(facts.duration_s),
            width=facts.width,
            height=facts.height,
            encoder=self.encoder,
            fallback_reason=self.fallback_reason,
            timings=self.timings,
            request_id=request.request_id,
            metadata=request.metadata,
        )


def render(
    job: RenderJob,
    output: Path,
    settings: RenderSettings | None = None,
    *,
    on_progress: OnProgress = lambda _: None,
    open_encoder: OpenEncoder = X264Encoder,
) -> RenderReport:
    """Render one job into `output`, which appears when it is whole and not before.

    Args:
        job: from `intake.render_job`.
        output: path of the MP4; its directory exists; a file of that name is replaced.
        on_progress: called on this thread after every still.

    Raises:
        JobError: the request is at fault; `loc` says where.
        BackendError: encoding or writing failed. In both cases nothing is left behind.
    """
    settings = settings or RenderSettings()
    clock = _Clock()
    fetcher = Fetcher(settings.fetch, base=job.base, attachments=job.attachments, any_path=job.any_path)
    look, at_hand = _look(job, fetcher, settings)
    stream = _stream(job, look.canvas)
    urls = [image.url for image in job.request.images]
    progress = Progress(images=len(urls), frames=job.timeline.frames, stage="rendering")
    on_progress(progress)
    with (
        Stills(urls, look, fetcher, settings.pictures, at_hand=at_hand) as stills,
        open_encoder(stream, settings.encode) as encoder,
        Mp4Writer(output, stream.fps) as video,
    ):
        for index, (lease, hold) in enumerate(zip(clock.timed("stills", stills), job.timeline.holds, strict=True)):
            with lease:
                for _ in range(hold):
                    units = clock.time("encode", encoder.encode, lease.frame)
                    clock.time("mux", video.extend, units)
            on_progress(progress.model_copy(update={"images_done": index + 1}))
        on_progress(progress.model_copy(update={"images_done": len(urls), "stage": "finishing"}))
        clock.time("mux", video.extend, clock.time("encode", encoder.flush))
        facts = clock.time("mux", video.commit, job.timeline.frames)
    reason = NO_GPU_ENCODER if job.request.encoder == "auto" else None
    return RenderReport(facts, "libx264", reason, clock.report(stills_busy=stills.busy_s))


def _look(job: RenderJob, fetcher: Fetcher, settings: RenderSettings) -> tuple[Look, dict[str, Source]]:
    """Settle the canvas and how stills are put on it; return also what had to be fetched to know its size."""
    request = job.request
    url = request.images[0].url
    at_hand: dict[str, Source] = {}
    if request.width and request.height:
        canvas = Canvas(even_up(request.width), even_up(request.height))
    else:
        try:
            at_hand[url] = fetcher.fetch(url)
            first = read_size(at_hand[url], settings.pictures.max_image_pixels)
        except JobError as error:
            raise error.at("images", 0, "url") from error.__cause__
        canvas = canvas_for(first, request.width, request.height)
    if max(canvas.width, canvas.height) > settings.max_canvas_side:
        raise ImageTooLarge(
            f"the video would be {canvas}; expected sides up to {settings.max_canvas_side}: "
            "set width and height, or send a smaller first image",
            loc=("images", 0, "url"),
        )
    red, green, blue = bytes.fromhex(request.background[1:])
    return Look(canvas, request.resize_mode, upscale=request.upscale, background=(red, green, blue)), at_hand


def _stream(job: RenderJob, canvas: Canvas) -> StreamSettings:
    interval = round(Fraction(str(job.request.max_keyframe_interval)) * job.timeline.fps)
    interval = min(max(1, interval), _ENDLESS)
    return StreamSettings(canvas, job.timeline.fps, job.request.crf, job.request.preset, interval)


class _Clock:
    """Adds up wall-clock seconds by stage."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    def time(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            self._stages[stage] = self._stages.get(stage, 0.0) + time.perf_counter() - began

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Time how long each next item is waited for."""
        waiting = iter(items)
        while (item := self.time(stage, next, waiting, None)) is not None:
            yield item

    def report(self, **more: float) -> dict[str, float]:
        stages = {**self._stages, **more, "total": time.perf_counter() - self._began}
        return {stage: round(seconds, 4) for stage, seconds in stages.items()}
