"""A daemon that can open no more files: connections wait, it says so once, takes no time for them, and recovers."""

import resource
import socket
import time
from contextlib import ExitStack

import httpx
import psutil
import pytest

from tests.daemon_process import DaemonProcess, Start, request, wait_until


def port(daemon: DaemonProcess, door: str) -> int:
    if door == "metrics":
        [line] = [line for line in daemon.words().splitlines() if "metrics at http://" in line]
        return int(line.rpartition(":")[2].partition("/")[0])
    return int((daemon.http if door == "http" else daemon.endpoint).rpartition(":")[2])


@pytest.mark.parametrize("door", ["http", "zmq", "metrics"])
def test_connections_wait_where_no_more_files_can_be_opened_and_cost_nothing(start: Start, door: str) -> None:
    daemon = start("--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0", ENGINE__WORKERS=1)
    daemon.client.render(request())
    process, place = psutil.Process(daemon.child.pid), ("127.0.0.1", port(daemon, door))
    limits = resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE)
    few = process.num_fds() + 4
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (few, limits[1]))
    with ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(socket.create_connection(place))
        wait_until(lambda: "no more files can be opened" in daemon.words(), "it says so")
        before = sum(process.cpu_times()[:2])
        time.sleep(2)  # what is measured is the time that it takes meanwhile
        assert sum(process.cpu_times()[:2]) - before < 0.6
        assert daemon.words().count("no more files can be opened") == 1
        assert "Traceback" not in daemon.words()
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, limits)
    assert daemon.client.health().live
    assert httpx.get(f"{daemon.http}/livez", timeout=10).status_code == 200
    assert daemon.client.render(request(request_id="after")).frames == 2
    assert daemon.stop() == 0
