"""A whole daemon on a disk that fills up: nothing is lost, nothing is corrupt, and it goes on when there is room."""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.errors import RemoteError
from tests.daemon_process import Gate, Start, request, wait_until

MIB = 1024 * 1024


@pytest.fixture
def small(tmpfs: Callable[[str, str], Path]) -> Path:
    """A file system of 20 MiB where daemons keep their data."""
    return tmpfs("data", "20m")


def fill(place: Path, leave_bytes: int = 0) -> Path:
    """Take what is free, but for so much."""
    free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        file.write(bytes(max(0, free - leave_bytes)))
        while leave_bytes == 0:
            file.write(bytes(512))
    return filler


def noisy(**fields: object) -> tuple[dict[str, object], list[bytes]]:
    """A job with 7 MiB of pictures and a video of nearly as much."""
    layout = {"attachments": [{"shape": [480, 640, 3]}] * 8, "width": 640, "height": 480, "crf": 1}
    pictures = [os.urandom(480 * 640 * 3) for _ in range(8)]
    return {"images": [{"url": f"cid:{index}"} for index in range(8)], **layout, **fields}, pictures


def test_a_disk_nearly_full_refuses_jobs_and_takes_them_again(start: Start, small: Path) -> None:
    daemon = start(ENGINE__WORKERS=1, ENGINE__MIN_FREE_BYTES=2 * MIB)
    filler = fill(small, leave_bytes=MIB)
    health = daemon.client.health()  # looks now; an earlier look would have sufficed for another job
    assert (health.ready, health.reasons) == (False, ("the disk is nearly full",))
    for _ in range(3):
        with pytest.raises(RemoteError, match="disk is nearly full") as caught:
            daemon.client.submit(request())
        assert (caught.value.kind.name, caught.value.kind.retryable) == ("storage_full", True)
    filler.unlink()
    assert daemon.client.render(request()).frames == 2
    assert daemon.client.health().ready


def test_a_video_that_does_not_fit_fails_with_clear_words_and_leaves_nothing(start: Start, small: Path) -> None:
    daemon = start(ENGINE__WORKERS=1, ENGINE__MIN_FREE_BYTES=0)
    asked, pictures = noisy(request_id="large")
    filler = fill(small, leave_bytes=8 * MIB)  # room for the pictures, not for the video
    with pytest.raises(RemoteError, match="No space left on device") as caught:
        daemon.client.render(asked, attachments=pictures)
    assert caught.value.kind.name == "storage_full"
    assert list((daemon.data_dir / "outputs").iterdir()) == []
    assert list((daemon.data_dir / "attachments").iterdir()) == []
    filler.unlink()
    asked["request_id"] = "again"
    assert daemon.client.render(asked, attachments=pictures).frames == 8


def test_a_job_that_ends_on_a_full_disk_can_still_end(start: Start, small: Path, gate: Gate) -> None:
    daemon = start(ENGINE__WORKERS=1, ENGINE__MIN_FREE_BYTES=0)
    daemon.client.submit(gate.request(request_id="late"))
    wait_until(daemon.encoders, "the encoder runs")
    filler = fill(small)
    gate.open()
    daemon.wait_for("late", "COMPLETED")
    job = daemon.client.status("late")
    assert job.error
    assert "No space left on device" in job.error.message
    fill(small)
    with pytest.raises(RemoteError) as caught:
        daemon.client.submit(request())
    assert caught.value.kind.name == "storage_full"
    filler.unlink()
    assert daemon.client.render(request()).frames == 2
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(daemon.data_dir / "jobs.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_whatever_room_is_left_the_job_ends_and_the_next_one_can(start: Start, small: Path) -> None:
    daemon = start(ENGINE__WORKERS=1, ENGINE__MIN_FREE_BYTES=0)
    for leave_bytes in range(0, 120_000, 20_000):
        late = f"late-{leave_bytes}"
        with contextlib.closing(Gate()) as gate:
            daemon.client.submit(gate.request(request_id=late))
            wait_until(daemon.encoders, "the encoder runs")
            filler = fill(small, leave_bytes)
            gate.open()
            daemon.wait_for(late, "COMPLETED")
        job = daemon.client.status(late)
        assert job.state == "done" or (job.error and job.error.type == "storage_full"), late
        filler.unlink()
        assert daemon.client.render(request()).frames == 2


def test_a_daemon_on_a_full_disk_does_not_start_and_says_so(start: Start, small: Path) -> None:
    first = start()
    assert first.stop() == 0
    fill(small)
    with pytest.raises(AssertionError, match=r"disk is full|No space left on device"):
        start()
