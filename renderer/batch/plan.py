"""What a batch is to do, and what that means for each manifest: render it, leave it, or say what is wrong with it.

**Manifests are found** below a directory, in the order of names, one at a time: a tree may hold any number. Hidden
entries are left out, and so are the directories of copies that storage and archives make by themselves, and the
outputs if they are below the same directory. Symbolic links to files are followed, links to directories are not, so
that a walk ends.

**The hash** in an output's name covers all that decides how the video looks, and nothing else. The holds in frames
stand for `frames`, `duration` and `fps`; the bytes of a local image stand for its path, so that a tree may be moved.
An http url stands for itself: whether its picture has changed is known to its server only. Fields at their defaults
are left out, so that a new field renames nothing.

**Outputs** are NAME-HASH.mp4 with NAME-HASH.json beside it, which says that the video is whole. The video gets its
name first and its sidecar after it, each written elsewhere, synced and renamed. So a video with a sidecar that tells
its size is finished, whatever was killed when; and two processes that make the same one replace like with like.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final

from pydantic_core import from_json

from renderer.batch.shard import Shard
from renderer.config import EncodeSettings, Settings
from renderer.disk import put, settle
from renderer.errors import ConfigError, InvalidRequest, JobError, NoManifest
from renderer.intake import Origin, parse_request, render_job
from renderer.manifests.read import is_manifest, is_manifest_name, load_manifest
from renderer.manifests.sources import directory_manifest, is_image_name, is_unread_picture
from renderer.manifests.still import Fields, naming_its_files
from renderer.pictures.fetch import Fetcher
from renderer.work import RenderJob

# Where network storage keeps smaller copies of pictures, and archives keep what only a Mac reads.
_COPIES: Final = frozenset({"@eaDir", "@__thumb", "__MACOSX"})


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest, or a directory of images that is shown as a whole.

    Attributes:
        path: where it is.
        name: its path relative to the batch's directory; people read it, and shards are cut by it.
        stem: its output's path below the directory of outputs, without hash and suffix.
        refusal: why the directory could not be searched; None for everything else.
        left_out: the names of pictures that a directory of images has in formats that are not read here.
    """

    path: Path
    name: str
    stem: PurePath
    is_directory: bool = False
    refusal: str | None = None
    left_out: tuple[str, ...] = ()


