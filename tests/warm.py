"""`stillreel` in processes that need not import it: each begins as a copy of one that has done so.

A whole run of the tests begins hundreds of daemons and commands, and imports would be most of what they cost. Tests of
how `stillreel` starts begin it as its users do, with an interpreter of its own; so does everything here whose
environment an interpreter, a library or the loader reads before the program does.

`python -m tests.warm SOCKET` imports what every daemon imports, and becomes `stillreel` as often as it is asked.

What has workers begins with copies beside it that wait to be its fork server and its resource tracker: importing the
decoders would be most of what such a process costs. They are what `multiprocessing` asks for, in all but that nothing
was imported anew: children of the daemon, with its environment, limits and pipes. The daemon itself has the decoders as
well then; that it needs none is tested with one that has an interpreter of its own (test_light_daemon.py). A second
fork server, such as one in place of one that was killed, begins as it does for users.
"""

import atexit
import contextlib
import ctypes
import fcntl
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import util
from pathlib import Path
from typing import IO, Any

RUN_S = 60
_PRELOADED = (
    *(f"renderer.cli.{name}" for name in ("app", "batch", "health", "keys", "render", "serve", "store", "submit")),
    *("renderer.daemon", "renderer.frontends.http.app", "renderer.frontends.spool.door", "renderer.net.connection"),
    *("protocol.client", "rich.progress"),
    # What a fork server imports; itself and `rendering` note the process that they are imported in.
    *("renderer.encode.selftest", "renderer.media.mp4", "renderer.pipeline", "renderer.jobs.slots.progress"),
    *("renderer.pictures.kept", "Imath", "OpenEXR", "multiprocessing.popen_forkserver", "multiprocessing.sharedctypes"),
    *("faulthandler", "importlib.readers"),
)
_HAVE_WORKERS = {"serve", "batch"}
_ROOM = 8192  # bytes for a command line; four times as many for an environment
_LIMITS = (
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_CORE,
    resource.RLIMIT_AS,
    resource.RLIMIT_DATA,
)
_READ_LATE = (
    "STILLREEL_",
    "AWS_",
    "SOURCE_DATE_EPOCH",
    "XDG_",
    "TEST_DAEMON_MARK",
    "TMPDIR",
    "PYTEST_CURRENT_TEST",
    "TERM",
    "COLUMNS",
    "NO_COLOR",
    "SLURM_",
    "JOB_COMPLETION",
)  # by the program itself


def begin(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    prefix: Sequence[str] = (),
    stdin: int | IO[Any] | None = None,
    stdout: int | IO[Any],
    stderr: int | IO[Any],
    cwd: Path | None = None,
) -> "subprocess.Popen[Any] | Warm":
    """Begin `stillreel` with these arguments, as a copy if nothing speaks against it.

    Args:
        prefix: a command that it is the argument of.
    """
    if not prefix and _parent().can_be_under(environment):
        return _parent().become(arguments, environment, (stdin, stdout, stderr), cwd or Path.cwd())
    command = [*prefix, sys.executable, "-m", "renderer", *arguments]
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)


