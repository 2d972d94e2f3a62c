"""Where a batch finds its manifests: below a directory, or below a prefix of a bucket.

**Below a directory** they are found in the order of names, one at a time: a tree may hold any number. Hidden entries
are left out, and so are the directories of copies that storage and archives make by themselves, and the outputs if they
are below the same directory. Symbolic links to files are followed, links to directories are not, so that a walk ends.

**Below a prefix** the same is so, in the order in which the store lists its objects, a page at a time. Relative names
in such a manifest begin beside it in the bucket; it names no files of this machine, which may be another's than its
author's.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Final, Protocol

from protocol.errors import Loc
from protocol.objects import ObjectUrl
from renderer.errors import FetchFailed, FileTooLarge, InvalidRequest
from renderer.manifests.read import MAX_BYTES, decoded, fields_of, is_manifest, is_manifest_name, load_manifest
from renderer.manifests.sources import directory_manifest, is_image_name, is_unread_picture
from renderer.manifests.still import Fields
from renderer.net import objects
from renderer.net.objects import Access

# Where network storage keeps smaller copies of pictures, and archives keep what only a Mac reads.
_COPIES: Final = frozenset({"@eaDir", "@__thumb", "__MACOSX"})


@dataclass(frozen=True, slots=True)
class Found:
    """A manifest, or a directory of images that is shown as a whole.

    Attributes:
        name: its path below the tree's root; people read it, and shards are cut by it.
        stem: its output's path below the directory of outputs, without hash and suffix.
        refusal: why the directory, or a part of the tree, could not be searched; None for everything else.
        left_out: the names of pictures that a directory of images has in formats that are not read here.
    """

    name: str
    stem: PurePath
    is_directory: bool = False
    refusal: str | None = None
    left_out: tuple[str, ...] = ()


class Tree(Protocol):
    """Manifests below one place."""

    def walk(self) -> Iterator[Found]:
        """Yield them in a fixed order; a part that cannot be searched is yielded with its refusal."""

    def fields(self, found: Found, overrides: Fields) -> Fields:
        """Read a manifest.

        Raises:
            ConfigError: it cannot be read in its format.
            JobError: it cannot be had, or a part of it is wrong.
        """

    def base(self, found: Found) -> Path | None:
        """Return the directory in which the manifest's relative paths begin; None if it has none."""


@dataclass(frozen=True, slots=True)
class DirectoryTree:
    """Manifests below a directory.

    Attributes:
        root: absolute.
        out: the directory of outputs, which is not searched; None if they are elsewhere.
        hold: how long each image of a plain directory is shown; None: directories of images are not rendered.
    """

    root: Path
    out: Path | None
    hold: Fields | None = None

    def walk(self) -> Iterator[Found]:
        return discover(self.root, self.out, with_directories=self.hold is not None)

    def fields(self, found: Found, overrides: Fields) -> Fields:
        path = self.root / found.name
        if found.is_directory:
            return directory_manifest(path, self.hold or {}, overrides)
        return load_manifest(path, overrides)

    def base(self, found: Found) -> Path | None:
        path = self.root / found.name
        return path if found.is_directory else path.parent


def discover(root: Path, out: Path | None, *, with_directories: bool = False) -> Iterator[Found]:
    """Yield all that is to be rendered.

    Args:
        out: the directory of outputs, which exists; it is not searched unless it is `root` itself. None: they are
            objects.
        with_directories: every directory that has images and no manifest is one video.
    """
    outputs = out.stat() if out else None
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
        below = [entry for entry in below if not (outputs and os.path.samestat(entry.stat(), outputs))]
        waiting += [Path(entry.path) for entry in reversed(below)]


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
    """Whether it is a picture, in any format: a directory of pictures that cannot be read fails, and is not skipped."""
    return is_image_name(name) or is_unread_picture(name)


def _found(path: Path, root: Path, *, is_directory: bool = False, refusal: str | None = None) -> Found:
    name = path.relative_to(root).as_posix()
    if not (is_directory or refusal):
        return Found(name, PurePath(name).with_suffix(""))
    stem = PurePath(name if path != root else path.absolute().name or "images")
    return Found(name, stem, is_directory, refusal)


_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class ObjectTree:
    """Manifests below a prefix of a bucket.

    Attributes:
        out: the prefix of the outputs, which is not searched unless it is `root` itself; None if they are elsewhere.
    """

    root: ObjectUrl
    out: ObjectUrl | None
    access: Access

    def walk(self) -> Iterator[Found]:
        try:
            for name in objects.names_below(self.root, self.access):
                *directories, last = name.split("/")
                is_hidden = any(each.startswith(".") or each in _COPIES for each in directories)
                if is_manifest_name(last) and not is_hidden and not self._is_output(name):
                    yield Found(name, PurePath(name).with_suffix(""))
        except FetchFailed as error:
            yield Found(str(self.root), PurePath("-"), refusal=f"the bucket cannot be listed: {error.message}")

    def _is_output(self, name: str) -> bool:
        return self.out is not None and self.out != self.root and self._url(name).is_below(self.out)

    def fields(self, found: Found, overrides: Fields) -> Fields:
        place = self._url(found.name)
        try:
            content = objects.read(place, MAX_BYTES, self.access)
        except FileTooLarge as error:
            raise InvalidRequest(f"expected at most {MAX_BYTES} bytes, found more") from error
        return {**_beside(place, fields_of(decoded(content), place.file_name)), **overrides}

    def base(self, found: Found) -> Path | None:  # noqa: ARG002 - the seam's
        return None

    def _url(self, name: str) -> ObjectUrl:
        return replace(self.root, name=f"{self.root.name}/{name}".lstrip("/"))


def _beside(place: ObjectUrl, fields: Fields) -> Fields:
    """Return the fields with every relative name as the url of an object; the checks refuse other values."""
    return {
        **fields,
        **{
            name: [_source_beside(place, source, (name, number)) for number, source in enumerate(fields[name])]
            for name in ("images", "audio")
            if isinstance(fields.get(name), list)
        },
    }


def _source_beside(place: ObjectUrl, source: Any, loc: Loc) -> Any:
    url = source.get("url") if isinstance(source, Mapping) else None
    if not isinstance(url, str) or not url:
        return source
    scheme = _SCHEME.match(url)
    if url.startswith("/") or (scheme and scheme[0].lower() == "file:"):
        words = "expected a url, or a name beside the manifest in its bucket, found a path of this machine"
        raise InvalidRequest(words, loc=(*loc, "url"))
    try:
        return source if scheme else {**source, "url": str(place.beside(url))}
    except ValueError as error:
        raise InvalidRequest(str(error), loc=(*loc, "url")) from error
