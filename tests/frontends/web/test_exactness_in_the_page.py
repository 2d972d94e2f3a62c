"""The page's own arithmetic against the daemon's: a preview that is a frame off would be a lie."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

import renderer.frontends
from protocol.schema import AudioTrack, ImageFrame, RenderRequest
from renderer.errors import InvalidRequest
from renderer.geometry import Size, canvas_for, place
from renderer.manifests.numbering import natural
from renderer.media.sound.decode import read_header
from renderer.media.sound.mix import Placed
from renderer.pictures.marks import Marks
from renderer.timeline import following, frame_rate, has_no_time, timeline
from tests.media.sound.made import RATE, tone, wav

WEB = Path(renderer.frontends.__file__).parent / "web"
RATES = ["1", "12", "23.976", "23.98", "23.976024", "24", "24.00", "25", "29.97", "30", "33.333333", "48", "59.94"]
RATES += [
    "60",
    "119.88",
    "120",
    "7.5",
    "1.001",
    "0.999",
    "30000/1001",
    "24/1",
    "100/3",
    "1/1",
    "119.999999",
    "47.952048",
]
NO_RATES = [
    "",
    "0",
    "0.5",
    "121",
    "-3",
    "1e2",
    "24 fps",
    "1/0",
    "0/1",
    "30000/1002.5",
    "240/1",
    "1234567/1001",
    "24000/1003",
]


@pytest.fixture(scope="module")
def node(require: Callable[[str, object, str], None]) -> Callable[[str, Any], Any]:
    """Return a function that runs an expression over `given` in Node, with the page's modules imported."""
    found = shutil.which("node")
    require("node", found, "Debian: nodejs")
    assert found

    def run(expression: str, given: Any) -> Any:
        program = (
            f'import * as timeline from "{WEB / "timeline.js"}"; import * as geometry from "{WEB / "geometry.js"}";'
            f'import * as sound from "{WEB / "sound.js"}";'
            f'import * as order from "{WEB / "order.js"}"; import {{ SNIPPETS }} from "{WEB / "snippets.js"}";'
            f'import {{ reachable }} from "{WEB / "about.js"}"; globalThis.location = {{ hostname: "studio" }};'
            'import { readFileSync } from "node:fs"; const given = JSON.parse(readFileSync(0, "utf8"));'
            f"console.log(JSON.stringify({expression}));"
        )
        command = [found, "--no-warnings", "--input-type=module", "--eval", program]
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_rate_means_the_same_here_and_there(node):
    rng = random.Random(7)
    rates = RATES + [f"{rng.uniform(1, 119):.{rng.randrange(0, 10)}f}" for _ in range(400)]
    text = "given.map((text) => { const rate = timeline.frameRate(text); return rate && `${rate.n}/${rate.d}`; })"

    told = node(text, rates)

    expected = [_rate(text) for text in rates]
    assert told == expected


def test_what_is_no_rate_is_none_in_the_page_either(node):
    assert node("given.map((text) => timeline.frameRate(text))", NO_RATES) == [None] * len(NO_RATES)
    for text in NO_RATES:
        with pytest.raises(ValidationError):
            RenderRequest(images=(ImageFrame(url="a.png"),), fps=text)


def test_holds_end_at_the_same_frames(node):
    rng = random.Random(11)
    cases = [{"rate": rng.choice(["24", "23.976", "29.97", "60", "12.5"]), "holds": _holds(rng)} for _ in range(200)]
    expression = """given.map(({rate, holds}) => {
        const laid = timeline.layOut(holds, timeline.frameRate(rate));
        return laid.faults.size ? null : laid.holds;
    })"""

    told = node(expression, cases)

    for case, holds in zip(cases, told, strict=True):
        assert holds == _laid_out(case), case
    assert sum(holds is None for holds in told) < len(told) / 2


