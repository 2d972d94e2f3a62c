"""How the store keeps a job: the schema, version by version, and a job and its work as the values of a row.

The version is SQLite's user_version; every entry of MIGRATIONS brings it up by one. A job has a column of its own for
each field that it is found by, and one JSON document for the rest, so that a new field of a job changes nothing in the
schema. Paths are columns too, because they are bytes and need not be text, which JSON has to be. What a job is made
from (`work`) is the last column: it is the largest and the least read. Its sources are named as `intake` left them:
inline images have become attachments before.

The store goes where its data directory goes: moved, copied, or restored from a backup. So everything in that directory
is named from there, the url of a video is made when the job is read, and attachments have no names but their numbers.
Only the directories of manifests, which are other people's, are named in full.
"""

import functools
import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from protocol.media import KINDS, AnyResult, kind_of
from protocol.schema import PixelLayout, RenderRequest, ResultWarning
from renderer.errors import ConfigError, StoreFailed
from renderer.jobs import hooks
from renderer.jobs.files import Files
from renderer.jobs.job import Job
from renderer.timeline import timeline_of
from renderer.work import AnyJob, Attachment, MediaJob, RenderJob

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
    # Paths begin at the data directory: that of a job's output is made of its id, that of its attachments of 32 digits.
    """
    UPDATE jobs SET output = CAST('outputs/' || id AS BLOB),
      result = json_set(result, '$.video.url', 'outputs/' || id || '/' || json_extract(result, '$.video.file_name'))
      WHERE NOT is_kept_elsewhere;
    UPDATE jobs SET files = CAST('attachments/' || CAST(substr(files, -32) AS TEXT) AS BLOB) WHERE files IS NOT NULL;
    UPDATE jobs SET work = json_set(work, '$.attachments', json(
        (SELECT json_group_array(json(json_extract(value, '$.layout'))) FROM json_each(work, '$.attachments'))
      )) WHERE work IS NOT NULL;
    """,
    # One document in place of fourteen columns. Text that is not JSON makes its own job unreadable, and no other.
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
    """Make a store of an empty file, or bring a store of an earlier version up to date, in one transaction.

    Args:
        path: named in errors.
        migrations: for each version, the script that leads to it.

    Raises:
        ConfigError: the file is another program's or a newer version's, and stays as it is.
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
    # SQLite writes numbers into JSON with 15 digits, and a Unix time with microseconds has more.
    database.create_function("exact", 1, json.dumps, deterministic=True)
    # Written even if the version is right: only a write shows that the disk is full or that another program has a lock.
    steps = ("BEGIN IMMEDIATE", f"PRAGMA application_id = {APPLICATION_ID}", *migrations[version:])
    database.executescript(";".join((*steps, f"PRAGMA user_version = {len(migrations)}", "COMMIT;")))


FIELDS: Final = (
    "number",
    "id",
    "state",
    "finished_at",
    "video_bytes",
    "output",
    "files",
)  # which have columns of their own
COLUMNS: Final = (*FIELDS, "job")  # the last is a document of all other fields
_BESIDE: Final = set(FIELDS)


@functools.cache
def _jobs() -> TypeAdapter[Job]:
    """Return what reads and writes jobs; made when there is one, for that takes a while."""
    return TypeAdapter(Job)


def work_document(work: AnyJob) -> str:
    """Return what a job is made from as text, without the timeline, because the request tells that."""
    return json.dumps(
        {
            "kind": kind_of(work.request),
            "request": work.request.model_dump(mode="json", exclude_unset=True, exclude={"attachments", "progress"}),
            "attachments": [_layout(attachment) for attachment in work.attachments],
            "base": str(work.base) if work.base else None,
            "any_path": work.any_path,
            "warnings": [warning.model_dump(mode="json") for warning in work.warnings],
        },
        separators=(",", ":"),
    )


def read_work(document: str, files: Files) -> AnyJob:
    """Read back what a job is made from.

    Args:
        files: where the job's attachments are.

    Raises:
        StoreFailed: the document is damaged, or this version does not understand it.
    """
    try:
        fields = json.loads(document)
        asked = fields["request"]
        request = KINDS[fields.get("kind", "images-to-video")].model_validate(asked)  # earlier versions kept no kind
        attachments = tuple(
            Attachment(files.path_of(number), PixelLayout.model_validate(layout) if layout else None)
            for number, layout in enumerate(fields["attachments"])
        )
        base = Path(fields["base"]) if fields["base"] else None
        # Earlier versions kept no warnings.
        warnings = tuple(ResultWarning.model_validate(warning) for warning in fields.get("warnings", ()))
        others = (attachments, base, fields["any_path"], warnings)
        if isinstance(request, RenderRequest):
            return RenderJob(request, timeline_of(request), *others)
        return MediaJob(request, *others)
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFailed("the job cannot be read back from the store") from error


def job_row(job: Job, root: Path) -> tuple[Any, ...]:
    """Return the values of COLUMNS for a job that is kept in the data directory `root`."""
    output = os.fspath(job.output) if job.is_kept_elsewhere else _from(root, job.output)
    files = os.fsencode(_from(root, job.files)) if job.files else None
    stored = replace(job, result=_stored_result(job, root)) if job.result else job
    document = _jobs().dump_json(stored, exclude=_BESIDE).decode()
    return (
        job.number,
        job.id,
        job.state.value,
        job.finished_at,
        job.video_bytes,
        os.fsencode(output),
        files,
        document,
    )


def read_job(row: tuple[Any, ...], root: Path) -> Job:
    """Return the job that the data directory `root` keeps.

    Raises:
        StoreFailed: the row is damaged, or this version does not understand it.
    """
    try:
        *values, document = row
        fields = from_json(document) | dict(zip(FIELDS, values, strict=True))
        fields["output"] = root / os.fsdecode(fields["output"])
        fields["files"] = root / os.fsdecode(fields["files"]) if fields["files"] else None
        job = _jobs().validate_python(fields)
    except (ValueError, TypeError) as error:  # pydantic's included
        raise StoreFailed("a job in the store cannot be read") from error
    if job.result is None or any("://" in file.url for file in job.result.files().values()):
        return job
    return replace(job, result=job.result.with_urls(lambda file: (root / file.url).as_uri()))


def _from(root: Path, path: Path) -> str:
    """Return a path relative to the root, unchanged if it lies elsewhere; called often, so it compares text only."""
    return os.fspath(path).removeprefix(f"{root}/")


def _stored_result(job: Job, root: Path) -> AnyResult | None:
    if job.result is None or job.is_kept_elsewhere or job.is_object:
        return job.result
    output = _from(root, job.output)
    if output == os.fspath(job.output):
        return job.result
    return job.result.with_urls(lambda file: f"{output}/{file.file_name}")


def _layout(attachment: Attachment) -> dict[str, Any] | None:
    return attachment.layout.model_dump(mode="json") if attachment.layout else None
