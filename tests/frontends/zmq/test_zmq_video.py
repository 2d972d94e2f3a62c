"""Videos that are fetched over ZeroMQ, part by part, from a real daemon."""

import asyncio
import random
from pathlib import Path

import pytest

from protocol.client import AsyncClient, Client
from protocol.connection import Connection
from protocol.errors import RemoteError
from protocol.patience import Patience
from protocol.wire import Answer
from tests.daemon_process import DaemonProcess, Gate, request

SIZE = (640, 480)
MOST_IN_ONE_MESSAGE = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def noisy(daemon: DaemonProcess, roots: Path) -> tuple[str, Path]:
    """A job with a video of several parts: stills of noise without loss; and where the daemon keeps it."""
    chance = random.Random(1)
    images = []
    for number in range(4):
        path = roots / f"noise{number}.ppm"
        path.write_bytes(b"P6 %d %d 255\n" % SIZE + chance.randbytes(3 * SIZE[0] * SIZE[1]))
        images.append({"url": str(path), "frames": 1})
    with Client(daemon.endpoint, connect_timeout_s=60) as client:  # a new daemon on a busy machine is slow at first
        done = client.render({"images": images, "crf": 0, "request_id": "noisy"})
    return "noisy", Path(done.video.url.removeprefix("file://"))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def asked(daemon: DaemonProcess, **params: object) -> Answer:
    async def ask() -> Answer:
        connection = Connection(daemon.endpoint)
        try:
            return await connection.ask("video", params, Patience(20, 5, 5, 20))
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_video_of_several_parts_arrives_as_it_is(daemon: DaemonProcess, noisy: tuple[str, Path]) -> None:
    request_id, kept = noisy
    parts = list(daemon.client.video(request_id))
    assert b"".join(parts) == kept.read_bytes()
    assert len(parts) > 1
    assert max(map(len, parts)) <= MOST_IN_ONE_MESSAGE


def test_a_download_leaves_the_file_and_nothing_else(
    daemon: DaemonProcess, noisy: tuple[str, Path], tmp_path: Path
) -> None:
    request_id, kept = noisy
    (tmp_path / "link.mp4").symlink_to("out.mp4")
    daemon.client.download(request_id, tmp_path / "link.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == kept.read_bytes()
    assert names(tmp_path) == ["link.mp4", "out.mp4"]
    assert (tmp_path / "link.mp4").is_symlink()


def test_a_download_that_fails_leaves_what_was_there(daemon: DaemonProcess, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_bytes(b"before")
    with pytest.raises(RemoteError) as caught:
        daemon.client.download("nobody", tmp_path / "out.mp4")
    assert caught.value.kind.name == "not_found"
    assert names(tmp_path) == ["out.mp4"]
    assert (tmp_path / "out.mp4").read_bytes() == b"before"


def test_the_async_client_fetches_two_at_once(daemon: DaemonProcess, noisy: tuple[str, Path], tmp_path: Path) -> None:
    request_id, kept = noisy

    async def fetch() -> None:
        async with AsyncClient(daemon.endpoint, timeout_s=60) as client:
            await asyncio.gather(*(client.download(request_id, tmp_path / f"{number}.mp4") for number in range(2)))

    asyncio.run(fetch())
    assert [(tmp_path / f"{number}.mp4").read_bytes() == kept.read_bytes() for number in range(2)] == [True, True]


def test_the_end_of_a_video_is_an_empty_part_and_what_lies_beyond_is_refused(
    daemon: DaemonProcess, noisy: tuple[str, Path]
) -> None:
    request_id, kept = noisy
    size = kept.stat().st_size
    answer = asked(daemon, request_id=request_id, offset=size)
    assert answer.result == {"offset": size, "file_size": size, "file_name": "video.mp4"}
    assert list(map(bytes, answer.attachments)) == [b""]
    for offset in (size + 1, -1, 2**63):
        with pytest.raises(RemoteError) as caught:
            asked(daemon, request_id=request_id, offset=offset)
        assert (caught.value.kind.name, caught.value.loc) == ("invalid_params", ("offset",))


def test_the_video_of_a_job_that_is_not_done_is_refused_with_why(daemon: DaemonProcess, gate: Gate) -> None:
    daemon.client.submit(request({"url": gate.url}, request_id="runs"))
    with pytest.raises(RemoteError) as caught:
        list(daemon.client.video("runs"))
    assert caught.value.kind.name == "still_in_progress"
    daemon.client.cancel("runs")
    with pytest.raises(RemoteError):
        daemon.client.wait("runs")
    with pytest.raises(RemoteError) as caught:
        list(daemon.client.video("runs"))
    assert caught.value.kind.name == "client_cancelled"


def test_a_video_that_was_removed_is_told(daemon: DaemonProcess) -> None:
    done = daemon.client.render(request(request_id="short"))
    Path(done.video.url.removeprefix("file://")).unlink()
    with pytest.raises(RemoteError, match="has expired and was removed"):
        list(daemon.client.video("short"))
