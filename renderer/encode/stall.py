"""Notices a call into a driver that does not return.

Nothing in this process can end such a call. But others can be told to leave the device alone: when the job's time is up
and its process is killed, the job's next attempt goes elsewhere.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class StallWatch:
    """Calls back once for a block that takes too long; a thread of its own looks, from the first block to `close`."""

    def __init__(self, limit_s: float, on_stall: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._since_s: float | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one block; blocks come one after the other."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)
            self._thread.start()
        self._since_s = time.monotonic()
        try:
            yield
        finally:
            self._since_s = None

    def close(self) -> None:
        """Watch no more; harmless when repeated."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / 4):
            since_s = self._since_s
            if since_s is not None and time.monotonic() - since_s > self._limit_s:
                self._on_stall()
                return
