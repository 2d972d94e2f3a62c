"""The contract on the wire: statuses, headers, bodies, and where requests go."""

import asyncio
import base64
import itertools
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from renderer.frontends.http.responses import events
from tests.daemon_process import Gate, request, still, wait_until
from tests.served import APP, ENDPOINT, QUEUE, RUN, Served


def test_a_submitted_request_comes_with_absolute_urls_that_work(served: Served) -> None:
    body = served.submit(request())
    here = f"{served.daemon.http}/queue/{APP}/requests/{body['request_id']}"
    assert body == {
        "status": "IN_QUEUE",
        "request_id": body["request_id"],
        "queue_position": 0,
        "response_url": here,
        "status_url": f"{here}/status",
        "cancel_url": f"{here}/cancel",
    }
    wait_until(lambda: httpx.get(body["status_url"]).status_code == 200, "done")
    assert httpx.get(body["response_url"]).headers["x-fal-request-id"] == body["request_id"]


def test_a_request_that_waits_says_where_it_stands(served: Served, busy: str) -> None:
    first, second = (served.submit(request())["request_id"] for _ in range(2))
    waiting = served.status(second)
    assert waiting.status_code == 202
    assert waiting.json()["status"] == "IN_QUEUE"
    assert waiting.json()["queue_position"] == 1
    assert waiting.json()["logs"] == []
    assert served.status(busy).json()["status"] == "IN_PROGRESS"
    assert "queue_position" not in served.status(busy).json()
    for request_id in (first, second):
        assert served.cancel(request_id).json() == {"status": "CANCELLATION_REQUESTED"}


def test_a_status_comes_in_one_piece(served: Served, busy: str) -> None:
    where = httpx.URL(served.daemon.http)
    question = f"GET {QUEUE}/requests/{busy}/status HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with socket.create_connection((where.host, where.port or 80), timeout=60) as connection:
        for _ in range(20):
            connection.sendall(question)
            head, _, body = connection.recv(65536).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 202")
            assert json.loads(body)["status"] == "IN_PROGRESS"


def test_a_result_that_is_not_there_yet_is_a_400(served: Served, busy: str) -> None:
    early = served.result(busy)
    assert early.status_code == 400
    assert early.json()["detail"] == "Request is still in progress"


def test_a_cancelled_request_ends_as_the_hosted_services_do(served: Served, busy: str) -> None:
    request_id = served.submit(request())["request_id"]
    assert served.cancel(request_id).status_code == 202
    status = served.status(request_id)
    assert status.status_code == 200
    assert status.json()["status"] == "COMPLETED"
    assert status.json()["error_type"] == "client_cancelled"
    result = served.result(request_id)
    assert result.status_code == 499
    assert result.headers["x-fal-error-type"] == "client_cancelled"
    assert result.json()["detail"] == "Request cancelled by the client."
    again = served.cancel(request_id)
    assert (again.status_code, again.json()) == (400, {"status": "ALREADY_COMPLETED"})


@pytest.mark.parametrize(
    "path",
    [
        f"/queue/{APP}/requests/ID/",
        f"/queue/{APP}/requests/ID/response",
        f"/queue/{ENDPOINT}/requests/ID",
        f"/queue/{ENDPOINT}/requests/ID/response/",
        f"/{APP}/requests/ID",
    ],
)
def test_every_spelling_of_a_path_leads_there_without_a_redirect(served: Served, path: str) -> None:
    made = served.http.post(f"{RUN}/", json=request()).json()
    response = served.http.get(path.replace("ID", made["request_id"]), follow_redirects=False)
    assert response.status_code == 200
    assert response.json()["frames"] == made["frames"]


def test_the_host_tells_run_from_queue_where_the_path_does_not(served: Served) -> None:
    queued = served.http.post(f"/{ENDPOINT}", json=request(), headers={"host": "queue.fal.run"})
    assert queued.json()["status"] == "IN_QUEUE"
    assert queued.json()["status_url"].startswith(f"http://queue.fal.run/{APP}/requests/")
    ran = served.http.post(f"/{ENDPOINT}", json=request(), headers={"host": "fal.run"})
    assert ran.json()["video"]["url"].startswith("http://fal.run/files/")


