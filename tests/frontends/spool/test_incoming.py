"""Reading manifests that anybody may have put there."""

import os
import re
import socket
from pathlib import Path

import pytest

from renderer.errors import FileTooLarge, InvalidRequest, JobError
from renderer.frontends.spool.incoming import read_fields, waiting
from tests.manifest_directory import as_nobody, everybodys_directory

MAX_BYTES, MAX_IMAGES = 10_000, 100


def refusal(path: Path) -> str:
    with pytest.raises(JobError) as caught:
        read_fields(path, MAX_BYTES, MAX_IMAGES)
    assert str(path.parent) not in str(caught.value)
    return str(caught.value)


def test_a_manifest_is_a_json_object(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"images": [{"url": "ü.png"}]}', encoding="utf-8")
    assert read_fields(tmp_path / "m.json", MAX_BYTES, MAX_IMAGES) == {"images": [{"url": "ü.png"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "manifest: expected a JSON document in UTF-8: the text ends"),
        (
            b'{"images": [',
            "manifest: expected a JSON document in UTF-8: the text ends within a list at line 1 column 12",
        ),
        (b"{} {}", "manifest: expected a JSON document in UTF-8: something follows the end"),
        (b'{"a": "\xff"}', "manifest: expected a JSON document in UTF-8: "),
        ('{"a": 1}'.encode("utf-16"), "manifest: expected a JSON document in UTF-8: "),
        (b'{"a": NaN}', "manifest: expected a JSON document in UTF-8: "),
        (b"[" * 5000, "manifest: expected a JSON document in UTF-8: more than 200 levels of nesting"),
        (b'{"a": "\\ud800"}', "manifest: expected a JSON document in UTF-8: "),
        (b"\0" * 50, "manifest: expected a JSON document in UTF-8: "),
        (b"[1]", "manifest: expected a JSON object, found an array"),
        (b'"text"', "manifest: expected a JSON object, found a string"),
        (b"null", "manifest: expected a JSON object, found null"),
        (b"true", "manifest: expected a JSON object, found a boolean"),
        (b"7", "manifest: expected a JSON object, found a number"),
        (b'{"metadata": {"a": 1e999}}', "manifest: expected numbers within the range of a double"),
    ],
)
def test_what_is_no_json_object_is_refused_in_words(tmp_path: Path, text: bytes, words: str) -> None:
    (tmp_path / "m.json").write_bytes(text)
    assert refusal(tmp_path / "m.json").startswith(words)


def test_a_manifest_is_known_by_the_end_of_its_name_in_letters_of_any_case(tmp_path: Path) -> None:
    for name in ("A.JSON", "b.Csv", "c.JSONL", "d.FFConcat", "e.JPG", "f.json.TMP"):
        (tmp_path / name).touch()
    found = {each.entry: (each.name, each.manifest) for each in waiting(tmp_path)}
    assert found == {
        "A.JSON": ("A", "manifest.json"),
        "b.Csv": ("b", "manifest.csv"),
        "c.JSONL": ("c", "manifest.jsonl"),
        "d.FFConcat": ("d", "manifest.ffconcat"),
    }


@pytest.mark.parametrize("kind", ["a symbolic link", "a directory", "a FIFO", "a socket", "a device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.json"
    if kind == "a symbolic link":
        (tmp_path / "secret.json").write_text("{}")
        path.symlink_to(tmp_path / "secret.json")
    elif kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    else:
        path = Path("/dev/zero")
    assert refusal(path) == f"manifest: expected a regular file, found {kind}"


def test_a_link_that_leads_nowhere_or_to_itself_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.json").symlink_to("a.json")
    (tmp_path / "b.json").symlink_to("nothing")
    for name in ("a.json", "b.json"):
        assert refusal(tmp_path / name) == "manifest: expected a regular file, found a symbolic link"


def test_what_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("{}")
    os.truncate(path, 1 << 40)  # no machine could read it
    with pytest.raises(FileTooLarge, match=re.escape(f"manifest: expected at most {MAX_BYTES} bytes, found {1 << 40}")):
        read_fields(path, MAX_BYTES, MAX_IMAGES)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("{}".ljust(MAX_BYTES))
    assert read_fields(path, MAX_BYTES, MAX_IMAGES) == {}
    path.write_text("{}".ljust(MAX_BYTES + 1))
    assert refusal(path) == f"manifest: expected at most {MAX_BYTES} bytes, found {MAX_BYTES + 1} or more"


def test_what_holds_more_than_its_size_says_is_refused_at_the_limit() -> None:
    assert Path("/proc/cpuinfo").stat().st_size == 0  # as of a file that grows while it is read
    with pytest.raises(FileTooLarge, match="manifest: expected at most 10 bytes, found 11 or more"):
        read_fields(Path("/proc/cpuinfo"), 10, MAX_IMAGES)


def test_what_may_not_be_read_is_refused() -> None:
    with everybodys_directory() as directory:
        path = directory / "m.json"
        path.write_text("{}")
        path.chmod(0)
        with as_nobody():
            assert refusal(path) == "manifest: expected a file that the daemon may read, found one that it may not"


def test_what_has_vanished_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_fields(tmp_path / "gone.json", MAX_BYTES, MAX_IMAGES)


def test_an_error_that_is_the_manifests_is_an_invalid_request(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("[]")
    with pytest.raises(InvalidRequest) as caught:
        read_fields(tmp_path / "m.json", MAX_BYTES, MAX_IMAGES)
    assert (caught.value.fault().type, caught.value.fault().retryable) == ("invalid_params", False)
