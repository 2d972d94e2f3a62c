"""What clients may rely on over a job's life, asked of a real daemon."""

import asyncio
import time

import pytest

from protocol.client import AsyncClient
from protocol.errors import RemoteError
from protocol.schema import JobStatus, Rendered
from tests.daemon_process import DaemonProcess, Gate, Start, request, still, wait_until


def refused(caught: pytest.ExceptionInfo[RemoteError]) -> tuple[str, bool]:
    return caught.value.kind.name, caught.value.kind.retryable


def test_the_same_request_asked_again_is_rendered_once(daemon: DaemonProcess) -> None:
    asked = request(request_id="once", metadata={"a": 1})
    first, second = daemon.client.render(asked), daemon.client.render(asked)
    assert first == second
    assert daemon.client.submit(asked).status == "COMPLETED"
    assert daemon.words().count("job=once accepted") == 1


def test_the_same_request_with_attachments_asked_again_leaves_no_second_copy(daemon: DaemonProcess, gate: Gate) -> None:
    asked = request({"url": "cid:0"}, {"url": gate.url}, request_id="copies")
    picture = b"P6 1 1 255\n abc"
    for _ in range(3):
        daemon.client.submit(asked, [picture])
    assert daemon.files() == ["0"]
    with pytest.raises(RemoteError) as caught:
        daemon.client.submit(asked, [picture + b" "])
    assert refused(caught) == ("request_id_conflict", False)
    daemon.client.cancel("copies")
    wait_until(lambda: daemon.files() == [], "no attachment stays")


def test_another_request_under_the_same_id_is_refused(daemon: DaemonProcess) -> None:
    daemon.client.render(request(request_id="taken"))
    with pytest.raises(RemoteError) as caught:
        daemon.client.render(request(request_id="taken", fps=25))
    assert (*refused(caught), caught.value.loc) == ("request_id_conflict", False, ("request_id",))


def test_fifty_clients_that_ask_for_one_job_at_once_get_the_same_result(daemon: DaemonProcess) -> None:
    async def ask_once() -> Rendered:
        async with AsyncClient(daemon.endpoint, timeout_s=30) as client:
            return await client.render(request(request_id="crowd"))

    async def ask_all() -> list[Rendered]:
        return await asyncio.gather(*(ask_once() for _ in range(50)))

    results = asyncio.run(ask_all())
    assert all(result == results[0] for result in results)
    assert daemon.words().count("job=crowd accepted") == 1


def test_twenty_clients_at_once_get_their_own_videos(daemon: DaemonProcess) -> None:
    async def ask_once(frames: int) -> int:
        async with AsyncClient(daemon.endpoint, timeout_s=30) as client:
            accepted = await client.submit(request(still(frames=frames)))
            return (await client.wait(accepted.request_id)).frames

    async def ask_all() -> list[int]:
        return await asyncio.gather(*(ask_once(frames) for frames in range(1, 21)))

    assert asyncio.run(ask_all()) == list(range(1, 21))


def test_progress_comes_at_once_and_tells_images_and_stage(daemon: DaemonProcess, gate: Gate) -> None:
    heard: list[JobStatus] = []

    def hear(status: JobStatus) -> None:
        heard.append(status)
        if status.progress.stage == "rendering":
            gate.open()

    daemon.client.render(gate.request(request_id="heard"), progress=hear)  # which needs its words to go on
    assert heard[0].request_id == "heard"
    assert (heard[0].progress.images, heard[0].progress.frames) == (2, 4)
    assert heard[0].progress.stage in {"queued", "rendering"}  # a worker may have it before the answer is on disk
    assert "rendering" in {status.progress.stage for status in heard}
    last = daemon.client.status("heard")
    assert (last.progress.images_done, last.progress.stage) == (2, "done")


