"""The client commands against a server that restarts, refuses and stays away when a test wants it to."""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ERRORS
from protocol.schema import Fault, Health
from protocol.wire import Call, failure
from tests.cli_process import COMMAND, Ended, Terminal, failed, run
from tests.protocol.fake_server import RESULT, FakeServer, Handler, job_status

Serve = Callable[[Handler], FakeServer]
Cli = Callable[..., Ended]

COMMANDS = [["submit", "-"], ["submit", "-", "--wait"], ["status", "a"], ["result", "a"], ["cancel", "a"], ["jobs"]]
MANIFEST = json.dumps({"images": [{"url": "/pictures/a.png", "frames": 72}]})


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(handle: Handler) -> FakeServer:
            server = FakeServer(handle)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return partial(run, cwd=tmp_path)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.json"
    path.write_text(MANIFEST)
    return path


def refusing(name: str, words: str, *, retryable: bool | None = None) -> Handler:
    may_retry = ERRORS[name].retryable if retryable is None else retryable
    fault = Fault(type=name, message=words, retryable=may_retry)
    return lambda server, call: server.send(failure(call.id, fault))


def status(server: FakeServer, call: Call, **changes: Any) -> None:
    server.answer(call, job_status(call.params["request_id"], **changes))


# What the exit code tells.


@pytest.mark.parametrize("name", ["queue_full", "storage_full", "internal_error"])
def test_a_daemon_without_room_ends_with_4_at_once(serve: Serve, cli: Cli, name: str) -> None:
    server = serve(refusing(name, "come again"))
    assert failed(cli("submit", "-", "--connect", server.endpoint, stdin=MANIFEST), 4) == "error: come again"
    assert len(server.calls) == 1


def test_a_daemon_that_goes_on_stopping_ends_with_4(serve: Serve, cli: Cli) -> None:
    server = serve(refusing("shutting_down", "the daemon is stopping"))
    assert (
        failed(cli("submit", "-", "--connect", server.endpoint, stdin=MANIFEST), 4) == "error: the daemon is stopping"
    )
    assert len(server.calls) > 3
    assert len({call.params["request_id"] for call in server.calls}) == 1


def test_what_a_daemon_says_of_the_job_ends_with_1(serve: Serve, cli: Cli) -> None:
    server = serve(refusing("image_load_error", "images[0].url: cut short"))
    assert failed(cli("result", "a", "--connect", server.endpoint), 1) == "error: images[0].url: cut short"


def test_a_job_whose_server_was_away_ends_with_4_as_the_daemon_says(serve: Serve, cli: Cli) -> None:
    server = serve(refusing("file_download_error", "images[0].url: no answer", retryable=True))
    assert failed(cli("result", "a", "--connect", server.endpoint), 4) == "error: images[0].url: no answer"


@pytest.mark.parametrize("name", ["invalid_params", "less_than_equal", "sequence_too_long", "not_supported"])
def test_a_request_that_the_daemon_finds_wrong_ends_with_2(serve: Serve, cli: Cli, name: str) -> None:
    server = serve(refusing(name, "crf: wrong"))
    assert failed(cli("submit", "-", "--connect", server.endpoint, stdin=MANIFEST), 2) == "error: crf: wrong"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_endpoint_that_is_no_address_ends_with_2(cli: Cli, command: list[str]) -> None:
    line = failed(cli(*command, "--connect", "nonsense", stdin=MANIFEST), 2)
    assert line == "error: --connect: expected an address that begins with tcp:// or ipc://, found 'nonsense'"


def test_an_answer_that_cannot_be_read_is_told_in_one_line(serve: Serve, cli: Cli) -> None:
    server = serve(lambda server, call: server.answer(call, {"request_id": 7}))
    line = failed(cli("status", "a", "--connect", server.endpoint), 1)
    assert "not a valid JobStatus: request_id: " in line
    assert "; progress: expected a value, found none" in line


# Whether a job would be taken.

HEALTH = Health(
    status="ok",
    version="1",
    ready=True,
    workers=2,
    jobs_running=1,
    jobs_queued=7,
    encoder="libx264",
    encoder_reason="x",
)
DRAINING = HEALTH.model_copy(update={"status": "draining", "ready": False, "reasons": ("the daemon is stopping", "b")})


