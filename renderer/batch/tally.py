"""How a batch is doing: counts, speed, and when it will be done."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from protocol.schema import Fault, Progress, ResultWarning

# Before this much is done, and for so long, a guess at the end would jump about.
_LEAST_VIDEOS: Final = 0.1
_LEAST_S: Final = 2.0

UNREAD: Final = "a picture of a format that is not read here"


@dataclass(frozen=True, slots=True)
class Failure:
    """A video that could not be made."""

    name: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that looks like something to render and is not rendered."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Warned:
    """What one might not expect of a video."""

    name: str
    warning: ResultWarning


@dataclass(slots=True)
class Running:
    """A video that is being made."""

    name: str
    progress: Progress

    @property
    def fraction(self) -> float:
        return self.progress.share


@dataclass(slots=True)
class Tally:
    """Counts of one run; changed on one thread only.

    Attributes:
        total: manifests of this shard; None until they are counted.
        ignored: files with a manifest's name that turned out to be none.
        left_out: those, and the pictures of directories that are not read here.
        frames: of the videos that are done.
        stopped: whether a signal ended the run.
    """

    now: Callable[[], float] = time.monotonic
    total: int | None = None
    done: int = 0
    skipped: int = 0
    ignored: int = 0
    frames: int = 0
    stopped: bool = False
    failures: list[Failure] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    _began: float = field(init=False)
    _rendering_since: float | None = None

    def __post_init__(self) -> None:
        self._began = self.now()

    @property
    def failed(self) -> int:
        return len(self.failures)

    @property
    def settled(self) -> int:
        """Manifests that nothing more is to be done for."""
        return self.done + self.skipped + self.failed

    @property
    def expected(self) -> int | None:
        """How many manifests there are, as far as is known."""
        return None if self.total is None else max(self.total - self.ignored, self.settled + len(self.running))

    @property
    def has_found_nothing(self) -> bool:
        """Whether there was nothing at all to render."""
        return self.settled == 0 and not self.stopped

    @property
    def elapsed_s(self) -> float:
        return self.now() - self._began

    def ignore(self, name: str) -> None:
        """A file with a manifest's name is none."""
        self.ignored += 1
        self.left_out.append(LeftOut(name, "no manifest: it names no images"))

    def begin(self, key: str, name: str, progress: Progress) -> None:
        """A video is begun, for the first time or again."""
        if self._rendering_since is None:
            self._rendering_since = self.now()
        self.running[key] = Running(name, progress)

    def advance(self, key: str, progress: Progress) -> None:
        """News of a video; such as come after its end are of no interest."""
        if key in self.running:
            self.running[key].progress = progress

    def finish(self, key: str, frames: int) -> None:
        self.running.pop(key, None)
        self.done += 1
        self.frames += frames

    def warn(self, name: str, warnings: Iterable[ResultWarning]) -> None:
        self.warnings += [Warned(name, warning) for warning in warnings]

    def fail(self, failure: Failure, key: str | None = None) -> None:
        if key is not None:
            self.running.pop(key, None)
        self.failures.append(failure)

    @property
    def frames_per_s(self) -> float | None:
        """Frames of the videos per second since the first was begun; what is half done counts by half."""
        elapsed_s = self._rendering_s()
        halves = sum(each.fraction * each.progress.frames for each in self.running.values())
        return (self.frames + halves) / elapsed_s if elapsed_s >= _LEAST_S / 2 else None

    @property
    def eta_s(self) -> float | None:
        """Seconds until the end, if the rest is like what was rendered; None while that cannot be told."""
        begun = sum(each.fraction for each in self.running.values())
        made, elapsed_s = self.done + begun, self._rendering_s()
        if self.expected is None or made < _LEAST_VIDEOS or elapsed_s < _LEAST_S:
            return None
        return (self.expected - self.settled - begun) * elapsed_s / made

    def _rendering_s(self) -> float:
        return 0.0 if self._rendering_since is None else self.now() - self._rendering_since
