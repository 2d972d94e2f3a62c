"""The named work: which stills, how long each is held, at which size.

Beside the names below, any name of the form IMAGESxHOLD-SIZE works: 100x48-720p is a hundred photographs, each held 48
frames.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.drawn import Size
from benchmarks.photographs import drawings, photographs, png_photographs

SIZES: dict[str, Size] = {
    "tiny": (160, 96),
    "360p": (640, 360),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "4k": (3840, 2160),
}
PRESET, CRF, FPS = "veryfast", 20, 24

_PATTERN = re.compile(rf"(\d{{1,4}})x(\d{{1,5}})-({'|'.join(SIZES)})")


@dataclass(frozen=True, slots=True)
class Workload:
    """One piece of work, the same for everyone who does it.

    Attributes:
        size: of the video.
        holds: frames to hold, one number per still.
        make: returns that many stills of a size.
        source: the stills' own size, where it is not the video's.
    """

    name: str
    title: str
    size: Size
    holds: tuple[int, ...]
    make: Callable[[int, Size], list[Path]] = photographs
    source: Size | None = None
    fps: int = FPS

    @property
    def frames(self) -> int:
        return sum(self.holds)

    @property
    def hold(self) -> int | None:
        """Return the hold that all stills share; None where they differ."""
        return self.holds[0] if len(set(self.holds)) == 1 else None

    def stills(self) -> list[Path]:
        """Return the files, made where they are not yet there."""
        return self.make(len(self.holds), self.source or self.size)

    def request(self) -> dict[str, Any]:
        """Return the work as a stillreel request; the other peers read the same file."""
        stills = zip(self.stills(), self.holds, strict=True)
        return {
            "images": [{"url": str(still), "frames": hold} for still, hold in stills],
            "fps": self.fps,
            "width": self.size[0],
            "height": self.size[1],
            "crf": CRF,
            "preset": PRESET,
            "encoder": "libx264",
        }


def uniform(images: int, hold: int, size: str) -> Workload:
    """Return the workload of so many photographs, each held for so many frames."""
    title = f"{images} photographs, {hold} {'frame' if hold == 1 else 'frames'} each, {size}"
    return Workload(f"{images}x{hold}-{size}", title, SIZES[size], (hold,) * images)


def find(name: str) -> Workload:
    """Return the workload of this name.

    Raises:
        KeyError: there is none; the message says what there is.
    """
    if name in WORKLOADS:
        return WORKLOADS[name]
    found = _PATTERN.fullmatch(name)
    if not found or int(found[1]) < 1 or int(found[2]) < 1:
        raise KeyError(f"no workload {name!r}: expected IMAGESxHOLD-SIZE or one of {', '.join(WORKLOADS)}")
    return uniform(int(found[1]), int(found[2]), found[3])


def _mixed(name: str, title: str, size: str, holds: tuple[int, ...]) -> Workload:
    return Workload(name, title, SIZES[size], holds)


def _drawn(name: str, drawings_count: int, hold: int, size: str) -> Workload:
    title = f"animation, {drawings_count} drawings, {hold} frames each, {size}"
    return Workload(name, title, SIZES[size], (hold,) * drawings_count, drawings)


WORKLOADS: dict[str, Workload] = {
    work.name: work
    for work in (
        _mixed("service", "the hosted service's example: 24 and 48 frames at 24 fps, 1080p", "1080p", (24, 48, 24)),
        *(uniform(24, hold, "1080p") for hold in (1, 4, 24, 240)),
        *(uniform(images, 24, "1080p") for images in (8, 100, 500)),
        *(uniform(24, 24, size) for size in ("720p", "4k")),
        *(uniform(images, 1, "1080p") for images in (100, 500)),
        uniform(24, 1, "4k"),
        Workload("png", "24 photographs as PNG, 24 frames each, 1080p", SIZES["1080p"], (24,) * 24, png_photographs),
        Workload(
            "large",
            "24 photographs of 24 megapixels, one frame each, to 1080 rows",
            (1620, 1080),
            (1,) * 24,
            source=(6000, 4000),
        ),
        _mixed(
            "mixed",
            "24 photographs, holds of 1 to 240 frames mixed, 1080p",
            "1080p",
            (1, 48, 2, 120, 12, 24, 6, 240) * 3,
        ),
        _drawn("twos", 96, 2, "1080p"),
        _drawn("fours", 48, 4, "1080p"),
        uniform(4, 1, "tiny"),
        uniform(4, 6, "tiny"),
        _mixed("mixed-tiny", "4 photographs, mixed holds, for tests", "tiny", (3, 1, 12, 5)),
        _drawn("twos-tiny", 6, 2, "tiny"),
    )
}
