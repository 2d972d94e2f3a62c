"""Videos that the store does not know, after it was lost or replaced: they become finished jobs, or are removed.

A daemon does neither by itself, because the store that knows them may be found again.
"""

import shutil
from pathlib import Path
from typing import Final

import av

from protocol.schema import File, Progress, RenderResult
from renderer.errors import StillreelError
from renderer.jobs.archive import examine
from renderer.jobs.data_dir import STORE_NAME
from renderer.jobs.job import Job, State
from renderer.jobs.outcome import VIDEO_NAME
from renderer.jobs.store import JobStore
from renderer.media.mp4 import read_facts
from renderer.observe.logs import JOB_ID

_CLIENT: Final = "adopted"


def adopt(data: Path, now: float) -> tuple[list[str], dict[str, str]]:
    """Give the unknown videos of a data directory jobs; the caller holds it.

    Args:
        now: in Unix seconds; the jobs end at this time, so that retention does not remove them at once.

    Returns:
        The ids of the jobs, and why other videos were left alone.

    Raises:
        ConfigError, StoreFailed, StorageFull: the store cannot be read or written.
    """
    unknown = examine(data).unknown_videos
    adopted, refused = [], {}
    store = JobStore(data / STORE_NAME)
    try:
        for job_id in sorted(unknown):
            try:
                result = _result(data / "outputs" / job_id / VIDEO_NAME)
            except (StillreelError, av.FFmpegError, OSError, IndexError):
                refused[job_id] = "expected a video that can be read"
                continue
            if not JOB_ID.fullmatch(job_id):
                refused[job_id] = "expected the id of a job as the name of its directory"
                continue
            store.add(_job(job_id, store.last_number() + 1, data / "outputs" / job_id, result, now), work=None)
            adopted.append(job_id)
    finally:
        store.close()
    return adopted, refused


def clear(data: Path) -> dict[str, int]:
    """Remove the unknown videos of a data directory, and return their sizes; the caller holds it.

    Raises:
        ConfigError: the store cannot be read.
    """
    unknown = examine(data).unknown_videos
    for job_id in unknown:
        shutil.rmtree(data / "outputs" / job_id)
    return unknown


def _result(video: Path) -> RenderResult:
    facts = read_facts(video)
    return RenderResult(
        video=File(url=video.as_uri(), file_name=video.name, file_size=facts.size_bytes),
        frames=facts.frames,
        fps=f"{facts.fps.numerator}/{facts.fps.denominator}",
        duration=float(facts.duration_s),
        width=facts.width,
        height=facts.height,
        encoder="unknown",
        timings={"total": 0.0},
    )


def _job(job_id: str, number: int, output: Path, result: RenderResult, now: float) -> Job:
    """Return a job without a digest, so that no request with this id counts as a repetition of it."""
    return Job(
        id=job_id,
        client=_CLIENT,
        digest="",
        number=number,
        priority="normal",
        output=output,
        progress=Progress(images=0, frames=result.frames, stage="done"),
        accepted_at=now,
        state=State.DONE,
        finished_at=now,
        video_bytes=result.video.file_size,
        result=result.model_copy(update={"request_id": job_id}),
    )
