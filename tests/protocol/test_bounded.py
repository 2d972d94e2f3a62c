"""How much of a stranger's lists and objects is checked."""

from typing import Any

import pytest

from protocol.bounded import context_for
from protocol.schema import JobsQuery, RenderParams
from renderer.errors import InvalidRequest, TooManyImages
from renderer.frontends.http.reading import _invalid
from renderer.intake import parse_request


def refused(params: dict[str, Any], max_images: int | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(params, max_images)
    return caught.value


def test_validation_stops_at_twenty_faults_and_says_how_far_it_came() -> None:
    error = refused({"images": [{"url": "a"}] * 30 + [{"url": ""}] * 5_000})
    assert len(error.details) == 20
    assert error.details[0]["loc"] == ["images", 30, "url"]
    assert error.details[-1]["loc"] == ["images"]
    assert error.details[-1]["msg"] == ("only the first 60 of 5030 were checked, because they have enough faults")
    assert "only the first 60 of 5030" in error.message


def test_faults_of_a_short_list_keep_their_places_and_types() -> None:
    images: list[Any] = [{"url": "a"}] * 25 + [{"url": "a", "frames": 1, "duration": 1}, 1, {"frames": 0, "fps": 1}]
    told = [(tuple(each["loc"]), each["type"]) for each in refused({"images": images}).details]
    assert told == [
        (("images", 25), "value_error"),
        (("images", 26), "model_type"),
        (("images", 27, "url"), "missing"),
        (("images", 27, "frames"), "greater_than_equal"),
        (("images", 27, "fps"), "extra_forbidden"),
    ]


def test_too_many_images_are_refused_before_one_is_looked_at() -> None:
    error = refused({"images": [1] * 11}, 10)
    assert isinstance(error, TooManyImages)
    assert str(error) == "images: expected up to 10 images, found 11 (limits.max_images)"
    assert len(parse_request({"images": [{"url": "a"}] * 10}, 10).images) == 10


def test_names_and_values_are_not_repeated_at_length() -> None:
    error = refused({"images": [{"url": "a", "x" * 100_000: 1}], "crf": [[1] * 1000] * 1000, "y" * 100_000: 1})
    assert len(error.message) + sum(len(str(each)) for each in error.details) < 4096


def test_an_object_with_very_many_fields_is_one_fault() -> None:
    fields = {f"x{number}": 1 for number in range(5_000)}
    assert [each["loc"] for each in refused({"images": [fields]}).details] == [["images", 0]]
    assert refused({"images": [{"url": "a"}], **fields}).message == "expected an object of up to 100 fields, found 5001"


@pytest.mark.parametrize(
    ("model", "params", "words"),
    [
        (JobsQuery, {"states": ["done"] * 7}, "at most 6 items"),
        (RenderParams, {"images": [{"url": "a"}], "attachments": [1] * 11}, "at most 10 items"),
        (RenderParams, {"images": [{"url": "a"}], "attachments": [{"shape": [1] * 100}]}, "at most 16 items"),
    ],
)
def test_other_lists_are_bounded_too(model: Any, params: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        model.model_validate(params, context=context_for(10))
    assert len(_invalid(caught.value, model).details) == 1  # type: ignore[arg-type]
