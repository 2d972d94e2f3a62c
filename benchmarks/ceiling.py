"""How many slots one daemon's loop keeps busy: slots that sleep stand in for nodes, and do nothing else.

The engine, its queue and its store are the real ones, on the disk that TMPDIR names, with the log of a daemon. Jobs
come in as fast as they are taken, a few per slot ahead. A slot is busy while its attempt sleeps; the time in which it
waits for the loop is what is lost.
"""

import asyncio
import json
import logging
import sqlite3
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import zmq

from benchmarks.results import Fed
from protocol.schema import Fault, Progress, RenderParams
from renderer.config import EncodeSettings, EngineSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.intake import render_job
from renderer.jobs.engine import Engine
from renderer.jobs.job import Submission
from renderer.jobs.outcome import Places
from renderer.jobs.slots.base import Ending, RenderTask
from renderer.jobs.slots.progress import ProgressSender
from renderer.jobs.store import JobStore
from renderer.observe import logs
from renderer.observe.job_log import JobLogs, below
from renderer.work import RenderReport, VideoFacts

_AHEAD = 2  # jobs that wait for each slot
_REPORTS_S = 0.25  # between two reports of progress, as a node sends them
_STILL = "data:image/x-portable-graymap;base64,UDUgMiAyIDI1NQqAgICA"
_REQUEST = {"images": [{"url": _STILL, "frames": 2}], "width": 64, "height": 48}


class _Sleeper:
    """A slot whose attempts take their time and no processor."""

    node, encoder = "", None

    def __init__(self, progress_address: str, job_s: float) -> None:
        self.busy_s = 0.0
        self.begun = self.ended = 0
        self._job_s = job_s
        self._report = ProgressSender(progress_address)

    async def prepare(self) -> None:
        pass

    async def lost(self) -> None:
        await asyncio.Event().wait()

    async def held_pictures_refusal(self, _: EncodeSettings) -> str | None:
        return None

    async def run(self, task: RenderTask) -> Ending:
        self.begun += 1
        ends_at = time.perf_counter() + self._job_s
        while (left_s := ends_at - time.perf_counter()) > 0:
            await asyncio.sleep(min(_REPORTS_S, left_s))
            self._report(task.job_id, Progress(images=1, frames=2, stage="rendering"))
        size_bytes = task.output.write_bytes(b"a video")
        self.busy_s += self._job_s
        self.ended += 1
        facts = VideoFacts(64, 48, 2, Fraction(24), Fraction(1, 12), size_bytes)
        return RenderReport(facts, "libx264", None, None, {"total": self._job_s})

    def stop(self, verdict: Ending | Fault) -> None:
        pass

    def heard(self) -> None:
        pass

    def close(self) -> None:
        self._report.close()


def measure_ceiling(slots: int, job_s: float, seconds: float, say: Callable[[str], None] = lambda _: None) -> Fed:
    """Measure what share of the time so many slots are busy with jobs of this length."""
    say(f"{slots} slots with jobs of {job_s:g} s")
    with tempfile.TemporaryDirectory(prefix="sr-") as name, (Path(name) / "log").open("w") as words:
        logs.configure(logging.INFO, stderr=words)
        return asyncio.run(_measured(Path(name), slots, job_s, seconds))


def measure_floor(jobs: int = 3000) -> float:
    """Measure the least processor time that a job can take, in ms: checked, written down once, asked for and answered.

    That is pydantic, a transaction of SQLite in memory, and a message of ZeroMQ there and back, with nothing around.
    """
    request = json.dumps(_REQUEST)
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute("CREATE TABLE jobs (number INTEGER PRIMARY KEY, job TEXT)")
    with zmq.Context() as context, context.socket(zmq.REP) as server, context.socket(zmq.REQ) as client:
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        used_s = time.process_time()
        for _ in range(jobs):
            client.send_string(request)
            document = server.recv()
            RenderParams.model_validate(json.loads(document))
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO jobs (job) VALUES (?)", (document,))
            database.execute("COMMIT")
            server.send(document)
            client.recv()
        used_s = time.process_time() - used_s
    database.close()
    return round(1000 * used_s / jobs, 3)


async def _measured(directory: Path, slots: int, job_s: float, seconds: float) -> Fed:
    places = Places(directory / "outputs", directory / "attachments", directory / "logs", directory)
    for place in (places.outputs, places.attachments, places.logs):
        place.mkdir()
    opened: list[_Sleeper] = []

    def open_slot(address: str) -> _Sleeper:
        opened.append(_Sleeper(address, job_s))
        return opened[-1]

    settings = EngineSettings(workers=slots, max_queued=_AHEAD * slots + slots)
    store = JobStore(directory / "jobs.sqlite3")
    with JobLogs(below(places.logs)):
        engine = Engine(settings, RenderSettings(), store, places, open_slot)
        engine.recover()
        running, feeding = asyncio.create_task(engine.run()), asyncio.create_task(_feed(engine, opened, slots))
        await asyncio.sleep(2 * job_s + 1)  # until all have begun, and the first have ended
        busy_s, ended = sum(slot.busy_s for slot in opened), sum(slot.ended for slot in opened)
        began, cpu_s = time.perf_counter(), time.process_time()
        await asyncio.sleep(max(seconds, 4 * job_s))
        took_s = time.perf_counter() - began
        share = (sum(slot.busy_s for slot in opened) - busy_s) / (took_s * slots)
        jobs = sum(slot.ended for slot in opened) - ended
        used_s = time.process_time() - cpu_s
        for task in (feeding, running):
            task.cancel()
        await asyncio.wait([feeding, running])
    store.close()
    return Fed(
        slots=slots,
        job_s=job_s,
        busy_share=round(share, 4),
        jobs_per_s=round(jobs / took_s, 2),
        loop_cpu_share=round(used_s / took_s, 4),
        cpu_ms_per_job=round(1000 * used_s / max(1, jobs), 3),
    )


async def _feed(engine: Engine, opened: list[_Sleeper], slots: int) -> None:
    """Submit a job whenever fewer wait than are wanted ahead."""
    work = render_job(RenderParams.model_validate(_REQUEST), RequestLimits(), FetchSettings())
    number = 0
    while True:
        room = _AHEAD * slots - number + sum(slot.begun for slot in opened)
        for _ in range(room):
            number += 1
            engine.submit(Submission(f"job-{number}", "zmq:00", f"digest {number}", work))
            if number % 20 == 0:
                await asyncio.sleep(0)
        await asyncio.sleep(0.005)
