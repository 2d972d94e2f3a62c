"""The outcome of an attempt: where its video is made and put, the state that its ending leads to, what is removed.

An attempt writes under a name of its own, and only the daemon gives a video its final name, once, when the attempt has
ended well. A worker that outlives its daemon for a moment can therefore never write into another's video.
"""

import contextlib
import hashlib
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from protocol.errors import ERRORS
from protocol.objects import parse_object
from protocol.schema import Fault
from renderer.config import RenderSettings
from renderer.disk import is_full, remove_named, sync, write_failure
from renderer.errors import NotSupported, WorkerLost
from renderer.jobs.job import Job, State
from renderer.jobs.slots import finished
from renderer.jobs.slots.base import AttemptLost, Destination, Ending, RenderTask
from renderer.jobs.slots.reach import Reach
from renderer.jobs.stills import KeptStills
from renderer.net.objects import check_output
from renderer.observe.metrics import Metrics
from renderer.pictures.kept import StillCache
from renderer.version import VERSION
from renderer.work import AnyJob, MediaReport, RenderJob, RenderReport, Report

log = logging.getLogger(__name__)

VIDEO_NAME = "video.mp4"
_ATTEMPT = ".attempt-"
_INTERRUPTIONS = 10  # daemons that die while a job runs, before it is taken to be what kills them


@dataclass(frozen=True, slots=True)
class Places:
    """The daemon's directories.

    Attributes:
        outputs: one directory per job that is done, named by its id.
        attachments: one directory per job that brought files.
        logs: one directory per job, named by its id.
        scratch: for the progress socket and what workers keep for the time of a job; its path is short.
        spool: the manifest directory, if there is one; its jobs have their videos there.
        hidden: what workers must not read, in addition to the rest of the data directory.
        stills: what jobs have coded for later ones; None if nothing is kept.
        uncleaned: ids of finished jobs that have left something which could not be removed; for `clean` to try again.
    """

    outputs: Path
    attachments: Path
    logs: Path
    scratch: Path
    spool: Path | None = None
    hidden: tuple[Path, ...] = ()
    stills: KeptStills | None = None
    uncleaned: set[str] = field(default_factory=set, compare=False)

    def reach(self, render: RenderSettings) -> Reach:
        """Return what workers may use."""
        incoming = (self.spool / "incoming",) if self.spool else ()
        active = (self.spool / "active",) if self.spool else ()
        return Reach(
            render,
            read=(self.attachments, *incoming, *((self.stills.kept,) if self.stills else ())),
            change=(self.outputs, self.logs, *active, *((self.stills.new,) if self.stills else ())),
            hidden=(self.outputs.parent, *self.hidden),
        )

    def cache_for(self, job: Job) -> StillCache | None:
        """Return where an attempt at a job finds the stills of earlier ones."""
        return self.stills.cache_for(job.owner) if self.stills else None

    def take_stills(self, task: RenderTask, ending: Ending, metrics: Metrics) -> None:
        """Keep what an attempt has coded for later jobs, if it has ended well, and count it; blocks."""
        if isinstance(ending, RenderReport):
            metrics.stills(ending.stills_found, ending.stills_coded)
        if self.stills and task.cache:
            self.stills.settle(task.cache, is_good=isinstance(ending, RenderReport))

    def trouble(self, min_free_bytes: int) -> str | None:
        """Return what is wrong with the disk: less free space than this, or it cannot be written; None if nothing is.

        A disk that has become read-only shows in a write only, so one is made, to a file without a name.
        """
        try:
            if shutil.disk_usage(self.outputs).free < min_free_bytes:
                return "is nearly full"
            for directory in (self.outputs, self.outputs.parent):
                with tempfile.TemporaryFile(dir=directory, buffering=0) as trial:
                    trial.write(b"0")
        except OSError as error:
            return "is full" if is_full(error.errno) else f"cannot be written: {error.strerror}"
        return None

    def free_bytes(self) -> int | None:
        """Return the free space on the disk of the videos; None if that cannot be found out."""
        with contextlib.suppress(OSError):
            return shutil.disk_usage(self.outputs).free
        return None

    def sweep(self, unfinished: Sequence[Job], known: Collection[str]) -> None:
        """Remove what no job owns: a daemon that was killed may have been about to make or to remove it.

        A video that the store does not know is left alone, and so is everything where it knows no job: the store may be
        the part that was lost.

        Args:
            known: the ids of all jobs.
        """
        if known:
            # By name: the path to the data directory may be spelt otherwise today.
            files = {job.files.name for job in unfinished if job.files}
            for directory in self.attachments.iterdir():
                if directory.name not in files:
                    shutil.rmtree(directory, ignore_errors=True)
        unknown = []
        taken_up = {job.output for job in unfinished if finished.lies_in(job.output)}
        for directory in sorted({*self.outputs.iterdir()} - taken_up):
            if kept := kept_files(directory):
                size_bytes = sum(file.stat().st_size for file in kept)
                unknown += [size_bytes] if directory.name not in known else []
            else:
                shutil.rmtree(directory, ignore_errors=True)
        brought = 0 if known else sum(1 for _ in self.attachments.iterdir())
        if unknown or brought:
            _say_lost(len(known), unknown, brought)

    def clean(self, job: Job) -> None:
        """Remove what a finished job no longer needs; if that fails now, the job is noted in `uncleaned`."""
        self.uncleaned.discard(job.id)
        finished.forget(job.output)
        try:
            if job.files:
                _remove(self.attachments / job.files.name)
            if job.state is not State.DONE and not job.is_kept_elsewhere:
                self.remove_video(job.id)
        except OSError as error:
            self.uncleaned.add(job.id)
            words = "the files that it has left cannot be removed now; this is tried again: %s"
            log.warning(words, error.strerror, extra={"job": job.id, "action": "uncleaned"})
        if job.state is not State.DONE and job.is_kept_elsewhere:
            remove_attempts(job)

    def remove_video(self, job_id: str) -> None:
        """Remove what the daemon keeps of a job's video.

        What is removed is named from these places on and never by a path that is stored, so that a store that was
        copied, moved or tampered with cannot make the daemon remove a file elsewhere.

        Raises:
            OSError: something of it could not be removed.
        """
        _remove(self.outputs / job_id)


