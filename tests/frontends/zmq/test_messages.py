"""Messages of many frames, over sockets of this process."""

import asyncio

import zmq
import zmq.asyncio

from renderer.frontends.zmq.messages import Message, receive


def taken(*frames: bytes, most_frames: int = 100, most_bytes: int = 1000) -> tuple[Message, int]:
    """Send a message to a ROUTER; return what is taken, and how many turns others had meanwhile."""

    async def scenario() -> tuple[Message, int]:
        with zmq.asyncio.Context() as context:
            socket, sender = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
            socket.bind("inproc://a")
            sender.setsockopt(zmq.IDENTITY, b"me")
            sender.connect("inproc://a")
            await sender.send_multipart(frames)
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            counting = asyncio.create_task(count())
            try:
                return await receive(socket, zmq.Socket.shadow(socket), most_frames, most_bytes, lambda _: None), turns
            finally:
                counting.cancel()
                socket.close(0)
                sender.close(0)

    return asyncio.run(scenario())


def test_a_message_within_its_limits_is_taken_as_it_is() -> None:
    message, _ = taken(b"", b"{}", b"a", b"b", most_frames=5, most_bytes=6)
    assert [frame.bytes for frame in message.frames] == [b"me", b"", b"{}", b"a", b"b"]
    assert (message.left_out, message.left_out_bytes) == (0, 0)


def test_of_a_message_with_too_many_frames_the_first_three_are_kept_and_the_others_counted() -> None:
    message, _ = taken(b"", b"{}", *[b"abc"] * 20, most_frames=10)
    assert [frame.bytes for frame in message.frames] == [b"me", b"", b"{}"]
    assert (message.left_out, message.left_out_bytes) == (20, 60)


def test_of_a_message_that_is_too_large_the_first_three_frames_are_kept_and_the_others_counted() -> None:
    message, _ = taken(b"{}", b"a" * 90, b"b" * 90, b"c" * 90, most_bytes=200)
    assert [frame.bytes[:2] for frame in message.frames] == [b"me", b"{}", b"aa"]
    assert (message.left_out, message.left_out_bytes) == (2, 180)


def test_others_have_their_turns_while_a_message_of_many_frames_is_taken() -> None:
    message, turns = taken(b"", b"{}", *[b""] * 50_000)
    assert message.left_out == 50_000
    assert turns > 200
