"""`stillreel store`, beside real daemons: what it finds, keeps and brings back; the documented lines are run."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.cli_process import Ended, run
from tests.daemon_process import DaemonProcess, Gate, Start, request, starting, wait_until

_OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PIXELS = {"attachments": [{"shape": [2, 2, 3]}], "images": [{"url": "cid:0", "frames": 3}]}


def store(command: str, *arguments: str | Path) -> Ended:
    return run("store", command, *arguments, cwd=Path.cwd())


def busy(start: Start, gate: Gate) -> DaemonProcess:
    """A daemon with a job that is done, one that runs, and one that waits and has brought a picture."""
    daemon = start(ENGINE__WORKERS=1, SERVER__DRAIN_TIMEOUT_S=0.1)
    daemon.client.render(request(request_id="done"))
    daemon.client.submit(gate.request(request_id="runs"))
    wait_until(daemon.encoders, "the encoder runs")
    daemon.client.submit({**PIXELS, "request_id": "waits"}, attachments=[bytes(12)])
    return daemon


def test_a_backup_of_a_daemon_at_work_is_restored_to_a_daemon_that_goes_on(
    start: Start, gate: Gate, tmp_path: Path
) -> None:
    daemon = busy(start, gate)
    video = (daemon.data_dir / "outputs" / "done" / "video.mp4").read_bytes()
    link_key = (daemon.data_dir / "webhook.secret").read_bytes()
    kept = tmp_path / "kept.tar"
    ended = store("backup", kept, "--data-dir", daemon.data_dir)
    assert (ended.returncode, ended.stdout) == (0, f"backed up: 3 jobs, {kept.stat().st_size} bytes\n"), ended.stderr
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert list((daemon.data_dir / "scratch").glob("backup-*")) == []
    assert daemon.stop() == 0
    shutil.rmtree(daemon.data_dir)
    ended = store("restore", kept, "--data-dir", daemon.data_dir)
    assert (ended.returncode, ended.stdout) == (0, "restored: 3 jobs, 1 videos\n"), ended.stderr
    assert [path for path in daemon.data_dir.rglob("*") if path.lstat().st_mode & 0o077 and not path.is_symlink()] == []
    assert (daemon.data_dir / "webhook.secret").read_bytes() == link_key
    gate.open()
    after = start()
    assert (after.client.wait("runs").frames, after.client.wait("waits").frames) == (4, 3)
    assert (after.data_dir / "outputs" / "done" / "video.mp4").read_bytes() == video
    assert "does not know" not in after.words()


def test_a_restore_takes_no_place_of_jobs_and_nothing_that_is_no_backup(start: Start, tmp_path: Path) -> None:
    daemon = start()
    daemon.client.render(request(request_id="done"))
    kept = tmp_path / "kept.tar"
    store("backup", kept, "--data-dir", daemon.data_dir)
    assert "is in use by another daemon" in store("restore", kept, "--data-dir", daemon.data_dir).stderr
    assert daemon.stop() == 0
    ended = store("restore", kept, "--data-dir", daemon.data_dir)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "its store knows 1 jobs; restore into an empty directory" in ended.stderr
    cut = tmp_path / "cut.tar"
    cut.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])  # its last kilobytes may be filling
    with tarfile.open(tmp_path / "hostile.tar", "w") as archive:
        member = tarfile.TarInfo("../outside")
        archive.addfile(member)
    for file in (cut, tmp_path / "hostile.tar"):
        ended = store("restore", file, "--data-dir", tmp_path / "fresh")
        assert ended.returncode == 2
        assert "expected a whole backup of stillreel" in ended.stderr
        assert not (tmp_path / "fresh" / "jobs.sqlite3").exists()
    assert not (tmp_path / "outside").exists()


def test_a_lost_store_is_said_at_the_start_and_its_videos_are_adopted_or_cleared(
    start: Start, gate: Gate, tmp_path: Path
) -> None:
    daemon = busy(start, gate)
    made = daemon.client.result("done")
    daemon.signal(9)
    daemon.child.wait()
    data = daemon.data_dir
    for name in ("jobs.sqlite3", "jobs.sqlite3-wal", "jobs.sqlite3-shm"):
        (data / name).unlink(missing_ok=True)
    again = start()
    assert "the store knows 0 jobs, and beside it lie 1 videos (" in again.words()
    assert "and the attachments of 2 jobs that it does not know" in again.words()
    assert len(list((data / "attachments").iterdir())) == 2, "they may be needed yet"
    found = store("check", "--data-dir", data)
    assert (found.returncode, "done: a video that belongs to no job of the store" in found.stdout) == (1, True)
    assert "is in use by another daemon" in store("adopt", "--data-dir", data).stderr
    assert again.stop() == 0
    taken_up = store("adopt", "--data-dir", data)
    assert (taken_up.stdout, taken_up.stderr) == ("adopted: 1 videos\n", "")
    assert store("check", "--data-dir", data).returncode == 0
    last = start()
    adopted = last.client.result("done")
    assert (adopted.video, adopted.frames, adopted.fps) == (made.video, made.frames, made.fps)
    assert last.stop() == 0
    (data / "outputs" / "strange").mkdir()
    shutil.copy(data / "outputs" / "done" / "video.mp4", data / "outputs" / "strange")
    assert store("clear", "--data-dir", data).stdout == f"removed: 1 videos, {made.video.file_size} bytes\n"
    assert [path.name for path in (data / "outputs").iterdir()] == ["done"]


def test_check_names_what_is_missing(start: Start, gate: Gate) -> None:
    daemon = busy(start, gate)
    assert store("check", "--data-dir", daemon.data_dir).stdout == (
        "jobs: 3 (1 done, 1 queued, 1 running)\nvideos: 1, of which 0 are missing\n"
    )
    shutil.rmtree(daemon.data_dir / "outputs" / "done")
    for each in (daemon.data_dir / "attachments").iterdir():
        shutil.rmtree(each)
    found = store("check", "--data-dir", daemon.data_dir)
    assert found.returncode == 1
    assert found.stdout.splitlines()[1:] == [
        "videos: 1, of which 1 are missing",
        "done: its video is missing",
        "runs: its attachments are missing, so it will fail",
        "waits: its attachments are missing, so it will fail",
    ]


def test_a_directory_without_a_store_is_said_to_have_none(tmp_path: Path) -> None:
    for command in ("check", "adopt", "clear"):
        ended = store(command, "--data-dir", tmp_path)
        assert (ended.returncode, ended.stderr.strip()) == (
            2,
            f"error: server.data_dir: {tmp_path} has no store of jobs",
        )
    assert list(tmp_path.iterdir()) == []


def documented(heading: str) -> str:
    """The shell lines below a heading."""
    part = re.split(r"^## ", _OPERATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    [text] = [each for each in part if each.startswith(f"{heading}\n")]
    return "\n".join(re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL))


@pytest.mark.parametrize("headings", [["Backup", "Restore"], ["Move"]], ids=str)
def test_the_documented_lines_lose_nothing(start: Start, gate: Gate, tmp_path: Path, headings: list[str]) -> None:
    daemon = busy(start, gate)
    tools, backup, new = tmp_path / "tools", tmp_path / "backup", tmp_path / "new"
    for directory in (tools, backup, new):
        directory.mkdir()
    stop = f"kill {daemon.child.pid}; while kill -0 {daemon.child.pid} 2>&-; do sleep 0.05; done; mv $DATA $DATA.lost"
    stop = stop if "Restore" in headings else stop.partition("; mv")[0]
    for name, line in {
        "systemctl": f"[ $1 = start ] || {{ {stop}; }}",
        "stillreel": f'exec {sys.executable} -m renderer "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    lines = "\n".join(map(documented, headings))
    for place, here in {"/var/lib/": f"{tmp_path}/", "/srv/backup": backup, "/srv/stillreel": new / "data"}.items():
        lines = lines.replace(place, str(here))
    lines = lines.replace(f"{tmp_path}/stillreel", str(daemon.data_dir))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "DATA": str(daemon.data_dir)}
    with subprocess.Popen(["bash", "-exc", lines], env=environment) as running:
        daemon.child.wait(60)  # the shell waits for its number to be free
        assert running.wait(60) == 0
    gate.open()
    with starting(tmp_path if "Restore" in headings else new) as start_there:
        after = start_there()
        assert (after.client.wait("runs").frames, after.client.wait("waits").frames) == (4, 3)
        assert after.client.result("done").frames == 2
