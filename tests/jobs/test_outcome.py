"""Where an ending leads, and what lies in the daemon's directories before and after."""

import os
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from renderer.jobs import outcome
from renderer.jobs.job import Job, State
from renderer.jobs.outcome import Places
from renderer.jobs.slots.base import AttemptLost, RenderTask
from renderer.work import ImageFacts, ImageName, RenderReport, VideoFacts
from tests.jobs.factories import FAULT, SETTINGS, left, make_job, make_places, make_work

REPORT = RenderReport(VideoFacts(64, 48, 2, Fraction(24), Fraction(1, 12), 5), "libx264", None, None, {"total": 1.0})
DIED = AttemptLost("its worker was killed by SIGKILL")
KILLED = AttemptLost("the daemon died while it ran", "daemon")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return make_places(tmp_path, tmp_path)


def run(places: Places, **fields: object) -> Job:
    return make_job(state=State.RUNNING, output=places.outputs / "a", started_at=1.0, **fields)


def tasked(job: Job, content: bytes = b"video") -> RenderTask:
    """An attempt that has written its video."""
    task = outcome.task_for(job, make_work(), SETTINGS)
    task.output.write_bytes(content)
    return task


# Endings.


def test_a_report_gives_the_video_its_name_and_ends_the_job(places: Places) -> None:
    job = run(places, attempts=1)
    after = outcome.apply_ending(job, tasked(job), REPORT, 3)
    assert (after.state, after.video_bytes, after.progress.stage, after.error) == (State.DONE, 5, "done", None)
    assert after.result.video.url == (job.output / "video.mp4").as_uri()
    assert after.result.request_id == "a"
    assert abs(after.finished_at - time.time()) < 10
    assert (job.output / "video.mp4").read_bytes() == b"video"
    assert left(places.outputs) == ["a/video.mp4"]


def test_what_lies_beside_a_video_is_named_counted_and_removed_with_it(places: Places) -> None:
    job = run(places, attempts=1)
    task = tasked(job)
    poster = ImageFacts(ImageName("poster", "png"), 64, 48, 7)
    task.output.with_suffix(".poster.png").write_bytes(b"picture")
    after = outcome.apply_ending(job, task, replace(REPORT, images=(poster,)), 3)
    assert left(places.outputs) == ["a/video.mp4", "a/video.poster.png"]
    assert (after.result.poster.url, after.video_bytes) == ((job.output / "video.poster.png").as_uri(), 5 + 7)
    moved = outcome.relocated(after, places.outputs / "b")
    assert moved.result.poster.url == (places.outputs / "b" / "video.poster.png").as_uri()
    places.remove_video("a")
    assert left(places.outputs) == []


def test_a_picture_that_is_gone_fails_the_job_and_leaves_nothing(places: Places) -> None:
    job = run(places, attempts=1)
    task = tasked(job)
    report = replace(REPORT, images=(ImageFacts(ImageName("poster", "png"), 64, 48, 7),))
    after = outcome.apply_ending(job, task, report, 3)
    assert (after.state, after.result) == (State.FAILED, None)
    places.clean(after)
    assert left(places.outputs) == []


def test_every_attempt_writes_under_a_name_of_its_own(places: Places) -> None:
    job = run(places, attempts=1)
    names = {outcome.task_for(job, make_work(), SETTINGS).output.name for _ in range(10)}
    assert len(names) == 10
    assert all(name.startswith(".attempt-1-") and name.endswith(".mp4") for name in names)


def test_a_report_replaces_a_video_that_a_killed_daemon_had_named(places: Places) -> None:
    job = run(places, attempts=2)
    task = tasked(job, b"again")
    (job.output / "video.mp4").write_bytes(b"first")
    assert outcome.apply_ending(job, task, REPORT, 3).state is State.DONE
    assert (job.output / "video.mp4").read_bytes() == b"again"


def test_what_an_earlier_attempt_has_left_goes_when_the_job_is_done(places: Places) -> None:
    """A worker that outlived its daemon for a moment may have begun its file after the next one had cleared up."""
    job = run(places, attempts=2)
    task = tasked(job)
    (job.output / ".attempt-1-12345678.mp4.part").touch()
    assert outcome.apply_ending(job, task, REPORT, 3).state is State.DONE
    assert left(places.outputs) == ["a/video.mp4"]


def test_a_report_without_its_video_fails_the_job(places: Places) -> None:
    job = run(places, attempts=1)
    task = tasked(job)
    task.output.unlink()
    after = outcome.apply_ending(job, task, REPORT, 3)
    assert (after.state, after.error.message) == (
        State.FAILED,
        "the video could not be written: No such file or directory",
    )


def test_a_fault_ends_the_job_whatever_attempts_are_left(places: Places) -> None:
    after = outcome.apply_ending(run(places, attempts=1), None, FAULT, 3)
    assert (after.state, after.error, after.result, after.video_bytes) == (State.FAILED, FAULT, None, 0)


