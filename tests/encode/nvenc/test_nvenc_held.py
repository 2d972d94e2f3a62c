"""Held pictures over every shape of stream that cards are known to write, judged by two decoders."""

from itertools import chain, repeat
from typing import Any

import pytest

from tests.encode.h264.conftest import decode, openh264
from tests.nvenc_standin.process import Standin

__all__ = ["decode", "openh264"]

CHILDREN = "tests.encode.nvenc.nvenc_children"
SIZE = (162, 98)  # no multiple of a macroblock, so that cropping is in play
HOLDS = [2, 18, 1, 1, 3, 260]  # two IDR pictures in a row, and past the 256 that frame_num counts
IDRS = [True, False, False, True, True, False]
SHAPES: dict[str, dict[str, Any]] = {
    "as by default": {},
    "one reference": {"REFS": 1},
    "references not limited": {"L0": 3},
    "POC type 0": {"POC_TYPE": 0},
    "POC type 0, references not limited": {"POC_TYPE": 0, "L0": 3, "REFS": 4},
    "equal idr_pic_ids": {"IDR_ID": 0},
    "equal idr_pic_ids above 0": {"IDR_ID": 1},
    "four slices": {"SLICES": 4},
    "four slices, POC type 0": {"SLICES": 4, "POC_TYPE": 0},
    "no timing messages": {"HRD": 0},
    "no restriction": {"RESTRICTION": 0},
    "a level too low": {"LEVEL": 10, "RESTRICTION": 0},
}


@pytest.fixture(scope="module")
def streams(standin_parent, found_once, tmp_path_factory) -> dict[str, list[str]]:
    """Coded and held streams by shape, all from one child."""
    lent = Standin(standin_parent, tmp_path_factory.mktemp("shapes"))
    told = {"shapes": SHAPES, "size": SIZE, "holds": HOLDS, "idrs": IDRS}
    found: dict[str, list[str]] = lent.ask(CHILDREN, "held_streams", **told)
    assert lent.leaks() == []
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_two_decoders_show_each_held_picture_as_it_was_coded(streams, decode, openh264, shape: str) -> None:
    coded, held = map(bytes.fromhex, streams[shape])
    pictures = decode(coded)
    assert len(set(pictures)) == len(HOLDS)
    expected = list(chain.from_iterable(map(repeat, pictures, HOLDS)))
    assert decode(held) == expected
    assert openh264(held, SIZE) == expected
