"""The command line as users and scripts meet it: real processes, exit codes, pipes and a terminal."""

import io
import json
import os
import platform
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from tests.cli_process import COMMAND, Ended, Terminal, failed, run
from tests.daemon_process import DaemonProcess, Gate, Start, picture, request, starting, still
from tests.pictures.matrix import gradient

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
        settings = {"ENGINE__MAX_QUEUED": 1, "FETCH__ALLOW_NETWORKS": "127.0.0.0/8"}  # the gate is on this machine
        yield start("--allow-http", "--allow-root", root.parent, "--workers", "1", **settings)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Return a function that runs `stillreel` in a directory of its own."""

    return partial(run, cwd=tmp_path)


@pytest.fixture
def manifest(tmp_path: Path) -> WriteManifest:
    """Return a function that writes a manifest, beside its picture, into a directory of its own."""

    def write(*images: dict[str, Any], **fields: Any) -> Path:
        directory = tmp_path / "reel"
        directory.mkdir(exist_ok=True)
        (directory / "a.ppm").write_bytes(picture((200, 60, 20), 64, 48))
        path = directory / "manifest.json"
        path.write_text(json.dumps(request(*(images or ({"url": "a.ppm", "frames": 3},)), **fields)))
        return path

    return write


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
    assert line == "error: images[1].url: missing.png: no such file"
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
    assert (
        failed(cli("render", manifest(), "-o", "nowhere/out.mp4"), 2)
        == "error: output: expected a directory that exists, found nowhere"
    )


def test_images_are_rendered_as_they_lie(cli: Cli, tmp_path: Path) -> None:
    for number in (1, 2, 10):
        (tmp_path / f"img{number}.ppm").write_bytes(picture((number, 2, 3)))
    ended = cli("render", "img1.ppm", "img10.ppm", "img2.ppm", "--hold", "24", "--fps", "30", "-o", "out.mp4")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[1].startswith("72 frames, 2.400 s at 30/1 fps, ")
    ended = cli("render", "img%d.ppm", "--gaps", "hold", "--set", "crf=30", "-o", "out.mov", "--json")
    assert json.loads(ended.stdout)["frames"] == 10
    assert "warning: 7 numbers are missing" in cli("render", "img%d.ppm", "-o", "out.mp4").stderr


def test_scaling_and_canvas_are_options_and_win_over_set(cli: Cli, tmp_path: Path) -> None:
    for name, size in (("a.png", (32, 16)), ("b.png", (64, 48))):
        Image.new("RGB", size, (1, 2, 3)).save(tmp_path / name)
    options = ("--canvas", "largest", "--scaling", "nearest", "--set", "canvas=first")
    found = json.loads(cli("render", "a.png", "b.png", *options, "-o", "out.mp4", "--json").stdout)
    assert (found["width"], found["height"]) == (64, 48)
    assert cli("render", "a.png", "--scaling", "cubic", "-o", "out.mp4").returncode == 2


def test_a_dash_writes_a_whole_video_to_stdout(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(picture((1, 2, 3)))
    ended = subprocess.run(
        [*COMMAND, "render", "a.ppm", "--hold", "5", "-o", "-"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    with av.open(io.BytesIO(ended.stdout)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 5
    assert ended.stdout.index(b"moov") < ended.stdout.index(b"mdat")
    assert ended.stderr.startswith(b"5 frames, ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.ppm"]


def test_what_a_decoder_prints_is_no_part_of_the_video_on_stdout(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(picture((1, 2, 3)))
    header = {"compression": OpenEXR.HTJ2K32_COMPRESSION, "type": OpenEXR.scanlineimage}
    channels = {name: gradient()[..., index].astype(np.float16) for index, name in enumerate("RGB")}
    OpenEXR.File(header, channels).write(str(tmp_path / "b.exr"))
    whole = (tmp_path / "b.exr").read_bytes()
    (tmp_path / "b.exr").write_bytes(whole[:-10] + bytes(10))  # OpenJPH tells stdout that a code stream ends early
    ended = subprocess.run(
        [*COMMAND, "render", "a.ppm", "b.exr", "--hold", "5", "--on-error", "skip", "-o", "-"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"ojph info" in ended.stderr
    assert b"ojph info" not in ended.stdout
    assert ended.stdout[4:8] == b"ftyp"


def test_a_render_needs_no_stdout(manifest: WriteManifest, tmp_path: Path) -> None:
    command = f"exec {shlex.join(COMMAND)} render {shlex.quote(str(manifest()))} -o out.mp4 >&-"
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_an_output_that_is_there_is_replaced_unless_n_says_no(
    cli: Cli, manifest: WriteManifest, tmp_path: Path
) -> None:
    there = tmp_path / "out.mp4"
    there.write_text("old")
    assert failed(cli("render", manifest(), "-o", "out.mp4", "-n"), 2) == (
        "error: output: out.mp4 exists; -y replaces it"
    )
    assert there.read_text() == "old"
    assert cli("render", manifest(), "-o", "out.mp4").returncode == 0
    assert there.stat().st_size > 3


def test_a_person_is_asked_before_a_video_is_replaced(manifest: WriteManifest, tmp_path: Path) -> None:
    there = tmp_path / "out.mp4"
    there.write_text("old")
    with closing(Terminal("render", manifest(), "-o", there)) as terminal:
        terminal.read_until(lambda words: "exists. Replace it? [y/N]" in words)
        terminal.press("n\n")
        assert terminal.ended() == 2
    assert there.read_text() == "old"


def test_a_manifest_is_not_overwritten(cli: Cli, manifest: WriteManifest, tmp_path: Path) -> None:
    path = manifest()
    (tmp_path / "out.mp4").hardlink_to(path)
    line = failed(cli("render", path, "-o", "out.mp4"), 2)
    assert line == f"error: output: {tmp_path / 'out.mp4'} is an input, the manifest; expected another name"
    assert json.loads(path.read_text())["images"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["render"],
        ["nonsense"],
        ["serve", "--workers", "0"],
        ["serve", "--log-format", "xml"],
        ["jobs", "--nonsense"],
        ["jobs", "--state", "lost"],
        ["jobs", "--limit", "0"],
        ["jobs", "--limit", "1001"],
    ],
)
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


def test_a_progress_bar_is_drawn_on_a_terminal(manifest: WriteManifest, tmp_path: Path) -> None:
    with closing(Terminal("render", manifest(), "-o", tmp_path / "out.mp4")) as terminal:
        assert terminal.ended() == 0
    assert re.search(r"finishing \S+ 3/3 frames +0:00:\d\d eta", terminal.words)
    assert "0/3" not in terminal.words


# With a daemon.


def test_serve_takes_its_other_doors_and_its_log_format_from_flags(start: Start, tmp_path: Path) -> None:
    spool = os.path.relpath(tmp_path / "spool")
    daemon = start("--spool", spool, "--metrics", "127.0.0.1:0", "--log-format", "json")
    assert (tmp_path / "spool" / "incoming").is_dir()
    daemon.client.render(request(request_id="logged"))
    lines = [json.loads(line) for line in daemon.words().splitlines()]
    with urllib.request.urlopen(lines[0]["metrics"], timeout=60) as answer:
        assert b"stillreel_jobs_accepted_total" in answer.read()
    assert [line["job"] for line in lines if line["action"] == "accepted"] == ["logged"]


def test_submit_and_wait_shows_the_result(cli: Cli, daemon: DaemonProcess, manifest: WriteManifest) -> None:
    ended = cli("submit", manifest(), "--wait", "--json", "--connect", daemon.endpoint)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["frames"] == 3


def test_a_job_is_followed_from_the_command_line(cli: Cli, daemon: DaemonProcess, manifest: WriteManifest) -> None:
    at = {"STILLREEL_CONNECT": daemon.endpoint}
    assert cli("submit", manifest(request_id="mine"), **at).stdout.startswith("mine: queued")
    daemon.wait_for("mine", "COMPLETED")
    assert cli("status", "mine", **at).stdout == "mine: done, 3 frames\n"
    assert json.loads(cli("status", "mine", "--json", **at).stdout)["status"] == "COMPLETED"
    assert json.loads(cli("result", "mine", "--json", **at).stdout)["frames"] == 3
    assert "3 frames" in cli("result", "mine", **at).stdout
    assert "mine" in cli("jobs", "--state", "done", **at).stdout
    assert "mine" not in cli("jobs", "--state", "failed", "--state", "queued", **at).stdout
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
    assert "jobs to wait" in failed(cli("submit", manifest(), **at), 4)
    assert "jobs to wait" in failed(cli("submit", manifest(), "--wait", **at), 4)
    cancelled = json.loads(cli("cancel", "waiting", "--json", **at).stdout)
    assert cancelled["error"]["type"] == "client_cancelled"
    assert "cancelled" in failed(cli("result", "waiting", **at), 1)
    assert "not done yet" in failed(cli("result", "running", **at), 4)
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


def page_faults(directory: Path, stills: int) -> int:
    """Render as many stills, and return how often the process was given a page."""
    command = [*COMMAND, "render", *(f"{number}.jpg" for number in range(stills)), "-o", f"{stills}.mp4"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told what to keep")
def test_a_still_is_put_where_the_last_one_was(tmp_path: Path) -> None:
    for number in range(24):
        pixels = np.random.default_rng(number).integers(0, 255, (72, 128, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), cv2.resize(pixels, (1280, 720)))
    more = page_faults(tmp_path, 24) - page_faults(tmp_path, 12)
    assert more < 12 * 1280 * 720 * 3 / resource.getpagesize()  # the pixels of each; a still needs three times as much
