"""A manifest of any format becomes a request's fields; `intake` checks them as a whole.

What cannot be read as its format is a ConfigError, a line with a wrong field an InvalidRequest.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from protocol.documents import most_values
from renderer.errors import ConfigError, NoManifest, StillreelError
from renderer.manifests.formats import from_concat, from_csv, from_json_lines, from_json_object, is_concat
from renderer.manifests.still import Fields

MAX_BYTES: Final = 64 * 1024 * 1024

_READERS: Final = {
    ".json": from_json_object,
    ".jsonl": from_json_lines,
    ".ndjson": from_json_lines,
}
_TABLES: Final = {".csv": from_csv, ".ffconcat": from_concat}
MANIFEST_SUFFIXES: Final = (*_READERS, *_TABLES)
_CUTS: Final = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029,;\t|"  # what may end a line or a cell
_LOOKED_AT_BYTES: Final = 4096
_OWN_IMAGES: Final = 100_000  # in a file of the user's own, whose limits are checked later


def read_manifest(path: Path, overrides: Mapping[str, Any] | None = None, *, max_bytes: int = MAX_BYTES) -> Fields:
    """Read a manifest and return the request's fields.

    The suffix tells the format. Anything else, `-` for stdin included, is JSON, or a list for ffmpeg's concat demuxer.

    Args:
        overrides: fields that are set whatever the manifest says.

    Raises:
        ConfigError: the file cannot be read as what it should be.
        InvalidRequest: a line of it holds a wrong field. Both messages begin with the file's name.
    """
    try:
        return load_manifest(path, overrides, max_bytes=max_bytes)
    except StillreelError as error:
        raise type(error)(f"manifest {path}: {error.message}") from error


def load_manifest(path: Path, overrides: Mapping[str, Any] | None = None, *, max_bytes: int = MAX_BYTES) -> Fields:
    """Do as `read_manifest` does, for a caller who names the file in words of its own."""
    return {**fields_of(_text(path, max_bytes), path.name), **(overrides or {})}


def fields_of(text: str, name: str, max_images: int = _OWN_IMAGES) -> Fields:
    """Return the request's fields from the text of a manifest of that name.

    Args:
        max_images: how much it may hold follows from that; the images themselves are not counted here.

    Raises:
        ConfigError, InvalidRequest: as `read_manifest` does.
    """
    suffix, most = Path(name).suffix.lower(), most_values(max_images)
    table = _TABLES.get(suffix) or (from_concat if suffix not in _READERS and is_concat(text) else None)
    if table is None:
        return _READERS.get(suffix, from_json_object)(text, most)
    if any(text.count(cut) > most for cut in _CUTS):
        raise ConfigError(f"expected up to {most} lines and cells, found more")
    return table(text)


def is_manifest_name(name: str) -> bool:
    """Whether a file of that name may be a manifest, where a directory is searched for them."""
    return not name.startswith(".") and Path(name).suffix.lower() in MANIFEST_SUFFIXES


def begins_like_manifest(path: Path) -> bool:
    """Whether a file whose name does not tell is to be read as a manifest; what cannot be looked at twice is one.

    Everything else is for those to name who know pictures.
    """
    try:
        if not path.is_file():  # a pipe, as `<(...)` makes of a shell's command
            return True
        with path.open("rb") as file:
            text = file.read(_LOOKED_AT_BYTES).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return False
    return text.startswith(("{", "[")) or is_concat(text)


def is_manifest(path: Path) -> bool:
    """Whether a file with a manifest's name is meant as one: JSON and tables serve for much else.

    One that cannot be read is meant as one, so that its fault is told.
    """
    try:
        return "images" in load_manifest(path)
    except NoManifest:
        return False
    except StillreelError:
        return True


def _text(path: Path, max_bytes: int) -> str:
    try:
        if str(path) == "-":
            content = _read(sys.stdin.buffer, max_bytes)
        else:
            with path.open("rb") as file:
                content = _read(file, max_bytes)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"line {line}: expected text in UTF-8, found another encoding") from error


def _read(file: BinaryIO, max_bytes: int) -> bytes:
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ConfigError(f"expected at most {max_bytes} bytes, found more")
    return content
