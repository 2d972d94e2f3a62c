"""Many stills arranged at once: sorted, chosen, copied, moved, held and removed; and every step undone."""

import shutil
from typing import Any

import pytest

from tests.frontends.web.conftest import MAX_IMAGE_BYTES
from tests.frontends.web.test_page import BLUE, GREEN, RED, add, file, names, rendered, three

DAYS_MS = {"img10.png": 1, "img2.png": 3, "img1.png": 2}


def dated(page: Any) -> None:
    """Add three files that were changed on different days, as a browser has them from a folder."""
    page.locator("body").evaluate(
        """async (body, days) => {
          const picture = await new OffscreenCanvas(40, 30);
          picture.getContext("2d").fillRect(0, 0, 40, 30);
          const content = await picture.convertToBlob();
          const dataTransfer = new DataTransfer();
          for (const [name, day] of Object.entries(days))
            dataTransfer.items.add(new File([content], name, {type: "image/png", lastModified: day * 86400000}));
          body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer}));
        }""",
        DAYS_MS,
    )
    page.wait_for_selector(".still.has-picture >> nth=2")


def select(page: Any, *chosen: str) -> None:
    for name in chosen:
        page.get_by_label(f"Select {name}", exact=True).check()


def test_stills_are_sorted_as_people_count_or_by_date_and_each_step_is_undone(page):
    dated(page)
    page.get_by_role("button", name="Sort by name").click()
    assert names(page) == ["img1.png", "img2.png", "img10.png"]
    page.get_by_role("button", name="Reverse the order").click()
    assert names(page) == ["img10.png", "img2.png", "img1.png"]
    page.get_by_role("button", name="Sort by file date").click()
    assert names(page) == ["img10.png", "img1.png", "img2.png"]
    for before in (["img10.png", "img2.png", "img1.png"], ["img1.png", "img2.png", "img10.png"], list(DAYS_MS)):
        page.keyboard.press("Control+Z")
        assert names(page) == before
    page.keyboard.press("Control+Z")
    page.locator("#said", has_text="There is nothing to undo.").wait_for(state="attached")


def test_what_was_removed_or_cleared_comes_back(page):
    three(page)
    page.get_by_label("Hold of green.png", exact=True).fill("7")
    page.get_by_label("Remove green.png").click()
    assert page.locator("#undo-words").text_content() == "green.png removed."
    page.get_by_label("Hold of red.png").fill("3")
    page.locator("#undo").click()
    assert names(page) == ["red.png", "green.png", "blue.png"]
    assert page.locator("#total-frames").text_content() == "34 frames"
    assert page.locator("#undo-bar").is_hidden()
    page.get_by_role("button", name="Clear all stills").click()
    assert names(page) == []
    page.locator("#undo").click()
    assert names(page) == ["red.png", "green.png", "blue.png"]
    assert page.locator(".still.has-picture").count() == 3
    assert page.locator(".still:nth-child(1) .thumb").evaluate("(thumb) => thumb === document.activeElement")


def test_many_stills_are_chosen_and_moved_copied_held_and_removed_together(page):
    add(page, *(file(f"{n}.png", RED) for n in "abcde"))
    page.get_by_label("Select b.png").check()
    page.get_by_label("Select d.png").click(modifiers=["Shift"])
    assert page.locator("#selected-count").text_content() == "3 selected"
    page.locator("#place").fill("3")
    page.keyboard.press("Enter")
    assert names(page) == ["a.png", "e.png", "b.png", "c.png", "d.png"]
    page.locator("#place").fill("9")
    page.keyboard.press("Enter")
    assert page.locator("#place-fault").text_content() == "Enter a place from 1 to 5."

    page.locator(".still:nth-child(4) .thumb").focus()
    page.keyboard.press("ArrowLeft")
    assert names(page) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    page.locator("#all-amount").fill("2")
    page.get_by_role("button", name="Apply to the selected stills").click()
    assert page.locator("#total-frames").text_content() == "54 frames"
    page.locator("#duplicate").click()
    assert names(page) == [f"{n}.png" for n in "abcdbcde"]
    page.locator("#remove-selected").click()
    assert names(page) == [f"{n}.png" for n in "abcde"]
    assert page.locator("#chosen-acts").is_hidden()
    for _ in range(3):
        page.keyboard.press("Control+Z")
    assert page.locator("#total-frames").text_content() == "120 frames"


def test_a_drag_takes_all_that_are_chosen(page):
    add(page, *(file(f"{n}.png", RED) for n in "abcd"))
    select(page, "a.png", "c.png")
    source, target = (page.locator(".still .thumb").nth(at).bounding_box() for at in (0, 3))
    page.mouse.move(source["x"] + 60, source["y"] + 60)
    page.mouse.down()
    page.mouse.move(target["x"] + 60, target["y"] + 60, steps=5)
    page.mouse.up()
    assert names(page) == ["b.png", "d.png", "a.png", "c.png"]


def test_copies_are_sent_once_and_rendered_twice(page):
    add(page, file("red.png", RED))
    page.get_by_label("Duplicate red.png").click()
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.url) if "files/upload" in asked.url else None)
    rendered(page)
    assert page.locator("#facts dd").first.text_content() == "48exactly"
    assert len(sent) == 1
    page.locator(".job [aria-expanded]").first.click()
    page.locator(".details pre", has_text='"url":"red.png"').first.wait_for()
    assert page.locator(".details pre").first.text_content().count("red.png") == 2


