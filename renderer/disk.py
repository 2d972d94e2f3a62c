"""Files on disk: written whole and for good, directories that go with their owner, and where a video may be put.

**Writing.** A file is written under another name, synced, renamed, and its directory is synced as well: a rename is on
disk when the directory is (fsync(2)). Whoever looks therefore finds the old file or the new one, whole, even after a
power cut.

**Directories of an owner** are removed when their owner ends, however it ends. Each has a lock file that its owner
holds with flock(2); a kill releases the lock too. A process that makes such a directory removes those whose lock is
free. Locks work over NFS as well; on a file system without locks, the directories of killed processes stay.

**A video's place** is checked before the work begins, so that no hour of rendering ends at a missing directory. Only a
regular file is replaced, since a rename would put a file where a device, a pipe or a socket was. A symbolic link
stays, and the file that it leads to is replaced. Neither that file nor the one that the video grows in may be an
input; they are compared by device and inode, for one file may have many names.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol, TextIO

from renderer.errors import ConfigError, JobError, OutputFailed, StorageFull


def absolute(path: Path, setting: str) -> Path:
    """Return a path that a setting names, from the root on and with a home in the place of a tilde.

    Raises:
        ConfigError: there is no such home, or the path starts in a current directory that was removed.
    """
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"{setting}: {path} begins with a home directory, and there is none; set a path") from error
    except FileNotFoundError as error:
        words = "starts in the current directory, which was removed; set a path from the root on"
        raise ConfigError(f"{setting}: {path} {words}") from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on disk.

    Raises:
        OSError: they could not be written.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush(stream: IO[Any]) -> None:
    """Wait until everything that was written to a file is on disk.

    Raises:
        OSError: it could not be written.
    """
    stream.flush()
    os.fsync(stream.fileno())


def try_lock(file: IO[Any] | int) -> bool | None:
    """Try to lock a file until it is closed; return whether it is locked, or None if its file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def open_private(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=open_private)`; a new file is for its owner alone, whatever the umask."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def put(file: Path, content: bytes, *, part: Path | None = None, mode: int = 0o600) -> None:
    """Put a file in place as a whole, and for good.

    Args:
        part: the file that it is written to first, on the same file system; a hidden file beside it unless given.
        mode: of a new file, as far as the umask lets it; its owner's alone unless given.

    Raises:
        OSError: it could not be written. The file is as it was before, and nothing else is left.
    """
    part = part or file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(handle, "wb") as stream:  # noqa: PTH123 - of a descriptor, which Path cannot open
            stream.write(content)
            flush(stream)
        settle(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def settle(part: Path, file: Path) -> None:
    """Give a file whose content is on disk its final name, for good.

    Raises:
        OSError: it could not be renamed, or it is not certain that the rename survives a power cut.
    """
    part.replace(file)
    sync(file.parent)


def remove_named(directory: Path, prefix: str) -> None:
    """Remove the files of a directory whose names begin with a prefix, as far as this user may."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry)  # noqa: PTH108 - an entry of scandir


def is_full(error_number: int | None) -> bool:
    """Whether an errno says that the disk is full, or the quota of this user."""
    return error_number in {errno.ENOSPC, errno.EDQUOT}


_PREFIX: Final = "stillreel-"
# A data directory has no file of this name, so that one at /tmp/stillreel-data is not taken for a leftover.
_LOCK: Final = ".scratch-lock"
_TRIES: Final = 100


@contextlib.contextmanager
def scratch_dir() -> Iterator[Path]:
    """Lend a temporary directory for a process's short-lived files; its path is short enough for a socket's name.

    Directories that killed processes of this user have left are removed first.

    Raises:
        OSError: no temporary directory can be used.
    """
    parent = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        remove_dead(filter(_is_ours, Path(parent).glob(f"{_PREFIX}*")), _LOCK)
    with owned(lambda: Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)), _LOCK) as own:
        yield own


@contextlib.contextmanager
def owned(make: Callable[[], Path], lock_name: str) -> Iterator[Path]:
    """Make a directory and lend it under a lock; it is removed at the end of the block.

    Before it is locked it may be taken for a dead owner's and vanish, and is made again then.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            own = make()
            lock = (own / lock_name).open("a", encoding="ascii")
            if try_lock(lock) is not False and _is_there(lock):
                break
            lock.close()
    else:
        raise OSError(0, "the directory vanishes as often as it is made")
    with lock:
        try:
            yield own
        finally:
            shutil.rmtree(own, ignore_errors=True)


def keep_fresh(directory: Path) -> None:
    """Set the times of a directory and all that it holds to now, since programs that tidy up remove old files."""
    for place, directories, files in os.walk(directory):
        for name in ("", *directories, *files):
            with contextlib.suppress(OSError):  # it was removed meanwhile
                os.utime(Path(place, name), follow_symlinks=False)


def remove_dead(directories: Iterable[Path], lock_name: str) -> None:
    """Remove those directories whose owner is dead; a directory that cannot be removed stays."""
    for directory in directories:
        with contextlib.suppress(OSError), (directory / lock_name).open("a", encoding="ascii") as lock:
            if try_lock(lock):
                shutil.rmtree(directory, ignore_errors=True)


def _is_ours(directory: Path) -> bool:
    """Whether this user made it as a scratch directory; others write to the same place, and links may lead anywhere."""
    try:
        found = directory.lstat()
        has_lock = stat.S_ISREG((directory / _LOCK).lstat().st_mode)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and has_lock


def _is_there(lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
    except FileNotFoundError:
        return False


FORMATS: Final[Mapping[str, str]] = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov"}
"""The suffixes of videos, and what libavformat calls each; the brand in the file follows it."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def part_of(video: Path) -> Path:
    """Return the file that a video grows in until it is whole."""
    return video.with_name(f"{video.name}.part")


def place_for(output: Path) -> Path:
    """Return the absolute path of the file that is to be written, with links followed.

    Raises:
        ConfigError: no video can be put there; the message names the path.
    """
    if output.suffix.lower() not in FORMATS:
        *others, last = FORMATS
        raise ConfigError(f"output: expected a name that ends in {', '.join(others)} or {last}, found {output}")
    place = Path(os.path.realpath(output))
    try:
        if not place.parent.is_dir():
            raise ConfigError(f"output: expected a directory that exists, found {output.parent}")
        _refuse_special(output, place)
        _try(part_of(place))
    except OSError as error:
        raise ConfigError(f"output: {output} cannot be written: {error.strerror}") from error
    return place


class LocalFiles(Protocol):
    """Opens the files of this machine that urls name."""

    def open_local(self, url: str) -> AbstractContextManager[int | None]:
        """Lend the descriptor of a file; None for a url that names no file of this machine."""


def files_of(urls: Iterable[str], fetcher: LocalFiles) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every url that names a file which can be read, with the status of the file."""
    for url in dict.fromkeys(urls):
        with suppress(JobError), fetcher.open_local(url) as handle:  # what cannot be read cannot be overwritten either
            if handle is not None:
                yield url, os.fstat(handle)


def refuse_inputs(output: Path, inputs: Iterable[tuple[str, os.stat_result]]) -> None:
    """Refuse to write over what the video is made from.

    Args:
        output: from `place_for`.
        inputs: the name and the status of each; from `files_of` for images.

    Raises:
        ConfigError: one of them would be overwritten.
    """
    taken = [(path, found) for path in (output, part_of(output)) if (found := _stat(path))]
    for name, found in inputs:
        for path, there in taken:
            if os.path.samestat(found, there):
                raise ConfigError(f"output: {path} is an input, {name}; expected another name")


def write_failure(number: int | None, words: str | None) -> OutputFailed | StorageFull:
    """Return our error for a write that the system or libavformat refused; its message has no path.

    Args:
        number: its `errno`.
        words: its `strerror`.
    """
    message = f"the video could not be written: {words}"
    return StorageFull(message) if is_full(number) else OutputFailed(message)


def _refuse_special(output: Path, place: Path) -> None:
    found = _stat(place)
    if found is None:
        return
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ConfigError(f"output: {output} is {kind}; only a regular file is replaced, and -o - writes to stdout")
    if not os.access(place, os.W_OK, effective_ids=True):
        raise ConfigError(f"output: {output} cannot be written: {os.strerror(errno.EACCES)}")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _try(part: Path) -> None:
    """Open the file that the video will grow in, since only that shows that a disk is read-only or a name too long."""
    is_new = not os.path.lexists(part)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    if is_new:
        part.unlink()
