"""The manifest directory, with real daemons: what is put there comes out, whatever it is and whoever dies."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import RemoteError
from renderer.frontends.spool.claim import Claims
from tests.daemon_process import DaemonProcess, Gate, Start, picture, request, starting, still, wait_until
from tests.load import load
from tests.manifest_directory import owner_of, put, put_bundle, stage_bundle, tree

MAX_MANIFEST_BYTES = 20_000
Case = Callable[[Path], None]


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest directory of the shared daemon."""
    return tmp_path_factory.mktemp("spool")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, spool: Path) -> Iterator[DaemonProcess]:
    """One daemon for all tests that leave it as it was; a look every half second finds what no notice tells."""
    with starting(tmp_path_factory.mktemp("daemon")) as start:
        settings = {"SPOOL__RESCAN_S": 0.5, "SPOOL__MAX_MANIFEST_BYTES": MAX_MANIFEST_BYTES}
        daemon = start("--spool", spool, "--allow-http", **settings)
        yield daemon
        wait_until(lambda: tree(spool / "active") == set(), "no claim is left")
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.words()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Start, Start]]:
    """What starts daemons over two data directories."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with starting(tmp_path / "first") as first, starting(tmp_path / "second") as second:
        yield first, second


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A manifest directory of the test's own."""
    return tmp_path / "spool"


def ended(spool: Path, name: str, how: str = "done") -> dict[str, Any]:
    """Wait until a manifest has ended, and return its report."""
    report = spool / how / name / ("result.json" if how == "done" else "error.json")
    wait_until(lambda: any((spool / part / name).exists() for part in ("done", "failed")), f"{name} has ended")
    if not report.exists():
        raise AssertionError([path.read_text() for path in spool.glob(f"*/{name}/*.json")])
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def claims_in(spool: Path) -> list[Path]:
    return list((spool / "active").iterdir())


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def wait_for_claim(spool: Path, daemon: DaemonProcess) -> Path:
    """Wait until the daemon renders its one claim, and return that."""
    wait_until(daemon.encoders, "an encoder runs")
    [claim] = claims_in(spool)
    return claim


# What comes out.


def test_a_manifest_beside_its_images_becomes_a_video(daemon: DaemonProcess, spool: Path) -> None:
    (spool / "incoming" / "pictures").mkdir()
    (spool / "incoming" / "pictures" / "a.ppm").write_bytes(picture((9, 99, 9)))
    (spool / "incoming" / "b.ppm").write_bytes(picture((99, 9, 9)))
    images = [{"url": "pictures/a.ppm", "frames": 3}, {"url": "b.ppm", "frames": 4}]
    put(spool, "film", request(*images, request_id="my-own", metadata={"shot": 7}))
    result = ended(spool, "film")
    end = spool / "done" / "film"
    assert tree(end) == {"manifest.json", "result.json", "video.mp4"}
    assert result["video"]["url"] == (end / "video.mp4").as_uri()
    assert result["video"]["file_size"] == (end / "video.mp4").stat().st_size
    assert (result["frames"], result["request_id"], result["metadata"]) == (7, "my-own", {"shot": 7})
    assert names_in(spool / "incoming") == ["b.ppm", "pictures"]


