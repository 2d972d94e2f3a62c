"""The page with a real daemon behind it: stills in, a video out, and nothing lost on the way."""

import io
from typing import Any

import pytest
from PIL import Image

from tests.media.sound.made import tone, wav

RED, GREEN, BLUE = (200, 30, 40), (20, 160, 60), (30, 60, 190)
NEARLY = 16  # a browser's canvas manages colours its own way; exact colours are another test's
# Draws the video at given times to a canvas and returns the colour in the middle of each.
COLOURS = """async (video, times) => {
  if (video.readyState < video.HAVE_CURRENT_DATA) await new Promise((done) => { video.onloadeddata = done; });
  const canvas = Object.assign(document.createElement("canvas"), {width: video.videoWidth, height: video.videoHeight});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const colours = [];
  for (const time of times) {
    await new Promise((done) => { video.onseeked = done; video.currentTime = time; });
    context.drawImage(video, 0, 0);
    colours.push([...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data.slice(0, 3)]);
  }
  return colours;
}"""


def file(name: str, colour: tuple[int, int, int], size: tuple[int, int] = (160, 96)) -> dict[str, Any]:
    """A picture as Playwright puts it into a file field."""
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": content.getvalue()}


def add(page: Any, *files: dict[str, Any]) -> None:
    before = page.locator(".still").count()
    page.set_input_files("#files", files)
    page.wait_for_selector(f".still.has-picture >> nth={before + len(files) - 1}")


def three(page: Any) -> None:
    add(page, file("red.png", RED), file("green.png", GREEN), file("blue.png", BLUE))


def names(page: Any) -> list[str]:
    return page.locator(".still .name span:first-child").all_text_contents()


def rendered(page: Any) -> Any:
    page.locator("#render").click()
    page.wait_for_selector("#video-panel:not([hidden])")
    page.locator("#stage-words", has_text="Done").wait_for()
    return page.locator("#video")


def facts(page: Any) -> dict[str, str]:
    return dict(
        zip(page.locator("#facts dt").all_text_contents(), page.locator("#facts dd").all_text_contents(), strict=True)
    )


def test_three_stills_are_reordered_rendered_and_played(page):
    three(page)
    page.get_by_label("Hold of red.png").fill("12")
    page.get_by_label("Hold of green.png", exact=True).fill("6")
    page.get_by_label("Move blue.png earlier").click()
    page.get_by_label("Move blue.png earlier").click()
    assert names(page) == ["blue.png", "red.png", "green.png"]
    assert page.locator("#total-frames").text_content() == "42 frames"
    assert page.locator("#total-seconds").text_content() == "1.75 s"

    video = rendered(page)

    colours = video.evaluate(COLOURS, [(frame + 0.5) / 24 for frame in (0, 23, 24, 35, 36, 41)])
    for found, expected in zip(colours, [BLUE, BLUE, RED, RED, GREEN, GREEN], strict=True):
        assert found == pytest.approx(expected, abs=NEARLY)
    assert video.evaluate("(video) => video.duration") == pytest.approx(42 / 24, abs=1e-3)
    told = facts(page)
    assert (told["Frames"], told["Duration"], told["Size"]) == ("42exactly", "1.75 s", "160 × 96")
    assert told["Encoder"].startswith("libx264")


def test_it_plays_in_the_page(page):
    three(page)
    video = rendered(page)
    video.evaluate("(video) => { video.muted = true; return video.play(); }")
    page.wait_for_timeout(500)
    assert video.evaluate("(video) => video.currentTime") > 0.2


def test_the_download_is_the_video(page, decode_frames, tmp_path):
    three(page)
    rendered(page)
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "saved.mp4")
    assert download.value.suggested_filename.endswith(".mp4")
    assert len(decode_frames(tmp_path / "saved.mp4")) == 72


