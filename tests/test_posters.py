"""Pictures beside a video, judged by another decoder: posters show their frame, contact sheets show every still."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from renderer import render
from renderer.config import EncodeSettings, FetchSettings, RenderSettings, RequestLimits
from renderer.encode.x264 import X264Encoder
from renderer.errors import ConfigError, EncodeFailed, JobError, StorageFull
from renderer.geometry import Canvas, Size
from renderer.intake import Origin, parse_request, render_job
from renderer.pictures.compose import Framing, compose
from renderer.pictures.decode import Picture
from renderer.pictures.kept import StillCache
from renderer.pipeline import render as render_whole
from tests.cli_process import failed, run

Array = npt.NDArray[Any]
COLOURS = ((200, 30, 30), (30, 160, 40), (40, 50, 210), (240, 240, 240), (5, 5, 5))


def pixels_of(picture: Path) -> Array:
    with Image.open(picture) as opened:
        assert opened.mode == "RGB"
        return np.asarray(opened).astype(int)


def frames_of(video: Path) -> list[Array]:
    """Every frame as swscale shows BT.709."""
    with av.open(str(video)) as container:
        shown = [
            frame.reformat(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709")
            for frame in container.decode(video=0)
        ]
    return [frame.to_ndarray().astype(int) for frame in shown]


@pytest.fixture
def stills(tmp_path: Path) -> list[dict[str, Any]]:
    """Five stills of smooth, saturated pictures, each held for as many frames as its place says, from 2 on."""
    for number, colour in enumerate(COLOURS):
        seed = np.random.default_rng(number).integers(-60, 60, (4, 6, 3)) + np.array(colour)
        picture = Image.fromarray(np.clip(seed, 0, 255).astype(np.uint8))
        picture.resize((192, 128), Image.Resampling.BICUBIC).save(tmp_path / f"{number}.png")
    return [{"url": f"{number}.png", "frames": number + 2} for number in range(len(COLOURS))]


Make = Callable[..., Any]


@pytest.fixture
def make(stills: list[dict[str, Any]], tmp_path: Path) -> Make:
    def made(**fields: Any) -> Any:
        return render({"images": stills, "crf": 12, **fields}, tmp_path / "a.mp4", base=tmp_path)

    return made


@pytest.mark.parametrize(
    ("wish", "frame"),
    [("first", 0), ({}, 0), ({"frame": 1}, 0), ({"frame": 2}, 2), ({"frame": 19}, 19), ({"seconds": 0.375}, 9)],
)
def test_a_poster_is_the_frame_that_another_decoder_shows(make: Make, tmp_path: Path, wish: Any, frame: int) -> None:
    made = make(poster=wish)
    poster = pixels_of(tmp_path / "a.poster.jpg")
    distances = [np.abs(poster - shown).mean() for shown in frames_of(tmp_path / "a.mp4")]
    assert distances[frame] == min(distances) < 2.5
    assert (made.poster.width, made.poster.height) == (192, 128) == poster.shape[1::-1]
    assert made.poster.url == (tmp_path / "a.poster.jpg").as_uri()
    assert (made.poster.content_type, made.poster.file_name) == ("image/jpeg", "a.poster.jpg")
    assert made.poster.file_size == (tmp_path / "a.poster.jpg").stat().st_size
    assert made.contact_sheet is None


def from_709(frame: Array) -> Array:
    """The R, G, B of an NV12 frame by the book, in floats: ITU-R BT.709-6, and chroma where H.264, E.2.1, puts it."""
    rows = frame.shape[0] * 2 // 3
    luma, chroma = frame[:rows].astype(float), frame[rows:].reshape(rows // 2, -1, 2).astype(float)
    tall = np.repeat(chroma, 2, axis=0)
    other = np.clip(np.arange(rows) // 2 + np.where(np.arange(rows) % 2, 1, -1), 0, rows // 2 - 1)
    tall = 0.75 * tall + 0.25 * chroma[other]
    wide = np.repeat(tall, 2, axis=1)
    wide[:, 1:-1:2] = (tall[:, :-1] + tall[:, 1:]) / 2
    y, cb, cr = (luma - 16) / 219, (wide[..., 0] - 128) / 224, (wide[..., 1] - 128) / 224
    red, blue = y + 1.5748 * cr, y + 1.8556 * cb
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return np.clip(np.stack([red, green, blue], axis=2) * 255, 0, 255)


def test_a_png_poster_is_the_composed_still_converted_back_exactly(make: Make, tmp_path: Path) -> None:
    make(poster={"frame": 5, "format": "png"}, width=160, height=600, resize_mode="stretch")
    still = np.ascontiguousarray(pixels_of(tmp_path / "2.png")[..., ::-1].astype(np.uint8))
    frame = np.empty((900, 160), np.uint8)
    compose(Picture(still, Size(192, 128)), Framing(Canvas(160, 600), "stretch"), frame)
    assert np.abs(pixels_of(tmp_path / "a.poster.png") - from_709(frame)).max() <= 2


def cells(sheet: Array, width: int, height: int) -> list[list[int]]:
    """The mean colours of a contact sheet's places, row by row."""
    rows, columns = (sheet.shape[0] + 8) // (height + 8), (sheet.shape[1] + 8) // (width + 8)
    corners = [(row * (height + 8), column * (width + 8)) for row in range(rows) for column in range(columns)]
    return [sheet[top : top + height, left : left + width].mean(axis=(0, 1)).round().tolist() for top, left in corners]


