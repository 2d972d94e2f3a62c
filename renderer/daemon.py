"""The daemon's life: start, serve, drain, stop.

Starting fails early and in words: the endpoint, the directories and the encoder are tried before the ready line. The
first SIGTERM or SIGINT drains: no new job, those that run come to their end. The second stops at once.
"""

import asyncio
import contextlib
import fcntl
import logging
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.util import Finalize
from pathlib import Path

from renderer.config import VERSION, ServerSettings, Settings, render_settings, scratch_dir
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.selftest import refusal
from renderer.encode.x264 import X264Encoder
from renderer.errors import ConfigError
from renderer.frontends.zmq_server import ZmqServer
from renderer.intake import Intake
from renderer.jobs.engine import Engine

log = logging.getLogger(__name__)


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the daemon until a signal stops it.

    Args:
        announce: gets one line when requests are answered.

    Raises:
        ConfigError: it cannot start; the message says which setting to change.
    """
    ffmpeg = find_ffmpeg(settings.encode)
    if shutil.which(ffmpeg) is None:
        raise ConfigError(f"encode.ffmpeg: {ffmpeg} is no program that can be run")
    for root in settings.fetch.allow_roots:
        if not root.is_dir():
            raise ConfigError(f"fetch.allow_roots: {root} is no directory")
    settings = _with_held_pictures_tested(settings)
    with _data_dir(settings.server) as data_dir, _scratch(data_dir) as scratch:
        asyncio.run(_Daemon(settings, data_dir, scratch).run(announce))


def _with_held_pictures_tested(settings: Settings) -> Settings:
    """Try the encoder's held pictures once; where they fail, every job encodes its holds frame by frame."""
    refused = refusal(X264Encoder, settings.encode) if settings.encode.hold_pictures else None
    if refused is None:
        return settings
    encode = settings.encode.model_copy(update={"hold_pictures": False, "hold_pictures_refusal": refused})
    return settings.model_copy(update={"encode": encode})


class _Daemon:
    def __init__(self, settings: Settings, data_dir: Path, scratch: Path) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._scratch = scratch
        self._drain = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self, announce: Callable[[str], None]) -> None:
        settings = self._settings
        engine = Engine(settings.engine, render_settings(settings), self._data_dir / "outputs", self._scratch)
        intake = Intake(settings.limits, settings.fetch, engine, self._data_dir / "attachments")
        server = ZmqServer(settings.server, engine, intake)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_signal)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(engine.run())
            answering = tasks.create_task(server.serve())
            announce(f"stillreel {VERSION} ready on {server.endpoint}")
            await self._drain.wait()
            log.info("draining", extra={"action": "drain"})
            draining = tasks.create_task(engine.drain(settings.server.drain_timeout_s))
            stopping = tasks.create_task(self._stop.wait())
            await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
            engine.abandon()
            await server.close()
            for task in (draining, stopping, answering, running):
                task.cancel()
        log.info("stopped", extra={"action": "stop"})

    def _on_signal(self) -> None:
        if self._drain.is_set():
            self._stop.set()
        self._drain.set()


@contextlib.contextmanager
def _data_dir(settings: ServerSettings) -> Iterator[Path]:
    """Prepare the data directory and hold it, so that no second daemon works in it."""
    path = settings.data_dir.expanduser().absolute()
    try:
        for part in ("outputs", "attachments", "scratch"):
            (path / part).mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (path / "lock").open("a")
    except OSError as error:
        raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"server.data_dir: {path} is in use by another daemon") from error
        _remove_leftovers(path)
        yield path


def _remove_leftovers(path: Path) -> None:
    """Remove what a daemon that was killed had under way: its jobs were in its memory and are gone with it."""
    for directory in (path / "attachments").iterdir():
        shutil.rmtree(directory, ignore_errors=True)
    for part in (path / "outputs").glob("*/*.part"):
        shutil.rmtree(part.parent, ignore_errors=True)
    for scratch in (path / "scratch").glob("*"):
        shutil.rmtree(scratch.resolve(), ignore_errors=True)
        scratch.unlink()


@contextlib.contextmanager
def _scratch(data_dir: Path) -> Iterator[Path]:
    """Make the directory for sockets; a link in the data directory tells the next daemon what to remove."""
    path = scratch_dir()
    link = data_dir / "scratch" / path.name
    link.symlink_to(path)
    # multiprocessing keeps the fork server's socket there as well, and removes its part at exit with priority -100.
    tempfile.tempdir = str(path)
    Finalize(None, _remove_scratch, (path, link), exitpriority=-101)
    yield path


def _remove_scratch(path: Path, link: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    link.unlink(missing_ok=True)
