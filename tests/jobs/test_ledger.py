"""What the daemon knows of its jobs at this moment: the store's word, and the progress on top of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from protocol.schema import Progress
from renderer.errors import JobNotFound, StoreFailed
from renderer.jobs.job import State
from renderer.jobs.ledger import Ledger
from renderer.jobs.store import JobStore
from tests.jobs.factories import RESULT, make_job, make_work, put


@pytest.fixture
def store(tmp_path: Path):
    store = JobStore(tmp_path / "jobs.sqlite3")
    yield store
    store.close()


def test_a_ledger_begins_with_what_is_stored(store: JobStore) -> None:
    put(store, make_job("done", 1, state=State.DONE, result=RESULT))
    put(store, make_job("waits", 2))
    put(store, make_job("runs", 3, state=State.RUNNING))
    ledger = Ledger(store)
    assert [job.id for job in ledger.unfinished()] == ["waits", "runs"]
    assert ledger.next_number() == 4
    assert (ledger.count(State.QUEUED), ledger.count(State.RUNNING)) == (1, 1)
    assert ledger.find("done").result == RESULT
    assert (ledger.live("done"), ledger.live("waits")) == (None, make_job("waits", 2))
    with pytest.raises(JobNotFound, match="request_id: no job has this id, or it was forgotten since"):
        ledger.get("nobody")


def test_numbers_go_on_where_the_newest_job_ended(store: JobStore) -> None:
    ledger = Ledger(store)
    for name in "abc":
        ledger.add(make_job(name, ledger.next_number()), make_work())
    assert [job.number for job in ledger.unfinished()] == [1, 2, 3]


def test_what_the_store_refuses_is_not_known(store: JobStore) -> None:
    ledger = Ledger(store)
    ledger.add(make_job(), make_work())
    store._database.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreFailed):
        ledger.add(make_job("b", 2), make_work())
    with ledger.watching("a") as changed:
        with pytest.raises(StoreFailed):
            ledger.move(make_job(state=State.RUNNING))
        assert not changed.is_set()
    assert (ledger.find("b"), ledger.next_number()) == (None, 2)
    assert ledger.get("a").state is State.QUEUED


def test_progress_is_seen_and_not_stored(store: JobStore) -> None:
    ledger = Ledger(store)
    ledger.add(make_job(), make_work())
    job = ledger.move(make_job(state=State.RUNNING))
    further = replace(job, progress=Progress(images=1, frames=2, images_done=1, stage="rendering"))
    with ledger.watching("a") as changed:
        ledger.note(further)
        assert changed.is_set()
    assert ledger.get("a") == further
    assert ledger.newest([State.RUNNING], 9) == [further]
    assert store.get("a") == job


def test_progress_of_another_state_comes_too_late(store: JobStore) -> None:
    ledger = Ledger(store)
    ledger.add(make_job(), make_work())
    running = ledger.move(make_job(state=State.RUNNING))
    waiting = ledger.move(make_job())
    ledger.note(running)
    assert ledger.get("a") == waiting
    ledger.move(make_job(state=State.CANCELLED))
    ledger.note(waiting)
    assert ledger.get("a").state is State.CANCELLED
    assert ledger.unfinished() == []


def test_nothing_is_kept_for_watchers_that_went_away(store: JobStore) -> None:
    ledger = Ledger(store)
    with ledger.watching("a") as one, ledger.watching("a") as other:
        ledger.tell("a")
        assert one.is_set()
        assert other.is_set()
    ledger.tell("a")
    assert ledger._watchers == {}
