"""Sounds decoded under two fillings of memory: what comes out may not depend on what was there before."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.media.sound.made import RATE, coded
from tests.pictures.filled import Pair, pair
from tests.pictures.fuzz import cuts, damaged

FORMATS = {
    "a.wav": ("-c:a", "pcm_s16le"),
    "a.mp3": (),
    "a.flac": (),
    "a.ogg": ("-c:a", "libvorbis"),
    "a.opus": (),
    "a.aac": (),
    "a.m4a": (),
    "alac.m4a": ("-c:a", "alac"),
    "a.webm": (),
    "six.m4a": ("-ac", "6"),
}


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    with pair("sounds") as children:
        yield children


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Return half a second of noise in a format."""
    directory = tmp_path_factory.mktemp("sounds")
    noise = np.random.default_rng(3).standard_normal((2, RATE // 2)).astype(np.float32) * 0.2

    def of(name: str) -> bytes:
        path: Path = directory / name
        if not path.exists():
            coded(noise, path, *FORMATS[name])
        return path.read_bytes()

    return of


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_is_the_same_whole_cut_and_damaged_under_any_filling_of_memory(
    name: str, file: Callable[[str], bytes], both: Pair
) -> None:
    data = file(name)
    assert both.outcome(data).startswith("sounds ")
    choose = random.Random(name)
    for changed in (*cuts(data), *(damaged(data, choose) for _ in range(25))):
        both.outcome(changed)