def test_a_still_is_dragged_to_another_place(page):
    three(page)
    source, target = (page.locator(".still .thumb").nth(at).bounding_box() for at in (0, 2))
    page.mouse.move(source["x"] + 40, source["y"] + 40)
    page.mouse.down()
    for step in range(1, 11):
        share = step / 10
        x, y = (source[side] + (target[side] - source[side]) * share + 40 for side in ("x", "y"))
        page.mouse.move(x, y)
        page.wait_for_timeout(30)
    page.mouse.up()
    assert names(page) == ["green.png", "blue.png", "red.png"]
    assert page.locator(".is-dragged").count() == 0


def test_escape_ends_a_drag_where_it_began(page):
    three(page)
    source, target = (page.locator(".still .thumb").nth(at).bounding_box() for at in (0, 1))
    page.mouse.move(source["x"] + 40, source["y"] + 40)
    page.mouse.down()
    page.mouse.move(target["x"] + 40, target["y"] + 40, steps=5)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert names(page) == ["red.png", "green.png", "blue.png"]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_images_come_in_by_drop_and_paste(page, way):
    page.locator("body").evaluate(
        """async (body, way) => {
          const canvas = new OffscreenCanvas(40, 30);
          canvas.getContext("2d").fillRect(0, 0, 40, 30);
          const transfer = new DataTransfer();
          transfer.items.add(new File([await canvas.convertToBlob()], "in.png", {type: "image/png"}));
          transfer.items.add(new File(["words"], "words.txt", {type: "text/plain"}));
          const options = {bubbles: true, cancelable: true};
          body.dispatchEvent(way === "drop"
            ? new DragEvent("drop", {...options, dataTransfer: transfer})
            : new ClipboardEvent("paste", {...options, clipboardData: transfer}));
        }""",
        way,
    )
    page.wait_for_selector(".still.has-picture")
    assert names(page) == ["in.png"]


def test_the_preview_shows_the_still_of_the_frame_with_its_fit_and_background(page):
    add(page, file("wide.png", RED, (200, 100)), file("tall.png", BLUE, (100, 200)))
    page.locator("#background-text").fill("#14a03c")
    shown = """(canvas) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        return [[4, 50], [100, 50]].map(([x, y]) => [...copy.getImageData(x, y, 1, 1).data.slice(0, 3)]);
    }"""
    screen = page.locator("#screen")
    assert screen.evaluate(shown) == [list(RED), list(RED)]
    page.get_by_label("Next still").click()
    assert screen.evaluate(shown) == [[0x14, 0xA0, 0x3C], list(BLUE)]
    page.get_by_label("Stretch").check()
    assert screen.evaluate(shown) == [list(BLUE), list(BLUE)]


def test_the_preview_plays_to_its_last_frame(page):
    add(page, file("red.png", RED), file("blue.png", BLUE))
    page.locator("#all-amount").fill("6")
    page.get_by_role("button", name="Apply to all stills").click()
    page.get_by_label("Play", exact=True).click()
    page.locator("#frame", has_text="frame 12").wait_for()
    page.get_by_label("Play", exact=True).wait_for()
    assert page.locator("#strip").get_attribute("aria-valuetext") == "frame 12 of 12, still 2, blue.png"


def test_a_damaged_image_is_marked_in_words(page):
    three(page)
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nnothing more"}
    page.set_input_files("#files", [broken])
    page.locator(".still .facts", has_text="no preview here").wait_for()
    page.get_by_label("Move broken.png earlier").click()

    page.locator("#render").click()

    fault = page.locator(".still.is-at-fault .fault")
    fault.wait_for()
    assert "damaged" in fault.text_content()
    assert page.locator(".still.is-at-fault .name span:first-child").text_content() == "broken.png"
    assert page.locator("#render-fault").text_content().startswith("Still 3: ")
    page.get_by_label("Remove broken.png").click()
    rendered(page)
    assert page.locator(".is-at-fault").count() == 0


