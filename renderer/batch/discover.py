"""What there is to render below a directory, in the order of names, one at a time: a tree may hold any number.

Hidden entries are left out, so are directories of copies that storage and archives make by themselves, and so are the
outputs, should they go below the same directory. Symbolic links to files
are followed, those to directories are not, so that a walk ends.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Final

from renderer.manifests.directory import is_image_name, is_unread_picture
from renderer.manifests.read import is_manifest, is_manifest_name

# Where network storage keeps smaller copies of pictures, and archives keep what only a Mac reads.
_COPIES: Final = frozenset({"@eaDir", "@__thumb", "__MACOSX"})


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest, or a directory of images that is shown as a whole.

    Attributes:
        path: where it is.
        name: its path relative to the batch's directory; people read it, and shards are cut by it.
        stem: its output's path below the directory of outputs, without hash and suffix.
        refusal: why the directory could not be searched; None for everything else.
        left_out: the names of pictures that a directory of images has in formats that are not read here.
    """

    path: Path
    name: str
    stem: PurePath
    is_directory: bool = False
    refusal: str | None = None
    left_out: tuple[str, ...] = ()


def discover(root: Path, out: Path, *, with_directories: bool = False) -> Iterator[Found]:
    """Yield all that is to be rendered.

    Args:
        out: the directory of outputs, which exists; it is not searched unless it is `root` itself.
        with_directories: every directory that has images and no manifest is one video.
    """
    outputs = out.stat()
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            entries = _entries(directory)
        except OSError as error:
            yield _found(directory, root, refusal=f"the directory cannot be searched: {error.strerror}")
            continue
        manifests = [entry for entry in entries if is_manifest_name(entry.name) and _is_file(entry)]
        for entry in manifests:
            yield _found(Path(entry.path), root)
        if with_directories and _is_reel(entries, manifests):
            unread = tuple(entry.name for entry in entries if is_unread_picture(entry.name) and _is_file(entry))
            yield replace(_found(directory, root, is_directory=True), left_out=unread)
        below = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
        waiting += [Path(entry.path) for entry in reversed(below) if not os.path.samestat(entry.stat(), outputs)]


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        visible = (entry for entry in entries if not (entry.name.startswith(".") or entry.name in _COPIES))
        return sorted(visible, key=lambda entry: entry.name)


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it can be read as a file; a link that leads nowhere counts, so that somebody hears of it."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110 - Path's raises
    except OSError:
        return True


def _is_reel(entries: list[os.DirEntry[str]], manifests: list[os.DirEntry[str]]) -> bool:
    has_images = any(_is_picture_name(entry.name) and _is_file(entry) for entry in entries)
    return has_images and not any(is_manifest(Path(entry.path)) for entry in manifests)


def _is_picture_name(name: str) -> bool:
    """Whether it is a picture, be it one that is not read here: a directory of such alone fails and is not silent."""
    return is_image_name(name) or is_unread_picture(name)


def _found(path: Path, root: Path, *, is_directory: bool = False, refusal: str | None = None) -> Found:
    name = path.relative_to(root).as_posix()
    if not (is_directory or refusal):
        return Found(path, name, PurePath(name).with_suffix(""))
    stem = PurePath(name if path != root else path.absolute().name or "images")
    return Found(path, name, stem, is_directory, refusal)