def test_the_proxy_route_asks_nobody_else(served: Served) -> None:
    target = {"x-fal-target-url": f"https://queue.fal.run/{ENDPOINT}?fal_max_queue_length=5"}
    queued = served.http.post("/api/fal/proxy", json=request(), headers=target)
    assert queued.json()["status_url"].startswith(f"{served.daemon.http}/queue/")
    for wrong in ("file:///etc/passwd", "", "//", "https://"):
        refused = served.http.get("/api/fal/proxy", headers={"x-fal-target-url": wrong})
        assert refused.status_code == 400
    assert served.http.get("/api/fal/proxy", headers={"x-fal-target-url": "https://a.com/nowhere"}).status_code == 404


def test_an_app_that_is_not_here_is_unknown(served: Served) -> None:
    for path in ("/run/fal-ai/other", "/queue/fal-ai/ffmpeg-api/compose", f"/run/{ENDPOINT}/more"):
        assert served.http.post(path, json=request()).status_code == 404


def test_the_answer_is_the_bare_result_with_an_id_header(served: Served) -> None:
    made = served.http.post(RUN, json=request(still(frames=3)))
    assert made.status_code == 200
    assert made.headers["content-type"] == "application/json"
    assert made.json()["video"]["content_type"] == "video/mp4"
    assert made.headers["x-fal-request-id"] == made.json()["request_id"]


def test_sync_mode_brings_the_video_as_a_data_uri(served: Served) -> None:
    body = request(still(frames=3))
    inside = served.http.post(RUN, json={**body, "sync_mode": True}).json()
    head, _, content = inside["video"]["url"].partition(",")
    assert head == "data:video/mp4;base64"
    kept = [file.read_bytes() for file in (served.daemon.data_dir / "outputs").glob("*/video.mp4")]
    assert base64.b64decode(content, validate=True) in kept


def test_unknown_fields_are_ignored(served: Served) -> None:
    body = {"images": [{**still(), "caption": "x"}], "loop": True, "width": 64, "height": 48}
    assert served.http.post(RUN, json=body).status_code == 200


FAULTS: list[tuple[dict[str, Any], list[Any], str]] = [
    ({"images": []}, ["body", "images"], "sequence_too_short"),
    ({}, ["body", "images"], "missing"),
    ({"images": [{"url": "a.png", "frames": 0}]}, ["body", "images", 0, "frames"], "greater_than_equal"),
    ({"images": [still()], "width": 99999}, ["body", "width"], "less_than_equal"),
    ({"images": [still()], "fps": 1000}, ["body", "fps"], "less_than_equal"),
    ({"images": [still(), {"url": "nowhere.png"}]}, ["body", "images", 1, "url"], "file_download_error"),
    ({"images": [still(), {"url": "http://10.0.0.1/a.png"}]}, ["body", "images", 1, "url"], "file_download_error"),
    ({"images": [{"url": "data:image/png;base64,AAAA"}]}, ["body", "images", 0, "url"], "unsupported_image_format"),
    ({"images": [{"url": "data:image/png;base64,iVBORw0KGgo="}]}, ["body", "images", 0, "url"], "image_load_error"),
    ({"images": [still()], "request_id": "../x"}, ["body", "request_id"], "string_pattern_mismatch"),
    ([], ["body"], "model_attributes_type"),
]


@pytest.mark.parametrize(("body", "loc", "kind"), FAULTS, ids=[kind for _, _, kind in FAULTS])
def test_a_fault_is_a_list_that_names_the_field_and_a_message(
    served: Served, body: Any, loc: list[Any], kind: str
) -> None:
    response = served.http.post(RUN, json=body)
    assert response.status_code == 422
    [fault] = response.json()["detail"]
    assert (fault["loc"], fault["type"]) == (loc, kind)
    assert fault["msg"]
    assert {"ctx", "input"} <= fault.keys()
    assert fault["msg"] in response.json()["message"]


