"""Slow is not stalled, stopped is, and a pause of the whole machine is neither; by a clock that the test moves."""

from dataclasses import dataclass

import pytest

from renderer.jobs.slots.local import Watchdog

LIMIT_S = 300


@dataclass
class World:
    """A worker, and the clock."""

    now_s: float = 1000.0
    work_s: float = 7.0
    stopped: bool = False

    def worked_s(self) -> float:
        return self.work_s

    def is_stopped(self) -> bool:
        return self.stopped

    def given_up_after(self, watchdog: Watchdog, *, load: float, for_s: float = 2000) -> float | None:
        """Let time pass in looks of a second while the worker takes this much of a core."""
        began_s = self.now_s
        watchdog.look(0)
        while watchdog.left_s() > 0:
            if self.now_s - began_s >= for_s:
                return None
            self.now_s += 1
            self.work_s += load
            watchdog.look(1)
        return self.now_s - began_s


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def watchdog(world: World) -> Watchdog:
    return Watchdog(world, LIMIT_S, lambda: world.now_s)


def test_a_worker_that_does_nothing_is_given_up_at_the_limit(world: World, watchdog: Watchdog) -> None:
    assert world.given_up_after(watchdog, load=0) == LIMIT_S


def test_a_worker_that_works_is_waited_for(world: World, watchdog: Watchdog) -> None:
    assert world.given_up_after(watchdog, load=0.1) is None
    assert world.given_up_after(watchdog, load=0) <= LIMIT_S + LIMIT_S / 2


def test_a_clock_that_ticks_in_a_worker_is_no_work(world: World, watchdog: Watchdog) -> None:
    assert world.given_up_after(watchdog, load=0.005) == LIMIT_S


def test_progress_begins_the_limit_anew(world: World, watchdog: Watchdog) -> None:
    assert world.given_up_after(watchdog, load=0, for_s=LIMIT_S - 1) is None
    watchdog.heard()
    assert world.given_up_after(watchdog, load=0) == LIMIT_S


def test_a_worker_that_was_stopped_is_given_up_and_its_decoders_are_not_blamed(
    world: World, watchdog: Watchdog
) -> None:
    assert world.given_up_after(watchdog, load=1, for_s=50) is None
    assert watchdog.lost_s == 0
    world.stopped = True
    assert world.given_up_after(watchdog, load=0, for_s=100) is None
    assert watchdog.lost_s == pytest.approx(100, abs=1)
    assert world.given_up_after(watchdog, load=0) is not None


def test_where_all_stood_still_for_an_hour_nobody_is_given_up(world: World, watchdog: Watchdog) -> None:
    assert world.given_up_after(watchdog, load=0, for_s=200) is None
    world.now_s += 3600
    watchdog.look(1)
    assert watchdog.lost_s == 3599
    assert world.given_up_after(watchdog, load=0) == pytest.approx(LIMIT_S - 201, abs=1)
