"""The checks that every request passes before it becomes a job: schema, limits and sources.

Everything that can be checked without reading a picture is checked here, so that a request that must fail does so at
once, whichever door it came through. A url that may not be read is usually reported later, by the worker, together with
the images that are missing or damaged; it is reported here only if the request fails anyway or if no image may be read.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from protocol.bounded import context_for
from protocol.errors import MAX_FAULTS
from protocol.fields import AUTO_FPS
from protocol.media import AnyRequest, MediaRequest, MergeAudioVideo
from protocol.objects import parse_object
from protocol.schema import RenderRequest
from protocol.words import listed, wrongs_in
from renderer.config import FetchSettings, RequestLimits
from renderer.encode.plan import canvas_limits
from renderer.errors import (
    FetchFailed,
    InvalidRequest,
    JobError,
    LimitExceeded,
    NotSupported,
    TooManyImages,
    as_one,
)
from renderer.geometry import CanvasLimits, Size
from renderer.net.addresses import Guard
from renderer.net.objects import OUTPUT, check_output
from renderer.net.url import check_callee
from renderer.pictures.fetch import Fetcher
from renderer.pictures.reel import together
from renderer.timeline import check_length, check_poster, check_timecode, frame_rate, timeline_of
from renderer.work import Attachment, MediaJob, NvencFindings, RenderJob, images_of

_URL_MAX = 2048
_WEBHOOK_URL = re.compile(r"(?i:https?)://[!-\"$-.0->A-\[\]-~]+(?:[/?#][!-\[\]-~]*)?")  # printable ASCII


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, which decides which files it may read.

    Attributes:
        callees: judges whom it may call; None: nobody, as from the command line.
        outputs: the prefixes that objects may be put below; None: its video goes where the command line says.
    """

    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False
    callees: Guard | None = None
    outputs: tuple[str, ...] | None = None


def parse_request(params: Mapping[str, Any], max_images: int | None = None) -> RenderRequest:
    """Validate a request's fields.

    Args:
        max_images: a request with more images is refused before any of them is checked.

    Raises:
        InvalidRequest: its message and its `details` have all faults, and its `loc` is that of the first.
    """
    try:
        return RenderRequest.model_validate(params, context=context_for(max_images) if max_images else None)
    except ValidationError as error:
        raise invalid(error, RenderRequest) from error


