"""A run's own directory among the outputs, OUT/.stillreel/ID, for what is not finished.

A lock in it says that the run lives: it goes with the process, however that ends, and holds over NFS too. Whoever gets
the lock of another's directory removes that directory. Where a file system has no locks, what a killed run leaves
stays, hidden.
"""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from renderer.errors import ConfigError

HIDDEN: Final = ".stillreel"
_LOCK: Final = "lock"
_TRIES: Final = 100


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Lend a directory below `out` that nobody else writes to; also remove what runs that were killed have left.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        own, lock = _claim(out / HIDDEN)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    try:
        _remove_dead(own)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.close()
        _remove_dead(own)
        with contextlib.suppress(OSError):  # another run is in it
            own.parent.rmdir()


def _claim(parent: Path) -> tuple[Path, TextIO]:
    """Make a directory and lock it; one that is not locked yet may be taken for a dead run's and vanish."""
    for _ in range(_TRIES):
        own = parent / uuid.uuid4().hex
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            own.mkdir(parents=True)
            lock = (own / _LOCK).open("a", encoding="ascii")
            if _is_locked_by_us(lock, else_unknown=True) and _is_there(lock):
                return own, lock
            lock.close()
    raise OSError(0, "the directory vanishes as often as it is made")


def _remove_dead(own: Path) -> None:
    with contextlib.suppress(OSError):
        for directory in own.parent.iterdir():
            if directory != own and directory.is_dir():
                _remove_if_dead(directory)


def _remove_if_dead(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / _LOCK).open("a", encoding="ascii") as lock:
        if _is_locked_by_us(lock, else_unknown=False):
            shutil.rmtree(directory, ignore_errors=True)


def _is_locked_by_us(lock: TextIO, *, else_unknown: bool) -> bool:
    """Try to get the lock.

    Args:
        else_unknown: what to answer where the file system has no locks.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return else_unknown
    return True


def _is_there(lock: TextIO) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
    except FileNotFoundError:
        return False
