"""The hosted service's Python client, as it comes from PyPI, against a daemon."""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import pytest
from PIL import Image

from tests.daemon_process import Gate, request, still, wait_until
from tests.served import RunPython, Served


def frames_of(served: Served, url: str) -> int:
    """Fetch a video without a key and count its frames."""
    content = httpx.get(url, verify=served.trust).raise_for_status().content
    with av.open(io.BytesIO(content)) as container:
        return sum(1 for _ in container.decode(video=0))


@contextlib.contextmanager
def opened_by_a_request(gate: Gate) -> Iterator[str]:
    """Lend a url; asking for it opens the gate."""
    asked = Gate()
    asked.open()
    opening = threading.Thread(target=lambda: (wait_until(lambda: asked.fetched, "asked", 30), gate.open()))
    opening.start()
    try:
        yield asked.url
    finally:
        opening.join()
        asked.close()


def test_run_returns_a_video_with_the_frames_asked_for(served: Served, fal: RunPython) -> None:
    made = fal("print(json.dumps(fal_client.run(v['app'], arguments=v['body'])))", body=request(still(frames=5)))
    assert made["video"]["content_type"] == "video/mp4"
    assert frames_of(served, made["video"]["url"]) == 5


def test_run_works_asynchronously(fal: RunPython) -> None:
    script = "print(json.dumps(asyncio.run(fal_client.run_async(v['app'], arguments=v['body']))))"
    assert fal(script, body=request(still(frames=3)))["frames"] == 3


def test_submit_then_status_then_result(fal: RunPython) -> None:
    script = """
        handle = fal_client.submit(v['app'], arguments=v['body'])
        seen = [type(event).__name__ for event in handle.iter_events(with_logs=True)]
        by_id = fal_client.status(v['app'], handle.request_id, with_logs=True)
        result = fal_client.result(v['app'], handle.request_id)
        print(json.dumps([seen, [line['message'] for line in by_id.logs], by_id.metrics, handle.get() == result]))
    """
    seen, logs, metrics, is_same = fal(script, body=request())
    assert seen[-1] == "Completed"
    assert logs[0].startswith("accepted")
    assert logs[-1].startswith("done")
    assert metrics["inference_time"] > 0
    assert is_same


def test_subscribe_tells_of_the_queue_and_logs(fal: RunPython, gate: Gate) -> None:
    script = """
        import urllib.request
        seen, ids = [], []
        def told(event):
            seen.append([type(event).__name__, len(getattr(event, 'logs', None) or [])])
            if len(seen) == 3:
                urllib.request.urlopen(v['go']).read()
        made = fal_client.subscribe(v['app'], arguments=v['body'], with_logs=True,
                                    on_enqueue=ids.append, on_queue_update=told)
        print(json.dumps([seen, ids, made['frames']]))
    """
    with opened_by_a_request(gate) as url:
        seen, ids, frames = fal(script, body=gate.request(), go=url)
    assert len(ids) == 1
    assert {name for name, _ in seen} <= {"Queued", "InProgress", "Completed"}
    assert seen[-1] == ["Completed", 3], "accepted, enlarged more than twice, done"
    assert frames == 4


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_queued_request_can_be_cancelled(busy: str, fal: RunPython, flavour: str) -> None:
    scripts = {
        "sync": """
            handle = fal_client.submit(v['app'], arguments=v['body'])
            assert isinstance(handle.status(), fal_client.Queued)
            handle.cancel()
            while not isinstance(handle.status(), fal_client.Completed): time.sleep(0.05)
            try: handle.get()
            except fal_client.FalClientHTTPError as error: print(json.dumps([error.status_code, error.error_type]))
        """,
        "async": """
            async def main():
                handle = await fal_client.submit_async(v['app'], arguments=v['body'])
                await handle.cancel()
                try: await handle.get()
                except fal_client.FalClientHTTPError as error: print(json.dumps([error.status_code, error.error_type]))
            asyncio.run(main())
        """,
    }
    assert fal(scripts[flavour], body=request()) == [499, "client_cancelled"]


def test_a_running_request_can_be_cancelled(fal: RunPython, gate: Gate) -> None:
    script = """
        handle = fal_client.submit(v['app'], arguments=v['body'])
        while not isinstance(handle.status(), fal_client.InProgress): time.sleep(0.02)
        handle.cancel()
        try: handle.get()
        except fal_client.FalClientHTTPError as error: print(json.dumps([error.status_code, str(error)]))
    """
    status, words = fal(script, body=gate.request())
    assert status == 499
    assert "cancelled by the client" in words


def test_a_client_whose_time_is_over_cancels_and_ends(busy: str, served: Served, fal: RunPython) -> None:
    script = """
        try: fal_client.subscribe(v['app'], arguments=v['body'], client_timeout=1.5)
        except fal_client.FalClientTimeoutError as error: print(json.dumps(error.request_id))
    """
    request_id = fal(script, body=request())
    wait_until(lambda: served.status(request_id).status_code == 200, "the job ends")
    assert served.status(request_id).json()["error_type"] in {"client_cancelled", "startup_timeout"}


def test_a_start_deadline_that_is_over_is_told_and_not_tried_again(busy: str, fal: RunPython) -> None:
    script = """
        began = time.monotonic()
        try: fal_client.run(v['app'], arguments=v['body'], start_timeout=1.2)
        except fal_client.FalClientHTTPError as error:
            kind = error.response_headers.get('x-fal-request-timeout-type')
            print(json.dumps([error.status_code, error.error_type, kind, time.monotonic() - began]))
    """
    status, error_type, kind, took_s = fal(script, body=request())
    assert (status, error_type, kind) == (504, "startup_timeout", "user")
    assert took_s < 10


def test_a_fault_of_a_field_names_it(fal: RunPython) -> None:
    script = """
        try: fal_client.run(v['app'], arguments=v['body'])
        except fal_client.FalClientHTTPError as error:
            print(json.dumps([error.status_code, error.response.json()]))
    """
    status, body = fal(script, body={"images": [still(), {"url": "https://a/b.png", "frames": 0}]})
    assert status == 422
    assert body["detail"][0]["loc"] == ["body", "images", 1, "frames"]
    assert body["detail"][0]["type"] == "greater_than_equal"
    assert body["detail"][0]["ctx"] == {"ge": 1}
    assert body["detail"][0]["input"] == 0


def test_an_unknown_id_is_told(fal: RunPython) -> None:
    script = """
        told = []
        for ask in (fal_client.status, fal_client.result, fal_client.cancel):
            try: ask(v['app'], 'nobody')
            except fal_client.FalClientHTTPError as error: told.append([error.status_code, error.response.json()])
        print(json.dumps(told))
    """
    told = fal(script)
    assert told == [[404, {"status": "NOT_FOUND"}]] * 3  # the client's result() asks for the status first


@pytest.mark.parametrize("repository", ["fal_v3", "fal"])
def test_an_uploaded_file_is_rendered(fal: RunPython, tmp_path: Path, repository: str) -> None:
    picture = tmp_path / "a picture.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture)
    script = """
        import fal_client.client as inside
        inside.REST_URL = inside.CDN_URL = v['host']
        url = fal_client.upload_file(v['file'], repository=v['repository'])
        print(json.dumps([url, fal_client.run(v['app'], arguments={'images': [{'url': url, 'frames': 3}]})]))
    """
    url, made = fal(script, file=str(picture), repository=repository)
    assert "/files/" in url
    assert (made["width"], made["height"], made["frames"]) == (64, 48, 3)
