"""The shell lines of README and docs, typed in order as they stand, or the reason why they are not.

A reason stands in a comment before its block, which readers do not see. Ports are free ones, and a daemon is begun in
the background, as in a terminal of its own.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(?:<!-- (?P<marker>[^\n]*) -->\n)?^```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"run by (?P<test>tests/\S+\.py)|not run: (?P<reason>.{10,})")
DAEMON = re.compile(r"^stillreel serve .*$", re.MULTILINE)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@dataclass(frozen=True)
class Block:
    document: str
    code: str
    marker: str | None


def blocks(document: Path) -> list[Block]:
    text = document.read_text(encoding="utf-8")
    return [Block(document.name, found["code"], found["marker"]) for found in BLOCK.finditer(text)]


ALL = [block for document in DOCUMENTS for block in blocks(document)]
MARKED = [block for block in ALL if block.marker]


@pytest.mark.parametrize("block", MARKED, ids=lambda block: f"{block.document}-{block.code.split()[0]}")
def test_a_block_that_is_not_typed_here_names_its_reason_or_its_test(block: Block) -> None:
    found = MARKER.fullmatch(block.marker or "")
    assert found, block.marker
    for test in re.findall(r"tests/\S+\.py", block.marker or ""):
        assert (ROOT / test).is_file(), test


class Typist:
    """Types blocks in one directory, with a daemon of its own at free ports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        port, http = free_port(), free_port()
        self._ports = {"127.0.0.1:8480": f"127.0.0.1:{http}"}
        endpoint = f"tcp://127.0.0.1:{port}"
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "STILLREEL_SERVER__BIND": endpoint,
            "STILLREEL_CONNECT": endpoint,
            "STILLREEL_SERVER__DATA_DIR": str(directory / "data"),
        }

    def type(self, code: str) -> None:
        """Type a block; its daemons end with it."""
        for written, here in self._ports.items():
            code = code.replace(written, here)
        with self._daemons(DAEMON.findall(code)):
            done = subprocess.run(
                ["bash", "-euc", DAEMON.sub("", code)],
                cwd=self._directory,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, f"{code}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        assert '"detail"' not in done.stdout, done.stdout

    @contextmanager
    def _daemons(self, lines: list[str]) -> Iterator[None]:
        for line in lines:
            command = ["bash", "-c", f"exec {line}"]
            with subprocess.Popen(
                command, cwd=self._directory, env=self._environment, stdout=subprocess.PIPE, text=True
            ) as daemon:
                try:
                    assert daemon.stdout
                    assert "ready" in daemon.stdout.readline()
                    yield
                finally:
                    daemon.send_signal(signal.SIGTERM)
                    assert daemon.wait(60) == 0
            return
        yield


def test_what_the_readme_says_works_as_typed_after_the_demo(
    tmp_path: Path, require: Callable[[str, object, str], None]
) -> None:
    require("photos", find_spec("skimage"), "pip install scikit-image")
    lay_out = "import runpy, pathlib; runpy.run_path('scripts/demo.py')['make_request'](pathlib.Path({!r}))"
    subprocess.run([sys.executable, "-c", lay_out.format(str(tmp_path / "out" / "demo"))], cwd=ROOT, check=True)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    typist = Typist(tmp_path)
    typed = [block for block in ALL if block.document == "README.md" and not block.marker]
    assert len(typed) == 5
    for block in typed:
        typist.type(block.code)
    made = {path.name for path in (tmp_path / "out").glob("*.mp4")}
    assert made == {"again.mp4", "slides.mp4", "fetched.mp4"}
    assert len(list((tmp_path / "out" / "videos").rglob("*.mp4"))) == 2


def test_what_the_command_lines_page_shows_works_as_typed(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("a.jpg", "b.jpg", "photos/1.png", "photos/2.png", "frames_0100.png", "frames_0102.png"):
        Image.new("RGB", (64, 48), (len(name), 0, 0)).save(tmp_path / name)
    (tmp_path / "slides.ffconcat").write_text("ffconcat version 1.0\nfile a.jpg\nduration 1\n")
    typist = Typist(tmp_path)
    typed = [block for block in ALL if block.document == "command-line.md" and not block.marker]
    assert len(typed) == 1
    for block in typed:
        typist.type(block.code)
    assert {path.name for path in tmp_path.iterdir() if path.suffix in {".mp4", ".mov"}} == {"out.mp4", "out.mov"}


def test_every_block_is_typed_here_or_marked() -> None:
    others = [block for block in ALL if block.document not in {"README.md", "command-line.md"}]
    assert [block for block in others if not block.marker] == []
    assert shutil.which("bash")