def test_a_contact_sheet_shows_each_still_once_in_order(make: Make, tmp_path: Path) -> None:
    made = make(contact_sheet={"columns": 2, "width": 48, "format": "png"})
    sheet = pixels_of(tmp_path / "a.contact_sheet.png")
    assert (made.contact_sheet.width, made.contact_sheet.height) == sheet.shape[1::-1] == (2 * 48 + 8, 3 * 32 + 16)
    means = [pixels_of(tmp_path / f"{number}.png").mean(axis=(0, 1)) for number in range(5)]
    assert np.abs(np.array(cells(sheet, 48, 32))[:5] - means).max() < 2
    assert cells(sheet, 48, 32)[5] == [32, 32, 32]
    assert made.warnings == ()


def test_a_still_that_comes_again_is_in_each_of_its_places(make: Make, tmp_path: Path) -> None:
    images = [{"url": f"{number}.png", "frames": 3} for number in (0, 1, 0, 0, 1)]
    make(images=images, contact_sheet={"width": 48, "format": "png"}, poster={"frame": 8, "format": "png"})
    shown = cells(pixels_of(tmp_path / "a.contact_sheet.png"), 48, 32)
    assert shown[0] == shown[2] == shown[3] != shown[1] == shown[4]
    assert np.abs(pixels_of(tmp_path / "a.poster.png") - pixels_of(tmp_path / "0.png")).mean() < 3


@pytest.mark.parametrize("wishes", [{"contact_sheet": True}, {"poster": "first"}])
def test_one_still_is_enough(make: Make, wishes: dict[str, Any]) -> None:
    made = make(images=[{"url": "0.png"}, {"url": "0.png"}], **wishes)
    assert set(made.files()) == {"video", *wishes}


@pytest.mark.parametrize("size", [(2, 900), (900, 2), (16, 16)])
def test_stills_of_any_shape_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 99, 199)).save(tmp_path / "a.png")
    request = {"images": [{"url": "a.png"}] * 3, "poster": "first", "contact_sheet": {"width": 100, "columns": 2}}
    made = render(request, tmp_path / "a.mp4", base=tmp_path)
    assert (made.poster.width, made.poster.height) == size
    assert made.contact_sheet.height <= 2 * 200 + 8


