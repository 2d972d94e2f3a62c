"""Notices a call into a driver that does not return.

Nothing in this process can end such a call. But others can be told to leave the device alone: when the job's time is up
and its process is killed, the job's next attempt goes elsewhere.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator

_LOOKS = 4  # within the limit


class StallWatch:
    """Calls back once for a block that takes too long; a thread of its own looks, from the first block to `close`.

    It counts its looks and not the time: a process that was stopped for a while, or a machine that slept, is not to be
    laid to the device.
    """

    def __init__(self, limit_s: float, on_stall: Callable[[], None]) -> None:
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._block: object | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch one block; blocks come one after the other."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="stall watch", daemon=True)
            self._thread.start()
        self._block = object()
        try:
            yield
        finally:
            self._block = None

    def close(self) -> None:
        """Watch no more; harmless when repeated."""
        self._closed.set()

    def _watch(self) -> None:
        seen, looks = None, 0
        while not self._closed.wait(self._limit_s / _LOOKS):
            block = self._block
            looks = looks + 1 if block is seen else 0
            seen = block
            if block is not None and looks >= _LOOKS:
                self._on_stall()
                return
