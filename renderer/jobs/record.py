"""A job as a row of the store, and what it is made from as text: whoever comes back must render what was accepted.

The timeline is not kept, because the request says it all. Sources are named as `intake` left them: inline images are
files among the attachments by then.

The store goes where its data directory goes: moved, copied, or restored from a backup. So what lies in that directory
is named from there, a video's url is made when it is read, and attachments have no names but their numbers. Only the
directories of manifests, which are other people's, are named in full.
"""

import json
import os
from pathlib import Path
from typing import Any

from protocol.schema import Fault, PixelLayout, Progress, RenderRequest, RenderResult, ResultWarning
from renderer.errors import StoreFailed
from renderer.jobs.files import Files
from renderer.jobs.job import Job, State
from renderer.pictures.fetch import Attachment
from renderer.pipeline import RenderJob
from renderer.timeline import timeline_of

COLUMNS = (
    "number, id, client, digest, priority, state, attempts, interruptions, setback, output, is_kept_elsewhere, files, "
    "sync_mode, progress, accepted_at, start_by, started_at, finished_at, video_bytes, result, error"
)


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
    """Return the job as it is kept in the data directory `root`."""
    return (
        job.number,
        job.id,
        job.client,
        job.digest,
        job.priority,
        job.state.value,
        job.attempts,
        job.interruptions,
        job.setback,
        os.fsencode(job.output if job.is_kept_elsewhere else _from(root, job.output)),
        job.is_kept_elsewhere,
        os.fsencode(_from(root, job.files)) if job.files else None,
        job.sync_mode,
        job.progress.model_dump_json(),
        job.accepted_at,
        job.start_by,
        job.started_at,
        job.finished_at,
        job.video_bytes,
        _result_text(job, root),
        job.error.model_dump_json() if job.error else None,
    )


def read_job(row: tuple[Any, ...], root: Path) -> Job:
    """Return the job that the data directory `root` keeps.

    Raises:
        StoreFailed: this is no such row, or one that this version does not understand.
    """
    try:
        return _read_job(row, root)
    except ValueError as error:  # pydantic's included
        raise StoreFailed("a job in the store cannot be read") from error


def _read_job(row: tuple[Any, ...], root: Path) -> Job:
    (number, id_, client, digest, priority, state, attempts, interruptions, setback) = row[:9]
    (output, elsewhere, files, sync_mode) = row[9:13]
    (progress, accepted_at, start_by, started_at, finished_at, video_bytes, result, error) = row[13:]
    return Job(
        id=id_,
        client=client,
        digest=digest,
        number=number,
        priority=priority,
        output=root / os.fsdecode(output),
        progress=Progress.model_validate_json(progress),
        accepted_at=accepted_at,
        is_kept_elsewhere=bool(elsewhere),
        files=root / os.fsdecode(files) if files else None,
        sync_mode=bool(sync_mode),
        start_by=start_by,
        state=State(state),
        attempts=attempts,
        interruptions=interruptions,
        setback=setback,
        started_at=started_at,
        finished_at=finished_at,
        video_bytes=video_bytes,
        result=_read_result(result, root) if result else None,
        error=Fault.model_validate_json(error) if error else None,
    )


def _from(root: Path, path: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _result_text(job: Job, root: Path) -> str | None:
    if job.result is None:
        return None
    result, video = job.result, job.output / job.result.video.file_name
    if not job.is_kept_elsewhere and video.is_relative_to(root):
        result = _at(result, str(video.relative_to(root)))
    return result.model_dump_json()


def _read_result(text: str, root: Path) -> RenderResult:
    result = RenderResult.model_validate_json(text)
    url = result.video.url
    return result if "://" in url else _at(result, (root / url).as_uri())


def _at(result: RenderResult, url: str) -> RenderResult:
    return result.model_copy(update={"video": result.video.model_copy(update={"url": url})})


def _layout(attachment: Attachment) -> dict[str, Any] | None:
    return attachment.layout.model_dump(mode="json") if attachment.layout else None
