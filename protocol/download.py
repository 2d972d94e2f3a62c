"""A video on its way from a daemon, part by part, and the file that takes its name once it is whole."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from protocol.errors import ClientError
from protocol.schema import VideoPart
from protocol.wire import Part


@dataclass(slots=True)
class Download:
    """How far a video has come; its parts must follow one another and be of one file."""

    taken_bytes: int = 0
    size_bytes: int | None = None

    @property
    def is_whole(self) -> bool:
        return self.taken_bytes == self.size_bytes

    def take(self, part: VideoPart, attachments: Sequence[Part]) -> bytes:
        """Return the bytes of the next part.

        Raises:
            ClientError: it is not what follows.
        """
        content = bytes(attachments[0]) if len(attachments) == 1 else b""
        if self.size_bytes not in {None, part.file_size}:
            raise ClientError(
                f"the video has changed while it was fetched: {self.size_bytes} bytes became {part.file_size}"
            )
        if part.offset != self.taken_bytes or not 0 < len(content) <= part.file_size - part.offset:
            raise ClientError(
                f"the server's answer is no part of the video: expected one from byte {self.taken_bytes} on, "
                f"found {len(content)} bytes from byte {part.offset} of {part.file_size}"
            )
        self.size_bytes = part.file_size
        self.taken_bytes += len(content)
        return content


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Lend a file that takes the name `path` when the block has ended, synced; if it ends badly nothing is left of it.

    A symbolic link stays, and the file that it leads to is replaced.
    """
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
        _sync(place.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Have the new name outlive a power cut, where a directory can be opened for that."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
