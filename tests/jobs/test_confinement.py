"""What a worker process may not do, seen from inside real ones."""

import contextlib
import ctypes
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.schema import Fault, ImageFrame, RenderParams
from renderer.config import MEBIBYTE, EngineSettings, RequestLimits
from renderer.intake import Origin, render_job
from renderer.jobs.slots import confinement
from renderer.jobs.slots.base import RenderTask
from renderer.jobs.slots.reach import Reach
from renderer.jobs.slots.rendering import run
from renderer.jobs.slots.worker import Worker
from renderer.processes import starting_first_to_kill
from tests.jobs.factories import SETTINGS

PICTURE = b"P6 2 2 255\n" + bytes(12)
TESTS = Path(__file__).parents[1]  # from which a worker imports what a test calls in it


@contextlib.contextmanager
def worker(reach: Reach | None = None, **settings: Any) -> Iterator[Callable[..., Any]]:
    """Start a worker, and give a way to call functions in it."""
    with started(reach, **settings) as process:
        yield partial(call, process)


@contextlib.contextmanager
def started(reach: Reach | None = None, **settings: Any) -> Iterator[Worker]:
    with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
        process = Worker(f"{scratch}/progress", EngineSettings(**settings), reach=reach)
        try:
            process.restart()
            yield process
        finally:
            process.close()
            assert list(Path(scratch).iterdir()) == []


def call(process: Worker, function: Callable[..., Any], *args: object) -> Any:
    return process._pool.schedule(function, args=args).result(60)


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


