"""Images as people name them, made a request: by name, directory, glob or pattern; or a manifest, which is a file.

A plain directory of images shows each for the same time, in the order in which people count.

A shell writes `*.jpg` out in alphabetical order, img10 before img2. So images that were typed in alphabetical order are
put in the order in which people count, and others stay in the order in which they were typed.
"""

import glob
import locale
import mimetypes
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import ValidationError

from protocol.schema import ImageFrame, ResultWarning
from protocol.words import joined
from renderer.errors import ConfigError, InvalidRequest
from renderer.manifests.numbering import gaps, likely_gaps, natural, parse_pattern, unsaid_words
from renderer.manifests.read import begins_like_manifest, is_manifest_name, read_manifest
from renderer.manifests.still import Fields, faults_in

# What pictures/header.py knows by the first bytes, as people name such files.
_SUFFIXES: Final = frozenset(
    {
        *(".avif", ".bmp", ".dib", ".gif", ".hdr", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        *(".apng", ".avifs", ".mpo"),
        *(".exr", ".heic", ".heif", ".hif", ".dpx", ".ico", ".cur", ".psb", ".psd"),
        *(".icb", ".tga", ".vda", ".vst"),  # Truevision
        *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),  # JPEG 2000
        ".jxl",
        *(".pbm", ".pfm", ".pgm", ".pic", ".pnm", ".ppm", ".ras", ".sr", ".sun"),
    }
)
# Further pictures, whose formats are not read here: of phones, films and drawing programs, and raw files of cameras.
_PICTURES_ELSEWHERE: Final = frozenset(
    {
        *(".heics", ".heifs", ".jxr", ".cin"),
        *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"),
        *(".ai", ".eps", ".kra", ".svg", ".svgz", ".xcf"),
    }
)
_SCHEME: Final = re.compile(r"(?:https?|file|data|cid|s3|gs|az):", re.IGNORECASE)
_NAMED_MAX: Final = 10
SOUNDS_TWICE: Final = "audio: give sounds by --audio or by the field audio, not both"
_HOLD: Final = re.compile(r"(?P<frames>[0-9]{1,10})|(?P<duration>[0-9]{1,10}(\.[0-9]{1,10})?)s", re.ASCII)


def images_in(directory: Path) -> list[Path]:
    """Return the images of a directory in natural order, in which img2 comes before img10; hidden files are left out.

    Raises:
        OSError: the directory cannot be read.
    """
    return _files_in(directory, is_image_name)


def unread_in(directory: Path) -> list[Path]:
    """Return the pictures of a directory whose formats are not read here, in natural order.

    Raises:
        OSError: the directory cannot be read.
    """
    return _files_in(directory, is_unread_picture)


def _files_in(directory: Path, is_wanted: Callable[[str], bool]) -> list[Path]:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_wanted(entry.name) and entry.is_file()]
    return [directory / name for name in sorted(names, key=natural)]


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES


def is_unread_picture(name: str) -> bool:
    """Whether a file of that name is a picture to people, in a format that is not read here."""
    if name.startswith(".") or is_image_name(name):
        return False
    kind, _ = mimetypes.guess_type(name)
    return Path(name).suffix.lower() in _PICTURES_ELSEWHERE or (kind or "").startswith("image/")


def directory_manifest(directory: Path, hold: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Fields:
    """Return the request that shows every image of a directory; urls are relative to it.

    Args:
        hold: from `parse_hold`.
        overrides: the request's other fields.

    Raises:
        ConfigError: the directory cannot be read.
        InvalidRequest: it has no image.
    """
    try:
        files = images_in(directory)
        unread = [] if files else unread_in(directory)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}") from error
    if not files:
        raise InvalidRequest(f"expected a directory with images, found none{and_left_out(unread)}")
    return {"images": [{"url": _relative_url(file.name), **hold} for file in files], **(overrides or {})}


def left_out_words(unread: Sequence[Path], what: str = "picture") -> str:
    """Name the pictures, or files, that are left out, at most ten of them."""
    names = ", ".join(path.name for path in unread[:_NAMED_MAX])
    more = f" and {len(unread) - _NAMED_MAX} more" if len(unread) > _NAMED_MAX else ""
    are = f"{what} is" if len(unread) == 1 else f"{what}s are"
    return f"{len(unread)} {are} left out, of a format that is not read here: {names}{more}"


def and_left_out(unread: Sequence[Path], what: str = "picture") -> str:
    """Return the end of a sentence that says which pictures are left out; empty if none are."""
    return f"; {left_out_words(unread, what)}" if unread else ""


def parse_hold(text: str) -> Fields:
    """Read how long each image is held: frames such as "24", or seconds such as "1.5s".

    Raises:
        ConfigError: it is neither.
    """
    match = _HOLD.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"--hold {text}: expected frames such as 24, or seconds such as 1.5s")
    hold: Fields = {"frames": int(match["frames"])} if match["frames"] else {"duration": float(match["duration"])}
    try:
        ImageFrame.model_validate({"url": "-", **hold})
    except ValidationError as error:
        raise ConfigError(f"--hold {text}: {faults_in(error, ImageFrame)}") from error
    return hold


