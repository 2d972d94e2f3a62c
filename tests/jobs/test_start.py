"""What a daemon tries before it is ready: with real processes, in name spaces of their own where root allows that."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from protocol.errors import RemoteError
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.jobs.slots import confinement
from renderer.version import VERSION
from tests.daemon_process import MARK, DaemonProcess, Start, marked, request, wait_until

_AS_NOBODY = ("setpriv", "--reuid=65534", "--clear-groups", "--")
Refused = Callable[..., str]
Require = Callable[[str, object, str], None]
Apart = Callable[[str], tuple[str, ...]]


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-m", "renderer", "serve", "--bind", "tcp://127.0.0.1:*", "--data-dir", f"{tmp_path}/data"]


@pytest.fixture
def refused(command: list[str]) -> Refused:
    """Return a function that runs `serve`, which must end with 2 and one line, and returns the line."""

    def run(*arguments: object, before: tuple[str, ...] = (), **options: object) -> str:
        environment = {**os.environ, **options.pop("env", {})}
        ended = subprocess.run(
            [*before, *command, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        [line] = ended.stderr.splitlines()
        return line

    return run


@pytest.fixture
def apart(require: Require) -> Apart:
    """Return what runs a command in a mount name space of its own, after a line of shell."""

    def prefix(line: str) -> tuple[str, ...]:
        tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
        require("unshare", tried.returncode == 0, "a mount name space takes root")
        return ("unshare", "--mount", "--propagation", "private", "sh", "-c", f'{line} && exec "$@"', "sh")

    return prefix


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that other users can reach and write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def script(directory: Path, text: str) -> Path:
    path = directory / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# The encoder.


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo no codec here >&2; exit 1", "(exit code 1, 0 of 3 pictures); it said no codec here"),
        ("cat > /dev/null", "(exit code 0, 0 of 3 pictures); it said nothing"),
        ("cat /dev/zero", "cannot encode with libx264 (exit code"),
    ],
    ids=["fails", "makes nothing", "makes no end"],
)
def test_an_ffmpeg_that_cannot_encode_is_refused_with_its_last_words(
    refused: Refused, tmp_path: Path, text: str, words: str
) -> None:
    ffmpeg = script(tmp_path, text)
    line = refused(env={"STILLREEL_ENCODE__FFMPEG": str(ffmpeg)})
    assert line.startswith(f"error: encode.ffmpeg: {ffmpeg} cannot encode with libx264 (")
    assert words in line


@pytest.mark.skipif(confinement.refusal() is not None, reason="this kernel has no Landlock")
def test_an_ffmpeg_that_needs_files_which_workers_may_not_use_is_refused_and_says_so(
    refused: Refused, tmp_path: Path, reachable: Path
) -> None:
    (reachable / "ffmpeg").symlink_to(find_ffmpeg(EncodeSettings()))
    (reachable / "preset").touch()
    ffmpeg = script(tmp_path, f'cat {reachable}/preset && exec {reachable}/ffmpeg "$@"')
    line = refused(env={"STILLREEL_ENCODE__FFMPEG": str(ffmpeg)})
    assert line.endswith("; it can with files that workers may not use: engine.confine_workers = false lets them")
    assert "Permission denied" in line


def test_an_ffmpeg_that_hangs_is_tried_once_within_its_time_and_ended(refused: Refused, tmp_path: Path) -> None:
    ffmpeg = script(tmp_path, f"(echo $$ >> {tmp_path}/tries) 2>/dev/null; sleep 77 & sleep 77")
    began = time.monotonic()
    limits = {"STILLREEL_ENCODE__FFMPEG": str(ffmpeg), "STILLREEL_ENCODE__PROBE_TIMEOUT_S": "0.5", MARK: str(tmp_path)}
    assert refused(env=limits) == f"error: encode.ffmpeg: {ffmpeg} does not end within 0.5 s; it said nothing"
    assert time.monotonic() - began < 60  # the program would sleep for 77 s
    assert marked(str(tmp_path)) == []
    assert (tmp_path / "tries").exists() == (confinement.refusal() is not None), (
        "only one that is not confined can write"
    )


def test_sigterm_ends_a_start_that_waits_for_an_ffmpeg_that_hangs(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "STILLREEL_ENCODE__FFMPEG": str(script(tmp_path, "sleep 77")), MARK: str(tmp_path)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as child:
        wait_until(lambda: any(each.name() == "sleep" for each in marked(str(tmp_path))), "the encoder hangs")
        child.send_signal(signal.SIGTERM)
        _, words = child.communicate(timeout=60)
        assert (child.returncode, words) == (128 + signal.SIGTERM, "")
    wait_until(lambda: not marked(str(tmp_path)), "nothing is left")


# Ports.


@pytest.fixture
def taken() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("flag", "setting"), [("--metrics", "observe.metrics"), ("--http", "http.bind"), ("--bind", "server.bind")]
)
def test_a_port_that_is_taken_is_one_line(refused: Refused, taken: str, flag: str, setting: str) -> None:
    address = f"tcp://{taken}" if flag == "--bind" else taken
    assert refused(flag, address) == f"error: {setting}: {address}: Address already in use"


# The machine.


def test_a_machine_without_a_temporary_directory_is_refused(
    command: list[str], refused: Refused, apart: Apart, tmp_path: Path
) -> None:
    command[-1] = "/dev/shm/never-made"
    mounts = " && ".join(f"mount -t tmpfs -o ro none {place}" for place in ("/tmp", "/var/tmp") if Path(place).is_dir())
    before = (*apart(f"{mounts} && cd /proc"), "env", "-u", "TMPDIR", f"PYTHONPATH={Path.cwd()}")
    line = refused(before=before)
    assert line.startswith("error: no temporary directory can be used (")


def test_a_machine_whose_shared_memory_cannot_be_written_is_refused(refused: Refused, apart: Apart) -> None:
    line = refused(before=apart("mount -t tmpfs -o ro none /dev/shm"))
    assert line == "error: worker processes need to write to /dev/shm: Read-only file system"


def test_a_machine_without_proc_is_refused(refused: Refused, apart: Apart) -> None:
    line = refused(before=apart("mount -t tmpfs none /proc"))
    assert line == "error: /proc is not there, and workers are watched through it; mount it"


def test_a_user_that_may_begin_too_few_processes_is_refused(
    command: list[str], refused: Refused, require: Require, reachable: Path
) -> None:
    require("root", os.geteuid() == 0, "root alone becomes another user")
    command[-1] = f"{reachable}/data"
    line = refused(before=("prlimit", "--nproc=5", *_AS_NOBODY), env={"HOME": str(reachable)})
    assert line.startswith("error: the limit on processes leaves no room for a worker: ")
    assert line.endswith("raise RLIMIT_NPROC")


def test_a_user_that_may_open_too_few_files_is_refused(refused: Refused) -> None:
    line = refused(before=("prlimit", "--nofile=20"))
    assert line.startswith("error: the limit on open files is too low: ")
    assert line.endswith(" could be opened; raise RLIMIT_NOFILE")


def test_a_limit_on_memory_is_not_taken_for_one_on_processes(refused: Refused) -> None:
    line = refused(before=("prlimit", "--as=500000000"))
    assert line.startswith("error: the limits on processes and memory leave no room for a worker: ")
    assert line.endswith("raise RLIMIT_NPROC or RLIMIT_AS")


def test_a_user_without_a_home_is_asked_for_a_data_directory(
    command: list[str], refused: Refused, require: Require
) -> None:
    require("root", os.geteuid() == 0, "root alone becomes another user")
    del command[-2:]
    line = refused(before=("env", "-u", "HOME", "setpriv", "--reuid=54321", "--clear-groups", "--"))
    assert line.startswith(
        "error: server.data_dir: ~/.local/share/stillreel begins with a home directory, and there is "
    )


def test_an_operators_limit_on_memory_counts_for_workers_too(tmp_path: Path) -> None:
    daemon = DaemonProcess(tmp_path, prefix=("prlimit", "--data=800000000"))
    with contextlib.closing(daemon):
        assert daemon.client.render(request()).frames == 2
        [worker] = daemon.workers()[:1]
        assert worker.rlimit(psutil.RLIMIT_DATA)[0] <= 800_000_000


def test_a_data_directory_that_the_user_may_not_write_is_refused(
    command: list[str], refused: Refused, require: Require, reachable: Path
) -> None:
    require("root", os.geteuid() == 0, "root alone becomes another user")
    command[-1] = f"{reachable}/data"
    (reachable / "data").mkdir(mode=0o755)
    line = refused(before=_AS_NOBODY, env={"HOME": str(reachable)})
    assert line == f"error: server.data_dir: {reachable}/data: Permission denied"


def test_too_few_descriptors_for_the_connections_are_said_at_the_start(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard + 1000 if hard != resource.RLIM_INFINITY else None
    if wanted is None:
        pytest.skip("this user has no limit on descriptors")
    daemon = start("--http", "127.0.0.1:0", HTTP__MAX_CONNECTIONS=wanted)
    first, second = daemon.words().splitlines()[:2]
    assert f"{hard} files may be open at once, and {wanted} connections with " in second
    addresses = daemon.ready_line.partition(" ready on ")[2]
    said = f"stillreel {VERSION} listens on {addresses}; data directory {daemon.data_dir}; encoder libx264 ("
    assert said in first or said.replace("libx264 (", "nvenc") in first  # where there is a GPU
    assert soft <= hard


# The disk.


def test_a_disk_that_has_become_read_only_makes_the_daemon_not_ready_and_jobs_try_again(
    start: Start, read_only: Callable[[Path], AbstractContextManager[None]]
) -> None:
    daemon = start()
    with read_only(daemon.data_dir / "outputs"):
        health = daemon.client.health()
        assert (health.ready, health.reasons) == (False, ("the disk cannot be written: Read-only file system",))
        with pytest.raises(RemoteError, match="the daemon's disk cannot be written: Read-only file system") as caught:
            daemon.client.submit(request())
        assert (caught.value.kind.name, caught.value.kind.retryable) == ("storage_full", True)
    assert daemon.client.health().ready
    assert daemon.client.render(request()).frames == 2
    assert psutil.Process(daemon.child.pid).is_running()
