"""What a job says of its course while it works: how far it is, and where the time goes."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

from protocol.schema import Progress
from renderer.pictures.reel import Reel

_SILENCE_S = 1.0

OnProgress = Callable[[Progress], None]
P = ParamSpec("P")
T = TypeVar("T")


class StageClock:
    """Adds up wall-clock seconds by stage, so that a result can say where its time went."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._stages: dict[str, float] = {}

    def time(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            self.add(stage, time.perf_counter() - began)

    def timed(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and time how long each of them is waited for."""
        waiting = iter(items)
        while (item := self.time(stage, next, waiting, None)) is not None:
            yield item

    def add(self, stage: str, seconds: float) -> None:
        self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def report(self) -> dict[str, float]:
        stages = {**self._stages, "total": time.perf_counter() - self._began}
        return {stage: round(seconds, 4) for stage, seconds in stages.items()}


class ProgressReporter:
    """Reports progress, and repeats it every second while work goes on, so that silence means that nothing moves."""

    def __init__(self, reel: Reel, on_progress: OnProgress, frames_done: Callable[[], int] = lambda: 0) -> None:
        self._on_progress = on_progress
        self._frames_done = frames_done
        self._progress = Progress(images=len(reel.sources), frames=reel.timeline.frames, stage="rendering")
        self._said_at = time.monotonic()

    def say(self, **changes: object) -> None:
        self._progress = self._progress.model_copy(update={**changes, "frames_done": self._frames_done()})
        self._said_at = time.monotonic()
        self._on_progress(self._progress)

    def say_again(self) -> None:
        if time.monotonic() - self._said_at >= _SILENCE_S:
            self.say()
