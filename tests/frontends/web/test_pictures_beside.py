"""What a video has beside its pictures: chapters by title, a poster and a contact sheet, asked for in the page."""

import io
import urllib.request
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests.frontends.web.test_page import BLUE, NEARLY, RED, rendered, three


def fetched(page: Any, href: str) -> bytes:
    with urllib.request.urlopen(page.evaluate("(href) => new URL(href, location.href).href", href)) as answer:
        return bytes(answer.read())


def links(page: Any) -> dict[str, str]:
    """The links to the pictures beside the video, by what they are called."""
    items = page.locator("#beside a").all()
    return {item.inner_text().splitlines()[0]: item.get_attribute("href") for item in items}


def test_titles_a_poster_and_a_contact_sheet_are_made_and_shown(page, tmp_path: Path) -> None:
    three(page)
    page.get_by_label("Chapter title of red.png").fill('Röte & "mehr"')
    page.get_by_label("Chapter title of blue.png").fill("  Blau ")
    page.get_by_label("Poster: blue.png").click()
    page.get_by_label("Move blue.png earlier").click()
    page.get_by_label("Contact sheet of all stills").check()
    assert page.locator("#poster-note").text_content() == "Poster: still 2, blue.png"
    rendered(page)

    found = links(page)
    assert list(found) == ["Poster", "Contact sheet"]
    poster, sheet = (Image.open(io.BytesIO(fetched(page, href))) for href in found.values())
    assert poster.size == (160, 96)
    assert max(abs(a - b) for a, b in zip(poster.getpixel((80, 48)), BLUE, strict=True)) < NEARLY
    assert sheet.width > 160
    (tmp_path / "out.mp4").write_bytes(fetched(page, page.locator("#download").get_attribute("href")))
    with av.open(str(tmp_path / "out.mp4")) as container:
        titles = [(each["start"] * each["time_base"], each["metadata"]["title"]) for each in container.chapters()]
    assert titles == [(0, 'Röte & "mehr"'), (1, "Blau")]


def test_a_still_is_the_poster_until_it_is_unmarked_or_another_is(page) -> None:
    three(page)
    red, green = (page.get_by_label(f"Poster: {name}.png") for name in ("red", "green"))
    states = lambda: [each.get_attribute("aria-pressed") for each in (red, green)]  # noqa: E731 - asked three times
    red.click()
    assert states() == ["true", "false"]
    green.click()
    assert states() == ["false", "true"]
    green.click()
    assert states() == ["false", "false"]
    red.click()
    page.get_by_label("Remove red.png").click()
    assert "poster" not in str(page.locator("#snippet-text").text_content())
    page.locator("#undo").click()
    assert '"poster": "first"' in str(page.locator("#snippet-text").text_content())


def test_a_video_without_them_shows_none(page) -> None:
    three(page)
    page.get_by_label("Poster: red.png").click()
    rendered(page)
    poster = Image.open(io.BytesIO(fetched(page, links(page)["Poster"])))
    assert max(abs(a - b) for a, b in zip(poster.getpixel((80, 48)), RED, strict=True)) < NEARLY
    page.get_by_label("Poster: red.png").click()
    page.locator("#render").click()
    page.wait_for_selector("#beside", state="hidden")
