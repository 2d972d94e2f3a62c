"""Reading a JSON document that a stranger has written: how much it may hold is known before any of it is made.

Bytes say little about what a document costs. Three million times `{"url":"a"}` are 34 MB of text, and gigabytes of
objects and seconds of work. What each value and each name costs is about the same, so it is they that are counted; a
long string counts once. The parser itself goes 200 levels deep and no deeper, and refuses what is not UTF-8.
"""

import math
import re
from typing import Any, Final

from pydantic_core import from_json

MAX_IMAGES: Final = 10_000
"""Images of one request, unless the server's settings say otherwise."""

_PER_IMAGE: Final = 10  # all its fields, and as much again
_BESIDE: Final = 100_000  # the other fields, metadata above all
_PLACE: Final = re.compile(r"^(.*) at (line \d+ column \d+)$", re.DOTALL)
_MARKS: Final = (b",", b":", b"[", b"{")  # each value but the first, and each name, comes after one of them
_WINDOW_BYTES: Final = 64 * 1024


# What the parser finds, in our words; the place where it was found is added.
_FAULTS: Final = {
    "EOF while parsing a list": "the text ends within a list",
    "EOF while parsing a string": "the text ends within a string",
    "EOF while parsing a value": "the text ends where a value was expected",
    "EOF while parsing an object": "the text ends within an object",
    "control character (\\u0000-\\u001F) found while parsing a string": "a string holds a line break or the like",
    "expected `,` or `]`": "a comma or the list's ] is missing",
    "expected `,` or `}`": "a comma or the object's } is missing",
    "expected `:`": "the colon after a name is missing",
    "expected ident": "expected a value such as true, false or null",
    "expected value": "expected a value, found something else",
    "invalid escape": "a string has a backslash before what it cannot stand before",
    "invalid number": "a number is not written as JSON has them",
    "invalid unicode code point": "a string holds bytes that are not UTF-8",
    "key must be a string": "expected a name in double quotes",
    "lone leading surrogate in hex escape": "a string has half of a pair of \\u escapes",
    "number out of range": "a number is too large",
    "recursion limit exceeded": "more than 200 levels of nesting",
    "trailing characters": "something follows the end of the document",
    "trailing comma": "a comma stands before the end of a list or an object",
    "unexpected end of hex escape": "a \\u escape is cut short",
}


class DocumentRefused(ValueError):
    """What is no JSON document, or holds more than is read; its words name the limit."""


def most_values(max_images: int) -> int:
    """Return how many values and names a document with that many images may hold."""
    return _PER_IMAGE * max_images + _BESIDE


def read_document(content: bytes | bytearray | str, most: int = most_values(MAX_IMAGES)) -> Any:
    """Read a JSON document in UTF-8; any thread may call it.

    Args:
        most: values and names in it.

    Raises:
        DocumentRefused: it is no JSON document, too large, too deep, or has a number that no double holds.
    """
    text = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    refuse_crowded(text, most)
    try:
        document = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise DocumentRefused(f"expected a JSON document in UTF-8: {_fault(str(error))}") from error
    if not _is_finite(document):
        raise DocumentRefused("expected numbers within the range of a double, such as 1e308")
    return document


def _fault(parsers: str) -> str:
    """Say what is wrong, and where."""
    found = _PLACE.fullmatch(parsers)
    words, place = (found[1], f" at {found[2]}") if found else (parsers, "")
    return _FAULTS.get(words, "it cannot be read") + place


def refuse_crowded(text: bytes | bytearray, most: int = most_values(MAX_IMAGES)) -> None:
    """Refuse a text of JSON documents that holds more than is read, without parsing it.

    Raises:
        DocumentRefused: it has too many values and names.
    """
    if sum(map(text.count, _MARKS)) > most and _has_more_marks(text, most):
        raise DocumentRefused(f"expected a JSON document of up to {most} values and names, found more")


def _has_more_marks(text: bytes | bytearray, most: int) -> bool:
    """Count again without the strings, such as the comma in each data URI; a window at a time, so that memory is small.

    Escaped quotes and backslashes are taken out first; what is left of the quotes begins and ends strings.
    """
    marks, begin, in_string = 0, 0, False
    while begin < len(text) and marks <= most:
        window = text[begin : begin + _WINDOW_BYTES]
        if (len(window) - len(window.rstrip(b"\\"))) % 2:  # it ends within an escape
            window += text[begin + len(window) : begin + len(window) + 1]
        begin += len(window)
        pieces = window.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(pieces[in_string::2])
        marks += sum(map(outside.count, _MARKS))
        in_string ^= len(pieces) % 2 == 0
    return marks > most


def _is_finite(document: Any) -> bool:
    """Whether no number overflowed to infinity, as the well-formed 1e999 does: it could not be written back as JSON."""
    unread: list[Any] = [document]
    while unread:
        value = unread.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if isinstance(value, dict):
            unread.extend(value.values())
        elif isinstance(value, list):
            unread.extend(value)
    return True
