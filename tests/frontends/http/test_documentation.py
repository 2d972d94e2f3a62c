"""The examples of docs/http.md, run as they stand: only addresses, files and programs are put in place."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.cli_process import run
from tests.media.sound.made import tone, wav
from tests.served import Served

DOCUMENT = Path(__file__).parents[3] / "docs" / "http.md"
BLOCK = re.compile(
    r"^## (?P<section>[^\n]*)$|^```(?P<language>sh|python|js)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
COMMANDS = re.compile(r"^stillreel ", re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str]]:
    section = ""
    for found in BLOCK.finditer(DOCUMENT.read_text()):
        if found["section"]:
            section = found["section"]
        else:
            yield section, found["language"], found["code"]


EXAMPLES = [block for block in blocks() if not COMMANDS.search(block[2]) and "export " not in block[2]]


def in_place(text: str, served: Served) -> str:
    """Put the addresses of a daemon of the tests where the document has those of the reader's."""
    there = {"8480": served.daemon.http, "8443": served.daemon.https}
    for port, url in there.items():
        text = text.replace(f"127.0.0.1:{port}", url.partition("://")[2])
    return text.replace("=tls-cert.pem", f"={served.certificate}")


def exports(served: Served) -> dict[str, str]:
    lines = [line for _, language, code in blocks() if language == "sh" for line in code.splitlines()]
    told = [in_place(line.removeprefix("export "), served) for line in lines if line.startswith("export ")]
    return dict(pair.split("=", 1) for pair in told)


NAMES = [f"{section}-{number}" for number, (section, _, _) in enumerate(EXAMPLES)]


@pytest.mark.parametrize(("section", "language", "code"), EXAMPLES, ids=NAMES)
def test_an_example_makes_a_video(
    served: Served, tmp_path: Path, request: pytest.FixtureRequest, section: str, language: str, code: str
) -> None:
    Image.new("RGB", (64, 48), (200, 30, 30)).save(tmp_path / "first.png")
    (tmp_path / "music.wav").write_bytes(wav(tone(0.5)))
    code = in_place(code, served)
    if language == "js":
        (tmp_path / "node_modules").symlink_to(request.getfixturevalue("fal_js") / "node_modules")
        (tmp_path / "example.mjs").write_text(code)
        command = ["node", "example.mjs"]
    else:
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
    environment = {**os.environ, **exports(served)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "video.mp4" in done.stdout
    assert "24" in done.stdout.splitlines()[-1]


def test_there_is_an_example_for_each_client() -> None:
    sections = [section for section, _, _ in EXAMPLES]
    assert {name: sections.count(name) for name in sections} == {
        "Python": 2,
        "JavaScript": 2,
        "cURL": 2,
        "The neighbours": 1,
    }


def test_the_commands_are_there(tmp_path: Path) -> None:
    lines = [line for _, _, code in blocks() for line in code.splitlines() if line.startswith("stillreel ")]
    assert len(lines) == 5
    for line in lines:
        words = line.split()[1:]
        if words[0] == "serve":
            words.append("--help")  # the daemon of the other tests was started with these
        else:
            words += ["--data-dir", str(tmp_path)]
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
