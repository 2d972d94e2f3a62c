"""Fields that the command line sets in every request: `--set fps=30 --set crf=18`."""

import json
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import from_json

from protocol.schema import RenderRequest
from protocol.words import meant
from renderer.errors import ConfigError
from renderer.manifests.still import Fields, faults_in


def parse_overrides(assignments: Iterable[str]) -> Fields:
    """Read NAME=VALUE pairs, the later winning; a value is JSON, or else text.

    Raises:
        ConfigError: a pair is none, or no request could have such a field.
    """
    overrides = dict(_pair(assignment) for assignment in assignments)
    try:
        RenderRequest.model_validate({"images": [{"url": "-"}], **overrides})
        json.dumps(overrides, allow_nan=False)
    except ValidationError as error:
        raise ConfigError(f"--set {faults_in(error, RenderRequest)}") from error
    except ValueError as error:
        raise ConfigError("--set: expected numbers within the range of a double") from error
    return overrides


def _pair(assignment: str) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    settable = [field for field in RenderRequest.model_fields if field != "images"]
    if not equals or name not in settable:
        likely = meant(name, settable)
        raise ConfigError(
            f"--set {assignment}: expected NAME=VALUE, where NAME is one of {', '.join(settable)}{likely}"
        )
    return name, _value(value)


def _value(text: str) -> object:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:
        return text
