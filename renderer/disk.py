"""Getting bytes to the disk for good, and telling a full disk from other trouble.

A file is written under another name, synced, renamed, and its directory is synced as well: a rename is on disk when the
directory is (fsync(2)). Whoever looks therefore finds the old file or the new one, whole, even after a power cut.
"""

import errno
import os
import secrets
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on disk.

    Raises:
        OSError: they could not be written.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_private(path: str, flags: int) -> int:
    """Open a file for `open(..., opener=open_private)`: one that is made is for its owner alone, whatever the umask."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def put(file: Path, content: bytes, *, part: Path | None = None, mode: int = 0o600) -> None:
    """Put a file in place as a whole, and for good.

    Args:
        part: where it grows, on the same file system and nobody else's; a hidden name beside it unless given.
        mode: of a new file, as far as the umask lets it; its owner's alone unless given.

    Raises:
        OSError: it could not be written. What stood there stands there still, and nothing else is left.
    """
    part = part or file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(handle, "wb") as stream:  # noqa: PTH123 - of a descriptor, which Path cannot open
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        settle(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def settle(part: Path, file: Path) -> None:
    """Give a file whose content is on disk its final name, for good.

    Raises:
        OSError: it could not be renamed, or nobody can tell whether a power cut would undo that.
    """
    part.replace(file)
    sync(file.parent)


def is_full(error_number: int | None) -> bool:
    """Whether an errno says that there is no room: on the disk, or for this user."""
    return error_number in {errno.ENOSPC, errno.EDQUOT}
