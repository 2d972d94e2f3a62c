"""The messages of the processes through which a daemon runs attempts on other machines, and the pipes for them.

A daemon gives orders to the driver, its child, which alone knows Ray (ray_driver.py). On a node, a process of Ray
(ray_task.py) passes each task on to a child that renders (host.py). The answers of that child go back the same way.

On a pipe a value is a length of four bytes and a pickle: both ends are the same program of the same user.
"""

import asyncio
import os
import pickle
import struct
import sys
from dataclasses import dataclass
from typing import IO, Any, Final, Self

from protocol.schema import Progress
from renderer.config import EngineSettings
from renderer.jobs.slots.base import Ending, RenderTask
from renderer.jobs.slots.reach import Reach
from renderer.observe.job_log import WorkerLog
from renderer.version import VERSION

# What Ray knows of a node: its slots as a resource, by encoder, and its version of stillreel as a label.
RESOURCES: Final = {"nvenc": "stillreel_nvenc", "libx264": "stillreel_x264"}
VERSION_LABEL: Final = "stillreel-version"


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all attempts of a daemon, wherever they run.

    Attributes:
        reach: the files that workers may use; None: all that their user may use.
    """

    engine: EngineSettings
    log: WorkerLog
    reach: Reach | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of a cluster that offers slots.

    Attributes:
        id: Ray's own for it, which no later node has.
        version: of stillreel there.
    """

    id: str
    name: str
    encoder: str
    slots: int
    version: str

    @property
    def refusal(self) -> str | None:
        """Why it gets no jobs, in words; None if it gets some."""
        if self.version == VERSION:
            return None
        found = f"stillreel {self.version}" if self.version else f"no {VERSION_LABEL} among its labels"
        return f"expected stillreel {VERSION} on the node {self.name}, found {found}"


@dataclass(frozen=True, slots=True)
class Nodes:
    """All nodes that are there now."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Silent:
    """The head does not say which nodes there are; `Nodes` follows once it does."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A cluster cannot be used; the words say why."""

    words: str


@dataclass(frozen=True, slots=True)
class Order:
    """An attempt that is to begin; `number` names it from then on."""

    number: int
    node: Node
    terms: Terms
    task: RenderTask


@dataclass(frozen=True, slots=True)
class Stop:
    """An attempt that is to end at once."""

    number: int


@dataclass(frozen=True, slots=True)
class Alive:
    """There is no news of an attempt, but it is under way."""


News = Alive | Progress | Ending


@dataclass(frozen=True, slots=True)
class Said:
    """News of an attempt; the last of them is its ending."""

    number: int
    news: News


_LENGTH: Final = struct.Struct(">I")


def write(pipe: IO[bytes], value: object) -> None:
    """Write a value; blocks until the pipe has taken it."""
    left = memoryview(_framed(value))
    while left:
        left = left[pipe.write(left) :]


def read(pipe: IO[bytes]) -> Any:
    """Return the next value; blocks until it is there.

    Raises:
        EOFError: the other end is gone.
    """
    (length,) = _LENGTH.unpack(_exactly(pipe, _LENGTH.size))
    return pickle.loads(_exactly(pipe, length))  # noqa: S301 - of our own process


def _exactly(pipe: IO[bytes], length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = pipe.read(length - len(data))
        if not more:
            raise EOFError("the other end of the pipe is gone")
        data += more
    return data


def _framed(value: object) -> bytes:
    data = pickle.dumps(value)
    return _LENGTH.pack(len(data)) + data


class Peer:
    """The process at the other end; used on one loop."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._transport = transport

    @classmethod
    async def over(cls, source: IO[bytes], sink: IO[bytes]) -> Self:
        """Return the process that writes to `source` and reads from `sink`."""
        loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), source)
        transport, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sink)
        return cls(reader, transport)

    @classmethod
    async def parent(cls) -> Self:
        """Return the process that began this one, at stdin and stdout; what is printed goes to stderr from now on."""
        source, sink = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
        sys.stdout.flush()
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return await cls.over(source, sink)

    def send(self, value: object) -> None:
        """Send a value; one for a process that is gone is lost."""
        if not self._transport.is_closing():
            self._transport.write(_framed(value))

    def close(self) -> None:
        """Send no more."""
        self._transport.close()

    async def receive(self) -> Any:
        """Return the next value.

        Raises:
            EOFError: the other end is gone.
        """
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - of our own process
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the other end of the pipe is gone") from error
