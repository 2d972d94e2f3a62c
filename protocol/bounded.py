"""Validation with bounded work: a stranger's lists and objects are checked only as far as the findings are useful.

pydantic checks everything and records each fault that it finds, which takes kilobytes and microseconds per fault, and
nobody reads more than a few. So a list that is too long is refused before its items are checked, and items are checked
in small groups until enough faults have been found.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import ValidationError, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

from protocol.errors import MAX_FAULTS

MOST_ITEMS: Final = "most_items"
"""The key under which pydantic's validation context holds the limit on images and on attachments."""

NOT_ALL_SEEN: Final = "not_all_seen"
"""The type of the note that says how much of a list was checked."""

_AT_A_TIME: Final = 20
_FIELDS_MAX: Final = 100


def context_for(max_images: int) -> dict[str, Any]:
    """Return the validation context for a limit on images, which holds for attachments as well."""
    return {MOST_ITEMS: max_images}


def a_few_at_a_time(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Validate a list in groups of items, until enough faults are found; a wrap validator for a tuple of any length.

    Raises:
        PydanticKnownError: the list is too long; none of its items was checked.
        ValidationError: the first faults, at the places that pydantic would name.
    """
    if not isinstance(value, list | tuple):
        raise PydanticKnownError("list_type")  # JSON has lists and no tuples
    at_most((info.context or {}).get(MOST_ITEMS, len(value)))(value)
    good: list[Any] = []
    faults: list[InitErrorDetails] = []
    for begin in range(0, len(value), _AT_A_TIME):
        try:
            good += handler(value[begin : begin + _AT_A_TIME])
        except ValidationError as error:
            faults += _moved(error, begin)
        seen = min(begin + _AT_A_TIME, len(value))
        if len(faults) >= MAX_FAULTS and seen < len(value):
            words = "only the first {seen} of {items} were checked, because they have enough faults"
            note = PydanticCustomError(NOT_ALL_SEEN, words, {"seen": seen, "items": len(value)})
            faults = [*faults[: MAX_FAULTS - 1], InitErrorDetails(type=note, input=None)]
            break
    if faults:
        raise ValidationError.from_exception_data("list", faults)
    return tuple(good)


def at_most(most: int) -> Callable[[Any], Any]:
    """Return a validator that refuses a list with more items than this, before they are checked."""

    def check(value: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) > most:
            found = {"field_type": "List", "max_length": most, "actual_length": len(value)}
            raise PydanticKnownError("too_long", found)
        return value

    return check


def refuse_many_fields(value: Any) -> Any:
    """Refuse an object with far too many fields; each unknown one would be a fault of its own."""
    if isinstance(value, Mapping) and len(value) > _FIELDS_MAX:
        raise ValueError(f"expected an object of up to {_FIELDS_MAX} fields, found {len(value)}")
    return value


def _moved(error: ValidationError, begin: int) -> list[InitErrorDetails]:
    """Return the faults found in a group of items, at their places in the whole list."""
    moved = []
    for fault in error.errors(include_url=False)[:MAX_FAULTS]:
        first, *rest = fault["loc"]
        place = (begin + first, *rest) if isinstance(first, int) else fault["loc"]
        moved.append(InitErrorDetails(type=fault["type"], loc=place, input=fault["input"], ctx=fault.get("ctx", {})))
    return moved