@pytest.fixture
def door() -> Iterator[Callable[[int, str], str]]:
    """Return what opens an HTTP server that answers anything so, and returns its address."""
    with contextlib.ExitStack() as stack:

        def answering(status: int, text: str) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status if self.path == "/below/readyz" else 404)
                    self.end_headers()
                    self.wfile.write(text.encode())

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.02,)).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}/below/"

        yield answering


@pytest.mark.parametrize(
    ("health", "code", "line"),
    [
        (HEALTH, 0, "ready: 1 of 2 workers render, 7 jobs wait, encoder libx264"),
        (
            HEALTH.model_copy(update={"workers": 0}),
            0,
            "ready: jobs are accepted, but none can run: no node offers slots; 7 jobs wait",
        ),
        (DRAINING, 4, "not ready: the daemon is stopping; b"),
    ],
)
def test_health_says_in_a_line_and_by_the_exit_code_whether_a_job_would_be_taken(
    serve: Serve, cli: Cli, door: Callable[[int, str], str], health: Health, code: int, line: str
) -> None:
    server = serve(lambda server, call: server.answer(call, health.model_dump(mode="json")))
    ended = cli("health", STILLREEL_CONNECT=server.endpoint)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, f"{line}\n", "")
    ended = cli("health", "--json", "--http", door(200 if health.ready else 503, health.model_dump_json()))
    assert (ended.returncode, ended.stderr) == (code, "")
    assert Health.model_validate_json(ended.stdout) == health


def test_health_of_something_else_ends_with_3_and_of_no_address_with_2(
    cli: Cli, door: Callable[[int, str], str]
) -> None:
    assert "is not a stillreel daemon; start" in failed(cli("health", "--http", door(200, "hello")), 3)
    plain = door(200, "hello").replace("http:", "https:")
    line = failed(cli("health", "--http", plain), 2)
    assert line == f"error: --http: what answers at {plain} speaks no TLS; expected http:// before it"
    assert "/readyz: Connection refused; start" in failed(cli("health", "--http", "http://127.0.0.1:9"), 3)
    assert failed(cli("health", "--http", "127.0.0.1:8480"), 2).startswith(
        "error: expected the address of an HTTP door"
    )


# Restarts.


def test_submit_and_wait_survives_a_restart(serve: Serve, cli: Cli) -> None:
    def handle(server: FakeServer, call: Call) -> None:
        server.notify(call, status="IN_PROGRESS", state="running")
        if len(server.calls) == 1:
            server.restart()
        else:
            server.answer(call, RESULT)

    server = serve(handle)
    ended = cli("submit", "-", "--wait", "--json", "--connect", server.endpoint, stdin=MANIFEST)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["frames"] == 72
    assert server.bodies[0] == server.bodies[1]


def test_submit_survives_a_daemon_that_is_stopping(serve: Serve, cli: Cli) -> None:
    def handle(server: FakeServer, call: Call) -> None:
        if len(server.calls) < 3:
            refusing("shutting_down", "the daemon is stopping")(server, call)
        else:
            status(server, call, state="queued")

    server = serve(handle)
    ended = cli("submit", "-", "--connect", server.endpoint, stdin=MANIFEST)
    assert ended.stdout == f"{server.calls[0].params['request_id']}: queued, 0/72 frames\n"


# What is shown.


def test_a_bar_tells_stage_coded_frames_and_time(serve: Serve, manifest: Path) -> None:
    progress = {"images_done": 2, "images": 2, "frames": 72, "frames_done": 24, "stage": "finishing"}
    server = serve(lambda server, call: server.notify(call, progress=progress))
    with closing(Terminal("submit", manifest, "--wait", "--connect", server.endpoint)) as terminal:
        terminal.read_until(lambda words: bool(re.search(r"finishing \S+ 24/72 frames 0:00:\d\d eta --:--", words)))


def test_a_place_in_the_queue_is_drawn(serve: Serve, manifest: Path) -> None:
    server = serve(lambda server, call: server.notify(call, queue_position=3))
    with closing(Terminal("submit", manifest, "--wait", "--connect", server.endpoint)) as terminal:
        terminal.read_until(lambda words: "queued, 3 ahead" in words)