def run(
    arguments: Sequence[str], *, environment: Mapping[str, str], stdin: str = "", cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `stillreel` to its end, with pipes."""
    pipes = [os.pipe() for _ in range(3)]
    mine = [os.fdopen(pipes[0][1], "w"), os.fdopen(pipes[1][0]), os.fdopen(pipes[2][0])]
    its = [pipes[0][0], pipes[1][1], pipes[2][1]]
    try:
        child = begin(arguments, environment=environment, stdin=its[0], stdout=its[1], stderr=its[2], cwd=cwd)
    finally:
        for number in its:
            os.close(number)
    with contextlib.ExitStack() as stack:
        for file in mine:
            stack.enter_context(file)
        threads = stack.enter_context(ThreadPoolExecutor(3))
        stack.callback(child.kill)
        written = threads.submit(_write, mine[0], stdin)
        words = [threads.submit(file.read) for file in mine[1:]]
        code = child.wait(RUN_S)
        written.result()
        return subprocess.CompletedProcess(arguments, code, words[0].result(), words[1].result())


def _write(file: IO[str], words: str) -> None:
    with contextlib.suppress(BrokenPipeError), file:
        file.write(words)


class Warm:
    """A process that began as a copy, with what subprocess.Popen has for a process of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._told = connection.makefile("rb")
        self._connection = connection
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("stillreel", timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended, and its code is on its way
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that has imported stillreel."""

    def __init__(self) -> None:
        """Start it; it imports for a second."""
        self._directory = tempfile.TemporaryDirectory(prefix="sr-")
        self._address = str(Path(self._directory.name, "warm"))
        self._environment = dict(os.environ)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", self._address, " " * _ROOM],
            cwd=Path(__file__).parents[1],
            # A process with threads cannot be copied.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1", "ROOM": " " * 4 * _ROOM},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # not a terminal, whatever this process has
        )
        atexit.register(self._close)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != b"ready\n":
            raise AssertionError(self._process.stderr.read().decode())

    def can_be_under(self, environment: Mapping[str, str]) -> bool:
        """Whether this process would have begun no different under an environment."""
        return all(
            name.startswith(_READ_LATE) or self._environment.get(name) == environment.get(name)
            for name in self._environment.keys() | environment.keys()
        )

    def become(
        self, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int | IO[Any] | None], cwd: Path
    ) -> Warm:
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "cwd": str(cwd),
            "umask": _umask(),
        }
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        with open(os.devnull, "r+b") as nothing:  # noqa: PTH123 - a descriptor is wanted
            standing = [nothing if file in {None, subprocess.DEVNULL} else file for file in files]
            numbers = [file if isinstance(file, int) else file.fileno() for file in standing if file is not None]
            socket.send_fds(connection, [b"\n"], numbers)
        connection.sendall(json.dumps(asked).encode() + b"\n")
        return Warm(connection)

    def _close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()


def _umask() -> int:
    """Return this process's, which the system call of that name can tell only by changing it (proc(5))."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1], 8) for line in status.splitlines() if line.startswith("Umask:"))


@functools.cache
def _parent() -> _Parent:
    return _Parent()


# What follows runs in that process and its copies.


def serve(address: str) -> None:
    """Become `stillreel` in a copy for each connection, until whoever began this has gone."""
    copies: dict[int, tuple[int, socket.socket]] = {}  # by a descriptor that can be read once the copy has ended
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        print("ready", flush=True)  # noqa: T201 - waited for
        while sys.stdin not in (ready := select.select([listener, sys.stdin, *copies], [], [])[0]):
            for ended in copies.keys() & set(ready):
                pid, connection = copies.pop(ended)
                _tell(connection, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                connection.close()
                os.close(ended)
            if listener not in ready:
                continue
            connection, _ = listener.accept()
            _, files, _, _ = socket.recv_fds(connection, 1, 3)
            asked = json.loads(connection.makefile("rb").readline())
            if (pid := os.fork()) == 0:
                for open_socket in (listener, connection, *(each for _, each in copies.values())):
                    open_socket.close()
                _become(asked, files)
                return
            for number in files:
                os.close(number)
            copies[os.pidfd_open(pid)] = pid, connection
            _tell(connection, pid)


def _tell(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(f"{number}\n".encode("ascii"))


def _become(asked: dict[str, Any], files: list[int]) -> None:
    """Be what `python -m renderer` would be, from the standard files to the name of the main module."""
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 1 + max(map(int, os.listdir("/proc/self/fd"))))  # noqa: PTH208 - names are wanted
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter opens them
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    _take_on([sys.executable, "-m", "renderer", *asked["arguments"]], asked["environment"], asked["cwd"])
    os.umask(asked["umask"])
    time.tzset()
    if _HAVE_WORKERS & set(asked["arguments"]):
        _keep_helpers()
    sys.argv[1:] = asked["arguments"]
    code = 0
    try:
        runpy.run_module("renderer", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code or 0
    _end(code)


def _end(code: int) -> None:
    """End as an interpreter does, but without taking down what was imported.

    That would write to nearly all memory that a copy shares, and so be four fifths of what a short command costs.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        sys.exit(code)  # the interpreter has words for that
    os._exit(code)


def _take_on(command: Sequence[str], environment: Mapping[str, str], cwd: str) -> None:
    """Have the command line, the environment and the directory that a program would have been begun with.

    What others see in /proc lies in this process's memory, where it was begun with room enough (proc(5), arg_start).
    """
    os.environ.clear()  # so that nothing points to that memory any more
    os.environ.update(environment)
    os.chdir(cwd)
    tempfile.tempdir = None
    fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    places = [int(field) for field in fields[45:49]]
    for begin, end, words in (
        (*places[:2], command),
        (*places[2:], [f"{name}={value}" for name, value in environment.items()]),
    ):
        text = b"".join(os.fsencode(word) + b"\0" for word in words)
        assert len(text) < end - begin, "there is no room for that"
        ctypes.memmove(begin, text.ljust(end - begin, b"\0"), end - begin)


def _keep_helpers() -> None:
    """Begin the copies that become what `multiprocessing` begins for this process, and end with it if it does not."""
    waiting = {f"multiprocessing.{name}": _helper() for name in ("forkserver", "resource_tracker")}
    begin_program = util.spawnv_passfds

    def begin(path: str, command: Sequence[str], numbers: Sequence[int]) -> int:
        name = next((name for name in waiting if name in os.fsdecode(command[-1])), None)
        if name is None:
            return begin_program(path, command, numbers)
        asking, pid = waiting.pop(name)
        limits = [resource.getrlimit(limit) for limit in _LIMITS]
        told = {
            "command": [os.fsdecode(word) for word in command],
            "environment": dict(os.environ),
            "cwd": str(Path.cwd()),
        }
        words = json.dumps({**told, "umask": _umask(), "limits": limits, "numbers": list(numbers)})
        socket.send_fds(asking, [words.encode()], numbers)
        asking.close()
        return pid

    util.spawnv_passfds = begin


def _helper() -> tuple[socket.socket, int]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (pid := os.fork()) == 0:
        ours.close()
        _be_a_helper(its)
        os._exit(0)
    its.close()
    return ours, pid


def _be_a_helper(asking: socket.socket) -> None:
    words, files, _, _ = socket.recv_fds(asking, 1 << 17, 8)
    if not words:  # there is nobody any more
        return
    asked = json.loads(words)
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD, 500) for file in files]
    os.closerange(3, 500)
    for file, number in zip(aside, asked["numbers"], strict=True):
        os.dup2(file, number)
        os.close(file)
    _take_on(asked["command"], asked["environment"], asked["cwd"])
    os.umask(asked["umask"])
    for limit, values in zip(_LIMITS, asked["limits"], strict=True):
        resource.setrlimit(limit, values)
    exec(asked["command"][-1], {"__name__": "__main__"})


def _warm_up() -> None:
    """Do what daemons and workers do once, when it is first needed."""
    from pydantic import BaseModel

    from renderer.jobs import schema
    from renderer.pictures import header, kept

    for name in header.READERS:
        header.reader_of(name)
    header.reader_of("HEIC").library()
    kept.program()
    models = [BaseModel]
    while models:
        models += (model := models.pop()).__subclasses__()
        if model.__module__.partition(".")[0] in {"renderer", "protocol"}:
            model.model_rebuild()
    schema._jobs()


if __name__ == "__main__":
    for name in _PRELOADED:
        importlib.import_module(name)
    _warm_up()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process with threads cannot be copied"
    gc.freeze()  # a copy would else look through, and so make its own, all memory of this process when it ends
    serve(sys.argv[1])
