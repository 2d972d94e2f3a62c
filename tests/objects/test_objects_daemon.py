"""Images and videos of a daemon's jobs in object storage, at a real server."""

import io
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest

from protocol.client import Client
from protocol.errors import RemoteError
from protocol.schema import RenderRequest
from renderer.config import EngineSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.intake import Origin, render_job
from renderer.jobs.slots import ray_task
from renderer.jobs.slots.base import Destination, RenderTask
from renderer.jobs.slots.remote import Terms
from renderer.observe.job_log import WorkerLog
from renderer.work import RenderReport
from tests.daemon_process import DaemonProcess, picture, request, starting, still, wait_until
from tests.objects.stores import KEY, SECRET, Bucket, HeldLine, Moto
from tests.served import RUN


@pytest.fixture(scope="module")
def shared(moto: Moto) -> Iterator[Bucket]:
    """One bucket for the tests of this module, with a picture in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", moto.url)
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("SOURCE_DATE_EPOCH", "1790000000")  # the same videos, whenever they are made
        bucket = moto.bucket()
        bucket.put("in/a.ppm", picture((20, 60, 200)))
        yield bucket


def settings(bucket: Bucket, **more: object) -> dict[str, Any]:
    named = {"FETCH__ALLOW_OBJECTS": f"{bucket.url}/in", "OUTPUTS__ALLOW_OBJECTS": f"{bucket.url}/out"}
    return {**named, "ENGINE__WORKERS": 1, **more}


@pytest.fixture(scope="module")
def daemon(shared: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    directory = tmp_path_factory.mktemp("daemon")
    with starting(directory) as start:
        yield start("--http", "127.0.0.1:0", "--spool", directory / "spool", **settings(shared, OUTPUTS__PRESIGN_S=600))


def body(bucket: Bucket, name: str = "", **fields: Any) -> dict[str, Any]:
    output = {"output": {"url": f"{bucket.url}/{name}"}} if name else {}
    return request({"url": f"{bucket.url}/in/a.ppm", "frames": 3}, still(), **output, **fields)


def frames_in(video: bytes) -> int:
    with av.open(io.BytesIO(video)) as opened:
        return sum(1 for _ in opened.decode(video=0))


def kept_in(daemon: DaemonProcess) -> str:
    """All that the daemon has written down: logs, store, reports."""
    files = [path for path in (*daemon.data_dir.rglob("*"), daemon.log) if path.is_file()]
    return "".join(path.read_bytes().decode("latin-1") for path in files)


def test_a_video_becomes_an_object_and_the_daemon_keeps_none(
    daemon: DaemonProcess, shared: Bucket, tmp_path: Path
) -> None:
    made = daemon.client.render(body(shared, "out/zmq.mp4", request_id="zmq"))
    assert frames_in(shared.get("out/zmq.mp4")) == made.frames == 5
    assert (made.video.file_name, made.video.file_size) == ("zmq.mp4", len(shared.get("out/zmq.mp4")))
    assert shared.about("out/zmq.mp4")["Content-Type"] == "video/mp4"
    assert not list((daemon.data_dir / "outputs").iterdir())
    assert made.timings["put"] <= made.timings["total"]
    with pytest.raises(RemoteError, match="the video is an object; fetch it from its url"):
        daemon.client.download("zmq", tmp_path / "a.mp4")


def test_its_url_is_signed_when_it_is_asked_for_and_stored_nowhere(daemon: DaemonProcess, shared: Bucket) -> None:
    answer = httpx.post(
        f"{daemon.http}{RUN}",
        json={**body(shared, "out/http.mp4"), "output": {"url": f"{shared.url}/out/http.mp4", "acl": "public"}},
    )
    assert answer.status_code == 200, answer.text
    assert ["output", "acl"] in [warning["loc"] for warning in answer.json()["warnings"]]
    with urllib.request.urlopen(answer.json()["video"]["url"], timeout=60) as opened:
        assert frames_in(opened.read()) == 5
    assert "X-Amz-Signature" not in kept_in(daemon)


def test_a_manifest_may_ask_for_an_object_too(daemon: DaemonProcess, shared: Bucket, tmp_path: Path) -> None:
    spool = daemon.data_dir.parent / "spool"
    (tmp_path / "reel.json").write_text(json.dumps(body(shared, "out/spool.mp4")))
    (tmp_path / "reel.json").rename(spool / "incoming" / "reel.json")
    result = spool / "done" / "reel" / "result.json"
    wait_until(result.exists, "the manifest is done", 90)
    assert json.loads(result.read_bytes())["video"]["url"] == f"{shared.url}/out/spool.mp4"
    assert sorted(path.name for path in result.parent.iterdir()) == ["manifest.json", "result.json"]
    assert frames_in(shared.get("out/spool.mp4")) == 5


@pytest.mark.parametrize(
    ("fields", "loc", "words"),
    [
        ({"output": {"url": "out/a.mp4"}}, ("output", "url"), "s3://"),
        ({"output": {"url": "s3://other/out/a.mp4"}}, ("output", "url"), "outputs.allow_objects"),
        ({"output": {"url": "s3://key:word@reels/a.mp4"}}, ("output", "url"), "without a user"),
        ({"output": {"url": "{}/out/a.mp4"}, "sync_mode": True}, ("sync_mode",), "output or sync_mode, found both"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    daemon: DaemonProcess, shared: Bucket, fields: dict[str, Any], loc: tuple[str, ...], words: str
) -> None:
    fields = {**fields, "output": {"url": fields["output"]["url"].format(shared.url)}}
    with pytest.raises(RemoteError, match=words) as caught:
        daemon.client.submit({**body(shared), **fields})
    assert caught.value.loc == loc


def test_an_image_elsewhere_in_the_bucket_is_not_read(daemon: DaemonProcess, shared: Bucket) -> None:
    shared.put("private/a.ppm", picture((1, 2, 3)))
    with pytest.raises(RemoteError, match=r"fetch\.allow_objects") as caught:
        daemon.client.render(request({"url": f"{shared.url}/in/a.ppm"}, {"url": f"{shared.url}/private/a.ppm"}))
    assert caught.value.loc == ("images", 1, "url")


def test_a_name_that_is_taken_fails_the_job_at_its_field_and_stays(daemon: DaemonProcess, shared: Bucket) -> None:
    shared.put("out/taken.mp4", b"somebody else's")
    with pytest.raises(RemoteError, match="exists already and has another content") as caught:
        daemon.client.render(body(shared, "out/taken.mp4"))
    assert caught.value.loc == ("output", "url")
    assert shared.get("out/taken.mp4") == b"somebody else's"
    assert not list((daemon.data_dir / "outputs").iterdir())


def test_two_daemons_may_write_one_name_if_they_write_the_same(
    daemon: DaemonProcess, shared: Bucket, tmp_path: Path
) -> None:
    with starting(tmp_path) as start:
        other = start(**settings(shared))
        ids = [each.client.submit(body(shared, "out/both.mp4")).request_id for each in (daemon, other)]
        made = [each.client.wait(one).video for each, one in zip((daemon, other), ids, strict=True)]
        assert made[0].file_size == made[1].file_size == len(shared.get("out/both.mp4"))
        assert made[1].url == f"{shared.url}/out/both.mp4"
        with pytest.raises(RemoteError, match="another content"):
            other.client.render(body(shared, "out/both.mp4", fps=30))


def test_a_worker_that_is_killed_while_it_puts_leaves_no_object(shared: Bucket, moto: Moto, tmp_path: Path) -> None:
    line = HeldLine(moto.port)
    with pytest.MonkeyPatch.context() as patch, starting(tmp_path) as start:
        patch.setenv("AWS_ENDPOINT_URL", line.url)
        daemon = start(**settings(shared, ENGINE__RETRY_PAUSE_S=0.01))
        job = daemon.client.submit(body(shared, "out/killed.mp4")).request_id
        assert line.is_held.wait(90)
        assert "out/killed.mp4" not in shared.names()
        for worker in daemon.workers():
            worker.kill()
        made = daemon.client.wait(job)
        assert "killed by SIGKILL" in daemon.words()
        assert len(shared.get("out/killed.mp4")) == made.video.file_size
        assert daemon.stop() == 0
        assert daemon.files() == []
    line.close()


def test_an_attempt_that_was_lost_after_its_put_is_no_hindrance(shared: Bucket, moto: Moto, tmp_path: Path) -> None:
    """The next attempt makes a video of another time, and finds the first one to be the job's own."""
    line = HeldLine(moto.port, before_answer=True)
    with pytest.MonkeyPatch.context() as patch, starting(tmp_path) as start:
        patch.setenv("AWS_ENDPOINT_URL", line.url)
        patch.delenv("SOURCE_DATE_EPOCH")
        daemon = start(**settings(shared, ENGINE__RETRY_PAUSE_S=1.1))
        job = daemon.client.submit(body(shared, "out/lost.mp4")).request_id
        assert line.is_held.wait(90)
        before = shared.get("out/lost.mp4")
        daemon.child.kill()
        daemon.child.wait()
        made = start(**settings(shared)).client.wait(job)
    assert shared.get("out/lost.mp4") == before
    assert made.video.file_size == len(before)
    line.close()


