from itertools import product
from pathlib import Path

import pytest

from protocol.schema import Progress, RenderRequest
from renderer.jobs.job import MOVES, Job, State
from renderer.jobs.store import JobStore
from renderer.pipeline import RenderJob
from renderer.timeline import frame_rate, timeline


def make_job(job_id: str = "a", number: int = 1, **fields: object) -> Job:
    request = RenderRequest.model_validate({"images": [{"url": "a.png"}], **fields})
    work = RenderJob(request, timeline(request.images, frame_rate(request.fps)))
    return Job(job_id, work, "digest", number, Path(job_id), Progress(images=1, frames=1))


def in_state(state: State) -> Job:
    job = make_job()
    if state is State.QUEUED:
        return job
    running = job.moved(State.RUNNING)
    return running if state is State.RUNNING else running.moved(state)


@pytest.mark.parametrize(("before", "after"), list(product(State, State)))
def test_only_the_moves_of_the_table_are_allowed(before: State, after: State) -> None:
    job = in_state(before)
    if after in MOVES[before]:
        assert job.moved(after).state is after
    else:
        with pytest.raises(ValueError, match=f"job a cannot move from {before.name} to {after.name}"):
            job.moved(after)


def test_a_job_is_finished_when_nothing_can_follow() -> None:
    assert [state for state in State if in_state(state).is_finished] == [State.DONE, State.FAILED]


def test_low_priority_waits_for_all_normal_jobs_however_late_they_came() -> None:
    jobs = [
        make_job("low", 1, priority="low"),
        make_job("second", 3),
        make_job("first", 2),
        make_job("last", 4, priority="low"),
    ]
    assert [job.id for job in sorted(jobs, key=lambda job: job.turn)] == ["first", "second", "low", "last"]


def test_the_store_forgets_the_oldest_finished_jobs_only() -> None:
    store = JobStore(keep_finished=2)
    for number, name in enumerate("abcd"):
        store.put(make_job(name, number))
    for name in "cab":
        running = store.put(store.get(name).moved(State.RUNNING))
        store.put(running.moved(State.FAILED))
    assert [job.id for job in store.retire()] == ["c"]
    assert [job.id for job in store] == ["a", "b", "d"]
    assert store.retire() == []
    assert store.get("c") is None
    assert [job.id for job in store.in_state(State.QUEUED)] == ["d"]


def test_a_job_put_again_keeps_its_place_in_order_of_arrival() -> None:
    store = JobStore(keep_finished=2)
    for name in "ab":
        store.put(make_job(name))
    store.put(store.get("a").moved(State.RUNNING))
    assert [job.id for job in store] == ["a", "b"]
    assert len(store) == 2
