"""Images in text files: ffmpeg's concat lists, JSON and JSON Lines, and CSV.

Lists for ffmpeg's concat demuxer (https://ffmpeg.org/ffmpeg-formats.html#concat-1) name their last image twice, as
ffmpeg passes over the duration of the last; here it counts, so a last entry that repeats the one before it and has no
duration of its own is left out. An image without a duration is shown for one frame.

JSON is the whole request, JSON Lines (https://jsonlines.org) are one image a line. The first of the lines may hold the
request's other fields instead: it has no "url".

CSV is a header row, then one image a row, as spreadsheets and scripts write it. The delimiter is the one that cuts the
header into column names that are known. csv.Sniffer guesses from the frequency of characters, and urls mislead it.
"""

import csv
import io
import re
from collections.abc import Iterator
from typing import Final

from protocol.documents import DocumentRefused, read_document, refuse_crowded
from protocol.words import short
from renderer.errors import ConfigError, InvalidRequest, NoManifest
from renderer.manifests.still import Fields, still_of_line

_FIRST: Final = re.compile(r"ffconcat\s+version\s|file\s+\S")
_TOKEN: Final = re.compile(r"(?:'[^']*'|\\.|[^\s'\\])+")
_PIECE: Final = re.compile(r"'([^']*)'|\\(.)|([^'\\]+)")
_CLOCK: Final = re.compile(r"(?:(?P<hours>[0-9]{1,9}):)?(?P<minutes>[0-5]?[0-9]):(?P<seconds>[0-9]{1,2}(?:\.[0-9]*)?)")
_SECONDS: Final = re.compile(r"(?P<number>[0-9]{1,18}(?:\.[0-9]*)?|\.[0-9]+)(?P<unit>s|ms|us)?")
_UNITS: Final = {None: 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


def is_concat(text: str) -> bool:
    """Whether a text whose name says nothing is such a list."""
    first = next((line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    return _FIRST.match(first) is not None


def from_concat(text: str) -> Fields:
    """Read a list for ffmpeg's concat demuxer.

    Raises:
        InvalidRequest: a line is neither a file nor its duration, or there is no file; it says in which line.
    """
    entries: list[tuple[int, Fields]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "file":
            entries.append((number, {"url": _unquoted(words[-1] if len(words) > 1 else "", number)}))
        elif words[0] == "duration" and entries:
            entries[-1][1]["duration"] = _seconds(words[-1], number)
        elif words[0] != "ffconcat":
            raise InvalidRequest(
                f'line {number}: expected "file" or the "duration" of one, found {short(line.strip())}'
            )
    if len(entries) > 1 and entries[-1][1] == {"url": entries[-2][1]["url"]} and "duration" in entries[-2][1]:
        entries.pop()
    if not entries:
        raise InvalidRequest("expected a line such as file 'a.png' for every image, found none")
    return {"images": [still_of_line(fields, number) for number, fields in entries]}


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
        most: values and names in it.

    Raises:
    ConfigError: it is no JSON object, or has a number that no double can hold.
    """
    try:
        value = read_document(text, most)
    except DocumentRefused as error:
        raise ConfigError(str(error).replace(" a JSON document in UTF-8:", " JSON:")) from error  # it is text by now
    if not isinstance(value, dict):
        raise ConfigError(f"expected a JSON object, found {short(value)}")
    return value


def from_json_lines(text: str, most: int) -> Fields:
    """Read one object a line; all of them together hold no more than one document may.

    Raises:
    ConfigError: a line is no JSON object.
    NoManifest: no line has an image's url.
    InvalidRequest: a line is no image, or there is none.
    """
    try:
        refuse_crowded(text.encode(), most)
    except DocumentRefused as error:
        raise ConfigError(str(error)) from error
    fields: Fields = {}
    images: list[Fields] = []
    # Not splitlines(): a string in JSON may hold what that takes for the end of a line, such as U+2028.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    items = [(number, _object_of_line(line, number, most)) for number, line in lines]
    if items and not any("url" in item for _, item in items) and "images" not in items[0][1]:
        raise NoManifest(f'{_EXPECTED}, found no "url"')
    for place, (number, item) in enumerate(items):
        if place == 0 and "url" not in item:
            fields = item
        else:
            images.append(still_of_line(item, number))
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
_COLUMNS: Final = ("url", "frames", "duration")


def from_csv(text: str) -> Fields:
    """Read a table with one image a row.

    Raises:
        ConfigError: the quotes are out of order.
        NoManifest: the header has no column for urls.
        InvalidRequest: a column is unknown, a row is no image, or there are no rows. Both say in which line.
    """
    names, delimiter = _header(text)
    rows = _rows(text, delimiter)
    next(rows)
    images = []
    for number, cells in rows:
        if len(cells) != len(names):
            raise InvalidRequest(f"line {number}: expected {len(names)} columns, found {len(cells)}")
        images.append(still_of_line({name: cell for name, cell in zip(names, cells, strict=True) if cell}, number))
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
                raise InvalidRequest(
                    f"line {line}: expected the columns url, frames and duration, found {short(wrong[0])}"
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
    """Say in our words what the reader has found."""
    if "unexpected end of data" in readers:
        return "a quote is opened and never closed"
    if "expected after" in readers:
        return "something stands between a closing quote and the next cell"
    if "larger than field limit" in readers:
        return f"a cell has more than {csv.field_size_limit()} characters"
    return "it cannot be cut into cells"