def test_no_key_is_written_down(daemon: DaemonProcess, shared: Bucket) -> None:
    with Client(daemon.endpoint) as client, pytest.raises(RemoteError, match="no such object"):
        client.render(request({"url": f"{shared.url}/in/missing.png"}))
    kept = kept_in(daemon)
    assert "no such object" in kept
    assert SECRET not in kept
    assert KEY not in kept


def test_a_node_needs_no_directory_of_the_daemons_machine_for_what_becomes_an_object(
    shared: Bucket, tmp_path: Path
) -> None:
    """What Ray runs on a node, without Ray."""
    reads = FetchSettings(allow_objects=(shared.url,))
    request_ = RenderRequest.model_validate(body(shared))
    work = render_job(request_, RequestLimits(), reads, Origin())
    destination = Destination(f"{shared.url}/out/node.mp4", "a")
    settings = RenderSettings(fetch=reads)
    task = RenderTask("node", work, tmp_path / "elsewhere" / "node.mp4", settings, destination=destination)
    host = ray_task._Host("alpha", Terms(EngineSettings(), WorkerLog()))
    try:
        *_, ending = host.run(task)
    finally:
        host.end()
        host._stdin.close()
        host._stdout.close()
    assert isinstance(ending, RenderReport), ending
    assert frames_in(shared.get("out/node.mp4")) == 5
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_put_beside_the_video_or_nothing_is(daemon: DaemonProcess, shared: Bucket) -> None:
    made = daemon.client.render(body(shared, "out/with.mp4", poster="first", contact_sheet={"format": "png"}))
    assert shared.about("out/with.poster.jpg")["Content-Type"] == "image/jpeg"
    assert made.contact_sheet.file_name == "with.contact_sheet.png"
    assert httpx.get(made.contact_sheet.url).content == shared.get("out/with.contact_sheet.png")
    assert made.poster.file_size == len(shared.get("out/with.poster.jpg"))
    assert not list((daemon.data_dir / "outputs").iterdir())

    shared.put("out/claimed.contact_sheet.jpg", b"another's")
    with pytest.raises(RemoteError, match=r"output\.url: an object named claimed\.contact_sheet\.jpg exists already"):
        daemon.client.render(body(shared, "out/claimed.mp4", poster="first", contact_sheet=True))
    assert [name for name in shared.names() if "claimed" in name] == ["out/claimed.contact_sheet.jpg"]

    long = "n" * 1010
    with pytest.raises(
        RemoteError, match=r"output\.url: a picture beside the video cannot have its name: expected a name"
    ):
        daemon.client.render(body(shared, f"out/{long}.mp4", poster="first"))
