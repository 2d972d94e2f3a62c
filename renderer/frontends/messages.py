"""Taking one message off a ZeroMQ socket: some frames at a time, and keeping no more of them than its answer needs.

ZeroMQ hands a message over when all its frames are there, however many they are, and taking 200,000 at once would stop
the loop for seconds. Its own limit is one for a frame, so what a message may hold is counted here.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq
import zmq.asyncio

_AT_A_TIME: Final = 200  # some milliseconds
_TO_ANSWER: Final = 3  # who sent it, the delimiter, and the document with the id of the call


@dataclass(frozen=True, slots=True)
class Message:
    """What was sent.

    Attributes:
        frames: all of them, or those that the answer to one that is too large needs.
        left_out: how many others there were.
        left_out_bytes: what those held.
    """

    frames: list[zmq.Frame]
    left_out: int = 0
    left_out_bytes: int = 0


async def receive(
    socket: zmq.asyncio.Socket, most_frames: int, most_bytes: int, on_first: Callable[[zmq.Frame], None]
) -> Message:
    """Wait for a message and take it.

    Args:
        most_frames: and most_bytes: of a message that is kept as a whole.
        on_first: called with the first frame, before the others are taken.

    Raises:
        zmq.ZMQError: it could not be received.
    """
    frames = [await socket.recv(copy=False)]
    on_first(frames[0])
    at_once: zmq.Socket[bytes] = zmq.Socket.shadow(socket)  # the frames that follow are there
    count, size_bytes = 1, len(frames[0])
    while frames[-1].more:
        frame = at_once.recv(zmq.DONTWAIT, copy=False)
        count += 1
        size_bytes += len(frame)
        if count > most_frames or size_bytes > most_bytes:
            del frames[_TO_ANSWER:]
        frames.append(frame)
        if count % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    kept = frames[:_TO_ANSWER] if count > len(frames) else frames
    return Message(kept, count - len(kept), size_bytes - sum(map(len, kept)))
