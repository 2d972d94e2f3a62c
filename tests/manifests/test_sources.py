"""What people type for a video: images in every way that they lie there, lists of ffmpeg's, and what is missing."""

import os
from pathlib import Path
from typing import Any

import pytest

from renderer import render
from renderer.errors import ConfigError, InvalidRequest, UnsupportedFormat
from renderer.manifests.numbering import natural, parse_pattern
from renderer.manifests.read import fields_of, from_concat, is_concat
from renderer.manifests.sources import Asked, Wishes, ask

JPEG_XR = b"II\xbc\1\x20\0\0\0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> list[str]:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return list(names)


def shown(*sources: str, **wishes: Any) -> list[str]:
    """What would be shown, relative to here."""
    asked = ask(sources, Wishes(**wishes))
    return [os.path.relpath(image["url"]) for image in asked.fields["images"]]


def refused(*sources: str, **wishes: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        ask(sources, Wishes(**wishes))
    return raised.value.message


def held(asked: Asked) -> list[int]:
    return [image["frames"] for image in asked.fields["images"]]


def messages(asked: Asked) -> list[str]:
    return [warning.message for warning in asked.warnings]


# The order.


def test_names_are_sorted_as_people_count() -> None:
    names = ["f_10.png", "f_-10.png", "f_0.png", "f_2.png", "f_-2.png"]
    assert sorted(names, key=natural) == ["f_-10.png", "f_-2.png", "f_0.png", "f_2.png", "f_10.png"]
    assert sorted(["img-10.png", "img-2.png"], key=natural) == ["img-2.png", "img-10.png"]
    assert sorted(["第１０話.png", "第２話.png", "第1話.png"], key=natural) == [
        "第1話.png",
        "第２話.png",
        "第１０話.png",
    ]


def test_what_a_shell_wrote_out_is_put_in_order_and_what_was_typed_stays() -> None:
    touch("img1.png", "img2.png", "img10.png")
    assert shown("img1.png", "img10.png", "img2.png") == ["img1.png", "img2.png", "img10.png"]
    assert shown("img2.png", "img10.png", "img1.png") == ["img2.png", "img10.png", "img1.png"]
    alphabetical = ["img1.png", "img10.png", "img2.png"]
    assert shown(*alphabetical, keeps_order=True) == alphabetical


def test_an_image_that_is_named_twice_is_shown_twice() -> None:
    touch("b.png", "a.png")
    assert shown("b.png", "a.png", "b.png") == ["b.png", "a.png", "b.png"]


# Directories, globs, patterns.


def test_a_directory_is_its_images_and_other_pictures_are_named() -> None:
    touch("d/2.png", "d/10.png", "d/x.eps", "d/raw.CR3", "d/notes.txt", "d/.hidden.png")
    asked = ask(["d"], Wishes())
    assert [Path(image["url"]).name for image in asked.fields["images"]] == ["2.png", "10.png"]
    [words] = messages(asked)
    assert words.startswith("d: ")
    assert "raw.CR3" in words
    assert "notes.txt" not in words


def test_a_directory_without_images_is_refused_with_what_it_has_instead() -> None:
    touch("d/a.svg", "d/b.txt")
    assert refused("d") == (
        "d: expected a directory with images, found none; "
        "1 picture is left out, of a format that is not read here: a.svg"
    )


def test_a_glob_that_the_shell_left_alone_is_searched() -> None:
    touch("a10.png", "a9.png", "a.txt", "sub/a1.png")
    assert shown("a*") == ["a9.png", "a10.png"]
    assert shown("**/*.png") == ["a9.png", "a10.png", "sub/a1.png"]
    assert refused("*.jpg") == "*.jpg: no image has such a name"


def test_a_pattern_is_its_numbers_in_order_from_the_lowest_or_from_start() -> None:
    touch("f_-001.png", "f_0000.png", "f_0001.png", "f_0002.png", "f_12345.png", "f_2.png", "f_0003.jpg")
    assert shown("f_%04d.png", start=0) == ["f_0000.png", "f_0001.png", "f_0002.png", "f_12345.png"]
    assert shown("f_%04d.png")[0] == "f_-001.png"
    assert shown("f_%d.png") == ["f_2.png", "f_12345.png"]
    assert refused("f_%04d.png", start=7) == (
        "f_%04d.png: expected a file with the number 7, where --start begins, found none"
    )
    assert refused("g_%04d.png") == "g_%04d.png: no file has such a name"
    assert refused("nowhere/%d.png") == "nowhere/%d.png: no file has such a name"


def test_a_file_that_is_called_like_a_pattern_is_itself() -> None:
    touch("100%d.png", "100%1.png", "a[1].png")
    assert shown("100%d.png") == ["100%d.png"]
    assert shown("a[1].png") == ["a[1].png"]
    pattern = parse_pattern("100%%_%02d.png")
    assert pattern
    assert (pattern.number("100%_07.png"), pattern.number("100%_7.png")) == (7, None)
    assert parse_pattern("%d_%d.png") is None


def test_names_that_are_no_text_or_have_colons_are_found_again(here: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    touch("a:b.png", odd)
    colon, bytes_ = (image["url"] for image in ask(["a:b.png", odd], Wishes()).fields["images"])
    assert colon == str(here / "a:b.png")
    assert bytes_ == f"file://{here}/caf%E9.png"


def test_all_names_that_fit_nothing_are_told_at_once() -> None:
    touch("a.png")
    assert refused("gone", "a.png", "*.jpg", "no/f_%d.png") == (
        "gone: no such file; *.jpg: no image has such a name; no/f_%d.png: no file has such a name"
    )
    assert refused("x.png", "y.png") == "x.png: no such file; y.png: no such file"
    told = refused(*(f"{number}.png" for number in range(30)))
    assert told.count("no such file") == 20
    assert told.endswith("; and 10 more faults")


def test_a_missing_image_among_others_is_left_to_who_opens_them_and_names_all_that_are_bad(here: Path) -> None:
    touch("a.png")
    assert shown("a.png", "gone.png", "b.JPG") == ["a.png", "gone.png", "b.JPG"]


def test_what_fits_nothing_is_refused_by_name() -> None:
    touch("a.png", "b.json")
    assert refused("missing.png") == "missing.png: no such file"
    assert refused("a.png", "b.json") == "expected images, or one manifest alone; found b.json among 2 names"
    assert (
        refused("b.json", hold={"frames": 2})
        == "--hold is for images; b.json is a manifest, which has frames or duration for every image"
    )
    assert refused("a.png", start=1) == (
        "--start is the first number of a pattern such as frames_%04d.png; found no pattern"
    )


@pytest.mark.parametrize("content", ['\ufeff \n {"images": []}', "ffconcat version 1.0\nfile a.png\n"])
def test_a_file_whose_name_does_not_tell_is_a_manifest_if_it_begins_like_one(here: Path, content: str) -> None:
    (here / "reel.txt").write_text(content, "utf-8")
    assert ask(["reel.txt"], Wishes()).manifest == Path("reel.txt")
    (here / "reel.txt").write_text('{"images": [', "utf-8")
    assert refused("reel.txt").startswith("manifest reel.txt: ")


@pytest.mark.parametrize("name", ["a.jxr", "a.cr2", "a.nef", "a.dng", "a.mov", "a.heics", "a.pdf", "a.svg", "a", "a.t"])
def test_any_other_file_is_an_image_whose_content_says_what_it_is(here: Path, name: str) -> None:
    for content in (b"<svg/>", b"II*\0\x10", b"some words", b"", JPEG_XR):
        (here / name).write_bytes(content)
        assert shown(name) == [name]
    with pytest.raises(UnsupportedFormat, match="found a JPEG XR image"):
        render(ask([name], Wishes()).fields, here / "out.mp4")


def test_a_pipe_is_a_manifest_that_is_not_read_twice(here: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"images": [{"url": "a.png"}]}')
    os.close(writing)
    try:
        assert ask([f"/dev/fd/{reading}"], Wishes()).fields == {"images": [{"url": "a.png"}]}
    finally:
        os.close(reading)


def test_a_glob_names_the_pictures_that_it_leaves_out() -> None:
    touch("a.png", "b.jxr", "c.dng", "notes.txt", "d.pdf")
    asked = ask(["*"], Wishes())
    assert messages(asked) == ["*: 2 pictures are left out, of a format that is not read here: b.jxr, c.dng"]
    assert refused("*.jxr") == (
        "*.jxr: no image has such a name; 1 file is left out, of a format that is not read here: b.jxr"
    )
    assert refused("*.pdf").endswith("; 1 file is left out, of a format that is not read here: d.pdf")


# Gaps: what is missing is told, or held, where the request is laid out (test_numbering.py).


def test_a_pattern_says_itself_that_it_is_a_sequence() -> None:
    touch("f1.png", "f2.png", "f9.png")
    assert messages(ask(["f%d.png"], Wishes()))[0].startswith("6 numbers are missing from the images' names: 3, 4, 5,")
    assert not ask(["f%d.png"], Wishes(overrides={"gaps": "close"})).warnings


def test_what_the_request_itself_will_warn_of_is_not_said_twice() -> None:
    touch("f1.png", "f2.png", "f4.png")
    assert not ask(["f%d.png"], Wishes()).warnings


# ffmpeg's lists.


def test_a_concat_list_is_its_files_and_durations() -> None:
    text = "ffconcat version 1.0\n# shots\nfile 'a b.png'\nduration 1.5\nfile it\\'s.png\nduration 0:02\nfile c.png\n"
    assert from_concat(text) == {
        "images": [{"url": "a b.png", "duration": 1.5}, {"url": "it's.png", "duration": 2.0}, {"url": "c.png"}]
    }
    assert fields_of(text, "x.txt") == fields_of(text, "-") == fields_of(text, "x.ffconcat") == from_concat(text)


def test_the_last_image_that_a_list_names_twice_is_shown_once() -> None:
    twice = "file 'a.png'\nduration 1\nfile 'b.png'\nduration 2\nfile 'b.png'\n"
    assert [image.get("duration") for image in from_concat(twice)["images"]] == [1.0, 2.0]
    assert len(from_concat("file a.png\nfile a.png\n")["images"]) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file a.png\ninpoint 3", 'line 2: expected "file" or the "duration" of one, found \'inpoint 3\''),
        ("duration 3", 'line 1: expected "file" or the "duration" of one, found \'duration 3\''),
        ("file a.png\nduration soon", "line 2: expected a duration such as 1.5 or 0:01.5, found 'soon'"),
        ("file a b.png", "line 1: expected one name, in single quotes if it has spaces, found 'a b.png'"),
        ("ffconcat version 1.0\n", "expected a line such as file 'a.png' for every image, found none"),
    ],
)
def test_a_wrong_concat_list_says_where(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        from_concat(text)
    assert raised.value.message == words


def test_json_is_not_taken_for_a_list() -> None:
    assert not is_concat('{"images": []}')
    assert not is_concat("")
