"""The files of the manifest directory and of a claim in it, and how a claim is filled, moved and removed.

    .lock
    incoming/   NAME.json, or NAME/ with its manifest.json; here and below also .jsonl, .ndjson, .csv, .ffconcat
    active/ID/  owner.json, NAME/ with its manifest.json, .ID.../ with the video that is being made, and .deaths while
                the manifest is read
    done/       NAME/ with the manifest, result.json, video.mp4, and the pictures that were wanted beside it
    failed/     NAME/ with the manifest and error.json

Whoever put a bundle there may still change NAME, and could redirect a write with a link. So the daemon writes its files
beside NAME and renames them into it, which replaces a link and does not follow it. If that is refused, because the
bundle is not writable or a directory has the file's name, the bundle is moved one level down instead.

owner.json says who holds a claim, so that others can find out whether its owner is alive. A process is identified by
its pid and its start time, because pids are reused. The kernel gives the start in ticks since the boot, and the boot's
id distinguishes it from other boots and from other machines of the same name (proc(5)). A daemon is identified by its
data directory, which outlives its processes and which only one process holds at a time.
"""

import contextlib
import errno
import itertools
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from protocol.schema import File
from renderer import disk
from renderer.errors import ConfigError
from renderer.frontends.spool.incoming import MANIFEST_NAMES
from renderer.work import EVERY_IMAGE

OWNER_NAME = "owner.json"
PART_NAME = f".{OWNER_NAME}.part"
_MAX_BYTES = 16 * 1024
_PROC = Path("/proc")


class Holder(BaseModel):
    """A daemon's process."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    process_started: str
    daemon: str

    def holds(self, claim: "Owner | None") -> bool:
        """Whether a claim is this process's."""
        return claim is not None and all(getattr(claim, name) == value for name, value in self)


class Owner(Holder):
    """What owner.json says: who holds a claim, since when, and for which job."""

    claimed_at: str
    job: str
    bundle: bool


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was found in a claim: its owner, None if that cannot be read, and when it was last renewed."""

    owner: Owner | None
    heard_at: float


def this_process(daemon: str) -> Holder:
    pid = os.getpid()
    return Holder(host=socket.gethostname(), pid=pid, process_started=_started(pid) or "", daemon=daemon)


def look(claim: Path) -> Sighting:
    """Read a claim's owner.json; if there is none, the claim counts as renewed when it was made.

    The file is opened before its time is read, which makes a network file system ask its server.

    Raises:
        FileNotFoundError: the claim is gone.
        OSError: it cannot be read.
    """
    try:
        with (claim / OWNER_NAME).open("rb") as file:
            text, heard_at = file.read(_MAX_BYTES), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return Sighting(None, claim.stat().st_mtime)
    try:
        return Sighting(Owner.model_validate_json(text), heard_at)
    except ValidationError:
        return Sighting(None, heard_at)


def write(claim: Path, owner: Owner) -> None:
    """Write owner.json. It is not synced, because after a power cut its owner is dead anyway."""
    part = claim / PART_NAME
    part.write_text(owner.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(claim / OWNER_NAME)


def is_dead(sighting: Sighting, us: Holder, now: float, lease_s: float) -> bool:
    """Whether the owner of a claim is dead.

    An earlier process of our own daemon must be dead, because we hold its data directory. Others count as dead after a
    time without renewal, unless their process is visible: one that is stopped or swapped out will continue later.

    Args:
        now: the time of the clock that the claims' times come from.
    """
    owner = sighting.owner
    if owner and owner.daemon == us.daemon:
        return not us.holds(owner)
    if now - sighting.heard_at <= lease_s:
        return False
    return not (owner and owner.host == us.host and _is_running(owner))


def _is_running(owner: Owner) -> bool:
    started = _started(owner.pid)
    return started is not None and started == owner.process_started


def _started(pid: int) -> str | None:
    """Return what distinguishes a process from others with the same pid; None if it does not exist or has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field is the program's name, which may hold spaces and brackets; the third is the state.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        if fields[0] not in (b"Z", b"X"):
            return f"{int(fields[19])}@{boot}"
    return None