def test_stills_that_the_daemon_keeps_no_longer_are_sent_again(unjudged, shared):
    unjudged.goto(shared.http)  # the refusal that makes the page send them again is an error in any console
    three(unjudged)
    rendered(unjudged)
    for upload in (shared.data_dir / "uploads").iterdir():
        shutil.rmtree(upload)
    unjudged.get_by_label("Move blue.png earlier").click()
    rendered(unjudged)
    assert unjudged.locator("#render-fault").is_hidden()
    assert unjudged.locator("#facts dd").first.text_content() == "72exactly"


def test_all_are_chosen_and_let_go_of_by_keys(page):
    three(page)
    page.locator(".still:nth-child(2) .thumb").focus()
    page.keyboard.press("Control+A")
    assert page.locator(".still.is-selected").count() == 3
    page.keyboard.press("Escape")
    assert page.locator(".still.is-selected").count() == 0
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert names(page) == []


def test_files_that_are_refused_are_told_when_they_are_added(page, fresh):
    files = [
        file("red.png", RED),
        {"name": "words.txt", "mimeType": "text/plain", "buffer": b"words"},
        {"name": "empty.png", "mimeType": "image/png", "buffer": b""},
        {"name": "large.tif", "mimeType": "image/tiff", "buffer": bytes(MAX_IMAGE_BYTES + 1)},
        {"name": "drawing.svg", "mimeType": "image/svg+xml", "buffer": b"<svg xmlns='http://www.w3.org/2000/svg'/>"},
        {"name": "paper", "mimeType": "", "buffer": b"%PDF-1.7"},
    ]
    page.set_input_files("#files", files)
    page.locator("#left-out-title", has_text="5 files left out").wait_for()
    told = dict(text.split(": ", 1) for text in page.locator("#left-out-files li").all_text_contents())
    assert told["words.txt"] == "Not a picture (text/plain)."
    assert told["empty.png"] == "An empty file."
    assert told["large.tif"] == "100 kB, and this daemon takes up to 100 kB."
    assert told["drawing.svg"].endswith("found an SVG drawing.")
    assert told["paper"].endswith("found a PDF document.")
    assert names(page) == ["red.png"]
    page.get_by_role("button", name="Close").first.click()
    assert page.locator("#left-out").is_hidden()


def test_the_first_stills_are_in_sight_below_the_preview(page):
    three(page)
    box = page.locator(".still").first.bounding_box()
    assert page.viewport_size["height"] == 900
    assert box["y"] + box["height"] <= 900


def test_the_arrows_point_where_a_still_goes(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    three(page)
    first, second = (page.locator(".still").nth(at).bounding_box() for at in (0, 1))
    turn = "(icon) => getComputedStyle(icon).rotate"
    assert second["y"] > first["y"] + first["height"] - 1
    assert page.locator(".icon-later").first.evaluate(turn) == "90deg"
    page.set_viewport_size({"width": 1280, "height": 900})
    first, second = (page.locator(".still").nth(at).bounding_box() for at in (0, 1))
    assert second["x"] > first["x"]
    assert page.locator(".icon-later").first.evaluate(turn) == "none"


def test_done_goes_when_the_reel_changes_and_comes_back_when_it_is_as_it_was(page):
    add(page, file("red.png", RED), file("green.png", GREEN), file("blue.png", BLUE, (32, 32)))
    rendered(page)
    assert page.locator("#stale").is_hidden()
    page.get_by_label("Remove blue.png").click()
    assert page.locator("#progress").is_hidden()
    assert page.locator("#stale").is_visible()
    page.keyboard.press("Control+Z")
    page.locator("#stage-words", has_text="Done").wait_for()
    assert page.locator("#stale").is_hidden()
    page.get_by_label("Crop").check()
    assert page.locator("#progress").is_hidden()
    page.reload()
    page.wait_for_selector("#video-panel:not([hidden])")
    page.locator("#stale").wait_for()


def test_minutes_are_minutes(page):
    add(page, file("red.png", RED))
    page.get_by_label("Unit of red.png's hold").select_option("seconds")
    page.get_by_label("Hold of red.png").fill("1:30.5")
    assert page.locator("#total-seconds").text_content() == "1:30.5"
    page.get_by_label("Unit of red.png's hold").select_option("frames")
    assert page.get_by_label("Hold of red.png").input_value() == "2172"


def test_only_encoders_that_are_here_are_offered(page, shared):
    here = page.evaluate("async () => (await (await fetch('api/about')).json()).encoders")
    page.wait_for_function("(count) => document.querySelectorAll('#encoder option').length === count", arg=len(here))
    assert page.locator("#encoder option").all_text_contents() == here
    assert ("nvenc" in here) == page.locator("#health").text_content().startswith("Ready, nvenc")


@pytest.mark.parametrize("amount", ["0:00", "1:60"])
def test_a_hold_that_is_no_time_says_what_one_looks_like(page, amount):
    add(page, file("red.png", RED))
    page.get_by_label("Unit of red.png's hold").select_option("seconds")
    page.get_by_label("Hold of red.png").fill(amount)
    assert "such as 1:30" in page.locator(".still .fault").text_content()
