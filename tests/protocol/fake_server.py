"""A real ROUTER on a real port, in a thread, which answers as a test tells it to."""

import threading
import time
from collections.abc import Callable
from typing import Any

import zmq

from protocol.wire import Call, answer, notification, parse_call, split_envelope

Handler = Callable[["FakeServer", Call], None]

RESULT: dict[str, Any] = {
    "video": {"url": "file:///out/video.mp4", "file_name": "video.mp4", "file_size": 4},
    "frames": 72,
    "fps": "24/1",
    "duration": 3.0,
    "width": 640,
    "height": 480,
    "encoder": "libx264",
}


def job_status(request_id: object, **changes: Any) -> dict[str, Any]:
    progress = {"images_done": 0, "images": 2, "frames": 72, "stage": "queued"}
    return {"request_id": request_id, "status": "IN_QUEUE", "progress": progress} | changes


class FakeServer:
    """Hands every call to `handle`, which replies through `answer`, `notify` and `send`, or not at all."""

    def __init__(self, handle: Handler, port: int | str = "*") -> None:
        self.calls: list[Call] = []
        self.bodies: list[list[bytes]] = []
        self.identities: list[bytes] = []
        self._handle = handle
        self._context = zmq.Context()
        self._should_stop = threading.Event()
        self._should_restart = False
        self._socket = self._bind(f"tcp://127.0.0.1:{port}")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answer(self, call: Call, result: dict[str, Any], attachments: tuple[bytes, ...] = ()) -> None:
        self.send(answer(call.id, result, attachments))

    def notify(self, call: Call, **changes: Any) -> None:
        self.send(notification("progress", job_status(call.params.get("request_id"), **changes)))

    def send(self, frames: list[Any]) -> None:
        """Send to whoever asked last."""
        self._socket.send_multipart([*self._envelope, *frames])

    def restart(self) -> None:
        """Drop every connection once the handler returns, and bind the same port again."""
        self._should_restart = True

    def stop(self) -> None:
        self._should_stop.set()
        self._thread.join()
        self._context.destroy(linger=0)

    def _bind(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        while True:
            try:
                socket.bind(endpoint)
                return socket
            except zmq.ZMQError:
                time.sleep(0.01)  # the port is given back by zmq's own thread, a little after close

    def _run(self) -> None:
        while not self._should_stop.is_set():
            if self._socket.poll(10):
                self._envelope, body = split_envelope(self._socket.recv_multipart())
                self.identities.append(bytes(self._envelope[0]))
                self.bodies.append(body)
                self.calls.append(parse_call(body))
                self._handle(self, self.calls[-1])
            if self._should_restart:
                self._should_restart = False
                self._socket.close(linger=0)
                self._socket = self._bind(self.endpoint)
        self._socket.close(linger=0)
