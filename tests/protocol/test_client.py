"""The client against a real ROUTER that answers promptly, late, twice, wrongly or not at all."""

import asyncio
import gc
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from protocol.client import AsyncClient, Client
from protocol.errors import ERRORS, BadEndpoint, ClientError, ClientTimeout, RemoteError, Unreachable
from protocol.schema import Fault, PixelLayout, RenderRequest
from protocol.wire import failure

REQUEST = {"images": [{"url": "a.png", "frames": 24}, {"url": "b.jpg", "frames": 48}], "fps": 24}
HEALTH = {
    "status": "ok",
    "version": "0.1.0",
    "workers": 2,
    "jobs_running": 0,
    "jobs_queued": 0,
    "encoder": "libx264",
}
QUICK = {"silence_s": 0.2, "connect_timeout_s": 3.0, "patience_s": 5.0}


@pytest.fixture
def answering(serve, result, status):
    """A server without surprises."""

    def handle(server, call):
        request_id = call.params.get("request_id")
        replies = {
            "render": result | {"request_id": request_id},
            "result": result | {"request_id": request_id},
            "health": HEALTH,
            "jobs": {"jobs": [status("one"), status("two")]},
        }
        server.answer(call, replies.get(call.method, status(request_id)))

    return serve(handle)


# The calls.


def test_render_returns_the_result(answering):
    with Client(answering.endpoint) as client:
        rendered = client.render(REQUEST)
    assert (rendered.frames, rendered.fps, rendered.video.file_name) == (72, "24/1", "video.mp4")
    assert rendered.attachments == ()
    assert rendered.video_bytes is None


def test_every_call_has_its_type(answering):
    with Client(answering.endpoint) as client:
        assert client.submit(REQUEST).status == "IN_QUEUE"
        assert client.status("one").request_id == "one"
        assert client.result("one").request_id == "one"
        assert client.cancel("one").request_id == "one"
        assert [job.request_id for job in client.jobs()] == ["one", "two"]
        assert client.health().workers == 2
    assert [call.method for call in answering.calls] == ["submit", "status", "result", "cancel", "jobs", "health"]


def test_render_and_submit_carry_a_generated_request_id(answering):
    with Client(answering.endpoint) as client:
        client.render(REQUEST)
        client.render(REQUEST)
        client.submit(REQUEST | {"request_id": None})
    ids = [call.params["request_id"] for call in answering.calls]
    assert len(set(ids)) == 3
    assert all(len(id_) == 32 for id_ in ids)
    assert "request_id" not in REQUEST


def test_a_request_id_of_the_caller_is_kept(answering):
    with Client(answering.endpoint) as client:
        client.render(REQUEST | {"request_id": "mine"})
    assert answering.calls[0].params["request_id"] == "mine"


def test_only_render_asks_for_progress(answering):
    with Client(answering.endpoint) as client:
        client.render(REQUEST)
        client.submit(REQUEST)
    assert [call.params.get("progress") for call in answering.calls] == [True, None]


def test_fields_left_at_their_defaults_are_not_sent(answering):
    request = RenderRequest.model_validate(REQUEST | {"request_id": "mine"})
    with Client(answering.endpoint) as client:
        client.submit(request)
    assert answering.calls[0].params == REQUEST | {"request_id": "mine"}


def test_a_dict_is_left_to_the_server(answering):
    with Client(answering.endpoint) as client:
        client.submit({"pictures": 1, "request_id": "mine"})
    assert answering.calls[0].params == {"pictures": 1, "request_id": "mine"}


def test_numbers_that_json_lacks_are_refused_before_sending(answering):
    with Client(answering.endpoint) as client, pytest.raises(ValueError, match="JSON"):
        client.submit(REQUEST | {"fps": float("nan")})
    assert answering.calls == []


def test_wait_polls_until_the_job_is_done(serve, result, status):
    states = iter(["IN_QUEUE", "COMPLETED"])

    def handle(server, call):
        is_status = call.method == "status"
        server.answer(call, status("one", status=next(states)) if is_status else result)

    seen = []
    server = serve(handle)
    with Client(server.endpoint) as client:
        assert client.wait("one", progress=lambda status: seen.append(status.status)).frames == 72
    assert seen == ["IN_QUEUE", "COMPLETED"]


