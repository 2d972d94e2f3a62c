"""The port that Prometheus scrapes: loopback only, on threads of its own, which the daemon never waits for.

Whoever connects holds one thread at most. Threads are few, and a connection has a time limit in all, because a limit
between two bytes is none for a client that sends a byte now and then.
"""

import contextlib
import ipaddress
import logging
import socket
import socketserver
import sys
import threading
import time
from typing import Any, Final, Self

from prometheus_client import CollectorRegistry, MetricsHandler

from renderer.errors import ConfigError
from renderer.observe.descriptors import SHORT, say_short
from renderer.observe.metrics import Metrics

log = logging.getLogger(__name__)

CONNECTIONS: Final = 8
_CLOSE_S: Final = 2.0
_SHORT_S: Final = 1.0


class MetricsServer:
    """An open port, until `close`."""

    def __init__(self, server: "_Server") -> None:
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT, with the port that it really is."""
        host, port = map(str, self._server.server_address[:2])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port and cut off what is being answered; harmless when repeated."""
        with contextlib.suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which else looks twice a second only
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def serve_metrics(metrics: Metrics, address: str, *, connection_s: float = 10.0) -> MetricsServer:
    """Answer scrapes until closed.

    Args:
        address: HOST:PORT of a loopback address; port 0 takes a free one.
        connection_s: after which a connection is cut off, whether it is silent or slow.

    Raises:
        ConfigError: it is no such address, or not free.
    """
    place = _loopback(address)
    try:
        return MetricsServer(_Server(place, metrics.registry, connection_s))
    except OSError as error:
        raise ConfigError(f"observe.metrics: {address}: {error.strerror}") from error


class _Server(socketserver.TCPServer):
    """A thread per connection; not http.server's class, which asks the resolver for this machine's name."""

    allow_reuse_address = True

    def __init__(self, place: tuple[str, int], registry: CollectorRegistry, connection_s: float) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._connection_s = connection_s
        self._open: dict[socket.socket, tuple[threading.Thread, float]] = {}
        super().__init__(place, MetricsHandler.factory(registry))

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SHORT:
                say_short()
                time.sleep(_SHORT_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._open) >= CONNECTIONS:
            raise ConnectionRefusedError(f"{CONNECTIONS} connections are open already")
        thread = threading.Thread(target=self._answer, args=(request, client_address), name="scrape", daemon=True)
        self._open[request] = thread, time.monotonic() + self._connection_s
        try:
            thread.start()
        except RuntimeError:  # this process may have no more threads
            del self._open[request]
            raise

    def service_actions(self) -> None:
        """Cut off who takes too long; `serve_forever` calls this after every connection and twice a second."""
        for request, (_, ends_at) in tuple(self._open.items()):
            if time.monotonic() > ends_at:
                _cut_off(request)

    def server_close(self) -> None:
        super().server_close()
        answering = tuple(self._open.items())
        for request, _ in answering:
            _cut_off(request)
        until = time.monotonic() + _CLOSE_S
        for _, (thread, _) in answering:
            thread.join(max(0.0, until - time.monotonic()))

    def handle_error(self, *_: object) -> None:
        """Log what socketserver would print."""
        log.debug("a scrape was refused: %s", sys.exception(), extra={"action": "scrape_failed"})

    def _answer(self, request: socket.socket, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError as error:
            log.debug("a scrape was not answered: %s", error, extra={"action": "scrape_failed"})
        except Exception:
            log.warning("a scrape was not answered", exc_info=True, extra={"action": "scrape_failed"})
        finally:
            self.shutdown_request(request)
            del self._open[request]


def _cut_off(request: socket.socket) -> None:
    with contextlib.suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


def _loopback(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        place = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        number = int(port) if port.isascii() and port.isdecimal() else -1
    except ValueError:
        place, number = None, -1
    if place is None or not place.is_loopback or not 0 <= number <= 65535:
        raise ConfigError(
            f"observe.metrics: expected HOST:PORT on a loopback address, such as 127.0.0.1:9464, found {address!r}"
        )
    return str(place), number
