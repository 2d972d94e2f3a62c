"""`from renderer import render`: the library's one function, without a daemon."""

import subprocess
import sys
from pathlib import Path

import pytest

import renderer
from protocol.schema import RenderResult
from renderer import render
from renderer.config import EncodeSettings, RequestLimits, RetentionSettings, Settings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.errors import FetchFailed, InvalidRequest, LimitExceeded


def test_a_request_becomes_a_file_and_a_result(tmp_path: Path, write_image) -> None:
    write_image("a.png", (64, 48), (255, 0, 0))
    write_image("b.png", (48, 64), (0, 0, 255))
    request = {
        "images": [{"url": "a.png", "frames": 24}, {"url": "b.png", "duration": 2}],
        "fps": 29.97,
        "request_id": "one",
        "metadata": {"k": [1]},
    }
    result = render(request, tmp_path / "out.mp4", base=tmp_path)
    assert isinstance(result, RenderResult)
    assert (result.width, result.height, result.frames, result.fps) == (64, 48, 84, "30000/1001")
    assert result.duration == pytest.approx(84 * 1001 / 30000)
    assert result.encoder == "libx264"
    assert (result.request_id, result.metadata) == ("one", {"k": [1]})
    assert result.video.url == (tmp_path / "out.mp4").as_uri()
    assert result.video.file_name == "out.mp4"
    assert result.video.content_type == "video/mp4"
    assert result.video.file_size == (tmp_path / "out.mp4").stat().st_size
    assert {"total", "stills", "encode", "mux", "stills_busy"} <= result.timings.keys()


def test_why_auto_took_no_gpu_is_told_and_only_then(tmp_path: Path, write_image) -> None:
    request = {"images": [{"url": str(write_image("a.png"))}]}
    assert render(request, tmp_path / "out.mp4").fallback_reason
    assert render({**request, "encoder": "libx264"}, tmp_path / "out.mp4").fallback_reason is None


def test_the_docstrings_example_works(tmp_path: Path, write_image, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image("a.png")
    write_image("b.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = [line for line in (renderer.__doc__ or "").splitlines() if line.startswith("render(")]
    exec(example, {"render": render})
    assert (tmp_path / "out.mp4").exists()


def test_relative_paths_start_from_base_else_from_the_working_directory(
    tmp_path: Path, write_image, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image("a.png")
    (tmp_path / "below").mkdir()
    request = {"images": [{"url": "a.png"}]}
    monkeypatch.chdir(tmp_path)
    assert render(request, "below/out.mp4").frames == 1
    monkeypatch.chdir(tmp_path / "below")
    assert render(request, "out2.mp4", base=tmp_path).frames == 1
    with pytest.raises(FetchFailed, match=r"^images\[0\]\.url: "):
        render(request, "out3.mp4")
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == ["out.mp4", "out2.mp4"]


def test_any_local_path_may_be_read(tmp_path: Path, write_image) -> None:
    path = write_image("a b%c#d.png")
    (tmp_path / "below").mkdir()
    for url in (str(path), path.as_uri(), "../a b%c#d.png"):
        assert render({"images": [{"url": url}]}, tmp_path / "out.mp4", base=tmp_path / "below").frames == 1


def test_progress_is_told_after_every_still(tmp_path: Path, write_image) -> None:
    write_image("a.png")
    told = []
    request = {"images": [{"url": "a.png", "frames": 5}] * 3}
    render(request, tmp_path / "out.mp4", base=tmp_path, on_progress=told.append)
    assert [(progress.images_done, progress.stage) for progress in told] == [
        (0, "rendering"),
        (1, "rendering"),
        (2, "rendering"),
        (3, "rendering"),
        (3, "finishing"),
        (3, "finishing"),
    ]
    assert told[-1].share == 1, "once more when all frames are coded"
    assert {(progress.images, progress.frames) for progress in told} == {(3, 15)}


def test_limits_are_the_settings(tmp_path: Path, write_image) -> None:
    write_image("a.png")
    settings = Settings(limits=RequestLimits(max_frames=9))
    with pytest.raises(LimitExceeded):
        render({"images": [{"url": "a.png", "frames": 10}]}, tmp_path / "o.mp4", base=tmp_path, settings=settings)


def test_a_wrong_request_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as raised:
        render({"images": [{"url": "a.png", "frames": "three"}]}, tmp_path / "out.mp4")
    assert raised.value.loc == ("images", 0, "frames")
    assert list(tmp_path.iterdir()) == []


def test_importing_costs_nothing() -> None:
    heavy = "{'cv2', 'av', 'numpy', 'pydantic', 'PIL'}"
    program = (
        f"import sys, renderer; sys.exit(repr({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_the_same_request_gives_the_same_bytes_where_the_time_is_told(tmp_path: Path, write_image, monkeypatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    write_image("a.png")
    write_image("b.png", colour=200)
    images = [{"url": "a.png", "frames": 30}, {"url": "b.png", "frames": 5}]
    for name in ("one.mp4", "two.mp4"):
        render({"images": images, "timecode": "01:00:00:00"}, tmp_path / name, base=tmp_path)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_stills_of_an_earlier_call_are_taken_from_the_directory_for_them(tmp_path: Path, write_image) -> None:
    starts, ffmpeg = tmp_path / "starts", tmp_path / "ffmpeg"
    ffmpeg.write_text(f'#!/bin/sh\necho >> {starts}\nexec {find_ffmpeg(EncodeSettings())} "$@"\n')
    ffmpeg.chmod(0o755)
    settings = Settings(encode=EncodeSettings(ffmpeg=str(ffmpeg)), retention=RetentionSettings(stills_bytes=6000))
    images = [
        {"url": str(write_image(f"{name}.png", colour=colour)), "frames": 24} for name, colour in (("a", 9), ("b", 99))
    ]
    for shown in (images, images[1:], images[::-1]):
        result = render({"images": shown}, tmp_path / "a.mp4", settings=settings, stills=tmp_path / "deep" / "stills")
        assert result.frames == 24 * len(shown)
    assert len(starts.read_text()) == 1
    for number in range(20):
        one = {"url": str(write_image("c.png", colour=number)), "frames": 24}
        render({"images": [one]}, tmp_path / "a.mp4", settings=settings, stills=tmp_path / "deep" / "stills")
    kept = list((tmp_path / "deep" / "stills" / "kept").glob("*/*"))
    assert 0 < sum(path.stat().st_size for path in kept) <= 6000
