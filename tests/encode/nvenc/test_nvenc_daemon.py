"""A daemon whose workers share the sessions of a device, over the stand-in driver."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from protocol.client import Client
from protocol.errors import RemoteError
from tests.daemon_process import DaemonProcess, Gate, Start, request, still, wait_until
from tests.load import load
from tests.nvenc_standin.process import Standin

SIZE = {"width": 160, "height": 64}
StartGpu = Callable[..., DaemonProcess]


@pytest.fixture
def start_gpu(start: Start, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> StartGpu:
    """Return a function that starts a daemon over a stand-in with two sessions: start_gpu(workers, knobs, **nvenc)."""

    def begin(workers: int, knobs: dict[str, object] | None = None, **settings: object) -> DaemonProcess:
        ours = {"sessions_per_device": 2, "session_timeout_s": 60, "state_dir": standin.counted, **settings}
        for name, value in standin(**{**standin.seats(2), **(knobs or {})}).items():
            monkeypatch.setenv(name, value)
        return start("--workers", str(workers), **{f"NVENC__{name.upper()}": value for name, value in ours.items()})

    return begin


def most_open(journal: list[tuple[str, int]]) -> int:
    """Replay what happened to sessions."""
    held = most = 0
    for what, _ in journal:
        held += {"opened": 1, "closed": -1, "refused": 0}[what]
        most = max(most, held)
    return most


@pytest.mark.timeout(300)
@pytest.mark.load
def test_many_jobs_share_two_sessions(start_gpu: StartGpu, standin: Standin) -> None:
    count = load(32, 100)
    daemon = start_gpu(4)

    def render(number: int) -> Any:
        shade = 20 + 2 * number
        with Client(daemon.endpoint, timeout_s=200) as client:
            return client.render(request(still((shade, shade, shade), frames=1 + number % 7), **SIZE))

    with ThreadPoolExecutor(12) as clients:
        results = list(clients.map(render, range(count)))
    assert [result.frames for result in results] == [1 + number % 7 for number in range(count)]
    assert {(result.encoder, result.fallback_reason) for result in results} == {("nvenc", None)}
    assert daemon.client.render(request(still(frames=30), **SIZE, encoder="nvenc")).encoder == "nvenc"
    assert (daemon.client.health().encoder, daemon.client.health().encoder_reason) == ("nvenc", None)
    assert "PyNvVideoCodec" not in Path(f"/proc/{daemon.child.pid}/maps").read_text()
    assert daemon.stop() == 0
    journal = standin.journal()
    assert most_open(journal) == 2
    assert not [pid for what, pid in journal if what == "refused"]
    assert len({pid for _, pid in journal}) >= 4
    wait_until(lambda: not daemon.processes(), "no process is left")


def test_a_session_of_a_killed_worker_is_free_again(start_gpu: StartGpu, standin: Standin, gate: Gate) -> None:
    daemon = start_gpu(1, sessions_per_device=1, keep_session_s=60)
    assert daemon.client.render(request(still(frames=9), **SIZE)).encoder == "nvenc"
    assert standin.journal()[-1][0] == "opened"  # kept for the next job
    (worker,) = daemon.workers()
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: not worker.is_running() or worker.status() == "zombie", "the worker is gone")
    result = daemon.client.render(request(still(frames=5), **SIZE))
    assert (result.encoder, result.frames) == ("nvenc", 5)


def test_jobs_fall_back_when_no_session_comes_free(start_gpu: StartGpu, standin: Standin) -> None:
    daemon = start_gpu(1, {"no_encoder": 21}, session_timeout_s=0.3)
    result = daemon.client.render(request(still(frames=5), **SIZE))
    assert (result.encoder, result.frames) == ("libx264", 5)
    assert "NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY (21)" in result.fallback_reason
    assert not list(standin.counted.glob("*.failed"))


@pytest.mark.usefixtures("known")
def test_a_device_that_fails_costs_one_job_its_start(start_gpu: StartGpu, standin: Standin) -> None:
    daemon = start_gpu(2, {"fail_after": 0})
    results = [daemon.client.render(request(still(frames=5), **SIZE))]
    opened = len(standin.journal())
    results += [daemon.client.render(request(still(frames=5), **SIZE)) for _ in range(3)]
    assert {(result.encoder, result.frames) for result in results} == {("libx264", 5)}
    assert len(standin.journal()) == opened
    assert list(standin.counted.glob("*.failed"))


def test_nvenc_by_name_is_refused_at_once_with_the_probes_reason(start_gpu: StartGpu) -> None:
    daemon = start_gpu(1, {"no_encoder": 1, "name": "NVIDIA H100 PCIe"})
    with pytest.raises(
        RemoteError, match=r"has decoders but no NVENC engine: NV_ENC_ERR_UNSUPPORTED_DEVICE \(2\)"
    ) as refused:
        daemon.client.submit(request(still(), **SIZE, encoder="nvenc"))
    assert (refused.value.kind.name, refused.value.loc) == ("not_supported", ("encoder",))
    health = daemon.client.health()
    assert health.encoder == "libx264"
    assert "NV_ENC_ERR_UNSUPPORTED_DEVICE (2)" in health.encoder_reason
