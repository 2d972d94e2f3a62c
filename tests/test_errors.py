"""The tree: every leaf is a row of the table, and the docstring shows every class where it hangs."""

import copy
import pickle
import re

import pytest

import renderer.errors
from protocol.errors import ERRORS
from renderer.errors import (
    BackendError,
    CapacityError,
    ConfigError,
    DecodeFailed,
    FetchFailed,
    InvalidRequest,
    JobError,
    QueueFull,
    StillreelError,
)


def below(parent: type[StillreelError]) -> list[type[StillreelError]]:
    """Return a class and all that derive from it, each before its children, in the order of the module."""
    own = [kind for kind in parent.__subclasses__() if kind.__module__ == renderer.errors.__name__]
    return [parent, *(kind for child in own for kind in below(child))]


ALL = below(StillreelError)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_class_names_a_row_of_the_table(kind: type[StillreelError]) -> None:
    assert kind.kind in ERRORS
    assert kind("words").fault().type == kind.kind


def test_the_docstring_draws_the_tree() -> None:
    drawn = [
        (match[2], len(match[1]) // 4 + ("──" in match[0]))
        for match in re.finditer(
            r"^((?:[│ ] {3})*)(?:[├└]── )?([A-Z]\w+)(?: {2,}|$)", renderer.errors.__doc__ or "", re.MULTILINE
        )
    ]
    assert drawn == [(kind.__name__, len(kind.__mro__) - len(StillreelError.__mro__)) for kind in ALL]


@pytest.mark.parametrize(
    ("parent", "is_retryable"), [(JobError, False), (CapacityError, True), (BackendError, True)], ids=str
)
def test_a_branch_tells_whether_to_try_again(parent: type[StillreelError], is_retryable: bool) -> None:
    retryable = {kind.__name__: kind("").fault().retryable for kind in below(parent)}
    assert retryable == dict.fromkeys(retryable, is_retryable) | (
        {"StillInProgress": True, "SourceUnavailable": True} if parent is JobError else {}  # what they lack comes later
    )


def test_the_place_stands_before_the_words() -> None:
    error = DecodeFailed("expected a whole PNG image", loc=("images", 3, "url"))
    assert str(error) == "images[3].url: expected a whole PNG image"
    assert str(QueueFull("later")) == "later"


def test_the_place_nearest_to_the_fault_is_kept() -> None:
    error = FetchFailed("no such file")
    assert error.at("images", 3, "url") is error
    assert error.at("images", 9, "url").loc == ("images", 3, "url")


def test_a_fault_has_the_details_of_an_invalid_request() -> None:
    details = ({"loc": ["fps"], "msg": "wrong", "type": "value_error"},)
    fault = InvalidRequest("wrong", loc=("fps",), details=details).fault()
    assert fault.model_dump() == {
        "type": "invalid_params",
        "message": "fps: wrong",
        "loc": ("fps",),
        "retryable": False,
        "errors": details,
    }


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_from_a_worker_process(kind: type[StillreelError]) -> None:
    error = kind("words", loc=("images", 1, "url"))
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert (str(twin), twin.loc, twin.message) == ("images[1].url: words", ("images", 1, "url"), "words")


def test_a_configuration_error_is_no_fault_of_a_job() -> None:
    assert not issubclass(ConfigError, JobError | CapacityError | BackendError)
