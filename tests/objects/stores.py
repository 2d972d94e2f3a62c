"""Servers of objects: moto's in a process of its own, one whose answers a test writes, and a line that holds a put."""

import contextlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import obstore
from obstore.store import S3Store

KEY, SECRET = "AKIATESTONLYTESTONLY", "a-secret-that-no-log-may-hold"
_READY = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


class Moto:
    """A server of S3 that keeps its objects in memory."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert self._child.stderr is not None
        found = next(filter(None, map(_READY.search, self._child.stderr)), None)
        assert found, "moto's server did not start"
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._reader = threading.Thread(target=self._child.stderr.read)  # a full pipe would stop it
        self._reader.start()

    def bucket(self) -> "Bucket":
        """Make a bucket."""
        name = f"reels-{uuid.uuid4().hex[:12]}"
        made = urllib.request.Request(f"{self.url}/{name}", data=b"", method="PUT")
        urllib.request.urlopen(made, timeout=60).close()
        return Bucket(self.url, name)

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        self._reader.join()
        assert self._child.stderr is not None
        self._child.stderr.close()


class Bucket:
    """A bucket, as another program sees it."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.url = f"s3://{name}"
        self.name = name
        self._store = S3Store(name, endpoint=endpoint, client_options={"allow_http": True})

    def put(self, name: str, content: bytes) -> str:
        """Put an object, and return its url."""
        obstore.put(self._store, name, content)
        return f"{self.url}/{name}"

    def get(self, name: str) -> bytes:
        return bytes(obstore.get(self._store, name).bytes())

    def about(self, name: str) -> dict[str, Any]:
        return dict(obstore.get(self._store, name).attributes)

    def names(self) -> list[str]:
        return self.names_below("")

    def names_below(self, prefix: str) -> list[str]:
        return sorted(each["path"] for page in obstore.list(self._store, prefix or None) for each in page)


Answer = Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]


class Scripted:
    """A server that gives the answers of a test, one after the other, and the last of them from then on."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        waiting = list(answers)
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                scripted.asked.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body = (waiting.pop(0) if len(waiting) > 1 else waiting[0])(self)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("content-length", str(len(body)))
                    self.send_header("last-modified", "Mon, 30 Nov 2026 18:19:23 GMT")
                    self.send_header("etag", '"1"')
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = answer  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answering(status: int, code: str = "", body: bytes = b"") -> Answer:
    text = f"<Error><Code>{code}</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId></Error>".encode() if code else body
    return lambda _: (status, text)


class HeldLine:
    """A way to a server on which the first put stops until its sender is gone."""

    def __init__(self, port: int, *, before_answer: bool = False) -> None:
        """Listen; the put stops in the middle of its content, or when the server has it and answers."""
        self.is_held = threading.Event()
        self._before_answer = before_answer
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(near,), daemon=True))
                self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._port)) as far, contextlib.suppress(OSError):
            data = near.recv(65536)
            if data.startswith(b"PUT ") and not self.is_held.is_set():
                self._hold(data, near, far)
                return
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            far.sendall(data)
            _copy(near, far)

    def _hold(self, data: bytes, near: socket.socket, far: socket.socket) -> None:
        head, _, content = data.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        assert found
        while len(content) < (int(found[1]) if self._before_answer else 8):
            content += near.recv(65536)
        far.sendall(head + b"\r\n\r\n" + (content if self._before_answer else content[:8]))
        if self._before_answer:
            far.recv(1)
        self.is_held.set()
        while near.recv(65536):
            pass

    def close(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
