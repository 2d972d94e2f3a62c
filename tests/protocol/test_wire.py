"""JSON-RPC over multipart: what is read, what is refused and in which words, and that nothing else is ever raised."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import wire
from protocol.errors import ERRORS, RemoteError
from protocol.schema import Fault
from protocol.wire import Answer, Call, Failure, Notification, WireError, parse_answer, parse_call, split_envelope

ids = st.integers() | st.text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(), json_values, max_size=4)
attachments = st.lists(st.binary(max_size=20), max_size=3)


def refused(*body):
    with pytest.raises(WireError) as caught:
        parse_call(body)
    return caught.value


def request(**members):
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "render", "params": {}} | members).encode()


# The envelope.


@pytest.mark.parametrize(
    ("frames", "envelope", "body"),
    [
        ([b"id", b"", b"{}", b"png"], [b"id", b""], [b"{}", b"png"]),
        ([b"id", b"{}", b"png"], [b"id"], [b"{}", b"png"]),
        ([b"id", b"{}", b""], [b"id"], [b"{}", b""]),
        ([b"id", b"", b"", b"x"], [b"id", b""], [b"", b"x"]),
        ([b"id", b""], [b"id", b""], []),
        ([b"id"], [b"id"], []),
        ([], [], []),
    ],
)
def test_the_envelope_is_the_identity_and_an_empty_delimiter(frames, envelope, body):
    assert split_envelope(frames) == (envelope, body)


# Requests.


@given(ids, st.text(), objects, attachments)
def test_a_call_comes_back_as_it_was_sent(id_, method, params, frames):
    assert parse_call(wire.call(id_, method, params, frames)) == Call(id_, method, params, tuple(frames))


def test_hand_written_json_is_read():
    body = [b' {"id": "x", "method": "health", "jsonrpc": "2.0", "extra": 1}\n']
    assert parse_call(body) == Call("x", "health", {})


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_may_be_anything_like_bytes(kind):
    call = parse_call([kind(request()), kind(b"png")])
    assert (call.method, bytes(call.attachments[0])) == ("render", b"png")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe{}",
        b'{"jsonrpc":"2.0"',
        b"{} {}",
        b"NaN",
        b'{"jsonrpc":"2.0","id":1,"method":"render","params":{"fps":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"render","params":{"fps":-Infinity}}',
        b'{"jsonrpc":"2.0","id":1,"method":"render","params":{"metadata":{"a":[1,1e999]}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b"1" * 100_000,
        json.dumps({"jsonrpc": "2.0", "id": 1}).encode("utf-16"),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_json_is_a_parse_error(text):
    assert refused(text).kind is ERRORS["parse_error"]


def test_no_frames_are_a_parse_error():
    assert "found no frame" in refused().message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[]", "batches are not supported"),
        (b'[{"jsonrpc":"2.0","id":1,"method":"health"}]', "batches are not supported"),
        (b"7", "expected a JSON object, found 7"),
        (b'"text"', 'expected a JSON object, found "text"'),
        (b"null", "expected a JSON object, found nothing"),
        (b"{}", 'jsonrpc: expected the string "2.0", found nothing'),
        (request(jsonrpc="1.0"), 'jsonrpc: expected the string "2.0", found "1.0"'),
        (request(jsonrpc=2.0), 'jsonrpc: expected the string "2.0", found 2.0'),
        (b'{"jsonrpc":"2.0","method":"render"}', "id: .* a notification would get no answer"),
        (request(id=None), "id: expected a string or an integer, found nothing"),
        (request(id=1.5), "id: expected a string or an integer, found 1.5"),
        (request(id=True), "id: expected a string or an integer, found true"),
        (request(id=[1]), "id: expected a string or an integer, found an array"),
        (request(method=None), "method: expected a string, found nothing"),
        (request(method=7), "method: expected a string, found 7"),
        (request(method={}), "method: expected a string, found an object"),
        (request(params=[1]), "params: expected an object of named fields, found an array"),
        (request(params=None), "params: expected an object of named fields, found nothing"),
        (request(params="x" * 1000), "params: expected an object of named fields, found a string"),
    ],
)
def test_what_is_no_request_is_refused_in_words(text, words):
    with pytest.raises(WireError, match=words) as caught:
        parse_call([text])
    assert caught.value.kind is ERRORS["bad_request"]


@pytest.mark.parametrize("members", [{"method": 7}, {"params": []}, {"jsonrpc": "3"}])
def test_the_refusal_carries_the_id_where_there_is_one(members):
    assert refused(request(id="mine", **members)).id == "mine"
    assert refused(request(id=None, **members)).id is None


def test_a_refusal_can_be_answered():
    error = refused(request(id="mine", method=7))
    read = parse_answer(wire.failure(error.id, error.fault()))
    assert isinstance(read, Failure)
    assert (read.id, read.error.kind, read.error.message) == ("mine", ERRORS["bad_request"], error.message)


@given(st.lists(st.binary(max_size=200), max_size=3))
def test_any_bytes_are_read_or_refused(frames):
    with contextlib.suppress(WireError):
        parse_call(frames)
    with contextlib.suppress(WireError):
        parse_answer(frames)


@given(
    st.dictionaries(
        st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error"]), json_values | st.just("2.0")
    )
)
def test_any_json_is_read_or_refused(members):
    body = [json.dumps({"jsonrpc": "2.0"} | members).encode()]
    with contextlib.suppress(WireError):
        assert parse_call(body).params == members.get("params", {})
    with contextlib.suppress(WireError):
        parse_answer(body)


# Answers.


@given(ids, objects, attachments)
def test_an_answer_comes_back_as_it_was_sent(id_, result, frames):
    assert parse_answer(wire.answer(id_, result, frames)) == Answer(id_, result, tuple(frames))


@given(st.text(), objects)
def test_a_notification_comes_back_as_it_was_sent(method, params):
    assert parse_answer(wire.notification(method, params)) == Notification(method, params)


@given(ids | st.none(), st.sampled_from(sorted(ERRORS)), st.text())
def test_a_failure_comes_back_as_it_was_sent(id_, name, message):
    fault = Fault(type=name, message=message, loc=("images", 3, "url"), retryable=ERRORS[name].retryable)
    read = parse_answer(wire.failure(id_, fault))
    assert isinstance(read, Failure)
    assert read.id == id_
    assert (read.error.kind, read.error.message, read.error.loc) == (ERRORS[name], message, ("images", 3, "url"))


def test_the_documents_are_plain_json_rpc():
    assert wire.answer(1, {"a": "ä"}, [b"x"]) == ['{"jsonrpc":"2.0","id":1,"result":{"a":"ä"}}'.encode(), b"x"]
    assert json.loads(wire.notification("progress", {"a": 1})[0]) == {
        "jsonrpc": "2.0",
        "method": "progress",
        "params": {"a": 1},
    }
    assert json.loads(wire.failure(None, Fault(type="queue_full", message="full", retryable=True))[0]) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32020, "message": "full", "data": {"type": "queue_full", "loc": [], "retryable": True}},
    }


def test_a_failure_lists_every_fault_where_there_are_several():
    errors = ({"loc": ["fps"], "msg": "too fast", "type": "less_than_equal"}, {"loc": [], "msg": "no", "type": "x"})
    frames = wire.failure(1, Fault(type="invalid_params", message="fps: too fast", loc=("fps",), errors=errors))
    assert json.loads(frames[0])["error"]["data"]["errors"] == list(errors)
    assert parse_answer(frames).error.details == errors


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_never_written(value):
    with pytest.raises(ValueError, match="JSON"):
        wire.answer(1, {"duration": value})


def failed(**error):
    return parse_answer([json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()]).error


def test_an_error_of_a_newer_server_keeps_its_name():
    error = failed(code=-32050, message="no credit", data={"type": "out_of_credit", "loc": [], "retryable": True})
    assert isinstance(error, RemoteError)
    assert (error.kind.name, error.kind.code, error.kind.retryable) == ("out_of_credit", -32050, True)


def test_an_error_without_data_is_known_by_its_code():
    assert failed(code=-32601, message="no such method").kind is ERRORS["method_not_found"]
    assert failed(code=-1, message="strange").kind is ERRORS["internal_error"]


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"id": 1},
        {"result": {}},
        {"id": None, "result": {}},
        {"id": 1, "result": 7},
        {"id": 1, "result": {}, "error": {"code": 1, "message": "both"}},
        {"id": [], "error": {"code": 1, "message": "m"}},
        {"id": 1, "error": None},
        {"id": 1, "error": {"code": "1", "message": "m"}},
        {"id": 1, "error": {"code": 1}},
        {"id": 1, "error": {"code": 1, "message": "m", "data": {"loc": 7}}},
        {"id": 1, "method": "progress", "params": {}},
        {"method": "progress", "params": []},
    ],
)
def test_what_is_no_answer_is_refused(members):
    with pytest.raises(WireError):
        parse_answer([json.dumps({"jsonrpc": "2.0"} | members).encode()])