def pages_touched_anew(count: int, size: int) -> int:
    """Take, fill and free so many blocks, three times; return the page faults of the last time."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    faults = 0
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(size) for _ in range(count)]
        for block in blocks:
            ctypes.memset(block, 1, size)
            libc.free(block)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return faults


@pytest.mark.parametrize("overwrites", [True, False])
def test_a_worker_uses_the_memory_of_one_still_again_for_the_next(overwrites: bool) -> None:
    with worker(overwrite_memory=overwrites) as call:
        assert call(pages_touched_anew, 3, 12 * MEBIBYTE) < 100  # of 9,216


def test_a_worker_gives_back_what_it_could_hardly_use_again() -> None:
    with started(worker_memory_bytes=256 * MEBIBYTE) as process:
        call(process, pages_touched_anew, 20, 4 * MEBIBYTE)
        assert not process.has_grown()


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
    task = RenderTask("a", work, tmp_path / "a.mp4", SETTINGS)
    with worker(worker_file_bytes=MEBIBYTE) as call:
        fault = call(run, task)
        assert isinstance(fault, Fault)
        assert fault.message == "the video could not be written: File too large"
        assert call(os.getpid)  # it goes on
    assert [path.name for path in tmp_path.iterdir()] == ["noise.ppm"]
    with worker() as call:
        assert call(run, task).facts.frames == 1


needs_landlock = pytest.mark.skipif(confinement.refusal() is not None, reason="this kernel has no Landlock")


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    """What a worker may change, what it may read, and what it may not: each with a picture in it."""
    made = tuple(tmp_path / name for name in ("mine", "sources", "elsewhere"))
    for place in made:
        place.mkdir()
        (place / "a.ppm").write_bytes(PICTURE)
    return made  # type: ignore[return-value] # three of them


@needs_landlock
def test_a_confined_worker_reads_and_writes_what_jobs_need_and_nothing_else(places: tuple[Path, Path, Path]) -> None:
    mine, sources, elsewhere = places
    with worker(Reach(SETTINGS, read=(TESTS, sources), change=(mine,))) as ask:
        assert ask(Path.read_bytes, sources / "a.ppm")
        assert ask(Path.write_bytes, mine / "b", b"b") == 1
        ask(Path.rename, mine / "b", mine / "c")
        assert ask(write_temporary) is None
        for forbidden in (
            (Path.read_bytes, elsewhere / "a.ppm"),
            (os.listdir, elsewhere),
            (Path.write_bytes, elsewhere / "b", b"b"),
            (Path.unlink, elsewhere / "a.ppm"),
            (os.symlink, "a", elsewhere / "b"),
            (Path.write_bytes, sources / "b", b"b"),
            (Path.unlink, sources / "a.ppm"),
            (os.truncate, sources / "a.ppm", 0),
            (os.link, sources / "a.ppm", elsewhere / "b"),
            (read_on_a_thread, elsewhere / "a.ppm"),
        ):
            with pytest.raises(PermissionError):
                ask(*forbidden)
    assert [path.name for path in elsewhere.iterdir()] == ["a.ppm"]


def write_temporary() -> None:
    for make in (tempfile.TemporaryFile, tempfile.NamedTemporaryFile):
        with make() as file:
            file.write(b"a")


def read_on_a_thread(path: Path) -> bytes:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(path.read_bytes).result()


@needs_landlock
def test_what_a_confined_worker_starts_is_confined_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with worker(Reach(SETTINGS)) as ask:
        assert ask(subprocess.run, ["/bin/cat", "/etc/hosts"]).returncode == 0
        assert ask(subprocess.run, ["/bin/cat", tmp_path / "secret"]).returncode == 1


@needs_landlock
def test_a_confined_worker_looks_into_no_process_but_its_own() -> None:
    ours = Path(f"/proc/{os.getpid()}")
    with worker(Reach(SETTINGS, read=(TESTS,))) as ask:
        assert ask(Path.read_bytes, Path("/proc/self/environ"))
        for name in ("io", "root/etc/hosts", *(() if os.geteuid() == 0 else ("environ",))):  # root may, by another way
            with pytest.raises(PermissionError):
                ask(Path.read_bytes, ours / name)
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(PermissionError):
                ask(os.open, ours / "mem", flags)
        with pytest.raises(PermissionError):
            ask(os.readlink, ours / "fd" / "0")


@needs_landlock
@pytest.mark.skipif(
    confinement.refusal() is None and confinement._version() < 6, reason="signals are confined since 6.12"
)
def test_a_confined_worker_signals_no_process_but_its_own() -> None:
    with worker(Reach(SETTINGS, read=(TESTS,))) as ask:
        ask(os.kill, ask(os.getpid), 0)
        with pytest.raises(PermissionError):
            ask(os.kill, os.getpid(), 0)


@needs_landlock
def test_an_encoder_of_a_confined_worker_is_the_first_to_end_when_memory_runs_out() -> None:
    with worker(Reach(SETTINGS, read=(TESTS,))) as ask:
        before = ask(score)
        assert ask(score_of_a_child) == before + 100
        assert ask(score) == before


def score() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def score_of_a_child() -> int:
    with starting_first_to_kill(score() + 100):
        return int(subprocess.run(["/bin/cat", "/proc/self/oom_score_adj"], capture_output=True, check=True).stdout)


@needs_landlock
@pytest.mark.parametrize("link", [False, True], ids=["by its own name", "by a link"])
def test_a_store_that_lies_among_the_sources_is_out_of_reach_and_the_sources_are_not(
    tmp_path: Path, link: bool
) -> None:
    root = tmp_path / "home"
    data = root / "deep" / "data"
    (data / "outputs").mkdir(parents=True)
    for path in (root / "a", root / "deep" / "b", data / "jobs.sqlite3", data / "outputs" / "c", root / "key.pem"):
        path.write_text("a")
    named = data
    if link:
        named = tmp_path / "data"
        named.symlink_to(data)
    fetch = SETTINGS.fetch.model_copy(update={"allow_roots": (root,)})
    settings = SETTINGS.model_copy(update={"fetch": fetch})
    reach = Reach(settings, change=(named / "outputs",), hidden=(named, root / "key.pem"))
    with started(reach) as process:
        ask = partial(call, process)
        for path in (root / "a", root / "deep" / "b", named / "outputs" / "c"):
            assert ask(Path.read_text, path) == "a"
        for path in (data / "jobs.sqlite3", named / "jobs.sqlite3", root / "key.pem"):
            with pytest.raises(PermissionError):
                ask(Path.read_text, path)
        (root / "new").write_text("a")
        assert not process.suits(task_for(tmp_path))
        process.restart()
        assert ask(Path.read_text, root / "new") == "a"
        with pytest.raises(PermissionError):
            ask(Path.read_text, data / "jobs.sqlite3")


def task_for(directory: Path, *names: str) -> RenderTask:
    """A task whose pictures and video lie in a directory."""
    images = tuple(ImageFrame(url=name, frames=3) for name in names or ("a.ppm",))
    (directory / "made").mkdir(exist_ok=True)
    work = render_job(RenderParams(images=images), RequestLimits(), SETTINGS.fetch, Origin(base=directory))
    return RenderTask("a", work, directory / "made" / "a.mp4", SETTINGS)


@needs_landlock
def test_a_confined_worker_renders_as_before(tmp_path: Path) -> None:
    noise = [np.random.default_rng(n).integers(0, 256, (48, 64, 3), np.uint8) for n in range(3)]
    for number, pixels in enumerate(noise):
        (tmp_path / f"{number}.ppm").write_bytes(b"P6 64 48 255\n" + pixels.tobytes())
    task = task_for(tmp_path, "0.ppm", "1.ppm", "2.ppm", "0.ppm")
    with worker(Reach(SETTINGS, read=(tmp_path,), change=(tmp_path / "made",))) as ask:
        assert ask(run, task).facts.frames == 12


@needs_landlock
def test_directories_that_come_to_be_reached_are_once_the_worker_was_begun_anew(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    with started(Reach(SETTINGS, read=(source,), change=(made,))) as process:
        for _ in range(2):  # not there at first, then others by the same names
            for place in (source, made):
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
            (source / "a.ppm").write_bytes(PICTURE)
            task = replace(task_for(source), output=made / "a.mp4")
            assert call(process, run, task).type == "file_download_error"
            assert not process.suits(task)
            process.restart()
            assert process.suits(task)
            assert call(process, run, task).facts.frames == 3


@needs_landlock
def test_a_job_of_a_manifest_directory_that_the_settings_name_no_more_has_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(PICTURE)
    task = task_for(tmp_path)
    with started(Reach(SETTINGS)) as process:
        assert not process.suits(task)
        process.restart()
        assert call(process, run, task).facts.frames == 3


@needs_landlock
def test_a_thread_that_is_confined_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with pytest.raises(PermissionError):
        confinement.confined(Reach(SETTINGS)(None), (tmp_path / "a").read_text)
    assert (tmp_path / "a").read_text() == "a"