# What FastAPI says of a body whose models are those of the hosted service: `images: list[ImageFrame]`, `frames: int`
# from 1, `fps: float` from 1 to 120. The words are ours.
LIKE_THERE: list[tuple[dict[str, Any], list[Any], str, dict[str, Any], str]] = [
    ({"images": {"url": "a"}}, ["body", "images"], "list_type", {}, "expected a list, found {'url': 'a'}"),
    ({"images": "a.png"}, ["body", "images"], "list_type", {}, "expected a list, found 'a.png'"),
    ({"images": None}, ["body", "images"], "list_type", {}, "expected a list, found null"),
    (
        {"images": ["a"]},
        ["body", "images", 0],
        "model_attributes_type",
        {},
        'expected an object such as {"url": "a.png"}, found \'a\'',
    ),
    ({"images": [{"frames": 1}]}, ["body", "images", 0, "url"], "missing", {}, "expected a value, found none"),
    ({"images": [{"url": 7}]}, ["body", "images", 0, "url"], "string_type", {}, "expected text, found 7"),
    (
        {"images": [{"url": "a", "frames": "x"}]},
        ["body", "images", 0, "frames"],
        "int_parsing",
        {},
        "expected a whole number, found 'x'",
    ),
    (
        {"images": [{"url": "a", "frames": 1.5}]},
        ["body", "images", 0, "frames"],
        "int_from_float",
        {},
        "expected a whole number, found 1.5",
    ),
    (
        {"images": [{"url": "a", "frames": None}]},
        ["body", "images", 0, "frames"],
        "int_type",
        {},
        "expected a whole number, found null",
    ),
    (
        {"images": [{"url": "a", "frames": True}]},
        ["body", "images", 0, "frames"],
        "int_type",
        {},
        "expected a whole number, found true",
    ),
    (
        {"images": [{"url": "a", "frames": 0}]},
        ["body", "images", 0, "frames"],
        "greater_than_equal",
        {"ge": 1},
        "expected at least 1, found 0",
    ),
    (
        {"images": [still()], "fps": 0},
        ["body", "fps"],
        "greater_than_equal",
        {"ge": 1},
        "expected 1 to 120 frames per second, found 0",
    ),
    (
        {"images": [still()], "fps": "240"},
        ["body", "fps"],
        "less_than_equal",
        {"le": 120},
        "expected 1 to 120 frames per second, found '240'",
    ),
    (
        {"images": [still()], "fps": "fast"},
        ["body", "fps"],
        "float_parsing",
        {},
        'expected a number, a fraction such as "30000/1001", or "auto", found \'fast\'',
    ),
    (
        {"images": [still()], "fps": None},
        ["body", "fps"],
        "float_type",
        {},
        'expected a number, a fraction such as "30000/1001", or "auto", found null',
    ),
    (
        {"images": [still(frames=2**31 - 1)]},
        ["body", "images"],
        "less_than_equal",
        {"le": 1_000_000},
        "expected up to 1000000 frames in all, found 2147483647 (limits.max_frames)",
    ),
    (
        {"images": [still(), *([{"url": "a"}] * 20_000)]},
        ["body", "images"],
        "sequence_too_long",
        {"field_type": "List", "max_length": 10_000, "actual_length": 20_001},
        "expected up to 10000 images, found 20001 (limits.max_images)",
    ),
    (
        {"images": []},
        ["body", "images"],
        "sequence_too_short",
        {"field_type": "List", "min_length": 1, "actual_length": 0},
        "expected at least 1, found 0",
    ),
    (
        {"images": [still()], "resize_mode": "fit"},
        ["body", "resize_mode"],
        "literal_error",
        {"expected": "'pad', 'crop' or 'stretch'"},
        "expected 'pad', 'crop' or 'stretch', found 'fit'",
    ),
    (
        {"images": [{"url": "a", "frames": 1, "duration": 1}]},
        ["body", "images", 0],
        "value_error",
        {"error": "expected frames or duration, found both"},
        "expected frames or duration, found both",
    ),
]


