"""`logs` and `retry` against a real daemon."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from protocol.client import Client
from tests.cli_process import Ended, failed, run
from tests.daemon_process import DaemonProcess, Gate, picture, request, still, with_one_job_done

UNDER_NO_ROOT = "not under a directory that may be read (--allow-root)"
NOBODYS = "no job has this id, or it was forgotten since"
Cli = Callable[..., Ended]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[DaemonProcess]:
    arguments = ("--allow-root", root, "--allow-network", "127.0.0.0/8")
    with with_one_job_done(tmp_path_factory.mktemp("daemon"), *arguments, ENGINE__WORKERS=1) as daemon:
        yield daemon


@pytest.fixture
def cli(tmp_path: Path, daemon: DaemonProcess) -> Cli:
    return partial(run, cwd=tmp_path, STILLREEL_CONNECT=daemon.endpoint)


def test_logs_tells_the_course_of_a_job(cli: Cli) -> None:
    made = request(still(frames=2), {"url": "no.png"}, on_error="skip", request_id="skips", width=16, height=12)
    cli("submit", "-", "--wait", stdin=json.dumps(made))
    ended = cli("logs", "skips")
    assert ended.returncode == 0, ended.stderr
    words = [line.split(maxsplit=2) for line in ended.stdout.splitlines()]
    assert {level for _, level, _ in words} == {"INFO"}
    messages = [message for _, _, message in words]
    assert messages[0] == "accepted: 2 images, 3 frames"
    assert messages[1] == f"images[1].url: this image is left out, with its time: {UNDER_NO_ROOT}"
    assert messages[-1].startswith("done in ")
    told = json.loads(cli("logs", "skips", "--json").stdout)
    assert [line["message"] for line in told] == messages
    assert failed(cli("logs", "nobody"), 1) == f"error: request_id: {NOBODYS}"


def test_retry_asks_again_for_what_failed(cli: Cli, daemon: DaemonProcess, root: Path) -> None:
    images = {"images": [{"url": str(root / "late.ppm"), "frames": 5}], "request_id": "early", "metadata": {"a": 1}}
    assert cli("submit", "-", "--wait", stdin=json.dumps(images)).returncode == 1
    (root / "late.ppm").write_bytes(picture((1, 2, 3), 64, 48))
    ended = cli("retry", "early", "--json")
    assert ended.returncode == 0, ended.stderr
    again = json.loads(ended.stdout)["request_id"]
    assert again != "early"
    with Client(daemon.endpoint) as client:
        made = client.wait(again)
        assert (made.frames, made.metadata, made.request_id) == (5, {"a": 1}, again)
        assert client.status("early").state == "failed"


def test_retry_says_why_it_cannot(cli: Cli, daemon: DaemonProcess, gate: Gate) -> None:
    brought = request({"url": "data:image/png;base64,AAAA"}, request_id="brought")
    cli("submit", "-", "--wait", stdin=json.dumps(brought))
    cli("submit", "-", stdin=json.dumps(gate.request(request_id="running")))
    for name, code, words in (
        ("brought", 2, "its pictures came with the request and went when it ended; send the request again"),
        ("done", 2, "its video was made; ask for its result"),
        ("running", 2, "it has not ended; cancel it first, or wait for it"),
        ("nobody", 1, NOBODYS),
    ):
        assert failed(cli("retry", name), code) == f"error: request_id: {words}"
    gate.open()
