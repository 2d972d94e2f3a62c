"""A daemon that wants a key: the page asks for it once, and then all is as ever."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon_process import DaemonProcess, Start
from tests.web.conftest import LISTENING
from tests.web.test_page import facts, rendered, three


@pytest.fixture
def key(tmp_path: Path) -> str:
    command = [sys.executable, "-m", "renderer", "keys", "add", "page", "--data-dir", str(tmp_path / "data")]
    (tmp_path / "data").mkdir()
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()[-1]


@pytest.fixture
def locked(start: Start, key: str) -> DaemonProcess:
    return start(*LISTENING)


@pytest.fixture
def page(browser: Any, locked: DaemonProcess) -> Any:
    """The page before the key; a refusal is an error in any browser's console, so that is not judged here."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(locked.http)
    page.wait_for_selector("#key:not([hidden])")
    yield page
    context.close()


def test_with_the_key_everything_works_until_the_tab_is_closed(page, key):
    give(page, key)
    page.wait_for_selector("#health-dot[data-state=ready]")
    assert page.locator("#key").is_hidden()
    three(page)
    rendered(page)
    assert facts(page)["Frames"] == "72exactly"
    assert "Authorization: Key $FAL_KEY" in page.locator("#snippet-text").text_content()
    page.reload()
    page.wait_for_selector("#health-dot[data-state=ready]")
    assert page.locator("#key").is_hidden()


def test_a_wrong_key_is_asked_for_again_in_words(page, key):
    give(page, "sr_wrong")
    page.locator("#key-note", has_text="does not know this key").wait_for()
    give(page, key)
    page.wait_for_selector("#health-dot[data-state=ready]")


def give(page: Any, key: str) -> None:
    page.locator("#key-field").fill(key)
    page.keyboard.press("Enter")
