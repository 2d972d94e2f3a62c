"""What the daemon does for as long as it lives goes on after a failure, or ends the daemon; it never ends unseen."""

import asyncio
import contextlib
import errno
import os
import sqlite3
import urllib.request

import pytest

from renderer.daemon import _Daemon
from renderer.errors import StoreFailed
from renderer.observe.descriptors import repeatedly
from tests.daemon_process import Start, wait_until


@pytest.mark.logs_errors
def test_work_that_fails_is_logged_and_done_again(caplog: pytest.LogCaptureFixture) -> None:
    failures = [OSError(errno.EIO, os.strerror(errno.EIO)), StoreFailed("no store"), KeyError("a bug"), None]

    async def scenario() -> None:
        done = asyncio.Event()

        async def work() -> None:
            if failure := failures.pop(0):
                raise failure
            done.set()
            await asyncio.Event().wait()

        working = asyncio.create_task(repeatedly("counting", work, 0.001))
        await done.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(scenario())
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("WARNING", "counting failed and is tried again: Input/output error"),
        ("WARNING", "counting failed and is tried again: no store"),
        ("ERROR", "counting failed and is tried again"),
    ]


@pytest.mark.logs_errors
def test_a_part_that_fails_or_ends_before_its_time_ends_the_daemon(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        raise KeyError("a bug")

    async def ends() -> None:
        pass

    async def scenario() -> None:
        daemon = _Daemon(*[None] * 5)
        with pytest.raises(KeyError):
            await daemon._lasting(fails)
        with pytest.raises(RuntimeError, match="ends has ended, and the daemon cannot go on"):
            await daemon._lasting(ends)
        daemon._drain.set()
        await daemon._lasting(ends)

    asyncio.run(scenario())
    assert "a part of the daemon failed, so the daemon stops" in caplog.text


def test_gauges_say_not_ready_while_the_store_fails_and_come_back(start: Start) -> None:
    daemon = start("--metrics", "127.0.0.1:0")
    wait_until(lambda: "metrics at http://" in daemon.words(), "the port")
    url = daemon.words().partition("metrics at ")[2].split()[0]
    shown = lambda: urllib.request.urlopen(url).read().decode().splitlines()  # noqa: E731 - reads better here
    wait_until(lambda: "stillreel_ready 1.0" in shown(), "ready")
    with contextlib.closing(sqlite3.connect(daemon.data_dir / "jobs.sqlite3", isolation_level=None)) as database:
        database.execute("ALTER TABLE jobs RENAME TO elsewhere")
        wait_until(lambda: "stillreel_ready 0.0" in shown(), "not ready")
        assert not [line for line in shown() if line.startswith("stillreel_jobs_running")]
        database.execute("ALTER TABLE elsewhere RENAME TO jobs")
    wait_until(lambda: "stillreel_ready 1.0" in shown(), "ready again")
    assert "reading the gauges failed and is tried again" in daemon.words()
