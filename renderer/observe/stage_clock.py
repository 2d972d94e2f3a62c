"""Where a job's time goes: wall-clock seconds by stage, so that a result can say what was waited for."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StageClock:
    """Adds up wall-clock seconds by stage."""

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
        """Time how long each next item is waited for."""
        waiting = iter(items)
        while (item := self.time(stage, next, waiting, None)) is not None:
            yield item

    def add(self, stage: str, seconds: float) -> None:
        self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def report(self) -> dict[str, float]:
        stages = {**self._stages, "total": time.perf_counter() - self._began}
        return {stage: round(seconds, 4) for stage, seconds in stages.items()}
