"""One image of a manifest, and the words for what is wrong with it.

Images that stand one a line are checked as they are read, because only then is the line's number known.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from protocol.errors import Loc, dotted
from protocol.schema import ImageFrame
from renderer.errors import InvalidRequest

Fields = dict[str, Any]

_FOUND_MAX: Final = 80
_URL_MAX: Final = 1000


def still_of_line(fields: Fields, line: int) -> Fields:
    """Check the fields of one image, and return them in their proper types.

    Raises:
        InvalidRequest: the first fault, with the line.
    """
    try:
        return ImageFrame.model_validate(fields).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InvalidRequest(f"line {line}: {fault_in(error)}") from error


def fault_in(error: ValidationError) -> str:
    """Say which field is wrong first, what was expected and what was found."""
    first = error.errors(include_url=False)[0]
    where = f"{dotted(first['loc'])}: " if first["loc"] else ""
    says_itself = first["type"] in {"missing", "extra_forbidden", "value_error"}
    found = "" if says_itself else f", found {short(first['input'])}"
    return f"{where}{first['msg']}{found}"


def url_at(fields: Mapping[str, Any], loc: Loc) -> str | None:
    """Return the url of the image that a fault lies in, cut to what a line can hold; None where it lies elsewhere.

    A picture that is written out in the request has no name that would help.
    """
    match loc:
        case ("images", int(index), "url"):
            images = fields["images"]
            url = images[index]["url"] if isinstance(images[index], Mapping) else images[index].url
            return None if not isinstance(url, str) or url.startswith("data:") else url[:_URL_MAX]
        case _:
            return None


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…"
