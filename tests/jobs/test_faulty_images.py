"""Images that stop their worker: found out by name, at the price of one worker where the crash tells the thread.

The decoders are the real ones and busy with a real image of 81 megapixels; the fault is a signal that the kernel
delivers to the very thread that decodes.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from protocol.schema import Fault, RenderParams
from renderer.config import PictureSettings, RequestLimits
from renderer.errors import DecodeTimedOut
from renderer.intake import Origin, render_job
from renderer.jobs.slots.base import AttemptLost, RenderTask
from renderer.pipeline import render
from renderer.work import RenderReport
from tests.cli_process import failed, run
from tests.daemon_process import Gate, request, still
from tests.jobs.factories import SETTINGS
from tests.jobs.test_slot import Bench, bench

SIDE = 9000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are found in /proc")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A black PNG that takes about a second to decode."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    row = bytes(1 + 3 * SIDE)
    rows = b"".join([packer.compress(row) for _ in range(SIDE)]) + packer.flush()
    head = struct.pack(">2I5B", SIDE, SIDE, 8, 2, 0, 0, 0)
    path = tmp_path_factory.mktemp("slow") / "slow.png"
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(data)
    path.with_name("other.png").write_bytes(data + b"another file")
    return path


def task(*images: dict[str, object], directory: Path, **pictures: float) -> RenderTask:
    work = render_job(
        RenderParams.model_validate(request(*images)), RequestLimits(), SETTINGS.fetch, Origin(any_path=True)
    )
    settings = SETTINGS.model_copy(update={"pictures": PictureSettings(**pictures)})
    return RenderTask("a", work, directory / "a.mp4", settings)


async def inside(at: Bench, count: int = 1) -> None:
    """Wait until so many images have been inside a decoder for a while."""
    async with asyncio.timeout(30):
        while len([one for one in at.slot._worker.marks.inside() if one.since_s > 0.02]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def no_more_inside(at: Bench) -> None:
    async with asyncio.timeout(30):
        while at.slot._worker.marks.inside():  # noqa: ASYNC110 - another process says so
            await asyncio.sleep(0.002)


def busiest_thread(pid: int) -> int:
    """Of all but the first thread, the one that works now."""

    def ticks() -> dict[int, int]:
        found = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            fields = (task / "schedstat").read_text().split()
            found[int(task.name)] = int(fields[0])
        return found

    before = ticks()
    time.sleep(0.05)
    after = ticks()
    return max((after[tid] - before.get(tid, 0), tid) for tid in after if tid != pid)[1]


def signal_thread(pid: int, tid: int, number: int) -> None:
    tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
    assert ctypes.CDLL(None, use_errno=True).syscall(tgkill, pid, tid, number) == 0


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_an_image_that_crashes_its_decoder_fails_the_job_at_once_by_name(
    tmp_path: Path, slow: Path, number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            [worker] = at.processes()
            images = still(), {"url": str(slow), "frames": 1}
            attempt = asyncio.create_task(at.slot.run(task(*images, directory=tmp_path)))
            await inside(at)
            signal_thread(worker.pid, busiest_thread(worker.pid), number)
            fault = await attempt
            assert isinstance(fault, Fault)
            assert (fault.type, fault.loc, fault.retryable) == ("image_load_error", ("images", 1, "url"), False)
            assert number.name in fault.message
            await at.slot.prepare()
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


def test_of_two_images_in_decoders_the_one_whose_thread_crashes_is_named(tmp_path: Path, slow: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            [worker] = at.processes()
            images = {"url": str(slow), "frames": 1}, {"url": str(slow.with_name("other.png"))}
            attempt = asyncio.create_task(at.slot.run(task(*images, directory=tmp_path, decoding_threads=2)))
            await inside(at, 2)
            both = {one.thread: one.loc[1] for one in at.slot._worker.marks.inside()}
            signal_thread(worker.pid, busiest_thread(worker.pid), signal.SIGSEGV)
            fault = await attempt
            assert isinstance(fault, Fault)
            crashed = at.slot._worker.crashed_thread()
            assert crashed in both
            assert fault.loc == ("images", both[crashed], "url")

    asyncio.run(scenario())


def test_where_no_thread_is_named_the_image_that_crashes_when_alone_is_and_the_job_ends_once(
    tmp_path: Path, slow: Path
) -> None:
    """A process that may write no byte to a file leaves no stack, as one that dies in a library's own thread."""

    async def crashed(at: Bench, count: int) -> list[int]:
        """Crash the worker while so many images are in decoders, and return those."""
        await inside(at, count)
        [worker] = at.processes()
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, 0))
        images = [one.loc[1] for one in at.slot._worker.marks.inside()]
        signal_thread(worker.pid, busiest_thread(worker.pid), signal.SIGSEGV)
        return images

    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            images = {"url": str(slow), "frames": 1}, {"url": str(slow.with_name("other.png"))}
            attempt = asyncio.create_task(at.slot.run(task(*images, directory=tmp_path, decoding_threads=2)))
            first = at.slot._worker._pool  # which begins another process, too, before it is ended itself
            await crashed(at, 2)
            async with asyncio.timeout(60):
                while at.slot._worker._pool is first:  # noqa: ASYNC110 - another process has ended
                    await asyncio.sleep(0.002)
            [image] = await crashed(at, 1)
            fault = await attempt
            assert isinstance(fault, Fault)
            assert (fault.type, fault.loc, fault.retryable) == ("image_load_error", ("images", image, "url"), False)
            await at.slot.prepare()
            assert isinstance(await at.run(request()), RenderReport)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("number", "why"),
    [(signal.SIGKILL, "its worker was killed by SIGKILL"), (signal.SIGSEGV, "its worker was killed by SIGSEGV")],
)
def test_an_image_is_innocent_of_a_death_that_comes_from_elsewhere(
    tmp_path: Path, slow: Path, number: signal.Signals, why: str
) -> None:
    """SIGSEGV goes to the first thread, which does not decode."""

    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            [worker] = at.processes()
            attempt = asyncio.create_task(at.slot.run(task(still(), {"url": str(slow)}, directory=tmp_path)))
            await inside(at)
            signal_thread(worker.pid, worker.pid, number)
            assert await attempt == AttemptLost(why)

    asyncio.run(scenario())


