"""What all tests share: real photographs, small made images, a decoder that is not ours, and two rules.

A test fails if our code logged an ERROR, unless it is marked `logs_errors`. A test whose tool is missing is
skipped, but fails where the tool is promised in the environment: REQUIRE=openh264,photos.
"""

import contextlib
import ctypes
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.daemon_process import Gate, Start, starting

Colour = tuple[int, ...] | int
WriteImage = Callable[..., Path]

# httpx waits five seconds unless it is told otherwise, and a busy machine may take longer.
for _part in ("connect", "read", "write", "pool"):
    setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

# What takes twenty seconds or more, longest first: directories that share a browser or the like, and files. Each stays
# with one process, so one that is begun last keeps that process busy while the others have nothing left to do.
LONG_GROUPS = (
    "frontends/web",
    "jobs/slots",
    "frontends/spool/test_spool.py",
    "encode/nvenc/test_gpu_check.py",
    "test_daemon.py",
    "encode/nvenc/test_nvenc_jobs.py",
    "encode/nvenc/test_nvenc.py",
    "batch/test_batch_process.py",
    "cli/test_store_command.py",
    "jobs/test_engine.py",
    "test_typed.py",
    "encode/nvenc/test_probe.py",
    "observe/test_descriptors.py",
    "cli/test_cli.py",
    "frontends/http/test_webhooks.py",
    "test_recovery.py",
    "frontends/zmq/test_zmq_workers.py",
    "frontends/zmq/test_zmq_bounds.py",
    "protocol/test_restart.py",
    "test_processes.py",
    "frontends/http/test_hostile.py",
    "test_chaos.py",
    "test_restart.py",
    "jobs/test_start.py",
    "encode/nvenc/test_nvenc_daemon.py",
    "cli/test_cli_client.py",
    "encode/h264/test_repeat.py",
    "frontends/zmq/test_zmq_curve.py",
    "test_admission.py",
    "cli/test_cli_watch.py",
    "frontends/http/test_restart.py",
    "frontends/http/test_keys.py",
    "frontends/http/test_openapi.py",
    "pictures/test_compose.py",
    "jobs/test_store.py",
    "manifests/test_placement.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the long groups first; xdist keeps this order with --no-loadscope-reorder."""
    place = {name: number for number, name in enumerate(LONG_GROUPS)}
    items.sort(key=lambda item: place.get(group_of(item.nodeid), len(place)))


def group_of(nodeid: str) -> str:
    path = Path(nodeid.partition("::")[0].removeprefix("tests/"))
    return next((str(each) for each in path.parents if str(each) in LONG_GROUPS), str(path))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep groups together where files are kept together."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def no_error_logged(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("logs_errors"):
        return
    errors = [
        record.getMessage()
        for when in ("setup", "call")
        for record in caplog.get_records(when)
        if record.levelno >= logging.ERROR and record.name.split(".")[0] in {"renderer", "protocol"}
    ]
    assert not errors, f"logged as ERROR: {errors}"


@pytest.fixture(scope="session")
def require() -> Callable[[str, object, str], None]:
    """Return what skips a test whose tool is missing, or fails it where REQUIRE names the tool."""

    def check(name: str, found: object, how: str) -> None:
        if found:
            return
        if name in os.environ.get("REQUIRE", "").split(","):
            pytest.fail(f"REQUIRE names {name}, which is not here: {how}")
        pytest.skip(f"{name} is not here: {how}")

    return check


@pytest.fixture(scope="session")
def chromium(require: Callable[[str, object, str], None]) -> str:
    """The program that is Chromium: if it is here the shell, which draws no windows around pages; half the work."""
    names = ("chromium-headless-shell", "chromium", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), "")
    require("chromium", found, "Debian: chromium-headless-shell")
    return found


@pytest.fixture
def tmpfs(tmp_path: Path, require: Callable[[str, object, str], None]) -> Iterator[Callable[[str, str], Path]]:
    """Return what mounts a small file system below tmp_path: tmpfs("disk", "1m") is a directory of one mebibyte."""
    libc = ctypes.CDLL(None, use_errno=True)
    mounted: list[Path] = []

    def mount(name: str, size: str) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        is_mounted = libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, f"size={size}".encode()) == 0
        require("mount", is_mounted, "mounting a tmpfs takes root")
        mounted.append(directory)
        return directory

    yield mount
    for directory in mounted:
        libc.umount2(os.fsencode(directory), 2)  # MNT_DETACH


@pytest.fixture
def small_disk(tmpfs: Callable[[str, str], Path]) -> Path:
    """A file system of one mebibyte."""
    return tmpfs("disk", "1m")


@pytest.fixture
def read_only(require: Callable[[str, object, str], None]) -> Callable[[Path], AbstractContextManager[None]]:
    """Return what makes a directory read-only for the time of a block, as a disk with an error becomes."""
    libc = ctypes.CDLL(None)
    bind, remount, may_read, detach = 4096, 32, 1, 2

    @contextlib.contextmanager
    def mounted(directory: Path) -> Iterator[None]:
        place = os.fsencode(directory)
        require("mount", libc.mount(place, place, b"", bind, None) == 0, "mounting takes root")
        try:
            assert libc.mount(b"", place, b"", remount | bind | may_read, None) == 0
            yield
        finally:
            libc.umount2(place, detach)

    return mounted


@pytest.fixture(scope="session")
def photos(require: Callable[[str, object, str], None]) -> dict[str, Path]:
    """scikit-image's photographs, by name without suffix."""
    try:
        import skimage.data
    except ImportError:
        require("photos", None, "pip install scikit-image")
        raise
    directory = Path(skimage.data.__file__).parent
    names = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "retina.jpg", "rocket.jpg")
    return {Path(name).stem: directory / name for name in names}


@pytest.fixture
def write_image(tmp_path: Path) -> WriteImage:
    """Return a factory: write_image("a.png", (64, 48), (255, 0, 0), mode="RGB", **what Pillow's save takes)."""

    def write(name: str, size: tuple[int, int] = (32, 16), colour: Colour = 128, **options: Any) -> Path:
        mode = options.pop("mode", None) or ("RGB" if not isinstance(colour, tuple) or len(colour) == 3 else "RGBA")
        if mode == "RGB" and isinstance(colour, int):
            colour = (colour,) * 3
        path = tmp_path / name
        Image.new(mode, size, colour).save(path, **options)
        return path

    return write


@pytest.fixture(scope="session")
def decode_frames() -> Callable[[Path], list[av.VideoFrame]]:
    """Return a function from an MP4 to all its frames, decoded by libavcodec."""

    def decode(path: Path) -> list[av.VideoFrame]:
        with av.open(str(path)) as container:
            return list(container.decode(video=0))

    return decode


@pytest.fixture(scope="session")
def planes() -> Callable[[av.VideoFrame], tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Return a function from a frame to its (rows, columns) Y, Cb and Cr planes; chroma at half size."""

    def split(frame: av.VideoFrame) -> tuple[npt.NDArray[np.uint8], ...]:
        assert frame.format.name == "yuv420p"
        stacked = frame.to_ndarray()
        rows, columns = frame.height, frame.width
        chroma = stacked[rows:].reshape(2, rows // 2, columns // 2)
        return stacked[:rows], chroma[0], chroma[1]

    return split


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts daemons over one data directory."""
    with starting(tmp_path) as start:
        yield start


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()