def test_a_job_is_followed_by_status_result_and_jobs(daemon: DaemonProcess, gate: Gate) -> None:
    client = daemon.client
    client.submit(gate.request(request_id="followed"))
    daemon.wait_for("followed")
    with pytest.raises(RemoteError) as caught:
        client.result("followed")
    assert refused(caught) == ("still_in_progress", True)
    assert client.health().jobs_running == 1
    gate.open()
    assert client.wait("followed").frames == 4
    assert client.result("followed").request_id == "followed"
    known = {job.request_id: job.status for job in client.jobs()}
    assert known["followed"] == "COMPLETED"
    assert client.cancel("followed").error is None
    assert client.health().jobs_running == 0


@pytest.mark.parametrize("method", ["status", "result", "cancel"])
def test_an_unknown_id_is_not_found(daemon: DaemonProcess, method: str) -> None:
    with pytest.raises(RemoteError) as caught:
        getattr(daemon.client, method)("nobody")
    assert refused(caught) == ("not_found", False)


def test_a_queued_job_is_cancelled_without_having_run(daemon: DaemonProcess, gate: Gate) -> None:
    client = daemon.client
    client.submit(gate.request(request_id="before"))
    daemon.wait_for("before")
    assert client.submit(request(request_id="waiting")).queue_position == 0
    cancelled = client.cancel("waiting")
    assert (cancelled.status, cancelled.error and cancelled.error.type) == ("COMPLETED", "client_cancelled")
    with pytest.raises(RemoteError) as caught:
        client.result("waiting")
    assert refused(caught) == ("client_cancelled", False)
    gate.open()
    client.wait("before")
    assert not (daemon.data_dir / "outputs" / "waiting").exists()


def test_a_running_job_that_is_cancelled_ends_at_once_and_leaves_nothing(daemon: DaemonProcess, gate: Gate) -> None:
    client = daemon.client
    client.submit(gate.request(request_id="stopped"))
    wait_until(daemon.encoders, "the encoder runs")
    began = time.monotonic()
    client.cancel("stopped")
    daemon.wait_for("stopped", "COMPLETED")
    wait_until(lambda: not daemon.encoders(), "the encoder is gone")
    assert time.monotonic() - began < 30  # the picture would not come for a minute
    assert not (daemon.data_dir / "outputs" / "stopped").exists()
    assert daemon.files() == []
    assert client.render(request()).frames == 2


def test_an_encoder_with_much_left_to_do_is_ended_with_its_job(daemon: DaemonProcess, gate: Gate) -> None:
    """x264 at its slowest holds 60 frames back, and ffmpeg whose input ends encodes them all before it does."""
    busy = [still((20 * shade, 0, 0), frames=5) for shade in range(12)]
    asked = request(*busy, {"url": gate.url}, request_id="busy", preset="veryslow") | {"width": 1920, "height": 1080}
    daemon.client.submit(asked)
    wait_until(lambda: daemon.client.status("busy").progress.images_done >= 8, "the encoder has much to do")
    daemon.client.cancel("busy")
    daemon.wait_for("busy", "COMPLETED")
    assert daemon.encoders() == []


def test_a_full_queue_refuses_at_once(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", ENGINE__WORKERS=1, ENGINE__MAX_QUEUED=1)
    daemon.client.submit(gate.request(request_id="running"))
    daemon.wait_for("running")
    daemon.client.submit(request(request_id="waiting"))
    began = time.monotonic()
    with pytest.raises(RemoteError) as caught:
        daemon.client.submit(request(request_id="surplus"))
    assert time.monotonic() - began < 30
    assert refused(caught) == ("queue_full", True)
    gate.open()
    assert daemon.client.wait("waiting").frames == 2
    assert daemon.client.render(request(request_id="surplus")).frames == 2


def test_low_priority_runs_after_normal_jobs_that_came_later(start: Start, gate: Gate) -> None:
    daemon = start("--allow-http", ENGINE__WORKERS=1)
    daemon.client.submit(gate.request(request_id="first"))
    daemon.wait_for("first")
    daemon.client.submit(request(request_id="low", priority="low"))
    assert daemon.client.submit(request(request_id="normal")).queue_position == 0
    assert daemon.client.status("low").queue_position == 1
    gate.open()
    daemon.wait_for("low", "COMPLETED")
    words = daemon.words()
    assert words.index("job=normal done") < words.index("job=low done")
