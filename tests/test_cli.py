"""The command line as users and scripts meet it: real processes, exit codes, pipes and a terminal."""

import json
import os
import pty
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import DaemonProcess, Gate, picture, request, starting, still

Ended = subprocess.CompletedProcess[str]
Cli = Callable[..., Ended]
WriteManifest = Callable[..., Path]


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    root = tmp_path_factory.mktemp("pictures")
    with starting(tmp_path_factory.mktemp("daemon")) as start:
        yield start("--allow-http", "--allow-root", root.parent, "--workers", "1", ENGINE__MAX_QUEUED=1)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a function that runs `stillreel` in a directory of its own."""

    def run(*arguments: str | Path, stdin: str = "", **environment: str) -> Ended:
        return subprocess.run(
            [sys.executable, "-m", "renderer", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def manifest(tmp_path: Path) -> WriteManifest:
    """Return a function that writes a manifest, beside its picture, into a directory of its own."""

    def write(*images: dict[str, Any], **fields: Any) -> Path:
        directory = tmp_path / "reel"
        directory.mkdir(exist_ok=True)
        (directory / "a.ppm").write_bytes(picture((200, 60, 20)))
        path = directory / "manifest.json"
        path.write_text(json.dumps(request(*(images or ({"url": "a.ppm", "frames": 3},)), **fields)))
        return path

    return write


def failed(ended: Ended, code: int) -> str:
    """Check that a command ended with a code, nothing on stdout and one line on stderr; return the line."""
    assert (ended.returncode, ended.stdout) == (code, "")
    [line] = ended.stderr.splitlines()
    assert line.startswith("error: ")
    return line


# Without a daemon.


def test_render_reads_paths_relative_to_the_manifest(cli: Cli, manifest: WriteManifest, tmp_path: Path) -> None:
    ended = cli("render", manifest(), "-o", "out.mp4")
    assert (ended.returncode, ended.stderr) == (0, "")
    url, words = ended.stdout.splitlines()
    assert url == (tmp_path / "out.mp4").as_uri()
    assert words.startswith("3 frames, 0.125 s at 24/1 fps, 64x48, ")


def test_render_prints_the_result_as_json(cli: Cli, manifest: WriteManifest, tmp_path: Path) -> None:
    ended = cli("render", manifest(metadata={"a": 1}), "-o", tmp_path / "out.mp4", "--json")
    result = json.loads(ended.stdout)
    assert (result["frames"], result["metadata"], ended.stderr) == (3, {"a": 1}, "")
    assert result["video"]["file_size"] == (tmp_path / "out.mp4").stat().st_size


def test_render_reads_a_manifest_from_stdin_relative_to_the_working_directory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "here.ppm").write_bytes(picture((1, 2, 3)))
    ended = cli("render", "-", "-o", "out.mp4", stdin=json.dumps(request({"url": "here.ppm"})))
    assert ended.returncode == 0
    assert (tmp_path / "out.mp4").exists()


def test_a_job_that_fails_ends_with_1_and_names_the_image(cli: Cli, manifest: WriteManifest, tmp_path: Path) -> None:
    line = failed(cli("render", manifest(still(), {"url": "missing.png"}), "-o", "out.mp4"), 1)
    assert line == "error: images[1].url: no such file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reel"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "manifest -: "),
        ("{", "manifest -: "),
        ("[]", "manifest -: expected a JSON object"),
        ('{"fps": NaN}', "manifest -: "),
        ('{"fps": 1e999}', "manifest -: "),
        ("[" * 100_000, "manifest -: "),
    ],
)
@pytest.mark.parametrize("command", [["render", "-", "-o", "out.mp4"], ["submit", "-"]], ids=["render", "submit"])
def test_a_broken_manifest_ends_with_2(cli: Cli, command: list[str], text: str, words: str) -> None:
    assert failed(cli(*command, stdin=text), 2).startswith(f"error: {words}")


def test_a_manifest_that_is_not_there_ends_with_2(cli: Cli) -> None:
    assert failed(cli("render", "missing.json", "-o", "out.mp4"), 2).startswith("error: manifest missing.json: ")


def test_an_output_directory_that_is_not_there_ends_with_2(cli: Cli, manifest: WriteManifest) -> None:
    assert failed(cli("render", manifest(), "-o", "nowhere/out.mp4"), 2) == "error: output: nowhere is no directory"


@pytest.mark.parametrize("arguments", [["render"], ["nonsense"], ["serve", "--workers", "0"], ["jobs", "--nonsense"]])
def test_wrong_usage_ends_with_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).returncode == 2


def test_version_and_help_are_there(cli: Cli) -> None:
    assert cli("--version").stdout.startswith("stillreel 0.")
    helped = cli("--help", COLUMNS="120").stdout
    assert all(name in helped for name in ("serve", "render", "submit", "status", "result", "cancel", "jobs", "doctor"))


def test_doctor_says_what_works(cli: Cli) -> None:
    ended = cli("doctor", "--json")
    assert ended.returncode == 0
    assert {"ffmpeg", "libx264", "nvenc"} <= {finding["what"] for finding in json.loads(ended.stdout)}


def test_doctor_ends_with_1_where_nothing_can_be_rendered(cli: Cli) -> None:
    ended = cli("doctor", STILLREEL_ENCODE__FFMPEG="/nowhere/ffmpeg")
    assert ended.returncode == 1
    assert "ffmpeg" in ended.stdout


def test_a_progress_bar_is_drawn_on_a_terminal_only(manifest: WriteManifest, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "renderer", "render", str(manifest()), "-o", str(tmp_path / "out.mp4")]
    master, slave = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    ) as child:
        os.close(slave)
        drawn = b""
        ends = time.monotonic() + 30
        while time.monotonic() < ends and select.select([master], [], [], 30)[0]:
            try:
                drawn += os.read(master, 65536)
            except OSError:  # EIO: the child has closed its side
                break
        assert child.wait(30) == 0
    os.close(master)
    assert b"rendering" in drawn or b"finishing" in drawn
    assert b"1/1" in drawn


# With a daemon.


def test_submit_and_wait_shows_the_result(cli: Cli, daemon: DaemonProcess, manifest: WriteManifest) -> None:
    ended = cli("submit", manifest(), "--wait", "--json", "--connect", daemon.endpoint)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["frames"] == 3


def test_a_job_is_followed_from_the_command_line(cli: Cli, daemon: DaemonProcess, manifest: WriteManifest) -> None:
    at = {"STILLREEL_CONNECT": daemon.endpoint}
    assert cli("submit", manifest(request_id="mine"), **at).stdout.startswith("mine: IN_QUEUE")
    daemon.wait_for("mine", "COMPLETED")
    assert cli("status", "mine", **at).stdout == "mine: COMPLETED, 1/1 images\n"
    assert json.loads(cli("status", "mine", "--json", **at).stdout)["status"] == "COMPLETED"
    assert json.loads(cli("result", "mine", "--json", **at).stdout)["frames"] == 3
    assert "3 frames" in cli("result", "mine", **at).stdout
    assert "mine" in cli("jobs", **at).stdout
    assert "mine" in [job["request_id"] for job in json.loads(cli("jobs", "--json", **at).stdout)]
    assert cli("cancel", "mine", "--json", **at).returncode == 0


def test_what_the_daemon_refuses_ends_with_1(cli: Cli, daemon: DaemonProcess, manifest: WriteManifest) -> None:
    at = {"STILLREEL_CONNECT": daemon.endpoint}
    assert "no job has this id" in failed(cli("status", "nobody", **at), 1)
    assert "images[0].url: " in failed(cli("submit", manifest({"url": "/etc/passwd"}), **at), 1)
    assert "images[0].url: " in failed(cli("submit", manifest({"url": "missing.ppm"}), "--wait", **at), 1)


def test_a_full_queue_ends_with_4(cli: Cli, daemon: DaemonProcess, gate: Gate, manifest: WriteManifest) -> None:
    at = {"STILLREEL_CONNECT": daemon.endpoint}
    daemon.client.submit(gate.request(request_id="running"))
    daemon.wait_for("running")
    daemon.client.submit(request(request_id="waiting"))
    assert "jobs are waiting" in failed(cli("submit", manifest(), **at), 4)
    assert "jobs are waiting" in failed(cli("submit", manifest(), "--wait", **at), 4)
    cancelled = json.loads(cli("cancel", "waiting", "--json", **at).stdout)
    assert cancelled["error"]["type"] == "client_cancelled"
    assert "cancelled" in failed(cli("result", "waiting", **at), 1)
    assert "not done yet" in failed(cli("result", "running", **at), 1)
    gate.open()
    daemon.wait_for("running", "COMPLETED")


def test_no_daemon_ends_with_3(cli: Cli) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
        assert endpoint in failed(cli("jobs", "--connect", endpoint), 3)


def test_the_console_script_is_installed() -> None:
    script = shutil.which("stillreel", path=Path(sys.executable).parent)
    assert script is not None
    assert subprocess.run([script, "--version"], capture_output=True, check=True, timeout=30).stdout