@pytest.mark.parametrize(
    ("body", "loc", "kind", "context", "words"), LIKE_THERE, ids=[f"{n}-{case[2]}" for n, case in enumerate(LIKE_THERE)]
)
def test_types_and_contexts_are_those_of_the_hosted_services_models_and_the_words_are_ours(
    served: Served, body: Any, loc: list[Any], kind: str, context: dict[str, Any], words: str
) -> None:
    response = served.http.post(RUN, json=body)
    assert response.status_code == 422
    [fault] = response.json()["detail"]
    assert (fault["loc"], fault["type"], fault["ctx"], fault["msg"]) == (loc, kind, context, words)
    assert "errors.pydantic.dev" not in response.text


def test_every_fault_of_a_body_is_told_in_its_message(served: Served) -> None:
    response = served.http.post(RUN, json={"images": [{"frames": 0}, "a"], "fps": 1000})
    assert response.json()["message"] == (
        "images[0].url: expected a value, found none; images[0].frames: expected at least 1, found 0; "
        'images[1]: expected an object such as {"url": "a.png"}, found \'a\'; '
        "fps: expected 1 to 120 frames per second, found 1000"
    )
    assert len(response.json()["detail"]) == 4


def test_a_query_of_the_pages_that_is_wrong_is_told_in_our_words(served: Served) -> None:
    response = served.http.get("/api/jobs", params={"limit": "many"})
    assert response.status_code == 422
    assert response.json()["message"] == "query.limit: expected a whole number, found 'many'"
    assert response.json()["detail"][0]["type"] == "int_parsing"


# Images that cannot be had.

BAD = ["data:image/png;base64,AAAA", "data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64,%"]


def test_all_images_that_cannot_be_had_are_entries_of_the_detail(served: Served) -> None:
    body = {"images": [still(), {"url": BAD[0]}, still(), {"url": BAD[1]}]}
    response = served.http.post(RUN, json=body)
    assert response.status_code == 422
    assert [(each["loc"], each["type"], each["input"]) for each in response.json()["detail"]] == [
        (["body", "images", 1, "url"], "unsupported_image_format", BAD[0]),
        (["body", "images", 3, "url"], "image_load_error", BAD[1]),
    ]
    for each in response.json()["detail"]:
        assert f"{each['loc'][2]}].url: {each['msg']}" in response.json()["message"]


def test_images_that_are_no_urls_are_named_together_with_those_that_cannot_be_read(served: Served) -> None:
    urls = [{"url": "ftp://a/b.png"}, {"url": "../b.png"}, {"url": BAD[2]}, {"url": BAD[1]}, {"url": BAD[0]}]
    response = served.http.post(RUN, json={"images": [still(), *urls]})
    assert response.status_code == 422
    assert [each["loc"][2] for each in response.json()["detail"]] == [1, 2, 3, 4, 5]


def test_images_that_are_no_urls_are_refused_before_a_job_is_made_if_they_are_all(served: Served) -> None:
    response = served.http.post(QUEUE, json={"images": [{"url": "ftp://a/b.png"}, {"url": "../b.png"}]})
    assert response.status_code == 422
    assert [each["loc"][2] for each in response.json()["detail"]] == [0, 1]


@pytest.mark.parametrize(("on_error", "frames", "kind"), [("skip", 4, "image_skipped"), ("hold", 9, "image_held")])
def test_bad_images_are_done_without_if_the_request_says_so(
    served: Served, on_error: str, frames: int, kind: str
) -> None:
    images = [{**still(), "frames": 2}, *({"url": url, "frames": 1} for url in BAD), {"url": "../x", "frames": 2}]
    body = {"images": [*images, {**still(), "frames": 2}], "on_error": on_error, "width": 16, "height": 12}
    made = served.http.post(RUN, json=body).json()
    assert made["frames"] == frames
    assert [(each["type"], each["loc"]) for each in made["warnings"]] == [
        (kind, ["images", place, "url"]) for place in (1, 2, 3, 4)
    ]


# What is ignored, as there, and told, as only here.


