"""What a person types for a video, made a request: one manifest, or images by name, directory, glob or pattern.

A shell writes `*.jpg` out in alphabetical order, img10 before img2. So images that were typed in alphabetical order are
put in the order in which people count, and others stay as they are.
"""

import glob
import locale
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from protocol.schema import ResultWarning
from renderer.errors import ConfigError
from renderer.manifests.directory import (
    and_left_out,
    images_in,
    is_image_name,
    is_unread_picture,
    left_out_words,
    unread_in,
)
from renderer.manifests.numbering import gaps, likely_gaps, natural, parse_pattern, unsaid_words
from renderer.manifests.read import begins_like_manifest, is_manifest_name, read_manifest
from renderer.manifests.still import Fields


@dataclass(frozen=True, slots=True)
class Wishes:
    """How images that are no manifest are shown.

    Attributes:
        hold: how long each is shown, from `parse_hold`; None: one frame.
        start: the first number of a pattern; None: the lowest that is there.
        keeps_order: images stay as they were typed, even in alphabetical order.
        overrides: fields of the request, whatever a manifest says.
    """

    hold: Fields | None = None
    start: int | None = None
    keeps_order: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request from the command line.

    Attributes:
        fields: the request's.
        base: where its relative paths start.
        manifest: the file that it was read from, if it was.
        warnings: what may not be meant; for the result.
    """

    fields: Fields
    base: Path
    manifest: Path | None = None
    warnings: tuple[ResultWarning, ...] = ()


def ask(sources: Sequence[str], wishes: Wishes) -> Asked:
    """Read what was typed.

    Raises:
        ConfigError: it cannot be read, or the wishes do not fit it.
        InvalidRequest: a line of a manifest holds a wrong field.
    """
    manifests = [source for source in sources if _is_manifest(source)]
    if not manifests:
        return _Images(wishes).ask(sources)
    if len(sources) > 1:
        raise ConfigError(f"expected images, or one manifest alone; found {manifests[0]} among {len(sources)} names")
    for option, value in (("--hold", wishes.hold), ("--start", wishes.start)):
        if value is not None:
            raise ConfigError(
                f"{option} is for images; {manifests[0]} is a manifest, which has frames or duration for every image"
            )
    path = Path(manifests[0])
    fields = read_manifest(path, wishes.overrides)
    if str(path) == "-":
        return Asked(fields, Path.cwd())
    return Asked(fields, path.absolute().parent, path)


def _is_manifest(source: str) -> bool:
    """Whether it is to be read as a manifest; where its name does not tell, what it holds does."""
    path = Path(source)
    if source == "-" or is_manifest_name(path.name):
        return True
    if is_image_name(path.name) or path.is_dir():
        return False
    return os.path.lexists(path) and begins_like_manifest(path)


class _Images:
    """Images by their names, and what is to be said of them."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._warnings: list[ResultWarning] = []
        self._is_sequence = False

    def ask(self, sources: Sequence[str]) -> Asked:
        if self._wishes.start is not None and not any(_pattern_of(source) for source in sources):
            raise ConfigError("--start is the first number of a pattern such as frames_%04d.png; found no pattern")
        files = [file for source in sources for file in self._files(source)]
        if len(sources) == len(files) and _is_as_a_shell_sorts(sources) and not self._wishes.keeps_order:
            files.sort(key=lambda file: natural(str(file)))
        hold = self._wishes.hold or {"frames": 1}
        urls = [_url(file) for file in files]
        if self._is_sequence and self._wishes.overrides.get("gaps") is None and not likely_gaps(urls):
            self._warn_of_gaps(urls)
        images = [{"url": url, **hold} for url in urls]
        return Asked({"images": images, **self._wishes.overrides}, Path.cwd(), warnings=tuple(self._warnings))

    def _files(self, source: str) -> list[Path]:
        path = Path(source)
        if path.is_dir():
            return self._of_directory(path)
        if os.path.lexists(path):
            return [path]
        if _pattern_of(source):
            return self._of_pattern(path)
        if glob.has_magic(source):
            return self._of_glob(source)
        raise ConfigError(f"{source}: no such file")

    def _of_directory(self, path: Path) -> list[Path]:
        try:
            files, unread = images_in(path), unread_in(path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        if not files:
            raise ConfigError(f"{path}: expected a directory with images, found none{and_left_out(unread)}")
        if unread:
            self._warn("images_left_out", f"{path}: {left_out_words(unread)}")
        return files

    def _of_glob(self, source: str) -> list[Path]:
        names = sorted(glob.glob(source, recursive=True), key=natural)  # noqa: PTH207 - of a text, absolute or not
        found = [Path(name) for name in names]
        files = [path for path in found if is_image_name(path.name)]
        if not files:
            unread = [path for path in found if path.is_file()]
            raise ConfigError(f"{source}: no image has such a name{and_left_out(unread, 'file')}")
        if unread := [path for path in found if is_unread_picture(path.name)]:
            self._warn("images_left_out", f"{source}: {left_out_words(unread)}")
        return files

    def _of_pattern(self, path: Path) -> list[Path]:
        pattern = parse_pattern(path.name)
        names: list[str] = []
        with suppress(FileNotFoundError, NotADirectoryError):
            names = [entry.name for entry in path.parent.iterdir()]
        numbers = {number: name for name in names if pattern and (number := pattern.number(name)) is not None}
        first = min(numbers, default=0) if self._wishes.start is None else self._wishes.start
        files = [path.parent / numbers[number] for number in sorted(numbers) if number >= first]
        if not files:
            beyond = f" from {first} on" if self._wishes.start is not None else ""
            raise ConfigError(f"{path}: no file has such a name{beyond}")
        if self._wishes.start is not None and first not in numbers:
            raise ConfigError(f"{path}: expected a file with the number {first}, where --start begins, found none")
        self._is_sequence = True
        return files

    def _warn_of_gaps(self, urls: Sequence[str]) -> None:
        """Tell what is missing from a pattern, which says itself that it is a sequence, where nobody else would."""
        if found := gaps(urls):
            self._warn("numbers_missing", unsaid_words(found))

    def _warn(self, kind: str, words: str) -> None:
        self._warnings.append(ResultWarning(type=kind, message=words))


def _pattern_of(source: str) -> bool:
    return not os.path.lexists(source) and parse_pattern(Path(source).name) is not None


def _is_as_a_shell_sorts(sources: Sequence[str]) -> bool:
    with suppress(locale.Error):
        locale.setlocale(locale.LC_COLLATE, "")
    return list(sources) == sorted(sources) or list(sources) == sorted(sources, key=locale.strxfrm)


def _url(file: Path) -> str:
    """Write a file's path so that it means the same everywhere; one that is no text is written in bytes."""
    path = os.path.abspath(file)  # noqa: PTH100 - Path.resolve would follow links, and the names people gave be lost
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return path
