"""The data directory of a real daemon: who may read what lies in it, whatever the umask."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from renderer.config import ServerSettings
from renderer.errors import ConfigError
from renderer.jobs.data_dir import data_dir, scratch
from tests.daemon_process import DaemonProcess, Gate, Start, request, still, wait_until
from tests.manifest_directory import put


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def open_to_others(directory: Path) -> list[str]:
    """What lies there, itself included, and lets others do anything."""
    found = []
    for path in (directory, *directory.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a temporary file
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & 0o077:
                found.append(f"{path.relative_to(directory)} {stat.S_IMODE(mode):o}")
    return found


def upload(daemon: DaemonProcess, content: bytes) -> None:
    answer = httpx.post(f"{daemon.http}/files/upload", content=content, headers={"X-Fal-File-Name": "a.ppm"})
    assert answer.status_code == 200, answer.text


def use(daemon: DaemonProcess, gate: Gate) -> None:
    """Leave of everything something: a video, a job that runs, one that waits, an upload."""
    daemon.client.render(request(request_id="done"))
    upload(daemon, b"bytes")
    daemon.client.submit(gate.request(request_id="runs"))
    wait_until(daemon.encoders, "the encoder runs")
    pixels = {"attachments": [{"shape": [2, 2, 3]}], "images": [{"url": "cid:0"}], "request_id": "waits"}
    daemon.client.submit(pixels, attachments=[bytes(12)])


def test_a_temporary_directory_whose_path_is_too_long_for_sockets_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(ConfigError, match=r"^TMPDIR: .* is too long a path for sockets below it"), scratch(tmp_path):
        pass
    assert list(deep.iterdir()) == []


def test_a_path_that_nobody_can_tell_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^server\.data_dir: ~nobody-of-this-name/data begins with a home directory"):
        data_dir(ServerSettings(data_dir=Path("~nobody-of-this-name/data")))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here").rmdir()
    with pytest.raises(ConfigError, match=r"^server\.data_dir: data starts in the current directory, which was "):
        data_dir(ServerSettings(data_dir=Path("data")))


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_nothing_in_the_data_directory_is_open_to_others_whatever_the_umask(
    start: Start, gate: Gate, tmp_path: Path, mask: int
) -> None:
    with umask(mask):
        daemon = start("--http", "127.0.0.1:0", "--workers", "1", bind=f"ipc://{tmp_path}/data/socket")
    use(daemon, gate)
    assert open_to_others(daemon.data_dir) == []
    names = {path.name for path in daemon.data_dir.rglob("*")}
    assert {"jobs.sqlite3-wal", "jobs.sqlite3-shm", "log.jsonl", "video.mp4", "content", "socket", "0"} <= names
    gate.open()
    daemon.client.wait("waits")
    assert daemon.stop() == 0
    assert open_to_others(daemon.data_dir) == []


def test_what_an_older_version_left_open_is_shut_at_the_start_and_links_lead_nowhere(
    start: Start, tmp_path: Path
) -> None:
    first = start()
    first.client.render(request(request_id="done"))
    assert first.stop() == 0
    data, elsewhere = first.data_dir, tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    elsewhere.chmod(0o644)
    (data / "outputs" / "link").symlink_to(elsewhere)
    for path in (data, *data.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    daemon = start()
    assert open_to_others(data) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644
    assert "files and directories that others could read are closed to them now" in daemon.words()
    assert daemon.client.result("done").frames == 2


def test_a_manifest_directory_inside_the_data_directory_stays_as_open_as_it_was(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "data" / "spool"
    with umask(0o022):
        spool.mkdir(parents=True)
        (tmp_path / "data" / "other").mkdir()
        start("--spool", spool)
    modes = {name: stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) for name in (".", "spool", "spool/done")}
    assert modes == {".": 0o755, "spool": 0o755, "spool/done": 0o755}
    assert stat.S_IMODE((tmp_path / "data" / "other").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data" / "jobs.sqlite3").stat().st_mode) == 0o600


def test_what_the_manifest_directory_gives_back_follows_the_umask(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    with umask(0o022):
        start("--spool", spool)
        put(spool, "a", request(still()))
    end = spool / "done" / "a"
    wait_until((end / "result.json").exists, "the manifest is done", 30)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (end, *end.iterdir())}
    assert modes == {"a": 0o755, "manifest.json": 0o644, "result.json": 0o644, "video.mp4": 0o644}
