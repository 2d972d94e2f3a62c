"""The request as code is code: each of the four programs runs as the page shows it, beside its image files."""

import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import av
import pytest

from tests.frontends.web.test_page import BLUE, RED, add, file
from tests.frontends.web.test_sound_in_the_page import add_sounds
from tests.media.sound.made import tone, wav

NAMES = ("one still.png", "it's two.png")
SOUND = "a tone.wav"
TITLE = 'It costs $HOME, `date` \\n "more"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a person has the images and the sound that they put into the page."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name, colour in zip(NAMES, (RED, BLUE), strict=True):
        (folder / name).write_bytes(file(name, colour)["buffer"])
    (folder / SOUND).write_bytes(wav(tone(0.2)))
    return folder


@pytest.fixture
def snippet(page: Any, folder: Path) -> Any:
    """Return a function from a tab's name to what the page shows there: two stills, 18 frames together, and a sound."""
    add(page, *({"name": name, "mimeType": "image/png", "buffer": (folder / name).read_bytes()} for name in NAMES))
    page.get_by_label(f"Hold of {NAMES[0]}").fill("6")
    page.get_by_label(f"Unit of {NAMES[1]}'s hold").select_option("seconds")
    page.get_by_label(f"Hold of {NAMES[1]}").fill("0.5")
    page.locator("#crf").fill("30")
    page.get_by_label(f"Chapter title of {NAMES[0]}").fill(TITLE)
    page.get_by_label(f"Poster: {NAMES[1]}").click()
    page.get_by_label("Contact sheet of all stills").check()
    add_sounds(page, {"name": SOUND, "mimeType": "audio/wav", "buffer": (folder / SOUND).read_bytes()})
    page.locator(".sound-item summary").click()
    page.locator(".sound-item").get_by_label("Repeat").check()
    page.locator(".sound-item").get_by_label("Gain").fill("-6")

    def snippet(tab: str) -> str:
        page.get_by_role("tab", name=tab).click()
        return str(page.locator("#snippet-text").text_content())

    return snippet


def test_curl(snippet, folder, require):
    require("curl", shutil.which("curl"), "Debian: curl")
    told = json.loads(run(["bash", "-euc", snippet("cURL")], folder))
    assert (told["frames"], told["audio"]["codec"]) == (18, "aac")
    assert told["poster"]["width"] == told["width"]
    assert told["contact_sheet"]["file_name"].endswith(".jpg")
    with urllib.request.urlopen(told["video"]["url"]) as answer, av.open(io.BytesIO(answer.read())) as container:
        assert [each["metadata"]["title"] for each in container.chapters()] == [TITLE]


def test_python(snippet, folder, certificate):
    pytest.importorskip("fal_client")
    program = snippet("Python")
    exports = [line for line in program.splitlines() if line.startswith("# export ")]
    environment = dict(word.split("=", 1) for line in exports for word in line.removeprefix("# export ").split())
    assert set(environment) == {"FAL_KEY", "SSL_CERT_FILE", "FAL_RUN_HOST", "FAL_QUEUE_RUN_HOST"}
    environment["SSL_CERT_FILE"] = str(certificate[0])
    assert run([sys.executable, "-c", program], folder, **environment).endswith(".mp4 18")


def test_javascript(snippet, folder, npm_packages):
    (folder / "node_modules").symlink_to(npm_packages)
    (folder / "ask.mjs").write_text(snippet("JavaScript"))
    assert run(["node", "ask.mjs"], folder).endswith(".mp4 18")


def test_zeromq(snippet, folder):
    assert run([sys.executable, "-c", snippet("ZeroMQ")], folder).endswith(".mp4 18")


def test_what_is_copied_is_what_is_shown(open_page):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="Python").click()
    page.locator("#copy").click()
    page.locator("#copy-words", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#snippet-text").text_content()


def run(command: list[str], folder: Path, **environment: str) -> str:
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
