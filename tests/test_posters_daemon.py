"""Pictures beside a video through every door of a daemon: they come as the video comes, and go as it goes."""

import base64
import io
import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from protocol.errors import RemoteError
from tests.cli_process import run
from tests.daemon_process import DaemonProcess, Gate, Start, request, starting, still, wait_until
from tests.manifest_directory import put
from tests.served import RUN

WISHES = {"poster": {"frame": 2, "format": "png"}, "contact_sheet": True}
NAMES = ["video.contact_sheet.jpg", "video.mp4", "video.poster.png"]
STILLS = (still((250, 10, 10), frames=2), still((10, 10, 250), frames=2))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    directory = tmp_path_factory.mktemp("daemon")
    with starting(directory) as start:
        yield start("--http", "127.0.0.1:0", "--spool", directory / "spool", ENGINE__WORKERS=1)


def is_blue(picture: bytes | Path) -> bool:
    """Whether this is the poster of the second still."""
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
        red, _, blue = opened.getpixel((5, 5))
        return opened.format == "PNG" and opened.size == (64, 48) and red < 30 and blue > 230


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_over_zeromq_they_come_with_the_video_or_in_parts_like_it(daemon: DaemonProcess, tmp_path: Path) -> None:
    made = daemon.client.render(request(*STILLS, **WISHES, sync_mode=True))
    assert [file.url for file in made.files().values()] == ["cid:0", "cid:1", "cid:2"]
    assert is_blue(made.bytes_of(made.poster))
    assert made.bytes_of(made.contact_sheet)[:3] == b"\xff\xd8\xff"
    assert len(made.video_bytes) == made.video.file_size

    made = daemon.client.render(request(*STILLS, **WISHES, request_id="parts"))
    assert made.poster.url == f"{made.video.url.removesuffix('.mp4')}.poster.png"
    daemon.client.download("parts", tmp_path / "p.png", "poster")
    assert is_blue(tmp_path / "p.png")
    assert b"".join(daemon.client.video("parts", "contact_sheet"))[:3] == b"\xff\xd8\xff"
    kept = daemon.data_dir / "outputs" / "parts"
    assert files(kept) == NAMES
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()} == {0o600}

    daemon.client.render(request(*STILLS, request_id="none"))
    with pytest.raises(RemoteError, match="file: the job's request asked for no poster"):
        daemon.client.download("none", tmp_path / "q.png", "poster")

    done = run("result", "parts", "-o", "v.mp4", "--connect", daemon.endpoint, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == (tmp_path / "v.poster.png").as_uri()
    assert is_blue(tmp_path / "v.poster.png")
    assert (tmp_path / "v.contact_sheet.jpg").exists()


def test_over_http_each_has_a_url_that_says_nothing_of_the_others(daemon: DaemonProcess) -> None:
    with httpx.Client(base_url=daemon.http) as http:
        made = http.post(RUN, json=request(*STILLS, **WISHES, request_id="linked")).json()
        poster = http.get(made["poster"]["url"])
        assert poster.headers["content-type"] == made["poster"]["content_type"] == "image/png"
        assert "inline" in poster.headers["content-disposition"]
        assert is_blue(poster.content)
        assert http.get(made["contact_sheet"]["url"]).headers["content-type"] == "image/jpeg"
        assert http.get(made["video"]["url"]).headers["content-type"] == "video/mp4"
        tokens = {made[field]["url"].split("/")[-2] for field in ("video", "poster", "contact_sheet")}
        assert len({token.rpartition(".")[2] for token in tokens}) == 3
        other = made["poster"]["url"].replace("video.poster.png", "video.mp4")
        assert is_blue(http.get(other).content)

        made = http.post(RUN, json=request(*STILLS, **WISHES, sync_mode=True, metadata={"a": "data:image/png;base64,"}))
        made = made.json()
        prefix, _, content = made["poster"]["url"].partition(",")
        assert prefix == "data:image/png;base64"
        assert is_blue(base64.b64decode(content))
        for field in ("video", "contact_sheet"):
            content = base64.b64decode(made[field]["url"].partition(",")[2])
            assert len(content) == made[field]["file_size"]
        assert made["metadata"] == {"a": "data:image/png;base64,"}

        refused = http.post(RUN, json=request(*STILLS, poster=3))
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "poster"])
        warned = http.post(RUN, json=request(*STILLS, poster={"frame": 1, "at": 2})).json()
        assert ["poster", "at"] in [warning["loc"] for warning in warned["warnings"]]


def test_they_go_with_the_video_and_so_do_their_urls(daemon: DaemonProcess) -> None:
    with httpx.Client(base_url=daemon.http) as http:
        made = http.post(RUN, json=request(*STILLS, **WISHES)).json()
        kept = daemon.data_dir / "outputs" / made["request_id"]
        for path in kept.iterdir():
            path.unlink()
        assert {http.get(made[field]["url"]).status_code for field in ("video", "poster", "contact_sheet")} == {404}


def test_a_manifest_gets_them_beside_its_video(daemon: DaemonProcess, tmp_path: Path) -> None:
    spool = daemon.data_dir.parent / "spool"
    put(spool, "reel", request(*STILLS, **WISHES))
    done = spool / "done" / "reel"
    wait_until((done / "result.json").exists, "the manifest is done")
    assert files(done) == ["manifest.json", "result.json", *NAMES]
    told = json.loads((done / "result.json").read_text())
    assert told["poster"]["url"] == (done / "video.poster.png").as_uri()
    assert is_blue(done / "video.poster.png")


def test_the_same_wish_in_other_words_is_the_same_request(daemon: DaemonProcess) -> None:
    first = daemon.client.render(request(*STILLS, poster="first", request_id="same"))
    again = daemon.client.render(request(*STILLS, poster={}, request_id="same"))
    assert first.model_dump() == again.model_dump()
    with pytest.raises(RemoteError, match="another request already has this id"):
        daemon.client.render(request(*STILLS, poster={"frame": 1}, request_id="same"))


def test_a_daemon_that_is_killed_leaves_each_file_whole_and_none_over(start: Start, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0")
    daemon.client.submit({**gate.request(request_id="a"), **WISHES, "poster": "first"})
    daemon.wait_for("a")
    daemon.signal(signal.SIGKILL)
    daemon.child.wait()
    kept = daemon.data_dir / "outputs" / "a"
    kept.mkdir(exist_ok=True)
    (kept / "video.poster.jpg").write_bytes(b"named before the kill")
    (kept / ".attempt-1-00000000.poster.jpg.part").write_bytes(b"half")
    daemon = start("--http", "127.0.0.1:0")
    gate.open()
    made = daemon.client.wait("a")
    assert files(kept) == ["video.contact_sheet.jpg", "video.mp4", "video.poster.jpg"]
    assert made.poster.file_size == (kept / "video.poster.jpg").stat().st_size > 100
    before = made.model_dump()
    assert daemon.stop() == 0
    again = start("--http", "127.0.0.1:0").client.result("a")
    assert again.model_dump() == before
