"""What faults of all kinds must not tell: where the daemon keeps things, what its environment holds, and keys."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from protocol.client import Client
from protocol.errors import RemoteError
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.frontends.http.keys import KeyRing
from tests.cli_process import run
from tests.curve_keys import curve_file
from tests.daemon_process import DaemonProcess, picture, request, starting, still, wait_until
from tests.manifest_directory import put
from tests.receiver import receiving
from tests.served import APP, QUEUE, RUN

ENVIRONMENT = "value-of-the-servers-environment"
BROKEN = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
FAULTS: list[dict[str, Any]] = [
    {},
    {"images": []},
    {"images": "x"},
    request(fps="no"),
    request(crf=99),
    request(unknown=1),
    request(request_id="../../etc"),
    request(webhook_url="ftp://127.0.0.1:1/"),
    request(encoder="nvenc"),
    request({"url": BROKEN}),
    request({"url": "data:image/png;base64,AAAA"}),
    request({"url": "/etc/hostname"}),
    request({"url": "file:///proc/self/environ"}),
    request({"url": "gone.png"}),
    request({"url": "../gone.png"}),
    request({"url": "cid:7"}),
    request({"url": "gopher://x/"}),
    request({"url": "http://127.0.0.1:1/a.png"}),
    request({"url": "http://nowhere.invalid/a.png"}),
    request(still(), width=10**6),
    request({"url": "a\u0000b"}),
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest.fixture(scope="module")
def curve(directory: Path) -> Path:
    return curve_file(directory / "data", "alice")


@pytest.fixture(scope="module")
def api_key(directory: Path) -> str:
    return KeyRing(directory / "data").add("bob")


@pytest.fixture(scope="module")
def root(directory: Path) -> Path:
    (directory / "root").mkdir()
    (directory / "root" / "folder.png").mkdir()
    (directory / "root" / "cut.ppm").write_bytes(picture((1, 2, 3))[:40])
    (directory / "root" / "out").symlink_to("/etc")
    return directory / "root"


@pytest.fixture(scope="module")
def ffmpeg(directory: Path) -> Path:
    """An ffmpeg that works until a file lies beside it; then it says where it lies, as shells and loaders do."""
    (directory / "bin").mkdir()
    program = directory / "bin" / "ffmpeg"
    real = find_ffmpeg(EncodeSettings())
    program.write_text(f"#!/bin/sh\n[ -e '{program}.broken' ] && exec '{program}.broken'\nexec '{real}' \"$@\"\n")
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def daemon(directory: Path, root: Path, curve: Path, api_key: str, ffmpeg: Path) -> Iterator[DaemonProcess]:
    with pytest.MonkeyPatch.context() as environment, starting(directory) as start:
        environment.setenv("TEST_SECRET", ENVIRONMENT)
        spool = directory / "spool"
        yield start(
            *("--http", "127.0.0.1:0", "--allow-root", root, "--spool", spool),
            ENCODE__FFMPEG=ffmpeg,
            WEBHOOKS__ALLOW_NETWORKS="127.0.0.0/8",
        )


@pytest.fixture
def secrets(daemon: DaemonProcess, directory: Path, curve: Path, api_key: str) -> list[str]:
    keys = [*json.loads(curve.read_text()).values(), api_key]
    kept = json.loads((daemon.data_dir / "curve" / "daemon.json").read_text())["secret_key"]
    return [str(directory), str(daemon.temporary), str(Path(__file__).parents[1]), ENVIRONMENT, kept, *keys]


def found_in(text: str, secrets: list[str]) -> list[str]:
    return [secret for secret in secrets if secret in text]


def faults(root: Path) -> list[dict[str, Any]]:
    # A client may name what it knows: relative to the root it knows nothing of the server.
    return FAULTS + [request({"url": name}) for name in ("folder.png", "cut.ppm", "out/passwd")]


def test_no_error_over_zeromq_tells_a_secret(
    daemon: DaemonProcess, curve: Path, root: Path, secrets: list[str]
) -> None:
    with Client(daemon.endpoint, curve=curve, timeout_s=30) as client:
        for fields in faults(root):
            with pytest.raises(RemoteError) as refused:
                client.render(fields)
            told = f"{refused.value.message} {refused.value.details}"
            assert not found_in(told, secrets), told
            told = str(client.jobs())
            assert not found_in(told, secrets), told


def test_no_answer_over_http_tells_a_secret(
    daemon: DaemonProcess, api_key: str, root: Path, secrets: list[str]
) -> None:
    answers = []
    with httpx.Client(base_url=daemon.http, headers={"authorization": f"Key {api_key}"}, timeout=60) as client:
        for fields in faults(root):
            answers.append(client.post(RUN, json=fields))
            answers.append(client.post(f"{QUEUE}?logs=1", json=fields))
        done = client.post(RUN, json=request())
        answers.append(done)
        job = done.headers["x-fal-request-id"]
        one = f"/queue/{APP}/requests/{job}"
        answers += [client.get(path) for path in (one, f"{one}/status?logs=1", f"{one}x", "/api/jobs", "/api/health")]
        answers += [client.get(path) for path in ("/api/doctor", "/metrics", "/nowhere", "/files/x/y", "/web/../x")]
        answers += [client.post(RUN, content=body) for body in (b"", b"{", b"\xff", b"[" * 100_000)]
        answers += [httpx.get(f"{daemon.http}/api/jobs"), client.put(f"{one}/cancel")]
    for answer in answers:
        told = f"{answer.text} {answer.headers}"
        assert not found_in(told, secrets), (answer.request.url, told)


def test_no_error_of_the_manifest_directory_tells_a_secret(
    daemon: DaemonProcess, directory: Path, root: Path, secrets: list[str]
) -> None:
    manifests = {f"m{number}": fields for number, fields in enumerate(faults(root))}
    for name, fields in manifests.items():
        put(directory / "spool", name, fields)
    put(directory / "spool", "broken", "{")
    places = [directory / "spool" / "failed" / name / "error.json" for name in (*manifests, "broken")]
    wait_until(lambda: all(place.exists() for place in places), "all have failed")
    for place in places:
        told = place.read_text()
        assert not found_in(told, secrets), told


def test_no_call_of_a_webhook_tells_a_secret(
    daemon: DaemonProcess, api_key: str, root: Path, secrets: list[str]
) -> None:
    kept = 0
    with (
        receiving() as receiver,
        httpx.Client(base_url=daemon.http, headers={"authorization": f"Key {api_key}"}, timeout=60) as client,
    ):
        for fields in [*faults(root), request()]:
            asked = client.post(QUEUE, params={"fal_webhook": receiver.url}, json=fields)
            kept += asked.status_code == 200
        client.post(QUEUE, params={"fal_webhook": "http://127.0.0.1:1/gone"}, json=request())  # for the log
        assert kept > 5
        wait_until(lambda: len(receiver.calls) == kept, "all are told")
    for headers, body in receiver.calls:
        told = f"{headers} {body.decode()}"
        assert not found_in(told, secrets), told


def test_no_failure_of_the_encoder_tells_where_it_lies(
    daemon: DaemonProcess, curve: Path, api_key: str, ffmpeg: Path, secrets: list[str]
) -> None:
    broken = ffmpeg.with_name("ffmpeg.broken")
    broken.touch()
    try:
        with Client(daemon.endpoint, curve=curve, timeout_s=30) as client:
            with pytest.raises(RemoteError, match="last words") as refused:
                client.render(request(request_id="broken"))
            told = [refused.value.message, *(line.message for line in client.logs("broken"))]
        asked = httpx.post(daemon.http + RUN, headers={"authorization": f"Key {api_key}"}, json=request(), timeout=60)
    finally:
        broken.unlink()
    assert len(told) > 2
    assert not found_in(f"{told} {asked.text} {asked.headers}", secrets), told


def test_no_error_of_the_command_line_tells_a_secret_of_the_daemon(
    daemon: DaemonProcess, curve: Path, secrets: list[str], tmp_path: Path
) -> None:
    (tmp_path / "of-alice.curve").write_text(curve.read_text())
    (tmp_path / "m.json").write_text(json.dumps(request({"url": "gone.png"})))
    at = ("--connect", daemon.endpoint, "--curve", "of-alice.curve")
    for asked in (("submit", "m.json", "--wait"), ("result", "nobody"), ("status", "nobody"), ("jobs",)):
        ended = run(*asked, *at, cwd=tmp_path)
        assert ended.returncode == (0 if asked == ("jobs",) else 1)
        assert not found_in(ended.stdout + ended.stderr, secrets), asked


def test_no_line_of_the_log_tells_a_secret(daemon: DaemonProcess, secrets: list[str]) -> None:
    lines = daemon.words().splitlines()
    assert len(lines) > 20  # the tests above ran
    # The first line tells the operator where the data directory is, who has to know.
    told = [line for line in lines if " DEBUG " not in line and " listens on " not in line]
    assert not [line for line in told if found_in(line, secrets)]
