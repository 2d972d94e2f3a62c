"""Sound through every door: attachments, uploads, data urls, manifests, the command line; errors name `audio[i]`."""

import base64
import json
from pathlib import Path

import av
import httpx
import pytest

from protocol.errors import RemoteError
from protocol.schema import RenderRequest
from renderer.cli.submit import _absolute
from renderer.config import FetchSettings, RequestLimits
from renderer.errors import JobError
from renderer.frontends.intake import _digest
from renderer.intake import Origin, render_job
from renderer.jobs.asked import described
from renderer.jobs.files import Files
from renderer.pictures.fetch import Fetcher
from tests.cli_process import failed, run
from tests.daemon_process import DaemonProcess, Start, picture, wait_until
from tests.media.sound.made import clicks, heard, loudest_near, tone, wav

AT = [0, 24_000]
SOUND = wav(clicks(1, AT))
STILL = "data:;base64," + base64.b64encode(picture((9, 99, 199))).decode()
INLINE = "data:audio/wav;base64," + base64.b64encode(SOUND).decode()


def has_clicks(video: Path | bytes, directory: Path) -> bool:
    if isinstance(video, bytes):
        (directory / "fetched.mp4").write_bytes(video)
        video = directory / "fetched.mp4"
    sound = heard(video)
    return [loudest_near(sound, place) for place in AT] == [0, 0]


@pytest.fixture
def daemon(start: Start, tmp_path: Path) -> DaemonProcess:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "clicks.wav").write_bytes(SOUND)
    arguments = ["--http", "127.0.0.1:0", "--allow-root", tmp_path / "allowed", "--spool", tmp_path / "spool"]
    return start(*arguments, ENGINE__WORKERS=1)


def test_a_daemon_takes_sound_at_all_of_its_doors(daemon: DaemonProcess, tmp_path: Path) -> None:
    request = {"images": [{"url": STILL, "frames": 24}], "fps": 24, "sync_mode": True}

    for url in ("cid:0", "clicks.wav", INLINE):
        answer = daemon.client.render(
            {**request, "audio": [{"url": url}]}, attachments=[SOUND] if url == "cid:0" else []
        )
        assert has_clicks(answer.video_bytes, tmp_path), url
        assert answer.audio.codec == "aac"

    with pytest.raises(RemoteError, match=r"audio\[1\]\.url: expected a sound that is read here") as refused:
        daemon.client.render({**request, "audio": [{"url": "clicks.wav"}, {"url": STILL}]})
    assert refused.value.kind.name == "unsupported_audio_format"
    with pytest.raises(RemoteError, match=r"audio\[0\]\.url: not under a directory that may be read"):
        daemon.client.render({**request, "audio": [{"url": "/etc/hostname"}]})

    with httpx.Client(base_url=daemon.http, timeout=60) as http:
        place = http.post("/storage/upload/initiate", json={"file_name": "a.wav", "content_type": "audio/wav"}).json()
        assert http.put(place["upload_url"], content=SOUND).status_code == 200
        audio = [{"url": place["file_url"], "volume": 3}]
        answer = http.post(
            "/run/fal-ai/ffmpeg-api/images-to-video", json={**request, "sync_mode": False, "audio": audio}
        )
        assert answer.status_code == 200, answer.text
        assert ["audio", 0, "volume"] in [warning["loc"] for warning in answer.json()["warnings"]]
        assert has_clicks(http.get(answer.json()["video"]["url"]).content, tmp_path)
        answer = http.post("/run/fal-ai/ffmpeg-api/images-to-video", json={**request, "audio": [{"url": "data:,x"}]})
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "audio", 0, "url"]
        assert answer.json()["detail"][0]["type"] == "unsupported_audio_format"

    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "manifest.json").write_text(json.dumps({**request, "audio": [{"url": "c.wav"}]}))
    (tmp_path / "job" / "c.wav").write_bytes(SOUND)
    (tmp_path / "job").rename(tmp_path / "spool" / "incoming" / "reel")
    video = tmp_path / "spool" / "done" / "reel" / "video.mp4"
    wait_until(video.exists, "the manifest is done")
    assert has_clicks(video, tmp_path)


def job(directory: Path, **fields: object) -> RenderRequest:
    request = RenderRequest.model_validate({"images": [{"url": STILL}], **fields})
    render_job(request, RequestLimits(max_duration_s=60), FetchSettings(allow_roots=(directory,)), Origin())
    return request


