"""What the clients see when the daemon stops, dies, or comes back."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

from tests.daemon_process import DaemonProcess, Gate, Start, request, wait_until
from tests.served import ENDPOINT, QUEUE, RUN

SUBSCRIBE = """
import json, os, fal_client
made = fal_client.subscribe(os.environ["APP"], arguments=json.loads(os.environ["BODY"]), on_queue_update=lambda _: None)
print(made["frames"])
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def states(daemon: DaemonProcess) -> dict[str, str]:
    return {job.request_id: job.status for job in daemon.client.jobs()}


def test_the_official_client_waits_through_a_kill(start: Start, gate: Gate, tls_pair: tuple[Path, Path]) -> None:
    host = f"127.0.0.1:{free_port()}"
    listening = ("--https", host, "--tls-cert", tls_pair[0], "--tls-key", tls_pair[1])
    daemon = start(*listening)
    environment = {
        **os.environ,
        "FAL_KEY": "any",
        "SSL_CERT_FILE": str(tls_pair[0]),
        "FAL_RUN_HOST": f"{host}/run",
        "FAL_QUEUE_RUN_HOST": f"{host}/queue",
        "APP": ENDPOINT,
        "BODY": json.dumps(gate.request(request_id="through-a-kill")),
    }
    with subprocess.Popen(
        [sys.executable, "-c", SUBSCRIBE], env=environment, stdout=subprocess.PIPE, text=True
    ) as client:
        try:
            wait_until(lambda: states(daemon).get("through-a-kill") == "IN_PROGRESS", "it runs", 30)
        except AssertionError:
            client.kill()
            raise
        daemon.signal(signal.SIGKILL)
        daemon.child.wait(60)
        gate.open()
        start(*listening)
        told, _ = client.communicate(timeout=60)
    assert client.returncode == 0
    assert told.split() == ["4"]


def test_who_waits_for_a_turn_is_told_that_the_daemon_stops(start: Start, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0", ENGINE__WORKERS=1)
    running = httpx.post(daemon.http + QUEUE, json=gate.request()).json()["request_id"]
    daemon.wait_for(running)
    answers: list[httpx.Response] = []
    body = request(request_id="waits")
    asking = threading.Thread(target=lambda: answers.append(httpx.post(daemon.http + RUN, json=body, timeout=60)))
    asking.start()
    wait_until(lambda: states(daemon).get("waits") == "IN_QUEUE", "it waits")
    daemon.signal()
    asking.join(60)
    [told] = answers
    assert told.status_code == 503
    assert told.json()["error_type"] == "shutting_down"
    assert told.headers["retry-after"]
    time.sleep(0.6)  # longer than the grace that a dropped connection has
    gate.open()
    assert daemon.child.wait(60) == 0
    assert " ERROR " not in daemon.words()
    again = start("--http", "127.0.0.1:0", ENGINE__WORKERS=1)
    assert httpx.post(again.http + RUN, json=body, timeout=60).status_code == 200
