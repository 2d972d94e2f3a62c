"""The lines of a job's log that its client may read: what happened to the job, in our own words.

They are chosen by their `action`. Other lines are for whoever runs the server, as they may quote commands and paths.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

from renderer.observe.job_log import LOG_NAME, below

_FOR_CLIENTS: Final = {
    "accepted",
    "begun",
    "setback",
    "holds_encoded",
    "warned",
    "stills_found",
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
    """Reads the logs of jobs, and keeps what it has read until the file grows, as clients ask ten times a second."""

    def __init__(self, logs: Path) -> None:
        self.directory_of = below(logs)
        self._read: OrderedDict[str, tuple[int, Lines]] = OrderedDict()

    def lines(self, job_id: str) -> Lines:
        """Return the lines so far that a client may read."""
        directory = self.directory_of(job_id)
        try:
            size_bytes = (directory / LOG_NAME).stat().st_size if directory else 0
            known = self._read.get(job_id)
            if known is None or known[0] != size_bytes:
                text = (directory / LOG_NAME).read_bytes() if directory and size_bytes else b""
                known = size_bytes, [found for line in text.splitlines() if (found := _for_clients(line))]
        except OSError:
            return []
        self._read[job_id] = known
        self._read.move_to_end(job_id)
        if len(self._read) > _KEPT:
            self._read.popitem(last=False)
        return known[1]


def _for_clients(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
        if fields.get("action") not in _FOR_CLIENTS or fields["level"] not in _LEVELS:
            return None
        return {
            "message": fields["message"],
            "timestamp": fields["ts"],
            "level": _LEVELS[fields["level"]],
            "source": "USER",
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # a line that was cut short when its process died
