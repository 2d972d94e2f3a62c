"""Child processes over the stand-in driver: their environment, and the counts that they leave.

PyNvVideoCodec edits the environment, opens libraries that stay, and may end its process. So nothing of it runs in
pytest's own process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_PAIRS = (
    ("sessions_opened", "sessions_closed"),
    ("device_allocs", "device_frees"),
    ("pinned_allocs", "pinned_frees"),
    ("contexts_created", "contexts_destroyed"),
)

Environment = dict[str, str]


def build(directory: Path) -> Path:
    """Build the libraries and return where they lie.

    Raises:
        subprocess.CalledProcessError: a tool or a header is missing, or the sources are at fault; `stderr` says which.
        FileNotFoundError: there is no make.
    """
    command = ["make", "-C", str(_HERE), f"LIB={directory}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return directory


class Parent:
    """The process that makes children over the stand-in; see child.py."""

    def __init__(self, libraries: Path) -> None:
        """Start it; it may import for a second.

        Args:
            libraries: where the stand-in's libraries lie, which children load like a driver's.
        """
        self.libraries = libraries
        self._directory = tempfile.TemporaryDirectory(prefix="sr-")
        self._address = str(Path(self._directory.name, "parent"))
        command = [sys.executable, "-m", "tests.nvenc_standin.child", self._address]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def ask(self, question: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Have a question answered by a child of its own, which is killed when its time is up.

        Raises:
            TimeoutError: it was.
        """
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(self._address)
            connection.sendall(json.dumps(question).encode() + b"\n")
            answer = connection.makefile("rb")
            child = int(answer.readline())
            try:
                told: dict[str, Any] = json.loads(answer.read())
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                raise
            return told

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._directory.cleanup()


class Standin:
    """Gives children their environment and keeps what they counted; call it with knobs.

    Attributes:
        counted: where the stand-in counts, and sessions are counted too unless a setting says otherwise: of all
            directories only this one is open to a daemon's workers.
    """

    def __init__(self, parent: Parent, scratch: Path) -> None:
        self._parent = parent
        self._libraries = parent.libraries
        self._scratch = scratch
        self.counted = scratch / "run" / "stillreel"
        self.counted.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stats = self.counted / "standin-stats"
        self._journal = self.counted / "standin-journal"

    def __call__(self, **knobs: object) -> Environment:
        """Return an environment with the stand-in and these knobs, and with a cache of its own."""
        own = {
            "LD_LIBRARY_PATH": str(self._libraries),
            "STANDIN_STATS": str(self._stats),
            "STANDIN_JOURNAL": str(self._journal),
            "XDG_CACHE_HOME": str(self._scratch / "cache"),
            "XDG_RUNTIME_DIR": str(self._scratch / "run"),
        }
        return {**os.environ, **own, **{f"STANDIN_{name.upper()}": str(value) for name, value in knobs.items()}}

    def seats(self, count: int) -> dict[str, object]:
        """Return the knobs that let all processes together open so many sessions."""
        directory = self.counted / "standin-seats"
        directory.mkdir(exist_ok=True)
        return {"max_sessions": count, "seats": directory}

    def ask(
        self, module: str, what: str, *, timeout_s: float = 60, knobs: dict[str, Any] | None = None, **told: Any
    ) -> Any:
        """Run a function of a module in a child and return what it returns; both ways it is JSON.

        Raises:
            AssertionError: the child failed; what it wrote is the message.
        """
        question = {"module": module, "what": what, "told": told, "environment": self(**(knobs or {}))}
        done = self._parent.ask(question, timeout_s)
        assert done["code"] == 0, f"{what} ended with {done['code']}:\n{done['stdout']}\n{done['stderr']}"
        return json.loads(done["stdout"].splitlines()[-1])

    def counts(self) -> list[dict[str, int]]:
        """What the processes that have ended normally counted, those that opened nothing included."""
        return [json.loads(line) for line in self._lines(self._stats)]

    def total(self, counter: str) -> int:
        return sum(count[counter] for count in self.counts())

    def journal(self) -> list[tuple[str, int]]:
        """What happened to sessions, in order: "opened", "closed" or "refused", and in which process."""
        return [(what, int(pid)) for what, pid in (line.split() for line in self._lines(self._journal))]

    def leaks(self) -> list[str]:
        """Say what was taken and not given back."""
        return [
            f"process {count['pid']}: {count[taken]} {taken}, {count[given]} {given}"
            for count in self.counts()
            for taken, given in _PAIRS
            if count[taken] != count[given]
        ]

    @staticmethod
    def _lines(path: Path) -> list[str]:
        return path.read_text().splitlines() if path.exists() else []
