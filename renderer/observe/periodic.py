"""What is done now and then for as long as the daemon lives, and must not end unseen.

A task that fails is noticed by whoever awaits it. Nobody awaits these, so that one bad moment, such as a want of file
descriptors, would end them for good and without a word.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from renderer.errors import StillreelError
from renderer.observe import descriptors

log = logging.getLogger(__name__)


async def repeatedly(what: str, work: Callable[[], Awaitable[object]], pause_s: float) -> NoReturn:
    """Do something, wait, and so on until cancelled; what fails is logged and done again after the pause.

    What fails for want of a file descriptor is logged once for the whole daemon.

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
