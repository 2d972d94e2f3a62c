"""A Ray cluster on this machine, begun once for all tests of this directory by the command that people use."""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from renderer.config import EngineSettings
from renderer.jobs.slots.base import Slot
from renderer.jobs.slots.ray import RayCluster
from renderer.jobs.slots.remote import Terms
from renderer.observe.job_log import WorkerLog
from tests.daemon_process import MARK, marked, wait_until
from tests.objects.stores import KEY, SECRET

T = TypeVar("T")


def surroundings() -> dict[str, str]:
    """The environment without the variables of the tests, which a command would take for settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STILLREEL_")}


class Nodes:
    """The nodes of a cluster, each a process that leads a session; the first is the head."""

    def __init__(self, directory: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as another:
            self._port, self.store_port = free.getsockname()[1], another.getsockname()[1]
        self.store = {  # where a test may begin a store of objects
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.store_port}",
        }
        self.mark = uuid.uuid4().hex
        self.address = f"127.0.0.1:{self._port}"
        self.token = {"RAY_AUTH_TOKEN": secrets.token_hex(16)}
        self._directory = directory
        self._log = directory / "nodes.log"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, name: str, slots: int = 1) -> None:
        place = ["--address", f"{_own_address()}:{self._port}"]
        if not self._processes:
            place = ["--port", str(self._port), "--temp-dir", str(self._directory)]
        command = [sys.executable, "-m", "renderer", "ray-node", "--name", name, "--slots", str(slots), *place]
        with self._log.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                env={**surroundings(), **self.token, **self.store, MARK: self.mark},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def are_there(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 5):
            return True
        assert all(each.poll() is None for each in self._processes.values()), self._log.read_text()
        return False

    def kill(self, name: str) -> None:
        """Kill a node as a power cut would: all its processes at once, without a word."""
        leader = self._processes.pop(name)
        for process in _of_session(leader.pid):  # some of Ray's write over the environment that has the mark
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        leader.wait()
        wait_until(lambda: not _of_session(leader.pid), f"nothing is left of {name}")

    @contextlib.contextmanager
    def silent_head(self) -> Iterator[None]:
        """Keep the server of the head from answering."""
        [server] = [
            process
            for leader in self._processes.values()
            for process in _of_session(leader.pid)
            if process.name().startswith("gcs_server")
        ]
        server.suspend()
        try:
            yield
        finally:
            server.resume()

    def close(self) -> None:
        for name in list(self._processes):
            self.kill(name)
        wait_until(lambda: not marked(self.mark), "nothing is left of the cluster")


def _of_session(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _own_address() -> str:
    """Where nodes reach this machine: Ray takes no loopback address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, contextlib.suppress(OSError):
        asking.connect(("8.8.8.8", 80))
        return str(asking.getsockname()[0])
    return "127.0.0.1"


class Joined:
    """A loop on a thread of its own, on which a cluster is joined for all tests."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.slots: list[Slot] = []
        terms = Terms(EngineSettings(), WorkerLog())
        self.cluster = RayCluster(nodes.address, terms)
        self._running = self.call(self._begin())

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(110)

    async def _begin(self) -> "asyncio.Task[None]":
        await self.cluster.connect()
        return asyncio.create_task(self.cluster.run("/nowhere", self.slots.append, self._leave))

    def _leave(self, slot: Slot) -> None:
        self.slots.remove(slot)
        slot.close()

    async def _end(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])

    def close(self) -> None:
        self.call(self._end())
        for slot in self.slots:
            slot.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as directory:
        nodes = Nodes(Path(directory))
        try:
            nodes.begin("alpha")
            wait_until(nodes.are_there, "the head answers", 90)
            yield nodes
        finally:
            nodes.close()


@pytest.fixture(scope="session")
def joined(nodes: Nodes) -> Iterator[Joined]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in nodes.token.items():
            patched.setenv(name, value)
        joined = Joined(nodes)
        try:
            wait_until(lambda: joined.slots, "the first node has joined", 90)
            yield joined
        finally:
            joined.close()
