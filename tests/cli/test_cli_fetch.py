"""`submit -o` and `result -o`: videos fetched from a real daemon, and places that are refused before the work."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from protocol.schema import Fault
from protocol.wire import Call, failure
from tests.cli_process import COMMAND, Ended, Terminal, failed, run
from tests.daemon_process import DaemonProcess, request, with_one_job_done
from tests.protocol.fake_server import RESULT, FakeServer

Cli = Callable[..., Ended]

MANIFEST = json.dumps(request())


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with with_one_job_done(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon


@pytest.fixture
def cli(tmp_path: Path, daemon: DaemonProcess) -> Cli:
    return partial(run, cwd=tmp_path, STILLREEL_CONNECT=daemon.endpoint)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_submit_fetches_the_video_and_result_fetches_it_again(cli: Cli, tmp_path: Path) -> None:
    ended = cli("submit", "-", "--wait", "-o", "out.mp4", "--set", "request_id=mine", stdin=MANIFEST)
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, (tmp_path / "out.mp4").as_uri())
    ended = cli("result", "mine", "-o", "again.mp4", "--json")
    assert json.loads(ended.stdout)["video"]["url"] == (tmp_path / "again.mp4").as_uri()
    assert names(tmp_path) == ["again.mp4", "out.mp4"]
    content = (tmp_path / "out.mp4").read_bytes()
    assert content[4:8] == b"ftyp"
    assert content == (tmp_path / "again.mp4").read_bytes()


def test_result_writes_the_video_to_stdout_and_its_words_to_stderr(daemon: DaemonProcess) -> None:
    daemon.client.render(request(request_id="piped"))
    command = [*COMMAND, "result", "piped", "-o", "-", "--connect", daemon.endpoint]
    ended = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout[4:8]) == (0, b"ftyp")
    assert b"".join(daemon.client.video("piped")) == ended.stdout
    assert ended.stderr.splitlines()[-1].startswith(b"2 frames, ")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("missing/out.mp4", "error: output: expected a directory that exists, found missing"),
        ("out.mov", "error: output: a daemon makes MP4 files; expected a name that ends in .mp4, found out.mov"),
        ("directory.mp4", "error: output: directory.mp4 is a directory; "),
        ("/dev/null", "error: output: a daemon makes MP4 files; "),
    ],
)
@pytest.mark.parametrize("command", [["submit", "-", "--wait"], ["result", "nobody"]], ids="-".join)
def test_a_place_is_refused_before_the_daemon_is_asked(
    cli: Cli, daemon: DaemonProcess, tmp_path: Path, command: list[str], output: str, words: str
) -> None:
    (tmp_path / "directory.mp4").mkdir()
    before = len(daemon.client.jobs())
    assert failed(cli(*command, "-o", output, stdin=MANIFEST), 2).startswith(words)
    assert len(daemon.client.jobs()) == before


def test_an_output_without_wait_says_what_to_type(cli: Cli) -> None:
    line = failed(cli("submit", "-", "-o", "out.mp4", stdin=MANIFEST), 2)
    assert line == "error: expected --wait with -o; without it, fetch the video later: stillreel result ID -o FILE"


def test_a_failed_job_leaves_the_file_that_was_there(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"before")
    manifest = json.dumps(request({"url": "data:image/png;base64,AAAA"}))
    failed(cli("submit", "-", "--wait", "-o", "out.mp4", "-y", stdin=manifest), 1)
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"before"
    assert "exists; -y replaces it" in failed(cli("result", "any", "-o", "out.mp4", "-n"), 2)


def test_a_terminal_is_asked_before_a_file_is_replaced(daemon: DaemonProcess, tmp_path: Path) -> None:
    daemon.client.render(request(request_id="there"))
    out = tmp_path / "out.mp4"
    out.write_bytes(b"before")
    with closing(Terminal("result", "there", "-o", out, "--connect", daemon.endpoint, columns=300)) as terminal:
        terminal.read_until(lambda words: "Replace it? [y/N]" in words)
        terminal.press("y\n")
        assert terminal.ended() == 0
    assert out.read_bytes()[4:8] == b"ftyp"


def test_a_video_that_cannot_be_fetched_says_how_to_fetch_it_later(tmp_path: Path) -> None:
    fault = Fault(type="not_found", message="the video is gone")

    def handle(server: FakeServer, call: Call) -> None:
        if call.method == "video":
            server.send(failure(call.id, fault))
        else:
            server.answer(call, RESULT)

    server = FakeServer(handle)
    ended = run("result", "a", "-o", "out.mp4", "--connect", server.endpoint, cwd=tmp_path)
    server.stop()
    assert (ended.returncode, ended.stdout, names(tmp_path)) == (1, "", [])
    note, error = ended.stderr.splitlines()
    assert note == "the video was made but not fetched: stillreel result a -o FILE"
    assert error == "error: the video is gone"
