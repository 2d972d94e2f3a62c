"""The one door from a request to a job: schema, limits, sources, units, identity.

Everything that can be known without reading a picture is checked here, so that a request that must fail does so at
once, whichever door it came through.
"""

import asyncio
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from protocol.schema import PixelLayout, RenderParams, RenderRequest
from renderer.config import FetchSettings, RequestLimits
from renderer.errors import InvalidRequest, JobError, LimitExceeded, NotSupported, TooManyImages
from renderer.pictures.fetch import Attachment, Fetcher
from renderer.pipeline import RenderJob
from renderer.timeline import Timeline, frame_rate, timeline

if TYPE_CHECKING:
    from renderer.jobs.engine import Engine
    from renderer.jobs.job import Job

_NOT_YET = {"start_timeout": None, "webhook_url": None}
_FOUND_MAX = 80
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, which decides what it may read."""

    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False


def parse_request(params: Mapping[str, Any]) -> RenderRequest:
    """Validate a request's fields.

    Raises:
        InvalidRequest: the first fault is its message and place; all faults are in `details`.
    """
    try:
        return RenderRequest.model_validate(params)
    except ValidationError as error:
        raise invalid(error) from error


def invalid(error: ValidationError) -> InvalidRequest:
    """Turn pydantic's findings into our error; every one keeps pydantic's own type for the HTTP door's 422."""
    details = tuple(
        {"loc": list(fault["loc"]), "msg": fault["msg"], "type": fault["type"]}
        for fault in error.errors(include_url=False, include_context=False)
    )
    first = error.errors(include_url=False)[0]
    says_itself = first["type"] in {"missing", "extra_forbidden", "value_error"}
    found = "" if says_itself else f", found {_short(first['input'])}"
    more = f"; {len(details)} faults in all" if len(details) > 1 else ""
    return InvalidRequest(f"{first['msg']}{found}{more}", loc=first["loc"], details=details)


def render_job(
    request: RenderRequest, limits: RequestLimits, fetch: FetchSettings, origin: Origin | None = None
) -> RenderJob:
    """Check a request against the limits and make it a job.

    Raises:
        JobError: which field is at fault, what was expected and what was found.
    """
    origin = origin or Origin()
    _refuse_what_is_not_there(request)
    if len(request.images) > limits.max_images:
        raise TooManyImages(f"expected up to {limits.max_images} images, found {len(request.images)}", loc=("images",))
    line = timeline(request.images, frame_rate(request.fps))
    _check_length(line, limits)
    _check_sides(request, limits)
    fetcher = Fetcher(fetch, base=origin.base, attachments=origin.attachments, any_path=origin.any_path)
    checked = set()
    for index, image in enumerate(request.images):
        if image.url not in checked:
            checked.add(image.url)
            try:
                fetcher.check(image.url)
            except JobError as error:
                raise error.at("images", index, "url") from error.__cause__
    return RenderJob(request, line, origin.attachments, origin.base, origin.any_path)


def _refuse_what_is_not_there(request: RenderRequest) -> None:
    for name, silent in _NOT_YET.items():
        if getattr(request, name) != silent:
            raise NotSupported("this version does not have it yet; leave it out", loc=(name,))
    if request.encoder == "nvenc":
        raise NotSupported('this version has no GPU encoder yet; expected "auto" or "libx264"', loc=("encoder",))


def _check_length(line: Timeline, limits: RequestLimits) -> None:
    if line.frames > limits.max_frames:
        raise LimitExceeded(f"expected up to {limits.max_frames} frames in all, found {line.frames}", loc=("images",))
    if line.duration_s > Fraction(limits.max_duration_s):
        raise LimitExceeded(
            f"expected up to {limits.max_duration_s:g} s in all, found {float(line.duration_s):.3f} s", loc=("images",)
        )


def _check_sides(request: RenderRequest, limits: RequestLimits) -> None:
    for name in ("width", "height"):
        side = getattr(request, name)
        if side is not None and side > limits.max_canvas_side:
            raise LimitExceeded(f"expected up to {limits.max_canvas_side}, found {side}", loc=(name,))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…"


class Intake:
    """Turns requests that came over a wire into jobs of the engine."""

    def __init__(self, limits: RequestLimits, fetch: FetchSettings, engine: "Engine", directory: Path) -> None:
        """Args:
        directory: gets one directory per job that brings attachments.
        """
        self._limits = limits
        self._fetch = fetch
        self._engine = engine
        self._directory = directory

    async def accept(self, params: RenderParams, attachments: Sequence[Buffer]) -> "Job":
        """Check a request, keep its attachments on disk, and hand it to the engine.

        A request_id that is known gives the job that has it, if the request is the same.

        Raises:
            JobError: the request is at fault.
            CapacityError: it cannot be taken now.
        """
        layouts = _layouts(params, attachments)
        job_id = params.request_id or uuid.uuid4().hex
        digest, files, saved = await asyncio.to_thread(self._save, params, attachments, layouts)
        is_kept = False
        try:
            work = render_job(params, self._limits, self._fetch, Origin(saved))
            job, is_kept = self._engine.submit(job_id, work, digest, files)
            return job
        finally:
            if files and not is_kept:
                shutil.rmtree(files, ignore_errors=True)

    def _save(
        self, params: RenderParams, attachments: Sequence[Buffer], layouts: Sequence[PixelLayout | None]
    ) -> tuple[str, Path | None, tuple[Attachment, ...]]:
        """Write the attachments down and return the digest of all that makes up the request."""
        body = params.model_dump_json(exclude={"request_id", "progress"})
        digest = hashlib.sha256(body.encode())
        if not attachments:
            return digest.hexdigest(), None, ()
        files = Path(tempfile.mkdtemp(dir=self._directory))
        saved = []
        try:
            for index, (content, layout) in enumerate(zip(attachments, layouts, strict=True)):
                digest.update(hashlib.sha256(content).digest())
                saved.append(Attachment(files / str(index), layout))
                saved[-1].path.write_bytes(content)
        except BaseException:
            shutil.rmtree(files, ignore_errors=True)
            raise
        return digest.hexdigest(), files, tuple(saved)


def _layouts(params: RenderParams, attachments: Sequence[Buffer]) -> Sequence[PixelLayout | None]:
    layouts = params.attachments
    if layouts is None:
        return [None] * len(attachments)
    if len(layouts) != len(attachments):
        raise InvalidRequest(
            f"expected one entry for each of the {len(attachments)} attachments, found {len(layouts)}",
            loc=("attachments",),
        )
    for index, (layout, content) in enumerate(zip(layouts, attachments, strict=True)):
        if layout and layout.size_bytes != len(content):
            raise InvalidRequest(
                f"expected {layout.size_bytes} bytes for shape {list(layout.shape)}, found {len(content)}",
                loc=("attachments", index),
            )
    return layouts
