"""Scratch directories go with their owner: real processes, and SIGKILL."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from renderer.disk import keep_fresh, scratch_dir
from tests.daemon_process import Start

OWNER = """
from renderer.disk import scratch_dir
with scratch_dir() as own:
    (own / "content").write_bytes(b"left")
    print(own, flush=True)
    input()
"""
StartOwner = Callable[[], tuple["subprocess.Popen[str]", Path]]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's processes keep temporary files; short, for the sockets of daemons."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def start_owner(temporary: Path) -> Iterator[StartOwner]:
    started = []

    def start() -> tuple["subprocess.Popen[str]", Path]:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        command = [sys.executable, "-c", OWNER]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        started.append(process)
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    yield start
    for process in started:
        process.kill()
        process.communicate()


def killed(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait(60)


def test_what_a_killed_process_leaves_is_removed_by_the_next(start_owner: StartOwner) -> None:
    process, left = start_owner()
    killed(process)
    assert (left / "content").exists()
    with scratch_dir() as own:
        assert not left.exists()
        assert own.is_dir()
    assert not own.exists()


def test_what_a_living_process_has_stays(start_owner: StartOwner) -> None:
    process, living = start_owner()
    with scratch_dir():
        assert (living / "content").read_bytes() == b"left"
    process.communicate("\n", 10)
    assert not living.exists()


def test_directories_that_only_have_such_a_name_stay(temporary: Path) -> None:
    """A data directory has a lock too, which nobody holds while no daemon runs."""
    data = temporary / "stillreel-data"
    data.mkdir()
    (data / "lock").touch()
    (temporary / "stillreel-notes").write_text("a file", encoding="ascii")
    with scratch_dir():
        pass
    assert {path.name for path in temporary.iterdir()} == {"stillreel-data", "stillreel-notes"}
    assert (data / "lock").exists()


def test_a_link_leads_nowhere(start_owner: StartOwner, temporary: Path) -> None:
    process, left = start_owner()
    killed(process)
    elsewhere = temporary / "elsewhere"
    left.rename(elsewhere)
    (temporary / "stillreel-link").symlink_to(elsewhere)
    with scratch_dir():
        assert (elsewhere / "content").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_what_belongs_to_another_user_stays(start_owner: StartOwner) -> None:
    process, left = start_owner()
    killed(process)
    os.chown(left, 65534, 65534)
    with scratch_dir():
        assert (left / "content").exists()


def test_what_a_killed_daemon_leaves_is_removed_by_whoever_comes_next(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start("--workers", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(daemon.temporary))
    (left,) = daemon.temporary.glob("stillreel-*")
    with scratch_dir():
        assert left.exists()
    killed(daemon.child)
    with scratch_dir():
        assert not left.exists()


def test_what_is_kept_fresh_is_not_old_for_whatever_tidies_up(tmp_path: Path) -> None:
    (tmp_path / "worker" / "tmp").mkdir(parents=True)
    (tmp_path / "worker" / "crash").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):
        listener.bind("progress")
    kept = [tmp_path, *tmp_path.rglob("*")]
    assert len(kept) == 6
    for path in kept:
        os.utime(path, (0, 0), follow_symlinks=False)
    keep_fresh(tmp_path)
    assert all(min(path.lstat().st_atime, path.lstat().st_mtime) > 1e9 for path in kept)