def test_a_setback_makes_the_job_wait_with_one_attempt_less(places: Places) -> None:
    after = outcome.apply_ending(run(places, attempts=2), None, DIED, 3)
    assert (after.state, after.attempts, after.setback, after.error) == (State.QUEUED, 2, DIED.why, None)
    assert (after.progress.images_done, after.progress.stage) == (0, "queued")


def test_the_last_setback_fails_the_job_in_words(places: Places) -> None:
    after = outcome.apply_ending(run(places, attempts=3), None, DIED, 3)
    assert (after.state, after.error.type) == (State.FAILED, "internal_error")
    assert after.error.message == "its worker was killed by SIGKILL, in the last of 3 attempts"


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_setback_in_a_drain_is_not_counted(places: Places, attempts: int) -> None:
    after = outcome.apply_ending(run(places, attempts=attempts), None, AttemptLost("the daemon stopped", "drain"), 3)
    assert (after.state, after.attempts, after.interruptions) == (State.QUEUED, attempts - 1, 0)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_daemon_that_dies_takes_no_attempt_of_the_job(places: Places, attempts: int) -> None:
    after = outcome.apply_ending(run(places, attempts=attempts, interruptions=2), None, KILLED, 3)
    assert (after.state, after.attempts, after.interruptions) == (State.QUEUED, attempts - 1, 3)
    assert after.setback == KILLED.why


def test_a_job_that_daemons_die_of_again_and_again_fails_in_words(places: Places) -> None:
    job = run(places, attempts=1)
    deaths = 0
    while not job.is_finished:
        job = outcome.apply_ending(job, None, KILLED, 3)
        deaths += 1
        if not job.is_finished:
            job = job.moved(State.RUNNING, attempts=job.attempts + 1)
    assert deaths == 10
    assert (job.state, job.error.message) == (State.FAILED, "the daemon died while it ran, 10 times")


# Directories.


def test_a_failed_job_leaves_nothing(places: Places) -> None:
    files = places.attachments / "f"
    files.mkdir()
    (files / "0").touch()
    job = run(places, files=files, attempts=1)
    tasked(job)
    places.clean(outcome.apply_ending(job, None, FAULT, 3))
    assert list(places.outputs.iterdir()) == list(places.attachments.iterdir()) == []


def test_a_job_that_is_done_keeps_its_video_only(places: Places) -> None:
    files = places.attachments / "f"
    files.mkdir()
    job = run(places, files=files, attempts=1)
    places.clean(outcome.apply_ending(job, tasked(job), REPORT, 3))
    assert left(places.outputs) == ["a/video.mp4"]
    assert list(places.attachments.iterdir()) == []


def test_a_job_that_is_kept_elsewhere_loses_its_attempts_only(places: Places) -> None:
    job = run(places, is_kept_elsewhere=True, attempts=1)
    tasked(job)
    (job.output / "manifest.json").touch()
    places.clean(outcome.apply_ending(job, None, FAULT, 3))
    assert left(places.outputs) == ["a/manifest.json"]


def test_an_output_that_is_out_of_reach_is_left_to_its_owner(places: Places) -> None:
    (places.outputs / "file").touch()
    for output in (places.outputs / "never", places.outputs / "file", places.outputs / "file" / "below"):
        outcome.remove_attempts(run(places, is_kept_elsewhere=True).moved(State.FAILED, output=output))
    directory = places.outputs / "a"
    (directory / ".attempt-1-0.mp4").mkdir(parents=True)  # cannot be unlinked
    outcome.remove_attempts(run(places))


def test_a_sweep_removes_what_no_job_owns_and_no_video(places: Places) -> None:
    owned = make_job(files=places.attachments / "owned")
    for directory in ("attachments/owned", "attachments/orphan", "outputs/half", "outputs/known", "outputs/unknown"):
        (places.outputs.parent / directory).mkdir()
    for file in ("attachments/owned/0", "attachments/orphan/0", "outputs/half/.attempt-1-0.mp4.part"):
        (places.outputs.parent / file).touch()
    for name in ("known", "unknown"):
        (places.outputs / name / "video.mp4").touch()
    places.sweep([owned, make_job("b")], {"a", "b"})
    assert left(places.attachments) == ["owned/0"]
    assert left(places.outputs) == ["known/video.mp4", "unknown/video.mp4"]
    assert not (places.outputs / "half").exists()


def test_a_sweep_knows_what_was_accepted_under_another_spelling_of_the_directory(tmp_path: Path) -> None:
    """The data directory was named by a link when the job came, or lay elsewhere."""
    places = make_places(tmp_path / "data", tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    accepted = make_job(files=tmp_path / "link" / "attachments" / "owned")
    (places.attachments / "owned").mkdir()
    places.sweep([accepted], {accepted.id})
    assert (places.attachments / "owned").is_dir()


def test_a_disk_is_full_where_less_is_free_than_asked_for_or_nobody_can_tell(places: Places) -> None:
    state = os.statvfs(places.outputs)
    free = state.f_bavail * state.f_frsize
    assert places.trouble(free // 2) is None
    assert places.trouble(free * 2) == "is nearly full"
    places.outputs.rmdir()
    assert places.trouble(0) == "cannot be written: No such file or directory"
