"""Sessions are counted over processes, and whoever dies gives his back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from renderer.config import NvencSettings
from renderer.encode.nvenc.locks import Seats, state_dir, waiting_for_a_session
from renderer.errors import DeviceFailed, SessionsBusy

NOW = 0.0  # a deadline that has passed


def holding(directory: Path, uuid: str, count: int = 1) -> subprocess.Popen[bytes]:
    """Start a process that holds sessions until it is ended."""
    code = (
        "import sys, pathlib; from renderer.encode.nvenc.locks import Seats\n"
        "seats = Seats(pathlib.Path(sys.argv[1]), 8)\n"
        "held = [seats.take([sys.argv[2]], 0) for _ in range(int(sys.argv[3]))]\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, directory, uuid, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_no_more_are_held_than_there_may_be(tmp_path: Path) -> None:
    seats = Seats(tmp_path, 2)
    held = [seats.take(["a"], NOW), seats.take(["a"], NOW)]
    with pytest.raises(SessionsBusy, match="all 2 encode sessions of the GPU are in use"):
        seats.take(["a"], NOW)
    held[0].release()
    held[0].release()
    seats.take(["a"], NOW).release()
    held[1].release()
    assert seats.busy("a") == 0


def test_the_least_busy_device_is_taken(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    held = [seats.take(["a", "b", "c"], NOW) for _ in range(7)]
    assert [seat.uuid for seat in held] == ["a", "b", "c", "a", "b", "c", "a"]
    held[4].release()
    assert seats.take(["a", "b", "c"], NOW).uuid == "b"


def test_another_process_counts_until_it_is_killed(tmp_path: Path) -> None:
    seats = Seats(tmp_path, 2)
    with holding(tmp_path, "a", 2) as other:
        assert seats.busy("a") == 2
        with pytest.raises(SessionsBusy):
            seats.take(["a"], time.monotonic() + 0.2)
        other.send_signal(signal.SIGKILL)
        other.wait(60)
        seats.take(["a"], time.monotonic() + 10).release()


def test_waiting_ends_when_a_session_comes_free(tmp_path: Path) -> None:
    seats = Seats(tmp_path, 1)
    mine = seats.take(["b"], NOW)
    with holding(tmp_path, "a") as other:
        assert not mine.is_wanted()
        with waiting_for_a_session(tmp_path):
            assert mine.is_wanted()
        assert not mine.is_wanted()
        other.kill()
        assert seats.take(["a"], time.monotonic() + 10).uuid == "a"


def test_the_directory_is_ours_alone(tmp_path: Path) -> None:
    path = state_dir(NvencSettings(state_dir=tmp_path / "deep" / "state"))
    assert path.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(DeviceFailed, match="belongs to someone else"):
        state_dir(NvencSettings(state_dir=tmp_path / "link"))
    (tmp_path / "file").touch()
    with pytest.raises(DeviceFailed, match="cannot be made: File exists"):
        state_dir(NvencSettings(state_dir=tmp_path / "file"))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_no_crash(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DeviceFailed, match="cannot be counted"):
        Seats(tmp_path, 1).take(["a"], NOW)
