"""The one door from a request to a job: schema, limits, sources, units, identity.

Everything that can be known without reading a picture is checked here, so that a request that must fail does so at
once, whichever door it came through. A url that may not be read is told with the images that are missing or damaged:
the worker that opens those names it too, unless the request fails for another reason or no image is left to open.
"""

import asyncio
import contextlib
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from protocol.bounded import context_for
from protocol.errors import MAX_FAULTS
from protocol.schema import AUTO_FPS, PixelLayout, RenderParams, RenderRequest, ResultWarning
from protocol.words import listed, wrongs_in
from renderer.config import FetchSettings, RequestLimits
from renderer.encode.plan import canvas_limits
from renderer.errors import (
    FetchFailed,
    InvalidRequest,
    JobError,
    LimitExceeded,
    NotSupported,
    StillreelError,
    TooManyImages,
    as_one,
)
from renderer.geometry import CanvasLimits, Size
from renderer.jobs.files import Content, Files
from renderer.jobs.hooks import Hook
from renderer.jobs.job import Submission, own_id
from renderer.net.addresses import Guard
from renderer.net.client import check_callee
from renderer.pictures.fetch import Fetcher
from renderer.pictures.reel import together
from renderer.timeline import Timeline, check_timecode, frame_rate, timeline_of
from renderer.work import Attachment, NvencFindings, RenderJob

if TYPE_CHECKING:
    from renderer.jobs.engine import Engine
    from renderer.jobs.job import Job

_URL_MAX = 2048
_FEW_IMAGES = 200  # whose checks the loop waits for
_LONG_URL, _PIECE = 4096, 1 << 20  # characters
_WEBHOOK_URL = re.compile(r"(?i:https?)://[!-\"$-.0->A-\[\]-~]+(?:[/?#][!-\[\]-~]*)?")  # printable ASCII


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, which decides what it may read."""

    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False
    callees: Guard | None = None


@dataclass(frozen=True, slots=True)
class Door:
    """What the door that a request came through adds to it.

    Attributes:
        client: who sent it, for taking turns.
        job_id: in place of the request's own id.
        base: directory that relative paths start from; all below it may be read.
        output: directory that the video goes into; absent, the daemon's own.
        links: the url that links to files begin with for this client, for its webhook.
        owner: the key that it came with, which alone may ask for its job; empty where no key is needed.
        waits: the job is only for the connection that waits for it, and is cancelled once that is dropped.
        warnings: about the request, for the result.
    """

    client: str
    job_id: str | None = None
    base: Path | None = None
    output: Path | None = None
    links: str | None = None
    owner: str = ""
    waits: bool = False
    warnings: tuple[ResultWarning, ...] = ()


def parse_request(params: Mapping[str, Any], max_images: int | None = None) -> RenderRequest:
    """Validate a request's fields.

    Args:
        max_images: more are not looked at.

    Raises:
        InvalidRequest: all faults are its message, and the first its place; they are in `details`.
    """
    try:
        return RenderRequest.model_validate(params, context=context_for(max_images) if max_images else None)
    except ValidationError as error:
        raise invalid(error, RenderRequest) from error


def invalid(error: ValidationError, model: type[BaseModel]) -> InvalidRequest:
    """Turn pydantic's findings into our error; every one keeps pydantic's own type."""
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
        JobError: which field is at fault, what was expected and what was found; all other faults are in `others`.
    """
    origin = origin or Origin()
    if len(request.images) > limits.max_images:
        raise _too_many(limits.max_images, len(request.images))
    faults: list[JobError] = []
    with _noting(faults):
        _refuse_what_is_not_there(request, origin)
    with _noting(faults):
        _check_sides(request, limits)
    line = None
    with _noting(faults):
        line = timeline_of(request)
        _check_length(line, limits)
    if request.timecode is not None and (line or request.fps != AUTO_FPS):
        with _noting(faults):
            check_timecode(request.timecode, line.fps if line else frame_rate(request.fps))
    fetcher = Fetcher(fetch, base=origin.base, attachments=origin.attachments, any_path=origin.any_path)
    sources = _of_sources(request, fetcher, may_wait=not faults)
    if line is None or faults or sources:
        raise as_one([*faults, *([sources] if sources else [])])
    return RenderJob(request, line, origin.attachments, origin.base, origin.any_path)


