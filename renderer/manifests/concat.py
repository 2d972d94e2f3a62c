"""A list for ffmpeg's concat demuxer as images (https://ffmpeg.org/ffmpeg-formats.html#concat-1).

Such lists name their last image twice, as ffmpeg passes over the duration of the last; here it counts, so a last entry
that repeats the one before it and has no duration of its own is left out. An image without a duration is shown for one
frame.
"""

import re
from typing import Final

from protocol.words import short
from renderer.errors import InvalidRequest
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
