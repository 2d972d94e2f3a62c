"""The table of errors, which clients hold on to."""

import pytest

from protocol.errors import ERRORS, BadEndpoint, ClientError, ClientTimeout, RemoteError, Unreachable, dotted


def test_codes_and_names_are_unique():
    assert len({row.code for row in ERRORS.values()}) == len(ERRORS)
    assert all(name == row.name for name, row in ERRORS.items())


def test_codes_lie_where_json_rpc_leaves_room():
    own = {"parse_error": -32700, "bad_request": -32600, "method_not_found": -32601, "invalid_params": -32602}
    own["internal_error"] = -32603
    assert {name: ERRORS[name].code for name in own} == own
    assert all(-32099 <= row.code <= -32000 for name, row in ERRORS.items() if name not in own)


def test_http_statuses_are_those_of_errors():
    assert all(400 <= row.http_status <= 599 for row in ERRORS.values())
    assert all(row.meaning for row in ERRORS.values())


def test_what_can_be_tried_again():
    assert {name for name, row in ERRORS.items() if row.retryable} == {
        "internal_error",
        "queue_full",
        "shutting_down",
        "still_in_progress",
        "storage_full",
    }


@pytest.mark.parametrize(
    ("loc", "text"),
    [
        ((), ""),
        (("fps",), "fps"),
        (("images", 3, "url"), "images[3].url"),
        ((0, "a", 1, 2), "[0].a[1][2]"),
    ],
)
def test_a_location_is_written_the_way_people_do(loc, text):
    assert dotted(loc) == text


def test_a_remote_error_reads_as_the_servers_words():
    error = RemoteError(ERRORS["not_found"], "no request abc", ("request_id",))
    assert str(error) == "no request abc"
    assert (error.kind.code, error.loc, error.details) == (-32010, ("request_id",), ())


def test_no_answer_is_one_family_and_an_error_answer_another():
    assert issubclass(Unreachable, ClientError)
    assert issubclass(ClientTimeout, ClientError)
    assert issubclass(BadEndpoint, ClientError)
    assert not issubclass(RemoteError, ClientError)
