"""A data directory that was upgraded, moved or copied: real daemons lose no job and no video, and touch no other's."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon_process import Gate, Start, picture, request, starting, still, wait_until

_VERSION_2 = Path(__file__).parent / "jobs" / "store-version-2.sql"  # written by a daemon in /srv/stillreel
_KEEP_ALL = {"RETENTION__OUTPUTS_S": 1e12, "RETENTION__RESULTS_S": 1e12}


@pytest.fixture
def start_in(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts daemons over the data directory in tmp_path/NAME."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **environment: object):
            (tmp_path / name).mkdir(exist_ok=True)
            return stack.enter_context(starting(tmp_path / name))(**environment)

        yield start


def version_2(data: Path, gate: Gate) -> None:
    """Lay out what that daemon had when it was killed: its store, videos and attachments."""
    script = _VERSION_2.read_text(encoding="utf-8").replace("http://127.0.0.1:37363/late.ppm", gate.url)
    (data / "attachments").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(data / "jobs.sqlite3")) as database:
        database.executescript(script)
        files = dict(database.execute("SELECT id, CAST(files AS TEXT) FROM jobs WHERE work IS NOT NULL"))
    for job_id in ("done", "inline"):
        (data / "outputs" / job_id).mkdir(parents=True)
        (data / "outputs" / job_id / "video.mp4").write_bytes(b"the video of " + job_id.encode())
    for job_id, brought in {
        "running": [picture((1, 2, 3))],
        "waits": [picture((1, 2, 3))],
        "pixels": [bytes(12 * 16 * 3), picture((1, 2, 3)), picture((4, 5, 6))],
    }.items():
        place = data / "attachments" / Path(files[job_id]).name
        place.mkdir()
        for number, content in enumerate(brought):
            (place / str(number)).write_bytes(content)


def test_a_store_of_version_2_is_taken_up_wherever_it_was_moved_to(start_in: Start, tmp_path: Path, gate: Gate) -> None:
    data = tmp_path / "new place" / "data"
    version_2(data, gate)
    gate.open()
    daemon = start_in("new place", **_KEEP_ALL)
    for job_id, frames in {"running": 4, "waits": 2, "pixels": 12}.items():
        assert daemon.client.wait(job_id).frames == frames
        assert (data / "outputs" / job_id / "video.mp4").is_file()
    for job_id in ("done", "running", "waits", "pixels"):
        video = data / "outputs" / job_id / "video.mp4"
        assert daemon.client.result(job_id).video.url == video.as_uri()
    assert daemon.client.result("done").metadata == {"title": "é", "deep": [1, {"b": None}], "big": 10**20}
    assert daemon.client.result("inline").video_bytes == b"the video of inline"
    states = {each.request_id: each.state for each in daemon.client.jobs([], 100)}
    manifest = "377077d4d14a40c2a89749a83fbbd56b"
    ended = {"failed": "failed", "cancelled": "cancelled", "expired": "expired"}
    assert (
        states == dict.fromkeys(["done", "inline", "removed", manifest, "running", "waits", "pixels"], "done") | ended
    )
    assert daemon.client.result(manifest).video.url == "file:///srv/stillreel/spool/done/manifest/video.mp4"
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(data / "jobs.sqlite3")) as database:
        assert "/srv/stillreel/data" not in "\n".join(database.iterdump())
        assert database.execute(
            "SELECT count(*) FROM jobs WHERE output LIKE '/%' AND NOT is_kept_elsewhere"
        ).fetchone() == (0,)


def test_a_directory_that_was_moved_goes_on_with_what_waited_and_leaves_nothing_in_the_old_place(
    start_in: Start, tmp_path: Path, gate: Gate
) -> None:
    before = start_in("a", ENGINE__WORKERS=1, SERVER__DRAIN_TIMEOUT_S=0.1)
    video = before.client.render(request(request_id="done")).video.url
    before.client.submit(gate.request(request_id="runs"))
    wait_until(before.encoders, "the encoder runs")
    pixels = {"attachments": [{"shape": [2, 2, 3]}], "images": [{"url": "cid:0", "frames": 3}], "request_id": "waits"}
    before.client.submit(pixels, attachments=[bytes(12)])
    assert before.stop() == 0
    (tmp_path / "a").rename(tmp_path / "b")
    gate.open()
    after = start_in("b")
    assert (after.client.wait("runs").frames, after.client.wait("waits").frames) == (4, 3)
    assert after.client.result("done").video.url == video.replace("/a/data/", "/b/data/")
    for job_id in ("done", "runs", "waits"):
        assert Path(after.client.result(job_id).video.url.removeprefix("file://")).is_relative_to(tmp_path / "b")
        assert (tmp_path / "b" / "data" / "outputs" / job_id / "video.mp4").is_file()
    assert not (tmp_path / "a").exists()


def test_a_daemon_on_a_copy_removes_its_own_videos_and_not_those_of_the_original(
    start_in: Start, tmp_path: Path
) -> None:
    first = start_in("a")
    made = first.client.render(request(still(), request_id="done", sync_mode=True))
    assert first.stop() == 0
    shutil.copytree(tmp_path / "a" / "data", tmp_path / "copy" / "data", symlinks=True)
    copy = start_in("copy", RETENTION__OUTPUTS_S=0.01)
    wait_until(lambda: "its video of" in copy.words(), "the copy's time is up")
    assert not (tmp_path / "copy" / "data" / "outputs" / "done").exists()
    assert (tmp_path / "a" / "data" / "outputs" / "done" / "video.mp4").read_bytes() == made.video_bytes
    assert start_in("a").client.result("done").video_bytes == made.video_bytes
