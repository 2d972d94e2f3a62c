"""The room that is kept for bad times, on a real disk."""

from pathlib import Path

import pytest

from renderer.jobs.store import Reserve
from tests.jobs.factories import fill


def test_the_room_is_really_taken_and_given_up_once(small_disk: Path) -> None:
    reserve = Reserve(small_disk / "reserve")
    reserve.keep()
    assert (small_disk / "reserve").stat().st_blocks * 512 == 256 * 1024
    reserve.keep()
    fill(small_disk)
    assert reserve.spend()
    assert not reserve.spend()
    (small_disk / "more").write_bytes(bytes(256 * 1024))


def test_a_disk_without_the_room_is_an_error_and_has_nothing_half(small_disk: Path) -> None:
    ballast = fill(small_disk)
    reserve = Reserve(small_disk / "reserve")
    with pytest.raises(OSError, match="No space left on device"):
        reserve.keep()
    assert not (small_disk / "reserve").exists()
    ballast.unlink()
    reserve.keep()


def test_a_reserve_that_a_kill_left_empty_is_taken_again(tmp_path: Path) -> None:
    (tmp_path / "reserve").touch()
    Reserve(tmp_path / "reserve").keep()
    assert (tmp_path / "reserve").stat().st_size == 256 * 1024
