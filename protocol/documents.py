"""Reading a JSON document that a stranger has written; its values are counted before any of them is created.

The number of bytes says little about what a document costs: `{"url":"a"}` three million times is 34 MB of text, which
becomes gigabytes of objects and takes seconds. Every value and every name costs about the same, so those are counted; a
long string counts once. The parser itself stops at 200 levels of nesting and refuses text that is not UTF-8.
"""

import math
import re
from typing import Any, Final

MAX_IMAGES: Final = 10_000
"""The most images of one request, unless the server's settings say otherwise."""

_PER_IMAGE: Final = 10  # twice the number of an image's fields
_BESIDE: Final = 100_000  # for the other fields, above all metadata
_PLACE: Final = re.compile(r"^(.*) at (line \d+ column \d+)$", re.DOTALL)
_MARKS: Final = (b",", b":", b"[", b"{")  # each name, and each value but the first, follows one of these
_WINDOW_BYTES: Final = 64 * 1024

# The parser's findings in our words; the place is added.
_FAULTS: Final = {
    "EOF while parsing a list": "the text ends within a list",
    "EOF while parsing a string": "the text ends within a string",
    "EOF while parsing a value": "the text ends where a value was expected",
    "EOF while parsing an object": "the text ends within an object",
    "control character (\\u0000-\\u001F) found while parsing a string": "a string holds a control character",
    "expected `,` or `]`": "a comma or the list's ] is missing",
    "expected `,` or `}`": "a comma or the object's } is missing",
    "expected `:`": "the colon after a name is missing",
    "expected ident": "expected a value such as true, false or null",
    "expected value": "expected a value, found something else",
    "invalid escape": "a string has a backslash before a character that cannot be escaped",
    "invalid number": "a number is not written as JSON requires",
    "invalid unicode code point": "a string holds bytes that are not UTF-8",
    "key must be a string": "expected a name in double quotes",
    "lone leading surrogate in hex escape": "a string has only half of a pair of \\u escapes",
    "number out of range": "a number is too large",
    "recursion limit exceeded": "more than 200 levels of nesting",
    "trailing characters": "something follows the end of the document",
    "trailing comma": "a comma comes before the end of a list or an object",
    "unexpected end of hex escape": "a \\u escape is cut short",
}


class DocumentRefused(ValueError):
    """A text that is not a JSON document, or that holds more than the limit, which the message names."""


def kind_of(value: object) -> str:
    """Return which kind of JSON value this is, for a message."""
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def most_values(max_images: int) -> int:
    """Return how many values and names a document with this many images may hold."""
    return _PER_IMAGE * max_images + _BESIDE


def read_document(content: bytes | bytearray | str, most: int = most_values(MAX_IMAGES)) -> Any:
    """Read a JSON document in UTF-8; any thread may call this.

    Args:
        most: how many values and names it may hold.

    Raises:
        DocumentRefused: it is not a JSON document, is too large or nested too deeply, or has a number beyond a double.
    """
    from pydantic_core import from_json  # noqa: PLC0415 - takes 30 ms, and who only asks a server does not need it

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
    """Return what is wrong, and where, in our words."""
    found = _PLACE.fullmatch(parsers)
    words, place = (found[1], f" at {found[2]}") if found else (parsers, "")
    return _FAULTS.get(words, "it cannot be read") + place


def refuse_crowded(text: bytes | bytearray, most: int = most_values(MAX_IMAGES)) -> None:
    """Refuse a text of JSON documents that holds too many values and names, without parsing it.

    Raises:
        DocumentRefused: it has too many values and names.
    """
    if sum(map(text.count, _MARKS)) > most and _has_more_marks(text, most):
        raise DocumentRefused(f"expected a JSON document of up to {most} values and names, found more")


def _has_more_marks(text: bytes | bytearray, most: int) -> bool:
    """Count only outside of strings, as each data URI holds a comma; a window at a time, so that little memory is used.

    Escaped quotes and backslashes are removed first; the quotes that remain begin and end strings.
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
    """Whether every number is finite: 1e999 is well-formed, but becomes infinity, which JSON cannot express."""
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
