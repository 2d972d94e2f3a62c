"""A real HTTP proxy on the loopback that leads the names it knows to addresses that the tests choose."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Proxy:
    """What it was asked lies in `asked`: method, target, and the Proxy-Authorization header."""

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self.asked: list[tuple[str, str, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._note()
                url = urlsplit(self.path)
                onward = HTTPConnection(hosts.get(url.hostname or "", url.hostname or ""), url.port or 80)
                onward.request("GET", url.path)
                answer = onward.getresponse()
                self.send_response(answer.status)
                self.end_headers()
                self.wfile.write(answer.read())
                onward.close()

            def do_CONNECT(self) -> None:
                self._note()
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((hosts.get(host, host), int(port))) as onward:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=_pump, args=(onward, self.connection))
                    back.start()
                    _pump(self.connection, onward)
                    back.join()
                self.close_connection = True

            def _note(self) -> None:
                proxy.asked.append((self.command, self.path, self.headers.get("Proxy-Authorization", "")))

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


@contextmanager
def proxying(hosts: Mapping[str, str]) -> Iterator[Proxy]:
    proxy = Proxy(hosts)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        thread.join()
        proxy.server.server_close()
