"""What is killed takes along what it has begun, at once, whatever that is doing: real processes, killed for real."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import psutil
import pytest

from renderer.processes import Child
from tests.batch.conftest import BatchProcess, Tree
from tests.daemon_process import MARK, DaemonProcess, Gate, Start, marked, request, wait_until
from tests.jobs.test_slot import wait_until_dead

Require = Callable[[str, object, str], None]


class Lingering:
    """A program in ffmpeg's place. It is ffmpeg until `linger` is called; then it does nothing and never ends.

    It begins two more, one in its group and one in a session of its own. Each makes a file named by its number.
    """

    def __init__(self, directory: Path) -> None:
        self.program = directory / "lingering-ffmpeg"
        self._notes = directory / "notes"
        self._group, self._escaped = self._notes / "group", self._notes / "escaped"
        for notes in (self._group, self._escaped):
            notes.mkdir(parents=True)
        self.becomes_ffmpeg()
        Path(f"{self.program}.real").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())

    def linger(self, *, takes: str = ":") -> None:
        """Let it begin two processes, and do nothing more.

        Args:
            takes: what it does with its input before it does nothing.
        """
        for note in self._notes.glob("*/*"):
            note.unlink()
        second = "sh -c 'touch {}/$$; exec sleep 600'"
        begun = f"{second.format(self._group)} &\nsetsid {second.format(self._escaped)} &\n"
        self._write(f"{takes}\n{begun}touch {self._group}/$$\nwait")

    def becomes_ffmpeg(self) -> None:
        self._write('exec "$0".real "$@"')

    def _write(self, lines: str) -> None:
        new = self.program.with_suffix(".new")
        new.write_text(f"#!/bin/sh\n{lines}\n")
        new.chmod(0o755)
        new.rename(self.program)

    def running(self) -> list[psutil.Process]:
        """Wait until all three run, and return it with the one in its group."""
        wait_until(lambda: len(list(self._notes.glob("*/*"))) == 3, "it runs")
        return [psutil.Process(int(path.name)) for path in self._group.iterdir()]

    def escaped(self) -> psutil.Process:
        """Return the one in a session of its own."""
        [path] = self._escaped.iterdir()
        return psutil.Process(int(path.name))

    def close(self) -> None:
        for path in self._escaped.iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)


@pytest.fixture
def lingering(tmp_path: Path) -> Iterator[Lingering]:
    program = Lingering(tmp_path)
    yield program
    program.close()


def all_but(numbers: set[int], processes: list[psutil.Process]) -> list[psutil.Process]:
    """Leave out these, and multiprocessing's resource tracker, which has no part in any job and minds itself."""
    others = [process for process in processes if process.pid not in numbers]
    return [process for process in others if "resource_tracker" not in " ".join(process.cmdline())]


