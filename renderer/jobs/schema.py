"""The schema of the store, version by version, and how a file of an earlier one is brought up.

The version is SQLite's user_version; every entry of MIGRATIONS brings it up by one. A job has a column of its own for
what it is found by, and one JSON document for the rest, so that a field that is new to a job is none to the schema.
Paths are columns too, because they are bytes and need not be text, which JSON has to be. What a job is made from
(`work`) is the last column: it is the largest and the least read.
"""

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from renderer.errors import ConfigError
from renderer.jobs import hooks

APPLICATION_ID = 0x5354524C  # "STRL": tells our file from another program's

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE jobs (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      client TEXT NOT NULL,
      digest TEXT NOT NULL,
      priority TEXT NOT NULL,
      state TEXT NOT NULL,
      attempts INTEGER NOT NULL,
      interruptions INTEGER NOT NULL,
      setback TEXT,
      output BLOB NOT NULL,
      is_kept_elsewhere INTEGER NOT NULL,
      files BLOB,
      sync_mode INTEGER NOT NULL,
      progress TEXT NOT NULL,
      accepted_at REAL NOT NULL,
      start_by REAL,
      started_at REAL,
      finished_at REAL,
      video_bytes INTEGER NOT NULL,
      result TEXT,
      error TEXT,
      work TEXT
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
    CREATE INDEX jobs_with_video ON jobs (finished_at, number, video_bytes) WHERE video_bytes > 0;
    """,
    hooks.SCHEMA,
    # Named from the data directory on: a job's own place by its id, that of its attachments by its 32 digits.
    """
    UPDATE jobs SET output = CAST('outputs/' || id AS BLOB),
      result = json_set(result, '$.video.url', 'outputs/' || id || '/' || json_extract(result, '$.video.file_name'))
      WHERE NOT is_kept_elsewhere;
    UPDATE jobs SET files = CAST('attachments/' || CAST(substr(files, -32) AS TEXT) AS BLOB) WHERE files IS NOT NULL;
    UPDATE jobs SET work = json_set(work, '$.attachments', json(
        (SELECT json_group_array(json(json_extract(value, '$.layout'))) FROM json_each(work, '$.attachments'))
      )) WHERE work IS NOT NULL;
    """,
    # One document in place of fourteen columns. A part that is no JSON makes its own job unreadable, and no other.
    """
    ALTER TABLE jobs RENAME TO jobs_in_columns;
    CREATE TABLE jobs (
      number INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      state TEXT NOT NULL,
      finished_at REAL,
      video_bytes INTEGER NOT NULL,
      output BLOB NOT NULL,
      files BLOB,
      job TEXT NOT NULL,
      work TEXT
    ) STRICT;
    INSERT INTO jobs
      SELECT number, id, state, finished_at, video_bytes, output, files, json_object(
        'client', client,
        'digest', digest,
        'priority', priority,
        'progress', json(iif(json_valid(progress), progress, 'null')),
        'accepted_at', json(exact(accepted_at)),
        'is_kept_elsewhere', json(iif(is_kept_elsewhere, 'true', 'false')),
        'sync_mode', json(iif(sync_mode, 'true', 'false')),
        'start_by', json(exact(start_by)),
        'attempts', attempts,
        'interruptions', interruptions,
        'setback', setback,
        'started_at', json(exact(started_at)),
        'result', json(iif(result IS NULL, 'null', iif(json_valid(result), result, '{}'))),
        'error', json(iif(error IS NULL, 'null', iif(json_valid(error), error, '{}')))
      ), work FROM jobs_in_columns;
    DROP TABLE jobs_in_columns;
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_by_end ON jobs (finished_at) WHERE finished_at IS NOT NULL;
    CREATE INDEX jobs_with_video ON jobs (finished_at, number, video_bytes) WHERE video_bytes > 0;
    """,
)


def bring_up(database: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Make an empty file a store, or bring a store of an earlier version up, in one transaction.

    Args:
        path: names the file in errors.
        migrations: the script that leads to each version.

    Raises:
        ConfigError: this is another program's file or a newer version's store, which stays as it is.
        sqlite3.Error: it is damaged, locked or on a full disk; the store has the version that it had.
    """
    [version] = database.execute("PRAGMA user_version").fetchone()
    [application] = database.execute("PRAGMA application_id").fetchone()
    [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (tables or version or application) and application != APPLICATION_ID:
        raise ConfigError(f"server.data_dir: {path}: this is not a store of stillreel")
    if version > len(migrations):
        raise ConfigError(f"server.data_dir: {path}: made by a newer version of stillreel")
    [verdict] = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    # SQLite writes a number into JSON with 15 digits, and a Unix time with microseconds has more.
    database.create_function("exact", 1, json.dumps, deterministic=True)
    # Written even where nothing is to be brought up: a full disk and another's lock show in a write only.
    steps = ("BEGIN IMMEDIATE", f"PRAGMA application_id = {APPLICATION_ID}", *migrations[version:])
    database.executescript(";".join((*steps, f"PRAGMA user_version = {len(migrations)}", "COMMIT;")))
