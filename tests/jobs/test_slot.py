"""One attempt in one worker process, and the ways in which it may end."""

import asyncio
import base64
import contextlib
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import psutil
import pytest

from protocol.schema import Fault
from renderer.config import EncodeSettings, EngineSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.jobs.slots.base import AttemptLost, RenderTask
from renderer.jobs.slots.local import LocalSlot
from renderer.observe.prometheus import PrometheusMetrics
from renderer.work import RenderReport
from tests.daemon_process import Gate, request
from tests.jobs.factories import SETTINGS, make_work
from tests.pictures.matrix import exr_file, named


class Bench:
    """A slot on its own."""

    def __init__(self, slot: LocalSlot, directory: Path, metrics: PrometheusMetrics) -> None:
        self.slot = slot
        self.metrics = metrics
        self._directory = directory

    def run(self, fields: dict[str, Any]) -> asyncio.Task[RenderReport | Fault | AttemptLost]:
        task = RenderTask("a", make_work(fields), self._directory / "a.mp4", SETTINGS)
        return asyncio.create_task(self.slot.run(task))

    def processes(self) -> list[psutil.Process]:
        manager = self.slot._worker._pool._pool_manager.worker_manager
        return [psutil.Process(pid) for pid in manager.workers if psutil.pid_exists(pid)]


@contextlib.asynccontextmanager
async def bench(directory: Path, **settings: Any) -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="sr-") as scratch:
        metrics = PrometheusMetrics()
        slot = LocalSlot(EngineSettings(**settings), f"{scratch}/progress", metrics=metrics)
        try:
            await slot.prepare()
            yield Bench(slot, directory, metrics)
        finally:
            await asyncio.to_thread(slot.close)
            assert slot._worker.is_broken


async def fetched(gate: Gate, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while gate.fetched < times:  # noqa: ASYNC110 - the gate is in another thread
            await asyncio.sleep(0.01)


def test_an_attempt_ends_in_a_report_or_a_fault_and_the_worker_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            assert (await at.run(request())).facts.frames == 2
            before = at.processes()
            fault = await at.run(request({"url": "data:,nonsense"}))
            assert (fault.type, fault.loc) == ("unsupported_image_format", ("images", 0, "url"))
            assert (await at.run(request())).facts.frames == 2
            await at.slot.prepare()
            assert at.processes() == before

    asyncio.run(scenario())


def test_a_worker_that_keeps_much_of_what_its_jobs_took_is_replaced_between_them(tmp_path: Path) -> None:
    """By damaged pictures, of which OpenEXR's library never gives back the rows that it was asked for."""
    whole = exr_file(named(np.zeros((64, 20_000, 3), np.float16)), compression=OpenEXR.ZIP_COMPRESSION)
    damaged = [whole[:-40] + bytes([0x55] * 40 + [number]) for number in range(12)]
    urls = [f"data:image/x-exr;base64,{base64.b64encode(data).decode()}" for data in damaged]

    async def scenario() -> None:
        async with bench(tmp_path, worker_memory_bytes=256 << 20) as at:
            before = at.processes()
            fault = await at.run(request(*({"url": url, "frames": 1} for url in urls)))
            assert (fault.type, fault.loc) == ("image_load_error", ("images", 0, "url"))
            assert at.processes() == before
            await at.slot.prepare()
            assert not before[0].is_running()
            assert isinstance(await at.run(request()), RenderReport)
            counted = at.metrics.registry.get_sample_value("stillreel_worker_restarts_total", {"reason": "grown"})
            assert counted == 1

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (signal.SIGKILL, "its worker was killed by SIGKILL"),
        (signal.SIGBUS, "its worker was killed by SIGBUS"),
        (signal.SIGRTMIN + 3, "its worker was killed by signal 37"),
    ],
)
def test_a_death_is_told_by_its_signal(tmp_path: Path, gate: Gate, number: int, why: str) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            for process in at.processes():
                process.send_signal(number)
            assert await attempt == AttemptLost(why)

    asyncio.run(scenario())


