"""What a batch leaves: NAME-HASH.mp4 with NAME-HASH.json beside it, which says that the video is whole.

The video gets its name first and its sidecar after it, each written elsewhere, synced and renamed. So a video with a
sidecar that tells its size is finished, whatever was killed when; and two processes that make the same one replace
like with like.
"""

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from pydantic_core import from_json

from renderer.disk import put, settle

_COMMANDS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # controls, half characters, ends of lines and paragraphs
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # change the direction
_NAME_MAX_BYTES: Final = 200  # most file systems take 255, the hash and the suffix included


@dataclass(frozen=True, slots=True)
class Output:
    """A video's final place, and its sidecar's."""

    video: Path

    @property
    def sidecar(self) -> Path:
        return self.video.with_suffix(".json")

    def is_finished(self) -> bool:
        """Whether the video is there as its sidecar describes it."""
        try:
            told = from_json(self.sidecar.read_bytes())
            return bool(told["video"]["file_size"] == self.video.stat().st_size)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return False

    def publish(self, rendered: Path, told: dict[str, Any]) -> None:
        """Move a video here that is whole and synced, and write down what is told of it.

        Args:
            rendered: in a directory of the same file system that nobody else writes to.

        Raises:
            OSError: at most the video without its sidecar is here.
        """
        self.video.parent.mkdir(parents=True, exist_ok=True)
        sidecar = json.dumps(told, indent=2, allow_nan=False) + "\n"
        settle(rendered, self.video)
        put(self.sidecar, sidecar.encode(), part=rendered.with_suffix(".sidecar.part"), mode=0o666)


def output_for(out: Path, stem: PurePath, digest: str) -> Output:
    """Return the place below `out` for what is named `stem` and has this hash."""
    name = stem.name
    while len(os.fsencode(name)) > _NAME_MAX_BYTES:
        name = name[:-1]
    return Output(out / stem.parent / f"{name}-{digest}.mp4")


def as_text(name: str) -> str:
    """Write a file's name, whose bytes may be no text, so that every reader of JSON takes it."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def printable(words: str) -> str:
    """Write words that may hold a file's name in one line, without what would command the terminal."""
    return "".join("\ufffd" if unicodedata.category(each) in _COMMANDS or each in _TURNING else each for each in words)