@contextlib.contextmanager
def _noting(faults: list[JobError]) -> Iterator[None]:
    """Keep a fault and go on, so that other faults are found as well."""
    try:
        yield
    except JobError as error:
        faults.append(error)


def _of_sources(request: RenderRequest, fetcher: Fetcher, *, may_wait: bool) -> JobError | None:
    """Look for sources that cannot be read, without reading them.

    Those that may be done without are left to the worker, and if they may wait, so are those beside which others may be
    at fault.
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


def _refuse_what_is_not_there(request: RenderRequest, origin: Origin) -> None:
    if request.webhook_url is not None:
        if origin.callees is None:
            raise NotSupported("only a daemon calls back; leave it out", loc=("webhook_url",))
        if len(request.webhook_url) > _URL_MAX or not _WEBHOOK_URL.fullmatch(request.webhook_url):
            raise InvalidRequest("expected an http or https url without a user", loc=("webhook_url",))
        try:
            check_callee(request.webhook_url, origin.callees)
        except FetchFailed as error:
            raise InvalidRequest(error.message, loc=("webhook_url",)) from error


def refuse_missing_gpu(request: RenderRequest, gpus: NvencFindings | None) -> None:
    """Refuse a request that names nvenc where no GPU encodes it, with the probe's reason."""
    if request.encoder == "nvenc" and gpus:
        if gpus.refusal:
            raise NotSupported(gpus.refusal, loc=("encoder",))
        _refuse_canvas(request, canvas_limits("nvenc", gpus), "the GPU's encoder ends there; libx264 goes further")


