"""The table of states: what may follow what, what clients read, and the picture that is drawn from it."""

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest

from renderer.jobs.job import MOVES, WORDS, State
from tests.jobs.factories import FAULT, make_job

DOCS = Path(__file__).parents[2] / "docs" / "jobs.md"


@pytest.mark.parametrize(("before", "after"), list(product(State, State)), ids=lambda state: state.value)
def test_only_the_moves_of_the_table_are_allowed(before: State, after: State) -> None:
    job = make_job(state=before)
    if (before, after) in MOVES:
        assert job.moved(after, attempts=2) == make_job(state=after, attempts=2)
    else:
        with pytest.raises(ValueError, match=f"job a cannot move from {before.name} to {after.name}"):
            job.moved(after)


def test_the_table_is_the_one_that_was_agreed_on() -> None:
    assert {(before.value, after.value) for before, after in MOVES} == {
        ("queued", "running"),
        ("queued", "cancelled"),
        ("queued", "expired"),
        ("running", "queued"),
        ("running", "done"),
        ("running", "failed"),
        ("running", "cancelled"),
    }


def test_a_job_is_finished_when_nothing_can_follow() -> None:
    last = {State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED}
    assert {state for state in State if make_job(state=state).is_finished} == last
    assert {state for state in State if WORDS[state] == "COMPLETED"} == last


def test_a_status_tells_how_it_ended_and_when() -> None:
    status = make_job(state=State.FAILED, attempts=2, error=FAULT, started_at=1.5, finished_at=2.5).status(None)
    assert (status.status, status.state, status.attempts, status.error) == ("COMPLETED", "failed", 2, FAULT)
    assert status.accepted_at == datetime(2023, 11, 14, 22, 13, 20, 250_000, UTC)
    assert (status.started_at, status.finished_at) == (
        datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC),
        datetime(1970, 1, 1, 0, 0, 2, 500_000, UTC),
    )


def test_a_status_of_a_job_that_waits_tells_its_place_and_no_times_that_are_not_there() -> None:
    status = make_job().status(3)
    assert (status.status, status.queue_position) == ("IN_QUEUE", 3)
    assert (status.started_at, status.finished_at, status.error) == (None, None, None)


def diagram() -> str:
    """Draw the table of moves in Mermaid's notation (https://mermaid.js.org/syntax/stateDiagram.html)."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.QUEUED.value}: accepted and stored"]
    lines += [f"    {before.value} --> {after.value}: {why}" for (before, after), why in MOVES.items()]
    lines += [f"    {state.value} --> [*]" for state in State if state.is_last]
    return "\n".join(lines)


def test_the_diagram_has_every_state_and_every_move() -> None:
    lines = [line.strip() for line in diagram().splitlines()]
    assert lines[0] == "stateDiagram-v2"
    arrows = {tuple(line.partition(":")[0].split(" --> ")) for line in lines[1:]}
    moves = {(before.value, after.value) for before, after in MOVES}
    ends = {(state.value, "[*]") for state in State if state.is_last}
    assert arrows == moves | ends | {("[*]", "queued")}


def test_the_documentation_shows_the_diagram_of_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```\n" in DOCS.read_text(encoding="utf-8")
