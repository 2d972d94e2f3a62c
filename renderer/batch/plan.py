"""What a batch is to do, and whether each manifest is rendered, is finished already, or is at fault.

**The hash** in an output's name covers all that decides how the video looks, and nothing else. The holds in frames
stand for `frames`, `duration` and `fps`; the bytes of a local image stand for its path, so that a tree may be moved. An
object stands for itself with its version, as its store tells it. An http url stands for itself: whether its picture has
changed is known to its server only. Fields at their defaults are left out, so that a new field renames nothing.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final

from renderer.batch.places import Output, Place
from renderer.batch.shard import Shard
from renderer.batch.trees import Found, Tree
from renderer.config import EncodeSettings, Settings
from renderer.errors import ConfigError, InvalidRequest, JobError, NoManifest
from renderer.intake import Origin, parse_request, render_job
from renderer.manifests.still import Fields, naming_its_files
from renderer.pictures.fetch import Fetcher
from renderer.work import RenderJob, images_of

OUTPUT_FORMAT: Final = 2
"""A number that goes up whenever the same request gives another video than before, even if only a default changed."""

# These fields decide when and for whom a video is made, not how it looks; images and fps have entries of their own.
_OUTSIDE: Final[dict[str, Any]] = {
    **dict.fromkeys(("images", "fps", "sync_mode", "priority", "start_timeout", "webhook_url", "output"), True),
    "audio": {"__all__": {"url"}},
}
_DIGITS: Final = 12
_UNREADABLE: Final = "unreadable"
_KNOWN_MAX: Final = 100_000

FileState = tuple[int, int, int, int]


class Digests:
    """Hashes of image files; a file that is unchanged since it was read is not read again. Safe to use from threads."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Begin with no file that is known.

        Args:
            pool: reads the files; not the one that the callers run in.
        """
        self._pool = pool
        self._known: dict[FileState, str] = {}

    def of_job(self, job: RenderJob, fetcher: Fetcher, encode: EncodeSettings) -> str:
        """Return the hash of a job.

        An image that cannot be read counts as unreadable, since the renderer decides what follows from that.

        Raises:
            CancelledError: the pool was shut down meanwhile.
        """
        request = job.request
        decisive = {
            "format": OUTPUT_FORMAT,
            "fps": str(job.timeline.fps),
            "holds": job.timeline.holds,
            "images": self._of_sources([image.url for image in request.images], fetcher),
            **({"sounds": self._of_sources([track.url for track in request.audio], fetcher)} if request.audio else {}),
            **({"titles": titles} if any(titles := [image.title for image in request.images]) else {}),
            "request": request.model_dump(mode="json", exclude=_OUTSIDE, exclude_defaults=True),
            # Not which ffmpeg: its path tells the machine, and a batch may run on many.
            "encode": {"hold_pictures": encode.hold_pictures, "threads": encode.threads},
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:_DIGITS]

    def _of_sources(self, urls: list[str], fetcher: Fetcher) -> list[str]:
        try:
            reading = {url: self._pool.submit(self._of_source, url, fetcher) for url in dict.fromkeys(urls)}
        except RuntimeError as error:  # the pool was shut down
            raise CancelledError from error
        try:
            return [reading[url].result() for url in urls]
        finally:
            for future in reading.values():
                future.cancel()

    def _of_source(self, url: str, fetcher: Fetcher) -> str:
        try:
            with fetcher.open_local(url) as handle:
                if handle is not None:
                    return f"file:{self._of_file(handle)}"
            version = fetcher.version(url)
            return f"url:{_of_text(url)}" if version is None else f"object:{_of_text(f'{url} {version}')}"
        except (JobError, OSError):
            return _UNREADABLE

    def _of_file(self, handle: int) -> str:
        state = os.fstat(handle)
        key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._known.get(key)
        if known is None:
            with open(handle, "rb", closefd=False) as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[key] = known
        return known


def _of_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_COMMANDS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, half characters, ends of lines and paragraphs
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change the direction


def as_text(name: str) -> str:
    """Return a file's name as text that every reader of JSON takes; its bytes may be no valid text."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def printable(words: str) -> str:
    """Return text that may hold a file's name in one line, without characters that would control the terminal."""
    return "".join("\ufffd" if unicodedata.category(each) in _COMMANDS or each in _TURNING else each for each in words)


@dataclass(frozen=True, slots=True)
class Plan:
    """A batch, as the command line asks for it.

    Attributes:
        workers: videos that are made at a time.
        overrides: fields that are set in every request.
        stills: absolute; where coded stills are kept for other videos. None keeps none.
    """

    tree: Tree
    place: Place
    workers: int
    shard: Shard = field(default_factory=Shard)
    overrides: Fields = field(default_factory=dict)
    stills: Path | None = None

    def walk(self) -> Iterator[Found]:
        """Yield the manifests of this shard in a fixed order, and what could not be searched and may hold some."""
        return (each for each in self.tree.walk() if each.refusal or self.shard.has(each.name))


@dataclass(frozen=True, slots=True)
class Ready:
    """A manifest that has been checked and is to be rendered."""

    found: Found
    work: RenderJob
    digest: str
    output: Output


class Preparation:
    """Reads, checks and hashes manifests; for any thread but those of `pool`."""

    def __init__(self, plan: Plan, settings: Settings, pool: ThreadPoolExecutor) -> None:
        """Remember the plan and the settings.

        Args:
            pool: reads the images.
        """
        self._plan = plan
        self._settings = settings
        self._pool = pool
        self._digests = Digests(pool)

    def abandon(self) -> None:
        """Read no more images: a manifest that is being prepared fails soon, without a report."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def prepare(self, found: Found) -> Ready | None:
        """Return a manifest that is to be rendered; None if its video is there already.

        Raises:
            NoManifest: the file names no images.
            JobError: the manifest or an image of it is at fault.
        """
        fields = self._fields(found)
        if "images" not in fields and PurePath(found.name).suffix.lower() == ".json":
            raise NoManifest("the file names no images")
        origin = Origin(base=self._plan.tree.base(found), any_path=True)
        try:
            work = render_job(parse_request(fields), self._settings.limits, self._settings.fetch, origin)
            digest = self.digest(work)
        except JobError as error:
            raise naming_its_files(error, fields) from error.__cause__
        output = self._plan.place.output(found.stem, digest)
        return None if output.is_finished(images_of(work.request)) else Ready(found, work, digest, output)

    def digest(self, work: RenderJob) -> str:
        """Return the hash of a job as its images are now.

        Raises:
            JobError: an image cannot be read.
        """
        fetcher = Fetcher(self._settings.fetch, base=work.base, any_path=work.any_path)
        return self._digests.of_job(work, fetcher, self._settings.encode)

    def _fields(self, found: Found) -> Fields:
        if found.refusal:
            raise InvalidRequest(found.refusal)
        try:
            return self._plan.tree.fields(found, self._plan.overrides)
        except ConfigError as error:
            raise InvalidRequest(error.message) from error  # one of many: the batch itself goes on
