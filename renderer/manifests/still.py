"""One image of a manifest, and the words for what is wrong with it.

Images that stand one a line are checked as they are read, because only then is the line's number known.
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from protocol.errors import Loc, dotted
from protocol.schema import ImageFrame
from protocol.words import listed, wrongs_in
from renderer.errors import InvalidRequest, JobError

Fields = dict[str, Any]

_URL_MAX: Final = 1000


def still_of_line(fields: Fields, line: int) -> Fields:
    """Check the fields of one image, and return them in their proper types.

    Raises:
        InvalidRequest: with the line.
    """
    try:
        return ImageFrame.model_validate(fields).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise InvalidRequest(f"line {line}: {faults_in(error, ImageFrame)}") from error


def faults_in(error: ValidationError, model: type[BaseModel]) -> str:
    """Say which fields are wrong, what was expected and what was found."""
    wrongs = wrongs_in(error, model)
    where = f"{dotted(wrongs[0].loc)}: " if wrongs[0].loc else ""
    return where + listed(wrongs)


def naming_its_file(error: JobError, fields: Mapping[str, Any]) -> JobError:
    """Say which file is meant, for the user of this machine, to whom its paths are no secret."""
    url = url_at(fields, error.loc)
    if url:
        error.message = f"{url}: {error.message}"
    return error


def url_at(fields: Mapping[str, Any], loc: Loc) -> str | None:
    """Return the url of the image that a fault lies in, cut to what a line can hold; None where it lies elsewhere.

    A picture that is written out in the request has no name that would help.
    """
    match loc:
        case ("images", int(index), "url"):
            url = fields["images"][index].get("url")
            return None if not isinstance(url, str) or url.startswith("data:") else url[:_URL_MAX]
        case _:
            return None
