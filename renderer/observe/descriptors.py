"""Work that is repeated for as long as the daemon lives, and how it survives a shortage of file descriptors.

The failure of a task is seen by the code that awaits it. No code awaits the repeated tasks, so one bad moment would end
them for good without a line in the log. Nearly all of them fail during a shortage and work again afterwards, so one
pair of lines in the log, at its beginning and at its end, reports all those failures.

A listening socket whose connection cannot be accepted stays readable, so that a loop which waits for it is woken again
at once: asyncio tries a thousand times in a row, libzmq and socketserver without end.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn

from renderer.errors import StillreelError

log = logging.getLogger(__name__)

SHORT: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE})
SPARE: Final = 8  # how many files must be free before the shortage counts as over
_CALM_S: Final = 3.0
_LOOK_S: Final = 1.0
_ASYNCIOS_WORDS: Final = "socket.accept() out of system resource"


class _Shortage:
    """Whether the log has reported a shortage; one process has one limit."""

    def __init__(self) -> None:
        self._is_said = False
        self._noticed_at = 0.0

    def notice(self) -> None:
        """Log that a shortage has begun, unless that was logged already; may be called on any thread."""
        self._noticed_at = time.monotonic()
        if not self._is_said:
            self._is_said = True
            words = "no more files can be opened (RLIMIT_NOFILE): connections and much else wait until that is over"
            log.warning(words, extra={"action": "no_descriptors"})

    def look(self) -> None:
        """Log that the shortage is over, after a while without failures, so that several short ones count as one."""
        if not self._is_said:
            return
        if are_short(SPARE):
            self._noticed_at = time.monotonic()
        elif time.monotonic() - self._noticed_at >= _CALM_S:
            self._is_said = False
            log.info("files can be opened again", extra={"action": "descriptors"})


_shortage = _Shortage()


def say_short() -> None:
    """Log that connections wait, once for each shortage."""
    _shortage.notice()


def is_why(error: BaseException) -> bool:
    """Return whether an error comes from a shortage, which is logged then; the caller need log nothing."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError) or cause.errno not in _NO_FILES:
        return False
    _shortage.notice()
    return True


async def repeatedly(what: str, work: Callable[[], Awaitable[object]], pause_s: float) -> NoReturn:
    """Do some work, pause, and repeat that until cancelled; a failure is logged, and the work is done again.

    Failures for want of a file descriptor are logged once for the whole daemon.

    Args:
        what: names the work in the log, such as "sweeping the uploads".
    """
    while True:
        try:
            await work()
        except (OSError, StillreelError) as error:
            if not is_why(error):
                words = error.strerror if isinstance(error, OSError) else str(error)
                log.warning("%s failed and is tried again: %s", what, words, extra={"action": "tried_again"})
        except Exception:
            log.exception("%s failed and is tried again", what, extra={"action": "tried_again"})
        await asyncio.sleep(pause_s)


async def watch() -> NoReturn:
    """Log when a shortage is over, until cancelled."""
    while True:
        await asyncio.sleep(_LOOK_S)
        _shortage.look()


def are_short(spare: int) -> bool:
    """Return whether fewer than `spare` more files can be opened."""
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
    """Handle an error that a loop reports, except waiting connections, which `Listener` has reported."""
    if not str(context.get("message", "")).startswith(_ASYNCIOS_WORDS):
        loop.default_exception_handler(context)


class Listener(socket.socket):
    """A listening socket that fails once for a connection that it cannot accept, and then pretends that none waits.

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
