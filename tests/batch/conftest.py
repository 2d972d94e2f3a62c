"""What the tests of a batch share: a tree of manifests, the command in this process and in one of its own."""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from click.testing import CliRunner, Result

from renderer.cli.batch import batch
from tests.daemon_process import MARK, marked, picture, workers_of
from tests.warm import begin

_OUTPUT = re.compile(r"(?P<stem>.+)-[0-9a-f]{12}\.(mp4|json)")


@dataclass(frozen=True)
class Tree:
    """A directory with manifests, and the one that their videos go to."""

    root: Path
    out: Path

    def image(self, name: str, colour: tuple[int, int, int] = (200, 60, 20)) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(colour))
        return path

    def write(self, name: str, content: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return path

    def manifest(self, name: str, *images: dict[str, Any], **fields: Any) -> Path:
        """Write a request; without images, of one that lies beside it and is its own."""
        if not images:
            image = self.image(f"{name}.ppm", (len(name) * 7 % 256, 60, int.from_bytes(name.encode()) % 251))
            images = ({"url": image.name, "frames": 3},)
        return self.write(f"{name}.json", json.dumps({"images": images, **fields}))

    def files(self) -> list[Path]:
        """Return all that a user sees among the outputs; other than rglob, this minds nothing that vanishes."""
        found = []
        for directory, below, names in os.walk(self.out):
            below[:] = [name for name in below if not name.startswith(".")]
            found += [Path(directory, name) for name in names if not name.startswith(".")]
        return sorted(found)

    def videos(self) -> dict[str, Path]:
        """Return the videos by their path without the hash."""
        found = {}
        for path in self.files():
            match = _OUTPUT.fullmatch(path.relative_to(self.out).as_posix())
            assert match, path
            if path.suffix == ".mp4":
                found[match["stem"]] = path
        return found

    def check(self) -> None:
        """Check that every video is whole and told of by its sidecar, and that nothing else is there."""
        files = self.files()
        videos = [path for path in files if path.suffix == ".mp4"]
        for video in videos:
            told = json.loads(video.with_suffix(".json").read_text())
            assert told["video"]["file_size"] == video.stat().st_size
            with av.open(str(video)) as container:
                assert sum(1 for _ in container.decode(video=0)) == told["frames"]
        assert set(files) == {*videos, *(video.with_suffix(".json") for video in videos)}
        assert not [path.name for path in self.out.iterdir() if path.name.startswith(".")]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "in").mkdir()
    return Tree(tmp_path / "in", tmp_path / "out")


@dataclass(frozen=True)
class Ended:
    """A batch that has come to its end."""

    code: int
    document: dict[str, Any]
    stderr: str

    def counts(self) -> tuple[int, int, int]:
        return self.document["done"], self.document["skipped"], self.document["failed"]

    def failures(self) -> dict[str, str]:
        return {each["manifest"]: each["error"]["message"] for each in self.document["failures"]}


RunBatch = Callable[..., Ended]


@pytest.fixture
def run(tree: Tree) -> RunBatch:
    """Return a function that runs the command on the tree, in this process."""

    def run(*arguments: str, directory: Path | None = None, out: Path | None = None) -> Ended:
        result: Result = CliRunner().invoke(
            batch, [str(directory or tree.root), "--out", str(out or tree.out), "-j", "2", "--json", *arguments]
        )
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, json.loads(result.stdout) if result.stdout else {}, result.stderr)

    return run


def command(tree: Tree) -> list[str]:
    return [sys.executable, "-m", "renderer", "batch", str(tree.root), "--out", str(tree.out)]


class BatchProcess:
    """The command in a process of its own, as a shell starts it."""

    def __init__(self, tree: Tree, arguments: tuple[str, ...] = (), environment: Mapping[str, object] | None = None):
        self._mark = uuid.uuid4().hex
        self.temporary = Path(tempfile.mkdtemp(prefix="sr-"))  # short: a socket lies in it
        settings = {f"STILLREEL_{name}": str(value) for name, value in (environment or {}).items()}
        told = {**os.environ, **settings, "TMPDIR": str(self.temporary), MARK: self._mark}
        self._stdout, self._stderr = (tree.out.parent / f"{self._mark}.{each}" for each in ("stdout", "stderr"))
        with self._stdout.open("w") as stdout, self._stderr.open("w") as stderr:
            words = [*command(tree)[3:], "--json", *arguments]
            self.child = begin(words, environment=told, stdout=stdout, stderr=stderr)

    def end(self) -> Ended:
        """Wait for its end."""
        code = self.child.wait(60)
        stdout = self._stdout.read_text()
        return Ended(code, json.loads(stdout) if stdout else {}, self._stderr.read_text())

    def processes(self) -> list[psutil.Process]:
        """Everything that lives and stems from it, itself included."""
        return marked(self._mark)

    def workers(self) -> list[psutil.Process]:
        """The processes that render: the fork server's children."""
        return workers_of(self.child.pid)

    def close(self) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.child.wait()
        shutil.rmtree(self.temporary, ignore_errors=True)


StartBatch = Callable[..., BatchProcess]


@pytest.fixture
def start_batch(tree: Tree) -> Iterator[StartBatch]:
    """Return a function that starts the command on the tree; what still runs is killed with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **environment: object) -> BatchProcess:
            process = BatchProcess(tree, arguments, environment)
            stack.callback(process.close)
            return process

        yield start