def discover(root: Path, out: Path, *, with_directories: bool = False) -> Iterator[Found]:
    """Yield all that is to be rendered.

    Args:
        out: the directory of outputs, which exists; it is not searched unless it is `root` itself.
        with_directories: every directory that has images and no manifest is one video.
    """
    outputs = out.stat()
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            entries = _entries(directory)
        except OSError as error:
            yield _found(directory, root, refusal=f"the directory cannot be searched: {error.strerror}")
            continue
        manifests = [entry for entry in entries if is_manifest_name(entry.name) and _is_file(entry)]
        for entry in manifests:
            yield _found(Path(entry.path), root)
        if with_directories and _is_reel(entries, manifests):
            unread = tuple(entry.name for entry in entries if is_unread_picture(entry.name) and _is_file(entry))
            yield replace(_found(directory, root, is_directory=True), left_out=unread)
        below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        waiting += [Path(entry.path) for entry in reversed(below) if not os.path.samestat(entry.stat(), outputs)]


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        visible = (entry for entry in entries if not (entry.name.startswith(".") or entry.name in _COPIES))
        return sorted(visible, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it can be read as a file; a link that leads nowhere counts, so that somebody hears of it."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110 - Path's raises
    except OSError:
        return True


def _is_reel(entries: list[os.DirEntry[str]], manifests: list[os.DirEntry[str]]) -> bool:
    has_images = any(_is_picture_name(entry.name) and _is_file(entry) for entry in entries)
    return has_images and not any(is_manifest(Path(entry.path)) for entry in manifests)


def _is_picture_name(name: str) -> bool:
    """Whether it is a picture, be it one that is not read here: a directory of such alone fails and is not silent."""
    return is_image_name(name) or is_unread_picture(name)


def _found(path: Path, root: Path, *, is_directory: bool = False, refusal: str | None = None) -> Found:
    name = path.relative_to(root).as_posix()
    if not (is_directory or refusal):
        return Found(path, name, PurePath(name).with_suffix(""))
    stem = PurePath(name if path != root else path.absolute().name or "images")
    return Found(path, name, stem, is_directory, refusal)


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
                return f"url:{_of_text(url)}" if handle is None else f"file:{self._of_file(handle)}"
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
_NAME_MAX_BYTES: Final = 200  # most file systems take 255, the hash and the suffix included


@dataclass(frozen=True, slots=True)
class Output:
    """A video's final place, and its sidecar's."""

    video: Path

    @property
    def sidecar(self) -> Path:
        return self.video.with_suffix(".json")

    def is_finished(self) -> bool:
        """Whether the video is there as its sidecar describes it."""
        try:
            told = from_json(self.sidecar.read_bytes())
            return bool(told["video"]["file_size"] == self.video.stat().st_size)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return False

    def publish(self, rendered: Path, told: dict[str, Any]) -> None:
        """Move a video here that is whole and synced, and write its sidecar.

        Args:
            rendered: in a directory of the same file system that nobody else writes to.

        Raises:
            OSError: at most the video without its sidecar is here.
        """
        self.video.parent.mkdir(parents=True, exist_ok=True)
        sidecar = json.dumps(told, indent=2, allow_nan=False) + "\n"
        settle(rendered, self.video)
        put(self.sidecar, sidecar.encode(), part=rendered.with_suffix(".sidecar.part"), mode=0o666)


def output_for(out: Path, stem: PurePath, digest: str) -> Output:
    """Return the place below `out` for what is named `stem` and has this hash."""
    name = stem.name
    while len(os.fsencode(name)) > _NAME_MAX_BYTES:
        name = name[:-1]
    return Output(out / stem.parent / f"{name}-{digest}.mp4")


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
        directory: absolute; all manifests below it are rendered.
        out: absolute; exists.
        workers: videos that are made at a time.
        hold: how long each image of a plain directory is shown; None: directories are no manifests.
        overrides: fields that are set in every request.
    """

    directory: Path
    out: Path
    workers: int
    shard: Shard = field(default_factory=Shard)
    hold: Fields | None = None
    overrides: Fields = field(default_factory=dict)

    def walk(self) -> Iterator[Found]:
        """Yield the manifests of this shard, in a fixed order."""
        found = discover(self.directory, self.out, with_directories=self.hold is not None)
        return (each for each in found if self.shard.has(each.name))


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
        """Read no more images: a manifest that is being prepared fails soon, and nobody is told why."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def prepare(self, found: Found) -> Ready | None:
        """Return a manifest that is to be rendered; None if its video is there already.

        Raises:
            NoManifest: the file names no images.
            JobError: the manifest or an image of it is at fault.
        """
        fields = self._fields(found)
        if "images" not in fields and found.path.suffix.lower() == ".json":
            raise NoManifest("the file names no images")
        base = found.path if found.is_directory else found.path.parent
        origin = Origin(base=base, any_path=True)
        try:
            work = render_job(parse_request(fields), self._settings.limits, self._settings.fetch, origin)
            digest = self.digest(work)
        except JobError as error:
            raise naming_its_files(error, fields) from error.__cause__
        output = output_for(self._plan.out, found.stem, digest)
        return None if output.is_finished() else Ready(found, work, digest, output)

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
            if found.is_directory:
                return directory_manifest(found.path, self._plan.hold or {}, self._plan.overrides)
            return load_manifest(found.path, self._plan.overrides)
        except ConfigError as error:
            raise InvalidRequest(error.message) from error  # one of many: the batch itself goes on
