"""Turns a request from any door into a job of the engine, once the files that came with it are on disk.

The checks themselves are in `renderer.intake`, which the renders of the command line go through as well.
"""

import asyncio
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic_core import to_json

from protocol.media import AnyRequest
from protocol.schema import PixelLayout, RenderParams, RenderRequest, ResultWarning
from renderer.config import FetchSettings, RequestLimits
from renderer.errors import InvalidRequest, StillreelError
from renderer.intake import Origin, media_job, refuse_missing_gpu, render_job
from renderer.jobs.files import Content, Files
from renderer.jobs.hooks import Hook
from renderer.jobs.job import Submission, own_id
from renderer.net.addresses import Guard
from renderer.pictures.fetch import Fetcher
from renderer.work import AnyJob, Attachment, NvencFindings

if TYPE_CHECKING:
    from renderer.jobs.engine import Engine
    from renderer.jobs.job import Job

_FEW_IMAGES = 200  # whose checks the loop waits for
_LONG_URL, _PIECE = 4096, 1 << 20  # characters


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
        outputs: tuple[str, ...] = (),
    ) -> None:
        """Store the limits to check against, and the engine that takes the jobs.

        Args:
            directory: gets one directory per job that brings files.
            gpus: the findings about this machine, which count if no node has a GPU's encoder; None: the worker refuses.
            callees: judges which addresses webhooks may name.
            outputs: prefixes that videos may be put below, as objects.
        """
        self._outputs = outputs
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

    async def accept(self, request: AnyRequest, door: Door, attachments: Sequence[Content] = ()) -> "Job":
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
            if isinstance(request, RenderRequest) and not self._engine.has_node_with("nvenc"):
                # A node's own worker knows what it can take.
                refuse_missing_gpu(request, self._gpus)
            layouts = _layouts(request, attachments)
            job_id = door.job_id or own_id(door.owner, request.request_id or uuid.uuid4().hex)
            digest = await asyncio.to_thread(_digest, request, attachments)
            async with self._turn(job_id):
                if job := self._engine.known(job_id, digest):
                    if not door.waits:
                        self.waited_for.discard(job_id)
                else:
                    self._engine.check_room(door.owner)
                    job = await self._hand_over(request, door, attachments, layouts, job_id=job_id, digest=digest)
            await self._engine.on_disk()
            return job
        except StillreelError as error:
            self._engine.metrics.refused(error.kind)
            raise

    async def _hand_over(
        self,
        request: AnyRequest,
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
            origin = Origin(saved, door.base, callees=self._callees, outputs=self._outputs)
            work = await self._work(request, origin)
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

    async def _work(self, request: AnyRequest, origin: Origin) -> AnyJob:
        if not isinstance(request, RenderRequest):
            return media_job(request, self._limits, self._fetch, origin)
        if len(request.images) <= _FEW_IMAGES:
            return render_job(request, self._limits, self._fetch, origin)
        return await asyncio.to_thread(render_job, request, self._limits, self._fetch, origin)

    @contextlib.asynccontextmanager
    async def _turn(self, job_id: str) -> AsyncIterator[None]:
        """Admit requests with one id one after another, so that the files of many repetitions are written once."""
        while before := self._arriving.get(job_id):
            await before.wait()
        over = self._arriving[job_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._arriving[job_id]
            over.set()


def _digest(request: AnyRequest, attachments: Sequence[Content]) -> str:
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


def _told_in_parts(request: AnyRequest) -> Iterator[bytes]:
    """Write a request as JSON, long urls in pieces: pydantic takes 0.7 s for 200 MB, and lets no other thread run."""
    stand_in = uuid.uuid4().hex
    long = [url for _, url in request.urls() if len(url) > _LONG_URL]
    request = request.renamed(dict.fromkeys(long, stand_in))
    text = request.model_dump_json(exclude={"request_id", "progress"}, exclude_defaults=True)
    first, *others = text.split(stand_in)
    yield first.encode()
    for url, after in zip(long, others, strict=True):
        for begin in range(0, len(url), _PIECE):
            yield to_json(url[begin : begin + _PIECE])[1:-1]
        yield after.encode()


def _layouts(request: AnyRequest, attachments: Sequence[Content]) -> Sequence[PixelLayout | None]:
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
