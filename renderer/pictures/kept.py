"""Stills that earlier jobs have coded, kept on disk: where one comes again, it is neither decoded nor coded again.

A still is found by its name, a hash of its file's bytes and of all that shapes the coded picture. What it says beside
the picture, its size and what else its file holds, is kept too, so that a job has the same warnings either way.

A file begins with a hash of the rest. So none of it is synced: a file that a power cut has left short is taken for
damaged, as one is on which the disk has gone bad, and the still is coded anew and put in its place. Files appear under
their names whole, by a rename. A disk that is full or cannot be written ends the keeping, never the job.
"""

import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from renderer.disk import open_private
from renderer.geometry import Size
from renderer.pictures.fetch import Content, RawPixels
from renderer.pictures.formats import More
from renderer.version import VERSION

log = logging.getLogger(__name__)

_OURS: Final = Path(__file__).parents[1]
_SUM_BYTES: Final = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class CodedStill:
    """A still as an encoder has coded it.

    Attributes:
        access_unit: an IDR picture with its parameter sets, in Annex B.
        size: of the picture in the file, after orientation.
        more: what else the file holds that is not shown.
    """

    access_unit: bytes
    size: Size
    more: More | None = None


@dataclass(frozen=True, slots=True)
class StillCache:
    """Where one job finds the stills that earlier jobs have coded, and where it leaves its own; a plain value.

    Attributes:
        kept: the directory of the stills that are found.
        new: the directory, made when it is needed, that stills are put into; may be the same.
        min_free_bytes: with less free space than this, nothing is put there.
    """

    kept: Path
    new: Path
    min_free_bytes: int = 0

    def find(self, name: str) -> CodedStill | None:
        """Return the still of this name; None if it is not kept, or is damaged and so removed."""
        path = self.kept / name
        try:
            still = _read(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else error
            log.warning("a still that was kept cannot be read: %s", words, extra={"action": "still_damaged"})
            with suppress(OSError):  # a daemon's workers may not; what they code anew takes its place
                path.unlink()
            return None
        with suppress(OSError):  # the stills that were not used for the longest time go first
            os.utime(path)
        return still

    def put(self, name: str, still: CodedStill) -> bool:
        """Put a still there; return whether there was room and the disk took it."""
        facts = json.dumps([still.size.width, still.size.height, still.more]).encode("ascii") + b"\n"
        checksum = hashlib.sha256(facts)
        checksum.update(still.access_unit)
        part = self.new / f".{secrets.token_hex(8)}.part"
        try:
            self.new.mkdir(mode=0o700, exist_ok=True)
            if shutil.disk_usage(self.new).free - len(still.access_unit) < self.min_free_bytes:
                return False
            with open(part, "xb", opener=open_private) as file:
                file.writelines((checksum.digest() + facts, still.access_unit))
            part.replace(self.new / name)
        except OSError as error:
            log.info("coded stills are not kept: %s", error.strerror, extra={"action": "still_not_kept"})
            with suppress(OSError):
                part.unlink(missing_ok=True)
            return False
        return True


class Recall:
    """What one attempt at a job takes from the cache and leaves there; safe to use from many threads."""

    def __init__(
        self,
        cache: StillCache,
        shaped_by: Sequence[object],
        offsets: Mapping[int, float],
        on_missing: Callable[[], object],
        *,
        is_blind: bool = False,
    ) -> None:
        """Look nothing up yet.

        Args:
            shaped_by: what decides how all stills are composed and coded, for `name_of`.
            offsets: of the quantiser, by the stills' places in the request.
            on_missing: called once, by `wait`, when a still is known to be missing.
            is_blind: find nothing, and put everything there anew.
        """
        self._cache = cache
        self._shaped_by = shaped_by
        self._offsets = offsets
        self._on_missing: Callable[[], object] | None = on_missing
        self._is_blind = is_blind
        self._has_room = True
        self._missing: Future[None] = Future()
        self._names: dict[int, str] = {}
        self._facts: dict[int, tuple[Size, More | None]] = {}

    def find(self, image: int, content: Content) -> CodedStill | None:
        """Return what an earlier job has made of this content, if anything."""
        name = name_of(content, *self._shaped_by, self._offsets[image])
        if not self._is_blind and (still := self._cache.find(name)):
            return still
        self._names[image] = name
        with suppress(InvalidStateError):  # another one is missing, too
            self._missing.set_result(None)
        return None

    def note(self, image: int, size: Size, more: More | None) -> None:
        """Note what is to be kept about the picture of a still that was missing."""
        self._facts[image] = size, more

    def wait(self, still: "Future[Any]") -> None:
        """Wait until a still is there or one is known to be missing: its encoder starts while it is decoded."""
        if self._on_missing:
            wait([still, self._missing], return_when=FIRST_COMPLETED)
            if self._missing.done():
                self._on_missing()
                self._on_missing = None

    def put(self, image: int, access_unit: bytes) -> None:
        """Put a still that was missing into the cache, while there is room."""
        if self._has_room:
            self._has_room = self._cache.put(self._names[image], CodedStill(access_unit, *self._facts[image]))


def name_of(content: Content, *shaped_by: object) -> str:
    """Return the name of a still.

    Args:
        shaped_by: values that decide how it is composed and coded; they count by what `repr` writes.
    """
    data, layout = (content.data, content.layout) if isinstance(content, RawPixels) else (content, None)
    shape = repr((hashlib.sha256(data).digest(), layout, *shaped_by))
    return hashlib.sha256(shape.encode()).hexdigest()


@functools.cache
def program() -> str:
    """Return a hash of what decodes and composes: this program and the libraries that it names, in their versions."""
    from importlib.metadata import PackageNotFoundError, requires, version  # noqa: PLC0415 - few command lines ask

    versions = []
    for requirement in requires("stillreel") or ():
        with suppress(PackageNotFoundError):
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            versions.append((name, version(name)))
    return hashlib.sha256(repr((VERSION, versions, list(_sources()))).encode()).hexdigest()


def _sources() -> Iterator[tuple[str, int, int]]:
    """Yield when each of our own modules was changed: the version stays while the program is being worked on."""
    for part in ("pictures", "encode"):
        for path in sorted((_OURS / part).glob("*.py")):
            found = path.stat()
            yield path.name, found.st_size, found.st_mtime_ns


def _read(content: bytes) -> CodedStill:
    rest = memoryview(content)[_SUM_BYTES:]
    if hashlib.sha256(rest).digest() != content[:_SUM_BYTES]:
        raise ValueError("it is damaged")
    end = content.index(b"\n", _SUM_BYTES)
    width, height, more = json.loads(content[_SUM_BYTES:end])
    return CodedStill(content[end + 1 :], Size(width, height), cast("More | None", more))
