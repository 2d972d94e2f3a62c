"""Whose turn it is: normal before low, clients in turn, each client's jobs in order of arrival."""

import asyncio
import random
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from renderer.jobs.queue import FairQueue, WaitingJobs
from tests.jobs.factories import make_job


def filled(*jobs) -> FairQueue:
    queue = FairQueue()
    for job in jobs:
        queue.push(job)
    return queue


def taken(queue: FairQueue, *, has_nvenc: bool = True) -> str:
    _, job_id, _ = queue.take(has_nvenc=has_nvenc)
    return job_id


def emptied(queue: FairQueue) -> list[str]:
    return [taken(queue) for _ in range(len(queue))]


def line(client: str, count: int, first_number: int = 1, priority: str = "normal"):
    return [
        make_job(f"{client}{index}", first_number + index, client=client, priority=priority) for index in range(count)
    ]


def test_one_clients_jobs_run_in_order_of_arrival() -> None:
    assert emptied(filled(*line("a", 3))) == ["a0", "a1", "a2"]


def test_a_client_with_one_job_waits_for_one_of_anothers_fifty() -> None:
    assert emptied(filled(*line("a", 50), *line("b", 1, 51)))[:3] == ["a0", "b0", "a1"]


def test_clients_take_turns_until_each_is_through() -> None:
    queue = filled(*line("a", 4), *line("b", 2, 5), *line("c", 1, 7))
    assert emptied(queue) == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_client_that_comes_while_others_take_turns_gets_the_next_round() -> None:
    queue = filled(*line("a", 3), *line("b", 3, 4))
    assert taken(queue) == "a0"
    queue.push(make_job("late", 10, client="c"))
    assert emptied(queue) == ["b0", "a1", "late", "b1", "a2", "b2"]


def test_low_priority_waits_for_all_normal_jobs_however_late_they_came() -> None:
    queue = filled(*line("low", 2, 1, "low"), *line("a", 2, 3), *line("b", 1, 5))
    assert emptied(queue) == ["a0", "b0", "a1", "low0", "low1"]


def test_low_jobs_take_turns_too() -> None:
    queue = filled(*line("a", 3, 1, "low"), *line("b", 1, 4, "low"))
    assert emptied(queue) == ["a0", "b0", "a1", "a2"]


def test_a_job_that_comes_back_stands_where_its_arrival_puts_it() -> None:
    jobs = line("a", 3)
    queue = filled(*jobs)
    queue.take()
    queue.push(jobs[0])
    assert emptied(queue) == ["a0", "a1", "a2"]


def test_nothing_waits_in_an_empty_queue() -> None:
    with pytest.raises(IndexError, match="nothing waits"):
        taken(FairQueue())


def test_a_discarded_job_is_gone_and_a_stranger_does_no_harm() -> None:
    jobs = line("a", 2)
    queue = filled(*jobs)
    queue.discard(jobs[0])
    queue.discard(jobs[0])
    queue.discard(make_job("z", 9, client="nobody"))
    assert (len(queue), emptied(queue)) == (1, ["a1"])
    assert queue.ahead(jobs[0]) == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_number_ahead_is_how_many_are_taken_before(seed: int) -> None:
    rolls = random.Random(seed)
    queue, waiting = FairQueue(), {}
    for number in range(1, 60):
        job = make_job(
            f"{number}", number, client=rolls.choice("abcd"), priority=rolls.choice(["normal", "normal", "low"])
        )
        queue.push(job)
        waiting[job.id] = job
        if rolls.random() < 0.3:
            del waiting[taken(queue)]
        if rolls.random() < 0.1 and waiting:
            queue.discard(waiting.pop(rolls.choice(list(waiting))))
    foretold = {job.id: queue.ahead(job) for job in waiting.values()}
    assert foretold == {job_id: index for index, job_id in enumerate(emptied(queue))}
    assert len(foretold) == len(waiting)


def demanding(job_id: str, number: int, client: str = "c"):
    return make_job(job_id, number, client=client, needs_nvenc=True)


def test_a_job_that_demands_a_gpu_lets_others_pass_where_there_is_none_and_keeps_its_turn() -> None:
    queue = filled(demanding("gpu", 1), make_job("any", 2, client="c"), make_job("other", 3, client="d"))
    assert [taken(queue, has_nvenc=False) for _ in range(2)] == ["any", "other"]
    with pytest.raises(IndexError, match="nothing waits"):
        queue.take(has_nvenc=False)
    queue.push(make_job("late", 4, client="c"))
    assert (queue.ahead(demanding("gpu", 1)), taken(queue), taken(queue)) == (0, "gpu", "late")


def test_a_job_that_demands_a_gpu_wakes_a_place_that_has_one() -> None:
    async def play() -> None:
        waiting = WaitingJobs()
        without, having = (asyncio.create_task(waiting.take(has_nvenc=has_nvenc)) for has_nvenc in (False, True))
        await settled()
        waiting.push(demanding("gpu", 1))
        assert await having == "gpu"
        assert not without.done()
        waiting.push(make_job("any", 2))
        assert await without == "any"

    asyncio.run(play())


def test_a_job_that_woke_a_place_which_takes_another_is_taken_by_the_next() -> None:
    async def play() -> None:
        waiting = WaitingJobs()
        having, without = (asyncio.create_task(waiting.take(has_nvenc=has_nvenc)) for has_nvenc in (True, False))
        await settled()
        waiting.push(make_job("any", 1, priority="low"))
        waiting.push(demanding("gpu", 2))
        await settled()
        assert (having.result(), without.result()) == ("gpu", "any")

    asyncio.run(play())


class Counted(Coroutine[Any, Any, str]):
    """A coroutine that counts how often it goes on."""

    turns = 0

    def __init__(self, inner: Coroutine[Any, Any, str]) -> None:
        self._inner = inner

    def __await__(self) -> Generator[Any, Any, str]:
        return self._inner.__await__()

    def send(self, value: Any) -> Any:
        Counted.turns += 1
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_job_wakes_one_of_those_who_wait_and_no_other() -> None:
    async def play() -> None:
        waiting = WaitingJobs()
        takers = [asyncio.create_task(Counted(waiting.take())) for _ in range(50)]
        await settled()
        Counted.turns = 0
        for job in line("a", 2):
            waiting.push(job)
        await settled()
        assert (Counted.turns, sorted(each.result() for each in takers if each.done())) == (2, ["a0", "a1"])
        for taker in takers:
            taker.cancel()

    asyncio.run(play())


def test_a_job_whose_taker_is_cancelled_as_it_is_woken_goes_to_another() -> None:
    async def play() -> None:
        waiting = WaitingJobs()
        first, second = (asyncio.create_task(waiting.take()) for _ in range(2))
        await settled()
        waiting.push(make_job("a", 1))
        first.cancel()
        assert await second == "a"
        assert first.cancelled()

    asyncio.run(play())


def test_nobody_takes_a_job_out_of_a_closed_queue() -> None:
    async def play() -> None:
        waiting = WaitingJobs()
        taker = asyncio.create_task(waiting.take())
        await settled()
        waiting.push(make_job("a", 1))
        waiting.is_closed = True
        await settled()
        assert not taker.done()
        taker.cancel()

    asyncio.run(play())
