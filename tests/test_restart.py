"""Clients whose daemon is drained, or killed with -9, and started again while they wait: real processes throughout."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from protocol.client import Client
from tests.cli_process import Terminal, run
from tests.daemon_process import DaemonProcess, Gate, Start, request, wait_until

# The gate is a server on this machine.
REACHABLE = {"FETCH__ALLOW_HTTP": True, "FETCH__ALLOW_NETWORKS": "127.0.0.0/8"}

Ask = Callable[[Client], Any]
Asking = Callable[[DaemonProcess, Ask], Callable[[], Any]]


@pytest.fixture
def asking() -> Iterator[Asking]:
    """Return a function that asks in a thread of its own, and returns what waits for the outcome.

    Its client is so patient in silence that only a reconnection brings its call through in time.
    """
    threads: list[threading.Thread] = []

    def start(daemon: DaemonProcess, ask: Ask) -> Callable[[], Any]:
        outcome: list[Any] = []

        def work() -> None:
            with Client(daemon.endpoint, silence_s=600, timeout_s=60) as client:
                try:
                    outcome.append(ask(client))
                except Exception as error:  # noqa: BLE001 - raised again where the test asks
                    outcome.append(error)

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()

        def ended() -> Any:
            thread.join(70)
            if isinstance(outcome[0], Exception):
                raise outcome[0]
            return outcome[0]

        return ended

    yield start
    for thread in threads:
        thread.join(70)


def kill(daemon: DaemonProcess) -> None:
    daemon.signal(signal.SIGKILL)
    daemon.child.wait()


@pytest.mark.parametrize(
    "ask",
    [
        lambda client, job: client.render(job),
        lambda client, job: client.wait(client.submit(job).request_id),
    ],
    ids=["render", "wait"],
)
def test_a_video_comes_though_the_daemon_is_killed_in_mid_call(
    start: Start, gate: Gate, asking: Asking, ask: Callable[[Client, dict[str, Any]], Any]
) -> None:
    killed = start(**REACHABLE)
    job = gate.request(request_id="kept")
    ended = asking(killed, lambda client: ask(client, job))
    wait_until(killed.encoders, "the encoder runs")
    kill(killed)
    gate.open()
    start(bind=killed.endpoint, **REACHABLE)
    made = ended()
    assert (made.request_id, made.frames) == ("kept", 4)


def test_every_video_comes_though_the_daemon_is_drained_and_started_again(
    start: Start, gate: Gate, asking: Asking
) -> None:
    drained = start("--workers", "1", **REACHABLE)
    running = asking(drained, lambda client: client.render(gate.request(request_id="running")))
    wait_until(drained.encoders, "the encoder runs")
    waiting = asking(drained, lambda client: client.render(request(request_id="waiting")))
    wait_until(lambda: drained.client.health().jobs_queued == 1, "one job waits")
    drained.signal(signal.SIGTERM)
    wait_until(lambda: drained.client.health().status == "draining", "it drains")
    late = asking(drained, lambda client: client.submit(request(request_id="late")).request_id)
    gate.open()
    assert drained.child.wait(30) == 0
    start("--workers", "1", bind=drained.endpoint, **REACHABLE)
    assert running().request_id == "running"
    assert waiting().request_id == "waiting"
    assert late() == "late"


def test_submit_and_wait_prints_its_video_though_the_daemon_is_killed(start: Start, gate: Gate, tmp_path: Path) -> None:
    killed = start(**REACHABLE)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(gate.request(request_id="kept")))
    with closing(Terminal("submit", manifest, "--wait", "--connect", killed.endpoint)) as terminal:
        wait_until(killed.encoders, "the encoder runs")
        kill(killed)
        gate.open()
        started = start(bind=killed.endpoint, **REACHABLE)
        assert terminal.ended() == 0
    assert "4 frames, " in terminal.words
    status = run("status", "kept", "--connect", started.endpoint, cwd=tmp_path)
    assert status.stdout == "kept: done, 4 frames\n"
