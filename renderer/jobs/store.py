"""Every job that the daemon knows: all of them in SQLite, the unfinished ones in memory too, and who watches them.

The database has one writer, and one transaction for each change, on the daemon's loop, where nothing else can come
between a look and a write. It keeps a write-ahead log, so that what was committed outlives a kill -9. A power cut is
outlived by what was flushed to the disk as well (https://www.sqlite.org/pragma.html#pragma_synchronous), which takes
from a fifth of a millisecond to several. Acceptances and ends, two for each job, are therefore committed at once and
flushed on a thread: `flushed` waits for the next flush, which all who wait at that moment share. Rarer changes are
flushed as they are committed, with synchronous=FULL.

Linux tells of a failed flush once; the next one is said to be fine, though what the first one left out is not on disk
(https://wiki.postgresql.org/wiki/Fsync_Errors). After a failure, all that the log holds is therefore written anew, into
the database itself, and the log is emptied, before anything else is stored or said to be.

A change is stored first and shown afterwards, so that nobody learns of anything that a kill could still undo. Answers
to clients, and the ends of jobs, also wait for the flush: until then a job is as it was, to all who ask and to
retention. The begin of a job does not wait: if a power cut undoes it, the job waits again, as it would after any
kill. Progress within a state is kept in memory only: it is out of date in a
moment, and after a kill the job begins again.

The work of a job, which it is made from, is cleared when the job ends. A job that ends without a video keeps it, so
that it can be retried, unless its pictures came with the request.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from protocol.schema import RenderResult
from renderer.disk import is_full
from renderer.errors import ConfigError, StorageFull, StoreFailed
from renderer.jobs import hooks
from renderer.jobs.files import Files
from renderer.jobs.hooks import Hook, HookStore
from renderer.jobs.job import Job, State, ids_of
from renderer.jobs.schema import COLUMNS, MIGRATIONS, bring_up, job_row, read_job, read_work, work_document
from renderer.work import AnyJob

_FULL = "the disk is full, so the job could not be stored; try again later"
_RESERVE_BYTES = 1 << 18  # some twenty moves
_MOST_KEPT = 1 << 20  # characters of a request that may be retried
_COLUMNS = ", ".join(COLUMNS)
_INSERT = f"INSERT INTO jobs ({_COLUMNS}, work) VALUES (?{', ?' * len(COLUMNS)})"  # noqa: S608 - fixed column names
_SETS = ", ".join(f"{name} = ?" for name in COLUMNS)
_UNFINISHED = tuple(state.value for state in State if not state.is_last)


class JobStore:
    """Jobs by id; used on one thread, and watched on its loop.

    Reading and writing raise StorageFull if the disk is full and StoreFailed for any other fault of the database; what
    was stored before is not changed.
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
        self._unseen: dict[str, State] = {}  # ends that are committed and not flushed
        self.hooks = HookStore(self._transaction)
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._counts: Counter[tuple[State, str]] = Counter()  # unfinished jobs by state and owner, and by state alone
        self._log: IO[bytes] | None = None
        self._flushing = asyncio.Lock()
        self._next_flush: asyncio.Task[None] | None = None
        self._is_doubtful = False  # whether some of the log may not be on disk, whatever the next flush says
        self._is_full_sync = True
        try:
            with contextlib.suppress(OSError):  # SQLite says what is wrong
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its log takes the mode from it
            self._database = sqlite3.connect(path, timeout=2, isolation_level=None)
            try:
                bring_up(self._database, path, migrations)
                self._log = path.with_name(f"{path.name}-wal").open("rb+", buffering=0)
                unfinished = self._select("WHERE state IN (?, ?) ORDER BY number", _UNFINISHED)
                self._live = {job.id: job for job in unfinished}
                for job in unfinished:
                    self._count(job, 1)
                self._reserve.keep()
            except BaseException:
                self.close()
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
        if self._log:
            self._log.close()

    # Writing.

    async def flushed(self) -> None:
        """Return when all that was committed so far is on disk.

        Raises:
            StoreFailed, StorageFull: that is not certain.
        """
        if self._next_flush is None:
            self._next_flush = asyncio.create_task(self._flush())
        await asyncio.shield(self._next_flush)

    async def _flush(self) -> None:
        async with self._flushing:
            self._next_flush = None  # who asks from now on may come too late for this one
            assert self._log is not None  # noqa: S101 - the store is open
            try:
                self._write_anew()
                await asyncio.to_thread(os.fsync, self._log)
            except OSError as error:
                self._is_doubtful = True
                raise StoreFailed(_cannot_be_written(error)) from error

    def _write_anew(self) -> None:
        """Write what the log holds into the database if a flush of the log has failed.

        The log is emptied by that, which is flushed as well: what a power cut brought back of it would be older.
        """
        if not self._is_doubtful:
            return
        assert self._log is not None  # noqa: S101 - it was flushed before
        with _translated():
            [is_busy, *_] = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise StoreFailed("the store of jobs is being read, and cannot be repaired after a failure of its disk now")
        os.fsync(self._log)
        self._is_doubtful = False

    def add(self, job: Job, work: AnyJob | None, hook: Hook | None = None, *, is_synced: bool = True) -> None:
        """Keep a new job, and who is to be called at its end; refused while others lack the room in which to end.

        Args:
            work: None for a job that has ended already.
            is_synced: on disk on return; else the caller waits for `flushed` before anybody is told.
        """
        try:
            self._reserve.keep()
        except OSError as error:
            raise StorageFull(_FULL) from error
        with self._transaction(is_synced=is_synced) as database:
            database.execute(_INSERT, (*job_row(job, self._root), work_document(work) if work else None))
            if hook:
                hooks.add(database, job.id, hook)
        self._show(job)

    def update(self, job: Job) -> Job:
        """Keep what has changed of a job, such as its state, and wake those who watch it.

        Raises:
            StoreFailed: the stored job is in another state than the one that is known.
        """
        self._write(job, is_synced=job.state is not State.RUNNING)
        self._show(job)
        return job

    async def end(self, job: Job) -> None:
        """Keep a job's last state as `update` does, with one flush for all jobs that end at about the same time.

        It may be called again after a failure, whichever part it was that failed.
        """
        self._write(job, is_synced=False)
        self._unseen[job.id] = job.state
        await self.flushed()
        self._show(job)

    def _write(self, job: Job, *, is_synced: bool) -> None:
        """Write a job to the store; if the disk is full, into the room that is reserved for that."""
        try:
            self._update(job, is_synced=is_synced)
        except StorageFull:
            if not self._reserve.spend():
                raise
            self._update(job, is_synced=is_synced)

    def _show(self, job: Job) -> None:
        """Let a change be seen that is stored."""
        self._unseen.pop(job.id, None)
        if before := self._live.get(job.id):
            self._count(before, -1)
        if job.is_finished:
            self._live.pop(job.id, None)
        else:
            self._count(job, 1)
            self._live[job.id] = job
        self.wake(job.id)

    def _count(self, job: Job, change: int) -> None:
        for owner in {job.owner, ""}:
            self._counts[job.state, owner] += change

    def _update(self, job: Job, *, is_synced: bool) -> None:
        before = self._unseen.get(job.id) or self._live.get(job.id, job).state
        forget = ", work = NULL" if job.is_finished else ""
        if job.is_finished and job.state is not State.DONE and job.files is None and not job.is_kept_elsewhere:
            forget = f", work = CASE WHEN length(work) <= {_MOST_KEPT} THEN work END"
        with self._transaction(is_synced=is_synced) as database:
            changed = database.execute(
                f"UPDATE jobs SET {_SETS}{forget} WHERE id = ? AND state = ?",  # noqa: S608 - fixed column names
                (*job_row(job, self._root), job.id, before.value),
            )
            if changed.rowcount != 1:
                raise StoreFailed(f"job {job.id} is not {before.value} in the store")
            if job.is_finished:
                hooks.wake(database, job.id, job.finished_at)

    def note(self, job: Job) -> None:
        """Keep the progress of a job in memory; progress of a state that the job has left comes too late."""
        if job.id in self._live and self._live[job.id].state is job.state:
            self._live[job.id] = job
            self.wake(job.id)

    def forget(self, job_ids: Collection[str]) -> None:
        with self._transaction() as database:
            database.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in job_ids])

    # Reading.

    def get(self, job_id: str) -> Job | None:
        """Return a job in its present state."""
        if live := self._live.get(job_id):
            return live
        found = self._select("WHERE id = ?", (job_id,))
        return found[0] if found else None

    def work(self, job_id: str) -> AnyJob:
        """Return what a job is made from; among jobs that have ended, only those that may be retried still have it."""
        with _translated():
            row = self._database.execute("SELECT work, files FROM jobs WHERE id = ?", (job_id,)).fetchone()
        if row is None or row[0] is None:
            raise StoreFailed(f"job {job_id} has nothing in the store that it could be made from")
        return read_work(row[0], Files(self._root / os.fsdecode(row[1] or b"")))

    def live(self, job_id: str) -> Job | None:
        """Return the job if it is unfinished."""
        return self._live.get(job_id)

    def unfinished(self) -> list[Job]:
        """Return the jobs that wait or run, in order of arrival."""
        return list(self._live.values())

    def count(self, state: State, owner: str = "") -> int:
        """Return how many unfinished jobs are in this state; those of one owner, or all."""
        return self._counts[state, owner]

    def newest(self, states: Collection[State], limit: int, owner: str = "") -> list[Job]:
        """Return an owner's newest jobs in any of these states, or in all if none is named, in order of arrival."""
        states = states or list(State)
        marks, unseen = ", ".join("?" * len(states)), ", ".join("?" * len(self._unseen))
        mine, bounds = ("id >= ? AND id < ?", ids_of(owner)) if owner else ("instr(id, ?) = 0", ids_of(owner)[:1])
        values = (*(state.value for state in states), *self._unseen, *bounds, limit + len(self._unseen))
        found = self._select(
            f"WHERE (state IN ({marks}) OR id IN ({unseen})) AND {mine} ORDER BY number DESC LIMIT ?", values
        )
        seen = [self._live.get(job.id, job) for job in found]
        return [job for job in seen if job.state in states][:limit][::-1]

    def finished_before(self, moment: float, limit: int) -> list[Job]:
        """Return the jobs that ended before this moment, oldest first."""
        return self._ended("finished_at < ? ORDER BY finished_at, number LIMIT ?", (moment, limit))

    def finished_beyond(self, count: int, limit: int) -> list[Job]:
        """Return the finished jobs that are older than the `count` youngest, oldest first."""
        ended = "finished_at IS NOT NULL"
        surplus = f"(SELECT count(*) FROM jobs WHERE {ended}) - ?"  # noqa: S608 - no values in it
        return self._ended(f"{ended} ORDER BY finished_at, number LIMIT max(0, min(?, {surplus}))", (limit, count))

    def _ended(self, where: str, values: Sequence[Any]) -> list[Job]:
        """Return jobs whose end is seen; one whose end is not seen yet is still needed as it is."""
        return [job for job in self._select(f"WHERE {where}", values) if job.id not in self._unseen]

    def pixels_since(self, owner: str, moment: float) -> int:
        """Return the pixels of the stills in an owner's jobs that were done since then."""
        jobs = self._select("WHERE finished_at > ? AND id >= ? AND id < ?", (moment, *ids_of(owner)))
        made = ((job.progress.images, job.result) for job in jobs)
        return sum(images * each.width * each.height for images, each in made if isinstance(each, RenderResult))

    def oldest_with_video(self) -> Job | None:
        """Return the job whose video the daemon has kept longest."""
        found = self._ended("video_bytes > 0 ORDER BY finished_at, number LIMIT 1", ())
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

    # Watching.

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """Lend an event that is set whenever the job changes."""
        changed = asyncio.Event()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(changed)
        try:
            yield changed
        finally:
            watchers.discard(changed)
            if not watchers and self._watchers.get(job_id) is watchers:
                del self._watchers[job_id]

    def wake(self, job_id: str) -> None:
        """Have those who watch a job look at it."""
        for watcher in self._watchers.get(job_id, ()):
            watcher.set()

    # The database.

    def _select(self, where: str, values: Sequence[Any]) -> list[Job]:
        with _translated():
            rows = self._database.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()  # noqa: S608 - ours
        return [read_job(row, self._root) for row in rows]

    @contextlib.contextmanager
    def _transaction(self, *, is_synced: bool = True) -> Iterator[sqlite3.Connection]:
        try:
            self._write_anew()
        except OSError as error:
            raise StoreFailed(_cannot_be_written(error)) from error
        with _translated():
            if is_synced is not self._is_full_sync:
                self._database.execute(f"PRAGMA synchronous = {'FULL' if is_synced else 'NORMAL'}")
                self._is_full_sync = is_synced
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException as error:
                self._is_doubtful |= getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_FSYNC
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


class Reserve:
    """Room on the store's disk for the time when the disk is full: a file that is given up then.

    Without it a job whose video has filled the disk could neither end nor fail, because both have to be written down,
    and would hold its slot until somebody made room.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Take the room, unless it is taken already.

        Raises:
            OSError: the disk has too little room.
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
        # An error without a code is Python's, about text that is not UTF-8; its message would quote the text.
        words = str(error) if hasattr(error, "sqlite_errorcode") else "a text in it cannot be read"
        raise StoreFailed(f"the store of jobs failed: {words}") from error


def _cannot_be_written(error: OSError) -> str:
    return f"the store of jobs cannot be written: {error.strerror}"


def _is_disk_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full; if there is no room for the log's index, SQLite reports an I/O error."""
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