@pytest.mark.parametrize(
    ("audio", "place"),
    [
        ([{"url": "/etc/passwd"}], "audio[0].url: not under"),
        ([{"url": "ftp://a/b"}], "audio[0].url: expected a path or a url"),
        ([{"url": "cid:0"}], "audio[0].url: expected one of 0 attachments"),
        ([{"url": "a.wav", "start": 61}], "audio[0].start: expected up to 60 s, found 61 s"),
        ([{"url": "a.wav"}, {"url": "a.wav", "at": 1e9}], "audio[1].at: expected up to 60 s"),
    ],
)
def test_faults_that_show_at_once_are_refused_at_once(tmp_path: Path, audio: list[dict], place: str) -> None:
    with pytest.raises(JobError) as refused:
        job(tmp_path, audio=audio)
    assert str(refused.value).startswith(place)


def test_a_local_sound_has_a_limit_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(bytes(2000))
    settings = FetchSettings(allow_roots=(tmp_path,), max_image_bytes=1000, max_audio_bytes=3000)
    assert len(Fetcher(settings).of("audio").fetch("a.wav")) == 2000
    with pytest.raises(JobError, match=r"fetch\.max_image_bytes"):
        Fetcher(settings).fetch("a.wav")
    (tmp_path / "a.wav").write_bytes(bytes(4000))
    with pytest.raises(JobError, match=r"at most 3000 bytes, found 4000 or more \(fetch\.max_audio_bytes"):
        Fetcher(settings).of("audio").fetch("a.wav")


def test_an_inline_sound_is_kept_as_a_file_until_the_job_ends(tmp_path: Path) -> None:
    request = RenderRequest.model_validate({"images": [{"url": STILL}], "audio": [{"url": INLINE, "at": 1}]})
    work = render_job(request, RequestLimits(), FetchSettings(), Origin())
    saved = Files(tmp_path / "files").save(work, [], Fetcher(FetchSettings()))
    assert saved.request.audio[0].url == "cid:1"
    assert saved.request.audio[0].at == 1
    assert (tmp_path / "files" / "1").read_bytes() == SOUND


def test_the_same_request_with_another_sound_is_another_request() -> None:
    def digest(url: str) -> str:
        return _digest(RenderRequest.model_validate({"images": [{"url": STILL}], "audio": [{"url": url}]}), [])

    long = "data:," + "x" * 10_000
    assert digest(long) == digest(long) != digest(long + "y") != digest("a.wav")


def test_the_description_of_a_request_shows_no_secret_of_a_sound() -> None:
    audio = [{"url": "https://user:secret@example.com/a.mp3?token=secret", "gain_db": -3}]
    told = described(RenderRequest.model_validate({"images": [{"url": STILL}], "audio": audio}))
    assert told["audio"][0]["gain_db"] == -3
    assert "secret" not in json.dumps(told["audio"])


def test_submit_makes_the_paths_of_sounds_absolute() -> None:
    request = {"images": [{"url": "a.png"}], "audio": [{"url": "b.mp3"}, {"url": "https://c/d.mp3"}, 5]}
    found = _absolute(request, Path("/here"))
    assert [each["url"] if isinstance(each, dict) else each for each in found["audio"]] == [
        "/here/b.mp3",
        "https://c/d.mp3",
        5,
    ]


def test_the_command_line_puts_sounds_under_images(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(picture((1, 2, 3)))
    (tmp_path / "clicks.wav").write_bytes(SOUND)
    (tmp_path / "tone.wav").write_bytes(wav(tone(1, level=0.1)))
    words = ["render", "a.ppm", "--hold", "24", "--audio", "clicks.wav", "--audio", "tone.wav", "-o", "v.mp4"]
    assert run(*words, cwd=tmp_path).returncode == 0
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert len(container.streams.audio) == 1
    assert has_clicks(tmp_path / "v.mp4", tmp_path)
    words = ["render", "a.ppm", "a.ppm", "--audio", "tone.wav", "--length", "audio", "-o", "s.mp4", "--json"]
    assert json.loads(run(*words, cwd=tmp_path).stdout)["frames"] == 24
    line = failed(run("render", "a.ppm", "--audio", "a.ppm", "-o", "w.mp4", cwd=tmp_path), 1)
    assert "audio[0].url: " in line
    assert "a.ppm: expected a sound that is read here" in line
