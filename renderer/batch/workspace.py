"""A run's own directory among the outputs, OUT/.stillreel/ID, for what is not finished.

A lock in it says that the run lives. Whoever gets the lock of another's directory removes that directory.
"""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from renderer.errors import ConfigError
from renderer.scratch import claim, remove_dead

HIDDEN: Final = ".stillreel"
_LOCK: Final = "lock"


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Lend a directory below `out` that nobody else writes to; also remove what runs that were killed have left.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        own, lock = claim(lambda: _made(out / HIDDEN), _LOCK)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be written: {error.strerror}") from error
    try:
        _remove_dead(own)
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)
        lock.close()
        _remove_dead(own)
        with contextlib.suppress(OSError):  # another run is in it
            own.parent.rmdir()


def _made(parent: Path) -> Path:
    own = parent / uuid.uuid4().hex
    own.mkdir(parents=True)
    return own


def _remove_dead(own: Path) -> None:
    with contextlib.suppress(OSError):
        others = [each for each in own.parent.iterdir() if each != own and each.is_dir()]
        remove_dead(others, _LOCK)
