"""What libraries write to a worker's stderr: a few lines of the log, whatever a file makes them say."""

import asyncio
import logging
import os
import signal
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from renderer.jobs.slots.base import AttemptLost
from renderer.jobs.slots.said import Said
from renderer.work import RenderReport
from tests.daemon_process import Gate
from tests.jobs.test_slot import bench, fetched


def lines_of(caplog: pytest.LogCaptureFixture, job: str | None = "a") -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if getattr(record, "action", "") == "library" and record.job == job
    ]


def test_a_library_that_complains_thirty_thousand_times_fills_no_log(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            [worker] = at.processes()
            await asyncio.to_thread(Path(f"/proc/{worker.pid}/fd/2").write_bytes, b"tIME: too short\n" * 30_000)
            gate.open()
            assert isinstance(await attempt, RenderReport)
            heard = lines_of(caplog)
            assert heard[:20] == ["a library says: tIME: too short"] * 20
            assert heard[20:] == ["lines of libraries that are left out here: 29980"]

    asyncio.run(scenario())
    assert len(capfd.readouterr().err) < 5000  # a log of this process among it, of 480,000 bytes that were said
    assert lines_of(caplog, None) == []


def die_saying(pid: int, words: bytes) -> None:
    """Do to a process what glibc does that finds its heap broken."""
    Path(f"/proc/{pid}/fd/2").write_bytes(words)
    os.kill(pid, signal.SIGABRT)


def test_the_words_that_a_library_dies_with_are_told(
    tmp_path: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            [worker] = at.processes()
            die_saying(worker.pid, b"free(): invalid pointer\n")
            assert await attempt == AttemptLost("its worker was killed by SIGABRT")
            assert lines_of(caplog) == ["a library says: free(): invalid pointer"]

    asyncio.run(scenario())


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> tuple[Said, Connection]:
    caplog.set_level(logging.WARNING)
    heard, pipe = Pipe(duplex=False)
    said = Said()
    said.listen(heard)
    return said, pipe


def ended(said: Said, pipe: Connection) -> None:
    said.job(None)
    pipe.close()
    said.wait(60)


def test_a_line_without_an_end_is_cut_and_the_next_is_whole(
    told: tuple[Said, Connection], caplog: pytest.LogCaptureFixture
) -> None:
    said, pipe = told
    said.job("a")
    for _ in range(40):
        os.write(pipe.fileno(), b"x" * 50_000)
    os.write(pipe.fileno(), b"\nnext\nlast")
    ended(said, pipe)
    assert lines_of(caplog) == [f"a library says: {words}" for words in ("x" * 300, "next", "last")]


def test_lines_belong_to_the_job_that_ran_when_they_were_written(
    told: tuple[Said, Connection], caplog: pytest.LogCaptureFixture
) -> None:
    said, pipe = told
    for job in ("a", "b", "a"):
        said.job(job)
        os.write(pipe.fileno(), f"of {job}\n".encode() * 21)
    ended(said, pipe)
    tail = ["lines of libraries that are left out here: 1"]
    assert lines_of(caplog, "b") == ["a library says: of b"] * 20 + tail
    assert lines_of(caplog, "a") == (["a library says: of a"] * 20 + tail) * 2


def test_a_worker_that_is_gone_is_waited_for_no_longer_than_was_said(told: tuple[Said, Connection]) -> None:
    said, pipe = told
    began = time.monotonic()
    said.wait(0.05)  # a process that the worker has begun still has the pipe
    assert time.monotonic() - began < 30
    ended(said, pipe)
