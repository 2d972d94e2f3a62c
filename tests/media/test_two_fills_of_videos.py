"""Frames decoded under two fillings of memory: what comes out may not depend on what was there before."""

import io
import random
from collections.abc import Iterator

import av
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


_SLICES = "slices=3:bframes=2:keyint=12"
SLICED = {  # and the byte that begins a NAL unit of a type without meaning
    "sliced.mp4": (("-c:v", "libx264", "-x264-params", _SLICES), 30),
    "sliced-hevc.mp4": (("-c:v", "libx265", "-x265-params", f"log-level=error:ctu=16:{_SLICES}"), 41 << 1),
}


@pytest.mark.parametrize("name", SLICED)
def test_a_slice_that_is_lost_is_told_or_shows_nothing_of_memory(video: Make, name: str, both: Pair) -> None:
    """libavcodec tells of every one in H.264; in HEVC it shows what is the same under both fillings."""
    coding, meaningless = SLICED[name]
    data = video(name, "-i", str(video("a.mp4")), *coding, "-pix_fmt", "yuv420p").read_bytes()
    whole = both.outcome(data)
    for place in slices(data)[:9]:
        lost = bytearray(data)
        lost[place] = meaningless
        outcome = both.outcome(bytes(lost))
        assert outcome == whole or outcome.startswith("refuses: VideoDamaged") or "hevc" in name


def slices(data: bytes) -> list[int]:
    """Return where the last three NAL units of each packet begin, in an MP4."""
    found = []
    with av.open(io.BytesIO(data)) as container:
        for packet in container.demux(video=0):
            units, at, content = [], 0, bytes(packet)
            while at < len(content):
                units.append((packet.pos or 0) + at + 4)
                at += 4 + int.from_bytes(content[at : at + 4])
            found += units[-3:]
    return found
