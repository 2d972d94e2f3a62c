"""A whole job on one page: stills in, one MP4 out.

Each still is coded once and its hold is synthesised, if the plan of the stream says so; otherwise every frame is coded.
A stream that turns out to have a shape that cannot be held is begun again with every frame coded. `encode.select`
chooses the encoder; where the request left the choice to us and the GPU fails, libx264 begins the job again. A job is
also begun again without the images that cannot be read, if its request wants the others shown.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from protocol.errors import MAX_FAULTS
from protocol.schema import RenderRequest, ResultWarning
from renderer.config import RenderSettings
from renderer.encode.base import FramesInFlight
from renderer.encode.h264.bits import UnsupportedStream
from renderer.encode.h264.repeat import NeedsIdr
from renderer.encode.nvenc.probe import findings_here
from renderer.encode.plan import (
    PlannedStill,
    StreamPlan,
    canvas_limits,
    every_frame,
    held_coding,
    idrs_only,
    plan_stream,
)
from renderer.encode.recall import CodedFrames, LateEncoder, OtherStream, coded_by, is_cacheable, offsets_of
from renderer.encode.select import Backend, OpenEncoder, choose
from renderer.encode.sequence import sequence_for
from renderer.encode.stream import StreamSettings
from renderer.errors import DeviceFailed, EncodeFailed, JobError, NotSupported, SessionsBusy
from renderer.geometry import Canvas, CanvasLimits, Size, canvas_for, even_up, largest_canvas
from renderer.pictures.compose import Framing
from renderer.pictures.course import OnProgress, ProgressReporter, StageClock
from renderer.pictures.fetch import Content, Fetcher
from renderer.pictures.formats import More
from renderer.pictures.kept import CodedStill, Recall, StillCache, program
from renderer.pictures.load import Loader
from renderer.pictures.marks import Marks
from renderer.pictures.measure import Measurer, is_of_image, unreadable
from renderer.pictures.notes import enlarged, reduced, shown_in_part
from renderer.pictures.poster import Posters, poster_remarks
from renderer.pictures.prepare import Stills
from renderer.pictures.reel import Reel, reel_of, together, warnings_of
from renderer.timeline import Timeline, check_poster, remarks
from renderer.work import NO_GPU_ENCODER, ImageFacts, RenderJob, RenderReport, VideoFacts, images_of

if TYPE_CHECKING:
    from renderer.media.mp4 import Mp4Writer
    from renderer.media.sound.soundtrack import Soundtrack, Tracks

log = logging.getLogger(__name__)

_ENDLESS = 1 << 30  # frames; X264_KEYINT_MAX_INFINITE, and ffmpeg takes nothing above 2^31 - 1


def render(
    job: RenderJob,
    output: Path,
    settings: RenderSettings | None = None,
    *,
    on_progress: OnProgress = lambda _: None,
    open_encoder: OpenEncoder | None = None,
    marks: Marks | None = None,
    cache: StillCache | None = None,
) -> RenderReport:
    """Render one job into `output`, which appears when it is whole and not before.

    Args:
        job: from `intake.render_job`.
        output: path of the MP4; its directory exists; a file of that name is replaced.
        on_progress: called on this thread after every still, and once a second while frames are coded.
        open_encoder: encodes whatever the request says; None chooses as it says.
        marks: where another process sees what is being decoded, and ends this one if that takes too long; without
            them the job fails when it does, but the decoder's thread lives on.
        cache: has stills that earlier jobs have coded, and takes those of this one.

    Raises:
        JobError: the request is at fault; `loc` says where.
        SessionsBusy: the request names nvenc, and all its sessions are in use.
        BackendError: encoding or writing failed. In both cases nothing is left behind.
    """
    report = _Whole(job, settings or RenderSettings(), on_progress, open_encoder, marks, cache).render(output)
    for warning in report.warnings:
        log.info("%s", warning, extra={"action": "warned", "warning": warning.type})
    return report


@dataclass
class _Whole:
    """A job from its first attempt to its last: between attempts, images that cannot be had are left out, or all named.

    Attributes:
        good: the pictures that an attempt has shown, or that were tried without fault.
    """

    job: RenderJob
    settings: RenderSettings
    on_progress: OnProgress
    open_encoder: OpenEncoder | None
    marks: Marks | None
    cache: StillCache | None
    clock: StageClock = field(default_factory=StageClock)
    good: set[Hashable] = field(default_factory=set)

    @cached_property
    def fetcher(self) -> Fetcher:
        job = self.job
        return Fetcher(self.settings.fetch, base=job.base, attachments=job.attachments, any_path=job.any_path)

    @cached_property
    def tracks(self) -> "Tracks | None":
        """The sounds of the request; None if it has none."""
        if not self.job.request.audio:
            return None
        from renderer.media.sound.soundtrack import Tracks  # noqa: PLC0415 - few jobs have sound

        return Tracks(self.job.request, self.fetcher.of("audio"), self.marks or Marks())

    @cached_property
    def limits(self) -> CanvasLimits:
        """The largest canvas that the settings and the encoder allow."""
        settings, encoder = self.settings, self.job.request.encoder
        limits = CanvasLimits(settings.limits.max_canvas_side, settings.limits.max_canvas_side)
        if self.open_encoder is not None:
            return limits
        gpus = findings_here(settings.nvenc) if encoder == "nvenc" and not settings.gpus else settings.gpus
        return limits.within(canvas_limits(encoder, gpus))

    def render(self, output: Path) -> RenderReport:
        """Render the job; without the images that cannot be read, if its request says so."""
        on_error = self.job.request.on_error
        if self.tracks is not None:
            self.tracks.check_codec(output)
        whole = reel_of(self.job.request, self.job.timeline, self.fetcher)
        faults: dict[Hashable, JobError] = {}
        reel = self._following(whole)
        check_poster(self.job.request.poster, reel.timeline)
        while True:
            try:
                self._check_urls(reel)
                report = self._render(reel, output)
            except JobError as error:
                if not is_of_image(error):
                    raise
                faults |= self._faults(reel, error)
                is_all = on_error != "fail" or len(faults) < MAX_FAULTS
                if on_error == "fail" or all(source.picture in faults for source in whole.sources):
                    raise together(whole.first_places(faults), is_all=is_all) from error.__cause__
                if on_error == "skip":
                    reel = self._following(whole.without(faults, on_error))
                else:
                    reel = self._following(whole).without(faults, on_error)
            else:
                said = (*self.job.warnings, *remarks(self.job.request, self.job.timeline))
                return replace(report, warnings=(*said, *warnings_of(whole, faults, on_error), *report.warnings))

    def _following(self, reel: Reel) -> Reel:
        """Let the stills follow the sound, if the request says so."""
        if self.tracks is None:
            return reel
        images = [self.job.request.images[source.image] for source in reel.sources]
        say = ProgressReporter(reel, self.on_progress).say_again
        return replace(reel, timeline=self.tracks.followed(reel.timeline, images, self.settings.limits, say))

    def _check_urls(self, reel: Reel) -> None:
        """Refuse urls whose fault shows without reading a file, before any work."""
        for source in reel.sources:
            try:
                self.fetcher.check(source.url)
            except JobError as error:
                raise error.at("images", source.image, "url") from error.__cause__

    def _faults(self, reel: Reel, error: JobError) -> dict[Hashable, JobError]:
        """Try the stills that were not shown yet, after one of them could not be read, so that all faults are named."""
        at = next(source.picture for source in reel.sources if source.image == error.loc[1])
        reporter = ProgressReporter(reel, self.on_progress)
        reporter.say()
        most = MAX_FAULTS if self.job.request.on_error == "fail" else len(reel.sources)
        loader = Loader(self.fetcher, self.settings.pictures, self.marks)
        found = unreadable(reel.sources, loader, {*self.good, at}, reporter.say_again, most - 1)
        self.good |= {source.picture for source in reel.sources} - {at, *found}
        return {at: error, **found}

    def _render(self, reel: Reel, output: Path) -> RenderReport:
        request = self.job.request
        measurer = Measurer(self.fetcher, self.settings.pictures, self.marks or Marks())
        say = ProgressReporter(reel, self.on_progress).say_again
        look, at_hand, warnings = _look(request, reel, measurer, self.limits, say)
        if self.open_encoder is None:
            backend = choose(request.encoder, look.canvas, request.crf, self.settings)
        else:
            reason = NO_GPU_ENCODER if request.encoder == "auto" else None
            backend = Backend("libx264", self.open_encoder, reason)
        rendering = _Rendering(self, reel, look, at_hand)
        facts, plan, backend = rendering.complete(backend, output)
        warnings += [*shown_in_part(rendering.in_part), *enlarged(rendering.enlarged, look.canvas)]
        warnings += poster_remarks(request, reel.timeline, look.canvas)
        reasons = backend.reason, plan.encoded_reason
        report = RenderReport(facts, backend.name, *reasons, self.clock.report(), tuple(warnings))
        coded, found = rendering.counts["coded"], rendering.counts["found"]
        if found:
            words = "%d of %d stills were coded by earlier jobs"
            log.info(words, found, found + coded, extra={"action": "stills_found"})
        report = replace(report, stills_coded=coded, stills_found=found, images=tuple(rendering.images))
        if self.tracks is None:
            return report
        warnings += self.tracks.warnings
        lengths = self.tracks.duration_s, self.job.timeline.duration_s
        return replace(report, warnings=tuple(warnings), sound_s=lengths[0], stills_s=lengths[1])


@dataclass(frozen=True, slots=True)
class _Rendering:
    """Stills that are to be rendered; may be attempted again under another plan or with another encoder.

    Attributes:
        at_hand: images that have been fetched already, by url.
        enlarged: the sizes of the stills that are scaled up much, by their places in the request.
        in_part: what else the files of some stills hold, by their places in the request.
        counts: of the stills that could be in the cache, those "found" there and those "coded".
        images: what was made beside the video.
    """

    whole: _Whole
    reel: Reel
    look: Framing
    at_hand: dict[str, Content]
    enlarged: dict[int, Size] = field(default_factory=dict)
    in_part: dict[int, More] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    images: list[ImageFacts] = field(default_factory=list)

    def complete(self, backend: Backend, output: Path) -> tuple[VideoFacts, StreamPlan, Backend]:
        """Render the stills; return the facts of the video, and the plan and the encoder that were used in the end."""
        plan, is_blind = self._plan(backend), False
        while True:
            try:
                return self.attempt(plan, backend, output, is_blind=is_blind), plan, backend
            except OtherStream as error:
                log.warning("every still is coded anew: %s", error, extra={"action": "still_damaged"})
                is_blind = True
            except UnsupportedStream as error:
                if not plan.is_held:
                    raise EncodeFailed(f"the encoder's stream cannot be used: {error}") from error
                plan = _plan_after(error, plan, self.reel.timeline)
            except (DeviceFailed, SessionsBusy) as error:
                other = backend.instead(error)
                if other is None:
                    raise
                backend, plan = other, self._plan(other)

    def attempt(self, plan: StreamPlan, backend: Backend, output: Path, *, is_blind: bool = False) -> VideoFacts:
        whole, reel = self.whole, self.reel
        coded = [(index, still) for index, still in enumerate(plan.stills) if still.copy_of is None]
        sequence = sequence_for(plan)
        reporter = ProgressReporter(reel, whole.on_progress, lambda: sequence.frames_done)
        reporter.say()
        stream = self._stream(plan, [still for _, still in coded])
        sources = [reel.sources[index] for index, _ in coded]
        encoder = LateEncoder(stream, lambda rest: backend.open_encoder(rest, whole.settings.encode))
        posters = Posters(whole.job.request, reel, self.look.canvas) if images_of(whole.job.request) else None
        recall = self._recall(backend, stream, [source.image for source in sources], encoder, is_blind=is_blind)
        with (
            self._sound() as sound,
            FramesInFlight() as lent,
            encoder if recall else encoder.begun(),
            Loader(whole.fetcher, whole.settings.pictures, whole.marks, self.at_hand) as loader,
            posters or nullcontext(),
            Stills(sources, self.look, loader, whole.settings.pictures, encoder.stock, recall, posters) as stills,
            self._video(output, stream.fps, sound) as video,
        ):
            frames = CodedFrames(
                sequence, recall, lambda samples: whole.clock.time("mux", video.extend, samples, sequence.reordered)
            )
            for (index, still), ready in zip(coded, whole.clock.timed("stills", stills), strict=True):
                whole.good.add(reel.sources[index].picture)
                if isinstance(ready, CodedStill):
                    encoder.leave_out()
                    frames.know(index, ready)
                    if frames.is_behind:
                        frames.add(whole.clock.time("encode", encoder.end))
                else:
                    times = 1 if plan.is_held else still.hold
                    frames.expect(reel.sources[index].image)
                    with lent.lend(ready, encoder, times):
                        for _ in range(times):
                            frames.add(whole.clock.time("encode", encoder.encode, ready.frame))
                            reporter.say_again()
                reporter.say(images_done=index + 1)
            reporter.say(images_done=len(reel.sources), stage="finishing")
            for unit in whole.clock.timed("encode", encoder.flush()):
                frames.add([unit])
                reporter.say_again()
            video.extend(sequence.flush(), sequence.reordered)
            reporter.say()
            whole.clock.add("stills_busy", loader.busy_s)
            self.enlarged.update(stills.enlarged)
            self.in_part.update(stills.in_part)
            self.counts.update(frames.counts)
            if posters:
                whole.clock.time("mux", posters.write, output)
            facts = whole.clock.time("mux", video.commit, reel.timeline.frames)
            if posters:
                self.images[:] = posters.settle()
            return facts

    def _recall(
        self, backend: Backend, stream: StreamSettings, images: list[int], encoder: LateEncoder, *, is_blind: bool
    ) -> Recall | None:
        """Return the cache's side of an attempt; None where its stills cannot be in a cache.

        A GPU's driver does not promise to code a picture alike wherever it comes in a stream.
        """
        cache, settings = self.whole.cache, self.whole.settings
        if cache is None or backend.nvenc is not None or not is_cacheable(stream):
            return None
        shaped_by = (program(), self.look, settings.pictures.max_image_pixels, *coded_by(stream, settings.encode))
        return Recall(cache, shaped_by, offsets_of(stream, images), encoder.begin, is_blind=is_blind)

    def _video(self, output: Path, fps: Fraction, sound: "Soundtrack | None") -> "Mp4Writer":
        from renderer.media.mp4 import Mp4Writer  # noqa: PLC0415 - libav is imported while the first stills are decoded

        request = self.whole.job.request
        return Mp4Writer(output, fps, request.timecode, sound, self.reel.chapters(request))

    def _sound(self) -> "AbstractContextManager[Soundtrack | None]":
        """Begin the sound of this attempt on its own thread, if the job has any."""
        tracks = self.whole.tracks
        if tracks is None:
            return nullcontext()
        from renderer.media.sound.decode import RATE  # noqa: PLC0415 - as above
        from renderer.media.sound.soundtrack import Soundtrack  # noqa: PLC0415 - as above

        limit_s = self.whole.settings.pictures.decode_timeout_s if self.whole.marks is None else None
        return Soundtrack(tracks, math.floor(self.reel.timeline.duration_s * RATE), limit_s)

    def _plan(self, backend: Backend) -> StreamPlan:
        rules = self.whole.settings.nvenc if backend.nvenc else self.whole.settings.encode
        if not rules.hold_pictures:
            return every_frame(self.reel.timeline.holds, rules.hold_pictures_refusal)
        pictures = [source.picture for source in self.reel.sources]
        return plan_stream(self.reel.timeline, pictures, self._keyframe_interval, self.whole.job.request.preset)

    def _stream(self, plan: StreamPlan, coded: list[PlannedStill]) -> StreamSettings:
        request = self.whole.job.request
        held = held_coding(coded) if plan.is_held else None
        fps, interval = self.reel.timeline.fps, self._keyframe_interval
        return StreamSettings(self.look.canvas, fps, request.crf, request.preset, interval, held)

    @property
    def _keyframe_interval(self) -> int:
        """The most frames from one sync sample to the next."""
        frames = Fraction(str(self.whole.job.request.max_keyframe_interval)) * self.reel.timeline.fps
        return min(max(1, math.floor(frames)), _ENDLESS)


def _plan_after(error: UnsupportedStream, plan: StreamPlan, timeline: Timeline) -> StreamPlan:
    """Plan a stream again whose pictures could not be held."""
    again = idrs_only(plan)
    if isinstance(error, NeedsIdr) and again is not plan:
        log.info("every still becomes an IDR picture: %s", error, extra={"action": "idrs_only"})
        return again
    log.warning("holds are encoded frame by frame: %s", error, extra={"action": "holds_encoded"})
    return every_frame(timeline.holds, f"the encoder's stream cannot be held: {error}")


def _look(
    request: RenderRequest, reel: Reel, measurer: Measurer, limits: CanvasLimits, say: Callable[[], None]
) -> tuple[Framing, dict[str, Content], list[ResultWarning]]:
    """Choose the canvas and how stills are put on it; return also what was fetched to know its size, and warnings."""
    at_hand: dict[str, Content] = {}
    warnings: list[ResultWarning] = []
    if request.width and request.height:
        canvas = Canvas(even_up(request.width), even_up(request.height))
    else:
        found = measurer.largest(reel.sources, say) if request.canvas == "largest" else measurer.first(reel.sources)
        at_hand = found.at_hand
        if request.width or request.height:
            canvas = canvas_for(found.size, request.width, request.height)
        else:
            canvas = largest_canvas(found.size, limits)
            warnings += reduced(found, canvas)
    _check_canvas(canvas, request, limits)
    red, green, blue = bytes.fromhex(request.background[1:])
    look = Framing(canvas, request.resize_mode, request.upscale, (red, green, blue), request.scaling)
    return look, at_hand, warnings


def _check_canvas(canvas: Canvas, request: RenderRequest, limits: CanvasLimits) -> None:
    """Refuse a canvas that was asked for and is too large: where one side was given, the other is known only now."""
    if limits.allow(canvas):
        return
    name = "width" if request.width else "height"
    follows = "" if request.width and request.height else f", since the other side follows the {request.canvas} image"
    raise NotSupported(
        f"this makes a video of {canvas}{follows}; expected up to {limits.width}x{limits.height} and "
        f"{limits.macroblocks} macroblocks of 16x16",
        loc=(name,),
    )