def _relative_url(name: str) -> str:
    """Write a file's name as a path, so that a colon makes no scheme of it; one that is not text is percent-encoded."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"file:./{quote(os.fsencode(name))}"
    return f"./{name}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """How images are shown that are named without a manifest.

    Attributes:
        hold: how long each is shown, from `parse_hold`; None: one frame.
        start: the first number of a pattern; None: the lowest that is there.
        keeps_order: images stay as they were typed, even in alphabetical order.
        overrides: fields of the request, which replace those of a manifest.
        has_sounds: sounds were named beside the images, which a manifest that has some of its own does not take.
    """

    hold: Fields | None = None
    start: int | None = None
    keeps_order: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    has_sounds: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request from the command line.

    Attributes:
        fields: the request's.
        base: where its relative paths start.
        manifest: the file that it was read from; None for images.
        warnings: for the result.
    """

    fields: Fields
    base: Path
    manifest: Path | None = None
    warnings: tuple[ResultWarning, ...] = ()


def ask(sources: Sequence[str], wishes: Wishes) -> Asked:
    """Read the sources that were typed.

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
    fields = read_manifest(path)
    if wishes.has_sounds and fields.get("audio"):
        raise ConfigError(SOUNDS_TWICE)
    fields |= wishes.overrides
    if str(path) == "-":
        return Asked(fields, Path.cwd())
    return Asked(fields, path.absolute().parent, path)


def _is_manifest(source: str) -> bool:
    """Whether a source is to be read as a manifest; its content decides where its name does not."""
    path = Path(source)
    if _is_url(source):
        return False
    if source == "-" or is_manifest_name(path.name):
        return True
    if is_image_name(path.name) or path.is_dir():
        return False
    return os.path.lexists(path) and begins_like_manifest(path)


class _Images:
    """Images by their names, and the warnings about them."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._warnings: list[ResultWarning] = []
        self._is_sequence = False

    def ask(self, sources: Sequence[str]) -> Asked:
        if self._wishes.start is not None and not any(_pattern_of(source) for source in sources):
            raise ConfigError("--start is the first number of a pattern such as frames_%04d.png; found no pattern")
        files = self._all_files(sources)
        if len(sources) == len(files) and _is_as_a_shell_sorts(sources) and not self._wishes.keeps_order:
            files.sort(key=natural)
        hold = self._wishes.hold or {}
        urls = [source_url(file) for file in files]
        # A pattern is a sequence even where its images do not look like one, which others warn of.
        is_unsaid = self._is_sequence and self._wishes.overrides.get("gaps") is None
        if is_unsaid and not likely_gaps(urls) and (found := gaps(urls)):
            self._warn("numbers_missing", unsaid_words(found))
        images = [{"url": url, **hold} for url in urls]
        return Asked({"images": images, **self._wishes.overrides}, Path.cwd(), warnings=tuple(self._warnings))

    def _all_files(self, sources: Sequence[str]) -> list[str]:
        """Return the files and urls that are meant by all names, or say which mean nothing."""
        files: list[str] = []
        wrong: list[str] = []
        for source in sources:
            try:
                files += [source] if _is_url(source) else map(str, self._files(source))
            except ConfigError as error:
                wrong.append(error.message)
        if wrong:
            raise ConfigError(joined(wrong))
        if not any(_is_url(file) or os.path.lexists(file) for file in files):
            raise ConfigError(joined([f"{file}: no such file" for file in files]))
        return files

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
        if is_image_name(path.name):  # named with those that are damaged by whoever opens them, unless all are missing
            return [path]
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

    def _warn(self, kind: str, words: str) -> None:
        self._warnings.append(ResultWarning(type=kind, message=words))


def _pattern_of(source: str) -> bool:
    return not os.path.lexists(source) and parse_pattern(Path(source).name) is not None


def _is_as_a_shell_sorts(sources: Sequence[str]) -> bool:
    with suppress(locale.Error):
        locale.setlocale(locale.LC_COLLATE, "")
    return list(sources) == sorted(sources) or list(sources) == sorted(sources, key=locale.strxfrm)


def source_url(name: str) -> str:
    """Return a url as it was typed, and a file's name as its path."""
    return name if _is_url(name) else file_url(Path(name))


def _is_url(name: str) -> bool:
    return bool(_SCHEME.match(name)) and not os.path.lexists(name)


def file_url(file: Path) -> str:
    """Write a file's path so that it means the same everywhere; a path that is not text is percent-encoded."""
    path = os.path.abspath(file)  # noqa: PTH100 - Path.resolve would follow links, and the names people gave be lost
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return path
