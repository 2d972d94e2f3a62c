"""What the daemon keeps of coded stills: how much, which go first, and what an attempt may put there; on real disks."""

import os
import time
from pathlib import Path

import pytest

from renderer.config import RetentionSettings
from renderer.geometry import Size
from renderer.jobs.stills import KeptStills
from renderer.pictures.kept import CodedStill, StillCache
from tests.jobs.factories import fill

STILL = CodedStill(bytes(900), Size(4, 3), "frames")
SIZE = 949  # on disk
WEEK_S = 7 * 86400


def name(number: int) -> str:
    return f"{number:064x}"


def stills_in(directory: Path, limit_bytes: int = 1 << 20, min_free_bytes: int = 0) -> KeptStills:
    settings = RetentionSettings(stills_bytes=limit_bytes, outputs_s=WEEK_S)
    stills = KeptStills(directory / "stills", settings, min_free_bytes, room_bytes=0)
    stills.begin()
    return stills


def cache_of(stills: KeptStills, owner: str = "") -> StillCache:
    cache = stills.cache_for(owner)
    assert cache
    return cache


def attempt(stills: KeptStills, *numbers: int, owner: str = "", is_good: bool = True) -> StillCache:
    """Code these stills for a job."""
    cache = cache_of(stills, owner)
    for number in numbers:
        assert cache.put(name(number), STILL)
    stills.settle(cache, is_good=is_good)
    return cache


def files(stills: KeptStills) -> list[int]:
    return sorted(int(path.name, 16) for path in stills.kept.glob("*/*"))


def used(stills: KeptStills, *numbers: int) -> None:
    """Let stills be used in this order, an hour ago."""
    for moment, number in enumerate(numbers, int(time.time()) - 3600):
        for path in stills.kept.glob(f"*/{name(number)}"):
            os.utime(path, (moment, moment))


def test_a_still_is_found_as_it_was_put_once_its_job_is_done(tmp_path: Path) -> None:
    stills = stills_in(tmp_path)
    before = cache_of(stills)
    assert before.put(name(1), STILL)
    assert cache_of(stills).find(name(1)) is None
    stills.settle(before, is_good=True)
    assert cache_of(stills).find(name(1)) == STILL
    assert list(stills.new.iterdir()) == []


def test_what_a_job_that_fails_has_coded_goes(tmp_path: Path) -> None:
    stills = stills_in(tmp_path)
    attempt(stills, 1, is_good=False)
    assert files(stills) == list(stills.new.iterdir()) == []


def test_the_stills_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    stills = stills_in(tmp_path, limit_bytes=10 * SIZE)
    attempt(stills, *range(10))
    used(stills, *range(10))
    assert cache_of(stills).find(name(0))  # which makes it the newest
    attempt(stills, 10)
    assert files(stills) == [0, *range(3, 11)]


def test_the_limit_holds_for_all_clients_together_and_after_a_restart(tmp_path: Path) -> None:
    attempt(stills_in(tmp_path, limit_bytes=10 * SIZE), *range(6), owner="key.alice")
    stills = stills_in(tmp_path, limit_bytes=10 * SIZE)
    used(stills, *range(6))
    attempt(stills, *range(6, 12), owner="key.bob")
    assert files(stills) == list(range(3, 12))


def test_stills_that_were_not_used_as_long_as_videos_are_kept_go(tmp_path: Path) -> None:
    stills = stills_in(tmp_path)
    attempt(stills, 1, 2)
    used(stills, 1)
    stills.bound(time.time() + WEEK_S - 1800)
    assert files(stills) == [2]


def test_a_still_that_is_put_again_counts_once(tmp_path: Path) -> None:
    stills = stills_in(tmp_path, limit_bytes=3 * SIZE)
    for _ in range(3):
        attempt(stills, 1, 2)
    assert files(stills) == [1, 2]


@pytest.mark.parametrize("owner", ["", "key.bob"])
def test_a_client_does_not_find_the_stills_of_another(tmp_path: Path, owner: str) -> None:
    stills = stills_in(tmp_path)
    attempt(stills, 1, owner="key.alice")
    assert cache_of(stills, owner).find(name(1)) is None


def test_only_files_with_the_name_of_a_still_are_taken_from_an_attempt(tmp_path: Path) -> None:
    stills = stills_in(tmp_path)
    cache = cache_of(stills)
    assert cache.put(name(1), STILL)
    (cache.new / "..name").touch()
    (cache.new / "short").touch()
    (cache.new / name(2)).symlink_to("/etc/passwd")
    (cache.new / name(3)).mkdir()
    stills.settle(cache, is_good=True)
    assert files(stills) == [1]
    assert not cache.new.exists()


def test_a_damaged_still_is_removed(tmp_path: Path) -> None:
    stills = stills_in(tmp_path)
    for number, damage in enumerate((lambda old: old[:-1], lambda old: old + b"0", lambda old: bytes(len(old)), bytes)):
        attempt(stills, number)
        [path] = stills.kept.glob(f"*/{name(number)}")
        path.write_bytes(damage(path.read_bytes()) if damage is not bytes else b"")
        assert cache_of(stills).find(name(number)) is None
        assert not path.exists()


def test_stills_make_room_for_jobs_on_a_disk_that_fills_up(small_disk: Path) -> None:
    stills = stills_in(small_disk, min_free_bytes=200_000)
    attempt(stills, *range(60))
    assert len(files(stills)) == 60
    (small_disk / "video").write_bytes(bytes(700_000))
    assert not cache_of(stills).put(name(60), STILL)
    stills.bound()
    assert len(files(stills)) < 60


def test_a_full_disk_takes_no_still_and_leaves_nothing_half(small_disk: Path) -> None:
    stills = stills_in(small_disk)
    cache = cache_of(stills)
    assert cache.put(name(1), STILL)
    fill(small_disk)
    assert not cache.put(name(2), CodedStill(bytes(100_000), Size(4, 3)))
    assert [path.name for path in cache.new.iterdir()] == [name(1)]
    stills.settle(cache, is_good=True)


def test_a_limit_of_nothing_gives_no_cache(tmp_path: Path) -> None:
    attempt(stills_in(tmp_path), 1)
    stills = stills_in(tmp_path, limit_bytes=0)
    assert stills.cache_for("") is None
    stills.bound()
    assert files(stills) == []