def test_a_sheet_of_thousands_of_stills_is_bounded_and_says_so(tmp_path: Path) -> None:
    for number, colour in enumerate(((200, 20, 20), (20, 20, 200))):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{number}.png")
    images = [{"url": "0.png"}, *[{"url": "1.png"}] * 2998, {"url": "0.png"}]
    request = {"images": images, "contact_sheet": {"columns": 1, "width": 64}}
    made = render(request, tmp_path / "a.mp4", base=tmp_path)
    assert made.contact_sheet.height <= 16_384
    [warning] = made.warnings
    assert (warning.type, warning.loc) == ("contact_sheet_in_part", ("contact_sheet",))
    assert warning.message == "the contact sheet shows 227 of 3000 stills, evenly spread; more would not fit"
    sheet = pixels_of(tmp_path / "a.contact_sheet.jpg")
    assert made.contact_sheet.height == sheet.shape[0] == 227 * 72 - 8
    is_red = sheet[32::72, 32, 0] > 128
    assert is_red.tolist() == [True, *[False] * 225, True]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"poster": 2}, 'poster: expected "first", {"frame": 48} or {"seconds": 2.5}, found 2'),
        ({"poster": 2.5}, 'poster: expected "first", {"frame": 48} or {"seconds": 2.5}, found 2.5'),
        ({"poster": "2"}, 'poster: expected "first", {"frame": 48} or {"seconds": 2.5}, found \'2\''),
        ({"poster": True}, 'poster: expected "first", {"frame": 48} or {"seconds": 2.5}, found true'),
        ({"poster": {"frame": 2, "seconds": 2}}, "poster: expected frame or seconds, found both"),
        ({"poster": {"frame": 20}}, "poster.frame: expected up to 19, the video's last frame, found 20"),
        ({"poster": {"seconds": 0.84}}, "poster.seconds: expected less than the video's 0.833333 s, found 0.84 s"),
        ({"poster": {"frame": 2.5}}, "poster.frame: expected a whole number, found 2.5"),
        ({"poster": {"frame": -1}}, "poster.frame: expected at least 0, found -1"),
        ({"poster": {"format": "webp"}}, "poster.format: expected 'jpeg' or 'png', found 'webp'"),
        ({"poster": {"at": 1}}, "poster.at: no such field"),
        ({"contact_sheet": 5}, 'contact_sheet: expected true or an object such as {"columns": 6}, found 5'),
        ({"contact_sheet": {"columns": 21}}, "contact_sheet.columns: expected at most 20, found 21"),
        ({"contact_sheet": {"width": 641}}, "contact_sheet.width: expected at most 640, found 641"),
    ],
)
def test_what_cannot_be_made_is_refused_by_its_field(make: Make, tmp_path: Path, fields: Any, words: str) -> None:
    with pytest.raises(JobError) as refused:
        make(**fields)
    assert str(refused.value) == words
    assert not list(tmp_path.glob("a.*"))


def test_without_them_nothing_is_made(make: Make, tmp_path: Path) -> None:
    made = make(contact_sheet=False, poster=None)
    assert (made.poster, made.contact_sheet) == (None, None)
    assert [path.name for path in tmp_path.glob("a.*")] == ["a.mp4"]


