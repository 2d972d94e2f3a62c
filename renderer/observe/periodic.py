"""Work that is repeated for as long as the daemon lives.

The failure of a task is seen by the code that awaits it. No code awaits these tasks, so one bad moment, such as a
shortage of file descriptors, would end them for good without a line in the log.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from renderer.errors import StillreelError
from renderer.observe import descriptors

log = logging.getLogger(__name__)


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
            if not descriptors.is_why(error):
                words = error.strerror if isinstance(error, OSError) else str(error)
                log.warning("%s failed and is tried again: %s", what, words, extra={"action": "tried_again"})
        except Exception:
            log.exception("%s failed and is tried again", what, extra={"action": "tried_again"})
        await asyncio.sleep(pause_s)
