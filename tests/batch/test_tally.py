"""Counts add up, and speed and end are told once they can be told."""

from typing import Any

import pytest

from protocol.schema import Fault, Progress
from renderer.batch.run import Failure, Tally


class Clock:
    def __init__(self) -> None:
        self.time_s = 1000.0

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tally(clock: Clock) -> Tally:
    return Tally(now=clock)


def progress(images_done: int = 0, images: int = 4, frames: int = 100) -> Progress:
    done = frames * images_done // images
    return Progress(images_done=images_done, images=images, frames=frames, frames_done=done, stage="rendering")


def failure(**fields: Any) -> Failure:
    return Failure("a.json", Fault(type="invalid_params", message="wrong", **fields))


def test_what_is_settled_is_done_skipped_failed_or_no_manifest(tally: Tally) -> None:
    tally.total = 10
    tally.begin("0", "a.json", progress())
    tally.begin("1", "b.json", progress())
    tally.finish("0", 100)
    tally.skipped += 3
    tally.ignored += 2
    tally.fail(failure(), "1")
    tally.fail(failure())
    assert (tally.done, tally.failed, tally.settled, tally.expected, tally.frames) == (1, 2, 8, 10, 100)
    assert tally.running == {}


def test_the_number_of_files_does_not_change_when_some_are_no_manifests(tally: Tally) -> None:
    tally.total = 3
    seen = [(tally.settled, tally.expected)]
    for name in ("a.json", "b.json"):
        tally.ignore(name)
        seen.append((tally.settled, tally.expected))
    assert seen == [(0, 3), (1, 3), (2, 3)]
    assert tally.has_found_nothing


def test_manifests_that_come_while_it_runs_are_counted(tally: Tally) -> None:
    assert tally.expected is None
    tally.total = 1
    tally.skipped = 3
    tally.begin("0", "a.json", progress())
    assert tally.expected == 4


def test_news_of_what_has_ended_is_of_no_interest(tally: Tally) -> None:
    tally.begin("0", "a.json", progress())
    tally.finish("0", 100)
    tally.advance("0", progress(1))
    assert tally.running == {}


def test_frames_per_second_count_from_the_first_video(tally: Tally, clock: Clock) -> None:
    clock.time_s += 60
    assert tally.frames_per_s is None
    tally.begin("0", "a.json", progress())
    assert tally.frames_per_s is None
    clock.time_s += 10
    tally.advance("0", progress(2))
    assert tally.frames_per_s == 5
    tally.finish("0", 100)
    assert tally.frames_per_s == 10
    assert tally.elapsed_s == 70


def test_the_end_is_told_from_what_was_rendered_and_not_from_what_was_skipped(tally: Tally, clock: Clock) -> None:
    tally.total = 110
    tally.skipped = 100
    tally.begin("0", "a.json", progress())
    clock.time_s += 10
    assert tally.eta_s is None
    tally.advance("0", progress(2))
    assert tally.eta_s == pytest.approx(190)
    tally.finish("0", 100)
    assert tally.eta_s == pytest.approx(90)
    tally.total = None
    assert tally.eta_s is None


def test_the_end_is_not_guessed_in_the_first_moments(tally: Tally, clock: Clock) -> None:
    tally.total = 10
    tally.begin("0", "a.json", progress())
    clock.time_s += 1
    tally.finish("0", 100)
    assert tally.eta_s is None
    clock.time_s += 1
    assert tally.eta_s == pytest.approx(18)
