"""JSON and JSON Lines (https://jsonlines.org): the whole request, or one image a line.

The first of the lines may hold the request's other fields instead: it has no "url".
"""

import re
from typing import Final

from protocol.documents import DocumentRefused, read_document, refuse_crowded
from protocol.words import short
from renderer.errors import ConfigError, InvalidRequest, NoManifest
from renderer.manifests.still import Fields, still_of_line

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
