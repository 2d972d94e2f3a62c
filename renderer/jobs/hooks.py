"""The calls to be made when jobs are done, in a table of the store, so that they survive a restart.

A row is written in the same transaction as its job, and becomes due in the transaction that ends the job. It is removed
when the call was acknowledged, or given up.
"""

import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

SCHEMA = """
    CREATE TABLE hooks (
      job_id TEXT PRIMARY KEY,
      url TEXT NOT NULL,
      base TEXT,
      tries INTEGER NOT NULL DEFAULT 0,
      ended_at REAL,
      due_at REAL
    ) STRICT;
    CREATE INDEX hooks_due ON hooks (due_at) WHERE due_at IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Hook:
    """A call that a request asks for.

    Attributes:
        base: the url that links to files begin with for this client; None for a client that reads files itself.
    """

    url: str
    base: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is due.

    Attributes:
        tries: calls made so far.
        ended_at: Unix time at which the job has ended.
    """

    job_id: str
    hook: Hook
    tries: int
    ended_at: float


def add(database: sqlite3.Connection, job_id: str, hook: Hook) -> None:
    """Note a call in the transaction that keeps its job."""
    database.execute("INSERT INTO hooks (job_id, url, base) VALUES (?, ?, ?)", (job_id, hook.url, hook.base))


def wake(database: sqlite3.Connection, job_id: str, ended_at: float | None) -> None:
    """Make a call due in the transaction that ends its job."""
    database.execute("UPDATE hooks SET ended_at = ?, due_at = ? WHERE job_id = ?", (ended_at, ended_at, job_id))


def pending(database: sqlite3.Connection) -> int:
    """Return how many calls about jobs that have ended are still to be made, or made again."""
    [count] = database.execute("SELECT count(*) FROM hooks WHERE due_at IS NOT NULL").fetchone()
    return int(count)


class HookStore:
    """The calls that are to be made; raises what the store of jobs raises."""

    def __init__(self, transaction: Callable[[], AbstractContextManager[sqlite3.Connection]]) -> None:
        self._transaction = transaction

    def due(self, now: float, limit: int) -> list[Call]:
        """Return the calls whose time has come, the longest overdue first."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT job_id, url, base, tries, ended_at FROM hooks WHERE due_at <= ? ORDER BY due_at LIMIT ?",
                (now, limit),
            ).fetchall()
        return [Call(job_id, Hook(url, base), tries, ended_at) for job_id, url, base, tries, ended_at in rows]

    def postpone(self, job_id: str, due_at: float) -> None:
        """Note a call that was not acknowledged, and when to make the next."""
        with self._transaction() as database:
            database.execute("UPDATE hooks SET tries = tries + 1, due_at = ? WHERE job_id = ?", (due_at, job_id))

    def remove(self, job_id: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM hooks WHERE job_id = ?", (job_id,))