def test_wait_keeps_the_time_limit(serve, status):
    server = serve(lambda server, call: server.answer(call, status("one")))
    with Client(server.endpoint, timeout_s=60) as client:
        with pytest.raises(ClientTimeout, match=r"^one was not done within 0\.2 s$"):
            client.wait("one", timeout_s=0.2)
        assert client.status("one").request_id == "one"


def test_a_timeout_of_the_callback_is_not_taken_for_the_clients(serve, status):
    def refuse(_):
        raise TimeoutError("mine")

    server = serve(lambda server, call: server.answer(call, status("one")))
    with Client(server.endpoint) as client, pytest.raises(TimeoutError, match="mine"):
        client.wait("one", progress=refuse, timeout_s=60)


def test_jobs_asks_for_some_of_them_and_sends_no_defaults(answering):
    with Client(answering.endpoint) as client:
        client.jobs()
        client.jobs(("failed", "expired"), 7)
        client.jobs(iter(["queued"]), limit=100)
    assert [call.params for call in answering.calls] == [
        {},
        {"states": ["failed", "expired"], "limit": 7},
        {"states": ["queued"]},
    ]


@pytest.mark.parametrize(("states", "limit"), [(("lost",), 1), ((), 0), ((), 1001)])
def test_jobs_that_cannot_be_asked_for_are_refused_before_sending(answering, states, limit):
    with Client(answering.endpoint) as client, pytest.raises(ValueError, match="JobsQuery"):
        client.jobs(states, limit)
    assert answering.calls == []


# Attachments.


def test_encoded_files_travel_as_they_are(serve, result):
    server = serve(lambda server, call: server.answer(call, result))
    with Client(server.endpoint) as client:
        client.render(REQUEST, attachments=[b"\x89PNG", bytearray(b"\xff\xd8"), memoryview(b"GIF8")])
    assert list(server.calls[0].attachments) == [b"\x89PNG", b"\xff\xd8", b"GIF8"]
    assert "attachments" not in server.calls[0].params


def test_raw_pixels_travel_with_their_layout(answering):
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    grey = np.arange(6, dtype=np.uint16).reshape(2, 3)
    raw = bytes(range(12))
    pairs = [rgb, (rgb, "BGR"), grey, b"png", (raw, PixelLayout(shape=(2, 2, 3))), np.zeros((1, 1, 4), np.uint8)]
    with Client(answering.endpoint) as client:
        client.submit(REQUEST, pairs)
    assert [bytes(frame) for frame in answering.calls[0].attachments] == [
        rgb.tobytes(), rgb.tobytes(), grey.tobytes(), b"png", raw, bytes(4)
    ]  # fmt: skip
    assert answering.calls[0].params["attachments"] == [
        {"shape": [2, 4, 3], "dtype": "uint8", "order": "RGB"},
        {"shape": [2, 4, 3], "dtype": "uint8", "order": "BGR"},
        {"shape": [2, 3], "dtype": "uint16", "order": "GRAY"},
        None,
        {"shape": [2, 2, 3], "dtype": "uint8", "order": "RGB"},
        {"shape": [1, 1, 4], "dtype": "uint8", "order": "RGBA"},
    ]


@pytest.mark.parametrize(
    ("attachment", "error", "words"),
    [
        (np.zeros((4, 4, 3), np.uint8)[:, ::2], ValueError, r"attachments\[1\]: expected a C-contiguous array"),
        (
            np.zeros((4, 4, 3), np.float32),
            ValueError,
            r"attachments\[1\]: .* dtype: expected 'uint8' or 'uint16', found",
        ),
        (np.zeros((4, 4, 2), np.uint8), ValueError, "expected 3 channels for order RGB"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"shape\[0\]: expected at least 1, found 0"),
        ((b"123", PixelLayout(shape=(2, 2, 3))), ValueError, "expected 12 bytes .*, found 3"),
        ((b"123", "RGB"), TypeError, "expected an array with a shape and a dtype"),
        ((b"1", "RGB", 3), ValueError, "expected a pair"),
        ("a.png", TypeError, "expected bytes or an object with the buffer protocol.*, found str"),
    ],
)
def test_attachments_that_cannot_be_sent_are_refused_by_number(answering, attachment, error, words):
    with Client(answering.endpoint) as client, pytest.raises(error, match=words):
        client.render(REQUEST, attachments=[b"png", attachment])
    assert answering.calls == []


