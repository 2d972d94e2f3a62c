"""The data directory as a whole: examined, backed up while a daemon uses it, and restored.

A backup is a tar archive of a copy of the store, made by SQLite itself (https://www.sqlite.org/backup.html), the files
that the copy names, and the keys and secrets. Attachments are removed when their job ends, so the store is copied again
until all the attachments that it names were still there. The store is the last file in the archive, and is put in its
place last: a restore that is cut short leaves no store that names missing files.
"""

import contextlib
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from renderer import disk
from renderer.errors import ConfigError
from renderer.jobs.data_dir import STORE_NAME
from renderer.jobs.files import link
from renderer.jobs.outcome import kept_files
from renderer.jobs.schema import APPLICATION_ID, MIGRATIONS

_TRIES = 10
_STORE_FILES = (STORE_NAME, f"{STORE_NAME}-wal", f"{STORE_NAME}-shm")
_LEFT_OUT = {*_STORE_FILES, "lock", "reserve", "scratch", "outputs", "attachments", "stills"}


@dataclass(frozen=True, slots=True)
class Findings:
    """How store and files fit together.

    Attributes:
        jobs: how many are in each state.
        videos: of the store's jobs.
        missing_videos: the jobs whose video is not where it should be.
        missing_attachments: the jobs that wait for attachments that are not there.
        unknown_videos: the size of each video that belongs to no job.
    """

    jobs: Counter[str]
    videos: int
    missing_videos: list[str]
    missing_attachments: list[str]
    unknown_videos: dict[str, int]

    @property
    def are_good(self) -> bool:
        return not (self.missing_videos or self.missing_attachments or self.unknown_videos)


def examine(data: Path) -> Findings:
    """Compare the store with the files; a daemon may be at work meanwhile.

    Raises:
        ConfigError: the store is missing or damaged.
    """
    with _store(data / STORE_NAME) as database:
        states = dict(database.execute("SELECT id, state FROM jobs"))
        kept = [row[0] for row in database.execute("SELECT id FROM jobs WHERE video_bytes > 0 ORDER BY number")]
        waiting = _attachments(database)
    there = _videos(data / "outputs")
    return Findings(
        jobs=Counter(states.values()),
        videos=len(kept),
        missing_videos=[job_id for job_id in kept if job_id not in there],
        missing_attachments=[job_id for job_id, name in waiting.items() if not (data / "attachments" / name).is_dir()],
        unknown_videos={name: size for name, size in there.items() if name not in states},
    )


def back_up(data: Path, file: Path, spool: Path | None = None) -> int:
    """Write a backup; a daemon may be at work meanwhile.

    Args:
        spool: the manifest directory, which is not part of it.

    Returns:
        How many jobs are in it.

    Raises:
        ConfigError: the store is missing or damaged, or the backup cannot be written.
    """
    file = file.absolute()
    if file.is_relative_to(data):
        raise ConfigError(f"expected a file outside the data directory, found {file}")
    part = file.with_name(f".{file.name}.part")
    try:
        with contextlib.ExitStack() as stack:
            (data / "scratch").mkdir(exist_ok=True, mode=0o700)
            staging = Path(tempfile.mkdtemp(prefix="backup-", dir=data / "scratch"))
            stack.callback(shutil.rmtree, staging, ignore_errors=True)
            stack.callback(part.unlink, missing_ok=True)
            count, videos = _stage(data, staging)
            stream = stack.enter_context(open(part, "wb", opener=disk.open_private))
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for path, name in (*_others(data, spool), *_named(data, videos), *_below(staging, staging)):
                    if name != STORE_NAME:
                        _add(archive, path, name)
                _add(archive, staging / STORE_NAME, STORE_NAME)
            disk.flush(stream)
            disk.settle(part, file)
            return count
    except OSError as error:
        raise ConfigError(f"the backup could not be written: {error.filename or file}: {error.strerror}") from error


def restore(file: Path, data: Path) -> Findings:
    """Lay a backup out in a data directory that no daemon uses and that knows no job; the caller holds it.

    Raises:
        ConfigError: the file is not a backup or cannot be laid out, or the store has jobs already.
    """
    if (data / STORE_NAME).exists():
        with _store(data / STORE_NAME) as database:
            [count] = database.execute("SELECT count(*) FROM jobs").fetchone()
        if count:
            raise ConfigError(f"server.data_dir: {data}: its store knows {count} jobs; restore into an empty directory")
    part = data / f".{STORE_NAME}.part"
    part.unlink(missing_ok=True)
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                _lay_out(archive, member, part if member.name == STORE_NAME else data / _safe(member))
        with _store(part):
            pass  # it is a store, and not damaged
        for name in _STORE_FILES[1:]:
            (data / name).unlink(missing_ok=True)
        disk.settle(part, data / STORE_NAME)
    except (tarfile.TarError, EOFError, ConfigError) as error:
        words = str(error) if isinstance(error, ConfigError) else "expected a tar archive that ends as it should"
        raise ConfigError(f"{file}: expected a whole backup of stillreel: {words}") from error
    except OSError as error:
        raise ConfigError(f"the backup could not be restored: {error.filename or file}: {error.strerror}") from error
    finally:
        for name in (part.name, f"{part.name}-wal", f"{part.name}-shm"):
            (data / name).unlink(missing_ok=True)
    return examine(data)