def test_a_bundle_comes_back_with_its_images(daemon: DaemonProcess, spool: Path) -> None:
    put_bundle(spool, "reel", request({"url": "in/a.ppm", "frames": 2}), {"in/a.ppm": picture((1, 2, 3))})
    result = ended(spool, "reel")
    assert tree(spool / "done" / "reel") == {"manifest.json", "result.json", "video.mp4", "in", "in/a.ppm"}
    assert result["frames"] == 2
    assert not (spool / "incoming" / "reel").exists()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("json", '\ufeff{"images": [{"url": "same.ppm", "frames": 3}]}'),
        ("csv", "\ufeffurl;frames\r\nsame.ppm;3\r\n"),
        ("jsonl", '{"fps": 30}\n{"url": "same.ppm", "frames": 3}\n'),
        ("ffconcat", "ffconcat version 1.0\nfile same.ppm\nduration 0.125\n"),
    ],
)
def test_every_format_of_manifest_is_taken_marked_or_not(
    daemon: DaemonProcess, spool: Path, suffix: str, text: str
) -> None:
    (spool / "incoming" / "same.ppm").write_bytes(picture((9, 99, 9)))
    hidden = spool / "incoming" / f".of-{suffix}"
    hidden.write_text(text, encoding="utf-8")
    hidden.rename(spool / "incoming" / f"of-{suffix}.{suffix}")
    assert ended(spool, f"of-{suffix}")["frames"] == 3
    assert tree(spool / "done" / f"of-{suffix}") == {f"manifest.{suffix}", "result.json", "video.mp4"}
    hidden = spool / "incoming" / f".bundle-{suffix}"
    hidden.mkdir()
    (hidden / "same.ppm").write_bytes(picture((9, 99, 9)))
    (hidden / f"manifest.{suffix}").write_text(text, encoding="utf-8")
    hidden.rename(spool / "incoming" / f"bundle-{suffix}")
    assert ended(spool, f"bundle-{suffix}")["frames"] == 3


def test_clients_see_the_job_under_the_claims_id_and_its_video_where_it_ended(
    daemon: DaemonProcess, spool: Path
) -> None:
    put(spool, "seen", request())
    result = ended(spool, "seen")
    job_id, url = result["request_id"], result["video"]["url"]
    wait_until(lambda: daemon.client.result(job_id).video.url == url, "the daemon knows where it is")
    with pytest.raises(RemoteError, match="the video was put beside its manifest; fetch it there"):
        list(daemon.client.video(job_id))


def test_a_name_that_comes_again_overwrites_nothing(daemon: DaemonProcess, spool: Path) -> None:
    for frames, name in ((1, "again"), (2, "again.2"), (3, "again.3")):
        put(spool, "again", request(still(frames=frames)))
        assert ended(spool, name)["frames"] == frames
    assert ended(spool, "again")["frames"] == 1


def test_a_name_of_any_bytes_is_rendered(daemon: DaemonProcess, spool: Path) -> None:
    name = os.fsdecode(b"\xff caf\xc3\xa9\nnew")
    put(spool, name, request())
    assert ended(spool, name)["video"]["url"].endswith("/done/%FF%20caf%C3%A9%0Anew/video.mp4")


def test_a_bundle_that_is_filled_where_it_lies_is_claimed_when_its_manifest_comes(
    daemon: DaemonProcess, spool: Path
) -> None:
    bundle = spool / "incoming" / "slow"
    bundle.mkdir()
    (bundle / "a.ppm").write_bytes(picture((1, 2, 3)))
    (bundle / "manifest.json.part").write_text(json.dumps(request({"url": "a.ppm"})))
    put(spool, "after", request())
    ended(spool, "after")
    assert bundle.exists()
    (bundle / "manifest.json.part").rename(bundle / "manifest.json")
    assert ended(spool, "slow")["frames"] == 1


def test_a_cancelled_job_ends_in_failed(daemon: DaemonProcess, spool: Path, gate: Gate) -> None:
    put(spool, "unwanted", gate.request())
    claim = wait_for_claim(spool, daemon)
    daemon.client.cancel(claim.name)
    assert ended(spool, "unwanted", "failed")["type"] == "client_cancelled"
    assert tree(spool / "failed" / "unwanted") == {"manifest.json", "error.json"}


# What fails, and how it is said.


def _text(text: str | bytes) -> Case:
    def drop(spool: Path) -> None:
        put(spool, "case", text)

    return drop


def _fields(**fields: Any) -> Case:
    return _text(json.dumps(request(**fields)))


def _image(url: str) -> Case:
    return _text(json.dumps(request({"url": url})))


def _bundle(make: Callable[[Path], object]) -> Case:
    """A bundle that `make` changes before it is put there."""

    def drop(spool: Path) -> None:
        staged = stage_bundle(spool.parent, request({"url": "a.ppm"}), {"a.ppm": picture((1, 2, 3))})
        make(staged)
        staged.rename(spool / "incoming" / "case")

    return drop


