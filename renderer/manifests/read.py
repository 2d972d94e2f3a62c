"""A manifest of any format becomes the fields of a request; `intake` checks them as a whole.

A file that is not in its format is a ConfigError, a line with a wrong field is an InvalidRequest.

Lists for ffmpeg's concat demuxer (https://ffmpeg.org/ffmpeg-formats.html#concat-1) name their last image twice, because
ffmpeg ignores the duration of the last; here it counts, so a last entry that repeats the one before it and has no
duration of its own is left out. An image without a duration is shown for one frame.

JSON is the whole request, JSON Lines (https://jsonlines.org) are one image a line. The first of the lines may hold the
request's other fields instead: it has no "url".

CSV is a header row, then one image a row, as spreadsheets and scripts write it. The delimiter is the one that cuts the
header into column names that are known. csv.Sniffer guesses from the frequency of characters, and urls mislead it.
"""

import csv
import io
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from protocol.documents import DocumentRefused, most_values, read_document, refuse_crowded
from protocol.words import meant, short
from renderer.errors import ConfigError, InvalidRequest, NoManifest, StillreelError
from renderer.manifests.still import Fields, read_lines, still_of_line

MAX_BYTES: Final = 64 * 1024 * 1024

_FIRST: Final = re.compile(r"ffconcat\s+version\s|file\s+\S")
_TOKEN: Final = re.compile(r"(?:'[^']*'|\\.|[^\s'\\])+")
_PIECE: Final = re.compile(r"'([^']*)'|\\(.)|([^'\\]+)")
_CLOCK: Final = re.compile(r"(?:(?P<hours>[0-9]{1,9}):)?(?P<minutes>[0-5]?[0-9]):(?P<seconds>[0-9]{1,2}(?:\.[0-9]*)?)")
_SECONDS: Final = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>s|ms|us)?")
_UNITS: Final = {None: 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def is_concat(text: str) -> bool:
    """Whether a text is a list for ffmpeg's concat demuxer, where its name does not say so."""
    first = next((line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return _FIRST.match(first) is not None


def from_concat(text: str) -> Fields:
    """Read a list for ffmpeg's concat demuxer.

    Raises:
        InvalidRequest: a line is neither a file nor its duration, or there is no file; the message names the line.
    """
    entries: list[tuple[int, Fields]] = []

    def read(line: str, number: int) -> Fields:
        words = line.split(maxsplit=1)
        if words[0] == "file":
            entries.append((number, {}))
            entries[-1][1]["url"] = _unquoted(words[-1] if len(words) > 1 else "", number)
        elif words[0] == "duration" and entries:
            entries[-1][1]["duration"] = _seconds(words[-1], number)
        elif words[0] != "ffconcat":
            raise InvalidRequest(
                f'line {number}: expected "file" or the "duration" of one, found {short(line.strip())}'
            )
        return {}

    lines = enumerate(text.splitlines(), 1)
    read_lines(((number, line) for number, line in lines if line.strip() and not line.lstrip().startswith("#")), read)
    if len(entries) > 1 and entries[-1][1] == {"url": entries[-2][1]["url"]} and "duration" in entries[-2][1]:
        entries.pop()
    if not entries:
        raise InvalidRequest("expected a line such as file 'a.png' for every image, found none")
    return {"images": read_lines(entries, still_of_line)}


def _unquoted(text: str, line: int) -> str:
    token = _TOKEN.match(text)
    if token is None or text[token.end() :].strip():
        raise InvalidRequest(f"line {line}: expected one name, in single quotes if it has spaces, found {short(text)}")
    return "".join("".join(found) for found in _PIECE.findall(token[0]))


def _seconds(text: str, line: int) -> float:
    text = text.strip()
    if match := _CLOCK.fullmatch(text):
        return int(match["hours"] or 0) * 3600 + int(match["minutes"]) * 60 + float(match["seconds"])
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"line {line}: expected a duration such as 1.5 or 0:01.5, found {short(text)}")
    return float(match["number"]) * _UNITS[match["unit"]]


_EXPECTED: Final = 'expected a line such as {"url": "a.png", "frames": 24} for every image'
_PLACE: Final = re.compile(r" at line \d+ column (\d+)$")


def from_json_object(text: str, most: int) -> Fields:
    """Read the whole request.

    Args:
        most: how many values and names it may hold.

    Raises:
        ConfigError: it is not a JSON object, or has a number that no double can hold.
    """
    try:
        value = read_document(text, most)
    except DocumentRefused as error:
        raise ConfigError(
            str(error).replace(" a JSON document in UTF-8:", " JSON:")
        ) from error  # it has been decoded as UTF-8
    if not isinstance(value, dict):
        raise ConfigError(f"expected a JSON object, found {short(value)}")
    return value


def from_json_lines(text: str, most: int) -> Fields:
    """Read one object a line; all of them together hold no more than one document may.

    Raises:
        ConfigError: a line is not a JSON object.
        NoManifest: no line has the url of an image.
        InvalidRequest: a line is not an image, or there is no line.
    """
    try:
        refuse_crowded(text.encode(), most)
    except DocumentRefused as error:
        raise ConfigError(str(error)) from error
    fields: Fields = {}
    # Not splitlines(): a string in JSON may hold what that takes for the end of a line, such as U+2028.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    items = [(number, _object_of_line(line, number, most)) for number, line in lines]
    if items and not any("url" in item for _, item in items) and "images" not in items[0][1]:
        raise NoManifest(f'{_EXPECTED}, found no "url"')
    if items and "url" not in items[0][1]:
        fields, items = items[0][1], items[1:]
    images = read_lines(items, still_of_line)
    if "images" in fields:
        raise InvalidRequest(f'line {lines[0][0]}: expected the images on lines of their own, found "images"')
    if not images:
        raise InvalidRequest(f"{_EXPECTED}, found none")
    return {**fields, "images": images}


def _object_of_line(line: str, number: int, most: int) -> Fields:
    try:
        return from_json_object(line, most)
    except ConfigError as error:
        words = _PLACE.sub(r" at column \1", error.message)
        raise ConfigError(f"line {number}: {words}") from error


_DELIMITERS: Final = ",;\t|"
_COLUMNS: Final = ("url", "frames", "duration", "title")


def from_csv(text: str) -> Fields:
    """Read a table with one image a row.

    Raises:
        ConfigError: the quotes are out of order.
        NoManifest: the header has no column for urls.
        InvalidRequest: a column is unknown, a row is not an image, or there are no rows. Both messages name the line.
    """
    names, delimiter = _header(text)
    rows = _rows(text, delimiter)
    next(rows)

    def still(cells: list[str], number: int) -> Fields:
        if len(cells) != len(names):
            raise InvalidRequest(f"line {number}: expected {len(names)} columns, found {len(cells)}")
        return still_of_line({name: cell for name, cell in zip(names, cells, strict=True) if cell}, number)

    images = read_lines(rows, still)
    if not images:
        raise InvalidRequest("expected a row for every image below the header, found none")
    return {"images": images}


def _header(text: str) -> tuple[list[str], str]:
    """Return the columns' names and the delimiter between them."""
    line, first = next(((n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()), (1, ""))
    for delimiter in _DELIMITERS:
        names = _names(first, delimiter)
        if "url" in names:
            wrong = [name for name in names if name not in _COLUMNS or names.count(name) > 1]
            if wrong:
                found = ", ".join(map(short, wrong)) + meant(wrong[0], set(_COLUMNS) - set(names))
                raise InvalidRequest(
                    f"line {line}: expected the columns url, frames, duration and title, found {found}"
                )
            return names, delimiter
    raise NoManifest(f"line {line}: expected a header row such as url,frames or url,duration, found {short(first)}")


def _names(header: str, delimiter: str) -> list[str]:
    try:
        return [cell.lower() for _, cells in _rows(header, delimiter) for cell in cells]
    except ConfigError:
        return []  # quotes that another delimiter may put in order


def _rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that hold something, each with the line that it begins on."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    begins = 1
    try:
        for row in rows:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield begins, cells
            begins = rows.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"line {begins}: expected CSV: {_fault(str(error))}") from error


def _fault(readers: str) -> str:
    """Return our message for what the reader has found."""
    if "unexpected end of data" in readers:
        return "a quote is opened and never closed"
    if "expected after" in readers:
        return "there is text between a closing quote and the next cell"
    if "larger than field limit" in readers:
        return f"a cell has more than {csv.field_size_limit()} characters"
    return "it cannot be cut into cells"


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


def read_manifest(path: Path, *, max_bytes: int = MAX_BYTES) -> Fields:
    """Read a manifest and return the request's fields.

    The suffix decides the format. Without a known one, as of `-` for stdin, it is JSON or a list for ffmpeg's concat
    demuxer.

    Raises:
        ConfigError: the file cannot be read in its format.
        InvalidRequest: a line of it holds a wrong field. Both messages begin with the file's name.
    """
    try:
        return load_manifest(path, max_bytes=max_bytes)
    except StillreelError as error:
        raise type(error)(f"manifest {path}: {error.message}") from error


def load_manifest(path: Path, overrides: Mapping[str, Any] | None = None, *, max_bytes: int = MAX_BYTES) -> Fields:
    """Read a manifest as `read_manifest` does, for a caller that names the file in its own words.

    Args:
        overrides: fields that replace those of the manifest.
    """
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
    """Whether a file whose name does not tell is to be read as a manifest; a pipe, which is read only once, is."""
    try:
        if not path.is_file():  # a pipe, as `<(...)` makes of a shell's command
            return True
        with path.open("rb") as file:
            text = file.read(_LOOKED_AT_BYTES).decode("utf-8-sig", "replace").lstrip()
    except OSError:
        return False
    return text.startswith(("{", "[")) or is_concat(text)


def is_manifest(path: Path) -> bool:
    """Whether a file with the name of a manifest names images: JSON and tables serve for much else.

    A file that cannot be read counts as a manifest, so that its fault is reported.
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
    return decoded(content)


def decoded(content: bytes) -> str:
    """Return the text of a manifest.

    Raises:
        ConfigError: it is not in UTF-8.
    """
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
