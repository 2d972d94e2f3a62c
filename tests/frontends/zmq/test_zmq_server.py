"""Messages of all kinds, sent by hand to a real daemon."""

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import av
import numpy as np
import numpy.typing as npt
import pytest
import zmq

from protocol.errors import ERRORS, RemoteError
from tests.daemon_process import DaemonProcess, picture, request, still

ANSWER_MS = 15_000
HEALTH = {"jsonrpc": "2.0", "id": 1, "method": "health"}
Ask = Callable[..., dict[str, Any]]
Colour = tuple[int, int, int]


@contextlib.contextmanager
def connected(endpoint: str, kind: int) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    socket = context.socket(kind)
    socket.linger = 0
    socket.connect(endpoint)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


@pytest.fixture
def ask(daemon: DaemonProcess) -> Iterator[Ask]:
    """Send frames through one REQ socket, the first as JSON unless it is bytes, and return the reply's JSON."""
    with connected(daemon.endpoint, zmq.REQ) as socket:

        def ask(document: Any, *attachments: bytes) -> dict[str, Any]:
            text = document if isinstance(document, bytes) else json.dumps(document).encode()
            socket.send_multipart([text, *attachments])
            assert socket.poll(ANSWER_MS), "no answer"
            reply: dict[str, Any] = json.loads(socket.recv_multipart()[0])
            return reply

        yield ask


def video_path(result: dict[str, Any]) -> Path:
    return Path(unquote(urlsplit(result["video"]["url"]).path))


