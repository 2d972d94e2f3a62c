"""Real HTTP servers on the loopback whose answers the tests write down, and a name server that says what it is told."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A server; what it was asked lies in `requests`, as request lines with their headers."""

    def __init__(self, answers: Mapping[str, Answer], address: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.connections = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def setup(self) -> None:
                site.connections += 1
                super().setup()

            def do_GET(self) -> None:
                site.requests.append((self.path, dict(self.headers.items())))
                try:
                    answers[self.path](self)
                    self.wfile.flush()
                except (OSError, ValueError):  # the client has gone
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that goes in the middle of a handshake is part of the tests."""

        self.server = Server((address, port), Handler)
        self.port: int = self.server.server_port
        self.url = f"http://{f'[{address}]' if ':' in address else address}:{self.port}"

    def secure(self, context: ssl.SSLContext) -> None:
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)


@contextmanager
def serving(
    answers: Mapping[str, Answer], address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Site]:
    site = Site(answers, address, port)
    if tls is not None:
        site.secure(tls)
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield site
    finally:
        site.server.shutdown()
        thread.join()
        site.server.server_close()


def sends(body: bytes, status: int = 200, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def redirects(target: str, status: int = 302) -> Answer:
    return sends(b"", status, Location=target)


def says(answer: bytes, *, then: bytes = b"", times: int = 0, pause_s: float = 0) -> Answer:
    """Send these very bytes, and after them others again and again."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.wfile.write(answer)
        for _ in range(times):
            handler.wfile.write(then)
            time.sleep(pause_s)

    return write


class Names:
    """A resolver: each name has a list of answers, one a question and the last for ever; each answer is addresses."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.asked: list[tuple[str, int]] = []
        self._answers = {name.replace("_", "."): list(of_name) for name, of_name in answers.items()}

    def __call__(self, host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append((host, port))
        of_name = self._answers.get(host)
        if of_name is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = of_name.pop(0) if len(of_name) > 1 else of_name[0]
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in addresses
        ]