def _check_length(line: Timeline, limits: RequestLimits) -> None:
    if line.frames > limits.max_frames:
        raise LimitExceeded(
            f"expected up to {limits.max_frames} frames in all, found {line.frames} (limits.max_frames)",
            loc=("images",),
            context={"le": limits.max_frames},
        )
    if line.duration_s > Fraction(limits.max_duration_s):
        raise LimitExceeded(
            f"expected up to {limits.max_duration_s:g} s in all, "
            f"found {float(line.duration_s):.3f} s (limits.max_duration_s)",
            loc=("images",),
            context={"le": limits.max_duration_s},
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
    _refuse_canvas(request, canvas_limits("libx264", None), "H.264 has no level for more")


def _refuse_canvas(request: RenderRequest, limits: CanvasLimits, why: str) -> None:
    """Refuse sides that no video can have, by name."""
    for name, most in (("width", limits.width), ("height", limits.height)):
        side = getattr(request, name)
        if side is not None and side > most:
            raise NotSupported(f"expected up to {most}, found {side}: {why}", loc=(name,))
    width, height = request.width, request.height
    if width and height and not limits.allow(Size(width, height)):
        most = limits.longest_beside(height)
        raise NotSupported(f"expected up to {most} beside a height of {height}, found {width}: {why}", loc=("width",))


class Intake:
    """Turns requests that came through a door into jobs of the engine.

    Attributes:
        waited_for: jobs that only connections which wait have asked for. It changes in the same turn of the loop in
            which a request is accepted or recognised, whichever door it came through.
    """

    def __init__(
        self,
        limits: RequestLimits,
        fetch: FetchSettings,
        engine: "Engine",
        directory: Path,
        gpus: NvencFindings | None = None,
        *,
        callees: Guard = Guard(),  # noqa: B008 - a frozen value
    ) -> None:
        """Store the limits to check against, and the engine that takes the jobs.

        Args:
            directory: gets one directory per job that brings files.
            gpus: the findings about the machine; None: the worker refuses.
            callees: judges which addresses webhooks may name.
        """
        self._callees = callees
        self._gpus = gpus
        self._limits = limits
        self._fetch = fetch
        self._engine = engine
        self._directory = directory
        self._arriving: dict[str, asyncio.Event] = {}
        self.waited_for: set[str] = set()

    @property
    def max_images(self) -> int:
        """The most images of a request."""
        return self._limits.max_images

    async def accept(self, request: RenderRequest, door: Door, attachments: Sequence[Content] = ()) -> "Job":
        """Check a request, keep what it brings on disk, and hand it to the engine.

        An id that is known gives the job that has it, if the request is the same; nothing is written then.

        Args:
            attachments: the files or pixels that `cid:0`, `cid:1` and so on name, or paths of files that do not change;
                not needed any more on return.

        Raises:
            JobError: the request is at fault.
            CapacityError: it cannot be taken now.
        """
        try:
            refuse_missing_gpu(request, self._gpus)
            layouts = _layouts(request, attachments)
            job_id = door.job_id or own_id(door.owner, request.request_id or uuid.uuid4().hex)
            digest = await asyncio.to_thread(_digest, request, attachments)
            async with self._turn(job_id):
                if known := self._engine.known(job_id, digest):
                    if not door.waits:
                        self.waited_for.discard(job_id)
                    return known
                self._engine.check_room(door.owner)
                return await self._hand_over(request, door, attachments, layouts, job_id=job_id, digest=digest)
        except StillreelError as error:
            self._engine.metrics.refused(error.kind)
            raise

    async def _hand_over(
        self,
        request: RenderRequest,
        door: Door,
        attachments: Sequence[Content],
        layouts: Sequence[PixelLayout | None],
        *,
        job_id: str,
        digest: str,
    ) -> "Job":
        """Keep what a new request brings, and give the engine the job; a job that is refused leaves no files."""
        files = Files(self._directory / uuid.uuid4().hex)
        try:
            saved = tuple(Attachment(files.path_of(index), layout) for index, layout in enumerate(layouts))
            work = await self._work(request, Origin(saved, door.base, callees=self._callees))
            work = replace(work, warnings=door.warnings)
            work = await asyncio.to_thread(files.save, work, attachments, Fetcher(self._fetch))
            kept = files.directory if work.attachments else None
            hook = Hook(request.webhook_url, door.links) if request.webhook_url else None
            job = self._engine.submit(Submission(job_id, door.client, digest, work, kept, door.output, hook))
        except BaseException:
            files.remove()
            raise
        (self.waited_for.add if door.waits else self.waited_for.discard)(job_id)
        return job

    async def _work(self, request: RenderRequest, origin: Origin) -> RenderJob:
        if len(request.images) <= _FEW_IMAGES:
            return render_job(request, self._limits, self._fetch, origin)
        return await asyncio.to_thread(render_job, request, self._limits, self._fetch, origin)

    @contextlib.asynccontextmanager
    async def _turn(self, job_id: str) -> AsyncIterator[None]:
        """Let requests with one id in one after another, so that what a thousand bring is written down once."""
        while before := self._arriving.get(job_id):
            await before.wait()
        over = self._arriving[job_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._arriving[job_id]
            over.set()


def _digest(request: RenderRequest, attachments: Sequence[Content]) -> str:
    """Return the digest of all that makes up a request but its id.

    Defaults are left out, so that a version with one field more still knows the request again.
    """
    digest = hashlib.sha256()
    for part in _told_in_parts(request):
        digest.update(part)
    for content in attachments:
        if isinstance(content, Path):
            with content.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _told_in_parts(request: RenderRequest) -> Iterator[bytes]:
    """Write a request as JSON, long urls in pieces: pydantic takes 0.7 s for 200 MB, and lets no other thread run."""
    stand_in = uuid.uuid4().hex
    long = [image.url for image in request.images if len(image.url) > _LONG_URL]
    images = (
        image.model_copy(update={"url": stand_in}) if len(image.url) > _LONG_URL else image for image in request.images
    )
    if long:
        request = request.model_copy(update={"images": tuple(images)})
    text = request.model_dump_json(exclude={"request_id", "progress"}, exclude_defaults=True)
    first, *others = text.split(stand_in)
    yield first.encode()
    for url, after in zip(long, others, strict=True):
        for begin in range(0, len(url), _PIECE):
            yield to_json(url[begin : begin + _PIECE])[1:-1]
        yield after.encode()


def _layouts(request: RenderRequest, attachments: Sequence[Content]) -> Sequence[PixelLayout | None]:
    layouts = request.attachments if isinstance(request, RenderParams) else None
    if layouts is None:
        return [None] * len(attachments)
    if len(layouts) != len(attachments):
        raise InvalidRequest(
            f"expected one entry for each of the {len(attachments)} attachments, found {len(layouts)}",
            loc=("attachments",),
        )
    for index, (layout, content) in enumerate(zip(layouts, attachments, strict=True)):
        if layout and not isinstance(content, Path) and layout.size_bytes != len(content):
            raise InvalidRequest(
                f"expected {layout.size_bytes} bytes for shape {list(layout.shape)}, found {len(content)}",
                loc=("attachments", index),
            )
    return layouts