Ending = Literal["done", "failed"]

VIDEO_NAME = "video.mp4"
_REPORTS: dict[Ending, str] = {"done": "result.json", "failed": "error.json"}
_PARTS = ("incoming", "active", "done", "failed")
_MADE = {VIDEO_NAME, *(image.after(VIDEO_NAME) for image in EVERY_IMAGE)}
_OURS = {OWNER_NAME, *_MADE, *_REPORTS.values()}
_REPORT_PART = ".report.part"
_DEATHS = ".deaths"  # how often a daemon died while reading the manifest, including the one that reads it now
_FOR_OTHERS = 0o666  # readable by all who share the directory, as far as the umask allows
_WRAPPER = ".wrapper"
_NAME_MAX_BYTES = 255
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}


@dataclass(frozen=True, slots=True)
class Claim:
    """A manifest that we have claimed.

    Attributes:
        directory: active/ID.
        name: the name of the directory in it that becomes done/NAME or failed/NAME.
        job_id: the claim's id; a longer one if the claim was taken over, because the daemon's store may already hold a
            cancelled job under the claim's id.
        is_bundle: whether its images came with it; otherwise they stay in `incoming`.
    """

    directory: Path
    name: str
    job_id: str
    is_bundle: bool

    @property
    def id(self) -> str:
        return self.directory.name

    @property
    def files(self) -> Path:
        return self.directory / self.name

    @property
    def manifest(self) -> Path:
        """The path of the manifest, whose name depends on its format."""
        found = (self.files / name for name in MANIFEST_NAMES if os.path.lexists(self.files / name))
        return next(found, self.files / MANIFEST_NAMES[0])

    @property
    def base(self) -> Path:
        """The directory that the manifest's relative paths start from."""
        return self.files if self.is_bundle else self.directory.parent.parent / "incoming"

    @property
    def output(self) -> Path:
        """The directory that its video is made in, which no earlier owner has used."""
        return self.directory / f".{self.job_id}"