# The store.


@contextlib.contextmanager
def _store(path: Path) -> Iterator[sqlite3.Connection]:
    """Lend a store for reading.

    Raises:
        ConfigError: the store is missing, damaged, or of a newer version.
    """
    if not path.is_file():
        raise ConfigError(f"server.data_dir: {path.parent} has no store of jobs")
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            [application] = database.execute("PRAGMA application_id").fetchone()
            [version] = database.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID or not 0 < version <= len(MIGRATIONS):
                raise ConfigError(f"server.data_dir: {path}: expected a store of stillreel that this version can read")
            [verdict] = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            yield database
    except sqlite3.Error as error:
        raise ConfigError(f"server.data_dir: {path}: the store of jobs is damaged ({error})") from error


def _attachments(database: sqlite3.Connection) -> dict[str, str]:
    """Return the name of the attachments' directory of each job that still needs them."""
    rows = database.execute("SELECT id, files FROM jobs WHERE work IS NOT NULL AND files IS NOT NULL")
    return {job_id: Path(os.fsdecode(files)).name for job_id, files in rows}


def _stage(data: Path, staging: Path) -> tuple[int, list[str]]:
    """Copy the store, and give the attachments that it names second names, which outlive their jobs."""
    for left in reversed(range(_TRIES)):
        with _store(data / STORE_NAME) as database, contextlib.closing(sqlite3.connect(staging / STORE_NAME)) as copy:
            (staging / STORE_NAME).chmod(0o600)
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # a single file
            [count] = copy.execute("SELECT count(*) FROM jobs").fetchone()
            videos = [row[0] for row in copy.execute("SELECT id FROM jobs WHERE video_bytes > 0")]
            names = list(_attachments(copy).values())
        shutil.rmtree(staging / "attachments", ignore_errors=True)
        linked = [_link(data / "attachments" / name, staging / "attachments" / name) for name in names]
        if all(linked) or not left:
            break
    return count, videos


def _link(source: Path, target: Path) -> bool:
    target.mkdir(parents=True)
    try:
        for file in source.iterdir():
            link(file, target / file.name)
    except FileNotFoundError:
        return False
    return True


# The files.


def _videos(outputs: Path) -> dict[str, int]:
    found = {}
    for directory in outputs.iterdir() if outputs.is_dir() else ():
        with contextlib.suppress(OSError):
            if files := kept_files(directory):
                found[directory.name] = sum(file.stat().st_size for file in files)
    return found


def _named(data: Path, videos: list[str]) -> Iterator[tuple[Path, str]]:
    for job_id in videos:
        for file in kept_files(data / "outputs" / job_id):
            yield file, f"outputs/{job_id}/{file.name}"


def _others(data: Path, spool: Path | None) -> Iterator[tuple[Path, str]]:
    """Find keys, secrets, uploads, logs and all other files."""
    for entry in sorted(data.iterdir()):
        if entry.name in _LEFT_OUT or entry == spool:
            continue
        if entry.is_dir():
            yield from _below(entry, data)
        else:
            yield entry, entry.name


def _below(directory: Path, root: Path) -> Iterator[tuple[Path, str]]:
    for here, _, names in os.walk(directory):
        for name in names:
            yield Path(here, name), Path(here, name).relative_to(root).as_posix()


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add a file as it is at this moment; a file that was removed meanwhile was not needed any more."""
    try:
        stream = path.open("rb") if path.is_file() and not path.is_symlink() else None
    except FileNotFoundError:
        return
    if stream:
        with stream:
            archive.addfile(archive.gettarinfo(arcname=name, fileobj=stream), stream)


def _safe(member: tarfile.TarInfo) -> PurePosixPath:
    name = PurePosixPath(member.name)
    if not member.isreg() or name.is_absolute() or ".." in name.parts or name.parts[:1] in {(n,) for n in _STORE_FILES}:
        raise tarfile.TarError(f"{member.name!r} has no place in one")
    return name


def _lay_out(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise tarfile.TarError(f"{member.name!r} has no place in one")
    for directory in reversed(path.parents):
        if not directory.exists():
            directory.mkdir(mode=0o700)
    with content, open(path, "wb", opener=disk.open_private) as stream:
        shutil.copyfileobj(content, stream)  # raises TarError where the archive is cut short
        disk.flush(stream)
    os.utime(path, (member.mtime, member.mtime))
