"""The port that Prometheus scrapes: loopback only, on threads of its own, which the daemon never waits for.

Each connection has a thread. Connections are few, and each has a time limit as a whole, because a limit on the time
between two bytes would not stop a client that sends a byte now and then.
"""

import contextlib
import ipaddress
import logging
import socket
import socketserver
import sys
import threading
import time
from typing import Any, Final

from prometheus_client import MetricsHandler

from renderer.errors import ConfigError
from renderer.observe.descriptors import SHORT, say_short
from renderer.observe.prometheus import PrometheusMetrics

log = logging.getLogger(__name__)

CONNECTIONS: Final = 8
_SHORT_S: Final = 1.0


class MetricsServer(socketserver.ThreadingTCPServer):
    """An open port, until `close`; not of http.server's class, which asks the resolver for this machine's name."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, metrics: PrometheusMetrics, address: str, *, connection_s: float = 10.0) -> None:
        """Answer scrapes from now on.

        Args:
            address: HOST:PORT of a loopback address; port 0 takes a free one.
            connection_s: the time after which a connection is cut off, whether it is silent or slow.

        Raises:
            ConfigError: this is not such an address, or the port is in use.
        """
        place = _loopback(address)
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._connection_s = connection_s
        self._open: dict[socket.socket, threading.Timer] = {}
        try:
            super().__init__(place, MetricsHandler.factory(metrics.registry))
        except OSError as error:
            raise ConfigError(f"observe.metrics: {address}: {error.strerror}") from error
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """HOST:PORT, with the port that it really is."""
        host, port = map(str, self.server_address[:2])
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the port and cut off what is being answered; harmless when repeated."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes its thread, which else looks twice a second only
        self.shutdown()
        self._thread.join()
        self.server_close()
        for request in tuple(self._open):
            _cut_off(request)

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
        timer = threading.Timer(self._connection_s, _cut_off, [request])
        timer.daemon = True
        timer.start()
        self._open[request] = timer
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        if timer := self._open.pop(request, None):
            timer.cancel()
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        """Log what socketserver would print."""
        error = sys.exception()
        is_ours = not isinstance(error, OSError)
        level = logging.WARNING if is_ours else logging.DEBUG
        log.log(level, "a scrape was not answered: %s", error, exc_info=is_ours, extra={"action": "scrape_failed"})


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
