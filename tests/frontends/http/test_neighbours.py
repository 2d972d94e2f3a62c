"""The hosted service's neighbours of images-to-video: jobs like any other, on the wire and with its own clients."""

import base64
import io
import signal
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from tests.daemon_process import Gate, Start, wait_until
from tests.daemon_process import request as body_of_stills
from tests.media.made import made
from tests.media.sound.made import tone, wav
from tests.served import APP, ENDPOINT, RunPython, Served

NAMES = ("merge-audio-video", "extract-frame", "metadata")


def data(content: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("clips"), "loud.mp4")


@pytest.fixture(scope="module")
def bodies(clip: Path) -> dict[str, dict[str, Any]]:
    """A request for each of them."""
    video = data(clip.read_bytes())
    return {
        "merge-audio-video": {"video_url": video, "audio_url": data(wav(tone(0.5))), "start_offset": 0.25},
        "extract-frame": {"video_url": video, "frame_type": "last"},
        "metadata": {"media_url": video, "extract_frames": True},
    }


def urls(made: dict[str, Any]) -> list[str]:
    media = made.get("media", {})
    found = [made.get("video", {}).get("url"), *(image["url"] for image in made.get("images", []))]
    return [url for url in (*found, media.get("start_frame_url"), media.get("end_frame_url")) if url]


@pytest.mark.parametrize("name", NAMES)
def test_run_answers_with_files_that_can_be_fetched(served: Served, bodies: dict[str, Any], name: str) -> None:
    answer = served.http.post(f"/run/{APP}/{name}", json=bodies[name])
    assert answer.status_code == 200, answer.text
    made = answer.json()
    assert made["request_id"] == answer.headers["x-fal-request-id"]
    assert made["warnings"] == []
    for url in urls(made):
        file = httpx.get(url).raise_for_status()
        if name == "merge-audio-video":
            assert file.headers["content-type"] == "video/mp4"
            assert made["video"]["file_size"] == len(file.content)
            with av.open(io.BytesIO(file.content)) as container:
                assert [stream.type for stream in container.streams] == ["video", "audio"]
        else:
            assert file.headers["content-type"] == "image/png"
            assert Image.open(io.BytesIO(file.content)).size == (64, 48)
    assert len(urls(made)) == {"merge-audio-video": 1, "extract-frame": 1, "metadata": 2}[name]


