"""Logs refused clients: each address and reason at most every ten minutes, and never enough to fill a disk."""

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
    """Logs new refusals and counts those for which there was no room."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._window = float("-inf")
        self._lines = self._left_out = 0

    def note(self, who: str, why: str) -> None:
        """Log a refusal, unless the same was logged recently or too many lines were written.

        Args:
            who: an address; empty if it is not known, which is only logged if no other address was for this reason.
        """
        now = self._clock()
        logged_at = self._logged.get((who, why), float("-inf"))
        if now - logged_at < _AGAIN_S or not self._has_room(now):
            return
        for refusal in ((who, why), ("", why)):
            self._logged[refusal] = now
            self._logged.move_to_end(refusal)
        while len(self._logged) > _REMEMBERED:
            self._logged.popitem(last=False)
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