def test_stills_follow_a_sound_to_the_same_frames(node):
    rng = random.Random(19)
    cases = [
        {
            "rate": rng.choice(["24", "29.97", "60"]),
            "frames": [rng.choice([None, None, rng.randrange(1, 90)]) for _ in range(rng.randrange(1, 9))],
            "samples": rng.randrange(1, 48000 * 40),
            "rule": rng.choice(["audio", "longest"]),
        }
        for _ in range(200)
    ]
    expression = """given.map(({rate, frames, samples, rule}) => {
        const exact = timeline.frameRate(rate);
        const laid = timeline.layOut(frames.map((count) => ({amount: String(count ?? 1), unit: "frames"})), exact);
        const sharing = [...frames.keys()].filter((at) => rule === "audio" && frames[at] === null);
        return timeline.following(laid, sharing, samples, exact);
    })"""

    told = node(expression, cases)

    for case, found in zip(cases, told, strict=True):
        images = [ImageFrame(url="a", **({"frames": count} if count else {})) for count in case["frames"]]
        sharing = [at for at, image in enumerate(images) if has_no_time(image)]
        line = timeline(images, frame_rate(case["rate"]))
        line = following(line, sharing, case["rule"], Fraction(case["samples"], 48000))
        assert found["holds"] == list(line.holds), case
        assert (found["frames"], found["ends"][-1]) == (line.frames, line.frames)


def test_a_sound_is_as_loud_at_each_moment_as_in_the_video(node):
    """The waveform and the preview: fades, gain, trims and repeats, against the daemon's samples."""
    rng = random.Random(23)
    file = tone(2.0, hertz=0, level=0)
    file[0] = np.linspace(0.1, 0.9, file.shape[1])  # a ramp, so that a level says where in the file it is
    content = wav(file)
    typed = ["at", "start", "duration", "fade_in", "fade_out", "gain_db"]
    cases = []
    for _ in range(30):
        values = {name: round(rng.choice([0, rng.uniform(0, 1.5)]), 2) for name in typed}
        values["gain_db"] = -values["gain_db"]
        cases.append({**values, "loop": rng.random() < 0.5, "moments": [rng.uniform(0, 5) for _ in range(40)]})
    expression = """given.map(({moments, loop, ...fields}) => {
        const text = Object.entries(fields).map(([name, value]) => [name, value ? String(value) : ""]);
        const one = {...Object.fromEntries(text), loop, long_s: 2};
        const place = sound.placed(one, 5);
        const levels = moments.map((moment) => {
            const at = moment - place.at;
            if (at < 0 || at >= place.length_s) return 0;
            const level = 0.1 + 0.8 * sound.inFile(place, 2, at) / 2;
            return level * 10 ** (place.gain_db / 20) * sound.faded(place, at);
        });
        return {levels, end: sound.isEndless(one) ? null : sound.endOf([one]), track: sound.track(one, "a.wav")};
    })"""

    told = node(expression, cases)

    for case, found in zip(cases, told, strict=True):
        track = AudioTrack.model_validate(found["track"])
        values = {name: case[name] for name in typed}
        assert track == AudioTrack(url="a.wav", loop=case["loop"], **{**values, "duration": values["duration"] or None})
        mixed = Placed(track, read_header(content, ("audio", 0), Marks()), 5 * RATE, Marks())
        pieces = np.concatenate([*mixed.pieces(), np.zeros((1, 5 * RATE), np.float32)], axis=1)[0, : 5 * RATE]
        assert found["end"] is None or found["end"] == pytest.approx(mixed.end, abs=1)
        assert found["levels"] == pytest.approx([pieces[int(at * RATE)] for at in case["moments"]], abs=0.01)


def test_the_duration_is_exact_or_says_that_it_is_not(node):
    given = [[180, "24"], [1351, "23.976"], [1, "24"], [24024, "23.976"], [1, "3"]]
    told = node("given.map(([frames, rate]) => timeline.seconds(frames, timeline.frameRate(rate)))", given)
    assert told == ["7.5", "≈ 56.347958", "≈ 0.041667", "1002.001", "≈ 0.333333"]


def test_a_duration_is_in_minutes_from_the_first_minute_on(node):
    given = ["7.5", "59.999", "60", "90.5", "≈ 3661.041667"]
    told = node("given.map(timeline.duration)", given)
    assert told == ["7.5 s", "59.999 s", "1:00", "1:30.5", "≈ 1:01:01.041667"]