def test_the_answers_have_the_hosted_services_fields(served: Served, bodies: dict[str, Any]) -> None:
    frame = served.http.post(f"/run/{APP}/extract-frame", json=bodies["extract-frame"]).json()["images"]
    assert [(each["width"], each["height"], each["content_type"]) for each in frame] == [(64, 48, "image/png")]
    media = served.http.post(f"/run/{APP}/metadata", json=bodies["metadata"]).json()["media"]
    assert {
        *("media_type", "url", "content_type", "file_name", "file_size", "duration", "bitrate", "codec", "container"),
        *("fps", "frame_count", "timebase", "resolution", "format", "audio", "start_frame_url", "end_frame_url"),
    } <= media.keys()
    plain = served.http.post(f"/run/{APP}/metadata", json={"media_url": bodies["metadata"]["media_url"]}).json()
    assert (plain["media"]["start_frame_url"], plain["media"]["end_frame_url"]) == (None, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_queued_watched_and_cancelled_as_any_other(
    served: Served, bodies: dict[str, Any], name: str, busy: str
) -> None:
    queued = served.http.post(f"/queue/{APP}/{name}", json=bodies[name]).json()
    assert queued["status"] == "IN_QUEUE"
    assert queued["status_url"].endswith(f"/queue/{APP}/requests/{queued['request_id']}/status")
    by_name = f"/queue/{APP}/{name}/requests/{queued['request_id']}"
    assert served.http.get(f"{by_name}/status").json()["status"] == "IN_QUEUE"
    assert served.http.put(f"{by_name}/cancel").status_code == 202
    assert served.result(queued["request_id"]).status_code == 499


def test_a_running_job_can_be_cancelled(served: Served, gate: Gate) -> None:
    asked = served.http.post(f"/queue/{APP}/extract-frame", json={"video_url": gate.url}).json()["request_id"]
    wait_until(lambda: gate.fetched, "a worker asks for the video")
    assert served.cancel(asked).status_code == 202
    wait_until(lambda: served.status(asked).status_code == 200, "it has ended")
    assert served.result(asked).status_code == 499


@pytest.mark.parametrize(
    ("name", "body", "loc", "kind"),
    [
        ("merge-audio-video", {"audio_url": "data:,"}, ["body", "video_url"], "missing"),
        ("merge-audio-video", {"video_url": "a", "audio_url": "b", "start_offset": "x"}, ["body", "start_offset"],
         "float_parsing"),
        ("extract-frame", {"video_url": "data:,", "frame_type": "best"}, ["body", "frame_type"], "literal_error"),
        ("extract-frame", {"video_url": "http://10.0.0.1/a.mp4"}, ["body", "video_url"], "file_download_error"),
        ("extract-frame", {"video_url": "/etc/passwd"}, ["body", "video_url"], "file_download_error"),
        ("extract-frame", {"video_url": data(b"#EXTM3U\n")}, ["body", "video_url"], "unsupported_video_format"),
        ("metadata", {"media_url": ""}, ["body", "media_url"], "string_too_short"),
        ("metadata", {"media_url": data(b"\0\0\0\x18ftypmp42" + bytes(90))}, ["body", "media_url"], "video_load_error"),
    ],
)  # fmt: skip
def test_a_fault_names_its_field(served: Served, name: str, body: dict[str, Any], loc: list[str], kind: str) -> None:
    answer = served.http.post(f"/run/{APP}/{name}", json=body)
    assert answer.status_code == 422, answer.text
    [fault] = answer.json()["detail"]
    assert (fault["loc"], fault["type"]) == (loc, kind)
    assert answer.json()["message"]


def test_both_files_of_a_merge_are_named_if_neither_can_be_had(served: Served) -> None:
    gone = {"video_url": f"{served.daemon.http}/nothing", "audio_url": f"{served.daemon.http}/nowhere"}
    answer = served.http.post(f"/run/{APP}/merge-audio-video", json=gone)
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["body", "video_url"], ["body", "audio_url"]]
    assert answer.json()["detail"][0]["input"] == gone["video_url"]


def test_an_unknown_field_is_ignored_and_named(served: Served, bodies: dict[str, Any]) -> None:
    made = served.http.post(f"/run/{APP}/extract-frame", json={**bodies["extract-frame"], "frame_typ": "last"}).json()
    assert made["warnings"][0]["loc"] == ["frame_typ"]
    assert "frame_type" in made["warnings"][0]["message"]


def test_a_sound_that_is_cut_is_told(served: Served, bodies: dict[str, Any]) -> None:
    longer = {**bodies["merge-audio-video"], "audio_url": data(wav(tone(3)))}
    made = served.http.post(f"/run/{APP}/merge-audio-video", json=longer).json()
    assert [(each["type"], each["loc"]) for each in made["warnings"]] == [("audio_cut", ["audio_url"])]


def test_the_same_id_and_body_is_the_same_job_and_another_app_is_not(served: Served, bodies: dict[str, Any]) -> None:
    named = {**bodies["extract-frame"], "request_id": "twice"}
    first, second = (served.http.post(f"/run/{APP}/extract-frame", json=named).json() for _ in range(2))
    assert urls(first) == urls(second)
    other = served.http.post(f"/run/{APP}/metadata", json={**bodies["metadata"], "request_id": "twice"})
    assert other.json()["detail"][0]["type"] == "request_id_conflict"


def uploaded(served: Served, content: bytes) -> str:
    return served.http.post("/files/upload", content=content).json()["access_url"]


def test_an_uploaded_video_is_used(served: Served, clip: Path) -> None:
    url = uploaded(served, clip.read_bytes())
    made = served.http.post(f"/run/{APP}/metadata", json={"media_url": url}).json()
    assert made["media"]["frame_count"] == 25
    assert made["media"]["url"] == url


