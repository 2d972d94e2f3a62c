"""A real daemon in a child process, and what its tests need around it.

Every process that comes from it is found by a mark in its environment, whoever its parent is by then: an ffmpeg whose
worker was killed counts too.
"""

import base64
import contextlib
import os
import select
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from protocol.client import Client
from renderer.encode import selftest
from tests.warm import begin

START_S = 90  # on a machine that has much else to do
MARK = "TEST_DAEMON_MARK"  # in the environment of all that a test starts
_SELF_TEST = str(selftest.CANVAS)
_SETTINGS = {"FETCH__ALLOW_NETWORKS": "127.0.0.0/8"}  # where the tests' own servers are
_LASTING = {
    "video.mp4",
    "lock",
    ".scratch-lock",
    "id",
    "reserve",
    "log.jsonl",
    "request.json",
    "jobs.sqlite3",
    "jobs.sqlite3-wal",
    "jobs.sqlite3-shm",
    "links.secret",
    "webhook.secret",
}


def wait_until(is_so: Callable[[], object], what: str, deadline_s: float = 45) -> None:
    """Poll until a condition holds, less often after a while; fail with its name if it never does."""
    started = time.monotonic()
    while not is_so():
        waited_s = time.monotonic() - started
        assert waited_s < deadline_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(min(0.01 + waited_s / 20, 0.05))


def picture(colour: tuple[int, int, int], width: int = 16, height: int = 12) -> bytes:
    """One colour (RGB) as a PPM file."""
    return b"P6 %d %d 255\n" % (width, height) + bytes(colour) * (width * height)


def still(
    colour: tuple[int, int, int] = (200, 60, 20), frames: int = 2, size: tuple[int, int] = (16, 12)
) -> dict[str, Any]:
    """An image of a request that needs no file."""
    data = base64.b64encode(picture(colour, *size)).decode()
    return {"url": f"data:image/x-portable-pixmap;base64,{data}", "frames": frames}


def request(*images: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"images": list(images) or [still()], "width": 64, "height": 48, **fields}


def marked(mark: str) -> list[psutil.Process]:
    """Every process that lives and has this mark in its environment.

    /proc is read directly, which takes a fifth of psutil's time: tests look often while they wait.
    """
    entry = b"\0%s=%s\0" % (MARK.encode(), mark.encode())
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - paths would be most of the time
        try:
            with open(f"/proc/{name}/environ", "rb", buffering=0) as environment:  # noqa: PTH123 - as above
                words = environment.read()  # nothing of a zombie
            if entry in b"\0" + words:
                found.append(psutil.Process(int(name)))
        except (OSError, psutil.Error):  # it has ended, or is another user's
            continue
    return found


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that render for this one: its fork server's children."""
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):
            if "forkserver" in " ".join(child.cmdline()):
                found += child.children()
    return found


