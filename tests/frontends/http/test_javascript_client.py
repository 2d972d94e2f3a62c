"""The hosted service's JavaScript client, as it comes from npm, on Node against a daemon."""

from pathlib import Path

import pytest
from PIL import Image

from tests.daemon_process import Gate, request, still, wait_until
from tests.served import RunPython, Served

PROXY = 'fal.config({ proxyUrl: { url: v.host + "/api/fal/proxy", when: "always" } });'


def test_run_returns_a_video(node: RunPython) -> None:
    made = node("print(await fal.run(v.app, { input: v.body }));", body=request(still(frames=5)))
    assert made["data"]["frames"] == 5
    assert made["requestId"]


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_subscribe_tells_of_the_queue_and_logs(node: RunPython, mode: str) -> None:
    script = """
        const seen = [];
        const made = await fal.subscribe(v.app, {
          input: v.body, logs: true, mode: v.mode, pollInterval: 50,
          onQueueUpdate: (update) => seen.push([update.status, (update.logs ?? []).map((line) => line.message)]),
        });
        print([seen, made.data.frames, made.requestId]);
    """
    seen, frames, request_id = node(script, body=request(still((9, 9, len(mode)), frames=5)), mode=mode)
    assert seen[-1][0] == "COMPLETED"
    assert [line.split(" ")[0] for line in seen[-1][1]] == ["accepted:", "images[0].url:", "done"]
    assert frames == 5
    assert request_id


def test_submit_then_status_then_result(node: RunPython) -> None:
    script = """
        const { request_id: requestId } = await fal.queue.submit(v.app, { input: v.body, priority: "low" });
        let status;
        do { status = await fal.queue.status(v.app, { requestId, logs: true }); } while (status.status !== "COMPLETED");
        const made = await fal.queue.result(v.app, { requestId });
        print([status.metrics.inference_time, made.data.video.file_name, made.requestId === requestId]);
    """
    took_s, name, is_same = node(script, body=request())
    assert took_s > 0
    assert name == "video.mp4"
    assert is_same


@pytest.mark.parametrize("where", ["queued", "running"])
def test_a_request_can_be_cancelled(node: RunPython, gate: Gate, served: Served, where: str) -> None:
    script = """
        const { request_id: requestId } = await fal.queue.submit(v.app, { input: v.body });
        const is = async (word) => (await fal.queue.status(v.app, { requestId })).status === word;
        if (v.where === "running") while (!(await is("IN_PROGRESS")));
        await fal.queue.cancel(v.app, { requestId });
        while (!(await is("COMPLETED")));
        try { await fal.queue.result(v.app, { requestId }); }
        catch (error) { print([error.status, error.message, error.body.error_type]); }
    """
    ahead = served.submit(gate.request())["request_id"] if where == "queued" else None
    told = node(script, body=gate.request() if where == "running" else request(), where=where)
    assert told == [499, "Request cancelled by the client.", "client_cancelled"]
    if ahead:
        served.cancel(ahead)


def test_a_client_whose_time_is_over_cancels(node: RunPython, served: Served, gate: Gate) -> None:
    script = """
        let id;
        try { await fal.subscribe(v.app, { input: v.body, timeout: 700, onEnqueue: (given) => { id = given; } }); }
        catch (error) { print([id, error.message]); }
    """
    request_id, words = node(script, body=gate.request())
    assert "timed out" in words
    wait_until(lambda: served.status(request_id).json()["status"] == "COMPLETED", "the job ends")


def test_a_fault_of_a_field_names_it_and_its_message_is_shown(node: RunPython) -> None:
    script = """
        try { await fal.run(v.app, { input: { images: [v.good, { url: "" }] } }); }
        catch (error) { print([error.name, error.status, error.message, error.fieldErrors]); }
    """
    name, status, message, faults = node(script, good=still())
    assert (name, status) == ("ValidationError", 422)
    assert message.startswith("images[1].url: ")
    assert faults[0]["loc"] == ["body", "images", 1, "url"]


def test_an_unknown_id_is_told(node: RunPython) -> None:
    script = """
        const told = [];
        for (const ask of ["status", "result", "cancel"])
          try { await fal.queue[ask](v.app, { requestId: "nobody" }); }
          catch (error) { told.push([error.status, error.message]); }
        print(told);
    """
    assert [status for status, _ in node(script)] == [404, 404, 404]


def test_a_blob_in_the_input_is_uploaded_and_rendered(node: RunPython, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(picture)
    script = """
        const { readFileSync } = require("node:fs");
        const blob = new Blob([readFileSync(v.file)], { type: "image/png" });
        print(await fal.subscribe(v.app, { input: { images: [{ url: blob, frames: 4 }] } }));
    """
    made = node(script, file=str(picture))["data"]
    assert (made["width"], made["height"], made["frames"]) == (64, 48, 4)


@pytest.mark.parametrize("mode", ["polling", "streaming"])
def test_all_of_it_goes_through_the_proxy_route(node: RunPython, tmp_path: Path, mode: str) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (30, 30, 200)).save(picture)
    script = """
        const { readFileSync } = require("node:fs");
        const blob = new Blob([readFileSync(v.file)], { type: "image/png" });
        const input = { images: [{ url: blob, frames: 2 }] };
        const made = await fal.subscribe(v.app, { input, logs: true, mode: v.mode });
        const { request_id: requestId } = await fal.queue.submit(v.app, { input: v.body });
        await fal.queue.cancel(v.app, { requestId }).catch(() => null);
        print([made.data.frames, (await fal.run(v.app, { input: v.body })).data.frames]);
    """
    assert node(script, config=PROXY, file=str(picture), mode=mode, body=request(still(frames=3))) == [2, 3]
