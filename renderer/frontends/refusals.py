"""Who was not let in, in the log: once in a while for each address and reason, and never so often as to fill a disk."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_AGAIN_S: Final = 600.0
_REMEMBERED: Final = 1024
_LINES, _LINES_S = 30, 60.0  # for all addresses together


class Refusals:
    """Writes a line for what is new, and counts the rest."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._window = float("-inf")
        self._lines = self._left_out = 0

    def note(self, who: str, why: str) -> None:
        """Log that somebody was refused, unless that was said a while ago or too much has been said.

        Args:
            who: an address; empty where it is not known, which is worth a line only if nobody else was named.
        """
        now = self._clock()
        told_at = self._told.get((who, why), float("-inf"))
        if now - told_at < _AGAIN_S or not self._has_room(now):
            return
        for told in ((who, why), ("", why)):
            self._told[told] = now
            self._told.move_to_end(told)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        log.warning("refused %s: %s", who or "somebody", why, extra={"action": "refused"})

    def _has_room(self, now: float) -> bool:
        if now - self._window >= _LINES_S:
            if self._left_out:
                log.warning("refused %d more, too many to name", self._left_out, extra={"action": "refused"})
            self._window, self._lines, self._left_out = now, 0, 0
        if self._lines >= _LINES:
            self._left_out += 1
            return False
        self._lines += 1
        return True
