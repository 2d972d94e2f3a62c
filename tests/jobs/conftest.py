import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path, require: Callable[[str, object, str], None]) -> Iterator[Path]:
    """A file system of one mebibyte."""
    directory = tmp_path / "disk"
    directory.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    is_mounted = libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"size=1m") == 0
    require("mount", is_mounted, "mounting a tmpfs takes root")
    yield directory
    libc.umount2(os.fsencode(directory), 2)  # MNT_DETACH
