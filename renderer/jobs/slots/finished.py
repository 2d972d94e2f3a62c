"""Videos that were finished on another machine: kept under a name by what they are made from until the daemon knows.

A daemon may be killed, or cut off from a machine, while an attempt there comes to its end. Its video waits then beside
the place where the daemon puts the job's own, with a record of the attempt: the next attempt finds both and renders
nothing. The names are made once and never replaced. Of two attempts at the same video, one that was taken for dead and
its successor, the first one's stays, and the second takes that one over.
"""

import contextlib
import hashlib
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from renderer.disk import flush, open_private, remove_named, sync
from renderer.jobs.slots.base import RenderTask
from renderer.work import RenderReport

log = logging.getLogger(__name__)

FINISHED: Final = ".finished-"


@dataclass(frozen=True, slots=True)
class Record:
    """An attempt that has finished.

    Attributes:
        video: the name of its file, which lies beside the record.
        checksums: SHA-256 of all its files, the video's last.
        node: the machine that has made it.
    """

    video: str
    checksums: tuple[str, ...]
    node: str
    report: RenderReport


_RECORDS: Final = TypeAdapter(Record)


def keep(task: RenderTask, report: RenderReport, node: str) -> RenderReport:
    """Give the files of an attempt names that outlive the attempt; return the report of those that have them.

    Another attempt may have been first: its video lies at `task.output` then, in place of this one's.

    Raises:
        OSError: the directory takes no further name.
    """
    checksums = tuple(map(_checksum, report.files(task.output)))
    video = task.output.with_name(f"{FINISHED}{task.content}-{checksums[-1][:16]}.mp4")
    for made, kept in zip(report.files(task.output), report.files(video), strict=True):
        with contextlib.suppress(FileExistsError):  # a file with the same content
            os.link(made, kept)
    record = Record(video.name, checksums, node, report)
    if _created(_record_of(task), _RECORDS.dump_json(record)):
        return report
    return take(task) or report


def take(task: RenderTask) -> RenderReport | None:
    """Return the report of an attempt at this video that has finished before, with its video at `task.output`.

    Return None if no attempt has finished, or if its video is gone or damaged.
    """
    try:
        record = _RECORDS.validate_json(_record_of(task).read_bytes())
        kept = record.report.files(task.output.with_name(record.video))
        if tuple(map(_checksum, kept)) != record.checksums:
            return None
        for file, place in zip(kept, record.report.files(task.output), strict=True):
            place.unlink(missing_ok=True)
            os.link(file, place)
    except (OSError, ValueError):  # pydantic's errors are ValueErrors, and so is that of an invalid name
        return None
    words = "an earlier attempt had finished on the node %s; its video is taken"
    log.info(words, record.node, extra={"job": task.job_id, "action": "taken", "node": record.node})
    return record.report


def lies_in(directory: Path) -> bool:
    """Say whether an attempt has finished whose video has not been taken yet."""
    return any(directory.glob(f"{FINISHED}*"))


def forget(directory: Path) -> None:
    """Remove what finished attempts have left in a job's directory, once the job has ended."""
    remove_named(directory, FINISHED)


def _record_of(task: RenderTask) -> Path:
    return task.output.with_name(f"{FINISHED}{task.content}.json")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _created(file: Path, content: bytes) -> bool:
    """Put a file in place as a whole and for good, unless one is there; return whether this one is."""
    part = file.with_name(f"{FINISHED}{secrets.token_hex(8)}.part")
    try:
        with open(part, "xb", opener=open_private) as stream:
            stream.write(content)
            flush(stream)
        os.link(part, file)
        sync(file.parent)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True
