"""The systemd unit: read by systemd itself, and lived by as far as that takes no systemd that runs."""

import configparser
import contextlib
import ctypes.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from renderer.cli.usage import USAGE
from renderer.config import Settings
from renderer.daemon import ServiceManager
from renderer.jobs.start import stopping_signals
from tests.daemon_process import Gate, Start, wait_until
from tests.manifest_directory import everybodys_directory
from tests.system_calls import allowed

ROOT = Path(__file__).parents[1]
UNIT, SPOOL = ROOT / "scripts" / "stillreel.service", ROOT / "scripts" / "stillreel-spool.conf"
Require = Callable[[str, object, str], None]


@pytest.fixture
def analyze(require: Require, tmp_path: Path) -> Callable[..., str]:
    """Return what runs systemd-analyze over the unit and its variant, as installed; it must find nothing wrong."""
    require("systemd", shutil.which("systemd-analyze"), "Debian: systemd")
    program = tmp_path / "stillreel"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "stillreel.service"
    unit.write_text(UNIT.read_text().replace("/opt/stillreel/bin/stillreel", str(program)))

    def run(*arguments: str, with_spool: bool = False) -> str:
        if with_spool:
            (tmp_path / "stillreel.service.d").mkdir()
            shutil.copy(SPOOL, tmp_path / "stillreel.service.d" / "spool.conf")
        command = ["systemd-analyze", *arguments, str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


@pytest.mark.parametrize("with_spool", [False, True])
def test_systemd_reads_every_line(analyze: Callable[..., str], with_spool: bool) -> None:
    assert analyze("verify", with_spool=with_spool) == ""


def test_systemd_counts_little_that_is_open(analyze: Callable[..., str]) -> None:
    told = analyze("security", "--offline=true", "--no-pager", "--threshold=25")  # tenths; fails above
    assert re.search(r"Overall exposure level for stillreel.service: [012]\.\d", told)


def section(file: Path) -> dict[str, str]:
    """The [Service] section; of settings that come again, the last."""
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(file)
    return dict(parser["Service"])


def test_a_mistake_in_the_settings_is_not_started_again_and_a_drain_is_waited_for() -> None:
    service = section(UNIT)
    assert service["RestartPreventExitStatus"] == str(USAGE)
    assert int(service["TimeoutStopSec"]) > Settings().server.drain_timeout_s
    assert (service["Type"], service["OOMPolicy"], service["KillMode"]) == ("notify", "continue", "mixed")


# Readiness.


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], socket.socket]]:
    """Return what opens a service manager's socket, by its name in NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:

        def listen(name: str) -> socket.socket:
            manager.bind(f"\0{name[1:]}" if name.startswith("@") else name)
            manager.settimeout(60)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            return manager

        yield listen


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_a_service_manager_is_told_and_what_is_started_does_not_know_it(
    listening: Callable[[str], socket.socket], tmp_path: Path, kind: str
) -> None:
    manager = listening(f"@stillreel-{os.getpid()}" if kind == "abstract" else str(tmp_path / "notify"))
    told = ServiceManager()
    assert "NOTIFY_SOCKET" not in os.environ
    told.tell("READY=1", "ready on tcp://127.0.0.1:5590")
    assert manager.recv(4096) == b"READY=1\nSTATUS=ready on tcp://127.0.0.1:5590"


def test_a_service_manager_that_is_gone_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    ServiceManager().tell("READY=1", "ready")
    assert [line.getMessage().partition(":")[0] for line in caplog.records] == [
        "READY=1 could not be sent to the service manager"
    ]


def test_sighup_drains_and_the_service_manager_hears_of_ready_and_of_stopping(
    start: Start, gate: Gate, listening: Callable[[str], socket.socket]
) -> None:
    manager = listening(f"@stillreel-daemon-{os.getpid()}")
    daemon = start("--allow-http")
    assert manager.recv(4096) == f"READY=1\nSTATUS=ready on {daemon.endpoint}".encode()
    daemon.client.submit(gate.request(request_id="running"))
    daemon.wait_for("running")
    for process in daemon.processes():  # as a terminal does that is closed: to the whole group
        if os.getpgid(process.pid) == os.getpgid(daemon.child.pid):
            process.send_signal(signal.SIGHUP)
    assert manager.recv(4096).startswith(b"STOPPING=1\nSTATUS=draining")
    gate.open()
    assert daemon.child.wait(60) == 0
    assert "running" in {path.parent.name for path in daemon.data_dir.glob("outputs/*/video.mp4")}


def test_sighup_is_no_reason_to_stop_where_whoever_began_the_daemon_has_it_ignored() -> None:
    assert signal.SIGHUP in stopping_signals()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup(1) does, and a program inherits it
    try:
        assert signal.SIGHUP not in stopping_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


# System calls, and the manifest directory's variant: its commands, its user and umask, and the unit's system calls.

DAEMON, REELS, ALICE, BOB = 64001, 64002, 64003, 64004  # numbers that nobody has
# It may read everything, for the tests' Python may lie where only root can; what it may write is what its user may.
AS_DAEMON = (
    *("setpriv", f"--reuid={DAEMON}", f"--regid={REELS}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"),
)


@pytest.fixture
def place() -> Iterator[Path]:
    with everybodys_directory() as directory:
        yield directory


def as_user(user: int, *groups: int) -> dict[str, object]:
    return {"user": user, "group": groups[0], "extra_groups": groups[1:], "cwd": "/"}


@pytest.fixture
def filtered(require: Require) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Return what begins a Python with no other system calls than the unit's."""
    require("systemd", shutil.which("systemd-analyze") and ctypes.util.find_library("seccomp"), "Debian: systemd")
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str | Path, before: Sequence[str] = (), **options: object) -> "subprocess.Popen[bytes]":
            launcher = [sys.executable, "-P", ROOT / "tests" / "system_calls.py", sys.executable, *arguments]
            child = stack.enter_context(
                subprocess.Popen(
                    [*before, *map(str, launcher)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
                )
            )
            assert child.stdin is not None
            child.stdin.write("\n".join(allowed(UNIT)).encode())
            child.stdin.close()
            stack.callback(child.kill)
            return child

        yield begin


def test_what_only_root_may_do_is_not_among_the_system_calls(
    filtered: Callable[..., "subprocess.Popen[bytes]"],
) -> None:
    assert filtered("-c", "import os; os.chroot('/')").wait(60) == -signal.SIGSYS
    assert filtered("-c", "import os; os.nice(1)").wait(60) == 0


def test_submitters_read_what_comes_of_their_manifests_and_nobody_else_does(
    place: Path, require: Require, filtered: Callable[..., "subprocess.Popen[bytes]"]
) -> None:
    require("root", os.geteuid() == 0, "root alone becomes other users")
    install = [line[1:].split() for line in SPOOL.read_text().splitlines() if line.startswith("#   install ")]
    reels, names = place / "reels", {"stillreel": str(DAEMON), "reels": str(REELS)}
    for command in install:
        words = [names.get(word, word.replace("/srv/reels", str(reels))) for word in command]
        subprocess.run(words, check=True)
    settings = {"STILLREEL_SPOOL__DIRECTORY": str(reels), "HOME": str(place), "TMPDIR": str(place)}
    daemon = filtered(
        *("-m", "renderer", "serve", "--bind", "tcp://127.0.0.1:*", "--data-dir", place / "data"),
        before=AS_DAEMON,
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        umask=int(section(SPOOL)["UMask"], 8),
        cwd="/",
    )
    alice, bob = as_user(ALICE, ALICE, REELS), as_user(BOB, BOB)
    submit(reels, "film", alice)
    ended = reels / "done" / "film"
    wait_until(lambda: ended.exists() or daemon.poll() is not None, "the bundle is rendered", 60)
    read = ["cat", str(ended / "result.json"), str(ended / "video.mp4"), str(ended / "a.ppm")]
    assert subprocess.run(read, capture_output=True, check=False, **alice).returncode == 0
    assert subprocess.run(read, capture_output=True, check=False, **bob).returncode != 0
    daemon.terminate()
    assert daemon.wait(60) == 0


def submit(reels: Path, name: str, user: dict[str, object]) -> None:
    """Put a bundle there as the variant's head says."""
    staged = reels / "incoming" / f".{name}"
    line = (
        'mkdir "$0" && printf "P6 2 2 255\\n123456789012" > "$0/a.ppm" && '
        'printf %s "$2" > "$0/manifest.json" && chmod g+w "$0" && mv "$0" "$1"'
    )
    manifest = json.dumps({"images": [{"url": "a.ppm", "frames": 2}], "width": 64, "height": 48})
    subprocess.run(["sh", "-c", line, str(staged), str(reels / "incoming" / name), manifest], check=True, **user)
