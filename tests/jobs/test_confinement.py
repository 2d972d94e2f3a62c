"""What a worker process may not do, seen from inside real ones."""

import contextlib
import ctypes
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from protocol.schema import Fault, ImageFrame, RenderParams
from renderer.config import MEBIBYTE, EngineSettings, RequestLimits
from renderer.intake import Origin, render_job
from renderer.jobs.worker import Order, Worker, run
from tests.jobs.factories import SETTINGS


@contextlib.contextmanager
def worker(**settings: Any) -> Iterator[Callable[..., Any]]:
    """Start a worker, and give a way to call functions in it."""
    with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
        process = Worker(f"{scratch}/progress", EngineSettings(**settings))
        try:
            process.restart()
            yield lambda function, *args: process._pool.schedule(function, args=args).result(20)
        finally:
            process.close()


def left_of_what_was_freed(size: int) -> tuple[bool, int]:
    """Return whether a block was given out twice, and how many of its first owner's bytes the second one reads."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    first = libc.malloc(size)
    ctypes.memset(first, 0x5B, size)
    libc.free(first)
    second = libc.malloc(size)
    left = ctypes.string_at(second, size).count(0x5B)
    libc.free(second)
    return first == second, left


def test_what_one_owner_has_freed_the_next_cannot_read() -> None:
    sizes = (2_000, 20_000, 100_000, 1_000_000, 10_000_000)
    with worker() as call:
        for size in sizes * 3:  # glibc maps the first large ones each for itself, and keeps the next
            assert call(left_of_what_was_freed, size)[1] == 0
        assert call(left_of_what_was_freed, 100_000)[0]


def test_memory_is_left_as_it_is_where_the_settings_say_so() -> None:
    with worker(overwrite_memory=False) as call:
        same, left = call(left_of_what_was_freed, 100_000)
        assert same
        assert left > 99_000


def test_a_worker_dumps_no_core_and_gains_no_rights() -> None:
    with worker() as call:
        assert call(resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)
        status = Path(f"/proc/{call(os.getpid)}/status").read_text(encoding="ascii")
        assert "\nNoNewPrivs:\t1\n" in status


def test_a_video_beyond_the_largest_file_fails_in_words_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1200, 1600, 3), np.uint8)
    (tmp_path / "noise.ppm").write_bytes(b"P6 1600 1200 255\n" + noise.tobytes())
    request = RenderParams(images=(ImageFrame(url="noise.ppm", frames=1),), crf=1, preset="ultrafast")
    work = render_job(request, RequestLimits(), SETTINGS.fetch, Origin(base=tmp_path))
    order = Order("a", work, tmp_path / "a.mp4", SETTINGS)
    with worker(worker_file_bytes=MEBIBYTE) as call:
        fault = call(run, order)
        assert isinstance(fault, Fault)
        assert fault.message == "the video could not be written: File too large"
        assert call(os.getpid)  # it goes on
    assert [path.name for path in tmp_path.iterdir()] == ["noise.ppm"]
    with worker() as call:
        assert call(run, order).facts.frames == 1