def test_an_image_whose_decoder_takes_too_long_is_named_and_its_worker_ends(tmp_path: Path, slow: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            [worker] = at.processes()
            images = still(), {"url": str(slow), "frames": 1}
            late = task(*images, directory=tmp_path, decode_timeout_s=0.3)
            fault = await at.slot.run(late)
            assert isinstance(fault, Fault)
            assert (fault.type, fault.loc, fault.retryable) == ("image_load_error", ("images", 1, "url"), False)
            assert "within 0.3 s" in fault.message
            assert not worker.is_running()

    asyncio.run(scenario())


def test_of_two_slow_images_neither_is_blamed_before_it_was_alone_in_a_decoder(tmp_path: Path, slow: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            [first] = at.processes()
            images = {"url": str(slow), "frames": 1}, {"url": str(slow.with_name("other.png"))}
            late = task(*images, directory=tmp_path, decoding_threads=2, decode_timeout_s=0.3)
            fault = await at.slot.run(late)
            assert isinstance(fault, Fault)
            assert (fault.type, fault.loc) == ("image_load_error", ("images", 0, "url"))
            assert not first.is_running()

    asyncio.run(scenario())


async def stopped_in_a_decoder(at: Bench, directory: Path, slow: Path) -> psutil.Process:
    """Let a job end early while its other image is decoded, and stop the worker before that has an end as well."""
    for _ in range(20):  # on a busy machine the decoder may be the first
        [worker] = at.processes()
        with contextlib.closing(Gate(b"nonsense")) as gate:
            early = task({"url": gate.url}, {"url": str(slow)}, directory=directory, decoding_threads=2)
            attempt = asyncio.create_task(at.slot.run(early))
            await inside(at)
            gate.open()
            assert (await attempt).loc == ("images", 0, "url")
            worker.suspend()
        if at.slot._worker.marks.inside():
            return worker
        worker.resume()
    raise AssertionError("no decoder was left at work")


def test_what_a_job_that_ended_early_left_in_a_decoder_does_not_meet_the_next_job(tmp_path: Path, slow: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            left = await stopped_in_a_decoder(at, tmp_path, slow)
            assert isinstance(await at.run(request()), RenderReport)
            assert not left.is_running()


def test_a_job_that_ended_early_and_left_nothing_keeps_its_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench(tmp_path) as at:
            await at.run(request())
            workers = at.processes()
            early = task({"url": "data:,nonsense"}, still(), directory=tmp_path, decoding_threads=2)
            assert (await at.slot.run(early)).loc == ("images", 0, "url")
            await no_more_inside(at)
            assert isinstance(await at.run(request()), RenderReport)
            assert at.processes() == workers

    asyncio.run(scenario())


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_without_a_worker_a_decoder_that_takes_too_long_ends_the_job(tmp_path: Path, slow: Path, on_error: str) -> None:
    """Whatever is to become of bad images: the thread that it keeps cannot be had back."""
    late = task(still(), {"url": str(slow)}, directory=tmp_path, decode_timeout_s=0.2)
    request = late.work.request.model_copy(update={"on_error": on_error})
    late = replace(late, work=replace(late.work, request=request))
    with pytest.raises(DecodeTimedOut, match=r"images\[1\]\.url: expected an image that is decoded within 0\.2 s"):
        render(late.work, late.output, late.settings)
    assert list(tmp_path.iterdir()) == []


def test_a_render_whose_decoder_takes_too_long_ends_with_1_and_leaves_nothing(tmp_path: Path, slow: Path) -> None:
    (tmp_path / "slow.png").symlink_to(slow)
    ended = run("render", "slow.png", "-o", "a.mp4", cwd=tmp_path, STILLREEL_PICTURES__DECODE_TIMEOUT_S="0.2")
    assert failed(ended, 1).endswith(
        "slow.png: expected an image that is decoded within 0.2 s, found one that takes longer"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["slow.png"]
