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

from tests.daemon_process import DaemonProcess, Gate, Start, request, starting, still, wait_until
from tests.load import load

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


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that takes small messages, for tests that do not look at its memory."""
    with starting(tmp_path_factory.mktemp("daemon")) as start:
        yield start("--allow-http", SERVER__MAX_REQUEST_BYTES=4 * MIB, ENGINE__WORKERS=1)


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


def test_a_client_that_dies_with_answers_outstanding_is_forgotten(daemon: DaemonProcess, gate: Gate) -> None:
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


@pytest.mark.load
@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\n\r\n", bytes([255, 0, 0, 0, 0, 0, 0, 0, 1, 127, 3])])
def test_thousands_of_connects_leave_the_daemon_as_it_was(daemon: DaemonProcess, greeting: bytes) -> None:
    daemon.client.render(request())
    place = urlsplit(daemon.endpoint)
    address = (place.hostname, place.port)
    process = psutil.Process(daemon.child.pid)
    before = process.num_fds()
    for _ in range(load(700, 3334)):
        with socket.create_connection(address, 10) as connection:
            connection.sendall(greeting)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(address, 10)) for _ in range(400)]
        for connection in held:
            connection.sendall(greeting)
        assert daemon.client.health().status == "ok"
    wait_until(lambda: process.num_fds() <= before + 2, "the connections are gone")
    assert daemon.client.render(request(still(frames=3))).frames == 3


def test_a_message_of_many_more_frames_than_a_request_has_is_refused_and_leaves_nothing(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=1)
    daemon.client.health()
    before = peak_bytes(daemon)
    with dealer(daemon.endpoint, sndhwm=0) as client:
        client.send(message(7, "submit", request()), zmq.SNDMORE)
        for _ in range(200_000):
            client.send(b"x", zmq.SNDMORE)
        client.send(b"x")
        assert client.poll(60_000)
        answer = json.loads(client.recv())
        words = "attachments: expected up to 10000, found 200001 (limits.max_images)"
        assert (answer["id"], answer["error"]["message"]) == (7, words)
    assert peak_bytes(daemon) - before < 60 * MIB  # ZeroMQ takes 64 bytes for a frame, a list of all took 130 MiB


def test_a_message_that_never_ends_costs_its_connection_and_not_the_memory(start: Start) -> None:
    """By hand (https://rfc.zeromq.org/spec/23/), for libzmq sends no message before it is whole."""
    daemon = start(SERVER__MAX_REQUEST_BYTES=8 * MIB, ENGINE__WORKERS=1)
    daemon.client.health()
    before = own_bytes(daemon)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    more = b"\x03" + (4 * MIB).to_bytes(8, "big") + bytes(4 * MIB)
    place = urlsplit(daemon.endpoint)
    with socket.create_connection((place.hostname, place.port), 30) as connection:
        connection.sendall(greeting + b"\x04" + bytes([len(ready)]) + ready)
        with pytest.raises(ConnectionError):
            send_often(connection, more, 2000)  # 8 GB
    assert "127.0.0.1 was cut off: it sent more than" in daemon.words()
    wait_until(lambda: own_bytes(daemon) - before < 60 * MIB, "it is forgotten", 30)
    assert daemon.client.render(request()).frames == 2


def send_often(connection: socket.socket, data: bytes, times: int) -> None:
    for _ in range(times):
        connection.sendall(data)


def test_messages_that_are_sent_faster_than_they_are_taken_cut_off_nobody(daemon: DaemonProcess) -> None:
    with dealer(daemon.endpoint, sndhwm=0) as client:
        for number in range(60):
            client.send_multipart([message(number, "health", {}), bytes(3 * MIB)], copy=False)
        for _ in range(60):
            assert client.poll(60_000)
            client.recv()
    assert "cut off" not in daemon.words()


def test_a_message_that_is_too_large_is_answered_in_words_and_keeps_its_connection(daemon: DaemonProcess) -> None:
    with dealer(daemon.endpoint, sndhwm=0) as client:
        client.send_multipart([message(7, "submit", request()), *[bytes(MIB)] * 7])
        assert client.poll(60_000)
        answer = json.loads(client.recv())
        assert (answer["id"], answer["error"]["data"]["type"]) == (7, "message_too_large")
        client.send(message(8, "health", {}))
        assert client.poll(60_000)
        assert json.loads(client.recv())["id"] == 8


def test_what_a_connection_sends_counts_from_its_last_message_on(daemon: DaemonProcess) -> None:
    with dealer(daemon.endpoint, sndhwm=0) as client:
        for number in range(24):  # 72 MiB, which would be too much for one message
            client.send_multipart([message(number, "health", {}), bytes(3 * MIB)])
            assert client.poll(60_000)
            assert json.loads(client.recv())["id"] == number
    assert "cut off" not in daemon.words()


def peak_bytes(daemon: DaemonProcess) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.child.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024
