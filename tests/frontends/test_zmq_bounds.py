"""What clients can make the daemon hold is bounded, whatever they do and do not do."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import zmq

from tests.daemon_process import DaemonProcess, Gate, Start, request, still, wait_until

MIB = 1024 * 1024


@contextlib.contextmanager
def dealer(endpoint: str, **options: int) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    connection = context.socket(zmq.DEALER)
    connection.linger = 0
    for name, value in options.items():
        setattr(connection, name, value)
    connection.connect(endpoint)
    try:
        yield connection
    finally:
        connection.close()
        context.term()


def message(number: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode()


def own_bytes(daemon: DaemonProcess) -> int:
    """The daemon's memory that is not a mapped file's."""
    status = Path(f"/proc/{daemon.child.pid}/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def test_videos_that_a_silent_client_does_not_take_cost_no_memory(start: Start) -> None:
    daemon = start()
    noise = {"url": "cid:0", "frames": 1}
    pixels = os.urandom(640 * 480 * 3)
    layout = {"attachments": [{"shape": [480, 640, 3]}], "width": 640, "height": 480, "crf": 1, "sync_mode": True}
    made = daemon.client.render({"images": [noise] * 2, "request_id": "large", **layout}, attachments=[pixels])
    assert len(made.video_bytes or b"") > 400_000
    before = own_bytes(daemon)
    with dealer(daemon.endpoint, rcvhwm=1, sndhwm=0) as deaf:
        for number in range(900):
            deaf.send(message(number, "result", {"request_id": "large"}))
        wait_until(lambda: daemon.client.health().status == "ok", "others are answered")
        time.sleep(1)
        assert daemon.client.health().status == "ok"
        assert own_bytes(daemon) - before < 60 * MIB  # copies would be 350 MiB or more
    assert daemon.client.result("large").video_bytes == made.video_bytes


def test_large_requests_at_once_are_taken_one_after_the_other(start: Start, gate: Gate) -> None:
    """Eighty messages of 8 MiB from four clients, with a limit of 16 MiB: never all of them in memory."""
    daemon = start(SERVER__MAX_REQUEST_BYTES=16 * MIB, ENGINE__WORKERS=1)
    daemon.client.render(request())
    before = own_bytes(daemon)
    most = 0
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(dealer(daemon.endpoint, sndhwm=0)) for _ in range(4)] * 20
        for number, client in enumerate(clients):
            params = gate.request(request_id=f"large-{number}")
            client.send_multipart([message(number, "submit", params), bytes(8 * MIB)])
        for client in clients:
            deadline = time.monotonic() + 60
            while not client.poll(20):
                most = max(most, own_bytes(daemon) - before)
                assert time.monotonic() < deadline
            assert "result" in json.loads(client.recv())
    assert (
        most < 320 * MIB
    )  # half of them: those at hand, and four or so that ZeroMQ has read ahead for each connection


def test_a_message_is_let_go_when_its_job_is_stored(start: Start, gate: Gate) -> None:
    daemon = start(ENGINE__WORKERS=1)
    daemon.client.render(request())
    before = own_bytes(daemon)
    with dealer(daemon.endpoint, sndhwm=0) as client:
        for number in range(12):
            client.send_multipart([message(number, "render", gate.request()), bytes(16 * MIB)])
        wait_until(lambda: daemon.client.health().jobs_queued == 11, "all are stored", 30)
        wait_until(lambda: own_bytes(daemon) - before < 80 * MIB, "the messages are let go")


def test_a_client_that_dies_with_answers_outstanding_is_forgotten(start: Start, gate: Gate) -> None:
    daemon = start(ENGINE__WORKERS=1)
    program = (
        "import asyncio, json, sys\n"
        "from protocol.client import AsyncClient\n"
        "async def ask():\n"
        "    async with AsyncClient(sys.argv[1]) as client:\n"
        "        await asyncio.gather(*(client.render(json.loads(sys.argv[2])) for _ in range(50)))\n"
        "asyncio.run(ask())\n"
    )
    asked = json.dumps(gate.request(sync_mode=True))
    with subprocess.Popen([sys.executable, "-c", program, daemon.endpoint, asked]) as client:
        wait_until(lambda: daemon.client.health().jobs_queued == 49, "all wait", 30)
        client.send_signal(signal.SIGKILL)
    gate.open()
    wait_until(lambda: daemon.client.health().jobs_queued == 0, "its jobs are rendered all the same", 60)
    assert daemon.client.render(request(still(frames=3))).frames == 3
    assert "Traceback" not in daemon.words()


@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes([255, 0, 0, 0, 0, 0, 0, 0, 1, 127, 3])])
def test_ten_thousand_connects_leave_the_daemon_as_it_was(start: Start, greeting: bytes) -> None:
    daemon = start()
    daemon.client.render(request())
    place = urlsplit(daemon.endpoint)
    address = (place.hostname, place.port)
    process = psutil.Process(daemon.child.pid)
    before = process.num_fds()
    for _ in range(3334):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(greeting)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(400)]
        for connection in held:
            connection.sendall(greeting)
        assert daemon.client.health().status == "ok"
    wait_until(lambda: process.num_fds() <= before + 2, "the connections are gone")
    assert daemon.client.render(request(still(frames=3))).frames == 3