def test_a_hold_may_be_in_minutes(node):
    given = ["1:30", "0:02.5", "1:02:07.5", "90", "1:60", "1:2", "1:75:00", ":30", "0:00"]
    expression = """given.map((amount) => {
        const laid = timeline.layOut([{amount, unit: "seconds"}], timeline.frameRate("10"));
        return laid.faults.size ? null : [laid.frames, timeline.holdSeconds(amount)];
    })"""
    known = [[900, 90], [25, 2.5], [37275, 3727.5], [900, 90]]
    assert node(expression, given) == [*known, None, None, None, None, None]


def test_names_have_the_order_that_a_directory_is_rendered_in(node):
    rng = random.Random(17)
    pieces = ["img", "IMG", "f_", "-", " ", "7", "10", "010", "2", "-3", "１２", "٣", "é", ".png", "b", "९"]
    names = ["".join(rng.choices(pieces, k=rng.randrange(1, 6))) for _ in range(300)]
    told = node("order.sorted(given.map((name) => ({name})), 'name').map(({name}) => name)", names)
    assert told == sorted(names, key=natural)


def test_an_address_that_means_every_interface_is_the_pages_own_host(node):
    given = [
        "tcp://0.0.0.0:5590",
        "tcp://[::]:5590",
        "tcp://127.0.0.1:5590",
        "ipc:///run/s.sock",
        "https://0.0.0.0:8443",
    ]
    expected = ["tcp://studio:5590", "tcp://studio:5590", *given[2:4], "https://studio:8443"]
    assert node("given.map(reachable)", given) == expected


def test_a_snippet_says_that_a_key_is_needed_where_one_is(node):
    given = {"request": {"images": [{"url": "a.png", "frames": 1}]}, "files": [{"name": "a.png"}]}
    written = node("[true, false].map((zmqNeedsKey) => SNIPPETS[3].write({...given, zmqNeedsKey}))", given)
    assert ['curve="alice.curve"' in text for text in written] == [True, False]
    assert "stillreel keys curve alice" in written[0]


def test_a_still_stands_where_the_daemon_puts_it(node):
    rng = random.Random(13)
    cases = [_placing(rng) for _ in range(600)]
    expression = """given.map(({still, asked, fit}) => {
        const canvas = geometry.canvasFor(still, ...asked);
        return {canvas: [canvas.width, canvas.height], ...geometry.place(still, canvas, fit)};
    })"""

    told = node(expression, cases)

    for case, found in zip(cases, told, strict=True):
        still = Size(**case["still"])
        canvas = canvas_for(still, *case["asked"])
        placed = place(still, canvas, case["fit"])
        assert found["canvas"] == [canvas.width, canvas.height], case
        assert found["crop"] == list(placed.crop), case
        assert found["box"] == [placed.x, placed.y, placed.size.width, placed.size.height], case


def _rate(text: str) -> str | None:
    """What the daemon makes of a rate that the page sends: a number, or a text with a fraction."""
    fps = text if "/" in text else float(text)
    try:
        rate = frame_rate(RenderRequest(images=(ImageFrame(url="a.png"),), fps=fps).fps)
    except ValidationError:
        return None
    return f"{rate.numerator}/{rate.denominator}"


def _holds(rng: random.Random) -> list[dict[str, str]]:
    def hold() -> dict[str, str]:
        if rng.random() < 0.4:
            return {"amount": str(rng.randrange(1, 90)), "unit": "frames"}
        return {"amount": f"{rng.uniform(0.03, 4):.{rng.randrange(1, 6)}f}", "unit": "seconds"}

    return [hold() for _ in range(rng.randrange(1, 12))]


def _laid_out(case: dict[str, Any]) -> list[int] | None:
    try:
        images = [
            ImageFrame(url="a", frames=int(hold["amount"]))
            if hold["unit"] == "frames"
            else ImageFrame(url="a", duration=float(hold["amount"]))
            for hold in case["holds"]
        ]
        return list(timeline(images, frame_rate(case["rate"])).holds)
    except (InvalidRequest, ValidationError):
        return None


def _placing(rng: random.Random) -> dict[str, Any]:
    def side() -> int:
        return rng.choice([2, 3, 64, 100, 451, 640, 1080, 1921, rng.randrange(2, 4000)])

    asked = rng.choice([(None, None), (side(), None), (None, side()), (side(), side())])
    return {"still": {"width": side(), "height": side()}, "asked": asked, "fit": rng.choice(["pad", "crop", "stretch"])}