def test_what_cannot_be_sent_is_said_beside_the_field(page, fresh):
    three(page)
    page.get_by_label("Hold of green.png", exact=True).fill("0")
    page.locator("#render").click()
    assert page.locator(".still .fault:visible").all_text_contents() == ["Enter a whole number of frames, 1 or more."]
    page.get_by_label("Hold of green.png", exact=True).fill("3")
    page.locator("#fps").fill("500")
    page.locator("#render").click()
    assert page.locator("#fps").evaluate("(field) => field === document.activeElement")
    assert page.locator("#fps-fault").is_visible()
    assert fresh.states() == {}


def test_what_the_machine_can_do_is_told(page):
    page.wait_for_selector(".finding")
    told = page.locator(".finding-what").all_text_contents()
    assert any(text.startswith("libx264: works") for text in told)
    assert page.locator("#machine-note").text_content() == "Everything that is needed works."


def test_slots_on_nodes_are_told_by_machine_and_as_they_come_and_go(page):
    nodes = [{"node": "node-10", "slots": 3, "busy": 1}, {"node": "node-9.example", "slots": 1, "busy": 0}]

    def answer(route: Any) -> None:
        told = route.fetch().json()
        slots = [*told["slots"], *({**node, "encoder": "nvenc"} for node in nodes)]
        route.fulfill(json={**told, "slots": slots, "workers": sum(each["slots"] for each in slots)})

    assert page.locator("#cluster").is_hidden()
    page.route("**/api/health", answer)
    page.locator("#health", has_text="Ready, libx264 and nvenc, 5 workers on 3 machines").wait_for()
    rows = page.locator("#slots .finding")
    assert rows.locator(".finding-what").all_text_contents() == ["This machine", "node-9.example", "node-10"]
    assert rows.locator(".finding-found").nth(2).text_content() == "1 of 3 slots busy, nvenc"
    nodes.clear()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # the reader is back
    page.locator("#cluster").wait_for(state="hidden")
    assert page.locator("#health").text_content() == "Ready, libx264, 1 worker"


def test_settings_are_kept_in_the_browser(page):
    page.locator("#fps").fill("29.97")
    page.get_by_label("Crop").check()
    page.reload()
    page.wait_for_selector("#health-dot[data-state=ready]")
    assert page.locator("#fps").input_value() == "29.97"
    assert page.locator("#fps-note").text_content() == "exactly 30000/1001"
    assert page.get_by_label("Crop").is_checked()


def test_nothing_is_loaded_from_elsewhere(browser, shared):
    context = browser.new_context()
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(shared.http)
    page.wait_for_selector(".finding")
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith(shared.http)] == []


def test_the_page_fits_a_phone(open_page):
    page = open_page(viewport={"width": 360, "height": 740})
    three(page)
    long = {"name": f"{'long ' * 20}.wav", "mimeType": "audio/wav", "buffer": wav(tone(1))}
    page.set_input_files("#sound-files", [long])
    page.locator(".sound-item summary").click()
    rendered(page)
    wide = """() => [...document.querySelectorAll("main *")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth + 1 && !element.closest("pre, .tabs"))
        .map((element) => element.className || element.tagName)"""
    assert page.locator("html").evaluate("(html) => html.scrollWidth") == 360
    assert page.locator("html").evaluate(wide) == []


def test_a_size_of_ones_own_begins_with_what_was_there_and_one_side_may_be_left_empty(page):
    three(page)
    page.locator("#size").select_option("custom")
    assert [page.locator(f"#{side}").input_value() for side in ("width", "height")] == ["160", "96"]
    page.locator("#height").fill("")
    page.locator("#width").fill("320")
    assert page.locator("#render-note").text_content() == "320 × 192, from 3 stills"
    rendered(page)
    assert facts(page)["Size"] == "320 × 192"
    page.locator("#width").fill("1")
    assert page.locator("#size-fault").is_visible()
