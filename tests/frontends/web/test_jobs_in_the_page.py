"""Jobs in the page: cancelled, found again after a reload, other clients' beside one's own."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from tests.daemon_process import Gate, Start, request, still, wait_until
from tests.frontends.web.conftest import LISTENING, Caller
from tests.frontends.web.test_page import facts, three
from tests.objects.stores import KEY, SECRET, Moto

UNDER_WAY = re.compile("Rendering")


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.close()


@pytest.fixture
def halted(fresh: Caller) -> Iterator[list[psutil.Process]]:
    """The workers, which stand still: what they are given is under way until somebody ends it."""
    wait_until(fresh.daemon.workers, "there are workers")
    workers = fresh.daemon.workers()
    for worker in workers:
        worker.suspend()
    yield workers
    for worker in workers:
        if worker.is_running():
            worker.resume()


def test_a_job_is_cancelled(page, fresh, halted):
    three(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    page.locator("#cancel").click()
    page.locator("#stage-words", has_text="Cancelled").wait_for()
    assert list(fresh.states().values()) == ["cancelled"]
    assert page.locator("#render").is_enabled()


def test_another_clients_job_is_cancelled_from_the_list(page, fresh, gate: Gate):
    other = fresh.submit(gate.request())
    page.locator(".job[data-state=running]").wait_for()
    page.get_by_label(f"Cancel {other}").click()
    page.locator(".job[data-state=cancelled]").wait_for()
    assert fresh.states() == {other: "cancelled"}


def test_a_page_that_is_loaded_again_in_mid_render_finds_its_job_and_its_stills(page, fresh, halted):
    three(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    [before] = fresh.states()

    page.reload()

    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    page.wait_for_selector(".still.has-picture >> nth=2")
    page.locator("#cancel").click()
    page.locator("#stage-words", has_text="Cancelled").wait_for()
    assert fresh.states() == {before: "cancelled"}


def test_a_page_that_is_loaded_again_while_its_job_waits_shows_the_video_in_the_end(page, fresh, gate: Gate):
    fresh.submit(gate.request())
    three(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text="Waiting").wait_for()

    page.reload()
    page.locator("#stage-words", has_text="Waiting").wait_for()
    gate.open()

    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "72exactly"
    assert list(fresh.states().values()) == ["done", "done"]


def test_jobs_of_other_clients_appear_by_themselves_and_their_videos_can_be_seen(page, fresh, gate: Gate):
    assert page.locator("#no-jobs").is_visible()
    done = fresh.submit(gate.request())
    page.locator(".job[data-state=running]").wait_for()
    gate.open()
    page.locator(".job[data-state=done]").wait_for()
    page.get_by_label(f"Show the video of {done}").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "4exactly"


@pytest.mark.parametrize("presign_s", [0, 600])
def test_a_video_that_is_an_object_is_named_and_not_played(start: Start, unjudged, moto, monkeypatch, presign_s: int):
    for name, value in {
        "AWS_ENDPOINT_URL": moto.url,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = moto.bucket()
    daemon = start(*LISTENING, OUTPUTS__ALLOW_OBJECTS=bucket.url, OUTPUTS__PRESIGN_S=presign_s)
    other = Caller(daemon)
    job = other.submit({**request(), "output": {"url": f"{bucket.url}/a.mp4"}})
    wait_until(lambda: other.states()[job] == "done", "it is done", 90)
    unjudged.goto(daemon.http)
    unjudged.get_by_label(f"Show the video of {job}").click()
    unjudged.wait_for_selector("#video-panel:not([hidden])")
    place = f"{moto.url}/{bucket.name}/a.mp4" if presign_s else f"{bucket.url}/a.mp4"
    assert facts(unjudged)["Object"] == place
    assert unjudged.locator("#video").is_hidden()
    assert unjudged.locator("#download").is_visible() is bool(presign_s)
    if presign_s:
        assert httpx.get(unjudged.locator("#download").get_attribute("href")).content == bucket.get("a.mp4")


def test_a_daemon_that_is_gone_is_told_in_words_and_its_job_is_found_again(start: Start, unjudged):
    daemon = start(*LISTENING)
    unjudged.goto(daemon.http)
    unjudged.wait_for_selector("#health-dot[data-state=ready]")
    three(unjudged)
    other = Caller(daemon)
    first = other.submit(request())
    wait_until(lambda: other.states()[first] == "done", "the first worker has tried held pictures", 60)
    for worker in daemon.workers():
        worker.suspend()
    unjudged.locator("#render").click()
    unjudged.locator("#stage-words", has_text=UNDER_WAY).wait_for()

    daemon.close()

    unjudged.locator("#lost", has_text="The daemon does not answer").wait_for()
    unjudged.locator("#stage-words", has_text="the page will look for the job again").wait_for()
    unjudged.locator("#jobs-note", has_text="does not answer").wait_for()
    assert unjudged.locator("#health").text_content() == "No answer"
    start("--http", daemon.http.removeprefix("http://").rstrip("/"), "--workers", "1")
    unjudged.wait_for_selector("#video-panel:not([hidden])")
    assert facts(unjudged)["Frames"] == "72exactly"
    assert unjudged.locator("#lost").is_hidden()


def test_an_answer_that_is_lost_does_not_make_a_second_job(shared, unjudged):
    lost: list[str] = []
    sent: list[dict[str, Any]] = []

    def lose_first(route: Any) -> None:
        sent.append(route.request.post_data_json)
        route.fetch()
        lost.append(route.request.url)
        route.abort() if len(lost) == 1 else route.continue_()

    unjudged.route("**/queue/fal-ai/ffmpeg-api/images-to-video", lose_first)
    unjudged.goto(shared.http)
    unjudged.wait_for_selector("#health-dot[data-state=ready]")
    before = Caller(shared).states()
    three(unjudged)
    unjudged.locator("#render").click()
    unjudged.wait_for_selector("#video-panel:not([hidden])")
    assert lost
    made = {name: state for name, state in Caller(shared).states().items() if name not in before}
    assert made == {sent[0]["request_id"]: "done"}


def test_a_video_that_comes_with_its_answer_plays_too(page, fresh):
    sent = fresh.submit(request(still(frames=9), sync_mode=True))
    page.get_by_label(f"Show the video of {sent}").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "9exactly"
    wait_until(lambda: page.locator("#video").evaluate("(video) => video.videoWidth") == 64, "the video is loaded")


def test_only_the_newest_jobs_are_shown_until_all_are_asked_for(page, fresh):
    for _ in range(10):
        fresh.submit(request())
    page.locator("#all-jobs", has_text="Show 2 more").click()
    wait_until(lambda: page.locator(".job:visible").count() == 10, "all jobs are shown")
    assert page.locator("#all-jobs").is_hidden()


def test_a_row_opens_what_was_asked_for_how_it_went_and_what_to_know_of_the_video(page, fresh):
    made = fresh.submit(request(still(frames=9), width=640, height=480, crf=31))
    page.locator(".job[data-state=done]").wait_for()
    page.get_by_label(f"Details of {made}").click()
    opened = page.locator(".job .details")
    opened.locator(".course li", has_text="done in").wait_for()
    assert opened.locator(".course li").first.text_content().endswith("accepted: 1 image, 9 frames")
    assert '"frames":9' in opened.locator("pre").text_content()
    assert '"crf": 31' in opened.locator("pre").text_content()
    [warning] = opened.locator(".warnings li").all_text_contents()
    assert "is scaled up more than twice" in warning
    page.get_by_label(f"Show the video of {made}").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    assert page.locator("#warnings li").all_text_contents() == [warning]
    page.get_by_label(f"Details of {made}").click()
    assert opened.is_hidden()


def test_warnings_name_their_stills_and_fields_and_say_once_what_is_so_of_several(page, fresh):
    images = [still(), {"url": "a.png"}, {"url": "b.png"}, still(), {"url": "c.png"}, {**still(), "frame": 9}]
    fields = {f"field{number}": 1 for number in range(17)}
    made = fresh.submit(request(*images, on_error="skip", crff=1, **fields))
    page.locator(".job[data-state=done]").wait_for()
    page.get_by_label(f"Show the video of {made}").click()
    page.wait_for_selector("#warnings li")
    found = page.locator("#warnings li").all_text_contents()
    assert '"crff": no such field, so it was ignored; did you mean crf?' in found
    assert 'Still 6, "frame": no such field, so it was ignored; did you mean frames?' in found
    assert "Each of stills 2, 3 and 5: this image is left out, with its time: " in " ".join(found)
    is_scrolled = "(list) => list.scrollHeight > list.clientHeight && list.clientHeight < innerHeight / 2"
    assert page.locator("#warnings").evaluate(is_scrolled)
    assert page.locator("#warnings").get_attribute("tabindex") == "0"


def test_a_failed_jobs_row_says_of_which_stills_its_words_are(page, fresh):
    fresh.submit(request(still(), *({"url": f"{number}.png"} for number in range(30)), {"url": "cid:9"}))
    page.locator(".job[data-state=failed]").wait_for()
    words = page.locator(".job > .fault").text_content()
    assert words.startswith("Each of stills 2 to 21: not under a directory that may be read")
    assert words.endswith(" Others were not looked at.")


def test_details_follow_a_job_that_moves_on(page, fresh, gate: Gate):
    made = fresh.submit(gate.request())
    page.get_by_label(f"Details of {made}").click()
    page.locator(".course li", has_text="accepted").wait_for()
    gate.open()
    page.locator(".course li", has_text="done in").wait_for()
