"""Every block of README, CONTRIBUTING and docs: run here as it stands, or with the reason or the test beside it.

A reason stands in a comment before its block, which readers do not see. Ports are free ones, paths of the reader's
machine are the test's. A document's blocks are run in order, in one directory, beside one daemon that has what all its
`stillreel serve` lines ask for, as if it ran in a terminal of its own.
"""

import logging
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import certifi
import click
import pytest
from PIL import Image

from protocol.client import Client
from protocol.schema import RenderRequest
from renderer import config
from renderer.cli.app import app
from renderer.frontends.zmq.curve import CurveRing
from renderer.observe import logs
from tests.daemon_process import starting
from tests.media.sound.made import coded, tone, wav

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>[^\n]*) -->\n)?^(?P<fence>```|~~~)(?P<language>[^\n]*)\n(?P<code>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
MARKER = re.compile(r"run by (?P<test>tests/\S+\.py)|not run: (?P<reason>.{10,})")
DAEMON = re.compile(r"^stillreel serve (?P<options>[^#\n]*).*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    document: str
    language: str
    code: str
    marker: str | None


def blocks(document: Path) -> list[Block]:
    found = BLOCK.finditer(document.read_text(encoding="utf-8"))
    return [Block(document.name, each["language"], each["code"], each["marker"]) for each in found]


ALL = [block for document in DOCUMENTS for block in blocks(document)]
MARKED = [block for block in ALL if block.marker]


def test_no_block_is_overlooked() -> None:
    fences = sum(len(re.findall(r"^\s*(?:```|~~~)", document.read_text(), re.MULTILINE)) for document in DOCUMENTS)
    assert fences == 2 * len(ALL)


@pytest.mark.parametrize("block", MARKED, ids=lambda block: f"{block.document}-{block.code.split()[0]}")
def test_a_block_that_is_not_run_here_names_its_reason_or_its_test(block: Block) -> None:
    found = MARKER.fullmatch(block.marker or "")
    assert found, block.marker
    for test in re.findall(r"tests/\S+\.py", block.marker or ""):
        assert (ROOT / test).is_file(), test


@dataclass(frozen=True)
class Place:
    """Where blocks are run: a directory, beside a daemon with a door of each kind.

    Attributes:
        keyed: its endpoint for other machines, which asks for keys.
        local: the one that asks for none.
    """

    directory: Path
    keyed: str
    local: str
    http: str

    def here(self, code: str) -> str:
        """Put this daemon's addresses where the document has the reader's."""
        there = {
            "http://127.0.0.1:8480": self.http,
            "Client()": f'Client("{self.local}")',
            "tcp://127.0.0.1:5590": self.local,
            "tcp://server:5590": self.keyed,
        }
        for written, ours in there.items():
            code = code.replace(written, ours)
        return code

    def run(self, *command: str) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "STILLREEL_CONNECT": self.local}
        done = subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        assert '"detail"' not in done.stdout, done.stdout


def sh(place: Place, code: str) -> None:
    """Type it; the daemon that it begins runs already."""
    place.run("bash", "-euc", DAEMON.sub("", place.here(code)))


def python(place: Place, code: str) -> None:
    place.run(sys.executable, "-c", place.here(code))


def request(place: Place, code: str) -> None:
    """Ask for it: it must be a request, and the video as long as it says."""
    asked = RenderRequest.model_validate_json(code)
    with Client(place.local) as client:
        made = client.render(asked)
    assert made.frames == sum(image.frames or 0 for image in asked.images)


def settings(place: Place, code: str) -> None:
    """Load it; files of the reader's are one that exists, and has certificates."""
    file = place.directory / "stillreel.toml"
    file.write_text(re.sub(r'"/[^"]*"', f'"{certifi.where()}"', code))
    assert config.load(file, {}) != config.Settings()


def usage(_: Place, code: str) -> None:
    """Compare it with the command: options that are there, and those that must be given outside of brackets."""
    words = code.split()
    parameters = app.get_command(click.Context(app), words[1]).params  # type: ignore[union-attr] # it is there
    known = {name for parameter in parameters for name in parameter.opts if name.startswith("--")}
    assert set(re.findall(r"--[a-z-]+", code)) <= known
    must = {parameter.opts[0] for parameter in parameters if parameter.required and parameter.opts[0].startswith("--")}
    assert set(re.findall(r"(?<!\[)--[a-z-]+", code)) == must