def test_a_verdict_is_returned_when_the_process_is_gone(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            [process] = at.processes()
            verdict = Fault(type="client_cancelled", message="enough")
            at.slot.stop(verdict)
            at.slot.stop(AttemptLost("too late"))
            assert await attempt == verdict
            assert not process.is_running()

    asyncio.run(scenario())


def test_a_verdict_concerns_the_attempt_that_runs_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            at.slot.stop(Fault(type="client_cancelled", message="enough"))
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


def test_a_job_that_its_dead_pool_has_missed_is_given_to_another_worker(tmp_path: Path, gate: Gate) -> None:
    """Pebble gives up between taking the job and looking at it: no answer would ever come."""

    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            at.slot._worker._pool.stop()
            await fetched(gate, 2)
            gate.open()
            assert isinstance(await attempt, RenderReport)

    asyncio.run(scenario())


def test_a_verdict_while_a_worker_is_replaced_is_heeded(tmp_path: Path, gate: Gate) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = at.run(gate.request())
            await fetched(gate)
            at.slot._worker._pool.stop()
            while at.slot._attempt is not None:  # noqa: ASYNC110 - the moment is short
                await asyncio.sleep(0)
            at.slot.stop(AttemptLost("the daemon stopped", "drain"))
            assert await attempt == AttemptLost("the daemon stopped", "drain")
            assert gate.fetched == 1

    asyncio.run(scenario())


def test_a_verdict_at_the_end_of_a_replacement_is_heeded(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await asyncio.to_thread(at.slot._worker.stop)
            prepare, verdict = at.slot.prepare, AttemptLost("the daemon stopped", "drain")

            async def prepared() -> None:
                await prepare()
                at.slot.stop(verdict)

            at.slot.prepare = prepared
            assert await at.run(request()) == verdict

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("kills", "verdict"),
    [(1, None), (9, "the self-test of held pictures failed: its worker was killed by SIGKILL")],
    ids=["once", "always"],
)
def test_a_worker_that_is_killed_in_the_self_test_has_shown_nothing(
    tmp_path: Path, kills: int, verdict: str | None
) -> None:
    killed, ffmpeg = tmp_path / "killed", tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f"#!/bin/sh\necho >> {killed}\n"
        f"[ $(wc -l < {killed}) -gt {kills} ] || kill -9 $PPID\n"
        f'exec {find_ffmpeg(EncodeSettings())} "$@"\n'
    )
    ffmpeg.chmod(0o755)

    async def scenario() -> None:
        async with bench(tmp_path, attempts=2) as at:
            assert await at.slot.held_pictures_refusal(EncodeSettings(ffmpeg=str(ffmpeg))) == verdict
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("stops", "verdict"),
    [(1, None), (9, "the self-test of held pictures failed: its worker stopped working")],
    ids=["once", "always"],
)
def test_a_worker_that_is_stopped_in_the_self_test_holds_nobody_up_for_long(
    tmp_path: Path, stops: int, verdict: str | None
) -> None:
    stopped, ffmpeg = tmp_path / "stopped", tmp_path / "ffmpeg"
    ffmpeg.write_text(
        f"#!/bin/sh\necho >> {stopped}\n"
        f"[ $(wc -l < {stopped}) -gt {stops} ] || kill -STOP $PPID\n"
        f'exec {find_ffmpeg(EncodeSettings())} "$@"\n'
    )
    ffmpeg.chmod(0o755)
    settings = EncodeSettings(ffmpeg=str(ffmpeg), probe_timeout_s=1)

    async def scenario() -> None:
        async with bench(tmp_path, attempts=2) as at, asyncio.timeout(60):
            assert await at.slot.held_pictures_refusal(settings) == verdict
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


def test_a_worker_begins_though_the_current_directory_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()

    async def scenario() -> None:
        async with asyncio.timeout(60), bench(tmp_path) as at:
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


def test_a_closed_worker_starts_no_other_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            at.slot.close()
            at.slot._worker.restart()
            assert at.slot._worker.is_broken
            assert at.processes() == []

    asyncio.run(scenario())


def test_a_killed_worker_leaves_no_encoder_though_that_would_go_on(tmp_path: Path) -> None:
    """In place of ffmpeg a program that goes on without its input, as ffmpeg does with the frames that it has taken."""
    program, note = tmp_path / "ffmpeg", tmp_path / "note"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $$ $! > {note}.new\nmv {note}.new {note}\nwait\n")
    program.chmod(0o755)
    encode = SETTINGS.encode.model_copy(update={"ffmpeg": str(program)})
    task = RenderTask("a", make_work(request()), tmp_path / "a.mp4", SETTINGS.model_copy(update={"encode": encode}))

    async def scenario() -> None:
        async with bench(tmp_path) as at:
            attempt = asyncio.create_task(at.slot.run(task))
            async with asyncio.timeout(20):
                while not await asyncio.to_thread(note.exists):  # noqa: ASYNC110 - written by a process
                    await asyncio.sleep(0.01)
            encoders = [psutil.Process(int(pid)) for pid in (await asyncio.to_thread(note.read_text)).split()]
            [worker] = at.processes()
            assert oom_score(worker) >= 300
            assert oom_score(encoders[0]) >= 500
            worker.kill()
            assert await attempt == AttemptLost("its worker was killed by SIGKILL")
            await asyncio.to_thread(wait_until_dead, encoders)

    asyncio.run(scenario())


def oom_score(process: psutil.Process) -> int:
    return int(Path(f"/proc/{process.pid}/oom_score_adj").read_text())


def wait_until_dead(processes: list[psutil.Process]) -> None:
    """One that is dead may stay a zombie for as long as its new parent pleases."""
    ends = time.monotonic() + 45
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes):
        assert time.monotonic() < ends
        time.sleep(0.01)