def kept_files(directory: Path) -> list[Path]:
    """Return the files of a job's result; those of attempts have hidden names."""
    try:
        return sorted(entry for entry in directory.iterdir() if not entry.name.startswith("."))
    except OSError:
        return []


def _remove(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # nothing was there, or it went meanwhile
        shutil.rmtree(directory)


def _say_lost(known: int, unknown: Sequence[int], brought: int) -> None:
    words = (
        "the store knows %d jobs, and beside it lie %d videos (%d bytes) and the attachments of %d jobs that it does "
        "not know: if it was lost, stop the daemon and restore it; else `stillreel store adopt` takes up the videos "
        "and `stillreel store clear` removes them"
    )
    log.warning(words, known, len(unknown), sum(unknown), brought, extra={"action": "store_lost"})


def task_for(job: Job, work: AnyJob, render: RenderSettings, cache: StillCache | None = None) -> RenderTask:
    """Return the task of an attempt at a job; the directory for its video is made, and it has a name of its own there.

    Args:
        cache: from `Places.cache_for`.

    Raises:
        OutputFailed, StorageFull: no directory can be made for its video.
        JobError: its video may not become the object that was asked for, as the settings are now.
    """
    wanted, destination, content = work.request.output if isinstance(work, RenderJob) else None, None, ""
    if wanted:
        check_output(wanted.url, render.outputs.allow_objects)
        destination = Destination(wanted.url, _mark(job))
    else:
        content = hashlib.sha256(f"{VERSION} {_mark(job)} {job.digest}".encode()).hexdigest()[:32]
    try:
        job.output.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise write_failure(error.errno, error.strerror) from error
    output = job.output / f"{_ATTEMPT}{job.attempts}-{uuid.uuid4().hex[:8]}.mp4"
    is_private = not job.is_kept_elsewhere
    return RenderTask(job.id, work, output, render, is_private, destination, content, cache)


def _mark(job: Job) -> str:
    """Return what tells the videos of this job from those of all others."""
    return hashlib.sha256(f"{job.id}\0{job.number}\0{job.accepted_at!r}".encode()).hexdigest()


def apply_ending(job: Job, task: RenderTask | None, ending: Ending, attempts: int) -> Job:
    """Return the job as this ending leaves it; a report's video gets its name.

    Args:
        task: the task that the worker was given; needed for a report only.
        attempts: how many attempts a job has, the last included.
    """
    now = time.time()
    if isinstance(ending, RenderReport | MediaReport) and task is not None:
        try:
            return _done(job, task, ending, now)
        except OSError as error:
            ending = write_failure(error.errno, error.strerror).fault()
    if isinstance(ending, AttemptLost):
        after = _lost(job, ending, attempts)
        if isinstance(after, Job):
            return after
        ending = after
    if not isinstance(ending, Fault):
        ending = Fault(type="internal_error", message="the job has no request any more")
    cancelled = ending.type == "client_cancelled"
    return job.moved(State.CANCELLED if cancelled else State.FAILED, error=ending, finished_at=now)


def remove_attempts(job: Job) -> None:
    """Remove what attempts that were lost have left."""
    remove_named(job.output, _ATTEMPT)


def refuse_to_make_again(job: Job) -> None:
    """Refuse what cannot be made from its request once more, because it has a video or its pictures are gone.

    Raises:
        NotSupported: the words say why.
    """
    reasons = {
        "it has not ended; cancel it first, or wait for it": not job.is_finished,
        "its video was made; ask for its result": job.state is State.DONE,
        "its manifest is in the manifest directory; rename it into incoming again": job.is_kept_elsewhere,
        "its pictures came with the request and went when it ended; send the request again": job.files is not None,
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise NotSupported(reason, loc=("request_id",))


def relocated(job: Job, directory: Path) -> Job:
    """Return a finished job as its owner has moved its video, which is not the daemon's any more."""
    result = job.result
    if result and not job.is_object:
        result = result.with_urls(lambda file: (directory / file.file_name).absolute().as_uri())
    return replace(job, result=result, output=directory, is_kept_elsewhere=True, video_bytes=0)


def log_end(job: Job) -> None:
    """Log how a job has ended, once that is stored."""
    extra = {"job": job.id, "action": job.state.value}
    if job.error is not None:
        level = logging.ERROR if ERRORS[job.error.type].name == "internal_error" else logging.INFO
        log.log(level, "%s: %s", job.error.type, job.error.message, extra=extra)
    elif job.result is not None:
        log.info("done in %.3f s", job.result.timings["total"], extra=extra)


def _done(job: Job, task: RenderTask, report: Report, now: float) -> Job:
    url, name = _of_object(job, task.destination.url) if task.destination else _kept(job, task, report)
    request = task.work.request.model_copy(update={"request_id": job.request_id})
    result = report.result(url, name, request)  # type: ignore[arg-type] # a report is of the kind of its request
    size_bytes = sum(file.file_size for file in result.files().values())
    return job.moved(
        State.DONE,
        result=result,
        progress=job.progress.model_copy(
            update={"images_done": job.progress.images, "frames_done": job.progress.frames, "stage": "done"}
        ),
        finished_at=now,
        video_bytes=0 if job.is_kept_elsewhere or task.destination else size_bytes,
    )


def _kept(job: Job, task: RenderTask, report: Report) -> tuple[str, str]:
    """Give the files of an attempt their final names, the video's last, and return the url and name of a video."""
    video = job.output / VIDEO_NAME
    for made, place in zip(report.files(task.output), report.files(video), strict=True):
        made.replace(place)
    remove_attempts(job)
    if kept_files(job.output):
        sync(job.output)
    else:
        job.output.rmdir()
    sync(job.output.parent)  # the directory is new as well
    return video.as_uri(), VIDEO_NAME


def _of_object(job: Job, url: str) -> tuple[str, str]:
    """Remove the directory of a video that has become an object, and return its url and its name."""
    remove_attempts(job)
    with contextlib.suppress(OSError):  # a directory of manifests has files of others
        job.output.rmdir()
    return url, parse_object(url).file_name


def _lost(job: Job, lost: AttemptLost, attempts: int) -> Job | Fault:
    """Return the job as it waits again, or the fault that it ends in because attempts at it were lost too often."""
    begun, interruptions = job.attempts, job.interruptions
    if lost.cause == "worker" and begun >= attempts:
        return WorkerLost(f"{lost.why}, in the last of {begun} attempts").fault()
    if lost.cause != "worker":
        begun -= 1
    if lost.cause == "daemon":
        interruptions += 1
        if interruptions >= _INTERRUPTIONS:
            return WorkerLost(f"{lost.why}, {interruptions} times").fault()
    progress = job.progress.model_copy(update={"images_done": 0, "frames_done": 0, "stage": "queued"})
    return job.moved(State.QUEUED, attempts=begun, interruptions=interruptions, setback=lost.why, progress=progress)
