"""The log's lines for who is not let in."""

import logging

import pytest

from renderer.frontends.refusals import Refusals

KEY = "its key is not known"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_the_same_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for clock.now in (0, 1, 599, 600, 601):
        refusals.note("192.0.2.1", KEY)
    assert lines(caplog) == ["refused 192.0.2.1: its key is not known"] * 2


def test_a_flood_from_everywhere_is_counted_and_not_written(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    refusals = Refusals(clock)
    for number in range(5000):
        refusals.note(f"2001:db8::{number:x}", KEY)
    assert len(lines(caplog)) == 30
    clock.now = 60
    refusals.note("192.0.2.1", KEY)
    assert lines(caplog)[30:] == ["refused 4970 more, too many to name", "refused 192.0.2.1: its key is not known"]


def test_nobody_in_particular_is_worth_a_line_only_where_nobody_was_named(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(Clock())
    refusals.note("", "it hung up")
    refusals.note("192.0.2.1", KEY)
    refusals.note("", KEY)
    assert lines(caplog) == ["refused somebody: it hung up", "refused 192.0.2.1: its key is not known"]
