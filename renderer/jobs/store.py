"""The jobs on disk: SQLite, one writer, one transaction for each move.

Write-ahead log with synchronous=FULL (https://www.sqlite.org/pragma.html#pragma_synchronous): what was answered is on
disk before the answer leaves, and outlives a kill -9 and a power cut. A commit takes 0.2 ms on an SSD, so it is done on
the daemon's loop, where nothing else can come between a look and a write.

What a job is made from is cleared when the job ends; but a job without a video that brought no pictures along keeps it,
so that it can be retried.
"""

import contextlib
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from renderer.disk import is_full
from renderer.errors import ConfigError, StorageFull, StoreFailed
from renderer.jobs import hooks
from renderer.jobs.files import Files
from renderer.jobs.hooks import Hook, HookStore
from renderer.jobs.job import Job, State, ids_of
from renderer.jobs.record import COLUMNS, job_row, read_job, read_work, work_document
from renderer.jobs.schema import MIGRATIONS, bring_up
from renderer.work import RenderJob

_FULL = "the disk is full, so the job could not be stored; try again later"
_RESERVE_BYTES = 1 << 18  # some twenty moves
_MOST_KEPT = 1 << 20  # characters of a request that may be retried
_COLUMNS = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO jobs ({_COLUMNS}, work) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608 - fixed column names
_SETS = ", ".join(f"{name} = ?" for name in COLUMNS)
_UNFINISHED = tuple(state.value for state in State if not state.is_last)


