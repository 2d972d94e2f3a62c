"""Titles of stills become chapters, at the exact times of their frames, as ffmpeg and libavformat read them."""

import re
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from protocol.schema import RenderRequest
from renderer import render
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.errors import JobError
from tests.cli_process import run
from tests.media.sound.made import tone, wav


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path) -> None:
    for number, colour in enumerate(((200, 20, 20), (20, 200, 20), (20, 20, 200))):
        Image.new("RGB", (64, 48), colour).save(tmp_path / f"{number}.png")


def made(directory: Path, *titles: str | None, name: str = "a.mp4", **fields: Any) -> Path:
    holds = (31, 70, 45)
    images = [
        {"url": f"{number}.png", "frames": holds[number], **({"title": title} if title else {})}
        for number, title in enumerate(titles)
    ]
    render({"images": images, **fields}, directory / name, base=directory)
    return directory / name


def chapters(video: Path) -> list[tuple[str, Fraction, Fraction]]:
    with av.open(str(video)) as container:
        return [
            (each["metadata"]["title"], each["start"] * each["time_base"], each["end"] * each["time_base"])
            for each in container.chapters()
        ]


@pytest.mark.parametrize("name", ["a.mp4", "a.m4v", "a.mov"])
@pytest.mark.parametrize("fps", ["24", "30000/1001", "59.94"])
def test_a_chapter_begins_with_the_first_frame_of_its_still(tmp_path: Path, name: str, fps: str) -> None:
    video = made(tmp_path, "Eins", "Zwei – ü 二", "Drei", name=name, fps=fps)
    frame_s = {"24": Fraction(1, 24), "30000/1001": Fraction(1001, 30000), "59.94": Fraction(1001, 60000)}[fps]
    assert chapters(video) == [
        ("Eins", 0, 31 * frame_s),
        ("Zwei – ü 二", 31 * frame_s, 101 * frame_s),
        ("Drei", 101 * frame_s, 146 * frame_s),
    ]


def test_a_chapter_lasts_until_the_next_title_and_what_comes_before_the_first_has_none(tmp_path: Path) -> None:
    second = Fraction(1, 24)
    assert chapters(made(tmp_path, "Eins", None, "Drei")) == [
        ("Eins", 0, 101 * second),
        ("Drei", 101 * second, 146 * second),
    ]
    assert chapters(made(tmp_path, None, "Zwei", None)) == [("", 0, 31 * second), ("Zwei", 31 * second, 146 * second)]
    assert chapters(made(tmp_path, None, None, None)) == []


def test_ffmpeg_reads_them_at_29_97_beside_sound_and_a_timecode(tmp_path: Path) -> None:
    (tmp_path / "t.wav").write_bytes(wav(tone(1, level=0.1)))
    video = made(tmp_path, "Eins", "Zwei", fps=29.97, audio=[{"url": "t.wav"}], timecode="01:00:00;00")
    words = subprocess.run(
        [find_ffmpeg(EncodeSettings()), "-hide_banner", "-i", video], capture_output=True, text=True, check=False
    ).stderr
    assert re.findall(r"Chapter #0:\d: start ([0-9.]+), end ([0-9.]+)", words) == [
        ("0.000000", "1.034367"),
        ("1.034367", "3.370033"),
    ]
    boxes = video.read_bytes()
    assert boxes.index(b"moov") < boxes.index(b"mdat")
    assert b"chpl" in boxes
    with av.open(str(video)) as container:
        assert (len(container.streams.video), len(container.streams.audio)) == (1, 1)
        assert container.streams.video[0].metadata["timecode"] == "01:00:00;00"


def test_the_pictures_are_the_same_bytes_with_chapters(tmp_path: Path) -> None:
    def access_units(video: Path) -> list[bytes]:
        with av.open(str(video)) as container:
            return [bytes(packet) for packet in container.demux(video=0) if packet.size]

    assert access_units(made(tmp_path, "Eins", "Zwei", "Drei")) == access_units(made(tmp_path, None, None, None))


def test_the_same_request_gives_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1790000000")
    first = made(tmp_path, "Eins", "Zwei").read_bytes()
    assert made(tmp_path, "Eins", "Zwei").read_bytes() == first


def test_a_still_that_is_left_out_has_no_chapter(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no picture")
    found = chapters(made(tmp_path, "Eins", "Zwei", "Drei", on_error="skip"))
    assert found == [("Eins", 0, Fraction(31, 24)), ("Drei", Fraction(31, 24), Fraction(76, 24))]
    found = chapters(made(tmp_path, "Eins", "Zwei", "Drei", on_error="hold"))
    assert found == [("Eins", 0, Fraction(101, 24)), ("Drei", Fraction(101, 24), Fraction(146, 24))]


def test_many_chapters_with_titles_as_long_as_they_may_be_are_all_there(tmp_path: Path) -> None:
    images = [{"url": "0.png", "title": f"{number:03}" + "é" * 126} for number in range(300)]
    render({"images": images, "fps": 29.97}, tmp_path / "a.mp4", base=tmp_path)
    found = chapters(tmp_path / "a.mp4")
    assert [title for title, _, _ in found] == [image["title"] for image in images]
    assert [start for _, start, _ in found] == [number * Fraction(1001, 30000) for number in range(300)]


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("a\nb", "images[1].title: expected one line of text without control characters, found 'a\\nb'"),
        ("\x00", "images[1].title: expected one line of text without control characters, found '\\x00'"),
        ("a\u2028b", "images[1].title: expected one line of text without control characters, found 'a\\u2028b'"),
        ("é" * 128, "images[1].title: expected up to 255 bytes of UTF-8, found 256"),
        ("", "images[1].title: expected at least 1 character(s), found ''"),
        (5, "images[1].title: expected text, found 5"),
    ],
)
def test_what_is_no_title_is_refused(tmp_path: Path, title: Any, words: str) -> None:
    with pytest.raises(JobError) as refused:
        render({"images": [{"url": "0.png"}, {"url": "1.png", "title": title}]}, tmp_path / "a.mp4", base=tmp_path)
    assert str(refused.value) == words


def test_half_a_character_is_no_title() -> None:
    with pytest.raises(ValueError, match="title"):
        RenderRequest.model_validate_json(r'{"images": [{"url": "a.png", "title": "\ud800"}]}')


def test_titles_stand_in_tables_and_name_other_outputs_of_a_batch(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, title in ((1, "Eins"), (2, "Zwei")):
        text = f"url,frames,title\n{tmp_path}/0.png,31,\n{tmp_path}/1.png,5,{title}\n"
        (tmp_path / "in" / "reel.csv").write_text(text)
        assert run("batch", "in", "--out", "out", cwd=tmp_path).returncode == 0
        assert len(list((tmp_path / "out").glob("*.mp4"))) == number
    found = [chapters(video) for video in (tmp_path / "out").glob("*.mp4")]
    assert sorted(each[1][0] for each in found) == ["Eins", "Zwei"]