def test_a_misspelt_field_is_ignored_and_told_with_what_may_be_meant(served: Served) -> None:
    body = {"images": [{"url": still()["url"], "frame": 48}], "FPS": 12, "loop": True}
    made = served.http.post(RUN, json=body).json()
    assert (made["frames"], made["fps"]) == (1, "24/1")
    assert [(each["type"], each["loc"], each["message"]) for each in made["warnings"]] == [
        ("field_ignored", ["FPS"], "no such field, so it was ignored; did you mean fps?"),
        ("field_ignored", ["loop"], "no such field, so it was ignored"),
        ("field_ignored", ["images", 0, "frame"], "no such field, so it was ignored; did you mean frames?"),
    ]


def test_the_log_of_a_job_names_the_fields_that_were_ignored(served: Served) -> None:
    made = served.http.post(RUN, json={"images": [{**still(), "frame": 48}]}).json()
    lines = served.status(made["request_id"], logs=1).json()["logs"]
    assert "images[0].frame: no such field, so it was ignored; did you mean frames?" in [
        line["message"] for line in lines
    ]


def test_many_ignored_fields_are_counted_and_few_are_named(served: Served) -> None:
    images = [{**still(), "x" * 200: n} for n in range(50)]
    warnings = served.http.post(RUN, json={"images": images}).json()["warnings"]
    assert len(warnings) == 21
    assert warnings[19]["loc"] == ["images", 19, "x" * 100]
    assert warnings[20]["message"] == "30 more fields were ignored"


def test_fields_that_are_known_bring_no_warning(served: Served) -> None:
    body = {"images": [still(frames=2)], "fps": 12, "crf": 18, "metadata": {"frame": 1}}
    assert served.http.post(RUN, json=body, headers={"x-fal-queue-priority": "low"}).json()["warnings"] == []


def test_the_result_of_a_request_that_failed_later_is_the_same_fault(served: Served) -> None:
    url = "data:image/png;base64,AAAA"
    request_id = served.submit({"images": [still(), {"url": url}]})["request_id"]
    wait_until(lambda: served.status(request_id).status_code == 200, "done")
    assert served.status(request_id).json()["error_type"] == "unsupported_image_format"
    result = served.result(request_id)
    assert result.status_code == 422
    assert result.json()["detail"][0]["loc"] == ["body", "images", 1, "url"]
    assert result.json()["detail"][0]["input"] == url


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b'{"images": NaN}', b"[" * 100_000, b"null", b""])
def test_a_body_that_is_no_request_is_refused(served: Served, content: bytes) -> None:
    assert served.http.post(RUN, content=content).status_code in {400, 422}


def test_numbers_without_end_are_refused_in_few_words(served: Served) -> None:
    digits = "9" * 100_000
    response = served.http.post(RUN, content=f'{{"images": [{{"url": "a", "frames": {digits}}}], "fps": {digits}}}')
    assert response.status_code in {400, 422}
    assert len(response.content) < 5000


# Once, and as long as somebody waits.


def test_a_repeated_request_is_rendered_once(served: Served, gate: Gate) -> None:
    body = gate.request(request_id="the-same")
    first = served.submit(body)
    assert served.submit(body)["request_id"] == first["request_id"]
    gate.open()
    done = [served.http.post(RUN, json=body).json() for _ in range(2)]
    assert done[0] == done[1]
    assert gate.fetched == 1


@pytest.mark.parametrize("header", ["x-fal-request-id", "idempotency-key"])
def test_an_id_may_come_in_a_header(served: Served, header: str) -> None:
    value = f"once-{header}" + (" and any words" if header == "idempotency-key" else "")
    first, second = (served.submit(request(), headers={header: value})["request_id"] for _ in range(2))
    assert first == second
    conflict = served.http.post(QUEUE, json=request(fps=12), headers={header: value})
    assert conflict.status_code == 422
    assert conflict.json()["detail"][0]["type"] == "request_id_conflict"


def drop(served: Served, body: dict[str, Any], request_id: str) -> None:
    """Ask for a video and hang up once its job runs."""
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(served.daemon.http + RUN, json={**body, "request_id": request_id}, timeout=httpx.Timeout(5, read=1))