def test_the_video_comes_back_as_an_attachment(serve, result):
    video = os.urandom(3_000_000)
    inline = result | {"video": result["video"] | {"url": "cid:0"}}
    server = serve(lambda server, call: server.answer(call, inline, (video,)))
    with Client(server.endpoint) as client:
        rendered = client.render(REQUEST | {"sync_mode": True})
    assert rendered.video_bytes == video
    assert "attachments" not in rendered.model_dump()


@pytest.mark.parametrize("url", ["cid:1", "cid:-1", "cid:x", "cid:", "0"])
def test_a_url_that_names_no_attachment_has_no_video_bytes(serve, result, url):
    inline = result | {"video": result["video"] | {"url": url}}
    server = serve(lambda server, call: server.answer(call, inline, (b"mp4",)))
    with Client(server.endpoint) as client:
        assert client.render(REQUEST).video_bytes is None


# Progress.


def test_progress_reaches_the_callback(serve, result):
    def handle(server, call):
        for stage in ("queued", "rendering", "finishing"):
            server.notify(call, progress={"images_done": 1, "images": 2, "frames": 72, "stage": stage})
        server.answer(call, result)

    stages = []
    server = serve(handle)
    with Client(server.endpoint) as client:
        client.render(REQUEST, progress=lambda status: stages.append(status.progress.stage))
    assert stages == ["queued", "rendering", "finishing"]


def test_progress_keeps_a_call_from_being_sent_again(serve, result):
    def handle(server, call):
        for _ in range(10):
            server.notify(call)
            time.sleep(0.4)
        server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint, silence_s=3) as client:  # less than the ten take together
        assert client.render(REQUEST).frames == 72
    assert len(server.calls) == 1


def test_what_the_callback_raises_ends_the_call_only(serve, result):
    def handle(server, call):
        server.notify(call)
        server.answer(call, result)

    def refuse(status):
        raise LookupError(status.request_id)

    server = serve(handle)
    with Client(server.endpoint) as client:
        with pytest.raises(LookupError, match="mine"):
            client.render(REQUEST | {"request_id": "mine"}, progress=refuse)
        assert client.render(REQUEST).frames == 72


# Errors.


def test_an_error_answer_is_raised_with_all_it_says(serve):
    faults = ({"loc": ["fps"], "msg": "too fast", "type": "less_than_equal"},)
    fault = Fault(type="invalid_params", message="images[0].url: no such file", loc=("images", 0, "url"), errors=faults)
    server = serve(lambda server, call: server.send(failure(call.id, fault)))
    with Client(server.endpoint) as client:
        with pytest.raises(RemoteError, match=r"^images\[0\]\.url: no such file$") as caught:
            client.render(REQUEST)
        assert caught.value.kind is ERRORS["invalid_params"]
        assert caught.value.loc == ("images", 0, "url")
        assert caught.value.details == faults


@pytest.mark.parametrize("name", ["queue_full", "storage_full", "internal_error"])
def test_a_retryable_error_is_raised_and_not_retried(serve, name):
    fault = Fault(type=name, message="try again", retryable=True)
    server = serve(lambda server, call: server.send(failure(call.id, fault)))
    with Client(server.endpoint) as client, pytest.raises(RemoteError) as caught:
        client.render(REQUEST)
    assert caught.value.kind.retryable
    assert len(server.calls) == 1


def test_an_error_without_an_id_belongs_to_the_only_call(serve):
    fault = Fault(type="message_too_large", message="too much")
    server = serve(lambda server, _: server.send(failure(None, fault)))
    with Client(server.endpoint) as client, pytest.raises(RemoteError, match="too much"):
        client.render(REQUEST)


def test_an_answer_of_another_shape_is_a_client_error(serve):
    server = serve(lambda server, call: server.answer(call, {"movie": "a.mp4"}))
    with Client(server.endpoint) as client, pytest.raises(ClientError, match="not a valid Rendered"):
        client.render(REQUEST)


def test_what_is_no_answer_is_passed_over(serve, result):
    def handle(server, call):
        server.send([b"not json"])
        server.send([b""])
        server.send([b'{"jsonrpc":"2.0","method":"news","params":{}}'])
        server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint) as client:
        assert client.render(REQUEST).frames == 72


