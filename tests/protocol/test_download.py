"""Parts of a video that do not fit together, and files that cannot be written."""

import re
from pathlib import Path

import pytest

from protocol.client import Client
from protocol.errors import ClientError

CONTENT = b"0123456789"


def part(offset: int, *attachments: bytes, size: int = len(CONTENT)) -> tuple[dict[str, object], tuple[bytes, ...]]:
    return {"offset": offset, "file_size": size, "file_name": "video.mp4"}, attachments


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([part(0)], "found 0 bytes from byte 0 of 10"),
        ([part(0, b"")], "found 0 bytes from byte 0 of 10"),
        ([part(0, CONTENT, CONTENT)], "found 0 bytes from byte 0 of 10"),
        ([part(0, CONTENT + b"!")], "found 11 bytes from byte 0 of 10"),
        ([part(0, b"0123"), part(0, b"0123")], "expected one from byte 4 on, found 4 bytes from byte 0 of 10"),
        ([part(0, b"0123"), part(4, b"", size=4)], "the video has changed while it was fetched: 10 bytes became 4"),
        ([part(0, b"0123"), part(4, b"456789a", size=11)], "10 bytes became 11"),
    ],
)
def test_parts_that_do_not_make_the_video_end_the_download_and_leave_no_file(serve, tmp_path, parts, words) -> None:
    server = serve(lambda server, call: server.answer(call, *parts[len(server.calls) - 1]))
    with Client(server.endpoint) as client, pytest.raises(ClientError, match=re.escape(words)):
        client.download("mine", tmp_path / "out.mp4")
    assert names(tmp_path) == []


def test_each_part_is_asked_for_from_where_the_last_one_ended(serve, tmp_path: Path) -> None:
    sizes = {0: 4, 4: 5, 9: 1}

    def handle(server, call) -> None:
        start = call.params["offset"]
        server.answer(call, *part(start, CONTENT[start : start + sizes[start]]))

    server = serve(handle)
    with Client(server.endpoint) as client:
        client.download("mine", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == CONTENT
    assert [call.params for call in server.calls] == [{"request_id": "mine", "offset": offset} for offset in sizes]


def test_a_download_goes_on_where_it_was_when_the_server_comes_back(serve, tmp_path: Path) -> None:
    def handle(server, call) -> None:
        start = call.params["offset"]
        if len(server.calls) == 2:
            server.restart()
        else:
            server.answer(call, *part(start, CONTENT[start : start + 5]))

    server = serve(handle)
    with Client(server.endpoint) as client:
        client.download("mine", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == CONTENT
    assert [call.params["offset"] for call in server.calls] == [0, 5, 5]


def test_a_place_that_is_none_is_told_before_anything_is_asked(serve, tmp_path: Path) -> None:
    server = serve(lambda server, call: server.answer(call, *part(0, CONTENT)))
    with Client(server.endpoint) as client, pytest.raises(FileNotFoundError):
        client.download("mine", tmp_path / "missing" / "out.mp4")
    assert server.calls == []


def test_who_stops_iterating_can_go_on_with_the_client(serve) -> None:
    server = serve(lambda server, call: server.answer(call, *part(0, CONTENT[:5])))
    with Client(server.endpoint) as client:
        for _ in client.video("mine"):
            break
        assert next(client.video("mine")) == CONTENT[:5]