def prepare(directory: Path) -> None:
    """Create the directory and its four parts.

    Raises:
        ConfigError: they cannot be created or written to, or are on several file systems, which a rename cannot cross.
    """
    try:
        for part in _PARTS:
            (directory / part).mkdir(parents=True, exist_ok=True)
        devices = {(directory / part).stat().st_dev for part in ("", *_PARTS)}
    except OSError as error:
        raise ConfigError(f"spool.directory: {directory}: {error.strerror}") from error
    for part in ("", *_PARTS):
        if not os.access(directory / part, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise ConfigError(f"spool.directory: {directory / part} is not writable")
    if len(devices) > 1:
        raise ConfigError(f"spool.directory: {', '.join(_PARTS)} in {directory} lie on more than one file system")


def held_name(name: str) -> str:
    """Return the name of a manifest's directory while it is claimed, which must not be one of the daemon's own."""
    return f"{name}.2" if name in _OURS else name


def content(directory: Path, job_id: str | None) -> str | None:
    """Return the NAME in a claim; None if its owner died before it was there, or after it was moved.

    Args:
        job_id: the job of the owner who died; what it has made goes back to where it was made. None if it is not known.
    """
    wrapper = directory / _WRAPPER
    if wrapper.is_dir():  # its owner died in `fill`
        made = directory / f".{job_id}"
        for path in wrapper.iterdir():
            if path.name not in _OURS:
                path.rename(directory / path.name)
            elif job_id and path.name in _MADE:
                made.mkdir(exist_ok=True, mode=0o700)
                path.rename(made / path.name)
        shutil.rmtree(wrapper)
    names = (path.name for path in directory.iterdir())
    return min((name for name in names if not name.startswith(".") and name != OWNER_NAME), default=None)


def is_single(files: Path) -> bool:
    """Whether the claim holds nothing but a manifest."""
    with contextlib.suppress(OSError):
        return {path.name for path in files.iterdir()} <= {*MANIFEST_NAMES, *_OURS}
    return False


def deaths(claim: Claim) -> int:
    """Return how often a daemon has died while reading this manifest."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return int((claim.directory / _DEATHS).read_text(encoding="ascii")[:4])
    return 0


def note_deaths(claim: Claim, deaths: int) -> None:
    """Record how many deaths it will have been if the daemon dies now; 0 once the manifest has been read."""
    note = claim.directory / _DEATHS
    with contextlib.suppress(FileNotFoundError):  # the claim is gone, as reading it will show
        if deaths:
            note.write_text(str(deaths), encoding="ascii")
        else:
            note.unlink()


def has_files(claim: Claim, files: Iterable[File]) -> bool:
    """Whether all these files are where they were made or, if `fill` was interrupted, where they are moved to."""
    return all(_has(claim, file) for file in files)


def _has(claim: Claim, file: File) -> bool:
    for directory in (claim.output, claim.files, claim.directory / _WRAPPER):
        with contextlib.suppress(OSError):
            if (directory / file.file_name).lstat().st_size == file.file_size:
                return True
    return False


def fill(claim: Claim, ending: Ending, report: str) -> Path:
    """Put the report and what was made into NAME, and return the directory to move, which is NAME or one around it.

    Raises:
        OSError: it cannot be done now, and may be tried again.
    """
    wrapper = claim.directory / _WRAPPER
    if not wrapper.is_dir():
        try:
            claim.files.mkdir(exist_ok=True)
            _put(claim, claim.files, ending, report)
            return claim.files
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
        wrapper.mkdir()
    with contextlib.suppress(FileNotFoundError):
        claim.files.rename(wrapper / claim.name)
    _put(claim, wrapper, ending, report)
    return wrapper


def _put(claim: Claim, target: Path, ending: Ending, report: str) -> None:
    with _syncing(target):
        for name in _REPORTS.values():  # from an earlier run, if a failed bundle was moved back to `incoming`
            (target / name).unlink(missing_ok=True)
        disk.put(target / _REPORTS[ending], report.encode(), part=claim.directory / _REPORT_PART, mode=_FOR_OTHERS)
        if ending == "done":
            _move(claim.output, target)


def _move(made: Path, target: Path) -> None:
    """Move what was made, all of it or nothing."""
    moved = []
    try:
        for name in _MADE:
            with contextlib.suppress(FileNotFoundError):
                (made / name).replace(target / name)
                moved.append(name)
    except OSError:
        for name in moved:
            (target / name).replace(made / name)
        raise


def clear(directory: Path) -> None:
    """Remove a claim, unless it contains files that are not the daemon's own."""
    for path in directory.glob(f".{directory.name}*"):
        shutil.rmtree(path, ignore_errors=True)
    for name in (
        _REPORT_PART,
        _DEATHS,
        PART_NAME,
        OWNER_NAME,
    ):  # the owner last, because a claim without one belongs to nobody
        (directory / name).unlink(missing_ok=True)
    directory.rmdir()


def free_name(parent: Path, name: str) -> Path:
    """Return parent/NAME, or NAME.2 and so on if that is taken; a name that would be too long is shortened."""
    return next(path for number in itertools.count(1) if _is_free(path := parent / _numbered(name, number)))


def _numbered(name: str, number: int) -> str:
    suffix = f".{number}" if number > 1 else ""
    while len(os.fsencode(name)) + len(suffix) > _NAME_MAX_BYTES:
        name = name[:-1]
    return name + suffix


def _is_free(path: Path) -> bool:
    if not os.path.lexists(path):
        return True
    with contextlib.suppress(OSError):
        return not path.is_symlink() and not any(path.iterdir())  # a rename replaces an empty directory
    return False


def sync(directory: Path) -> None:
    with _syncing(directory):
        pass


@contextlib.contextmanager
def _syncing(directory: Path) -> Iterator[None]:
    """Sync a directory at the end of the block; if it cannot be opened for that, fail before the block."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
        os.fsync(handle)
    finally:
        os.close(handle)
