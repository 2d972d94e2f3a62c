"""What the command line shows, as text."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from protocol.schema import Fault, Health, JobStatus, NodeSlots, StateName
from renderer.cli.client import jobs
from renderer.cli.terminal import job_lines, show_health, span_words, state_name, status_line

NOW = datetime(2025, 3, 1, 12, 0, 0, tzinfo=UTC)


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def job(request_id: str = "4b1f0c9e7a5d4e0f9c3b2a1d0e9f8c7b", **fields: Any) -> dict[str, Any]:
    progress = {"images_done": 12, "images": 12, "frames": 288, "frames_done": 71, "stage": "rendering"}
    return JobStatus.model_validate(
        {"request_id": request_id, "status": "IN_PROGRESS", "progress": progress, "state": "running", **fields}
    ).model_dump()


FAILED = job(
    "failed-1",
    status="COMPLETED",
    state="failed",
    error=Fault(type="file_download_error", message="images[3].url: no such file; expected one under an allowed root"),
    accepted_at=ago(hours=2, minutes=10),
    started_at=ago(hours=2),
    finished_at=ago(hours=1, minutes=56, seconds=55),
)
RUNNING = job(accepted_at=ago(seconds=75), started_at=ago(seconds=4.2))


def texts(*jobs: dict[str, Any], width: int | None) -> list[str]:
    return [line.plain for line in job_lines(jobs, NOW, width)]


def test_jobs_in_80_columns_have_their_errors_below() -> None:
    assert texts(RUNNING, FAILED, width=80) == [
        "request_id                        state    images  frames    age   took",
        "4b1f0c9e7a5d4e0f9c3b2a1d0e9f8c7b  running      12  71/288  1m15s   4.2s",
        (
            "failed-1                          failed       12  71/288  2h10m  3m05s\n"
            "  images[3].url: no such file; expected one under an allowed root"
        ),
    ]


@pytest.mark.parametrize("width", [None, 160])
def test_jobs_have_their_errors_beside_them_where_there_is_room(width: int | None) -> None:
    assert texts(FAILED, width=width)[1] == (
        "failed-1    failed      12  71/288  2h10m  3m05s  "
        "images[3].url: no such file; expected one under an allowed root"
    )


def test_the_widest_usual_job_fits_80_columns() -> None:
    widest = {"images_done": 100, "images": 100, "frames": 1_000_000, "stage": "done"}
    [_, line] = texts(job(progress=widest, state="cancelled", accepted_at=ago(days=30)), width=80)
    assert len(line) <= 80


def test_states_have_their_colours() -> None:
    _, running, failed = job_lines([RUNNING, FAILED], NOW, 80)
    assert (running.style, failed.style) == ("green", "red")


def test_a_job_of_a_daemon_of_an_earlier_version_is_listed() -> None:
    old = job("old", state=None, status="IN_QUEUE")
    assert texts(old, width=80)[1].split() == ["old", "queued", "12", "71/288", "-", "-"]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"state": "expired", "status": "COMPLETED"}, "expired"),
        ({"state": None, "status": "IN_QUEUE"}, "queued"),
        ({"state": None, "status": "IN_PROGRESS"}, "running"),
        ({"state": None, "status": "COMPLETED"}, "done"),
        ({"state": None, "status": "COMPLETED", "error": Fault(type="x", message="m")}, "failed"),
    ],
)
def test_the_finer_state_is_shown_or_made_up(fields: dict[str, Any], name: str) -> None:
    assert state_name(job(**fields)) == name


def test_a_job_that_waits_for_another_attempt_has_not_taken_time_yet() -> None:
    again = job(state="queued", status="IN_QUEUE", attempts=1, started_at=ago(hours=1))
    assert texts(again, width=80)[1].split()[-1] == "-"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"attempts": 1}, "mine: running, 71/288 frames"),
        ({"attempts": 2}, "mine: running, attempt 2, 71/288 frames"),
        ({"state": "queued", "status": "IN_QUEUE", "queue_position": 4}, "mine: queued, 4 ahead, 71/288 frames"),
    ],
)
def test_a_status_is_one_line(fields: dict[str, Any], line: str) -> None:
    assert status_line(job("mine", **fields)) == line


def test_a_job_of_another_app_is_not_said_to_have_no_frames() -> None:
    other = job("m", status="COMPLETED", state="done", progress={"images": 0, "frames": 0, "stage": "done"})
    assert status_line(other) == "m: done"
    assert texts(other, width=80)[1].split() == ["m", "done", "-", "-", "-", "-"]


def test_what_a_terminal_would_obey_is_escaped() -> None:
    hostile = job("\x1b[2Jmine", error=Fault(type="x", message="a\nb\x1b]0;title\x07"), state="failed")
    assert status_line(hostile).startswith("\\x1b[2Jmine: failed")
    assert texts(hostile, width=200)[1].endswith("  a\\nb\\x1b]0;title\\x07")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0.0s"),
        (0, "0.0s"),
        (4.24, "4.2s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (185, "3m05s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m"),
        (7800, "2h10m"),
        (86399.4, "23h59m"),
        (86400, "1d00h"),
        (5 * 86400 + 3 * 3600, "5d03h"),
    ],
)
def test_a_span_is_told_in_six_characters(seconds: float, words: str) -> None:
    assert span_words(timedelta(seconds=seconds)) == words
    assert len(words) <= 6


def test_no_span_is_a_dash() -> None:
    assert span_words(None) == "-"


def test_every_state_can_be_asked_for() -> None:
    [choice] = [each.type for each in jobs.params if each.name == "states"]
    assert tuple(choice.choices) == get_args(StateName)


HERE = NodeSlots(encoder="libx264", slots=2, busy=0)
THERE = NodeSlots(node="alpha", encoder="nvenc", slots=3, busy=1)


@pytest.mark.parametrize(
    ("slots", "places"),
    [
        ((HERE,), ""),
        ((THERE,), "; 1 of 3 on alpha (nvenc)"),
        ((HERE, THERE), "; 0 of 2 here (libx264); 1 of 3 on alpha (nvenc)"),
    ],
)
def test_health_tells_where_jobs_run_once_some_run_on_nodes(
    capsys: pytest.CaptureFixture[str], slots: tuple[NodeSlots, ...], places: str
) -> None:
    workers = sum(each.slots for each in slots)
    health = {"status": "ok", "version": "1", "jobs_running": 1, "jobs_queued": 4, "encoder": "libx264"}
    show_health(Health.model_validate({**health, "workers": workers, "slots": slots}), as_json=False)
    expected = f"ready: 1 of {workers} workers render, 4 jobs wait, encoder libx264{places}\n"
    assert capsys.readouterr().out == expected