def test_the_url_of_a_result_is_taken_without_a_download(served: Served) -> None:
    """Its certificate is not one that the daemon would trust."""
    made = httpx.post(f"{served.daemon.https}/run/{ENDPOINT}", json=body_of_stills(), verify=served.trust).json()
    found = served.http.post(f"/run/{APP}/extract-frame", json={"video_url": made["video"]["url"]}).json()
    [frame] = found["images"]
    assert (frame["width"], frame["height"]) == (64, 48)
    again = served.http.post(f"/run/{ENDPOINT}", json={"images": [{"url": frame["url"], "frames": 2}]}).json()
    assert (again["width"], again["height"]) == (64, 48)
    gone = made["video"]["url"].replace("/files/", "/files/x").replace(served.daemon.https, served.daemon.http)
    answer = served.http.post(f"/run/{APP}/extract-frame", json={"video_url": gone})
    assert answer.json()["detail"][0]["loc"] == ["body", "video_url"]


PYTHON = """
    made = {name: fal_client.subscribe(v['apps'] + name, arguments=body, with_logs=True)
            for name, body in v['bodies'].items()}
    print(json.dumps(made))
"""
JAVASCRIPT = """
    const made = {};
    for (const [name, input] of Object.entries(v.bodies))
      made[name] = (await fal.subscribe(v.apps + name, { input, logs: true })).data;
    print(made);
"""


@pytest.mark.parametrize("client", ["python", "javascript"])
def test_the_official_clients_call_them(
    request: pytest.FixtureRequest, served: Served, clip: Path, client: str
) -> None:
    run: RunPython = request.getfixturevalue({"python": "fal", "javascript": "node"}[client])
    url, sound = (uploaded(served, content) for content in (clip.read_bytes(), wav(tone(0.5))))
    bodies = {
        "merge-audio-video": {"video_url": url, "audio_url": sound},
        "extract-frame": {"video_url": url},
        "metadata": {"media_url": url, "extract_frames": True},
    }
    found = run({"python": PYTHON, "javascript": JAVASCRIPT}[client], bodies=bodies, apps=f"{APP}/")
    assert found["merge-audio-video"]["video"]["content_type"] == "video/mp4"
    assert found["extract-frame"]["images"][0]["width"] == 64
    assert found["metadata"]["media"]["frame_count"] == 25
    assert found["metadata"]["media"]["end_frame_url"]


def test_an_error_reaches_the_clients_with_its_field(fal: RunPython) -> None:
    script = """
        try: fal_client.run(v['apps'] + 'extract-frame', arguments={'video_url': 'data:,nothing'})
        except fal_client.FalClientHTTPError as error:
            print(json.dumps([error.status_code, error.response.json()]))
    """
    status, body = fal(script, apps=f"{APP}/")
    assert status == 422
    assert body["detail"][0]["loc"] == ["body", "video_url"]


def test_jobs_of_all_kinds_survive_a_kill_and_their_files_the_next_start(
    start: Start, bodies: dict[str, Any], gate: Gate
) -> None:
    """One has ended, one runs, others wait behind it."""
    daemon = start("--http", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", ENGINE__WORKERS=1)

    def ask(path: str, **body: Any) -> httpx.Response:
        return httpx.post(f"{daemon.http}{path}", json=body)

    done = {name: ask(f"/run/{APP}/{name}", **bodies[name]).json() for name in NAMES}
    blocking = ask(f"/queue/{APP}/images-to-video", **gate.request()).json()["request_id"]
    daemon.wait_for(blocking)
    waiting = {name: ask(f"/queue/{APP}/{name}", **bodies[name]).json()["request_id"] for name in NAMES}
    daemon.signal(signal.SIGKILL)
    daemon.child.wait(60)
    gate.open()
    daemon = start("--http", "127.0.0.1:0", "--allow-network", "127.0.0.0/8", ENGINE__WORKERS=1)
    for name, request_id in waiting.items():
        here = f"{daemon.http}/queue/{APP}/requests/{request_id}"
        wait_until(lambda here=here: httpx.get(f"{here}/status").status_code == 200, "it is done")
        assert len(urls(httpx.get(here).json())) == len(urls(done[name]))
    for name, before in done.items():
        again = httpx.get(f"{daemon.http}/queue/{APP}/requests/{before['request_id']}").json()
        assert len(urls(again)) == len(urls(before)), name
        for url in urls(again):
            httpx.get(url).raise_for_status()