class Gate:
    """An HTTP server whose picture comes when the test says so: a job that shows it runs until then."""

    def __init__(self, body: bytes = b"") -> None:
        """Open the server; without a body its picture is one that no other test has shown.

        A daemon keeps the stills that its jobs have coded, and a job of known stills needs no encoder.
        """
        red, green, blue = os.urandom(3)
        body = body or picture((red, green, blue))
        self.fetched = 0
        self._first = still((blue, red, green))
        self._is_open = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.fetched += 1
                gate._is_open.wait(60)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/late.ppm"

    def request(self, **fields: Any) -> dict[str, Any]:
        """A job whose encoder runs and waits for its second picture.

        Its stills are held for seconds: for shorter holds the encoder begins after three stills.
        """
        return request(self._first, {"url": self.url, "frames": 2}, **{"fps": 1, **fields})

    def open(self) -> None:
        self._is_open.set()

    def close(self) -> None:
        self.open()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class DaemonProcess:
    """`stillreel serve` as a child; its files lie in `data_dir`, its temporary ones in `temporary`."""

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str | Path] = (),
        environment: Mapping[str, object] | None = None,
        bind: str = "tcp://127.0.0.1:*",
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it and wait for its ready line.

        Args:
            environment: settings, as "ENGINE__WORKERS": 2.
            prefix: a command that the daemon is the argument of; it has an interpreter of its own then.
        """
        self.data_dir = directory / "data"
        self.temporary = Path(tempfile.mkdtemp(prefix="sr-"))  # short: sockets lie in it
        self.log = directory / f"daemon-{uuid.uuid4().hex[:6]}.log"
        self._mark = uuid.uuid4().hex
        self._client: Client | None = None
        settings = {f"STILLREEL_{name}": str(value) for name, value in {**_SETTINGS, **(environment or {})}.items()}
        words = ["serve", "--bind", bind, "--data-dir", *map(str, (self.data_dir, *arguments))]
        told = {**os.environ, **settings, "TMPDIR": str(self.temporary), MARK: self._mark}
        reading, writing = os.pipe()
        self._stdout = os.fdopen(reading)
        with self.log.open("w") as log, os.fdopen(writing, "w") as stdout:
            self.child = begin(words, prefix=prefix, environment=told, stdout=stdout, stderr=log)
        self.ready_line = self._first_line()
        if not self.ready_line:
            self.close()
            raise AssertionError(f"the daemon did not start: {self.words()}")
        addresses = self.ready_line.partition(" ready on ")[2].split(", ")
        self.endpoint = addresses[0]
        self.http = next((address for address in addresses if address.startswith("http://")), "")
        self.https = next((address for address in addresses if address.startswith("https://")), "")

    def _first_line(self) -> str:
        ready, _, _ = select.select([self._stdout], [], [], START_S)
        return self._stdout.readline().strip() if ready else ""

    def words(self) -> str:
        """What it has logged so far."""
        return self.log.read_text()

    @property
    def client(self) -> Client:
        self._client = self._client or Client(self.endpoint, timeout_s=30)
        return self._client

    def processes(self) -> list[psutil.Process]:
        """Everything that lives and stems from this daemon, itself included."""
        return marked(self._mark)

    def workers(self) -> list[psutil.Process]:
        """The processes that render: the fork server's children."""
        return workers_of(self.child.pid)

    def encoders(self) -> list[psutil.Process]:
        """The ffmpegs that encode for jobs, and not for the self-test, which the first worker runs before them.

        One that is only asked for its version ends before it can be looked at.
        """
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if "ffmpeg" in process.name() and "libx264" in command and _SELF_TEST not in command:
                    found.append(process)
        return found

    def files(self) -> list[str]:
        """What lies in the data directory and the temporary one, but for what outlives a job or the daemon.

        A worker that lives has a file for what it says if it crashes.
        """
        kept = self.data_dir / "stills" / "kept"
        found = [path for path in self.data_dir.rglob("*") if kept not in path.parents]
        found += self.temporary.rglob("*")
        names = [path.name for path in found if path.is_file() and path.name not in _LASTING]
        return [name for name in names if name != "crash"]

    def state(self, request_id: str) -> str:
        return self.client.status(request_id).status

    def wait_for(self, request_id: str, state: str = "IN_PROGRESS") -> None:
        wait_until(lambda: self.state(request_id) == state, f"{request_id} {state}")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.child.send_signal(number)

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self.signal()
        return self.child.wait(45)

    def close(self) -> None:
        """End it and all that stems from it, and remove its temporary directory."""
        if self._client is not None:
            self._client.close()
        self.child.kill()
        self.child.wait()
        self._stdout.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)


Start = Callable[..., DaemonProcess]


@contextlib.contextmanager
def starting(directory: Path) -> Iterator[Start]:
    """Lend a function that starts daemons over one data directory; all end with the block."""
    with contextlib.ExitStack() as stack:

        def start(
            *arguments: str | Path, bind: str = "tcp://127.0.0.1:*", prefix: Sequence[str] = (), **environment: object
        ) -> DaemonProcess:
            daemon = DaemonProcess(directory, arguments, environment, bind, prefix=prefix)
            stack.callback(daemon.close)
            return daemon

        yield start


@contextlib.contextmanager
def with_one_job_done(directory: Path, *arguments: str | Path, **environment: object) -> Iterator[DaemonProcess]:
    """Lend a daemon that has rendered the job "done"; it must stop without a fault."""
    with starting(directory) as start:
        daemon = start(*arguments, **environment)
        with Client(daemon.endpoint, connect_timeout_s=60) as client:  # the machine may be busy
            client.render(request(request_id="done"))
        yield daemon
        assert daemon.stop() == 0