def invalid(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """Turn pydantic's errors into ours; each keeps the type that pydantic gave it."""
    wrongs = wrongs_in(error, model)
    first, named = wrongs[0], wrongs[:MAX_FAULTS]
    if (first.loc, first.type) == (("images",), "too_long"):
        return _too_many(first.context["max_length"], first.context["actual_length"])
    details = tuple({"loc": list(each.loc), "msg": each.words, "type": each.type} for each in named)
    return InvalidRequest(listed(wrongs), loc=first.loc, details=details)


def _too_many(most: int, found: int) -> TooManyImages:
    context = {"field_type": "List", "max_length": most, "actual_length": found}
    words = f"expected up to {most} images, found {found} (limits.max_images)"
    return TooManyImages(words, loc=("images",), context=context)


def render_job(
    request: RenderRequest, limits: RequestLimits, fetch: FetchSettings, origin: Origin | None = None
) -> RenderJob:
    """Check a request against the limits and make it a job.

    Raises:
        JobError: it names the field at fault, what was expected and what was found; all other faults are in `others`.
    """
    origin = origin or Origin()
    if len(request.images) > limits.max_images:
        raise _too_many(limits.max_images, len(request.images))
    fetcher = Fetcher(fetch, base=origin.base, attachments=origin.attachments, any_path=origin.any_path)
    faults: list[JobError] = []
    with _noting(faults):
        _refuse_what_is_not_there(request, origin)
    with _noting(faults):
        _check_output(request, origin)
    with _noting(faults):
        _check_sides(request, limits)
    with _noting(faults):
        _check_rule(request)
    faults += _of_sounds(request, limits, fetcher.of("audio"))
    line = None
    with _noting(faults):
        line = timeline_of(request)
        check_length(line, limits, ("images",))
        if request.length == "stills":  # else the video may be longer, which is known once the sound is decoded
            check_poster(request.poster, line)
    if request.timecode is not None and (line or request.fps != AUTO_FPS):
        with _noting(faults):
            check_timecode(request.timecode, line.fps if line else frame_rate(request.fps))
    sources = _of_sources(request, fetcher, may_wait=not faults)
    if line is None or faults or sources:
        raise as_one([*faults, *([sources] if sources else [])])
    return RenderJob(request, line, origin.attachments, origin.base, origin.any_path)


def media_job(request: MediaRequest, limits: RequestLimits, fetch: FetchSettings, origin: Origin) -> MediaJob:
    """Check a request of another kind, and make it a job.

    Raises:
        JobError: as `render_job` does.
    """
    fetcher = Fetcher(fetch, base=origin.base, attachments=origin.attachments, any_path=origin.any_path)
    faults: list[JobError] = []
    with _noting(faults):
        _refuse_what_is_not_there(request, origin)
    for (field, *_), url in request.urls():
        try:
            fetcher.of(str(field)).check(url)
        except JobError as error:
            faults.append(error.at(field))
    most = limits.max_duration_s
    if isinstance(request, MergeAudioVideo) and abs(request.start_offset) > most:
        words = f"expected up to {most:g} s, found {request.start_offset:g} s (limits.max_duration_s)"
        faults.append(LimitExceeded(words, loc=("start_offset",), context={"le": most}))
    if faults:
        raise as_one(faults)
    return MediaJob(request, origin.attachments, origin.base, origin.any_path)


@contextlib.contextmanager
def _noting(faults: list[JobError]) -> Iterator[None]:
    """Keep a fault and go on, so that other faults are found as well."""
    try:
        yield
    except JobError as error:
        faults.append(error)


def _check_rule(request: RenderRequest) -> None:
    """Refuse a `length` that follows sounds if there is no sound that ends."""
    if request.length == "stills":
        return
    if not request.audio:
        raise InvalidRequest(f"expected `audio`, which {request.length} follows, found none", loc=("length",))
    if all(track.loop and track.duration is None for track in request.audio):
        words = (
            f"expected a sound that ends, which {request.length} follows, found only sounds that are repeated for ever"
        )
        raise InvalidRequest(words, loc=("length",))


def _of_sounds(request: RenderRequest, limits: RequestLimits, fetcher: Fetcher) -> Iterator[JobError]:
    """Look for sounds that cannot be read, without reading them, and for times beyond the limit on a video's length."""
    for place, track in enumerate(request.audio):
        try:
            fetcher.check(track.url)
        except JobError as error:
            yield error.at("audio", place, "url")
        for name in ("at", "start"):
            if getattr(track, name) > limits.max_duration_s:
                yield LimitExceeded(
                    f"expected up to {limits.max_duration_s:g} s, found {getattr(track, name):g} s "
                    "(limits.max_duration_s)",
                    loc=("audio", place, name),
                    context={"le": limits.max_duration_s},
                )


def _of_sources(request: RenderRequest, fetcher: Fetcher, *, may_wait: bool) -> JobError | None:
    """Look for sources that cannot be read, without reading them.

    Sources that the video can do without are left to the worker. If `may_wait`, so are all others, unless no image can
    be read at all: the worker may find further faults and report all of them together.
    """
    faults: dict[str, JobError] = {}
    for url in dict.fromkeys(image.url for image in request.images):
        try:
            fetcher.check(url)
        except JobError as error:
            faults[url] = error
            if request.on_error == "fail" and len(faults) == MAX_FAULTS:
                break
    is_final = request.on_error == "fail" and not may_wait
    if not faults or not (is_final or all(image.url in faults for image in request.images)):
        return None
    is_all = request.on_error != "fail" or len(faults) < MAX_FAULTS
    places = [image.url for image in request.images]
    return together([(places.index(url), error) for url, error in faults.items()], is_all=is_all)


def _refuse_what_is_not_there(request: AnyRequest, origin: Origin) -> None:
    if request.webhook_url is not None:
        if origin.callees is None:
            raise NotSupported("only a daemon can call a webhook; leave this field out", loc=("webhook_url",))
        if len(request.webhook_url) > _URL_MAX or not _WEBHOOK_URL.fullmatch(request.webhook_url):
            raise InvalidRequest("expected an http or https url without a user", loc=("webhook_url",))
        try:
            check_callee(request.webhook_url, origin.callees)
        except FetchFailed as error:
            raise InvalidRequest(error.message, loc=("webhook_url",)) from error


def _check_output(request: RenderRequest, origin: Origin) -> None:
    if request.output is None:
        return
    if origin.outputs is None:
        raise NotSupported("the command line says where videos go; leave this field out", loc=("output",))
    if request.sync_mode:
        raise InvalidRequest("expected output or sync_mode, found both", loc=("sync_mode",))
    check_output(request.output.url, origin.outputs)
    try:
        for image in images_of(request):
            parse_object(image.after(request.output.url))
    except ValueError as error:
        raise InvalidRequest(f"a picture beside the video cannot have its name: {error}", loc=OUTPUT) from error


def refuse_missing_gpu(request: RenderRequest, gpus: NvencFindings | None) -> None:
    """Refuse a request that names nvenc where no GPU can encode it, with the probe's reason."""
    if request.encoder == "nvenc" and gpus:
        if gpus.refusal and not gpus.refused:
            raise NotSupported(gpus.refusal, loc=("encoder",))
        _refuse_canvas(
            request, canvas_limits("nvenc", gpus), "this is the limit of the GPU's encoder; libx264 allows more"
        )


def _check_sides(request: RenderRequest, limits: RequestLimits) -> None:
    for name in ("width", "height"):
        side = getattr(request, name)
        if side is not None and side > limits.max_canvas_side:
            raise LimitExceeded(
                f"expected up to {limits.max_canvas_side}, found {side} (limits.max_canvas_side)",
                loc=(name,),
                context={"le": limits.max_canvas_side},
            )
    _refuse_canvas(request, canvas_limits("libx264", None), "no level of H.264 allows more")


def _refuse_canvas(request: RenderRequest, limits: CanvasLimits, why: str) -> None:
    """Refuse a width or height that no video can have, and name the field."""
    for name, most in (("width", limits.width), ("height", limits.height)):
        side = getattr(request, name)
        if side is not None and side > most:
            raise NotSupported(f"expected up to {most}, found {side}: {why}", loc=(name,))
    width, height = request.width, request.height
    if width and height and not limits.allow(Size(width, height)):
        most = limits.longest_beside(height)
        raise NotSupported(f"expected up to {most} with a height of {height}, found {width}: {why}", loc=("width",))