def assert_shows(path: Path, *colours: Colour) -> None:
    """Every frame is one flat colour: compared in YCbCr of BT.709 limited range, within the rounding of 8 bits."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(frames) == len(colours)
    for pixels, (red, green, blue) in zip(frames, colours, strict=True):
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        expected = (
            16 + luma * 219 / 255,
            128 + (blue - luma) / 1.8556 * 224 / 255,
            128 + (red - luma) / 1.5748 * 224 / 255,
        )
        rows = pixels.shape[0] * 2 // 3
        chroma = pixels[rows:].reshape(2, -1)
        for found, value in zip((pixels[:rows], chroma[0], chroma[1]), expected, strict=True):
            assert np.abs(found.astype(float) - value).max() <= 2


def test_a_plain_req_socket_gets_its_video(ask: Ask) -> None:
    params = request(still((200, 60, 20), 3), still((20, 200, 60), 2), fps="30000/1001", metadata={"shot": 7})
    reply = ask({"jsonrpc": "2.0", "id": "mine", "method": "render", "params": params})
    assert (reply["jsonrpc"], reply["id"]) == ("2.0", "mine")
    result = reply["result"]
    assert (result["frames"], result["fps"], result["width"], result["height"]) == (5, "30000/1001", 64, 48)
    assert result["metadata"] == {"shot": 7}
    assert video_path(result).stat().st_size == result["video"]["file_size"]
    assert_shows(video_path(result), *[(200, 60, 20)] * 3, *[(20, 200, 60)] * 2)


@pytest.mark.parametrize("envelope", [[], [b""]], ids=["bare", "with a delimiter"])
def test_a_dealer_gets_its_answer_in_the_envelope_it_sent(daemon: DaemonProcess, envelope: list[bytes]) -> None:
    with connected(daemon.endpoint, zmq.DEALER) as socket:
        for number in range(3):
            socket.send_multipart([*envelope, json.dumps(HEALTH | {"id": number}).encode()])
        replies = [socket.recv_multipart() for _ in range(3) if socket.poll(ANSWER_MS)]
    assert [reply[:-1] for reply in replies] == [envelope] * 3
    assert {json.loads(reply[-1])["id"] for reply in replies} == {0, 1, 2}


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ([b""], "parse_error"),
        ([b"not JSON"], "parse_error"),
        ([b'{"jsonrpc": "2.0", "id": 1,'], "parse_error"),
        ([b"\xff\xfe\x00"], "parse_error"),
        ([b"[" * 100_000], "parse_error"),
        ([b"[]"], "bad_request"),
        ([b"7"], "bad_request"),
        ([json.dumps({"id": 1, "method": "health"}).encode()], "bad_request"),
        ([json.dumps({"jsonrpc": "2.0", "method": "health"}).encode()], "bad_request"),
        ([json.dumps(HEALTH | {"id": [1]}).encode()], "bad_request"),
        ([json.dumps(HEALTH | {"params": [1]}).encode()], "bad_request"),
        ([json.dumps(HEALTH | {"method": "reboot"}).encode()], "method_not_found"),
        ([json.dumps(HEALTH | {"params": {"deep": True}}).encode()], "invalid_params"),
        ([json.dumps(HEALTH).encode().ljust(250_000)], "message_too_large"),
        ([json.dumps(HEALTH).encode(), bytes(250_000)], "message_too_large"),
        ([json.dumps(HEALTH).encode(), *[bytes(150_000)] * 4], "message_too_large"),
    ],
)
def test_a_faulty_message_gets_its_error_and_the_next_one_an_answer(ask: Ask, message: list[bytes], name: str) -> None:
    error = ask(*message)["error"]
    assert (error["code"], error["data"]["type"]) == (ERRORS[name].code, name)
    assert error["data"]["retryable"] is False
    assert ask(HEALTH)["result"]["status"] == "ok"


def test_a_message_with_too_large_attachments_is_refused_by_its_id(ask: Ask) -> None:
    assert ask(HEALTH | {"id": 7}, bytes(250_000))["id"] == 7


def test_random_frames_do_not_stop_the_server(daemon: DaemonProcess, ask: Ask) -> None:
    chance = random.Random(5)
    seeds = [b"", b"{}", json.dumps(HEALTH).encode(), json.dumps(HEALTH | {"params": request()}).encode()]
    with connected(daemon.endpoint, zmq.DEALER) as socket:
        for _ in range(400):
            frames = [
                chance.choice([*seeds, chance.randbytes(chance.randrange(60))]) for _ in range(chance.randint(1, 4))
            ]
            broken = bytearray(frames[-1])
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            socket.send_multipart([*frames[:-1], bytes(broken)])
        for _ in range(400):
            assert socket.poll(30_000)
            socket.recv_multipart()
        assert not socket.poll(50)
    assert ask(HEALTH)["result"]["status"] == "ok"


def test_a_client_that_never_reads_hurts_nobody_else(daemon: DaemonProcess, ask: Ask) -> None:
    with connected(daemon.endpoint, zmq.DEALER) as deaf:
        deaf.rcvhwm = 1
        deaf.sndhwm = 0  # what the daemon does not take yet waits at the client
        params = {"request_id": "echo", **request(metadata={"long": "x" * 50_000}, sync_mode=True)}
        for number in range(1500):
            deaf.send(json.dumps(HEALTH | {"id": number, "method": "render", "params": params}).encode(), zmq.NOBLOCK)
            if number % 100 == 0:
                assert ask(HEALTH)["result"]["status"] == "ok"
        assert ask(HEALTH | {"method": "render", "params": request()})["result"]["frames"] == 2


@pytest.mark.parametrize(
    ("fields", "name", "loc"),
    [
        ({"colour": "red"}, "invalid_params", ["colour"]),
        ({"images": [{"url": "data:,x", "hold": 3}]}, "invalid_params", ["images", 0, "hold"]),
        ({"images": []}, "invalid_params", ["images"]),
        ({"fps": 0}, "invalid_params", ["fps"]),
        ({"start_timeout": 0}, "invalid_params", ["start_timeout"]),
        ({"webhook_url": "ftp://127.0.0.1/"}, "invalid_params", ["webhook_url"]),
        ({"encoder": "nvenc"}, "not_supported", ["encoder"]),
        ({"request_id": "../../etc"}, "invalid_params", ["request_id"]),
        ({"images": [{"url": "cid:0", "frames": 1}]}, "file_download_error", ["images", 0, "url"]),
        ({"images": [{"url": "data:,x", "frames": 2_000_000}]}, "less_than_equal", ["images"]),
        ({"width": 100_000}, "less_than_equal", ["width"]),
    ],
)
def test_a_field_that_is_wrong_is_refused_by_name(ask: Ask, fields: dict[str, Any], name: str, loc: list[Any]) -> None:
    error = ask(HEALTH | {"method": "submit", "params": request(**fields)})["error"]
    assert (error["data"]["type"], error["data"]["loc"]) == (name, loc)
    assert error["message"].startswith(
        "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)[1:]
    )


def test_files_are_read_below_the_roots_only_and_no_message_tells_a_path(
    daemon: DaemonProcess, ask: Ask, roots: Path, tmp_path: Path
) -> None:
    (roots / "inside.ppm").write_bytes(picture((9, 9, 9)))
    (tmp_path / "outside.ppm").write_bytes(picture((9, 9, 9)))
    (roots / "escape.ppm").unlink(missing_ok=True)
    (roots / "escape.ppm").symlink_to(tmp_path / "outside.ppm")

    def render(url: str) -> dict[str, Any]:
        return ask(HEALTH | {"method": "render", "params": request({"url": url})})

    assert_shows(video_path(render(str(roots / "inside.ppm"))["result"]), (9, 9, 9))
    for url in (
        str(tmp_path / "outside.ppm"),
        str(roots / "escape.ppm"),
        f"{roots}/../{tmp_path.name}/outside.ppm",
        f"file://{tmp_path}/outside.ppm",
        str(roots / "missing.ppm"),
        str(daemon.data_dir / "lock"),
        str(roots),
    ):
        reply = render(url)
        assert reply["error"]["data"]["type"] == "file_download_error"
        assert reply["error"]["data"]["loc"] == ["images", 0, "url"]
        assert not any(str(path) in json.dumps(reply) for path in (roots, tmp_path, daemon.data_dir))


def test_attachments_are_shown_in_their_colours(daemon: DaemonProcess) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[:] = (220, 30, 40)
    attachments = [
        picture((220, 30, 40), 64, 48),
        red,
        (np.ascontiguousarray(red[..., ::-1]), "BGR"),
        np.full((48, 64), 77, np.uint8),
        red.astype(np.uint16) * 257,
    ]
    sent = request(*({"url": f"cid:{number}"} for number in range(5)))
    made = daemon.client.render(sent, attachments=attachments)
    assert_shows(video_path(made.model_dump()), *[(220, 30, 40)] * 3, (77, 77, 77), (220, 30, 40))
    assert daemon.files() == []


@pytest.mark.parametrize(
    ("layouts", "loc"),
    [
        ([], ["attachments"]),
        ([{"shape": [2, 2, 3]}], ["attachments", 0]),
        ([{"shape": [2, 2], "order": "RGB"}], ["attachments", 0]),
    ],
)
def test_pixels_that_do_not_fit_their_layout_are_refused(ask: Ask, layouts: list[Any], loc: list[Any]) -> None:
    params = request({"url": "cid:0"}, attachments=layouts)
    assert ask(HEALTH | {"method": "render", "params": params}, bytes(11))["error"]["data"]["loc"] == loc


def test_sync_mode_brings_the_video_along(daemon: DaemonProcess, tmp_path: Path) -> None:
    made = daemon.client.render(request(still((10, 20, 30)), sync_mode=True))
    assert made.video.url == "cid:0"
    assert len(made.video_bytes or b"") == made.video.file_size
    (tmp_path / "sync.mp4").write_bytes(made.video_bytes or b"")
    assert_shows(tmp_path / "sync.mp4", (10, 20, 30), (10, 20, 30))


def test_a_picture_that_is_damaged_is_named(daemon: DaemonProcess) -> None:
    with pytest.raises(RemoteError) as caught:
        daemon.client.render(request(still(), {"url": "data:,nothing"}))
    assert (caught.value.kind.name, caught.value.loc) == ("unsupported_image_format", ("images", 1, "url"))


def test_pixels_in_bulk_are_not_copied_into_the_answer(daemon: DaemonProcess) -> None:
    pixels: npt.NDArray[np.uint8] = np.full((100, 100, 3), 128, np.uint8)
    assert daemon.client.render(request({"url": "cid:0"}), attachments=[pixels]).attachments == ()
