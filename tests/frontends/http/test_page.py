"""What the page is given: its files under a strict policy, the jobs as they change, what works here."""

import json

import httpx
import pytest

from tests.daemon_process import Gate, Start, request, still, wait_until
from tests.served import RUN, Served


def test_the_page_comes_with_a_policy_that_lets_it_ask_this_server_only(served: Served) -> None:
    page = served.http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["img-src"] == "'self' blob: data:"
    assert policy["media-src"] == "'self' blob:"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["x-content-type-options"] == "nosniff"


def test_the_pages_files_have_their_types(served: Served) -> None:
    for name, kind in (("style.css", "text/css"), ("app.js", "javascript")):
        found = served.http.get(f"/web/{name}")
        assert found.status_code == 200
        assert kind in found.headers["content-type"]
        again = served.http.get(f"/web/{name}", headers={"if-none-match": found.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert served.http.get("/web/nowhere.js").status_code == 404


def test_the_newest_jobs_are_listed(served: Served) -> None:
    ids = [served.http.post(RUN, json=request()).headers["x-fal-request-id"] for _ in range(3)]
    listed = served.http.get("/api/jobs", params={"limit": 2}).json()["jobs"]
    assert [job["request_id"] for job in listed] == ids[-2:]
    ended = served.http.get("/api/jobs", params={"states": "done,failed"}).json()["jobs"]
    assert {job["state"] for job in ended} == {"done"}


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "x"}, {"states": "lost"}, {"limit": 5000}])
def test_a_list_that_cannot_be_is_refused(served: Served, query: dict[str, str]) -> None:
    assert served.http.get("/api/jobs", params=query).status_code == 422


def test_events_tell_the_jobs_at_once_and_when_one_changes(served: Served, gate: Gate) -> None:
    request_id = served.submit(gate.request())["request_id"]
    served.daemon.wait_for(request_id)
    states: list[str] = []
    with served.http.stream("GET", "/api/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        for line in lines:
            if line.startswith("data: "):
                jobs = json.loads(line.removeprefix("data: "))
                states.append(next(job["state"] for job in jobs if job["request_id"] == request_id))
                gate.open()
            if states and states[-1] == "done":
                break
    assert states[0] == "running"


def test_what_works_here_is_told_without_paths(served: Served) -> None:
    findings = served.http.get("/api/doctor", timeout=60).json()["findings"]
    assert {"ffmpeg", "libx264", "limits"} <= {finding["what"] for finding in findings}
    assert all(finding["works"] for finding in findings if finding["is_needed"])
    assert all("/" not in finding["found"] for finding in findings if finding["what"] == "ffmpeg")


def test_a_daemon_that_stops_ends_its_streams(start: Start, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0")
    with httpx.Client(base_url=daemon.http, timeout=30) as client, client.stream("GET", "/api/events") as response:
        daemon.signal()
        assert b"".join(response.iter_bytes())
        assert daemon.child.wait(45) == 0  # running jobs would get a minute
    assert " ERROR " not in daemon.words()


def test_probes_and_metrics_tell_how_the_daemon_stands(start: Start, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0", ENGINE__WORKERS=1, ENGINE__MAX_QUEUED=0)
    with httpx.Client(base_url=daemon.http) as client:
        assert client.get("/livez").json() == {"live": True}
        assert client.get("/readyz").json()["ready"] is True
        client.post(RUN, json=request())
        assert 'stillreel_jobs_accepted_total{client="http"} 1.0' in client.get("/metrics").text
        running = daemon.client.submit(gate.request()).request_id
        daemon.wait_for(running)
        full = client.get("/readyz")
        assert (full.status_code, full.json()["reasons"]) == (503, ["the queue is full"])
        refused = client.post(RUN, json=request())
        assert refused.status_code == 429
        assert refused.json()["error_type"] == "queue_full"
        wait_until(lambda: "stillreel_jobs_running 1.0" in client.get("/metrics").text, "the gauge")


def test_a_job_is_told_with_its_request_its_course_and_its_warnings(served: Served) -> None:
    secret = "https://me:word@127.0.0.1:9/a.png?signature=abc"
    images = [still(frames=3), {"url": secret, "duration": 0.5}]
    failed = served.submit({"images": images, "fps": 12, "metadata": {"mine": 1}, "caption": "x"})["request_id"]
    wait_until(lambda: served.status(failed).json()["status"] == "COMPLETED", "the job has ended")
    found = served.http.get(f"/api/jobs/{failed}").json()
    assert (found["job"]["request_id"], found["job"]["state"]) == (failed, "failed")
    assert found["request"]["fps"] == 12
    assert [set(image) for image in found["request"]["images"]] == [{"url", "frames"}, {"url", "duration"}]
    assert not any(word in json.dumps(found["request"]) for word in ("word", "abc", "mine", "base64"))
    assert found["log"][0]["message"].startswith("accepted: ")
    small = served.http.post(RUN, json={"images": [still()], "width": 640}).headers["x-fal-request-id"]
    assert [each["type"] for each in served.http.get(f"/api/jobs/{small}").json()["warnings"]] == ["image_enlarged"]
    assert served.http.get("/api/jobs/nobody").status_code == 404


def test_of_many_stills_the_first_are_told(served: Served) -> None:
    made = served.http.post(RUN, json=request(*[still(frames=1)] * 203)).headers["x-fal-request-id"]
    found = served.http.get(f"/api/jobs/{made}").json()["request"]
    assert (len(found["images"]), found["images_left_out"]) == (200, 3)


def test_what_the_page_may_offer_is_told(served: Served) -> None:
    about = served.http.get("/api/about").json()
    assert about["encoders"] == ["auto", "libx264"]
    assert (about["zmq"], about["zmq_needs_key"]) == ([served.daemon.endpoint], False)
    assert about["https"] == served.daemon.https
    assert about["max_image_bytes"] > 1_000_000
    assert about["max_audio_bytes"] > 1_000_000
    assert about["max_images"] > 100


@pytest.mark.parametrize(
    ("beginning", "told"),
    [
        (b"\x89PNG\r\n\x1a\nnothing more", {"format": "PNG", "message": None}),
        (b"%PDF-1.7", {"format": None, "message": "a PDF document"}),
        (b"<svg xmlns=''>", {"format": None, "message": "an SVG drawing"}),
        (b"", {"format": None, "message": "an empty file"}),
    ],
)
def test_a_file_is_told_by_its_beginning(served: Served, beginning: bytes, told: dict[str, str | None]) -> None:
    found = served.http.post("/api/recognise", content=beginning).json()
    assert found["format"] == told["format"]
    assert (found["message"] or "").endswith(f"found {told['message']}" if told["message"] else "")
    assert served.http.post("/api/recognise", content=b"\x89PNG\r\n\x1a\n" + bytes(20_000)).status_code == 413


@pytest.mark.parametrize(
    ("beginning", "told"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", {"format": "WAV", "message": None}),
        (b"ID3\x04\x00\x00\x00\x7f\x7f\x7f a tag that goes on", {"format": "MP3", "message": None}),
        (b"#EXTM3U", {"format": None, "message": "a playlist"}),
        (b"\x89PNG\r\n\x1a\n", {"format": None, "message": "a picture (PNG)"}),
    ],
)
def test_a_sound_is_told_by_its_beginning(served: Served, beginning: bytes, told: dict[str, str | None]) -> None:
    found = served.http.post("/api/recognise?kind=audio", content=beginning).json()
    assert found["format"] == told["format"]
    assert (found["message"] or "").endswith(f"found {told['message']}" if told["message"] else "")
