"""Which encode sessions are in use: one locked file for each, shared by all processes of a user on a machine.

A driver allows a limited number of sessions over all processes, and refuses further ones. So a process that opens a
session holds the lock of a file while the session is open: the kernel releases the lock in any case, even after
kill -9. The locks also show how busy each device is. A process that waits for a session takes a shared lock on one more
file; a process that has kept an idle session sees this and closes it.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from renderer.config import NvencSettings
from renderer.errors import DeviceFailed, SessionsBusy

_MOST_SEATS: Final = 64  # more than any driver opens on one card that has a limit
_POLL_S: Final = 0.05


def state_dir(settings: NvencSettings) -> Path:
    """Return the directory for locks and failures, which is made if necessary.

    Raises:
        DeviceFailed: it cannot be made, or belongs to someone else.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Not tempfile's directory: a daemon and its workers have one of their own there, and this one is shared.
    shared = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - made for this user alone, and checked
    own = Path(runtime) / "stillreel" if runtime else shared / f"stillreel-{os.getuid()}"
    path = settings.state_dir or own
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise DeviceFailed(f"the directory for the GPU's sessions cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise DeviceFailed("the directory for the GPU's sessions belongs to someone else")
    return path


class Seat:
    """The right to open one session on one device; it ends with `release` or with the process."""

    def __init__(self, uuid: str, file: int, directory: Path) -> None:
        self.uuid = uuid
        self._file: int | None = file
        self._directory = directory

    def __repr__(self) -> str:
        return f"<Seat on {self.uuid}{'' if self._file else ', released'}>"

    def is_wanted(self) -> bool:
        """Say whether another process waits for a session."""
        with _locked(_waiting_room(self._directory), fcntl.LOCK_EX | fcntl.LOCK_NB) as file:
            return file is None

    def release(self) -> None:
        """Give the seat back; harmless when repeated."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


class Seats:
    """All seats of this machine's devices."""

    def __init__(self, directory: Path, per_device: int = 0) -> None:
        """Find the seats in a directory that the processes of a machine share.

        Args:
            per_device: how many sessions may be open on each device; 0 leaves the limit to the driver.
        """
        self._directory = directory
        self._per_device = per_device or _MOST_SEATS

    def take(self, uuids: Sequence[str], deadline: float) -> Seat:
        """Wait for a seat on the least busy of these devices.

        Args:
            deadline: on time.monotonic(); a deadline in the past means not to wait.

        Raises:
            SessionsBusy: no seat became free in time.
            DeviceFailed: the lock files cannot be used.
        """
        try:
            if seat := self._take_now(uuids):
                return seat
            with waiting_for_a_session(self._directory):
                while time.monotonic() < deadline:
                    time.sleep(_POLL_S)
                    if seat := self._take_now(uuids):
                        return seat
        except OSError as error:
            raise DeviceFailed(f"the GPU's sessions cannot be counted: {error.strerror}") from error
        devices = "GPU" if len(uuids) == 1 else f"each of {len(uuids)} GPUs"
        raise SessionsBusy(f"all {self._per_device} encode sessions of the {devices} are in use")

    def busy(self, uuid: str) -> int:
        """Count the sessions that are open on a device."""
        held = 0
        for path in self._paths(uuid):
            if not path.exists():
                break
            with _locked(path, fcntl.LOCK_SH | fcntl.LOCK_NB) as file:
                held += file is None
        return held

    def _take_now(self, uuids: Sequence[str]) -> Seat | None:
        for uuid in sorted(uuids, key=self.busy):
            for path in self._paths(uuid):
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(file)
                else:
                    return Seat(uuid, file, self._directory)
        return None

    def _paths(self, uuid: str) -> Iterator[Path]:
        return (self._directory / f"{uuid}.session-{number}" for number in range(self._per_device))


@contextlib.contextmanager
def waiting_for_a_session(directory: Path) -> Iterator[None]:
    """Show processes with an idle session, for as long as the block runs, that this process waits for one."""
    with _locked(_waiting_room(directory), fcntl.LOCK_SH):
        yield


def _waiting_room(directory: Path) -> Path:
    return directory / "waiting"


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[int | None]:
    """Lock a file and yield its descriptor, or None if the lock is taken and `how` says not to wait."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, how)
        except BlockingIOError:
            yield None
        else:
            yield file
    finally:
        os.close(file)
