"""Where the videos of a batch go: below a directory, or below a prefix of a bucket.

**Outputs** are NAME-HASH.mp4 with NAME-HASH.json beside it, which says that the video is whole. What is wanted beside
the video gets its name first, then the video, and its sidecar last. On disk each is written elsewhere, synced and
renamed, and in a bucket each is created at once. So a video with a sidecar that has its size is finished, at whatever
moment a run was killed. Two processes that make the same video replace it by an equal one, or find that it exists.

**Unfinished videos** lie in a directory of the run's own among the outputs, OUT/.stillreel/ID. A lock in it shows that
the run is alive; a run that gets the lock of another directory removes that directory. Videos that become objects lie
in a temporary directory until they are put.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

from pydantic_core import from_json

from protocol.objects import ObjectUrl
from renderer.disk import owned, put, remove_dead, scratch_dir, settle
from renderer.errors import ConfigError, InvalidRequest
from renderer.jobs.slots.base import Destination
from renderer.net import objects
from renderer.net.objects import Access
from renderer.work import ImageName

_NAME_MAX_BYTES: Final = 200  # most file systems take 255, the hash and the suffix included


class Output(Protocol):
    """One video's final place, and its sidecar's.

    Attributes:
        destination: what the attempt makes of the video; None: a file, which `publish` gives its name.
    """

    @property
    def name(self) -> str:
        """The video's name without its directory."""

    @property
    def url(self) -> str: ...

    @property
    def destination(self) -> Destination | None: ...

    def is_finished(self, images: Sequence[ImageName] = ()) -> bool:
        """Whether the video is there, its sidecar, and what is wanted beside them.

        Raises:
            FetchFailed: a store does not say.
        """

    def publish(self, rendered: Path, told: dict[str, Any], images: Sequence[ImageName] = ()) -> None:
        """Give a video that was made its name, after the pictures beside it, and write its sidecar.

        Raises:
            OSError, StillreelError: at most the video without its sidecar is there.
        """


class Place(Protocol):
    """What all outputs lie below."""

    def output(self, stem: PurePath, digest: str) -> Output:
        """Return the place for what is named `stem` and has this hash.

        Raises:
            InvalidRequest: no video can have such a name there.
        """

    def workspace(self) -> AbstractContextManager[Path]:
        """Lend a directory for videos that are not finished."""


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    """Outputs below a directory, which is absolute and exists."""

    out: Path

    def output(self, stem: PurePath, digest: str) -> Output:
        return output_for(self.out, stem, digest)

    def workspace(self) -> AbstractContextManager[Path]:
        return workspace(self.out)


@dataclass(frozen=True, slots=True)
class FileOutput:
    """A video's final place on disk, and its sidecar's."""

    video: Path

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def url(self) -> str:
        return self.video.as_uri()

    @property
    def destination(self) -> Destination | None:
        return None

    @property
    def sidecar(self) -> Path:
        return self.video.with_suffix(".json")

    def is_finished(self, images: Sequence[ImageName] = ()) -> bool:
        """Whether the video is there as its sidecar describes it, and so are the pictures beside it."""
        beside = [(image.field, Path(image.after(str(self.video)))) for image in images]
        try:
            told = from_json(self.sidecar.read_bytes())
            return all(
                told[field]["file_size"] == path.stat().st_size for field, path in [("video", self.video), *beside]
            )
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return False

    def publish(self, rendered: Path, told: dict[str, Any], images: Sequence[ImageName] = ()) -> None:
        """Move files here that are whole and synced, and write the sidecar.

        Args:
            rendered: in a directory of the same file system that nobody else writes to.

        Raises:
            OSError: at most the video without its sidecar is here.
        """
        self.video.parent.mkdir(parents=True, exist_ok=True)
        sidecar = json.dumps(told, indent=2, allow_nan=False) + "\n"
        for image in images:
            settle(Path(image.after(str(rendered))), Path(image.after(str(self.video))))
        settle(rendered, self.video)
        put(self.sidecar, sidecar.encode(), part=rendered.with_suffix(".sidecar.part"), mode=0o666)


def output_for(out: Path, stem: PurePath, digest: str) -> FileOutput:
    """Return the place below `out` for what is named `stem` and has this hash."""
    return FileOutput(out / _named(stem, digest))


def _named(stem: PurePath, digest: str) -> PurePath:
    name = stem.name
    while len(os.fsencode(name)) > _NAME_MAX_BYTES:
        name = name[:-1]
    return stem.parent / f"{name}-{digest}.mp4"


HIDDEN: Final = ".stillreel"
_LOCK: Final = "lock"


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Lend a directory below `out` that nobody else writes to; also remove what runs that were killed have left.

    Raises:
        ConfigError: it cannot be made.
    """
    parent = out / HIDDEN
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_dead, parent)
        try:
            own = stack.enter_context(owned(lambda: _made(parent), _LOCK))
        except OSError as error:
            raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
        _remove_dead(parent)
        yield own


def _made(parent: Path) -> Path:
    own = parent / uuid.uuid4().hex
    own.mkdir(parents=True)
    return own


def _remove_dead(parent: Path) -> None:
    """Remove the directories of runs that were killed, and the one that they are in if no run is left."""
    with contextlib.suppress(OSError):
        remove_dead([each for each in parent.iterdir() if each.is_dir()], _LOCK)
        parent.rmdir()


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Outputs below a prefix of a bucket."""

    out: ObjectUrl
    access: Access

    def output(self, stem: PurePath, digest: str) -> Output:
        try:
            return ObjectOutput(self.out.below(_named(stem, digest).as_posix()), digest, self.access)
        except ValueError as error:
            raise InvalidRequest(f"no object can have the manifest's name: {error}") from error

    def workspace(self) -> AbstractContextManager[Path]:
        return scratch_dir()


@dataclass(frozen=True, slots=True)
class ObjectOutput:
    """A video that becomes an object, and its sidecar beside it; both are marked with the hash in their names."""

    video: ObjectUrl
    digest: str
    access: Access

    @property
    def name(self) -> str:
        return self.video.file_name

    @property
    def url(self) -> str:
        return str(self.video)

    @property
    def destination(self) -> Destination | None:
        return Destination(self.url, self.digest)

    @property
    def _sidecar(self) -> ObjectUrl:
        return replace(self.video, name=f"{self.video.name.removesuffix('.mp4')}.json")

    def is_finished(self, images: Sequence[ImageName] = ()) -> bool:
        beside = (replace(self.video, name=image.after(self.video.name)) for image in images)
        found = (objects.find(url, self.access) for url in (self._sidecar, self.video, *beside))
        return all(each is not None and each.made_for == self.digest for each in found)

    def publish(self, rendered: Path, told: dict[str, Any], images: Sequence[ImageName] = ()) -> None:  # noqa: ARG002
        """Write the sidecar; the attempt has put the video, and the pictures before it."""
        sidecar = json.dumps(told, indent=2, allow_nan=False) + "\n"
        objects.put(self._sidecar, sidecar.encode(), "application/json", self.digest, self.access)
