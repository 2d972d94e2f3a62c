"""Every format of manifest becomes the same request, and a fault in one names its line."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from renderer.config import FetchSettings
from renderer.errors import ConfigError, InvalidRequest, StillreelError
from renderer.intake import parse_request
from renderer.manifests.read import is_manifest, is_manifest_name, load_manifest, read_manifest
from renderer.manifests.sources import directory_manifest, images_in, is_image_name, parse_hold
from renderer.manifests.still import parse_overrides
from renderer.pictures.fetch import Fetcher
from renderer.pictures.recognise import _FORMATS

Write = Callable[..., Path]

IMAGES = [{"url": "a.png", "frames": 24}, {"url": "b c.jpg", "duration": 1.5}]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a manifest: write("a.csv", "url,frames\\n...")."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def fault(path: Path, kind: type[StillreelError], **options: Any) -> str:
    """Read a manifest that is at fault; return the message, which names the file."""
    with pytest.raises(kind) as raised:
        read_manifest(path, **options)
    message = str(raised.value)
    assert message.startswith(f"manifest {path}: ")
    return message.removeprefix(f"manifest {path}: ")


# JSON.


@pytest.mark.parametrize("name", ["a.json", "a.JSON", "a", "a.txt"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
def test_json_is_the_request_itself(write: Write, name: str, mark: bytes) -> None:
    request = {"images": IMAGES, "fps": 30}
    assert read_manifest(write(name, mark + json.dumps(request).encode())) == request


def test_a_dash_is_json_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"fps": 25}')))
    assert read_manifest(Path("-")) == {"fps": 25}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected JSON: the text ends where a value was expected at line 1 column 0"),
        ('{"images":\n [}', "expected JSON: expected a value, found something else at line 2 column 3"),
        ("[1]", "expected a JSON object, found [1]"),
        ('{"fps": NaN}', "expected JSON: expected a value, found something else at line 1 column 9"),
        ('{"fps": 1e999}', "expected numbers within the range of a double"),
        ("[" * 100_000, "expected JSON: more than 200 levels of nesting"),
    ],
)
def test_broken_json_says_where(write: Write, text: str, words: str) -> None:
    assert fault(write("a.json", text), ConfigError).startswith(words)


# JSON Lines.


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "A.JSONL"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"], ids=["lf", "crlf", "blank-lines"])
def test_json_lines_are_images_one_a_line(write: Write, name: str, end: str) -> None:
    lines = [json.dumps(image) for image in IMAGES]
    assert read_manifest(write(name, end.join(lines) + end)) == {"images": IMAGES}


def test_the_first_json_line_may_hold_the_other_fields(write: Write) -> None:
    lines = [json.dumps(each) for each in ({"fps": 30, "crf": 18}, *IMAGES)]
    assert read_manifest(write("a.jsonl", "\n".join(lines))) == {"fps": 30, "crf": 18, "images": IMAGES}


def test_a_json_line_may_hold_what_unicode_calls_a_line_separator(write: Write) -> None:
    manifest = read_manifest(write("a.jsonl", '{"url": "a\u2028b\x85.png"}\n'))
    assert manifest == {"images": [{"url": "a\u2028b\x85.png"}]}


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            '{"url": "a"}\n\n{"url": }',
            ConfigError,
            "line 3: expected JSON: expected a value, found something else at column 9",
        ),
        ('{"url": "a"}\n["b"]', ConfigError, "line 2: expected a JSON object, found ['b']"),
        ('{"url": "a"}\n{"url": "b", "duration": 1e999}', ConfigError, "line 2: expected numbers within the range"),
        ('{"url": "a"}\n{"fps": 24}', InvalidRequest, "line 2: url: expected a value, found none"),
        ('{"url": "a", "frames": 0}', InvalidRequest, "line 1: frames: expected at least 1"),
        ('{"url": "a", "frames": 2.5}', InvalidRequest, "line 1: frames: expected a whole number"),
        ('{"url": "a", "hold": 2}', InvalidRequest, "line 1: hold: no such field"),
        (
            '{"url": "a", "frames": 1, "duration": 1}',
            InvalidRequest,
            "line 1: expected frames or duration",
        ),
        (
            '\n{"images": []}\n{"url": "a"}',
            InvalidRequest,
            'line 2: expected the images on lines of their own, found "',
        ),
        ('{"fps": 24}', InvalidRequest, "expected a line such as"),
        ("", InvalidRequest, "expected a line such as"),
    ],
)
def test_a_wrong_json_line_is_named(write: Write, text: str, kind: type[StillreelError], words: str) -> None:
    assert fault(write("a.jsonl", text), kind).startswith(words)


# CSV.


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
def test_csv_is_a_header_and_images_one_a_row(write: Write, delimiter: str, end: str, mark: str) -> None:
    rows = [("URL", " frames", "duration"), ("a.png", "24", ""), ("b c.jpg", "", "1.5"), ("", "", "")]
    text = mark + end.join(delimiter.join(cells) for cells in rows) + end
    assert read_manifest(write("a.csv", text)) == {"images": IMAGES}


def test_csv_of_urls_alone_shows_each_for_a_frame(write: Write) -> None:
    request = parse_request(read_manifest(write("a.csv", "url\nhttps://example.org/a;b|c.png\nb.png\n")))
    assert [(image.url, image.frames) for image in request.images] == [
        ("https://example.org/a;b|c.png", 1),
        ("b.png", 1),
    ]


def test_csv_may_quote_delimiters_quotes_and_ends_of_lines(write: Write) -> None:
    manifest = read_manifest(write("a.csv", '"url";"frames"\n"a;""b""\nc.png";3\n'))
    assert manifest == {"images": [{"url": 'a;"b"\nc.png', "frames": 3}]}


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("", InvalidRequest, "line 1: expected a header row such as url,frames or url,duration, found ''"),
        ("a.png,24\n", InvalidRequest, "line 1: expected a header row such as url,frames or url,duration, found 'a.p"),
        ("url,frame\n", InvalidRequest, "line 1: expected the columns url, frames, duration and title, found 'frame'"),
        ("\nurl,url\n", InvalidRequest, "line 2: expected the columns url, frames, duration and title, found 'url'"),
        ("url,frames\n", InvalidRequest, "expected a row for every image below the header, found none"),
        ("url,frames\na,1\n\nb\n", InvalidRequest, "line 4: expected 2 columns, found 1"),
        ("url,frames\na,1\nb,x\n", InvalidRequest, "line 3: frames: expected a whole number, found"),
        (
            "url,frames\na,1\nb,0\n",
            InvalidRequest,
            "line 3: frames: expected at least 1, found ",
        ),
        ("url;duration\na;1,5\n", InvalidRequest, "line 2: duration: expected a number, found"),
        ("url,duration\na,nan\n", InvalidRequest, "line 2: duration: expected a finite number"),
        ("url,duration\na,1e999\n", InvalidRequest, "line 2: duration: expected a finite number"),
        (
            "url,frames,duration\na,1,1\n",
            InvalidRequest,
            "line 2: expected frames or duration, found both",
        ),
        ("url,frames\n,1\n", InvalidRequest, "line 2: url: expected a value, found none"),
        ('url,frames\n"a\nb",1\n"c\nd",x\n', InvalidRequest, "line 4: frames: expected a whole number"),
        ('url,frames\na,1\n"b,2\n', ConfigError, "line 3: expected CSV: a quote is opened and never closed"),
        ('url,frames\n"a"b,2\n', ConfigError, "line 2: expected CSV: "),
    ],
)
def test_a_wrong_csv_line_is_named(write: Write, text: str, kind: type[StillreelError], words: str) -> None:
    assert fault(write("a.csv", text), kind).startswith(words)


# All formats.


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_what_is_no_text_says_which_line(write: Write, suffix: str) -> None:
    path = write(f"a.{suffix}", "url\nä".encode() + "ä\n".encode("latin-1"))
    assert fault(path, ConfigError) == "line 2: expected text in UTF-8, found another encoding"


def test_a_manifest_that_is_too_large_is_refused(write: Write) -> None:
    path = write("a.json", "{}" + " " * 100)
    assert read_manifest(path, max_bytes=102) == {}
    assert fault(path, ConfigError, max_bytes=101) == "expected at most 101 bytes, found more"


def test_a_manifest_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert fault(tmp_path / "missing.json", ConfigError) == "it cannot be read: No such file or directory"
    assert fault(tmp_path, ConfigError) == "it cannot be read: Is a directory"


def test_overrides_win_over_the_manifest(write: Write) -> None:
    path = write("a.jsonl", '{"fps": 24, "crf": 18}\n{"url": "a.png"}\n')
    assert load_manifest(path, {"fps": 30}) == {"fps": 30, "crf": 18, "images": [{"url": "a.png"}]}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", '{"images": []}', True),
        ("a.json", '{"video": {}}', False),
        ("a.json", "{", True),
        ("a.csv", "x", False),
        ("a.csv", "url\na.png", True),
        ("a.csv", "url,hold\na.png,1", True),
        ("a.jsonl", '{"level": "info"}\n', False),
        ("a.jsonl", '{"fps": 30}\n{"url": "a.png"}\n', True),
        ("a.jsonl", "", True),
    ],
)
def test_a_file_without_images_is_no_manifest(write: Write, name: str, content: str, expected: bool) -> None:
    assert is_manifest(write(name, content)) is expected


def test_manifests_are_told_by_their_names() -> None:
    assert all(map(is_manifest_name, ("a.json", "a.JSONL", "a.ndjson", "a.b.csv")))
    assert not any(map(is_manifest_name, (".a.json", "a.json.part", "a.json.tmp", "a.png", "json")))


# Directories.


def test_images_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    names = ["IMG1.png", "img2.png", "img02b.png", "img10.png", "img10a.JPG", "z.webp"]
    for name in (*reversed(names), ".hidden.png", "a.png.part", "a.tmp", "notes.txt", "a.json"):
        (tmp_path / name).touch()
    (tmp_path / "directory.png").mkdir()
    assert [path.name for path in images_in(tmp_path)] == names


def test_every_format_that_is_read_is_known_by_its_suffixes() -> None:
    Image.init()
    moving = {".apng", ".avifs"}
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in _FORMATS} - moving
    assert {suffix for suffix in suffixes if not is_image_name(f"a{suffix}")} == set()
    assert all(map(is_image_name, ("a.hdr", "a.pic", "a.pfm", "a.sr", "a.ras", "a.jxl", "a.AVIF")))
    assert not any(map(is_image_name, ("a.mp4", "a.jxr", "a.svg", "a", "png", ".png")))


def test_a_directory_is_a_request_that_holds_each_image_alike(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).touch()
    manifest = directory_manifest(tmp_path, {"frames": 3}, {"fps": 30})
    assert manifest == {"images": [{"url": "./a.png", "frames": 3}, {"url": "./b.png", "frames": 3}], "fps": 30}


@pytest.mark.parametrize("name", [b"http:a.png", b"a%41 #?.png", b"\xff\xfe.png", b"a\nb.png", "ä.png".encode()])
def test_a_file_of_any_name_is_found_again(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"content")
    [image] = parse_request(directory_manifest(tmp_path, {"frames": 1})).images
    assert Fetcher(FetchSettings(), base=tmp_path, any_path=True).fetch(image.url) == b"content"


def test_a_directory_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="expected a directory with images, found none"):
        directory_manifest(tmp_path, {"frames": 1})
    with pytest.raises(ConfigError, match="it cannot be read: No such file"):
        directory_manifest(tmp_path / "missing", {"frames": 1})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24", {"frames": 24}), (" 1 ", {"frames": 1}), ("1.5s", {"duration": 1.5}), ("2s", {"duration": 2.0})],
)
def test_a_hold_is_frames_or_seconds(text: str, expected: dict[str, object]) -> None:
    assert parse_hold(text) == expected


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1.5", "s", "1e3s", "nan", "infs", "٣", "9999999999", "1 s 2"])
def test_another_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_hold(text)
    assert raised.value.message.startswith(f"--hold {text}: ")


# --set.


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.csv",
            "url,frames\na,x\nb,1\nc,0,9\nd,0\n",
            (
                "line 2: frames: expected a whole number, found 'x'; line 4: expected 2 columns, found 3; "
                "line 5: frames: expected at least 1, found '0'"
            ),
        ),
        (
            "a.csv",
            "url,framse\na,1\n",
            "line 1: expected the columns url, frames, duration and title, found 'framse'; did you",
        ),
        (
            "a.jsonl",
            '{"url": "a", "frame": 1}\n{"url": "b"}\n{"url": "c", "frames": 0}\n',
            "line 1: frame: no such field; did you mean frames?; line 3: frames: expected at least 1, found 0",
        ),
        (
            "a.ffconcat",
            "file a b\noutpoint 1\nfile c\nduration soon\n",
            (
                "line 1: expected one name, in single quotes if it has spaces, found 'a b'; "
                'line 2: expected "file" or the "duration" of one, found \'outpoint 1\'; '
                "line 4: expected a duration such as 1.5 or 0:01.5, found 'soon'"
            ),
        ),
    ],
)
def test_all_lines_at_fault_are_told_at_once(write: Write, name: str, text: str, words: str) -> None:
    path = write(name, text)
    with pytest.raises(InvalidRequest) as raised:
        read_manifest(path)
    assert str(raised.value).startswith(f"manifest {path}: {words}")


def test_twenty_lines_at_fault_are_told_and_no_further_one_is_looked_at(write: Write) -> None:
    path = write("a.csv", "url,frames\n" + "a,0\n" * 500)
    with pytest.raises(InvalidRequest) as raised:
        read_manifest(path)
    assert str(raised.value).count("found '0'") == 20
    assert str(raised.value).endswith(
        "; line 21: frames: expected at least 1, found '0'; later lines were not looked at"
    )


def test_all_set_values_that_no_request_may_have_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_overrides(["fsp=30", "crf=99", "crff=1"])
    for words in (
        "--set fsp=30: ",
        "did you mean fps?; --set crff=1: ",
        "did you mean crf?; --set crf: expected at most",
    ):
        assert words in raised.value.message


def test_a_set_value_is_json_or_else_text() -> None:
    assignments = ["fps=30000/1001", "crf=18", "background=#112233", "upscale=false", 'metadata={"a": [1]}', "crf=19"]
    assert parse_overrides(assignments) == {
        "fps": "30000/1001",
        "crf": 19,
        "background": "#112233",
        "upscale": False,
        "metadata": {"a": [1]},
    }
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("fps", "--set fps: a value is missing, as in fps=30"),
        ("fsp=3", "--set fsp=3: expected NAME=VALUE, where NAME is one of fps, min_frames, width"),
        ("rate=30", "--set rate=30: expected NAME=VALUE"),
        ("images=[]", "--set images=[]: expected NAME=VALUE"),
        ("fps=fast", "--set fps: expected a number, a fraction"),
        ("crf=1000", "--set crf: expected at most 51, found 1000"),
        ("fps=1e999", "--set fps: expected a finite number"),
        ('metadata={"a": 1e999}', "--set: expected numbers within the range of a double"),
    ],
)
def test_a_set_value_that_no_request_may_have_is_refused(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_overrides([assignment])
    assert raised.value.message.startswith(words)
