"""The manifests that wait in `incoming`, and how a manifest is read that anybody may have put there.

A file is opened without following links and without blocking, its kind is checked once it is open, and no more is read
than the limit: a link could lead to the daemon's secrets, and reading a FIFO or a device might never end.
"""

import codecs
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocol.documents import DocumentRefused, kind_of, most_values, read_document
from renderer.errors import ConfigError, FileTooLarge, InvalidRequest
from renderer.manifests.read import MANIFEST_SUFFIXES, fields_of

MANIFEST_NAMES = tuple(f"manifest{suffix}" for suffix in MANIFEST_SUFFIXES)
"""The names of claimed manifests, by format; if a bundle has several, the first of them is read."""

_IGNORED = (".tmp", ".part")
_LOC = ("manifest",)
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# The daemon lacks something for now, which is not the manifest's fault.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A manifest in `incoming`.

    Attributes:
        entry: its name there.
        name: the name of its directory once it is claimed.
        is_bundle: whether it is a directory with the manifest and its images.
        manifest: the name of the manifest once it is claimed.
    """

    entry: str
    name: str
    is_bundle: bool
    manifest: str = MANIFEST_NAMES[0]


def waiting(incoming: Path) -> list[Waiting]:
    """Return the manifests that may be claimed, the oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    found: list[tuple[int, str, Waiting]] = []
    with os.scandir(incoming) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.endswith(_IGNORED):
                continue
            try:
                manifest = _judge(entry)
                if manifest:
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name, manifest))
            except OSError:  # gone or not accessible, so it cannot be claimed either
                continue
    return [manifest for _, _, manifest in sorted(found, key=lambda item: item[:2])]


def _judge(entry: os.DirEntry[str]) -> Waiting | None:
    """Return a manifest, or None for images, and for directories that hold images or are still being filled."""
    is_directory = entry.is_dir(follow_symlinks=False)
    # A link to a directory is claimed as a file is, so that nothing is ever written through it.
    bundle = Waiting(entry.name, entry.name, is_bundle=is_directory)
    for name in MANIFEST_NAMES:
        try:
            os.lstat(os.path.join(entry.path, name))  # noqa: PTH118 - for every entry at every look
            return bundle
        except PermissionError:
            if is_directory:
                return bundle  # the attempt to claim it will report that
        except NotADirectoryError:
            break
        except OSError:  # it does not have this one
            continue
    name, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - as above
    if is_directory or suffix.lower() not in MANIFEST_SUFFIXES:
        return None
    return Waiting(entry.name, name, is_bundle=False, manifest=f"manifest{suffix.lower()}")


def read_fields(path: Path, max_bytes: int, max_images: int) -> dict[str, Any]:
    """Read a manifest's fields.

    Args:
        max_images: limits how many values it may hold.

    Raises:
        InvalidRequest, FileTooLarge: it is not a manifest that can be read.
        FileNotFoundError: it has disappeared.
        OSError: it cannot be read now; try again.
    """
    try:
        text = _read_regular(path, max_bytes)
    except PermissionError as error:
        raise InvalidRequest("expected a file that the daemon may read, found one that it may not", loc=_LOC) from error
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _OURS:
            raise
        raise InvalidRequest(f"expected a file that can be read, found: {error.strerror}", loc=_LOC) from error
    return _parse(text, path.name, max_images)


def _read_regular(path: Path, max_bytes: int) -> bytes:
    _refuse_irregular(os.lstat(path))  # opening a device may have effects
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # replaced in the meantime by a link or a socket
            _refuse_irregular(os.lstat(path))
        raise
    with open(handle, "rb") as file:  # noqa: PTH123 - a handle
        opened = os.fstat(handle)
        _refuse_irregular(opened)
        _refuse_large(opened.st_size, max_bytes)
        text = file.read(max_bytes + 1)
    _refuse_large(len(text), max_bytes)
    return text


def _refuse_irregular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise InvalidRequest(f"expected a regular file, found {kind}", loc=_LOC)


def _refuse_large(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise FileTooLarge(f"expected at most {max_bytes} bytes, found {size_bytes} or more", loc=_LOC)


def _parse(content: bytes, name: str, max_images: int) -> dict[str, Any]:
    if name.endswith(MANIFEST_SUFFIXES[0]) or not name.endswith(MANIFEST_SUFFIXES):
        return _parse_json(content, most_values(max_images))
    try:
        return fields_of(content.decode("utf-8-sig"), name, max_images)
    except UnicodeDecodeError as error:
        raise InvalidRequest("expected text in UTF-8, found another encoding", loc=_LOC) from error
    except (ConfigError, InvalidRequest) as error:
        raise InvalidRequest(error.message, loc=_LOC) from error


def _parse_json(text: bytes, most: int) -> dict[str, Any]:
    try:
        manifest = read_document(text.removeprefix(codecs.BOM_UTF8), most)
    except DocumentRefused as error:
        raise InvalidRequest(str(error), loc=_LOC) from error
    if not isinstance(manifest, dict):
        raise InvalidRequest(f"expected a JSON object, found {kind_of(manifest)}", loc=_LOC)
    return manifest
