"""The last session of this process, which is kept for a moment for the next job of the same shape.

The driver needs more time to open a session than to encode a dozen stills. But sessions are few: an idle one is closed
as soon as another process waits for one, and after a moment in any case.
"""

import functools
import logging
import threading
import time
from collections.abc import Sequence
from multiprocessing.util import Finalize

from renderer.encode.nvenc.options import SessionShape
from renderer.encode.nvenc.session import Session
from renderer.work import NvencDevice

log = logging.getLogger(__name__)

_LOOK_S = 0.1


class SessionCache:
    """Keeps at most one idle session; safe to use from many threads."""

    def __init__(self) -> None:
        self._kept: Session | None = None
        self._lock = threading.Lock()
        self._is_off = False

    def take(self, shape: SessionShape, devices: Sequence[NvencDevice]) -> Session | None:
        """Return the kept session if it fits, and close it if it does not."""
        with self._lock:
            session, self._kept = self._kept, None
        if session is None:
            return None
        if session.shape == shape and session.device in devices:
            session.was_kept = True
            return session
        session.close()
        return None

    def put(self, session: Session, keep_s: float) -> None:
        """Keep a session that has finished its stream, or close it if another process needs it or it cannot go on."""
        if self._is_off or not keep_s or session.shape.has_memory or session.is_wanted():
            session.close()
            return
        with self._lock:
            before, self._kept = self._kept, session
        if before is not None:
            before.close()
        threading.Thread(target=self._watch, args=(session, keep_s), name="kept session", daemon=True).start()

    def stop_keeping(self) -> None:
        """Stop keeping sessions: one that was kept has failed, so from now on each job opens a fresh one."""
        log.warning("encode sessions are no longer kept for the next job", extra={"action": "keep_off"})
        self._is_off = True
        self.close()

    def close(self) -> None:
        """Close the session that is kept, if there is one."""
        with self._lock:
            session, self._kept = self._kept, None
        if session is not None:
            session.close()

    def _watch(self, session: Session, keep_s: float) -> None:
        ends = time.monotonic() + keep_s
        while time.monotonic() < ends and not session.is_wanted():
            time.sleep(min(_LOOK_S, keep_s))
            with self._lock:
                if self._kept is not session:
                    return
        with self._lock:
            if self._kept is not session:
                return
            self._kept = None
        session.close()


@functools.cache
def keeper() -> SessionCache:
    """Return the only cache of this process."""
    kept = SessionCache()
    Finalize(None, kept.close, exitpriority=30)  # before the memory and the context that the session uses
    return kept
