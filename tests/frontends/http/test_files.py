"""Files: videos by range, uploads in and out, and names that lead nowhere else."""

import datetime as dt
import io
import socket
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.daemon_process import Gate, Start, request, still, wait_until
from tests.served import APP, QUEUE, RUN, Served


def png(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def video(served: Served) -> str:
    url: str = served.http.post(RUN, json=request(still(frames=5))).json()["video"]["url"]
    return url


def upload(client: httpx.Client, content: bytes, **headers: str) -> str:
    named = {"x-fal-file-name": "a picture.png", "content-type": "image/png", **headers}
    response = client.post("/files/upload", content=content, headers=named)
    assert response.status_code == 200, response.text
    url: str = response.json()["access_url"]
    return url


# Videos.


def test_a_video_has_its_type_and_name_and_cannot_run_anything(video: str) -> None:
    found = httpx.get(video)
    assert found.headers["content-type"] == "video/mp4"
    assert found.headers["content-disposition"] == 'inline; filename="video.mp4"'
    assert found.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in found.headers["content-security-policy"]
    assert found.content[4:8] == b"ftyp"


def test_a_video_comes_by_range(video: str) -> None:
    whole = httpx.get(video)
    size = len(whole.content)
    for asked, part in (
        ("bytes=0-9", slice(0, 10)),
        ("bytes=-5", slice(-5, None)),
        (f"bytes={size - 3}-", slice(-3, None)),
    ):
        found = httpx.get(video, headers={"range": asked})
        assert found.status_code == 206
        assert found.content == whole.content[part]
    beyond = httpx.get(video, headers={"range": f"bytes={size}-"})
    assert beyond.status_code == 416
    assert beyond.headers["content-range"] == f"bytes */{size}"


def test_a_video_is_not_sent_again_to_who_has_it(video: str) -> None:
    tag = httpx.get(video).headers["etag"]
    again = httpx.get(video, headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    changed = httpx.get(video, headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert changed.status_code == 200


def test_a_video_can_be_asked_about(video: str) -> None:
    head, whole = httpx.head(video), httpx.get(video)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.content == b""


def test_a_name_that_was_not_given_leads_nowhere(served: Served, video: str) -> None:
    base, token, _ = video.rsplit("/", 2)
    job, _, mac = token.rpartition(".")
    other = served.http.post(RUN, json=request()).headers["x-fal-request-id"]
    for wrong in (f"{job}.{mac[:-1]}A", f"{other}.{mac}", job, f".{mac}", f"{job}.", ".", "..", "%2e%2e", "a" * 5000):
        assert httpx.get(f"{base}/{wrong}/video.mp4").status_code == 404, wrong


@pytest.mark.parametrize(
    "path",
    [
        "/files/../jobs.sqlite3",
        "/files/%2e%2e/%2e%2e/etc/passwd",
        "/files/..%2f..%2fjobs.sqlite3/x",
        "/files/%00/x",
        "/web/../contract.py",
        "/web/%2e%2e/%2e%2e/config.py",
        "/web/..%2f..%2fconfig.py",
        "/web//etc/passwd",
        "/web/%2fetc%2fpasswd",
    ],
)
def test_no_path_leads_out(served: Served, path: str) -> None:
    host, _, port = served.daemon.http.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port))) as raw:  # clients tidy paths up
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 400")), answer[:200]


def test_a_video_that_was_removed_is_gone_and_its_answer_stays(served: Served) -> None:
    made = served.http.post(RUN, json=request())
    request_id = made.headers["x-fal-request-id"]
    (served.daemon.data_dir / "outputs" / request_id / "video.mp4").unlink()
    assert served.http.get(made.json()["video"]["url"]).status_code == 404
    assert served.result(request_id).status_code == 200


