"""A daemon that can open no more files: connections wait and cost nothing; the log says when it begins and ends."""

import resource
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.daemon_process import DaemonProcess, Gate, Start, request, wait_until
from tests.manifest_directory import put


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
        with suppress(ConnectionRefusedError):  # ZeroMQ's door is shut meanwhile, sooner or later
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
    assert httpx.get(f"{daemon.http}/livez", timeout=60).status_code == 200
    assert daemon.client.render(request(request_id="after")).frames == 2
    assert daemon.stop() == 0


def test_a_job_that_ends_where_no_file_can_be_opened_leaves_the_daemon_alive(start: Start, gate: Gate) -> None:
    daemon = start(ENGINE__WORKERS=1)
    daemon.client.submit(gate.request(request_id="caught"))
    daemon.wait_for("caught")
    limits = resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # of which all are in use
    daemon.client.cancel("caught")
    wait_until(lambda: not daemon.encoders(), "the attempt has ended")
    time.sleep(1)  # in which its worker is looked at, and another is wanted
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, limits)
    assert daemon.client.render(request(request_id="after")).frames == 2
    assert daemon.stop() == 0


def test_what_is_done_now_and_then_does_not_say_anew_that_no_file_can_be_opened(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    daemon = start("--http", "127.0.0.1:0", "--spool", spool, ENGINE__WORKERS=1, SPOOL__RESCAN_S=0.3)
    put(spool, "before", request())
    wait_until((spool / "done" / "before" / "video.mp4").exists, "all parts of it run")
    assert httpx.get(f"{daemon.http}/livez", timeout=60).status_code == 200
    limits = resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # of which all are in use
    wait_until(lambda: "no more files can be opened" in daemon.words(), "it says so")
    for _ in range(3):
        daemon.signal(signal.SIGCHLD)  # upon which it looks for what workers have left
        time.sleep(0.4)  # the manifest directory is looked at meanwhile
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: "files can be opened again" in daemon.words(), "it says that, too")
    words = daemon.words()
    assert (words.count("no more files"), words.count("opened again")) == (1, 1)
    assert not [line for line in words.splitlines() if "Too many open files" in line or "Traceback" in line]
    put(spool, "after", request())
    wait_until((spool / "done" / "after" / "video.mp4").exists, "it works again")
