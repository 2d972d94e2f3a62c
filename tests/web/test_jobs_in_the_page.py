"""Jobs in the page: cancelled, found again after a reload, other clients' beside one's own."""

import io
import re
from typing import Any

from PIL import Image

from tests.daemon_process import Gate, request, still, wait_until
from tests.web.conftest import states, submit
from tests.web.test_page import add, facts, three

UNDER_WAY = re.compile("Rendering|Encoding")


def slow(page: Any) -> None:
    """Make what is rendered take so long that something can happen meanwhile."""
    noise = Image.effect_noise((1600, 1200), 90)
    content = io.BytesIO()
    noise.save(content, "PNG")
    add(page, *({"name": f"{n}.png", "mimeType": "image/png", "buffer": content.getvalue()} for n in range(8)))
    page.locator("#size").select_option("3840x2160")
    page.locator("#preset").select_option("veryslow")


def test_a_job_is_cancelled(page, fresh):
    slow(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    page.locator("#cancel").click()
    page.locator("#stage-words", has_text="Cancelled").wait_for()
    assert list(states(fresh).values()) == ["cancelled"]
    assert page.locator("#render").is_enabled()


def test_another_clients_job_is_cancelled_from_the_list(page, fresh, gate: Gate):
    other = submit(fresh, gate.request())
    page.locator(".job[data-state=running]").wait_for()
    page.get_by_label(f"Cancel {other}").click()
    page.locator(".job[data-state=cancelled]").wait_for()
    assert states(fresh) == {other: "cancelled"}


def test_a_page_that_is_loaded_again_in_mid_render_finds_its_job_and_its_stills(page, fresh):
    slow(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    [before] = states(fresh)

    page.reload()

    page.locator("#stage-words", has_text=UNDER_WAY).wait_for()
    page.wait_for_selector(".still.has-picture >> nth=7")
    page.locator("#cancel").click()
    page.locator("#stage-words", has_text="Cancelled").wait_for()
    assert states(fresh) == {before: "cancelled"}


def test_a_page_that_is_loaded_again_while_its_job_waits_shows_the_video_in_the_end(page, fresh, gate: Gate):
    submit(fresh, gate.request())
    three(page)
    page.locator("#render").click()
    page.locator("#stage-words", has_text="Waiting").wait_for()

    page.reload()
    page.locator("#stage-words", has_text="Waiting").wait_for()
    gate.open()

    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "72exactly"
    assert list(states(fresh).values()) == ["done", "done"]


def test_jobs_of_other_clients_appear_by_themselves_and_their_videos_can_be_seen(page, fresh, gate: Gate):
    assert page.locator("#no-jobs").is_visible()
    done = submit(fresh, gate.request())
    page.locator(".job[data-state=running]").wait_for()
    gate.open()
    page.locator(".job[data-state=done]").wait_for()
    page.get_by_label(f"Show the video of {done}").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "4exactly"


def test_the_list_comes_back_when_the_daemon_does(fresh, start, browser):
    context = browser.new_context()  # losing the daemon is an error in any console, so this one is not judged
    lost = context.new_page()
    lost.goto(fresh.http)
    lost.wait_for_selector("#health-dot[data-state=ready]")
    fresh.stop()
    lost.locator("#jobs-note", has_text="does not answer").wait_for()
    start("--http", fresh.http.removeprefix("http://").rstrip("/"), "--workers", "1")
    wait_until(lambda: lost.locator("#health").text_content().startswith("Ready"), "the page is back")
    context.close()


def test_an_answer_that_is_lost_does_not_make_a_second_job(fresh, browser):
    context = browser.new_context()  # a lost answer is an error in any console, so this one is not judged
    page = context.new_page()
    lost: list[str] = []

    def lose_first(route: Any) -> None:
        route.fetch()
        lost.append(route.request.url)
        route.abort() if len(lost) == 1 else route.continue_()

    page.route("**/queue/fal-ai/ffmpeg-api/images-to-video", lose_first)
    page.goto(fresh.http)
    page.wait_for_selector("#health-dot[data-state=ready]")
    three(page)
    page.locator("#render").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    context.close()
    assert lost
    assert list(states(fresh).values()) == ["done"]


def test_a_video_that_comes_with_its_answer_plays_too(page, fresh):
    sent = submit(fresh, request(still(frames=9), sync_mode=True))
    page.get_by_label(f"Show the video of {sent}").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "9exactly"
    wait_until(lambda: page.locator("#video").evaluate("(video) => video.videoWidth") == 64, "the video is loaded")


def test_only_the_newest_jobs_are_shown_until_all_are_asked_for(page, fresh):
    for _ in range(10):
        submit(fresh, request())
    page.locator("#all-jobs", has_text="Show 2 more").click()
    wait_until(lambda: page.locator(".job:visible").count() == 10, "all jobs are shown")
    assert page.locator("#all-jobs").is_hidden()
