"""A tree is walked in one order, past what is hidden, linked or an output."""

import os
from pathlib import Path, PurePath

import pytest

from renderer.batch.trees import Found, discover


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "reels"
    root.mkdir()
    return root


def touch(root: Path, *names: str, content: str = "") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(root: Path, out: Path | None = None, *, with_directories: bool = False) -> list[Found]:
    out = out or root.parent / "out"
    out.mkdir(exist_ok=True)
    return list(discover(root, out, with_directories=with_directories))


def names(*arguments: Path, with_directories: bool = False) -> list[str]:
    return [each.name for each in found(*arguments, with_directories=with_directories)]


def test_manifests_are_found_in_order(root: Path) -> None:
    touch(root, "b.json", "a.csv", "c/d/e.jsonl", "c/a.ndjson", "b/z.JSON", "notes.txt", "a.png")
    assert names(root) == ["a.csv", "b.json", "b/z.JSON", "c/a.ndjson", "c/d/e.jsonl"]


def test_what_is_hidden_or_half_written_is_left_out(root: Path) -> None:
    touch(root, ".a.json", ".git/a.json", "a.json.part", "a.json.tmp", "a.part", "b.json")
    assert names(root) == ["b.json"]


def test_the_outputs_are_left_out_wherever_they_are(root: Path) -> None:
    touch(root, "a.json", "out/b.json", "c/out/d.json")
    assert names(root, root / "out") == ["a.json", "c/out/d.json"]
    (root / "link").symlink_to(root / "c" / "out")
    assert names(root, root / "link") == ["a.json", "out/b.json"]
    assert names(root, root) == ["a.json", "c/out/d.json", "out/b.json"]


def test_links_to_files_are_followed_and_to_directories_not(root: Path) -> None:
    touch(root.parent, "elsewhere/a.json")
    (root / "a.json").symlink_to(root.parent / "elsewhere" / "a.json")
    (root / "b").symlink_to(root.parent / "elsewhere")
    (root / "c").symlink_to(root)
    (root / "nowhere.json").symlink_to(root / "missing")
    assert names(root) == ["a.json", "nowhere.json"]


def test_what_is_no_file_is_left_out(root: Path) -> None:
    (root / "a.json").mkdir()
    os.mkfifo(root / "b.json")
    assert names(root) == []


def test_a_directory_that_cannot_be_searched_is_told(root: Path) -> None:
    root.rmdir()
    root.touch()
    [only] = found(root)
    assert only.refusal == "the directory cannot be searched: Not a directory"


def test_directories_of_images_are_found_where_no_manifest_is_beside_them(root: Path) -> None:
    touch(root, "top.png", "a/1.png", "b/1.png", "c/d/1.jpg", "e/notes.txt", "f/.hidden.png")
    touch(root, "b/reel.csv", content="url\n1.png")
    touch(root, "g/1.png", "g/camera.json", content="{}")
    touch(root, "h/1.png", "h/reel.json", content='{"images": []}')
    touch(root, "i/1.png", "i/broken.json", content="{")
    assert names(root, with_directories=True) == [
        ".",
        "a",
        "b/reel.csv",
        "c/d",
        "g/camera.json",
        "g",
        "h/reel.json",
        "i/broken.json",
    ]


def test_outputs_are_named_after_manifests_and_directories(root: Path) -> None:
    touch(root, "top.png", "a/1.png", "b/v1.2.csv")
    stems = [each.stem for each in found(root, with_directories=True)]
    assert stems == [PurePath("reels"), PurePath("a"), PurePath("b/v1.2")]


def test_directories_of_copies_are_passed_over(root: Path) -> None:
    touch(root, "a/1.png", "a/@eaDir/1.png", "__MACOSX/a/1.png", ".thumbnails/1.png")
    assert names(root, with_directories=True) == ["a"]


def test_a_directory_of_unread_pictures_is_found_and_they_are_named(root: Path) -> None:
    touch(root, "a/1.svg", "a/2.eps", "b/1.png", "b/2.cr3", "c/notes.txt")
    left = {each.name: each.left_out for each in found(root, with_directories=True)}
    assert left == {"a": ("1.svg", "2.eps"), "b": ("2.cr3",)}