@pytest.mark.parametrize("endpoint", ["here", "", "tcp://127.0.0.1", "gopher://127.0.0.1:1", "tcp://127.0.0.1:\udcff"])
def test_an_endpoint_that_is_no_address_is_named(endpoint):
    with Client(endpoint) as client:
        for _ in range(2):
            with pytest.raises(BadEndpoint, match=f"^expected an address .*, found {re.escape(repr(endpoint))}"):
                client.health()


# Silence.


def test_a_lost_reply_is_asked_for_again_with_the_same_request_id(serve, result):
    def handle(server, call):
        if len(server.calls) > 1:
            server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint, **QUICK) as client:
        assert client.render(REQUEST).frames == 72
    first, second = server.bodies[:2]
    assert first == second
    assert server.calls[0].params["request_id"]
    assert server.identities[0] != server.identities[1], "a silent socket is replaced"


def test_a_restart_in_mid_call_is_survived(serve, result):
    def handle(server, call):
        server.notify(call)
        if len(server.calls) == 1:
            server.restart()
        else:
            server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint, **QUICK) as client:
        assert client.render(REQUEST).frames == 72
    assert server.bodies[0] == server.bodies[1]


def test_late_answers_are_passed_over(serve, result, status):
    def handle(server, call):
        if call.method == "status":
            server.send([f'{{"jsonrpc":"2.0","id":{call.id - 1},"result":{{"late":true}}}}'.encode()])
            server.answer(call, status("one"))
        elif len(server.calls) > 1:
            server.answer(call, result)
            server.answer(call, result | {"frames": 1})

    server = serve(handle)
    with Client(server.endpoint, **QUICK) as client:
        assert client.render(REQUEST).frames == 72
        assert client.status("one").request_id == "one"


def test_other_calls_keep_the_socket_of_a_silent_one(serve, status):
    def handle(server, call):
        is_first = sum(other.id == call.id for other in server.calls) == 1
        if call.params["request_id"] != "lost" or not is_first:
            server.answer(call, status(call.params["request_id"]))

    async def ask(client):
        lost = asyncio.create_task(client.status("lost"))
        while not lost.done():
            await client.status("lively")
            await asyncio.sleep(0.02)
        return await lost

    async def main():
        server = serve(handle)
        async with AsyncClient(server.endpoint, silence_s=0.6) as client:
            assert (await ask(client)).request_id == "lost"
        assert len(set(server.identities)) == 1

    asyncio.run(main())


def test_all_waiting_calls_move_to_the_new_socket(serve, status):
    def handle(server, call):
        if len(server.identities) > 5:
            server.answer(call, status(call.params["request_id"]))

    async def main():
        server = serve(handle)
        async with AsyncClient(server.endpoint, **QUICK) as client:
            ids = [str(number) for number in range(5)]
            answers = await asyncio.gather(*map(client.status, ids))
        assert [answer.request_id for answer in answers] == ids
        assert len(set(server.identities)) >= 2
        assert {call.params["request_id"] for call in server.calls[5:]} == set(ids)

    asyncio.run(main())


def test_nobody_there_is_unreachable_in_time():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        begun = time.monotonic()
        with Client(endpoint, connect_timeout_s=0.3, silence_s=0.1) as client:
            for _ in range(2):
                with pytest.raises(Unreachable, match=rf"{endpoint} for 0\.3 s"):
                    client.render(REQUEST)
    assert 0.6 <= time.monotonic() - begun < 30


def test_a_server_that_vanished_for_good_is_unreachable(serve):
    server = serve(lambda server, call: server.notify(call) if len(server.calls) == 1 else None)
    with (
        Client(server.endpoint, silence_s=0.1, patience_s=0.5) as client,
        pytest.raises(Unreachable, match=r"for 0\.5 s"),
    ):
        client.render(REQUEST)
    assert 2 <= len(server.calls) <= 4, "sent again after 0.1 s and 0.3 s"


def test_a_server_that_starts_late_is_found(serve, result):
    async def main():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        async with AsyncClient(f"tcp://127.0.0.1:{port}", **QUICK) as client:
            asking = asyncio.create_task(client.render(REQUEST))
            await asyncio.sleep(0.3)
            server = serve(lambda server, call: server.answer(call, result), port)
            assert (await asking).frames == 72
            assert server.calls

    asyncio.run(main())