def log_line(_: Place, code: str) -> None:
    """Compare it with what is written of a job that is done."""
    moment = datetime.fromisoformat(re.search(r"\d{4}-\S+?Z", code)[0])  # type: ignore[index] # else it fails
    told = {"name": "renderer.jobs.outcome", "levelname": "INFO", "msg": "done in %.3f s", "args": (0.412,)}
    record = logging.makeLogRecord({**told, "created": moment.timestamp(), "job": "ab12", "action": "done"})
    formatter = logs.JsonFormatter() if code.startswith("{") else logs.TextFormatter()
    assert formatter.format(record) == code.rstrip("\n")


RUN: dict[str, Callable[[Place, str], None]] = {
    "sh": sh,
    "python": python,
    "json": request,
    "toml": settings,
    "usage": usage,
    "log": log_line,
}
HERE = [block for block in ALL if not block.marker]


def test_every_block_is_run_here_or_says_why_not() -> None:
    assert [f"{block.document}: {block.code}" for block in HERE if block.language not in RUN] == []
    assert shutil.which("bash")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """What `make demo` leaves and what docs/command-line.md speaks of, and a daemon as all `serve` lines want it."""
    directory = tmp_path_factory.mktemp("typed")
    runpy.run_path(str(ROOT / "scripts" / "demo.py"))["make_request"](directory / "out" / "demo")
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "photos").mkdir()
    for name in ("a.jpg", "b.jpg", "photos/1.png", "photos/2.png", "frames_0100.png", "frames_0102.png"):
        Image.new("RGB", (64, 48), (len(name), 0, 0)).save(directory / name)
    music, voice = (directory / "out" / "demo" / name for name in ("music.mp3", "voice.wav"))
    voice.write_bytes(wav(tone(0.5)))
    coded(tone(1), music)
    (directory / "slides.ffconcat").write_text("ffconcat version 1.0\nfile a.jpg\nduration 1\n")
    (directory / "data").mkdir(mode=0o700)
    (directory / "alice.curve").write_text(CurveRing(directory / "data").add("alice").to_text())
    asked = [DAEMON.search(line) for block in HERE if block.language == "sh" for line in block.code.splitlines()]
    flags = dict.fromkeys(flag for found in asked if found for flag in flags_of(directory, found["options"]))
    with starting(directory) as start:
        daemon = start("--local", "tcp://127.0.0.1:*", *(word for flag in flags for word in flag))
        keyed, local = [word for word in re.split(r"[ ,]+", daemon.ready_line) if word.startswith("tcp://")]
        yield Place(directory, keyed, local, daemon.http)
        assert daemon.stop() == 0


def flags_of(directory: Path, options: str) -> Iterator[tuple[str, str]]:
    """Yield each option of a `serve` line with its value: any free port, and absolute paths."""
    words = shlex.split(options.replace("127.0.0.1:8480", "127.0.0.1:0"))
    for name, value in zip(words[::2], words[1::2], strict=True):
        yield name, str(directory / value) if name in {"--allow-root", "--spool"} else value


def named(block: Block) -> str:
    return f"{block.document}-{block.language}-{HERE.index(block)}"


@pytest.mark.skipif(not find_spec("skimage"), reason="pip install scikit-image, which has the demo's photographs")
@pytest.mark.timeout(600)  # a line is several whole processes, on however slow a machine
@pytest.mark.parametrize("block", HERE, ids=named)
def test_a_block_works_as_it_stands_after_those_before_it(place: Place, block: Block) -> None:
    RUN[block.language](place, block.code)
    if block == [each for each in HERE if each.document == "README.md"][-1]:
        made = {path.name for path in (place.directory / "out").glob("*.mp4")}
        assert made == {"again.mp4", "slides.mp4", "coffee.mp4", "fetched.mp4"}
        assert len(list((place.directory / "out" / "videos").rglob("*.mp4"))) == 2
