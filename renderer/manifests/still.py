"""One image of a manifest, and the words for what is wrong with it.

Images that are written one a line are checked as they are read, because only then is the number of the line known.

The fields that `--set fps=30 --set crf=18` sets in every request are read here too.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from protocol.errors import MAX_FAULTS, Loc, dotted
from protocol.schema import AudioTrack, Fault, ImageFrame, RenderRequest, ResultWarning
from protocol.words import joined, listed, meant, wrongs_in
from renderer.errors import ConfigError, InvalidRequest, JobError

Fields = dict[str, Any]
T = TypeVar("T")

_URL_MAX: Final = 1000
_OF_DAEMONS: Final = ("output", "webhook_url")


def read_lines(lines: Iterable[tuple[int, T]], read: Callable[[T, int], Fields]) -> list[Fields]:
    """Read numbered lines, and collect the faults of all of them; reading stops after twenty faults.

    Raises:
        InvalidRequest: `read` has raised it of some lines.
    """
    found, faults = [], []
    for number, line in lines:
        try:
            found.append(read(line, number))
        except InvalidRequest as error:
            faults.append(error.message)
            if len(faults) == MAX_FAULTS:
                faults[-1] += "; later lines were not looked at"
                break
    if faults:
        raise InvalidRequest(joined(faults))
    return found


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
    """Return which fields are wrong, what was expected and what was found."""
    wrongs = wrongs_in(error, model)
    where = f"{dotted(wrongs[0].loc)}: " if wrongs[0].loc else ""
    return where + listed(wrongs)


def naming_its_files(error: JobError, fields: Mapping[str, Any]) -> JobError:
    """Add the names of the files, for the user of this machine, who may see its paths."""
    for each in (error, *error.others):
        if url := _url_at(fields, each.loc):
            each.message = f"{url}: {each.message}"
    return error


def naming_files(fault: Fault, fields: Mapping[str, Any]) -> Fault:
    """Add the names of the files to an error that comes from a worker."""
    message, errors = fault.message, []
    for each in fault.errors or ({"loc": fault.loc, "msg": message.removeprefix(f"{dotted(fault.loc)}: ")},):
        loc, words = tuple(each["loc"]), each["msg"]
        named = f"{url}: {words}" if (url := _url_at(fields, loc)) else words
        message = message.replace(f"{dotted(loc)}: {words}", f"{dotted(loc)}: {named}", 1)
        errors.append({**each, "msg": named})
    return fault.model_copy(update={"message": message, "errors": tuple(errors) if fault.errors else ()})


def warning_with_files(warnings: Iterable[ResultWarning], fields: Mapping[str, Any]) -> tuple[ResultWarning, ...]:
    """Add the names of the files to the warnings of a result."""
    return tuple(
        warning.model_copy(update={"message": f"{url}: {warning.message}"})
        if (url := _url_at(fields, warning.loc))
        else warning
        for warning in warnings
    )


def _url_at(fields: Mapping[str, Any], loc: Loc) -> str | None:
    """Return the url of the image or sound that a fault lies in, cut to what fits a line; None where it lies elsewhere.

    A picture that is written out in the request has no name that would help.
    """
    match loc:
        case ("images" | "audio" as name, int(index), "url"):
            url = fields[name][index].get("url")
            return None if not isinstance(url, str) or url.startswith("data:") else url[:_URL_MAX]
        case _:
            return None


def parse_overrides(assignments: Iterable[str], *, for_daemon: bool = False) -> Fields:
    """Read NAME=VALUE pairs, the later winning; a value is JSON, or else text.

    Args:
        for_daemon: the request goes to one, which puts videos into buckets and calls webhooks.

    Raises:
        ConfigError: a pair is not NAME=VALUE, or a request cannot have such a field.
    """
    overrides: Fields = {}
    wrong: list[str] = []
    for assignment in assignments:
        try:
            name, value = _pair(assignment, for_daemon=for_daemon)
            overrides[name] = value
        except ConfigError as error:
            wrong.append(error.message)
    try:
        if overrides:  # else the model, which `submit` does not need, is not built
            RenderRequest.model_validate({"images": [{"url": "-"}], **overrides})
        json.dumps(overrides, allow_nan=False)
    except ValidationError as error:
        wrong.append(f"--set {faults_in(error, RenderRequest)}")
    except ValueError:
        wrong.append("--set: expected numbers within the range of a double")
    if wrong:
        raise ConfigError(joined(wrong))
    return overrides


def _pair(assignment: str, *, for_daemon: bool) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    hidden = {"images"} if for_daemon else {"images", *_OF_DAEMONS}
    settable = [field for field in RenderRequest.model_fields if field not in hidden]
    if name in hidden and name in _OF_DAEMONS:
        raise ConfigError(
            f"--set {name}: only a daemon takes it; render writes files, and batch --out s3://... objects"
        )
    if name in settable and not equals:
        raise ConfigError(f"--set {name}: a value is missing, as in fps=30")
    if name not in settable:
        if name in AudioTrack.model_fields:
            raise ConfigError(f"--set {name}: {name} belongs to a sound, as in audio=[{{...}}]")
        if name in ImageFrame.model_fields:
            raise ConfigError(f"--set {name}: {name} belongs to an image, in a manifest")
        likely = meant(name, settable)
        raise ConfigError(
            f"--set {assignment}: expected NAME=VALUE, where NAME is one of {', '.join(settable)}{likely}"
        )
    return name, _value(name, value)


def _value(name: str, text: str) -> object:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        if text.startswith(("[", "{")):
            raise ConfigError(f"--set {name}: expected JSON: {error}") from error
        return text
