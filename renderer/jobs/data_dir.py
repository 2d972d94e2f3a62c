"""The data directory: held by one daemon at a time, and open to nobody but the user that it runs as.

It holds signed links, the secrets of webhooks and the pictures that clients have sent. So every file in it is made with
mode 0600 and every directory with 0700 under any umask. Files that an older version or a restored backup has left
open to others are closed to them when a daemon starts.
"""

import contextlib
import logging
import os
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path

from renderer import disk
from renderer.config import ServerSettings
from renderer.disk import scratch_dir
from renderer.errors import ConfigError

log = logging.getLogger(__name__)

STORE_NAME = "jobs.sqlite3"
_PARTS = ("outputs", "attachments", "logs", "scratch")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_LONGEST_SOCKET = 107 if sys.platform == "linux" else 103  # bytes in the name of a Unix socket (unix(7))
_SOCKETS_BELOW = len("/pymp-12345678/listener-12345678")  # the fork server's, as multiprocessing names it


def data_dir(settings: ServerSettings) -> Path:
    """Return where the data directory is, or would be.

    Raises:
        ConfigError: the setting begins with a home that does not exist, or with a directory that was removed.
    """
    return disk.absolute(settings.data_dir, "server.data_dir")


@contextlib.contextmanager
def held(path: Path) -> Iterator[Path]:
    """Prepare the data directory and hold it, so that no second daemon works in it.

    Raises:
        ConfigError: it cannot be used, or another daemon uses it.
    """
    try:
        with contextlib.suppress(FileExistsError):  # a file in its place holds no lock
            path.mkdir(parents=True, mode=0o700)
        lock = open(path / "lock", "a", opener=disk.open_private)  # noqa: SIM115 - Path.open has no opener
    except OSError as error:
        raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
    with lock:
        if not (locked := disk.try_lock(lock)):
            why = "is on a file system without locks" if locked is None else "is in use by another daemon"
            raise ConfigError(f"server.data_dir: {path} {why}")
        try:
            for part in _PARTS:
                (path / part).mkdir(exist_ok=True, mode=0o700)
            _remove_leftovers(path)
        except OSError as error:
            raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
        yield path


def shut(path: Path, spool: Path | None = None) -> None:
    """Take away the permissions of others in the data directory; a tree that is shut at its top is shut throughout.

    The top comes last, so that a start that is cut short is completed by the next.

    Args:
        spool: the manifest directory; where it lies in the data directory, its permissions stay.

    Raises:
        ConfigError: something in it belongs to another user.
    """
    try:
        count = _shut_tree(path, spool) if any(map(_is_open, (path, *path.iterdir()))) else 0
    except OSError as error:
        raise ConfigError(f"server.data_dir: {error.filename}: {error.strerror}") from error
    if count:
        words = "%d files and directories that others could read are closed to them now"
        log.warning(words, count, extra={"action": "shut"})


def daemon_id(path: Path) -> str:
    """Return the name of this data directory, which outlives the daemon's process."""
    file = path / "id"
    try:
        known = file.read_text(encoding="ascii") if file.exists() else ""
        if not known:
            known = uuid.uuid4().hex
            disk.put(file, known.encode("ascii"))
        return known
    except OSError as error:
        raise ConfigError(f"server.data_dir: {file}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"server.data_dir: {file}: expected the name that a daemon has made") from error


def shut_socket(path: Path, endpoint: str) -> None:
    """Close a socket in the data directory to others; one elsewhere keeps the permissions that the umask gave it."""
    socket = Path(endpoint.removeprefix("ipc://"))
    if endpoint.startswith("ipc://") and socket.is_relative_to(path):
        socket.chmod(0o600)


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make the directory for sockets; through a link in the data directory the next daemon finds it, to remove it."""
    lent = contextlib.ExitStack()
    try:
        made = lent.enter_context(scratch_dir())
    except OSError as error:
        raise ConfigError(f"no temporary directory can be used ({error.strerror}); set TMPDIR to one") from error
    if len(os.fsencode(made)) + _SOCKETS_BELOW > _LONGEST_SOCKET:
        lent.close()
        raise ConfigError(f"TMPDIR: {made.parent} is too long a path for sockets below it; set a shorter one")
    link = path / "scratch" / made.name
    link.symlink_to(made)
    # multiprocessing keeps the socket of the fork server there as well, and removes it at exit with priority -100.
    tempfile.tempdir = str(made)
    Finalize(None, _remove_scratch, (lent, link), exitpriority=-101)
    yield made


def _shut_tree(path: Path, spool: Path | None) -> int:
    count = 0
    for directory, names, files in os.walk(path):
        here = Path(directory)
        names[:] = [name for name in names if here / name != spool]
        count += sum(_shut(here / name) for name in (*names, *files) if not _is_around(here / name, spool))
    return count + (not _is_around(path, spool) and _shut(path))


def _is_around(path: Path, spool: Path | None) -> bool:
    """Whether the manifest directory is reached through this one, by people who put manifests there."""
    return spool is not None and spool.is_relative_to(path)


def _is_open(path: Path) -> bool:
    found = path.lstat().st_mode
    return not stat.S_ISLNK(found) and bool(found & _OTHERS)


def _shut(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it went meanwhile
        if _is_open(path):
            path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
            return True
    return False


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of a daemon that was killed; what its jobs have left, the engine removes."""
    for left in (path / "scratch").glob("*"):
        shutil.rmtree(left.resolve(), ignore_errors=True)
        left.unlink(missing_ok=True)


def _remove_scratch(lent: contextlib.ExitStack, link: Path) -> None:
    lent.close()
    link.unlink(missing_ok=True)
