"""A job as a row of the store, and what it is made from as text: whoever comes back must render what was accepted.

The timeline is not kept, because the request says it all. Sources are named as `intake` left them: inline images are
files among the attachments by then.

The store goes where its data directory goes: moved, copied, or restored from a backup. So what lies in that directory
is named from there, a video's url is made when it is read, and attachments have no names but their numbers. Only the
directories of manifests, which are other people's, are named in full.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from protocol.schema import PixelLayout, RenderRequest, RenderResult, ResultWarning
from renderer.errors import StoreFailed
from renderer.jobs.files import Files
from renderer.jobs.job import Job
from renderer.timeline import timeline_of
from renderer.work import Attachment, RenderJob

FIELDS: Final = ("number", "id", "state", "finished_at", "video_bytes", "output", "files")  # with columns of their own
COLUMNS: Final = (*FIELDS, "job")  # the last is a document of all other fields

_JOB: Final = TypeAdapter(Job)


def work_document(work: RenderJob) -> str:
    return json.dumps(
        {
            "request": work.request.model_dump(mode="json", exclude_unset=True, exclude={"attachments", "progress"}),
            "attachments": [_layout(attachment) for attachment in work.attachments],
            "base": str(work.base) if work.base else None,
            "any_path": work.any_path,
            "warnings": [warning.model_dump(mode="json") for warning in work.warnings],
        },
        separators=(",", ":"),
    )


def read_work(document: str, files: Files) -> RenderJob:
    """Read back what a job is made from.

    Args:
        files: where the job's attachments are.

    Raises:
        StoreFailed: this is no such document, or one that this version does not understand.
    """
    try:
        fields = json.loads(document)
        request = RenderRequest.model_validate(fields["request"])
        return RenderJob(
            request=request,
            timeline=timeline_of(request),
            attachments=tuple(
                Attachment(files.path_of(number), PixelLayout.model_validate(layout) if layout else None)
                for number, layout in enumerate(fields["attachments"])
            ),
            base=Path(fields["base"]) if fields["base"] else None,
            any_path=fields["any_path"],
            # Earlier versions kept none.
            warnings=tuple(ResultWarning.model_validate(warning) for warning in fields.get("warnings", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreFailed("the job cannot be read back from the store") from error


def job_row(job: Job, root: Path) -> tuple[Any, ...]:
    """Return the values of COLUMNS for a job that is kept in the data directory `root`."""
    output = job.output if job.is_kept_elsewhere else _from(root, job.output)
    files = os.fsencode(_from(root, job.files)) if job.files else None
    stored = replace(job, result=_stored_result(job, root))
    document = _JOB.dump_json(stored, exclude=set(FIELDS)).decode()
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
        StoreFailed: this is no such row, or one that this version does not understand.
    """
    try:
        *values, document = row
        fields = from_json(document) | dict(zip(FIELDS, values, strict=True))
        fields["output"] = root / os.fsdecode(fields["output"])
        fields["files"] = root / os.fsdecode(fields["files"]) if fields["files"] else None
        job = _JOB.validate_python(fields)
    except (ValueError, TypeError) as error:  # pydantic's included
        raise StoreFailed("a job in the store cannot be read") from error
    if job.result is None or "://" in job.result.video.url:
        return job
    return replace(job, result=_at(job.result, (root / job.result.video.url).as_uri()))


def _from(root: Path, path: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _stored_result(job: Job, root: Path) -> RenderResult | None:
    if job.result is None or job.is_kept_elsewhere:
        return job.result
    video = job.output / job.result.video.file_name
    return _at(job.result, str(video.relative_to(root))) if video.is_relative_to(root) else job.result


def _at(result: RenderResult, url: str) -> RenderResult:
    return result.model_copy(update={"video": result.video.model_copy(update={"url": url})})


def _layout(attachment: Attachment) -> dict[str, Any] | None:
    return attachment.layout.model_dump(mode="json") if attachment.layout else None