def test_a_dropped_connection_stops_its_work_soon(served: Served, gate: Gate) -> None:
    drop(served, gate.request(), "dropped")
    hung_up_at = time.monotonic()
    wait_until(lambda: served.status("dropped").json()["status"] == "COMPLETED", "the job ends")
    assert time.monotonic() - hung_up_at < 30  # the picture would not come for a minute
    assert served.result("dropped").status_code == 499


def test_a_dropped_connection_leaves_a_job_that_was_submitted_as_well(served: Served, gate: Gate) -> None:
    body = gate.request(request_id="kept")
    served.submit(body)
    drop(served, gate.request(), "kept")
    time.sleep(1)
    assert served.status("kept").json()["status"] == "IN_PROGRESS"
    gate.open()
    assert served.http.post(RUN, json=body).status_code == 200


def test_who_asks_again_at_once_finds_the_job_alive(served: Served, gate: Gate) -> None:
    drop(served, gate.request(), "asked-again")
    gate.open()
    assert served.http.post(RUN, json=gate.request(request_id="asked-again")).status_code == 200
    assert gate.fetched == 1


# Turns and limits.


def test_low_priority_waits_for_all_normal_ones(served: Served, busy: str) -> None:
    low = served.submit(request(), headers={"x-fal-queue-priority": "low"})["request_id"]
    normal = served.submit(request(), headers={"x-fal-queue-priority": "normal"})["request_id"]
    assert served.status(low).json()["queue_position"] == 1
    assert served.status(normal).json()["queue_position"] == 0
    for request_id in (low, normal):
        served.cancel(request_id)


def test_a_queue_that_is_longer_than_the_client_wants_is_a_429(served: Served, busy: str) -> None:
    waiting = served.submit(request())["request_id"]
    refused = served.http.post(QUEUE, params={"fal_max_queue_length": 1}, json=request())
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    assert served.http.post(QUEUE, params={"fal_max_queue_length": 9}, json=request()).status_code == 200
    served.cancel(waiting)


def test_a_start_deadline_that_is_over_is_a_504_that_is_not_to_be_repeated(served: Served, busy: str) -> None:
    response = served.http.post(RUN, json=request(), headers={"x-fal-request-timeout": "0.2"})
    assert response.status_code == 504
    assert response.headers["x-fal-request-timeout-type"] == "user"
    assert response.headers["x-fal-error-type"] == "startup_timeout"


def test_the_status_stream_brings_every_log_line_once_and_ends(served: Served, gate: Gate) -> None:
    request_id = served.submit(gate.request())["request_id"]
    served.daemon.wait_for(request_id)
    path = f"/queue/{APP}/requests/{request_id}/status/stream"
    events: list[dict[str, Any]] = []
    with served.http.stream("GET", path, params={"logs": "1"}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: ")))
                gate.open()
    assert [event["status"] for event in events][-1] == "COMPLETED"
    words = [line["message"].split()[0] for event in events for line in event["logs"]]
    assert words == ["accepted:", "images[0].url:", "done"]  # the second warns of a picture that is scaled up


@pytest.mark.parametrize("event_at", range(1, 31))
def test_a_stream_is_never_silent_for_fifteen_seconds_whenever_its_last_event_was(event_at: int) -> None:
    now = 0.0

    async def looks() -> AsyncIterator[str | None]:
        nonlocal now
        for look in range(1, 61):
            now = float(look)
            yield "data: {}" if look == event_at else None

    async def times() -> list[float]:
        return [now async for _ in events(looks(), lambda: now)]

    spoken = [0.0, *asyncio.run(times())]
    assert float(event_at) in spoken
    gaps = [after - before for before, after in itertools.pairwise([*spoken, now])]
    assert max(gaps) < 15


def test_logs_tell_no_path_of_the_server(served: Served) -> None:
    request_id = served.http.post(RUN, json={"images": [{"url": "data:,x"}]}).headers["x-fal-request-id"]
    logs = served.status(request_id, logs="true").json()["logs"]
    assert [line["message"].split(":")[0] for line in logs] == ["accepted", "unsupported_image_format"]
    assert str(served.daemon.data_dir) not in json.dumps(logs)
