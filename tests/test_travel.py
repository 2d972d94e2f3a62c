"""A data directory that was upgraded, moved or copied: real daemons lose no job and no video, and touch no other's."""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from renderer.jobs import archive
from renderer.jobs.adoption import adopt
from tests.daemon_process import Gate, Start, picture, request, starting, still, wait_until

_VERSIONS = {  # written by daemons in /srv/stillreel
    version: Path(__file__).parent / "jobs" / f"store-version-{version}.sql" for version in (2, 3)
}
_KEEP_ALL = {"RETENTION__OUTPUTS_S": 1e12, "RETENTION__RESULTS_S": 1e12}


@pytest.fixture
def start_in(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts daemons over the data directory in tmp_path/NAME."""
    with contextlib.ExitStack() as stack:

        def start(name: str, **environment: object):
            (tmp_path / name).mkdir(exist_ok=True)
            return stack.enter_context(starting(tmp_path / name))(**environment)

        yield start


def lay_out(version: int, data: Path, gate: Gate) -> None:
    """Lay out what the daemon of that version had when it was killed: its store, videos and attachments."""
    script = _VERSIONS[version].read_text(encoding="utf-8").replace("http://127.0.0.1:37363/late.ppm", gate.url)
    (data / "attachments").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(data / "jobs.sqlite3")) as database:
        database.executescript(script)
        files = dict(database.execute("SELECT id, CAST(files AS TEXT) FROM jobs WHERE work IS NOT NULL"))
        kept = [row[0] for row in database.execute("SELECT id FROM jobs WHERE video_bytes > 0")]
    for job_id in kept:
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


@pytest.mark.parametrize("version", _VERSIONS)
def test_a_store_of_an_earlier_version_is_taken_up_wherever_it_was_moved_to(
    start_in: Start, tmp_path: Path, gate: Gate, version: int
) -> None:
    data = tmp_path / "new place" / "data"
    lay_out(version, data, gate)
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
    manifest, more = {2: ("377077d4d14a40c2a89749a83fbbd56b", []), 3: ("714d0319b9374892bc5c180a0a237012", ["warned"])}[
        version
    ]
    ended = {"failed": "failed", "cancelled": "cancelled", "expired": "expired"}
    done = ["done", "inline", "removed", manifest, "running", "waits", "pixels", *more]
    assert states == dict.fromkeys(done, "done") | ended
    assert daemon.client.result(manifest).video.url == "file:///srv/stillreel/spool/done/manifest/video.mp4"
    assert daemon.stop() == 0
    with contextlib.closing(sqlite3.connect(data / "jobs.sqlite3")) as database:
        assert "/srv/stillreel/data" not in "\n".join(database.iterdump())
        assert database.execute(
            "SELECT count(*) FROM jobs WHERE output LIKE '/%' AND NOT json_extract(job, '$.is_kept_elsewhere')"
        ).fetchone() == (0,)


@pytest.mark.parametrize("version", _VERSIONS)
def test_a_store_of_an_earlier_version_is_checked_backed_up_and_restored_as_it_is(
    tmp_path: Path, gate: Gate, version: int
) -> None:
    data, restored = tmp_path / "data", tmp_path / "restored"
    lay_out(version, data, gate)
    restored.mkdir()
    before = archive.examine(data)
    assert archive.back_up(data, tmp_path / "backup.tar") == before.jobs.total()
    assert archive.restore(tmp_path / "backup.tar", restored) == before
    adopted, refused = adopt(restored, 1.0)
    assert (adopted, refused) == ([], {})
    assert archive.examine(restored) == before


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
