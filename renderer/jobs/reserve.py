"""Room on the disk that is kept for bad times: a file that is given up when the store finds the disk full.

Without it a job whose video has filled the disk could neither end nor fail, because both have to be written down, and
would hold its slot until somebody made room.
"""

import contextlib
import os
from pathlib import Path

_SIZE_BYTES = 1 << 18  # some twenty moves


class Reserve:
    """One file on the store's disk."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Take the room, unless it is taken already.

        Raises:
            OSError: there is none.
        """
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size >= _SIZE_BYTES:  # less is what a kill in the middle has left
                return
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, _SIZE_BYTES)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(handle)

    def spend(self) -> bool:
        """Give the room up; return whether there was any."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False
