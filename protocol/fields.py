"""What single fields of a request may hold: numbers with their bounds, frame rates, lists, wishes with a short form."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WrapValidator
from pydantic_core import PydanticKnownError

from protocol.bounded import a_few_at_a_time, at_most
from protocol.words import short

FPS_MIN, FPS_MAX = 1, 120
AUTO_FPS = "auto"

_Item = TypeVar("_Item")
_Wish = TypeVar("_Wish")
_FPS_TEXT = re.compile(r"[0-9]{1,3}(\.[0-9]{1,12})?|[0-9]{1,6}/[0-9]{1,4}")


def no_boolean(kind: Literal["int_type", "float_type"]) -> BeforeValidator:
    """Return a validator that refuses a boolean for a number: Python takes true for 1, which nobody means by it."""

    def check(value: object) -> object:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


def _check_fps(value: object) -> object:
    """Refuse a value that is not a frame rate, with pydantic's types for the faults of a number.

    This runs before the union is tried, so that the fault is reported at "fps" and not once for each of three types.
    """
    if value == AUTO_FPS:
        return value
    rate = _rate(value)
    if rate < FPS_MIN:
        raise PydanticKnownError("greater_than_equal", {"ge": FPS_MIN})
    if rate > FPS_MAX:
        raise PydanticKnownError("less_than_equal", {"le": FPS_MAX})
    if "/" in str(value) and rate.denominator > 1001:
        raise ValueError(f"expected a fraction with a denominator up to 1001, found {value}")
    return value


def _rate(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticKnownError("float_type")
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    # The pattern is checked first, because Fraction would accept "1e999999999" and compute it.
    if isinstance(value, str) and not _FPS_TEXT.fullmatch(value):
        raise PydanticKnownError("float_parsing")
    try:
        return Fraction(str(value))
    except ZeroDivisionError as error:
        raise PydanticKnownError("float_parsing") from error


# Lengths are checked after the items: pydantic counts only a tuple's valid items, so that a single bad image
# would be reported twice, as bad and as missing.
def _refuse_empty(items: tuple[_Item, ...]) -> tuple[_Item, ...]:
    if not items:
        raise PydanticKnownError("too_short", {"field_type": "List", "min_length": 1, "actual_length": 0})
    return items


def check_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) not in {2, 3}:
        raise ValueError(f"expected [rows, columns] or [rows, columns, channels], found {len(shape)} numbers")
    return shape


_BREAKING = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, half characters, ends of lines and paragraphs
_TITLE_BYTES = 255  # what a chapter list of an MP4 takes


def _check_title(title: str) -> str:
    if any(unicodedata.category(each) in _BREAKING for each in title):
        raise ValueError(f"expected one line of text without control characters, found {short(title)}")
    if len(title.encode()) > _TITLE_BYTES:
        raise ValueError(f"expected up to {_TITLE_BYTES} bytes of UTF-8, found {len(title.encode())}")
    return title


# The upper bound keeps sums and products of hostile counts printable; the server's limits are far below it.
Count = Annotated[int, Field(ge=1, le=2**31 - 1), no_boolean("int_type")]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False), no_boolean("float_type")]
Side = Annotated[int, Field(ge=2, le=2**31 - 1), no_boolean("int_type")]
Quality = Annotated[int, Field(ge=0, le=51), no_boolean("int_type")]
Fps = Annotated[int | float | str, BeforeValidator(_check_fps)]
Moment = Annotated[float, Field(ge=0, le=2**31 - 1, allow_inf_nan=False), no_boolean("float_type")]
Offset = Annotated[float, Field(ge=-(2**31), le=2**31 - 1, allow_inf_nan=False), no_boolean("float_type")]
Fade = Annotated[float, Field(ge=0, le=300, allow_inf_nan=False), no_boolean("float_type")]
Decibels = Annotated[float, Field(ge=-100, le=60, allow_inf_nan=False), no_boolean("float_type")]
Lufs = Annotated[float, Field(ge=-70, le=-5, allow_inf_nan=False), no_boolean("float_type")]
Title = Annotated[str, Field(min_length=1), AfterValidator(_check_title)]
BitRate = Annotated[int, Field(ge=8000, le=512_000), no_boolean("int_type")]


def _first(value: object) -> object:
    """Refuse a bare number: whether it counts frames or seconds, only its writer knows."""
    if value == "first":
        return {}
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError(f'expected "first", {{"frame": 48}} or {{"seconds": 2.5}}, found {short(value)}')


def _yes(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError(f'expected true or an object such as {{"columns": 6}}, found {short(value)}')


def _level(value: object) -> object:
    if isinstance(value, bool):
        return {} if value else None
    if isinstance(value, int | float):
        return {"target_lufs": value}
    if value is None or isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError(
        f'expected true, LUFS such as -14, or {{"target_lufs": -14, "true_peak_db": -1}}, found {short(value)}'
    )


def _or_else(*values: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return what adds to the JSON schema of a field what it takes in place of an object."""

    def add(schema: dict[str, Any]) -> None:
        schema["anyOf"][:0] = values

    return add


PosterWish = Annotated[_Wish | None, BeforeValidator(_first), Field(json_schema_extra=_or_else({"const": "first"}))]
SheetWish = Annotated[_Wish | None, BeforeValidator(_yes), Field(json_schema_extra=_or_else({"const": True}))]
LoudnessWish = Annotated[
    _Wish | None,
    BeforeValidator(_level),
    Field(
        description='how loud the mix is made: true, LUFS such as -14, or {"target_lufs": -14, "true_peak_db": -1}',
        json_schema_extra=_or_else({"const": True}, {"type": "number", "minimum": -70, "maximum": -5}),
    ),
]
AtLeastOne = Annotated[
    tuple[_Item, ...],
    WrapValidator(a_few_at_a_time),
    AfterValidator(_refuse_empty),
    Field(json_schema_extra={"minItems": 1}),
]


Tracks = Annotated[tuple[_Item, ...], BeforeValidator(at_most(16)), Field(json_schema_extra={"maxItems": 16})]