class JobStore:
    """Every job that is known; used on one thread.

    Reading and writing raise StorageFull where the disk is full and StoreFailed for any other trouble of the database;
    what was stored stays as it was.
    """

    def __init__(self, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        """Open the database, or make it.

        Args:
            path: it lies in the data directory, which it names all files from.
            migrations: the script that leads to each version.

        Raises:
            ConfigError: it is damaged, locked, on a full disk, another program's or a newer version's.
        """
        self._root = path.parent
        self._reserve = Reserve(path.with_name("reserve"))
        self.hooks = HookStore(self._transaction)
        try:
            with contextlib.suppress(OSError):  # SQLite says what is wrong
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its log takes the mode from it
            self._database = sqlite3.connect(path, timeout=2, isolation_level=None)
            try:
                bring_up(self._database, path, migrations)
                self.unfinished()  # who cannot read what was accepted should not begin
                self._reserve.keep()
            except BaseException:
                self._database.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(f"server.data_dir: {path}: {_start_words(error)}") from error
        except StoreFailed as error:
            raise ConfigError(f"server.data_dir: {path}: {_damaged(error.message)}") from error
        except OSError as error:
            full = "the disk is full: " if is_full(error.errno) else ""
            raise ConfigError(f"server.data_dir: {path}: {full}{error.strerror}") from error

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # the checkpoint at the end needs room; the log has it all anyway
            self._database.close()

    # Writing.

    def add(self, job: Job, work: RenderJob, hook: Hook | None = None) -> None:
        """Keep a new job, and who is to be called at its end; refused while others lack the room in which to end."""
        try:
            self._reserve.keep()
        except OSError as error:
            raise StorageFull(_FULL) from error
        with self._transaction() as database:
            database.execute(_INSERT, (*job_row(job, self._root), work_document(work)))
            if hook:
                hooks.add(database, job.id, hook)

    def adopt(self, job: Job) -> None:
        """Keep a job that is finished already."""
        with self._transaction() as database:
            database.execute(_INSERT, (*job_row(job, self._root), None))

    def move(self, job: Job, before: State) -> None:
        """Keep a job that has moved; in its last state it lets go of what it was made from, unless it may be retried.

        Raises:
            StoreFailed: what is stored is not in the state `before`.
        """
        try:
            self._move(job, before)
        except StorageFull:
            if not self._reserve.spend():
                raise
            self._move(job, before)

    def _move(self, job: Job, before: State) -> None:
        forget = ", work = NULL" if job.is_finished else ""
        if job.is_finished and job.state is not State.DONE and job.files is None and not job.is_kept_elsewhere:
            forget = f", work = CASE WHEN length(work) <= {_MOST_KEPT} THEN work END"
        with self._transaction() as database:
            changed = database.execute(
                f"UPDATE jobs SET {_SETS}{forget} WHERE id = ? AND state = ?",  # noqa: S608 - fixed column names
                (*job_row(job, self._root), job.id, before.value),
            )
            if changed.rowcount != 1:
                raise StoreFailed(f"job {job.id} is not {before.value} in the store")
            if job.is_finished:
                hooks.wake(database, job.id, job.finished_at)

    def change(self, job: Job) -> None:
        """Keep what has changed of a job whose state has not."""
        self.move(job, job.state)

    def forget(self, job_ids: Collection[str]) -> None:
        with self._transaction() as database:
            database.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])

    # Reading.

    def get(self, job_id: str) -> Job | None:
        found = self._select("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def work(self, job_id: str) -> RenderJob:
        """Return what a job is made from; of those that have ended only what may be retried is still known."""
        with _translated():
            row = self._database.execute("SELECT work, files FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None or row[0] is None:
            raise StoreFailed(f"job {job_id} has nothing in the store that it could be made from")
        return read_work(row[0], Files(self._root / os.fsdecode(row[1] or b"")))

    def unfinished(self) -> list[Job]:
        """Return the jobs that wait or run, in order of arrival."""
        return self._select("WHERE state IN (?, ?) ORDER BY number", _UNFINISHED)

    def newest(self, states: Collection[State], limit: int, owner: str = "") -> list[Job]:
        """Return an owner's newest jobs in any of these states, in order of arrival."""
        marks = ", ".join("?" * len(states))
        mine, bounds = ("id >= ? AND id < ?", ids_of(owner)) if owner else ("instr(id, ?) = 0", ids_of(owner)[:1])
        values = (*(state.value for state in states), *bounds, limit)
        return self._select(f"WHERE state IN ({marks}) AND {mine} ORDER BY number DESC LIMIT ?", values)[::-1]

    def finished_before(self, moment: float, limit: int) -> list[Job]:
        """Return the jobs that ended before this moment, oldest first."""
        return self._select("WHERE finished_at < ? ORDER BY finished_at, number LIMIT ?", (moment, limit))

    def finished_beyond(self, count: int, limit: int) -> list[Job]:
        """Return the finished jobs that are older than the `count` youngest, oldest first."""
        ended = "finished_at IS NOT NULL"
        surplus = f"(SELECT count(*) FROM jobs WHERE {ended}) - ?"  # noqa: S608 - no values in it
        return self._select(
            f"WHERE {ended} ORDER BY finished_at, number LIMIT max(0, min(?, {surplus}))", (limit, count)
        )

    def pixels_since(self, owner: str, moment: float) -> int:
        """Return the pixels of the stills in an owner's jobs that were done since then."""
        jobs = self._select("WHERE finished_at > ? AND id >= ? AND id < ?", (moment, *ids_of(owner)))
        return sum(job.progress.images * job.result.width * job.result.height for job in jobs if job.result)

    def oldest_with_video(self) -> Job | None:
        """Return the job whose video the daemon has kept longest."""
        found = self._select("WHERE video_bytes > 0 ORDER BY finished_at, number LIMIT 1", ())
        return found[0] if found else None

    def video_bytes(self) -> int:
        with _translated():
            return int(
                self._database.execute("SELECT total(video_bytes) FROM jobs WHERE video_bytes > 0").fetchone()[0]
            )

    def webhooks_pending(self) -> int:
        with _translated():
            return hooks.pending(self._database)

    def ids(self) -> set[str]:
        with _translated():
            return {row[0] for row in self._database.execute("SELECT id FROM jobs")}

    def last_number(self) -> int:
        with _translated():
            return int(self._database.execute("SELECT coalesce(max(number), 0) FROM jobs").fetchone()[0])

    # How.

    def _select(self, where: str, values: Sequence[Any]) -> list[Job]:
        with _translated():
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()  # noqa: S608 - ours
        return [read_job(row, self._root) for row in rows]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


class Reserve:
    """Room on the store's disk that is kept for bad times: a file that is given up when there is no other.

    Without it a job whose video has filled the disk could neither end nor fail, because both have to be written down,
    and would hold its slot until somebody made room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Take the room, unless it is taken already.

        Raises:
            OSError: there is none.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size >= _RESERVE_BYTES:  # less is what a kill in the middle has left
                return
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, _RESERVE_BYTES)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(handle)

    def spend(self) -> bool:
        """Give the room up; return whether there was any."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if _is_disk_full(error):
            raise StorageFull(_FULL) from error
        # Without a code it is Python that complains, of a text that is not UTF-8; it would quote the text.
        words = str(error) if hasattr(error, "sqlite_errorcode") else "a text in it cannot be read"
        raise StoreFailed(f"the store of jobs failed: {words}") from error


def _is_disk_full(error: sqlite3.Error) -> bool:
    """Tell whether there is no room; where the log's index finds none SQLite calls it an I/O error."""
    return getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}


def _start_words(error: sqlite3.Error) -> str:
    """Say what keeps the store from being opened, and what to do about it."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if _is_disk_full(error):
        return "the disk is full"
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return "another program holds the store of jobs"
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return _damaged(str(error))
    return f"the store of jobs cannot be opened: {error}"


def _damaged(found: str) -> str:
    words = " ".join(found.split())
    return f"the store of jobs is damaged ({words}); restore it, or move it away to begin with an empty one"