def freeze(processes: list[psutil.Process]) -> None:
    """Stop them, so that nothing is ended by any doing of its own."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)


def are_gone(processes: list[psutil.Process]) -> None:
    """Neither alive nor dead and waiting to be noticed."""
    wait_until(lambda: not any(process.is_running() for process in processes), f"gone and waited for: {processes}")


def test_a_killed_process_takes_its_childs_group_along_though_that_is_stopped(lingering: Lingering) -> None:
    lingering.linger()
    begin = f"threading.Thread(target=lambda: begun.append(Child([{str(lingering.program)!r}]))).start()"
    lines = f"import threading, time\nfrom renderer.processes import Child\nbegun = []\n{begin}\ntime.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", lines]) as parent:  # its child is not the thread's that began it
        left = lingering.running()
        assert all(process.is_running() for process in left)
        freeze(left)
        parent.kill()
    wait_until_dead(left)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is tied")
@pytest.mark.parametrize("call", ["F_SETOWN", "F_SETSIG", "F_GETFL", "F_SETFL"])
def test_a_process_that_is_killed_before_it_has_tied_its_child_leaves_nothing(tmp_path: Path, call: str) -> None:
    lines = (
        "import fcntl, os, signal, sys; from renderer.processes import Child\n"
        "def kill(event, given):\n"
        f"    if event == 'fcntl.fcntl' and given[1] == fcntl.{call}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(kill)\n"
        f"Child(['sh', '-c', 'touch {tmp_path}/begun; exec sleep 60'])"
    )
    with subprocess.Popen([sys.executable, "-c", lines], env={**os.environ, MARK: str(tmp_path)}) as parent:
        assert parent.wait(60) == -signal.SIGKILL
    wait_until(lambda: not marked(str(tmp_path)), "nothing is left")
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize(
    ("name", "refused"), [("none", FileNotFoundError), ("text", PermissionError)], ids=["missing", "no program"]
)
def test_what_is_no_program_is_refused_by_whoever_begins_it(tmp_path: Path, name: str, refused: type[OSError]) -> None:
    (tmp_path / "text").touch()
    with pytest.raises(refused):
        Child([str(tmp_path / name)])


def test_a_childs_group_ends_with_the_block_that_it_is_for(lingering: Lingering) -> None:
    lingering.linger()
    with Child([str(lingering.program)]) as child:
        left = lingering.running()
        freeze(left)
    assert child.returncode == -signal.SIGKILL
    wait_until_dead(left)


def test_whoever_ties_itself_too_late_dies_at_once() -> None:
    lines = (
        "import os, time; from renderer.processes import tie; read, write = os.pipe(); os.close(write); "
        "tie(read, os.getpid()); time.sleep(600)"
    )
    assert subprocess.run([sys.executable, "-c", lines], timeout=60, check=False).returncode == -signal.SIGKILL


# A daemon, whose workers are not confined: the program in ffmpeg's place makes files that no encoder may make.


def test_whatever_a_killed_worker_has_begun_is_ended_and_waited_for(
    start: Start, gate: Gate, lingering: Lingering
) -> None:
    daemon = start(ENCODE__FFMPEG=lingering.program, ENGINE__CONFINE_WORKERS=0, ENGINE__ATTEMPTS=1, ENGINE__WORKERS=1)

    def kill_the_worker(job: str, left: list[psutil.Process]) -> None:
        [worker] = daemon.workers()
        freeze([worker, *left])
        worker.kill()
        are_gone([worker, *left])
        wait_until(lambda: daemon.state(job) == "COMPLETED", "the job has failed")

    daemon.client.submit(gate.request(request_id="loading"))
    wait_until(lambda: gate.fetched == 1 and daemon.encoders(), "it waits for a picture")
    kill_the_worker("loading", daemon.encoders())

    lingering.linger()
    daemon.client.submit(request(request_id="encoding"))
    kill_the_worker("encoding", [*lingering.running(), lingering.escaped()])

    lingering.linger(takes="cat > /dev/null")
    daemon.client.submit(request(request_id="finishing"))
    left = lingering.running()
    assert daemon.client.status("finishing").progress.stage == "finishing"
    kill_the_worker("finishing", [*left, lingering.escaped()])

    lingering.becomes_ffmpeg()
    assert daemon.client.render(request(request_id="last")).frames == 2


def test_a_killed_daemon_takes_all_along_though_all_of_it_is_stopped(start: Start, lingering: Lingering) -> None:
    daemon = start(ENCODE__FFMPEG=lingering.program, ENGINE__CONFINE_WORKERS=0, ENGINE__WORKERS=1)
    lingering.linger()
    daemon.client.submit(request(request_id="a"))
    encoder = lingering.running()
    left = all_but({daemon.child.pid, lingering.escaped().pid}, daemon.processes())
    assert {process.pid for process in encoder} < {process.pid for process in left}
    freeze(left)
    daemon.signal(signal.SIGKILL)
    daemon.child.wait()
    wait_until_dead(left)


def test_a_daemon_that_is_killed_while_it_tries_its_encoder_leaves_nothing(
    tmp_path: Path, lingering: Lingering
) -> None:
    lingering.linger()
    command = [
        sys.executable,
        "-m",
        "renderer",
        "serve",
        "--bind",
        "tcp://127.0.0.1:*",
        "--data-dir",
        tmp_path / "data",
    ]
    settings = {"STILLREEL_ENCODE__FFMPEG": str(lingering.program), "STILLREEL_ENGINE__CONFINE_WORKERS": "0"}
    with subprocess.Popen(command, env={**os.environ, **settings}) as daemon:
        left = lingering.running()
        freeze(left)
        daemon.kill()
    wait_until_dead(left)


# As process 1 of a container.


@pytest.fixture
def start_as_process_1(tmp_path: Path, require: Require) -> Iterator[Callable[..., DaemonProcess]]:
    """Return what starts a daemon in a PID namespace of its own; `child` is what waits for it outside."""
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    found = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True, check=False)
    require("pid-namespace", found and found.returncode == 0, "unshare --pid takes root")
    with contextlib.ExitStack() as stack:

        def start(**environment: object) -> DaemonProcess:
            daemon = DaemonProcess(tmp_path, (), environment, prefix=alone)
            stack.callback(daemon.close)
            return daemon

        yield start


def test_as_process_1_a_daemon_waits_for_all_that_die(
    start_as_process_1: Callable[..., DaemonProcess], lingering: Lingering
) -> None:
    daemon = start_as_process_1(
        ENCODE__FFMPEG=lingering.program, ENGINE__CONFINE_WORKERS=0, ENGINE__ATTEMPTS=1, ENGINE__WORKERS=1
    )
    lingering.linger()
    daemon.client.submit(request(request_id="a"))
    wait_until(lambda: len(of_the_encoder(daemon)) == 3, "it encodes")
    left = of_the_encoder(daemon)
    [first] = psutil.Process(daemon.child.pid).children()
    [server] = [child for child in first.children() if "forkserver" in " ".join(child.cmdline())]
    [worker] = server.children()
    [escaped] = [process for process in left if os.getsid(process.pid) == process.pid]
    worker.kill()
    are_gone([worker, *(process for process in left if process != escaped)])
    assert escaped.ppid() == first.pid
    escaped.kill()  # whoever looks around in the container may have begun it
    are_gone([escaped])
    server.kill()
    are_gone([server])
    lingering.becomes_ffmpeg()
    assert daemon.client.render(request(request_id="b")).frames == 2
    first.terminate()
    assert daemon.child.wait(45) == 0


def of_the_encoder(daemon: DaemonProcess) -> list[psutil.Process]:
    found = []
    for process in daemon.processes():
        with contextlib.suppress(psutil.Error):
            found += [process] if {"lingering-ffmpeg", "600"} & {Path(word).name for word in process.cmdline()} else []
    return found


# Without a daemon.


def test_a_killed_render_takes_its_encoder_along(tmp_path: Path, lingering: Lingering, write_image) -> None:
    lingering.linger()
    command = [sys.executable, "-m", "renderer", "render", write_image("a.png"), "-o", tmp_path / "a.mp4"]
    settings = {"STILLREEL_ENCODE__FFMPEG": str(lingering.program)}
    with subprocess.Popen(command, env={**os.environ, **settings}) as render:
        left = lingering.running()
        render.kill()
    wait_until_dead(left)


def test_a_killed_batch_takes_its_workers_and_encoders_along(tmp_path: Path, lingering: Lingering) -> None:
    tree = Tree(tmp_path / "in", tmp_path / "out")
    tree.manifest("a")
    lingering.linger()
    process = BatchProcess(tree, ("-j", "1"), {"ENCODE__FFMPEG": lingering.program})
    try:
        encoder = lingering.running()
        left = all_but({process.child.pid, lingering.escaped().pid}, process.processes())
        assert {each.pid for each in encoder} < {each.pid for each in left}
        freeze(left)
        process.child.kill()
        wait_until_dead(left)
    finally:
        process.close()
