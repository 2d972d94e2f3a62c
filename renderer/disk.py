"""Getting bytes to the disk for good, and telling a full disk from other trouble."""

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on disk.

    Raises:
        OSError: they could not be written.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_private(file: Path, content: bytes) -> None:
    """Put a file in place as a whole, readable by its owner only.

    Raises:
        OSError: it could not be written; what stood there stands there still.
    """
    part = file.with_name(f"{file.name}.part-{os.getpid()}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as stream:  # noqa: PTH123 - of a descriptor, which Path cannot open
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.rename(file)


def is_full(error_number: int | None) -> bool:
    """Whether an errno says that there is no room: on the disk, or for this user."""
    return error_number in {errno.ENOSPC, errno.EDQUOT}
