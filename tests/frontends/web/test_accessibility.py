"""Everybody can use the page: axe-core finds nothing serious, and a keyboard is enough."""

from typing import Any

import pytest

from tests.frontends.web.test_page import BLUE, GREEN, RED, add, facts, file, names, three
from tests.frontends.web.test_sound_in_the_page import add_sounds, sound

SCHEMES, WIDTHS = ("light", "dark"), (1280, 360)


def test_axe_finds_nothing_serious(open_page, npm_packages):
    page = open_page(reduced_motion="reduce")
    # Evaluated by the debugger: the page's own policy would not load it.
    page.evaluate((npm_packages / "axe-core" / "axe.min.js").read_text() + "\n;0")
    found: dict[str, list[str]] = {}

    def look(state: str) -> None:
        for scheme in SCHEMES:
            for width in WIDTHS:
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": 900})
                found[f"{state}, {scheme}, {width}"] = violations(page)

    page.wait_for_selector(".finding")
    look("empty")
    three(page)
    page.set_input_files("#files", [{"name": "words.txt", "mimeType": "text/plain", "buffer": b"words"}])
    page.get_by_label("Duplicate blue.png").click()
    page.get_by_label("Select red.png", exact=True).check()
    page.locator("#place").fill("9")
    page.locator("#place").press("Enter")
    add_sounds(page, sound("music.wav", 2))
    page.locator(".sound-item summary").click()
    page.get_by_label("Poster: green.png").click()
    page.get_by_label("Contact sheet of all stills").check()
    look("with stills, one of them selected, and a sound")
    page.locator(".sound-item").get_by_label("Gain").fill("loud")
    page.get_by_label("Hold of green.png", exact=True).fill("none")
    page.locator("#fps").fill("0")
    look("with faults")
    page.get_by_label("Hold of green.png", exact=True).fill("2")
    page.locator("#fps").fill("24")
    page.locator(".sound-item").get_by_label("Gain").fill("-3")
    page.locator("#render").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    page.wait_for_selector(".job[data-state=done]")
    page.locator(".job [aria-expanded]").first.click()
    page.wait_for_selector(".course li")
    look("done")
    assert {state: faults for state, faults in found.items() if faults} == {}


def test_the_keyboard_is_enough(page):
    press = page.keyboard.press
    with page.expect_file_chooser() as chooser:
        reach(page, "#choose")
        press("Enter")
    chooser.value.set_files([file("red.png", RED), file("green.png", GREEN), file("blue.png", BLUE)])
    page.wait_for_selector(".still.has-picture >> nth=2")

    reach(page, "#strip")
    press("PageUp")
    assert page.locator("#strip").get_attribute("aria-valuetext") == "frame 25 of 72, still 2, green.png"
    press("ArrowLeft")
    assert page.locator("#strip").get_attribute("aria-valuenow") == "24"

    reach(page, ".still:nth-child(1) .thumb")
    press("ArrowRight")
    assert names(page) == ["green.png", "red.png", "blue.png"]
    assert is_focused(page, ".still:nth-child(2) .thumb")
    page.locator("#said", has_text="red.png: now 2 of 3.").wait_for(state="attached")
    press("End")
    assert names(page) == ["green.png", "blue.png", "red.png"]
    press("Delete")
    assert names(page) == ["green.png", "blue.png"]
    assert is_focused(page, ".still:nth-child(2) .thumb")

    reach(page, ".still:nth-child(2) .amount")
    press("Control+A")
    page.keyboard.type("6")
    reach(page, "[name=fit]:checked")
    press("ArrowRight")
    assert page.get_by_label("Crop").is_checked()
    reach(page, "#render")
    press("Enter")
    page.wait_for_selector("#video-panel:not([hidden])")
    assert facts(page)["Frames"] == "30exactly"

    reach(page, "[role=tab][aria-selected=true]")
    press("ArrowRight")
    assert page.locator("[role=tab][aria-selected=true]").text_content() == "Python"
    reach(page, "#copy")


def test_moving_with_the_buttons_keeps_the_focus_on_a_button_that_works(page):
    three(page)
    page.get_by_label("Move green.png earlier").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["green.png", "red.png", "blue.png"]
    assert page.get_by_label("Move green.png later").evaluate("(button) => button === document.activeElement")


def test_a_fault_takes_the_focus_and_is_told(page):
    add(page, file("red.png", RED))
    page.get_by_label("Hold of red.png").fill("")
    page.locator("#render").focus()
    page.keyboard.press("Enter")
    assert is_focused(page, ".still:nth-child(1) .thumb")
    page.locator("#said", has_text="Some fields need attention").wait_for(state="attached")


def violations(page: Any) -> list[str]:
    """What axe-core calls serious or critical, with the elements."""
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for each in found
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"]
    ]


def is_focused(page: Any, selector: str) -> bool:
    return bool(page.locator(selector).evaluate("(element) => element === document.activeElement"))


def reach(page: Any, selector: str) -> None:
    """Press Tab until the focus is there."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if is_focused(page, selector):
            return
    pytest.fail(f"no Tab leads to {selector}")