def _node(make: Callable[[Path], object]) -> Case:
    """Something that `make` makes where a manifest would be."""

    def drop(spool: Path) -> None:
        make(spool.parent / "case.json")
        (spool.parent / "case.json").rename(spool / "incoming" / "case.json")

    return drop


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def _replace_manifest(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        (bundle / "manifest.json").rename(bundle / "real.json")
        make(bundle / "manifest.json")

    return change


def _linked_bundle(spool: Path) -> None:
    staged = stage_bundle(spool.parent, request({"url": "a.ppm"}), {"a.ppm": picture((1, 2, 3))})
    (spool / "incoming" / "case").symlink_to(staged)


CASES: dict[str, tuple[Case, str, str]] = {
    "cut off": (_text('{"images": ['), "invalid_params", "manifest: expected a JSON document in UTF-8: the text ends"),
    "empty": (_text(""), "invalid_params", "manifest: expected a JSON document in UTF-8: the text ends"),
    "binary": (_text(b"\x89PNG\r\n\0\0"), "invalid_params", "manifest: expected a JSON document in UTF-8: "),
    "latin-1": (_text('{"images": "é"}'.encode("latin-1")), "invalid_params", "manifest: expected a JSON document"),
    "deep": (_text("[" * 9000), "invalid_params", "manifest: expected a JSON document in UTF-8: more than 200 levels"),
    "a list": (_text("[]"), "invalid_params", "manifest: expected a JSON object, found an array"),
    "no images": (_text("{}"), "invalid_params", "images: expected a value, found none"),
    "unknown field": (_fields(imagez=1), "invalid_params", "imagez: no such field; did you mean images?"),
    "wrong field": (_fields(fps="fast"), "invalid_params", "fps: "),
    "too many frames": (
        _text(json.dumps(request(still(frames=2_000_000)))), "less_than_equal", "images: expected up to 1000000 frames"
    ),
    "infinite": (_text('{"images": [{"url": "a"}], "metadata": {"a": 1e999}}'), "invalid_params", "manifest: "),
    "no image": (_image("missing.ppm"), "file_download_error", "images[0].url: no such file"),
    "no image file": (_image("case.txt"), "unsupported_image_format", "images[0].url: "),
    "outside": (_image("../../etc/passwd"), "file_download_error", "images[0].url: expected a path without '..'"),
    "elsewhere": (_image("/etc/passwd"), "file_download_error", "images[0].url: not under a directory"),
    "huge": (
        _text("{}".ljust(MAX_MANIFEST_BYTES + 1)),
        "file_too_large",
        f"manifest: expected at most {MAX_MANIFEST_BYTES} bytes, found {MAX_MANIFEST_BYTES + 1} or more",
    ),
    "hole": (
        _node(lambda path: (path.touch(), os.truncate(path, 1 << 40))),
        "file_too_large",
        f"manifest: expected at most {MAX_MANIFEST_BYTES} bytes, found {1 << 40} or more",
    ),
    "link": (
        _node(lambda path: path.symlink_to("/etc/passwd")),
        "invalid_params",
        "manifest: expected a regular file, found a symbolic link",
    ),
    "link to nothing": (
        _node(lambda path: path.symlink_to("nothing")),
        "invalid_params",
        "manifest: expected a regular file, found a symbolic link",
    ),
    "link to itself": (
        _node(lambda path: path.symlink_to("case.json")),
        "invalid_params",
        "manifest: expected a regular file, found a symbolic link",
    ),
    "FIFO": (_node(os.mkfifo), "invalid_params", "manifest: expected a regular file, found a FIFO"),
    "socket": (_node(_socket), "invalid_params", "manifest: expected a regular file, found a socket"),
    "linked bundle": (_linked_bundle, "invalid_params", "manifest: expected a regular file, found a symbolic link"),
    "bundle with a linked manifest": (
        _bundle(_replace_manifest(lambda path: path.symlink_to("real.json"))),
        "invalid_params",
        "manifest: expected a regular file, found a symbolic link",
    ),
    "bundle with a FIFO": (
        _bundle(_replace_manifest(os.mkfifo)), "invalid_params", "manifest: expected a regular file, found a FIFO"
    ),
    "bundle with a directory": (
        _bundle(_replace_manifest(Path.mkdir)), "invalid_params", "manifest: expected a regular file, found a directory"
    ),
    "bundle with a linked image": (
        _bundle(lambda bundle: ((bundle / "a.ppm").unlink(), (bundle / "a.ppm").symlink_to("/etc/passwd"))),
        "file_download_error",
        "images[0].url: not under a directory",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("drop", "kind", "words"), CASES.values(), ids=CASES.keys())
def test_what_cannot_be_rendered_fails_alone_and_in_words(
    daemon: DaemonProcess, spool: Path, drop: Case, kind: str, words: str
) -> None:
    (spool / "incoming" / "case.txt").write_text("no image")
    drop(spool)
    error = ended(spool, "case", "failed")
    end = (spool / "failed" / "case").rename(spool.parent / f"seen-{uuid.uuid4().hex}")
    assert (error["type"], error["retryable"]) == (kind, False)
    assert error["message"].startswith(words)
    assert str(spool) not in json.dumps(error)
    assert os.path.lexists(end / "manifest.json")
    wait_until(lambda: tree(spool / "active") == set(), "no claim is left")
    put(spool, "next", request())
    ended(spool, "next")
    (spool / "done" / "next").rename(spool.parent / f"seen-{uuid.uuid4().hex}")


def test_every_fault_of_a_manifest_is_listed(daemon: DaemonProcess, spool: Path) -> None:
    put(spool, "faults", request(fps="fast", width="wide"))
    errors = ended(spool, "faults", "failed")["errors"]
    assert {".".join(map(str, error["loc"])) for error in errors} == {"fps", "width"}


def test_what_is_no_manifest_stays_where_it_is(daemon: DaemonProcess, spool: Path) -> None:
    incoming = spool / "incoming"
    names = {".hidden.json", "half.json.tmp", "half.json.part", "notes.txt", "list.xml", ".dir", "dir.tmp"}
    for name in names:
        (incoming / name).mkdir() if "dir" in name else (incoming / name).write_text("{}")
    (incoming / ".dir" / "manifest.json").write_text("{}")
    (incoming / "dir.tmp" / "manifest.json").write_text("{}")
    put(spool, "only", request())
    ended(spool, "only")
    assert names <= set(names_in(incoming))


@pytest.mark.load
def test_manifests_that_vanish_at_any_moment_do_no_harm(daemon: DaemonProcess, spool: Path) -> None:
    for number in range(load(50, 150)):
        put(spool, f"here-and-gone-{number}", request())
        for path in [spool / "incoming" / f"here-and-gone-{number}.json", *spool.glob("active/*/*/manifest.json")]:
            path.unlink(missing_ok=True)
    put(spool, "stays", request())
    assert ended(spool, "stays")["frames"] == 2
    wait_until(lambda: not claims_in(spool), "all have ended", 30)


# The queue.


def test_no_more_is_claimed_than_two_for_each_worker(start: Start, own: Path, gate: Gate) -> None:
    daemon = start("--spool", own, "--allow-http", ENGINE__WORKERS=1)
    for name in "abcde":
        put(own, name, gate.request())
    wait_until(daemon.encoders, "the first runs")
    put(own, "f", request())
    wait_until(lambda: len(claims_in(own)) == 2, "a second waits in the queue")
    assert len(names_in(own / "incoming")) == 4
    gate.open()
    wait_until(lambda: names_in(own / "done") == list("abcdef"), "all are done")


def test_no_more_is_claimed_than_the_queue_takes_and_the_oldest_comes_first(
    start: Start, own: Path, gate: Gate
) -> None:
    put(own, "z", gate.request())
    for name in "yxw":
        put(own, name, request())
    for age_s, name in enumerate("wxyz"):
        path = own / "incoming" / f"{name}.json"
        os.utime(path, (path.stat().st_mtime - 10 * age_s,) * 2)
    settings = {"ENGINE__WORKERS": 1, "ENGINE__MAX_QUEUED": 0, "SPOOL__MAX_CLAIMS": 3, "SPOOL__RESCAN_S": 0.2}
    daemon = start("--spool", own, "--allow-http", **settings)
    claim = wait_for_claim(own, daemon)
    assert (claim / "z").exists()
    gate.open()
    order = re.compile(r"'(.)' is in done")
    wait_until(lambda: len(order.findall(daemon.words())) == 4, "all are done")
    assert order.findall(daemon.words()) == list("zyxw")


def test_a_claim_that_the_queue_has_no_room_for_waits_and_does_not_fail(start: Start, own: Path, gate: Gate) -> None:
    settings = {"ENGINE__WORKERS": 1, "ENGINE__MAX_QUEUED": 0}
    before = start("--spool", own, "--allow-http", **settings)
    before.client.submit(gate.request(request_id="first"))
    before.wait_for("first")
    before.child.kill()
    before.child.wait()
    put(own, "later", request())
    claims = Claims(own, (before.data_dir / "id").read_text(), 30)
    assert claims.claim(claims.waiting()[0])  # the daemon died before it could submit it
    daemon = start("--spool", own, "--allow-http", **settings)
    wait_until(lambda: "tried again in 2 s: expected at most 0 jobs to wait" in daemon.words(), "it waits")
    assert names_in(own / "failed") == []
    gate.open()
    assert ended(own, "later")["frames"] == 2


# Life and death.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_that_starts_again_finishes_what_it_had_claimed(
    start: Start, own: Path, gate: Gate, number: signal.Signals
) -> None:
    settings = {"ENGINE__WORKERS": 1, "SERVER__DRAIN_TIMEOUT_S": 0.2}
    before = start("--spool", own, "--allow-http", **settings)
    put(own, "single", gate.request())
    put_bundle(own, "bundle", request({"url": "a.ppm"}), {"a.ppm": picture((1, 2, 3))})
    wait_until(lambda: len(claims_in(own)) == 2 and before.encoders(), "one runs, one waits")
    before.signal(number)
    before.child.wait(60)
    held = {claim.name for claim in claims_in(own)}
    assert len(held) == 2
    gate.open()
    start("--spool", own, "--allow-http", **settings)
    assert {ended(own, name)["request_id"] for name in ("single", "bundle")} == held
    wait_until(lambda: not claims_in(own), "nothing is claimed any more")


@pytest.mark.parametrize("where", ["where it was made", "where it goes", "gone"])
def test_what_was_rendered_when_the_daemon_died_is_not_rendered_again(start: Start, own: Path, where: str) -> None:
    before = start("--spool", own)
    (own / "done").rename(own / "away")  # it cannot be moved there
    put(own, "ready", request())
    wait_until(lambda: "done in" in before.words() and "tried again" in before.words(), "the video is made")
    before.child.kill()
    before.child.wait()
    [video] = own.glob("active/*/*/video.mp4")
    [claim] = claims_in(own)
    if where == "where it was made":
        (claim / f".{claim.name}").mkdir(exist_ok=True)
        video.rename(claim / f".{claim.name}" / "video.mp4")
    elif where == "where it goes":
        video.rename(claim / "ready" / "video.mp4")
    else:
        video.unlink()
    (own / "away").rename(own / "done")
    daemon = start("--spool", own)
    if where == "gone":
        assert "the video disappeared" in ended(own, "ready", "failed")["message"]
    else:
        assert ended(own, "ready")["video"]["file_size"] == (own / "done" / "ready" / "video.mp4").stat().st_size
    assert "done in" not in daemon.words()


def test_a_move_that_fails_is_tried_until_it_succeeds(start: Start, own: Path) -> None:
    daemon = start("--spool", own)
    (own / "done").rename(own / "away")
    put(own, "kept", request())
    wait_until(lambda: "tried again in 1 s: " in daemon.words(), "the move fails")
    (own / "away").rename(own / "done")
    assert ended(own, "kept")["frames"] == 2
    wait_until(lambda: not claims_in(own), "nothing is claimed any more")


@pytest.mark.load
def test_many_manifests_and_two_daemons_each_is_rendered_once(two: tuple[Start, Start], own: Path) -> None:
    count = load(30, 80)
    for number in range(count):
        colour = (number, 255 - number, 0)
        if number % 2:
            put_bundle(own, f"m{number}", request({"url": "a.ppm"}), {"a.ppm": picture(colour)})
        else:
            put(own, f"m{number}", request(still(colour, frames=1)))
    daemons = [start("--spool", own, ENGINE__WORKERS=1) for start in two]
    wait_until(lambda: len(names_in(own / "done")) == count, "all are done", 100)
    assert names_in(own / "done") == sorted(f"m{number}" for number in range(count))
    rendered = [daemon.words().count("done in") for daemon in daemons]
    assert sum(rendered) == count
    assert min(rendered) > count // 10
    wait_until(lambda: not claims_in(own), "nothing is claimed any more")
    assert names_in(own / "incoming") == names_in(own / "failed") == []
    assert not any("WARNING" in daemon.words() for daemon in daemons)


@pytest.mark.load
def test_what_a_killed_daemon_had_claimed_is_finished_by_the_other_after_the_lease(
    two: tuple[Start, Start], own: Path, gate: Gate
) -> None:
    settings = {"ENGINE__WORKERS": 1, "SPOOL__LEASE_S": 2}
    killed = two[0]("--spool", own, "--allow-http", **settings)
    put(own, "running", gate.request())
    put_bundle(own, "waiting", request({"url": "a.ppm"}), {"a.ppm": picture((1, 2, 3))})
    wait_until(lambda: len(claims_in(own)) == 2 and killed.encoders(), "one runs, one waits")
    other = two[1]("--spool", own, "--allow-http", **settings)
    count = load(12, 30)
    for number in range(count):
        put(own, f"m{number}", request(still(frames=1)))
    wait_until(lambda: len(names_in(own / "done")) > 5, "the other renders")
    assert not (own / "done" / "running").exists()
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    gate.open()
    expected = sorted(["running", "waiting", *(f"m{number}" for number in range(count))])
    wait_until(lambda: names_in(own / "done") == expected, "the other has finished all", 60)
    assert other.words().count("taken over") == 2
    wait_until(lambda: not claims_in(own), "nothing is claimed any more")
    assert names_in(own / "incoming") == names_in(own / "failed") == []


@pytest.mark.load
def test_a_daemon_that_is_killed_amid_many_loses_none_and_doubles_none(two: tuple[Start, Start], own: Path) -> None:
    count = load(30, 60)
    for number in range(count):
        put(own, f"m{number}", request(still(frames=1)))
    settings = {"ENGINE__WORKERS": 1, "SPOOL__LEASE_S": 2}
    killed, _ = [start("--spool", own, **settings) for start in two]
    wait_until(lambda: killed.words().count("is in done") > 5, "both are at work")
    killed.signal(signal.SIGKILL)
    killed.child.wait()
    wait_until(lambda: len(names_in(own / "done")) == count and not claims_in(own), "the other has finished all", 60)
    assert names_in(own / "done") == sorted(f"m{number}" for number in range(count))
    assert names_in(own / "incoming") == names_in(own / "failed") == []
    for number in range(count):
        assert tree(own / "done" / f"m{number}") == {"manifest.json", "result.json", "video.mp4"}


def test_a_stopped_daemon_keeps_its_claim_and_goes_on_with_it(two: tuple[Start, Start], own: Path, gate: Gate) -> None:
    settings = {"ENGINE__WORKERS": 1, "SPOOL__LEASE_S": 1, "SPOOL__RESCAN_S": 0.2}
    stopped = two[0]("--spool", own, "--allow-http", **settings)
    put(own, "mine", gate.request())
    claim = wait_for_claim(own, stopped)
    other = two[1]("--spool", own, "--allow-http", **settings)
    stopped.signal(signal.SIGSTOP)
    beat = (claim / "owner.json").stat().st_mtime
    for number in range(5):  # while these are rendered the lease runs out
        put(own, f"m{number}", request())
        ended(own, f"m{number}")
    os.utime(claim / "owner.json", (beat - 10, beat - 10))
    put(own, "last", request())
    ended(own, "last")
    assert "taken over" not in other.words()
    stopped.signal(signal.SIGCONT)
    gate.open()
    assert ended(own, "mine")["request_id"] == claim.name
    assert "another daemon" not in stopped.words()


def test_a_claim_that_another_daemon_has_taken_is_let_go_and_its_job_cancelled(
    start: Start, own: Path, gate: Gate
) -> None:
    daemon = start("--spool", own, "--allow-http", SPOOL__LEASE_S=1)
    put(own, "taken", gate.request())
    claim = wait_for_claim(own, daemon)
    theirs = owner_of(claim) | {"host": "elsewhere", "daemon": "theirs"}
    (claim / "theirs").write_text(json.dumps(theirs))
    (claim / "theirs").rename(claim / "owner.json")
    daemon.wait_for(claim.name, "COMPLETED")
    assert daemon.client.status(claim.name).state == "cancelled"
    wait_until(lambda: "another daemon has taken its manifest over" in daemon.words(), "it is said")
    assert owner_of(claim) == theirs
    assert names_in(own / "done") == names_in(own / "failed") == []
    put(own, "next", request())
    assert ended(own, "next")["frames"] == 2


def test_the_job_of_a_claim_that_was_taken_while_the_daemon_was_down_is_cancelled_at_its_start(
    start: Start, own: Path, gate: Gate
) -> None:
    before = start("--spool", own, "--allow-http")
    put(own, "taken", gate.request())
    claim = wait_for_claim(own, before)
    before.child.kill()
    before.child.wait()
    (claim / "owner.json").write_text(json.dumps(owner_of(claim) | {"host": "elsewhere", "daemon": "theirs"}))
    daemon = start("--spool", own, "--allow-http")
    daemon.wait_for(claim.name, "COMPLETED")
    assert daemon.client.status(claim.name).state == "cancelled"
    assert (claim / "taken" / "manifest.json").exists()


def test_a_renewed_claim_tells_that_its_owner_is_there(start: Start, own: Path, gate: Gate) -> None:
    daemon = start("--spool", own, "--allow-http", SPOOL__LEASE_S=0.6)
    put(own, "long", gate.request())
    owner = wait_for_claim(own, daemon) / "owner.json"
    beats = set()
    wait_until(lambda: beats.add(owner.stat().st_mtime) or len(beats) > 3, "it is renewed again and again", 10)
    gate.open()
    ended(own, "long")


# The directory.


def test_a_path_that_is_no_utf8_is_looked_at_now_and_then(tmp_path: Path, start: Start) -> None:
    spool = tmp_path / os.fsdecode(b"caf\xe9")
    daemon = start("--spool", spool, SPOOL__RESCAN_S=0.2)
    wait_until(lambda: "cannot be watched" in daemon.words(), "it says so")
    put(spool, "found", request())
    assert ended(spool, "found")["frames"] == 2
    assert daemon.stop() == 0


def test_without_notices_a_look_now_and_then_finds_what_waits(tmp_path: Path, own: Path) -> None:
    limit = "/proc/sys/user/max_inotify_instances"
    in_namespace = ["unshare", "--user", "--map-root-user", "sh", "-c", f'echo 0 > {limit} && exec "$@"', "sh"]
    if subprocess.run([*in_namespace, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a user namespace, where nothing can be watched, cannot be made here")
    arguments = ["-m", "renderer", "serve", "--bind", "tcp://127.0.0.1:*", "--data-dir", tmp_path, "--spool", own]
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(
            [*in_namespace, sys.executable, *map(str, arguments)],
            env={**os.environ, "STILLREEL_SPOOL__RESCAN_S": "0.2"},
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: "cannot be watched" in (tmp_path / "log").read_text(), "it says so", 30)
        put(own, "found", request())
        assert ended(own, "found")["frames"] == 2
        assert (tmp_path / "log").read_text().count("cannot be watched") == 1
    finally:
        child.terminate()
        child.wait(60)


def test_a_directory_that_cannot_be_used_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [
        sys.executable,
        "-m",
        "renderer",
        "serve",
        "--data-dir",
        tmp_path / "data",
        "--bind",
        "tcp://127.0.0.1:*",
    ]
    asked = subprocess.run(
        [*command, "--spool", tmp_path / "file"], capture_output=True, text=True, timeout=30, check=False
    )
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[-1].startswith(f"error: spool.directory: {tmp_path / 'file'}: ")
