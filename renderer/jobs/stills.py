"""The coded stills that a daemon keeps for later jobs: each client's for itself, those least used removed first.

Workers only read what is kept. What a job has coded, they put into a directory of its attempt under a name that nobody
can guess. The daemon, which knows whose job it was, moves it from there to that client's stills, and only where the job
is done. So a decoder that a picture has led to write a file cannot change what another client will be shown.
"""

import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from renderer.config import RetentionSettings
from renderer.errors import ConfigError
from renderer.pictures.kept import StillCache

log = logging.getLogger(__name__)

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_NOBODY: Final = "shared"  # of clients without a key, and of the command line; owners with one are called "key.NAME"
_ROOM_BYTES: Final = 256 << 20  # that are left free on the disk beside `engine.min_free_bytes`
_LOOK_S: Final = 3600  # between looks for stills that were not used for long
_MARGIN: Final = 10  # a tenth of the limit is made free at once, since looking for the oldest takes a walk


class KeptStills:
    """The stills below one directory, and what bounds them; the methods may be called from any thread."""

    def __init__(
        self, directory: Path, settings: RetentionSettings, min_free_bytes: int, room_bytes: int = _ROOM_BYTES
    ) -> None:
        """Touch nothing yet.

        Args:
            min_free_bytes: with less space on the disk than that, jobs are refused; stills leave `room_bytes` more.
        """
        self.kept = directory / "kept"
        self.new = directory / "new"
        self._limit_bytes = settings.stills_bytes
        self._unused_s = settings.outputs_s
        self._least_free_bytes = min_free_bytes + room_bytes
        self._size_bytes: int | None = None  # until it is added up
        self._look_at = 0.0
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Make the directories, and remove what the attempts of an earlier daemon have left.

        Raises:
            ConfigError: they cannot be made.
        """
        shutil.rmtree(self.new, ignore_errors=True)
        try:
            for directory in (self.kept.parent, self.kept, self.new):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"server.data_dir: {error.filename}: {error.strerror}") from error

    def cache_for(self, owner: str) -> StillCache | None:
        """Return the cache for an attempt at a job of this owner; None if no stills are kept."""
        if not self._limit_bytes:
            return None
        return StillCache(self.kept / (owner or _NOBODY), self.new / secrets.token_hex(16), self._least_free_bytes)

    def shared(self) -> StillCache | None:
        """Return a cache into which a job puts stills itself: runs of the command line may share it, without a daemon.

        Raises:
            ConfigError: there is no place for it.
        """
        place = self.kept / _NOBODY
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            for directory in (self.kept, place):
                directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            if isinstance(error, FileExistsError | NotADirectoryError):
                raise ConfigError(f"stills: expected a directory, found the file {error.filename}") from error
            raise ConfigError(f"stills: {error.filename} cannot be written: {error.strerror}") from error
        return StillCache(place, place, self._least_free_bytes) if self._limit_bytes else None

    def bound_shared(self) -> None:
        """Count anew, since others may have put stills there, and remove those that are too many."""
        self._size_bytes = None
        with suppress(OSError):  # the next run tries again
            self.bound()

    def settle(self, cache: StillCache, *, is_good: bool) -> None:
        """Take over what an attempt has coded, or remove it unless the attempt was good."""
        if not cache.new.exists():  # it has coded nothing
            return
        try:
            with self._lock:
                if is_good:
                    self._take(cache)
            self.bound()
        except OSError as error:
            self._size_bytes = None
            log.warning("coded stills are not kept: %s", error.strerror, extra={"action": "still_not_kept"})
        finally:
            shutil.rmtree(cache.new, ignore_errors=True)

    def bound(self, now: float | None = None) -> None:
        """Remove stills that were not used for long, and the oldest while there are too many or the disk is too full.

        Args:
            now: in Unix seconds; the clock's unless given.

        Raises:
            OSError: they cannot be listed or removed.
        """
        now = time.time() if now is None else now
        with self._lock:
            lacking_bytes = self._least_free_bytes - shutil.disk_usage(self.kept).free
            excess_bytes = max(0, self._size() - self._limit_bytes, lacking_bytes)
            if excess_bytes or now >= self._look_at:
                self._look_at = now + _LOOK_S
                self._remove(excess_bytes and excess_bytes + self._limit_bytes // _MARGIN, now - self._unused_s)

    def _take(self, cache: StillCache) -> None:
        cache.kept.mkdir(mode=0o700, exist_ok=True)
        size_bytes = self._size()
        with os.scandir(cache.new) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    place = cache.kept / entry.name
                    size_bytes += entry.stat().st_size - (place.stat().st_size if place.exists() else 0)
                    Path(entry.path).replace(place)
        self._size_bytes = size_bytes

    def _size(self) -> int:
        if self._size_bytes is None:
            self._size_bytes = sum(size_bytes for _, size_bytes, _ in self._all())
        return self._size_bytes

    def _remove(self, wanted_bytes: int, used_before: float) -> None:
        oldest_first = sorted(self._all())
        left_bytes, removed = sum(size_bytes for _, size_bytes, _ in oldest_first), 0
        enough_bytes = left_bytes - wanted_bytes
        for used_at, size_bytes, path in oldest_first:
            if used_at >= used_before and left_bytes <= enough_bytes:
                break
            Path(path).unlink(missing_ok=True)
            left_bytes -= size_bytes
            removed += 1
        self._size_bytes = left_bytes
        if removed:
            log.info("%d coded stills were removed", removed, extra={"action": "retention"})

    def _all(self) -> Iterator[tuple[float, int, str]]:
        """Yield when each still was used last, its size, and its path."""
        for directory in self.kept.iterdir():
            with os.scandir(directory) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # another run has removed it
                        found = entry.stat(follow_symlinks=False)
                        yield found.st_mtime, found.st_size, entry.path
