"""No picture may show what was in memory before, and no file may end the process that decodes it."""

import random
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from renderer.errors import DecodeFailed
from renderer.pictures.decode import decode
from renderer.pictures.formats import DECODERS
from tests.pictures.filled import FILLS, Child, Died, Pair, pair
from tests.pictures.fuzz import cuts, damaged
from tests.pictures.oddities import FAMILIES, of, samples


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    with pair() as children:
        yield children


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_file_shows_the_same_under_any_filling_of_memory(family: str, both: Pair) -> None:
    for sample in of(family):
        assert both.outcome(sample.data).startswith("refuses" if sample.shows is None else "shows"), sample.name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_ends_early_is_refused_or_shows_the_same(family: str, both: Pair) -> None:
    for sample in of(family)[::3]:
        for cut in cuts(sample.data):
            both.outcome(cut)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_damaged_file_is_refused_or_shows_the_same(family: str, both: Pair) -> None:
    choose = random.Random(family)
    files = of(family)
    for _ in range(60):
        both.outcome(damaged(choose.choice(files).data, choose))


def test_samples_in_words_are_never_filled_up_from_memory() -> None:
    """The fillings would not show it: as numbers they are beyond every maxval, and a picture's own are not."""
    words = b"P2 100 100 255\n" + b"7 " * 9_000
    for _ in range(20):
        before = [np.full(10_000, 7, np.int64) for _ in range(8)]
        del before
        with pytest.raises(DecodeFailed):
            decode(words, background=(0, 0, 0), max_pixels=10**7)


def test_the_filling_reaches_memory_that_nobody_writes() -> None:
    """Else the tests above would prove nothing: both decoders' allocations come from malloc."""
    program = "import numpy as np; print(set(np.empty(1 << 20, np.uint8)[4096:].tolist()))"
    for fill in FILLS:
        environment = Child(fill)
        try:
            shown = subprocess.run(
                [sys.executable, "-c", program], env=environment.environment, capture_output=True, text=True, check=True
            ).stdout
        finally:
            environment.close()
        assert shown.strip() == f"{{{fill ^ 0xFF}}}"


def test_a_child_that_dies_is_told_and_replaced() -> None:
    child = Child(FILLS[0])
    try:
        child.kill()
        with pytest.raises(Died):
            child.outcome(b"GIF89a")
        assert child.outcome(b"GIF89a").startswith("refuses")
    finally:
        child.close()


def test_every_kind_of_the_table_has_a_sample_that_is_shown() -> None:
    from renderer.pictures.header import read_header

    seen = set()
    for sample in samples():
        if sample.shows is not None:
            header = read_header(sample.data, 10**8)
            seen.add((header.format, header.kind))
    listed = {(name, kind) for name, kinds in DECODERS.items() for kind in kinds}
    assert listed - seen == set()


@pytest.mark.parametrize("width", [62, 1 << 20, 318767165])
def test_a_file_that_names_two_sizes_is_refused_before_anything_is_decoded(width: int) -> None:
    """A JPEG 2000 whose box says more than its codestream kept Pillow busy for more than a minute."""
    data = next(sample.data for sample in samples() if sample.name == "jp2 rgb 2")
    box = data.index(b"ihdr") + 8
    with pytest.raises(DecodeFailed, match="names one size"):
        decode(data[:box] + width.to_bytes(4, "big") + data[box + 4 :], background=(0, 0, 0), max_pixels=10**7)
