"""Streams to encode, and a count of what a test leaves behind in this process."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from renderer.encode.stream import StreamSettings
from renderer.geometry import Canvas
from tests.nvenc_standin.fixture import standin, standin_libraries, standin_parent
from tests.nvenc_standin.process import Parent, Standin

__all__ = [
    "found_once",
    "frame_of",
    "known",
    "nothing_left",
    "standin",
    "standin_libraries",
    "standin_parent",
    "stream",
]

Frame = npt.NDArray[np.uint8]


@pytest.fixture
def stream() -> StreamSettings:
    return StreamSettings(Canvas(64, 48), Fraction(24), crf=20, preset="ultrafast", keyframe_interval=8)


@pytest.fixture
def frame_of(stream: StreamSettings) -> Callable[[int], Frame]:
    """Return a function from a luma value to a frame that has it everywhere."""

    def frame(luma: int) -> Frame:
        return np.full(stream.canvas.nv12_shape, luma, np.uint8)

    return frame


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def _children() -> set[int]:
    """Return our child processes, those that are dead and not reaped included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        if int(text.rpartition(")")[2].split()[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail if a child process or an open file remains."""
    files, children = _open_files(), _children()
    yield
    ends = time.monotonic() + 2
    while _children() - children and time.monotonic() < ends:
        time.sleep(0.01)
    assert _children() - children == set()
    assert _open_files() == files


@pytest.fixture(scope="session")
def found_once(standin_parent: Parent, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cache directory in which a good device is known, and what was found then; asked once for all tests."""
    lent = Standin(standin_parent, tmp_path_factory.mktemp("known"))
    found = lent.ask("tests.encode.nvenc.nvenc_children", "found")
    assert found["refusal"] is None
    assert lent.leaks() == []
    return Path(lent()["XDG_CACHE_HOME"]), found


@pytest.fixture
def known(found_once: tuple[Path, dict[str, Any]], standin: Standin) -> None:
    """Let the device be known as a good one, so that it fails only when it is used."""
    shutil.copytree(found_once[0], standin()["XDG_CACHE_HOME"])
