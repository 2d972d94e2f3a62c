"""A manifest of any format becomes a request's fields; `intake` checks them as a whole.

What cannot be read as its format is a ConfigError, a line with a wrong field an InvalidRequest.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from renderer.errors import ConfigError, NoManifest, StillreelError
from renderer.manifests.concat import from_concat, is_concat
from renderer.manifests.json_text import from_json_lines, from_json_object
from renderer.manifests.still import Fields
from renderer.manifests.table import from_csv

MAX_BYTES: Final = 64 * 1024 * 1024

_READERS: Final = {
    ".json": from_json_object,
    ".jsonl": from_json_lines,
    ".ndjson": from_json_lines,
    ".csv": from_csv,
    ".ffconcat": from_concat,
}
MANIFEST_SUFFIXES: Final = tuple(_READERS)


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


def fields_of(text: str, name: str) -> Fields:
    """Return the request's fields from the text of a manifest of that name.

    Raises:
        ConfigError, InvalidRequest: as `read_manifest` does.
    """
    reader = _READERS.get(Path(name).suffix.lower())
    return (reader or (from_concat if is_concat(text) else from_json_object))(text)


def is_manifest_name(name: str) -> bool:
    """Whether a file of that name may be a manifest, where a directory is searched for them."""
    return not name.startswith(".") and Path(name).suffix.lower() in _READERS


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
