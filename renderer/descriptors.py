"""What happens when no file can be opened any more: connections wait, and the log says so once and not each time.

A listening socket whose connection cannot be accepted stays readable, so that whoever waits for it is woken again at
once: asyncio tries a thousand times in a row, libzmq and socketserver without end.
"""

import errno
import logging
import os
import socket
import time
from typing import Any, Final

log = logging.getLogger(__name__)

SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_QUIET_S: Final = 60.0
_ASYNCIOS_WORDS: Final = "socket.accept() out of system resource"
_said_at = -_QUIET_S


def say_short() -> None:
    """Log that connections wait, once a minute at most."""
    global _said_at  # noqa: PLW0603 - one process has one limit
    now = time.monotonic()
    if now - _said_at >= _QUIET_S:
        log.warning("no more files can be opened (RLIMIT_NOFILE): connections wait", extra={"action": "no_descriptors"})
        _said_at = now


def are_short(spare: int) -> bool:
    """Tell whether fewer than so many files can be opened."""
    opened: list[int] = []
    try:
        opened += (os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(spare))
    except OSError:
        return True
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False


def pass_on(loop: Any, context: dict[str, Any]) -> None:
    """Handle what a loop complains of, but for connections that wait, which `Listener` has told."""
    if not str(context.get("message", "")).startswith(_ASYNCIOS_WORDS):
        loop.default_exception_handler(context)


class Listener(socket.socket):
    """A listening socket that fails once for a connection that it cannot accept, and then has none for this turn.

    asyncio looks away for a second after such a failure, but goes on accepting first, as often as the backlog is long.
    """

    _has_failed = False

    def accept(self) -> tuple[socket.socket, Any]:
        if self._has_failed:
            self._has_failed = False
            raise BlockingIOError(errno.EAGAIN, "connections wait")
        try:
            return super().accept()
        except OSError as error:
            if error.errno in SHORT:
                self._has_failed = True
                say_short()
            raise
