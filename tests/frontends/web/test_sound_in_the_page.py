"""The page's sounds: what is set in a lane is what is heard in the video, and in the preview before that."""

from typing import Any

import pytest

from tests.frontends.web.test_page import BLUE, RED, add, facts, file, names, rendered, three
from tests.media.sound.made import coded, heard, level, tone, wav

# Notes when each sound of the preview begins by the clock of the sound, from where in its file, and for how long.
NOTED = """(() => {
  window.played = [];
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (when, offset, duration) {
    window.played.push([when, offset, duration]);
    return start.call(this, when, offset, duration);
  };
})()"""

# Whether a lane has ink between its middle and its edge: shortly before a fifth, after that, and at the end.
INKED = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, Math.round(canvas.height * 0.4), canvas.width, 1).data;
  return [0.19, 0.21, 0.99].map((share) => pixels[4 * Math.round(share * canvas.width) + 3] > 200);
}"""


def sound(name: str, seconds: float) -> dict[str, Any]:
    return {"name": name, "mimeType": "audio/wav", "buffer": wav(tone(seconds))}


def add_sounds(page: Any, *files: dict[str, Any]) -> None:
    """Put sounds into the page and wait until it knows how long they are."""
    before = page.locator(".sound-item").count()
    page.set_input_files("#sound-files", files)
    for at in range(before, before + len(files)):
        page.locator(".sound-item summary .soft").nth(at).filter(has_text=" s;").wait_for()


def fields(page: Any, at: int = 0, **values: str) -> Any:
    """Fill fields of a sound by their labels."""
    lane = page.locator(".sound-item").nth(at)
    if not lane.locator("details").evaluate("(details) => details.open"):
        lane.locator("summary").click()
    for label, text in values.items():
        lane.get_by_label(label.replace("_", " ")).fill(text)
    return lane


def code(page: Any) -> str:
    return "".join(page.locator("#snippet-text").text_content().split())


def note(page: Any) -> str:
    return str(page.locator("#length-note").text_content())


def test_a_sound_is_placed_trimmed_and_heard_in_the_video(page, tmp_path):
    three(page)
    add_sounds(page, sound("tone.wav", 4))
    assert note(page) == "The last still ends at 3 s; the sound, which would go on until 4 s, is cut there."
    fields(page, Begins_at="1", Skip_the_first="0.5", Play_for="1.5", Fade_in="0.1", Gain="−6")
    assert note(page) == "The sound ends at 2.5 s; silence follows until the last still ends, at 3 s."
    assert '"at":1,"start":0.5,"duration":1.5,"fade_in":0.1,"gain_db":-6}' in code(page)

    rendered(page)

    assert facts(page)["Sound"] == "AAC, monosound 2.5 s, stills 3 s"
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "saved.mp4")
    samples = heard(tmp_path / "saved.mp4")
    assert samples.shape[1] == 3 * 48000
    assert [level(samples, begin, end) > 0.1 for begin, end in ((0, 0.9), (1.2, 2.4), (2.6, 3))] == [False, True, False]


def test_stills_are_fitted_to_the_sound_and_get_their_holds_back(page):
    three(page)
    add_sounds(page, sound("tone.wav", 5))
    page.locator("#length").select_option("audio")
    assert page.locator("#total-frames").text_content() == "120 frames"
    assert note(page).startswith("3 stills share the sound's 5 s, about 1.7 s each.")
    assert page.get_by_label("Hold of red.png").get_attribute("placeholder") == "40"
    page.get_by_label("Hold of red.png").fill("20")
    assert page.locator(".segment span").all_text_contents() == ["20", "50", "50"]
    assert '"frames":20},{"url":"$(upload' in code(page)
    assert code(page).count('"frames":') == 1
    assert '"length":"audio"' in code(page)

    rendered(page)
    assert facts(page)["Frames"] == "120exactly"

    page.locator("#length").select_option("longest")
    assert page.locator(".segment span").all_text_contents() == ["20", "24", "76"]
    assert note(page) == "The last still is held 2.2 s longer, until the sound ends at 5 s."
    page.locator("#undo").click()
    assert page.locator(".segment span").all_text_contents() == ["20", "50", "50"]
    page.get_by_label("Remove tone.wav").click()
    assert page.locator("#total-frames").text_content() == "68 frames"
    assert '"length"' not in code(page)
    page.locator("#undo").click()
    assert page.locator(".segment span").all_text_contents() == ["20", "50", "50"]
    assert page.locator("#length").input_value() == "audio"


def test_undo_brings_a_sound_back_and_keeps_what_was_added_since(page):
    add(page, file("early.png", BLUE))
    add_sounds(page, sound("first.wav", 1))
    page.get_by_label("Remove first.wav").click()
    add_sounds(page, sound("second.wav", 1))
    add(page, file("late.png", RED))
    page.locator("#undo").click()
    assert page.locator(".sound-name").all_text_contents() == ["first.wav", "second.wav"]
    assert names(page) == ["early.png", "late.png"]


def test_a_sound_is_moved_and_trimmed_by_its_lane(page):
    three(page)
    add_sounds(page, sound("tone.wav", 2))
    wide = page.locator(".wave").bounding_box()["width"]

    def drag(from_s: float, to_s: float) -> str:
        box = page.locator(".wave").bounding_box()
        page.mouse.move(box["x"] + from_s * wide / 3, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + to_s * wide / 3, box["y"] + 20, steps=3)
        page.mouse.up()
        return str(page.locator(".sound-item summary .soft").text_content())

    assert drag(1, 1.5) == "2 s; begins at 0.5 s"
    assert drag(0.505, 0.9) == "2 s; begins at 0.9 s, without its first 0.4 s"
    assert drag(2.495, 2.2) == "2 s; begins at 0.9 s, without its first 0.4 s, for 1.3 s"
    assert drag(1.5, 0.1) == "2 s; without its first 0.4 s, for 1.3 s"
    page.locator("#undo-words", has_text="tone.wav moved.").wait_for()
    page.locator("#undo").click()
    page.locator("#undo").wait_for(state="hidden")
    page.keyboard.press("Control+z")
    assert page.locator(".sound-item summary .soft").text_content() == "2 s; begins at 0.9 s, without its first 0.4 s"


def test_a_sound_that_this_browser_cannot_decode_is_taken_and_its_length_left_open(page, tmp_path):
    add(page, file("red.png", RED))
    lossless = coded(tone(2), tmp_path / "lossless.m4a", "-c:a", "alac").read_bytes()
    page.set_input_files("#sound-files", [{"name": "lossless.m4a", "mimeType": "audio/mp4", "buffer": lossless}])
    page.locator(".sound-item .note", has_text="This browser cannot decode this sound").wait_for()
    page.locator("#length").select_option("audio")
    assert page.locator("#total-frames").text_content() == "As long as the sound"
    assert page.locator("#render").text_content() == "Render"
    assert page.locator("#render").is_enabled()
    assert code(page).count("frames") == 0


def test_what_is_no_sound_is_left_out_and_what_is_damaged_is_marked(page):
    add(page, file("red.png", RED))
    words = {"name": "words.mp3", "mimeType": "audio/mpeg", "buffer": b"words and no sound"}
    empty = {"name": "none.wav", "mimeType": "audio/wav", "buffer": wav(tone(0))}
    page.set_input_files("#sound-files", [words, empty])
    page.locator("#left-out-files", has_text="words.mp3: Expected a sound that is read here").wait_for()
    page.locator(".sound-item .note", has_text="This browser cannot decode").wait_for()
    assert page.locator(".sound-name").all_text_contents() == ["none.wav"]

    page.locator("#render").click()

    page.locator(".sound-item > .fault", has_text="Expected a sound, found one without samples.").wait_for()
    assert page.locator("#render-fault").text_content().startswith("Sound 1: ")


def test_the_space_key_opens_the_fields_and_one_that_cannot_be_sent_takes_the_focus(page):
    three(page)
    add_sounds(page, sound("tone.wav", 1))
    page.locator(".sound-item summary").press("Space")
    assert page.get_by_label("Play", exact=True).is_visible()
    lane = page.locator(".sound-item")
    lane.get_by_label("Skip the first").fill("2")
    lane.get_by_label("Gain").fill("loud")
    assert lane.locator(".field .fault:visible").all_text_contents() == [
        "Enter less than 1 s, where the file ends.",
        "Enter decibels from -100 to 60.",
    ]
    page.locator("#render").click()
    assert lane.get_by_label("Skip the first").evaluate("(field) => field === document.activeElement")
    fields(page, Skip_the_first="", Gain="")
    page.locator("#length").select_option("longest")
    lane.get_by_label("Repeat").check()
    page.locator("#render").click()
    assert page.locator("#length-fault").is_visible()
    assert page.locator("#length").evaluate("(field) => field === document.activeElement")


def test_the_preview_shows_and_plays_the_sounds_in_time(page):
    add(page, file("red.png", RED), file("blue.png", BLUE))
    page.locator("#all-amount").fill("6")
    page.get_by_role("button", name="Apply to all stills").click()
    page.evaluate(NOTED)
    add_sounds(page, sound("first.wav", 1), sound("late.wav", 1))
    fields(page, 1, Begins_at="0.1", Skip_the_first="0.2")
    assert page.locator(".wave").nth(1).evaluate(INKED) == [False, True, True]
    page.get_by_label("Play", exact=True).click()
    page.locator("#frame", has_text="frame 12").wait_for()
    page.get_by_label("Play", exact=True).wait_for()
    page.locator("#strip").click(position={"x": page.locator("#strip").bounding_box()["width"] / 2 + 2, "y": 20})
    page.get_by_label("Play", exact=True).click()
    (begun, *first), (late, *second), (again, *third), (together, *fourth) = page.evaluate("window.played")
    assert (late - begun, together - again) == pytest.approx((0.1, 0))
    assert [first, second] == [pytest.approx([0, 0.5]), pytest.approx([0.2, 0.4])]
    assert [third, fourth] == [pytest.approx([0.25, 0.25]), pytest.approx([0.35, 0.25])]


def test_dropped_sounds_are_told_from_images_and_come_back_after_a_reload(page):
    data = list(wav(tone(0.1)))
    page.locator("body").evaluate(
        """async (body, data) => {
          const canvas = new OffscreenCanvas(40, 30);
          canvas.getContext("2d").fillRect(0, 0, 40, 30);
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], "tone.wav", {type: "audio/wav"}));
          transfer.items.add(new File([await canvas.convertToBlob()], "in.png", {type: "image/png"}));
          body.dispatchEvent(new DragEvent("drop", {bubbles: true, cancelable: true, dataTransfer: transfer}));
        }""",
        data,
    )
    page.wait_for_selector(".still.has-picture")
    page.locator(".sound-item summary .soft", has_text="0.1 s; whole, from the beginning").wait_for()
    fields(page, Fade_out="0.5")
    page.locator("#length").select_option("longest")
    rendered(page)
    page.reload()
    page.locator(".sound-item summary .soft", has_text="0.1 s; fades out 0.5 s").wait_for()
    assert page.locator("#length").input_value() == "longest"
    assert names(page) == ["in.png"]
