"""What docs/zmq.md says in passing of params and answers, beside what a real daemon takes and sends."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import zmq
from pydantic import BaseModel

from protocol.schema import JobsQuery, PixelLayout, RequestId, VideoQuery
from tests.daemon_process import DaemonProcess, picture, request
from tests.frontends.zmq.test_zmq_server import connected

ANSWER_MS = 45_000
DOCUMENT = (Path(__file__).parents[3] / "docs" / "zmq.md").read_text()
PLAIN = re.sub(r"^```.*?^```$", "", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`(\{[^`]*\})`", PLAIN)
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PLAIN, re.MULTILINE))
TOKEN = re.compile(r'"[^"]*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')

Written = dict[str, Any] | list[Any] | set[str]


def read(tokens: Iterator[str], first: str) -> tuple[Written, str]:
    """Read a value as the document writes it: names without values, and words where JSON has none.

    Returns:
        An object's names with their values, a list's first item, or the strings that may stand there; and what follows.
    """
    if first == "{":
        found: dict[str, Any] = {}
        token = first
        while token in "{,":
            name, token = next(tokens).strip('"'), next(tokens)
            found[name] = set()
            if token == ":":
                found[name], token = read(tokens, next(tokens))
        return found, next(tokens, "")
    if first == "[":
        item, token = read(tokens, next(tokens))
        while token != "]":
            _, token = read(tokens, next(tokens))
        return [item], next(tokens, "")
    said, token = [first], next(tokens)
    while token not in {",", "}", "]"}:
        said.append(token)
        token = next(tokens)
    return ({each.strip('"') for each in said[::2]} if len(said) > 1 else set()), token


def written(text: str) -> Any:
    tokens = iter(TOKEN.findall(text))
    return read(tokens, next(tokens))[0]


def compare(said: Any, found: Any, where: str = "") -> None:
    """Assert that an answer has the names that the document gives, and one of the values where it gives several."""
    if isinstance(said, dict) and found is not None:
        assert sorted(said) == sorted(found), where
        for name, value in said.items():
            compare(value, found[name], f"{where}.{name}")
    elif isinstance(said, list) and found and isinstance(said[0], dict):
        for each in found:
            compare(said[0], each, f"{where}[]")
    elif isinstance(said, set) and said and found is not None:
        assert found in said, where


def test_what_differs_from_the_document_is_found() -> None:
    said = written('{"a": "x" | "y", "b": [{"c", "d": {"e"}}], "f": "an example"}')
    compare(said, {"a": "y", "b": [{"c": 1, "d": {"e": None}}], "f": "another"})
    for other in [
        {"a": "z", "b": [], "f": ""},
        {"a": "x", "b": [{"c": 1, "d": {"g": 1}}], "f": ""},
        {"a": "x", "b": [{"c": 1}], "f": ""},
        {"a": "x", "b": [], "f": "", "more": 1},
    ]:
        with pytest.raises(AssertionError):
            compare(said, other)


@pytest.fixture(scope="module")
def answers(daemon: DaemonProcess) -> dict[str, Any]:
    """One answer of each method, an error with several faults, and a notification."""
    with connected(daemon.endpoint, zmq.DEALER) as socket:
        told: list[dict[str, Any]] = []

        def ask(method: str, *attachments: bytes, **params: Any) -> Any:
            document = {"jsonrpc": "2.0", "id": 1, "method": method, **({"params": params} if params else {})}
            socket.send_multipart([b"", json.dumps(document).encode(), *attachments])
            while True:
                assert socket.poll(ANSWER_MS), "no answer"
                reply = json.loads(socket.recv_multipart()[1])
                if "method" not in reply:
                    return reply.get("result") or reply["error"]
                told.append(reply)

        found = {
            "render": ask("render", picture((1, 2, 3)), **request({"url": "cid:0"}), request_id="a", progress=True)
        }
        for method in ("status", "result", "video", "logs"):
            found[method] = ask(method, request_id="a")
        found["failed"] = ask("render", **request({"url": "gone.png"}), request_id="b")
        found["submit"] = ask("submit", **request({"url": "gone.png"}), request_id="b")
        found["retry"] = ask("retry", request_id="b")
        found["cancel"] = ask("cancel", request_id="a")
        found["jobs"], found["health"] = ask("jobs"), ask("health")
        found["error"] = ask("submit", **request({"url": ""}, {"url": "a", "frames": 0}))
    notification = told[0]
    assert notification.pop("jsonrpc") == "2.0"
    return found | {"notification": notification}


def test_every_object_in_the_text_is_what_the_daemon_takes_or_sends(answers: dict[str, Any]) -> None:
    layout = dict.fromkeys(PixelLayout.model_fields)
    sent = ["video", "logs", "jobs", "health", "status", "render", layout, "notification", "error"]
    for text, name in zip(INLINE, sent, strict=True):
        compare(written(text), answers[name] if isinstance(name, str) else name, text)


def test_what_is_called_a_status_or_a_result_is_one(answers: dict[str, Any]) -> None:
    status, result = (written(INLINE[place]) for place in (4, 5))
    for found in [answers["submit"], answers["cancel"], answers["retry"], *answers["jobs"]["jobs"]]:
        compare(status, found)
    compare(status, answers["notification"]["params"])
    compare(result, answers["result"])
    failed = next(each for each in answers["jobs"]["jobs"] if each["error"])
    assert (failed["status"], failed["state"]) == ("COMPLETED", "failed")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *((method, RequestId) for method in ("status", "result", "cancel", "logs", "retry")),
        ("video", VideoQuery),
        ("jobs", JobsQuery),
    ],
)
def test_the_table_has_the_params_of_a_method(method: str, params: type[BaseModel]) -> None:
    assert re.findall(r"`(\w+)`", ROWS[method]) == list(params.model_fields)


def test_the_layouts_in_the_text_are_all_that_are_taken() -> None:
    said = written(next(text for text in INLINE if '"shape"' in text))
    for name in ("dtype", "order"):
        assert said[name] == set(get_args(PixelLayout.model_fields[name].annotation))
