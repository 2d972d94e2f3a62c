"""What a client may read of its job's log: the course of events, in our own words.

A line is told by its `action`. Other lines are for whoever runs the server: they may quote commands and paths.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from renderer.observe.job_log import LOG_NAME, below

_TOLD: Final = {
    "accepted",
    "begun",
    "setback",
    "holds_encoded",
    "warned",
    "retention",
    "done",
    "failed",
    "cancelled",
    "expired",
}
_LEVELS: Final = {"INFO": "INFO", "WARNING": "WARN", "ERROR": "ERROR"}
_KEPT = 256

Lines = list[dict[str, Any]]


class JobLogReader:
    """Reads the logs of jobs; what was read is kept until the file grows, for clients ask ten times a second."""

    def __init__(self, logs: Path) -> None:
        self.directory_of = below(logs)
        self._read: OrderedDict[str, tuple[int, Lines]] = OrderedDict()

    def lines(self, job_id: str) -> Lines:
        """Return what a client may read so far; empty if there is nothing."""
        directory = self.directory_of(job_id)
        try:
            size_bytes = (directory / LOG_NAME).stat().st_size if directory else 0
            known = self._read.get(job_id)
            if known is None or known[0] != size_bytes:
                text = (directory / LOG_NAME).read_bytes() if directory and size_bytes else b""
                known = size_bytes, [told for line in text.splitlines() if (told := _told(line))]
        except OSError:
            return []
        self._read[job_id] = known
        self._read.move_to_end(job_id)
        if len(self._read) > _KEPT:
            self._read.popitem(last=False)
        return known[1]


def _told(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
        if fields.get("action") not in _TOLD or fields["level"] not in _LEVELS:
            return None
        return {
            "message": fields["message"],
            "timestamp": fields["ts"],
            "level": _LEVELS[fields["level"]],
            "source": "USER",
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut short when its process died