def test_the_video_is_the_same_with_and_without_them(make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    make()
    alone = (tmp_path / "a.mp4").read_bytes()
    make(poster="first", contact_sheet=True)
    assert (tmp_path / "a.mp4").read_bytes() == alone


def test_a_frame_that_went_with_images_left_out_gives_way_to_the_last(make: Make, tmp_path: Path) -> None:
    (tmp_path / "4.png").write_bytes(b"no picture")
    made = make(on_error="skip", poster={"frame": 19, "format": "png"}, contact_sheet={"columns": 5, "width": 96})
    assert [warning.type for warning in made.warnings] == ["image_skipped", "poster_moved"]
    assert np.abs(pixels_of(tmp_path / "a.poster.png") - frames_of(tmp_path / "a.mp4")[-1]).mean() < 2.5
    assert made.contact_sheet.width == 4 * 104 - 8


class OneThatFails(X264Encoder):
    def flush(self) -> Any:
        raise EncodeFailed("the encoder failed at the end")


def job_of(stills: list[dict[str, Any]], directory: Path, **fields: Any) -> Any:
    request = parse_request({"images": stills, **fields})
    return render_job(request, RequestLimits(), FetchSettings(), Origin(base=directory))


def test_an_attempt_that_fails_leaves_none_of_them(stills: list[dict[str, Any]], tmp_path: Path) -> None:
    job = job_of(stills, tmp_path, poster="first", contact_sheet=True)
    with pytest.raises(EncodeFailed):
        render_whole(job, tmp_path / "a.mp4", open_encoder=OneThatFails)
    assert not list(tmp_path.glob("a.*"))


def test_a_full_disk_leaves_neither_video_nor_pictures(stills: list[dict[str, Any]], small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(bytes(990_000))
    job = job_of(stills, small_disk.parent, contact_sheet={"width": 640, "columns": 1, "format": "png"}, width=1280)
    with pytest.raises(StorageFull):
        render_whole(job, small_disk / "a.mp4")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_stills_of_earlier_jobs_are_composed_for_them_and_not_coded_again(
    stills: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    cache = StillCache(tmp_path / "kept", tmp_path / "kept")
    settings = RenderSettings(encode=EncodeSettings(threads=1))
    held = [{**still, "frames": 24} for still in stills]
    wishes = {"poster": {"frame": 30, "format": "png"}, "contact_sheet": {"format": "png"}}
    found = []
    for number, fields in enumerate((wishes, wishes, {"poster": wishes["poster"]})):
        (tmp_path / str(number)).mkdir()
        job = job_of(held, tmp_path, **fields)
        report = render_whole(job, tmp_path / str(number) / "a.mp4", settings, cache=cache)
        found.append((report.stills_coded, report.stills_found, len(report.images)))
    assert found == [(5, 0, 2), (0, 5, 2), (0, 5, 1)]
    for name in ("a.poster.png", "a.contact_sheet.png"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    assert (tmp_path / "0" / "a.poster.png").read_bytes() == (tmp_path / "2" / "a.poster.png").read_bytes()


def test_none_of_the_pictures_is_an_input(make: Make, tmp_path: Path) -> None:
    os.link(tmp_path / "0.png", tmp_path / "a.poster.png")
    with pytest.raises(ConfigError, match=r"a\.poster\.png is an input, 0\.png"):
        make(poster={"format": "png"})


def test_beside_a_link_they_lie_where_the_video_lies(make: Make, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.mp4").symlink_to(tmp_path / "there" / "b.mp4")
    made = make(poster="first")
    assert made.video.url == (tmp_path / "a.mp4").as_uri()
    assert made.poster.url == (tmp_path / "there" / "b.poster.jpg").as_uri()
    assert (tmp_path / "there" / "b.poster.jpg").exists()


def test_the_command_line_makes_them_beside_the_video(stills: list[dict[str, Any]], tmp_path: Path) -> None:
    words = ["render", "0.png", "1.png", "--set", "poster=first", "--set", "contact_sheet=true"]
    done = run(*words, "-o", "my video.mp4", cwd=tmp_path)
    names = ("my video.mp4", "my video.poster.jpg", "my video.contact_sheet.jpg")
    assert done.stdout.splitlines()[:3] == [(tmp_path / name).as_uri() for name in names]
    assert all((tmp_path / name).stat().st_size for name in names)
    line = failed(run(*words, "-o", "-", cwd=tmp_path), 2)
    assert "expected no poster and no contact_sheet, or a file for the video" in line


def test_a_batch_makes_them_beside_its_videos_and_again_if_they_are_gone(
    stills: list[dict[str, Any]], tmp_path: Path
) -> None:
    words = ["batch", "pictures", "--out", "out", "--hold", "2", "--set", "poster=first", "--json"]
    (tmp_path / "pictures").mkdir()
    for number in range(2):
        (tmp_path / f"{number}.png").rename(tmp_path / "pictures" / f"{number}.png")
    assert run(*words, cwd=tmp_path).returncode == 0
    [poster] = (tmp_path / "out").rglob("*.poster.jpg")
    [video] = (tmp_path / "out").rglob("*.mp4")
    assert poster.name == f"{video.stem}.poster.jpg"
    assert run(*words, cwd=tmp_path).returncode == 0
    made_at = video.stat().st_mtime_ns
    poster.unlink()
    assert run(*words, cwd=tmp_path).returncode == 0
    assert poster.exists()
    assert video.stat().st_mtime_ns != made_at
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3
