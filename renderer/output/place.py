"""Where a video may be put: checked before the work begins, so that no hour of rendering ends at a missing directory.

Only a regular file is replaced, since a rename would put a file where a device, a pipe or a socket was. A symbolic link
stays, and the file that it leads to is replaced. Neither that file nor the one that the video grows in may be an
input; they are compared by device and inode, for one file may have many names.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from renderer.disk import is_full
from renderer.errors import ConfigError, JobError, OutputFailed, StorageFull
from renderer.pictures.fetch import Fetcher

FORMATS: Final[Mapping[str, str]] = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov"}
"""The suffixes of videos, and what libavformat calls each; the brand in the file follows it."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def part_of(video: Path) -> Path:
    """Return the file that a video grows in until it is whole."""
    return video.with_name(f"{video.name}.part")


def place_for(output: Path) -> Path:
    """Return the absolute path of the file that is to be written, with links followed.

    Raises:
        ConfigError: no video can be put there; the message names the path.
    """
    if output.suffix.lower() not in FORMATS:
        *others, last = FORMATS
        raise ConfigError(f"output: expected a name that ends in {', '.join(others)} or {last}, found {output}")
    place = Path(os.path.realpath(output))
    try:
        if not place.parent.is_dir():
            raise ConfigError(f"output: expected a directory that exists, found {output.parent}")
        _refuse_special(output, place)
        _try(part_of(place))
    except OSError as error:
        raise ConfigError(f"output: {output} cannot be written: {error.strerror}") from error
    return place


def files_of(urls: Iterable[str], fetcher: Fetcher) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every url that names a file which can be read, with what the system says of the file."""
    for url in dict.fromkeys(urls):
        with suppress(JobError), fetcher.open_local(url) as handle:  # what cannot be read cannot be overwritten either
            if handle is not None:
                yield url, os.fstat(handle)


def refuse_inputs(output: Path, inputs: Iterable[tuple[str, os.stat_result]]) -> None:
    """Refuse to write over what the video is made from.

    Args:
        output: from `place_for`.
        inputs: what each is called, and what the system says of it; from `files_of` for images.

    Raises:
        ConfigError: one of them would be overwritten.
    """
    taken = [(path, found) for path in (output, part_of(output)) if (found := _stat(path))]
    for name, found in inputs:
        for path, there in taken:
            if os.path.samestat(found, there):
                raise ConfigError(f"output: {path} is an input, {name}; expected another name")


def write_failure(number: int | None, words: str | None) -> OutputFailed | StorageFull:
    """Return our error for what the system or libavformat says of a write, without a path.

    Args:
        number: its `errno`.
        words: its `strerror`.
    """
    message = f"the video could not be written: {words}"
    return StorageFull(message) if is_full(number) else OutputFailed(message)


def _refuse_special(output: Path, place: Path) -> None:
    found = _stat(place)
    if found is None:
        return
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise ConfigError(f"output: {output} is {kind}; only a regular file is replaced, and -o - writes to stdout")
    if not os.access(place, os.W_OK, effective_ids=True):
        raise ConfigError(f"output: {output} cannot be written: {os.strerror(errno.EACCES)}")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _try(part: Path) -> None:
    """Open the file that the video will grow in, as nothing else tells of read-only disks and overlong names."""
    is_new = not os.path.lexists(part)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666))
    if is_new:
        part.unlink()
