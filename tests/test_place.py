"""Where a video may be put, and that the file holds what its name says."""

import os
import socket
from pathlib import Path
from typing import Any

import av
import pytest

from renderer import render
from renderer.disk import place_for, refuse_inputs
from renderer.errors import ConfigError

ORDINARY = 1000


@pytest.fixture
def request_of(tmp_path: Path, write_image) -> dict[str, Any]:
    return {"images": [{"url": str(write_image("a.png", (64, 48))), "frames": 3}]}


def refused(output: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        place_for(output)
    return raised.value.message


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.webm", "a.avi", "a", "a.mp4.part", "-"])
def test_a_suffix_that_would_lie_is_refused_by_name(tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    assert refused(output) == f"output: expected a name that ends in .mp4, .m4v or .mov, found {output}"
    assert not list(tmp_path.iterdir())


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "no" / "a.mp4") == f"output: expected a directory that exists, found {tmp_path / 'no'}"


def test_a_directory_a_pipe_a_socket_and_a_device_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "d.mp4").mkdir()
    os.mkfifo(tmp_path / "p.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.mp4"))
    (tmp_path / "n.mp4").symlink_to("/dev/null")
    kinds = {"d.mp4": "a directory", "p.mp4": "a pipe", "s.mp4": "a socket", "n.mp4": "a device"}
    for name, kind in kinds.items():
        assert refused(tmp_path / name).startswith(f"output: {tmp_path / name} is {kind}; only a regular file is")


def test_a_name_that_the_disk_refuses_is_refused_before_the_work(tmp_path: Path) -> None:
    output = tmp_path / f"{'a' * 251}.mp4"  # fits, but not with .part behind it
    assert refused(output) == f"output: {output} cannot be written: File name too long"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not write")
def test_a_directory_and_a_file_that_may_not_be_written_are_named(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "theirs.mp4").touch(0o644)
    outputs = [tmp_path / "new.mp4", tmp_path / "open" / "theirs.mp4"]
    os.setegid(ORDINARY)
    os.seteuid(ORDINARY)
    try:
        words = [refused(output) for output in outputs]
    finally:
        os.seteuid(0)
        os.setegid(0)
    assert words == [f"output: {output} cannot be written: Permission denied" for output in outputs]


@pytest.mark.parametrize("link", [os.link, os.symlink], ids=["hard", "symbolic"])
def test_an_input_is_not_overwritten_whatever_it_is_called(
    tmp_path: Path, request_of: dict[str, Any], link: Any
) -> None:
    before = (tmp_path / "a.png").read_bytes()
    for name in ("out.mp4", "other.mp4.part"):
        link(tmp_path / "a.png", tmp_path / name)
    for name in ("out.mp4", "other.mp4"):
        with pytest.raises(ConfigError, match=r"is an input|cannot be written: Too many levels"):
            render(request_of, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == before


def test_what_is_no_image_can_be_an_input_too(tmp_path: Path) -> None:
    manifest = tmp_path / "list.mp4"
    manifest.write_text("{}")
    with pytest.raises(ConfigError, match=r"list\.mp4 is an input, the manifest"):
        refuse_inputs(place_for(manifest), [("the manifest", manifest.stat())])
    assert manifest.read_text() == "{}"


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, request_of: dict[str, Any]) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("there", "not-there"):
        (tmp_path / f"{name}.mp4").symlink_to(tmp_path / "videos" / f"{name}.mp4")
    (tmp_path / "videos" / "there.mp4").write_text("old")
    for name in ("there", "not-there"):
        result = render(request_of, tmp_path / f"{name}.mp4")
        assert (tmp_path / f"{name}.mp4").is_symlink()
        assert (tmp_path / "videos" / f"{name}.mp4").stat().st_size == result.video.file_size


@pytest.mark.parametrize(
    ("name", "brand", "content_type"),
    [("a.mp4", b"isom", "video/mp4"), ("a.M4V", b"M4V ", "video/mp4"), ("a.mov", b"qt  ", "video/quicktime")],
)
def test_the_files_brand_is_what_its_name_says(
    tmp_path: Path, request_of: dict[str, Any], name: str, brand: bytes, content_type: str
) -> None:
    result = render(request_of, tmp_path / name)
    head = (tmp_path / name).read_bytes()[:64]
    assert (head[4:8], head[8:12]) == (b"ftyp", brand)
    assert result.video.content_type == content_type
    with av.open(str(tmp_path / name)) as video:
        stream = video.streams.video[0]
        assert stream.codec_context.color_primaries == 1
        assert sum(1 for _ in video.decode(stream)) == 3
