"""The frame around a peer that is a Python program: read the manifest, do the work, say how long it took inside.

Such a program prints one line of JSON: the seconds spent with the interpreter and the imports left out, and the
versions of what it used. It leaves with UNAVAILABLE and its reason on stderr where it cannot work on this machine.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

UNAVAILABLE = 3


class Unavailable(Exception):
    """This machine or installation lacks what the peer needs."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The request, as far as the peers need it."""

    stills: tuple[tuple[str, int], ...]
    fps: int
    size: tuple[int, int]
    crf: int
    preset: str


def read_manifest(file: Path) -> Manifest:
    request = json.loads(file.read_text(encoding="utf-8"))
    return Manifest(
        stills=tuple((image["url"], image["frames"]) for image in request["images"]),
        fps=request["fps"],
        size=(request["width"], request["height"]),
        crf=request["crf"],
        preset=request["preset"],
    )


def main(make: Callable[[Manifest, Path], None], *packages: str) -> None:
    """Run `make` on the manifest and output named on the command line and leave."""
    manifest, output = read_manifest(Path(sys.argv[1])), Path(sys.argv[2])
    began = time.perf_counter()
    try:
        make(manifest, output)
    except Unavailable as error:
        print(error, file=sys.stderr)
        sys.exit(UNAVAILABLE)
    inside_s = time.perf_counter() - began
    print(json.dumps({"inside_s": inside_s, "versions": {package: version(package) for package in packages}}))
