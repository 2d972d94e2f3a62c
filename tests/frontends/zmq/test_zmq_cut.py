"""Connections that are cut without a word, as by a NAT that forgets them: both ends notice, and the client goes on."""

import asyncio
import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from protocol.client import AsyncClient, Client
from protocol.errors import ClientTimeout
from protocol.keepalive import DEAF_MS, PING_MS, keep_alive
from renderer.config import ServerSettings
from renderer.frontends.zmq.curve import CurveRing
from renderer.frontends.zmq.server import ZmqServer
from tests.daemon_process import DaemonProcess, Gate, wait_until

_ESTABLISHED, _PROBES_WAIT = "01", "02"


class Cable(threading.Thread):
    """Passes on what two ends of a connection say until it is cut: then neither hears from the other, nor of an end.

    What connects after that is passed on.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.connections = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._orders, self._order = socket.socketpair()
        self._other: dict[socket.socket, socket.socket] = {}
        self._cut: list[socket.socket] = []
        self.start()

    def cut(self) -> None:
        self._order.sendall(b"cut")

    def close(self) -> None:
        self._order.close()
        self.join()
        for end in (self._listener, self._orders, *self._other, *self._cut):
            end.close()

    def run(self) -> None:
        while True:
            for end in select.select([self._orders, self._listener, *self._other], [], [])[0]:
                if end is self._orders:
                    if not end.recv(3):
                        return
                    self._cut += self._other
                    self._other.clear()
                elif end is self._listener:
                    self._connect()
                elif end in self._other:
                    self._pass_on(end)

    def _connect(self) -> None:
        here, _ = self._listener.accept()
        there = socket.create_connection(("127.0.0.1", self._port))
        self._other |= {here: there, there: here}
        self.connections += 1

    def _pass_on(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if said := end.recv(65536):
                self._other[end].sendall(said)
                return
        other = self._other.pop(end)
        del self._other[other]
        end.close()
        other.close()


@contextlib.contextmanager
def cable_to(endpoint: str) -> Iterator[Cable]:
    cable = Cable(int(endpoint.rpartition(":")[2]))
    try:
        yield cable
    finally:
        cable.close()


def test_a_client_whose_connection_is_cut_gets_its_answer_over_another(daemon: DaemonProcess, gate: Gate) -> None:
    with (
        cable_to(daemon.endpoint) as cable,
        ThreadPoolExecutor(1) as threads,
        Client(cable.endpoint, silence_s=2) as cut,
    ):
        asked = threads.submit(cut.render, gate.request(request_id="cut"))
        wait_until(lambda: gate.fetched, "the job runs")
        before = cable.connections
        cable.cut()
        gate.open()
        assert asked.result(60).frames == 4
        assert cable.connections > before


def test_both_ends_hang_up_on_a_peer_that_answers_no_ping() -> None:
    with zmq.Context() as context, contextlib.ExitStack() as stack:
        ends = [stack.enter_context(context.socket(kind)) for kind in (zmq.ROUTER, zmq.DEALER)]
        for end in ends:
            end.linger = 0
            keep_alive(end, ping_ms=50, deaf_ms=500)
        there, here = ends
        monitors = [stack.enter_context(end.get_monitor_socket(zmq.EVENT_DISCONNECTED)) for end in ends]
        there.bind("tcp://127.0.0.1:*")
        cable = stack.enter_context(cable_to(there.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")))
        here.connect(cable.endpoint)
        here.send(b"there?")
        assert there.poll(30_000)
        cable.cut()
        assert [monitor.poll(30_000) for monitor in monitors] == [zmq.POLLIN] * 2
        for end in ends:
            end.disable_monitor()


def test_the_kernel_probes_the_connections_of_both_ends(daemon: DaemonProcess) -> None:
    port = f":{int(daemon.endpoint.rpartition(':')[2]):04X}"

    def timers() -> tuple[set[str], set[str]]:
        """Return which timers run for connections of the daemon's, and for those of its clients (proc(5))."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        rows = [row for row in rows if row[3] == _ESTABLISHED]
        daemons, clients = ({row[5][:2] for row in rows if row[end].endswith(port)} for end in (1, 2))
        return daemons, clients

    with Client(daemon.endpoint) as client:
        client.health()
        wait_until(lambda: timers() == ({_PROBES_WAIT}, {_PROBES_WAIT}), "nothing but the probes is waited for")


def test_the_daemon_and_its_client_ping_each_other(tmp_path: Path) -> None:
    intake: Any = SimpleNamespace(max_images=1)
    nothing: Any = None

    async def pings() -> list[tuple[int, int, int]]:
        server = ZmqServer(ServerSettings(bind="tcp://127.0.0.1:*"), nothing, intake, CurveRing(tmp_path), nothing)
        async with AsyncClient(server.endpoints[0], timeout_s=0.001) as client:
            with pytest.raises(ClientTimeout):
                await client.health()
            ends: list[Any] = [client._connection._socket, *server._sockets]
            found = [(end.heartbeat_ivl, end.heartbeat_timeout, end.heartbeat_ttl) for end in ends]
        await server.close()
        return found

    assert asyncio.run(pings()) == [(PING_MS, DEAF_MS, DEAF_MS)] * 2