def test_the_time_limit_of_a_call_is_kept(serve):
    server = serve(lambda server, call: server.notify(call))
    begun = time.monotonic()
    with Client(server.endpoint, timeout_s=60) as client:
        with pytest.raises(ClientTimeout, match=rf"no answer from {server.endpoint} within 0\.3 s"):
            client.render(REQUEST, timeout_s=0.3)
        assert time.monotonic() - begun < 30


def test_the_time_limit_of_the_client_is_kept(serve):
    server = serve(lambda server, call: server.notify(call))
    with Client(server.endpoint, timeout_s=0.2) as client, pytest.raises(ClientTimeout, match=r"within 0\.2 s"):
        client.health()


# Many calls, and the end of them.


def test_a_thousand_calls_share_one_client(serve, result):
    waiting = []

    def handle(server, call):
        waiting.append(call)
        server.notify(call)
        if len(waiting) == 1000:
            for earlier in reversed(waiting):
                server.answer(earlier, result | {"request_id": earlier.params["request_id"]})

    async def main():
        server = serve(handle)
        async with AsyncClient(server.endpoint, connect_timeout_s=60) as client:  # a call is not sent again before that
            ids = [f"job-{number}" for number in range(1000)]
            answers = await asyncio.gather(*(client.render(REQUEST | {"request_id": id_}) for id_ in ids))
            assert client._connection._pending == {}
            assert client._connection._waiting_bytes == 0
        assert [answer.request_id for answer in answers] == ids
        assert len(server.calls) == 1000
        assert len(set(server.identities)) == 1

    asyncio.run(main())


def test_a_cancelled_call_leaves_nothing_behind(serve, status):
    def handle(server, call):
        if call.method != "render":
            server.answer(call, status("one"))

    async def main():
        server = serve(handle)
        async with AsyncClient(server.endpoint) as client:
            await client.status("one")
            tasks_before = len(asyncio.all_tasks())
            rendering = asyncio.create_task(client.render(REQUEST))
            await asyncio.sleep(0.05)
            rendering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await rendering
            assert client._connection._pending == {}
            assert client._connection._waiting_bytes == 0
            assert len(asyncio.all_tasks()) == tasks_before
            await client.status("one")
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_close_ends_waiting_calls(serve):
    async def main():
        client = AsyncClient(serve(lambda *_: None).endpoint)
        rendering = asyncio.create_task(client.render(REQUEST))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(ClientError, match="closed before the answer came"):
            await rendering
        await client.close()
        with pytest.raises(ClientError, match="closed"):
            await client.health()

    asyncio.run(main())


def test_close_is_harmless_when_repeated_or_before_use(answering):
    client = Client(answering.endpoint)
    client.close()
    client.close()
    with Client(answering.endpoint) as used:
        used.health()
        used.close()
    with pytest.raises(ClientError, match="closed"):
        used.health()
    assert "closed" in repr(used)


def test_inside_a_running_loop_the_sync_client_refuses(answering):
    async def main():
        with pytest.raises(RuntimeError, match="running event loop"):
            client.health()

    with Client(answering.endpoint) as client:
        asyncio.run(main())
        assert client.health().status == "ok"


def test_ctrl_c_ends_the_call_and_the_client_goes_on(serve, status):
    def handle(server, call):
        if call.method == "render":
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            server.answer(call, status("one"))

    server = serve(handle)
    with Client(server.endpoint) as client:
        with pytest.raises(KeyboardInterrupt):
            client.render(REQUEST)
        assert client.status("one").request_id == "one"


def answered(client):
    client.health()


def silent(client):
    with pytest.raises(Unreachable):
        client.render(REQUEST)


def misled(client):
    with pytest.raises(BadEndpoint):
        client.health()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
@pytest.mark.parametrize(
    ("ask", "endpoint"),
    [(answered, None), (silent, "tcp://127.0.0.1:9"), (misled, "here")],
    ids=["answered", "silent", "misled"],
)
def test_clients_leave_no_descriptors_behind(answering, ask, endpoint):
    def use():
        with Client(endpoint or answering.endpoint, connect_timeout_s=0.5, silence_s=0.02) as client:
            ask(client)
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    use()
    assert use() >= use()
