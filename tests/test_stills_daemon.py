"""The coded stills of a daemon, from outside: who shares them, what they survive, and that no worker changes them."""

import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import av
import httpx
import pytest

from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.frontends.http.keys import KeyRing
from renderer.jobs.slots import confinement
from tests.daemon_process import DaemonProcess, Start, request, still, wait_until
from tests.served import RUN

MIB = 1024 * 1024
COLOURS = ((200, 60, 20), (20, 60, 200), (60, 200, 20))


def deck(*colours: tuple[int, int, int], **fields: object) -> dict[str, object]:
    """A request whose stills are each held for a second."""
    return request(*(still(colour, frames=24) for colour in colours or COLOURS), **fields)


def found(daemon: DaemonProcess, request_id: str) -> tuple[int, int]:
    """Return how many stills of a job were coded by earlier ones, and of how many, as its log says."""
    log = "\n".join(line.message for line in daemon.client.logs(request_id))
    said = re.search(r"(\d+) of (\d+) stills were coded by earlier jobs", log)
    return (int(said[1]), int(said[2])) if said else (0, 0)


def frames(daemon: DaemonProcess, request_id: str) -> list[bytes]:
    with av.open(str(daemon.data_dir / "outputs" / request_id / "video.mp4")) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def script(path: Path, command: str) -> Path:
    """Write an ffmpeg that does something else first."""
    path.write_text(f'#!/bin/sh\n{command}\nexec {find_ffmpeg(EncodeSettings())} "$@"\n')
    path.chmod(0o755)
    return path


def kept(daemon: DaemonProcess) -> list[Path]:
    return [path for path in (daemon.data_dir / "stills" / "kept").rglob("*") if path.is_file()]


def test_stills_are_found_again_after_a_restart_and_a_kill(start: Start) -> None:
    daemon = start()
    daemon.client.render(deck(request_id="a"))
    daemon.client.render(deck(COLOURS[0], (9, 9, 9), COLOURS[2], request_id="b"))
    assert (found(daemon, "a"), found(daemon, "b")) == ((0, 0), (2, 3))
    modes = {stat.S_IMODE(path.lstat().st_mode) for path in (daemon.data_dir / "stills").rglob("*")}
    assert modes == {0o600, 0o700}
    half = daemon.data_dir / "stills" / "new" / "half"
    half.mkdir()
    (half / "x").touch()
    daemon.signal(signal.SIGKILL)
    daemon.child.wait()
    again = start()
    assert not half.exists()
    again.client.render(deck(request_id="c"))
    assert found(again, "c") == (3, 3)
    assert frames(again, "a") == frames(again, "c")
    assert again.stop() == 0


def test_a_job_whose_stills_are_all_kept_starts_no_encoder(start: Start, tmp_path: Path) -> None:
    starts = tmp_path / "data" / "logs" / "starts"
    daemon = start(ENCODE__FFMPEG=script(tmp_path / "ffmpeg", f"echo >> {starts}"))
    daemon.client.render(deck(request_id="a"))
    before = starts.read_text()
    daemon.client.render(deck(request_id="b"))
    assert starts.read_text() == before


@pytest.mark.skipif(confinement.refusal() is not None, reason="this kernel has no Landlock")
@pytest.mark.parametrize("is_confined", [True, False])
def test_what_is_kept_is_closed_to_a_confined_worker(start: Start, tmp_path: Path, is_confined: bool) -> None:
    false = tmp_path / "data" / "stills" / "kept" / "shared" / ("0" * 64)
    ffmpeg = script(tmp_path / "ffmpeg", f"echo > {false}")
    daemon = start(ENCODE__FFMPEG=ffmpeg, ENGINE__CONFINE_WORKERS=is_confined)
    daemon.client.render(deck(request_id="a"))
    daemon.client.render(deck((1, 2, 3), request_id="b"))
    assert false.exists() != is_confined


def test_clients_with_keys_keep_their_stills_to_themselves(start: Start, tmp_path: Path) -> None:
    secrets = [KeyRing(tmp_path / "data").add(name) for name in ("alice", "bob")]
    daemon = start("--http", "127.0.0.1:0")
    with httpx.Client(base_url=daemon.http) as client:
        hers, his = ({"authorization": f"Key {secret}"} for secret in secrets)

        def share(headers: dict[str, str]) -> list[float]:
            assert client.post(RUN, json=deck(), headers=headers).status_code == 200
            text = client.get("/metrics", headers=headers).text
            return [float(value) for value in re.findall(r'stillreel_stills_total\{found="\w+"\} (\S+)', text)]

        assert share(hers) == [0, 3]
        assert share(his) == [0, 6]
        assert share(hers) == [3, 6]
    daemon.client.render(deck(request_id="nobody"))
    assert found(daemon, "nobody") == (0, 0)
    assert sorted(path.name for path in (daemon.data_dir / "stills" / "kept").iterdir()) == [
        "key.alice",
        "key.bob",
        "shared",
    ]


def test_two_workers_that_code_the_same_stills_at_once_leave_each_once(start: Start) -> None:
    daemon = start(ENGINE__WORKERS=2)
    for name in "abcd":
        daemon.client.submit(deck(request_id=name))
    for name in "abcd":
        daemon.wait_for(name, "COMPLETED")
    assert len(kept(daemon)) == 3
    assert len({b"".join(frames(daemon, name)) for name in "abcd"}) == 1


def test_damaged_stills_are_coded_anew(start: Start) -> None:
    daemon = start()
    daemon.client.render(deck(request_id="a"))
    flipped, cut, _whole = kept(daemon)
    content = bytearray(flipped.read_bytes())
    content[-9] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:100])
    daemon.client.render(deck(request_id="b"))
    assert found(daemon, "b") == (1, 3)
    assert frames(daemon, "a") == frames(daemon, "b")
    daemon.client.render(deck(request_id="c"))
    assert found(daemon, "c") == (3, 3)


def test_a_job_that_fails_leaves_no_stills(start: Start) -> None:
    daemon = start()
    broken = {"url": "data:image/png;base64,iVBORw0KGgo=", "frames": 24}
    daemon.client.submit({**deck(request_id="a"), "images": [*deck()["images"], broken]})  # type: ignore[misc]
    daemon.wait_for("a", "COMPLETED")
    assert daemon.client.status("a").error
    assert kept(daemon) == []
    assert list((daemon.data_dir / "stills" / "new").iterdir()) == []


def test_a_limit_of_nothing_keeps_nothing_and_removes_what_was_kept(start: Start) -> None:
    daemon = start()
    daemon.client.render(deck())
    assert len(kept(daemon)) == 3
    assert daemon.stop() == 0
    without = start(RETENTION__STILLS_BYTES=0)
    without.client.render(deck(request_id="b"))
    wait_until(lambda: kept(without) == [], "the stills are removed")


def test_a_disk_with_little_room_only_ends_the_keeping(start: Start, tmpfs: Callable[[str, str], Path]) -> None:
    tmpfs("data", "20m")
    daemon = start(ENGINE__MIN_FREE_BYTES=MIB)
    assert daemon.client.render(deck(request_id="a")).frames == 72
    assert kept(daemon) == []