def test_links_to_videos_outlive_the_daemon(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0")
    made = httpx.post(daemon.http + RUN, json=request()).json()["video"]["url"]
    assert daemon.stop() == 0
    again = start("--http", "127.0.0.1:0")
    assert httpx.get(made.replace(daemon.http, again.http)).status_code == 200


# Uploads.


def test_an_upload_can_be_fetched_and_rendered_under_any_name_of_this_host(served: Served) -> None:
    url = upload(served.http, png())
    assert url.endswith("/a%20picture.png")
    found = httpx.get(url)
    assert (found.content, found.headers["content-type"]) == (png(), "image/png")
    for spelling in (url, url.replace("127.0.0.1", "localhost"), url.replace(served.daemon.http, "https://fal.run")):
        body = {"images": [{"url": spelling, "frames": 2}, {"url": spelling}]}
        made = served.http.post(RUN, json=body)
        assert made.status_code == 200, made.text
        assert (made.json()["frames"], made.json()["width"]) == (3, 64)


def test_an_upload_in_two_steps_may_be_sent_again_and_does_not_change(served: Served) -> None:
    place = served.http.post("/storage/upload/initiate?storage_type=x", json={"file_name": "b.png"}).json()
    assert httpx.get(place["file_url"]).status_code == 404
    for colour, status in (((200, 30, 30), 200), ((200, 30, 30), 200), ((1, 2, 3), 403)):
        answer = httpx.put(place["upload_url"], content=png(colour), headers={"content-type": "image/png"})
        assert answer.status_code == status
    assert answer.json()["message"].startswith("another file was uploaded here before")
    assert httpx.get(place["file_url"]).content == png()
    assert served.http.post(RUN, json={"images": [{"url": place["file_url"]}]}).status_code == 200


def test_an_upload_that_is_not_there_is_a_fault_of_its_image(served: Served) -> None:
    url = f"{served.daemon.http}/files/{'a' * 32}/x.png"
    response = served.http.post(RUN, json={"images": [still(), {"url": url}]})
    assert response.status_code == 422
    [fault] = response.json()["detail"]
    assert (fault["loc"], fault["type"]) == (["body", "images", 1, "url"], "file_download_error")
    assert fault["input"] == url


def test_an_upload_goes_when_its_time_is_over_and_its_job_does_not_mind(start: Start, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0", RETENTION__UPLOADS_S=2, ENGINE__WORKERS=1)
    with httpx.Client(base_url=daemon.http) as client:
        running = client.post(QUEUE, json=gate.request()).json()["request_id"]
        url = upload(client, png())
        waiting = client.post(QUEUE, json={"images": [{"url": url}]}).json()["request_id"]
        wait_until(lambda: client.get(url).status_code == 404, "gone")
        gate.open()
        daemon.wait_for(running, "COMPLETED")
        daemon.wait_for(waiting, "COMPLETED")
        assert client.get(f"/queue/{APP}/requests/{waiting}").status_code == 200
        assert client.post(RUN, json={"images": [{"url": url}]}).status_code == 422


def test_a_client_may_want_its_upload_to_go_sooner(served: Served) -> None:
    url = upload(served.http, png(), **{"x-fal-object-lifecycle": '{"expiration_duration_seconds": 1}'})
    assert httpx.get(url).status_code == 200
    wait_until(lambda: httpx.get(url).status_code == 404, "gone")


@pytest.mark.parametrize(
    "wish",
    ["[" * 20_000, '{"expiration_duration_seconds":' * 300, '{"expiration_duration_seconds": 1e999}', "null", "1", "{"],
    ids=["nested lists", "nested objects", "endless", "nothing", "a number", "no JSON"],
)
def test_a_wish_for_a_time_that_cannot_be_read_is_passed_over(served: Served, wish: str) -> None:
    url = upload(served.http, png(), **{"x-fal-object-lifecycle": wish})
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "x", "a/b; c"])
def test_an_upload_that_might_run_is_only_offered_for_saving(served: Served, content_type: str) -> None:
    url = upload(served.http, b"<script>1</script>", **{"content-type": content_type})
    found = httpx.get(url)
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name", ["../../x.png", "a/b\\c.png", "x" * 500, '"; filename="evil.exe', "%0d%0aSet-Cookie: a=b", ".."]
)
def test_a_name_of_an_upload_is_made_harmless(served: Served, name: str) -> None:
    url = upload(served.http, png(), **{"x-fal-file-name": name})
    assert url.count("/") == 5
    found = httpx.get(url)
    assert found.status_code == 200
    assert "set-cookie" not in found.headers
    assert ".." not in url


def test_a_file_that_is_too_large_is_refused_and_leaves_nothing(start: Start) -> None:
    daemon = start(
        "--http",
        "127.0.0.1:0",
        FETCH__MAX_IMAGE_BYTES=9_000,
        FETCH__MAX_AUDIO_BYTES=9_500,
        FETCH__MAX_VIDEO_BYTES=10_000,
    )
    with httpx.Client(base_url=daemon.http) as client:
        assert client.post("/files/upload", content=b"x" * 10_001).status_code == 413
        assert client.post("/files/upload", content=iter([b"x" * 6000] * 3)).status_code == 413  # no length is told
        assert client.post("/files/upload", content=b"x" * 10_000).status_code == 200
        assert client.post("/storage/upload/initiate-multipart", json={}).status_code == 413
        assert client.post("/files/upload/multipart").status_code == 413
    assert len(list((daemon.data_dir / "uploads").iterdir())) == 1


def test_uploads_have_so_much_room_and_no_more(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0", RETENTION__UPLOADS_BYTES=1000)
    with httpx.Client(base_url=daemon.http) as client:
        assert client.post("/files/upload", content=b"x" * 600).status_code == 200
        assert client.post("/files/upload", content=b"x" * 600).status_code == 507
        assert client.post("/files/upload", content=b"x" * 300).status_code == 200


def test_an_upload_that_breaks_off_is_not_there(served: Served) -> None:
    place = served.http.post("/storage/upload/initiate", json={}).json()

    def half() -> object:
        yield png()[:50]
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        httpx.put(place["upload_url"], content=half())  # type: ignore[arg-type]
    time.sleep(0.3)
    assert httpx.get(place["file_url"]).status_code == 404


def test_a_forged_place_takes_nothing(served: Served) -> None:
    place = served.http.post("/storage/upload/initiate", json={}).json()["upload_url"]
    head, _, name = place.rpartition("/")
    for wrong in (f"{head[:-1]}x/{name}", f"{served.daemon.http}/files/upload/{'a' * 32}/{name}"):
        assert httpx.put(wrong, content=b"x").status_code == 404


def test_the_token_of_an_upload_says_when_it_ends(served: Served) -> None:
    token = served.http.post("/storage/auth/token?storage_type=fal-cdn-v3", json={}).json()
    ends = dt.datetime.fromisoformat(token["expires_at"])
    assert ends.utcoffset() == dt.timedelta(0)
    assert ends > dt.datetime.now(dt.UTC)
    assert token["base_url"] == served.daemon.http


def test_the_data_directory_shows_uploads_to_their_owner_only(served: Served) -> None:
    upload(served.http, png())
    place: Path = served.daemon.data_dir / "uploads"
    assert place.stat().st_mode & 0o077 == 0
