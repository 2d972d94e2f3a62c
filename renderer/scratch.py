"""Directories that go with their owner, however that ends.

Each has a lock file that its owner holds with flock(2), which a kill lets go of too. Whoever makes a directory removes
those whose lock nobody holds. Over NFS the locks hold as well; where a file system has none, what a killed process
leaves stays.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TextIO

_PREFIX: Final = "stillreel-"
# A name that no data directory has: one that somebody keeps at /tmp/stillreel-data is not to be taken for a leftover.
_LOCK: Final = ".scratch-lock"
_TRIES: Final = 100


@contextlib.contextmanager
def scratch_dir() -> Iterator[Path]:
    """Lend a temporary directory for a process's short-lived files; its path is short enough for a socket's name.

    What this user's processes have left that were killed is removed first.

    Raises:
        OSError: no temporary directory can be used.
    """
    parent = tempfile.gettempdir()
    with contextlib.suppress(OSError):
        remove_dead(filter(_is_ours, Path(parent).glob(f"{_PREFIX}*")), _LOCK)
    own, lock = claim(lambda: Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent)), _LOCK)
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.close()


def claim(make: Callable[[], Path], lock_name: str) -> tuple[Path, TextIO]:
    """Make a directory and lock it; one that is not locked yet may be taken for a dead owner's and vanish.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            own = make()
            lock = (own / lock_name).open("a", encoding="ascii")
            if _is_locked_by_us(lock, else_unknown=True) and _is_there(lock):
                return own, lock
            lock.close()
    raise OSError(0, "the directory vanishes as often as it is made")


def remove_dead(directories: Iterable[Path], lock_name: str) -> None:
    """Remove those whose owner is dead; whatever cannot be removed stays."""
    for directory in directories:
        with contextlib.suppress(OSError), (directory / lock_name).open("a", encoding="ascii") as lock:
            if _is_locked_by_us(lock, else_unknown=False):
                shutil.rmtree(directory, ignore_errors=True)


def _is_ours(directory: Path) -> bool:
    """Whether this user made it as a scratch directory; others write to the same place, and links lead anywhere."""
    try:
        found = directory.lstat()
        has_lock = stat.S_ISREG((directory / _LOCK).lstat().st_mode)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and has_lock


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