def test_who_stops_waiting_is_told_how_to_find_the_job(serve: Serve, manifest: Path) -> None:
    server = serve(lambda server, call: server.notify(call))
    with closing(Terminal("submit", manifest, "--wait", "--connect", server.endpoint, columns=200)) as terminal:
        terminal.read_until(lambda words: "72 frames" in words)
        terminal.interrupt()
        assert terminal.ended() == 130
        assert f"stillreel status {server.calls[0].params['request_id']}" in terminal.words
    assert [call.method for call in server.calls] == ["render"]


def test_status_tells_the_finer_state_and_repeated_attempts(serve: Serve, cli: Cli) -> None:
    server = serve(lambda server, call: status(server, call, status="IN_PROGRESS", state="running", attempts=2))
    assert cli("status", "a", "--connect", server.endpoint).stdout == "a: running, attempt 2, 0/72 frames\n"


def test_status_of_a_failed_job_tells_why(serve: Serve, cli: Cli) -> None:
    fault = Fault(type="image_load_error", message="images[0].url: [red]cut[/] short")
    server = serve(
        lambda server, call: status(server, call, status="COMPLETED", state="failed", error=fault.model_dump())
    )
    ended = cli("status", "a", "--connect", server.endpoint)
    assert (ended.returncode, ended.stdout) == (0, "a: failed, 0/72 frames\n")
    assert ended.stderr == "error: images[0].url: [red]cut[/] short\n"


def list_two(server: FakeServer, call: Call) -> None:
    fault = {"type": "file_download_error", "message": "images[0].url: no such file"}
    since = datetime.now(UTC).isoformat()
    failed_job = job_status("two", status="COMPLETED", state="failed", error=fault, accepted_at=since)
    server.answer(call, {"jobs": [job_status("one"), failed_job]})


def test_jobs_asks_for_what_the_options_say(serve: Serve, cli: Cli) -> None:
    server = serve(list_two)
    at = {"STILLREEL_CONNECT": server.endpoint}
    cli("jobs", **at)
    cli("jobs", "--state", "queued", "--state", "failed", "--limit", "3", **at)
    assert [call.params for call in server.calls] == [{}, {"states": ["queued", "failed"], "limit": 3}]


def test_jobs_are_one_line_each_in_a_pipe_and_plain(serve: Serve, cli: Cli) -> None:
    ended = cli("jobs", "--connect", serve(list_two).endpoint, COLUMNS="20")
    heading, one, two = ended.stdout.splitlines()
    assert heading.split() == ["request_id", "state", "images", "frames", "age", "took"]
    assert one.split() == ["one", "queued", "2", "0/72", "-", "-"]
    assert two.endswith("  images[0].url: no such file")
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize("columns", [60, 160])
def test_a_failed_job_is_red_on_a_terminal(serve: Serve, columns: int) -> None:
    with closing(Terminal("jobs", "--connect", serve(list_two).endpoint, columns=columns)) as terminal:
        assert terminal.ended() == 0
    [line] = [line for line in terminal.drawn.splitlines() if "two" in line]
    assert line.startswith("\x1b[31mtwo ")
    assert ("no such file" in line) == (columns == 160)
    assert "no such file" in terminal.drawn


def test_the_answer_to_jobs_is_a_list_in_json(serve: Serve, cli: Cli) -> None:
    listed = json.loads(cli("jobs", "--json", "--connect", serve(list_two).endpoint).stdout)
    assert [(job["request_id"], job["state"]) for job in listed] == [("one", None), ("two", "failed")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_client_command_loads_no_imaging_libraries(serve: Serve, command: list[str]) -> None:
    server = serve(
        lambda server, call: server.answer(
            call, {"jobs": []} if call.method == "jobs" else RESULT | job_status("a", state="queued")
        )
    )
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMAND[1:], *command, "--connect", server.endpoint],
        input=MANIFEST,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in ended.stderr.splitlines()}
    assert {"zmq", "click"} <= loaded
    assert not loaded & {"typer", "numpy", "cv2", "av", "PIL", "fastapi", "pebble"}
