"""A daemon that wants a key: the page asks for it once, and then all is as ever."""

from typing import Any

import pytest

from tests.frontends.web.conftest import Caller
from tests.frontends.web.test_page import facts, rendered, three


@pytest.fixture
def page(unjudged: Any, fresh: Caller) -> Any:
    """The page before the key; a refusal is an error in any browser's console, so that is not judged here."""
    unjudged.goto(fresh.http)
    unjudged.wait_for_selector("#key:not([hidden])")
    return unjudged


def test_with_the_key_everything_works_until_the_tab_is_closed(page, fresh):
    give(page, fresh.key)
    page.wait_for_selector("#health-dot[data-state=ready]")
    assert page.locator("#key").is_hidden()
    three(page)
    rendered(page)
    assert facts(page)["Frames"] == "72exactly"
    assert "Authorization: Key $FAL_KEY" in page.locator("#snippet-text").text_content()
    page.reload()
    page.wait_for_selector("#health-dot[data-state=ready]")
    assert page.locator("#key").is_hidden()


def test_a_wrong_key_is_told_as_such_and_asked_for_again(page, fresh):
    assert page.locator("#health").text_content() == "A key is needed"
    assert page.locator("#jobs-note").text_content() == "The daemon needs a key first."
    give(page, "sr_wrong")
    page.locator("#key-note", has_text="does not know this key").wait_for()
    give(page, "sr_schlüssel…")
    page.locator("#key-note", has_text="one word of letters, digits").wait_for()
    give(page, f"Key {fresh.key}")
    page.wait_for_selector("#health-dot[data-state=ready]")


def give(page: Any, key: str) -> None:
    page.locator("#key-field").fill(key)
    page.keyboard.press("Enter")
