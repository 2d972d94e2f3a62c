"""Pydantic's findings in this project's words: what was expected, what was found, and what may have been meant.

The types of errors stay pydantic's own, because programs rely on them; only the sentence for people is ours.
"""

import reprlib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from protocol.bounded import NOT_ALL_SEEN
from protocol.errors import MAX_FAULTS, Loc, counted, dotted

_FOUND_MAX, _NAME_MAX, _WORDS_MAX = 80, 100, 400


class _Json(reprlib.Repr):
    """Writes values as Python does, except for those that JSON spells differently."""

    def repr_bool(self, value: bool, _level: int) -> str:
        return "true" if value else "false"

    def repr_NoneType(self, _value: None, _level: int) -> str:  # noqa: N802 - reprlib finds it by the name of the type
        return "null"


# A value may be very long, so it is shortened while it is written and not afterwards.
_REPR = _Json()
_REPR.maxlevel = 4
_REPR.maxlist = _REPR.maxdict = _REPR.maxtuple = 30
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 3 * _FOUND_MAX

# What was expected, by pydantic's type of error; braces enclose the fields of its context.
_EXPECTED = {
    "bool_parsing": "expected true or false",
    "bool_type": "expected true or false",
    "dict_type": "expected an object",
    "finite_number": "expected a finite number",
    "float_parsing": "expected a number",
    "float_type": "expected a number",
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "int_from_float": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_parsing_size": "expected a number nearer to 0",
    "int_type": "expected a whole number",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "list_type": "expected a list",
    "literal_error": "expected {expected}",
    "model_attributes_type": "expected an object",
    "model_type": "expected an object",
    "path_type": "expected a path",
    "string_pattern_mismatch": "expected text of another form",
    "string_too_long": "expected at most {max_length} characters",
    "string_too_short": "expected at least {min_length} character(s)",
    "string_type": "expected text",
    "string_unicode": "expected text in Unicode",
    "tuple_type": "expected a list",
}

# The same for fields that need a more precise sentence; [] stands for the items of a list.
_RATE = 'expected a number, a fraction such as "30000/1001", or "auto"'
_RATES = "expected 1 to 120 frames per second"
_EXPECTED_OF = {
    "fps": {"float_parsing": _RATE, "float_type": _RATE, "greater_than_equal": _RATES, "less_than_equal": _RATES},
    "images[]": {
        "model_attributes_type": 'expected an object such as {{"url": "a.png"}}',
        "model_type": 'expected an object such as {{"url": "a.png"}}',
    },
    "audio[]": {
        "model_attributes_type": 'expected an object such as {{"url": "music.mp3"}}',
        "model_type": 'expected an object such as {{"url": "music.mp3"}}',
    },
    "background": {"string_pattern_mismatch": 'expected a colour such as "#1a2b3c"'},
    "proxy": {"string_pattern_mismatch": 'expected http://HOST:PORT or "environment"'},
    "public_url": {"string_pattern_mismatch": "expected an address such as https://reels.example/stillreel"},
    "request_id": {
        "string_pattern_mismatch": "expected up to 128 letters, digits, '.', '_' and '-', first a letter or a digit"
    },
    "timecode": {"string_pattern_mismatch": 'expected hours, minutes, seconds and frames, such as "01:00:00:00"'},
}

# Fields that may hold passwords and tokens, whose values are not shown.
_SECRET = {"proxy", "headers"}

# Whole sentences, where the context also says what was found.
_COMPLETE = {
    NOT_ALL_SEEN: "only the first {seen} of {items} were checked, because they have enough faults",
    "too_long": "expected at most {max_length}, found {actual_length}",
    "too_short": "expected at least {min_length}, found {actual_length}",
}


@dataclass(frozen=True, slots=True)
class Wrong:
    """One fault: its place, a sentence for people, and pydantic's findings for programs.

    Attributes:
        type: pydantic's type of error.
        context: pydantic's context, such as the limit that a number exceeds.
        found: the value at the place.
    """

    loc: Loc
    words: str
    type: str
    context: dict[str, Any]
    found: object

    def __str__(self) -> str:
        return f"{dotted(self.loc)}: {self.words}" if self.loc else self.words


def wrongs_in(error: ValidationError, model: type[BaseModel]) -> list[Wrong]:
    """Return every fault that a validation found.

    Args:
        model: what was validated against; its fields are suggested for misspelt ones.
    """
    found = error.errors(include_url=False)
    return [
        Wrong(_cut(each["loc"]), _brief(_words(each, model)), each["type"], each.get("ctx", {}), each["input"])
        for each in found
    ]


def _cut(loc: Loc) -> Loc:
    """Shorten the names in a place, which a client may have chosen."""
    return tuple(part[:_NAME_MAX] if isinstance(part, str) else part for part in loc)


def _brief(words: str) -> str:
    return words if len(words) <= _WORDS_MAX else f"{words[:_WORDS_MAX]}…"


def listed(wrongs: list[Wrong]) -> str:
    """Return up to twenty faults in one line; the first without its place, which the caller puts before the line."""
    [first, *others] = wrongs
    return joined([first.words, *map(str, others)])


def joined(faults: Sequence[str]) -> str:
    """Return what is wrong in one line, at most twenty things of it."""
    left = len(faults) - MAX_FAULTS
    more = [f"and {counted(left, 'more fault')}"] if left > 0 else []
    return "; ".join([*faults[:MAX_FAULTS], *more])


def short(value: object) -> str:
    """Return a value as it is written, shortened to fit a line."""
    text = _REPR.repr(value)
    return text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…"


def _words(fault: ErrorDetails, model: type[BaseModel]) -> str:
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "missing":
        return "expected a value, found none"
    if kind == "extra_forbidden":
        return f"no such field{meant(str(fault['loc'][-1])[:_NAME_MAX], _names_beside(model, fault['loc']))}"
    if kind == "value_error":
        return str(context["error"]) if "error" in context else fault["msg"].removeprefix("Value error, ")
    if kind in _COMPLETE:
        return _COMPLETE[kind].format(**context)
    expected = _EXPECTED_OF.get(_name(fault["loc"]), {}).get(kind) or _EXPECTED.get(kind)
    found = "something else" if _SECRET & set(fault["loc"]) else short(fault["input"])
    return f"{expected.format(**context) if expected else 'expected another value'}, found {found}"


def _name(loc: Loc) -> str:
    """Return the name of the field at a place; for an item of a list, the list's name and []."""
    names = [part for part in loc if isinstance(part, str)]
    return f"{names[-1] if names else ''}{'[]' if loc and isinstance(loc[-1], int) else ''}"


def meant(name: str, known: typing.Iterable[str]) -> str:
    """Return the addition "; did you mean ...?" if a name resembles a known one, else an empty text."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    likely = get_close_matches(name.lower(), list(known), n=1)
    return f"; did you mean {likely[0]}?" if likely else ""


def _names_beside(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the names of the fields of the object that contains a place."""
    at: type[BaseModel] | None = model
    for part in loc[:-1]:
        if at is None:
            return []
        if isinstance(part, str):
            field = at.model_fields.get(part)
            at = next(_models(field.annotation), None) if field else None
    return list(at.model_fields) if at else []


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not typing.get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models(part)
