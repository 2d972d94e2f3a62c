"""CSV as spreadsheets and scripts write it: a header row, then one image a row.

The delimiter is the one that cuts the header into column names that are known. csv.Sniffer guesses from the frequency
of characters, and urls mislead it.
"""

import csv
import io
from collections.abc import Iterator
from typing import Final

from protocol.words import short
from renderer.errors import ConfigError, InvalidRequest, NoManifest
from renderer.manifests.still import Fields, still_of_line

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
