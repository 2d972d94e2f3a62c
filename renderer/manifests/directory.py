"""A plain directory of images as a request: each is shown for the same time, in the order in which people count."""

import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from pydantic import ValidationError

from protocol.schema import ImageFrame
from renderer.errors import ConfigError, InvalidRequest
from renderer.manifests.numbering import natural
from renderer.manifests.still import Fields, faults_in

# What pictures/header.py knows by the first bytes, as people name such files.
_SUFFIXES: Final = frozenset(
    {
        *(".avif", ".bmp", ".dib", ".gif", ".hdr", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"),
        *(".apng", ".avifs", ".mpo"),
        *(".exr", ".heic", ".heif", ".hif", ".dpx", ".ico", ".cur", ".psb", ".psd"),
        *(".icb", ".tga", ".vda", ".vst"),  # Truevision
        *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),  # JPEG 2000
        *(".pbm", ".pfm", ".pgm", ".pic", ".pnm", ".ppm", ".ras", ".sr", ".sun"),
    }
)
# What people call pictures and nothing above covers: phones, cameras' raw files, films, programs that draw.
_PICTURES_ELSEWHERE: Final = frozenset(
    {
        *(".heics", ".heifs", ".jxl", ".jxr", ".cin"),
        *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw"),
        *(".ai", ".eps", ".kra", ".svg", ".svgz", ".xcf"),
    }
)
_NAMED_MAX: Final = 10
_HOLD: Final = re.compile(r"(?P<frames>[0-9]{1,10})|(?P<duration>[0-9]{1,10}(\.[0-9]{1,10})?)s", re.ASCII)


def images_in(directory: Path) -> list[Path]:
    """Return the images of a directory in natural order, in which img2 comes before img10; hidden files are left out.

    Raises:
        OSError: the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_image_name(entry.name) and entry.is_file()]
    return [directory / name for name in sorted(names, key=natural)]


def unread_in(directory: Path) -> list[Path]:
    """Return the pictures of a directory whose formats are not read here, in natural order.

    Raises:
        OSError: the directory cannot be read.
    """
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries if is_unread_picture(entry.name) and entry.is_file()]
    return [directory / name for name in sorted(names, key=natural)]


def is_image_name(name: str) -> bool:
    """Whether a file of that name is taken for an image."""
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
    return {"images": [{"url": _url(file.name), **hold} for file in files], **(overrides or {})}


def left_out_words(unread: Sequence[Path], what: str = "picture") -> str:
    """Name the pictures, or files, that are left out, at most ten of them."""
    names = ", ".join(path.name for path in unread[:_NAMED_MAX])
    more = f" and {len(unread) - _NAMED_MAX} more" if len(unread) > _NAMED_MAX else ""
    are = f"{what} is" if len(unread) == 1 else f"{what}s are"
    return f"{len(unread)} {are} left out, of a format that is not read here: {names}{more}"


def and_left_out(unread: Sequence[Path], what: str = "picture") -> str:
    """Say as an addition to a sentence which of them are left out; nothing if there are none."""
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


def _url(name: str) -> str:
    """Write a file's name as a path, so that a colon makes no scheme of it; one that is no text is written in bytes."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"file:./{quote(os.fsencode(name))}"
    return f"./{name}"
