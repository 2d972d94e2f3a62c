"""Jobs from several clients while the daemon and its workers are killed at random, again and again.

A longer run by hand: CHAOS_JOBS=3000 CHAOS_KILLS=200 CHAOS_SEED=7 .venv/bin/python -m pytest -s tests/test_chaos.py
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import av
import psutil
import pytest

from protocol.client import AsyncClient
from protocol.client import Client as PlainClient
from protocol.errors import RemoteError
from protocol.schema import Rendered
from renderer.jobs.job import own_id
from tests.curve_keys import curve_file
from tests.daemon_process import DaemonProcess, Start, request, still, wait_until
from tests.load import load

JOBS = int(os.environ.get("CHAOS_JOBS", load(12, 300)))
KILLS = int(os.environ.get("CHAOS_KILLS", load(3, 40)))
SEED = int(os.environ.get("CHAOS_SEED", str(random.randrange(10**6))))
CLIENTS = 6
AT_ONCE = 10  # jobs of one client that wait at the same time

Outcome = Rendered | RemoteError


def colour_of(number: int) -> tuple[int, int, int]:
    """A colour for each job, so far apart that coding cannot mix them up."""
    return 24 + number % 7 * 34, 24 + number // 7 % 7 * 34, 24 + number // 49 % 7 * 34


def frames_of(number: int) -> int:
    return 2 + number % 23


def job(number: int) -> dict[str, object]:
    # Ten stills: long enough that many are killed in the middle.
    stills = [still((1 + index, 2, 3), frames=1, size=(320, 240)) for index in range(9)]
    last = still(colour_of(number), frames=frames_of(number), size=(320, 240))
    return request(*stills, last, request_id=f"chaos-{number}", crf=12) | {"width": 320, "height": 240}


class Client(threading.Thread):
    """A program with a connection of its own, that wants its share of the jobs done and never gives up by itself."""

    def __init__(self, endpoint: str, curve: Path | None, numbers: list[int]) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._curve = curve
        self._numbers = numbers
        self.outcomes: dict[int, Outcome] = {}
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.failure = error

    async def _ask_all(self) -> None:
        limit = asyncio.Semaphore(AT_ONCE)
        async with (
            AsyncClient(self._endpoint, curve=self._curve, connect_timeout_s=120, silence_s=1) as client,
            asyncio.TaskGroup() as asking,
        ):
            for number in self._numbers:
                asking.create_task(self._ask(client, number, limit))

    async def _ask(self, client: AsyncClient, number: int, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                if number % 3:
                    self.outcomes[number] = await client.render(job(number))
                else:
                    await client.submit(job(number))
                    self.outcomes[number] = await client.wait(f"chaos-{number}")
            except RemoteError as error:
                self.outcomes[number] = error


class Killer:
    """Keeps a daemon running, and kills it, or one of its workers, at random moments."""

    def __init__(self, first: DaemonProcess, start: Callable[[], DaemonProcess], dice: random.Random) -> None:
        self._start = start
        self._dice = dice
        self.daemons = [first]
        self.kills = {"daemon": 0, "worker": 0}

    @property
    def daemon(self) -> DaemonProcess:
        return self.daemons[-1]

    def kill_one(self) -> None:
        time.sleep(self._dice.uniform(0.05, 1.2))
        workers = self.daemon.workers()
        if workers and self._dice.random() < 0.5:
            with contextlib.suppress(psutil.Error):
                self._dice.choice(workers).kill()
            self.kills["worker"] += 1
            return
        self.daemon.signal(signal.SIGKILL)
        self.daemon.child.wait()
        self.kills["daemon"] += 1
        self.daemons.append(self._start())


@pytest.mark.load
@pytest.mark.timeout(max(180, 4 * KILLS + 2 * JOBS))
def test_every_accepted_job_ends_once_whatever_is_killed(start: Start, tmp_path: Path) -> None:
    print(f"CHAOS_SEED={SEED}")  # noqa: T201 - shown where the test fails
    settings = {"ENGINE__WORKERS": 2, "ENGINE__RETRY_PAUSE_S": 0.1, "ENGINE__MAX_QUEUED": JOBS}
    curve = curve_file(tmp_path / "data", "chaos")
    first = start("--local", "tcp://127.0.0.1:*", **settings)
    keyed, plain = first.ready_line.partition(" ready on ")[2].split(", ")
    killer = Killer(first, lambda: start("--local", plain, bind=keyed, **settings), random.Random(SEED))
    # A store that knows no job may be the part that was lost, and attachments beside it stay. So it is to know one
    # first: else what a killed daemon was writing is there in the end, if none but the last lives to store a job.
    with PlainClient(plain, timeout_s=60) as client:
        client.render(job(1))
    doors = [(keyed, curve), (plain, None)]  # half of the clients at each
    clients = [Client(*doors[index % 2], list(range(JOBS))[index::CLIENTS]) for index in range(CLIENTS)]
    for each in clients:
        each.start()
    for _ in range(KILLS):
        killer.kill_one()
    for each in clients:
        each.join()
        assert each.failure is None
    outcomes = {number: outcome for each in clients for number, outcome in each.outcomes.items()}
    assert sorted(outcomes) == list(range(JOBS))
    lost = [outcome for outcome in outcomes.values() if isinstance(outcome, RemoteError)]
    print(f"kills {killer.kills}, failed {len(lost)}")  # noqa: T201 - as above
    for error in lost:
        assert error.kind.name == "internal_error"
        assert "in the last of 3 attempts" in error.message
    for number, outcome in outcomes.items():
        if isinstance(outcome, Rendered):
            check_video(number, outcome)
    assert killer.daemon.stop() == 0
    done = [number for number, outcome in outcomes.items() if isinstance(outcome, Rendered)]
    check_nothing_is_left(
        killer.daemons, {own_id("" if number % 2 else "curve.chaos", f"chaos-{number}") for number in done}
    )


def check_video(number: int, made: Rendered) -> None:
    """The video is this job's and no other's, and whole."""
    assert made.request_id == f"chaos-{number}"
    with av.open(unquote(urlsplit(made.video.url).path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == made.frames == 9 + frames_of(number)
    red, green, blue = (int(value) for value in frames[-1].to_ndarray(format="rgb24")[120, 160])
    assert all(abs(found - asked) <= 8 for found, asked in zip((red, green, blue), colour_of(number), strict=True))


def check_nothing_is_left(daemons: list[DaemonProcess], done: set[str]) -> None:
    wait_until(lambda: not [process for daemon in daemons for process in daemon.processes()], "no process is left")
    for daemon in daemons:
        assert list(daemon.temporary.iterdir()) == []
    data_dir = daemons[0].data_dir
    left = {path.name: path.stat().st_mtime for path in (data_dir / "attachments").iterdir()}
    with contextlib.closing(sqlite3.connect(data_dir / "jobs.sqlite3")) as database:
        jobs = database.execute("SELECT id, state, CAST(files AS TEXT), job ->> 'accepted_at' FROM jobs").fetchall()
    owners = [row for row in jobs if row[2] and Path(row[2]).name in left]
    assert not left, f"left {left}, of jobs {owners}; logs begun {[daemon.log.stat().st_ctime for daemon in daemons]}"
    assert list((data_dir / "scratch").iterdir()) == []
    assert {directory.name for directory in (data_dir / "outputs").iterdir()} == done
    assert {file.name for file in (data_dir / "outputs").glob("*/*")} == {"video.mp4"}
    with contextlib.closing(sqlite3.connect(data_dir / "jobs.sqlite3")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        states = dict(database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall())
    assert sum(states.values()) == JOBS
    assert states["done"] == len(done)
