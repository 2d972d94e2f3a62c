"""Frames decoded under two fillings of memory: what comes out may not depend on what was there before."""

import random
from collections.abc import Iterator

import pytest

from tests.media.made import Make
from tests.pictures.filled import Pair, pair
from tests.pictures.fuzz import cuts, damaged

NAMES = ("a.mp4", "hevc.mkv", "vp8.webm", "vp9.webm", "av1.mp4")


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    with pair("videos") as children:
        yield children


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_the_same_whole_cut_and_damaged_under_any_filling_of_memory(
    video: Make, name: str, both: Pair
) -> None:
    data = video(name).read_bytes()
    assert both.outcome(data).startswith("plays ")
    choose = random.Random(name)
    for changed in (*cuts(data), *(damaged(data, choose) for _ in range(12))):
        both.outcome(changed)
