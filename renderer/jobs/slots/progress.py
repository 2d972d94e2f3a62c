"""Progress on its way from the workers: datagrams, so that a worker killed in the middle of one leaves nothing half."""

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Callable, Iterator

from pydantic import ValidationError

from protocol.schema import Progress

log = logging.getLogger(__name__)

_AT_ONCE = 64  # datagrams read before the loop does something else


class ProgressSender:
    """A worker's end. It never waits: progress for a receiver that is full or gone is lost.

    Every message is sent at once, because the next may take long: a slow download would hide the still before it.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._address = address

    def __call__(self, job_id: str, progress: Progress) -> None:
        message = json.dumps({"job": job_id, "progress": progress.model_dump()}).encode()
        try:
            self._socket.sendto(message, self._address)
        except OSError:
            log.debug("progress not sent", exc_info=True)

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def receiving(address: str, take: Callable[[str, Progress], None]) -> Iterator[None]:
    """Call `take` with a job's id and its progress, on the running loop, until the block ends."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.setblocking(False)
        loop.add_reader(receiver, _receive, receiver, take)
        try:
            yield
        finally:
            loop.remove_reader(receiver)


def _receive(receiver: socket.socket, take: Callable[[str, Progress], None]) -> None:
    for _ in range(_AT_ONCE):
        try:
            message = json.loads(receiver.recv(65536))
            take(message["job"], Progress.model_validate(message["progress"]))
        except BlockingIOError:
            return
        except (ValueError, KeyError, TypeError, ValidationError):
            log.warning("a message on the progress socket is not progress, and is ignored")
