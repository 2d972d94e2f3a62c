"""Whose a job is when several ask for it, and which job a link opens."""

import asyncio
import itertools
import sqlite3
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from protocol.schema import RenderParams
from renderer.frontends.http.links import Tokens
from renderer.frontends.intake import Door
from tests.daemon_process import Gate, Start, request, wait_until
from tests.jobs.factories import RESULT, make_job, running
from tests.served import APP, RUN, Served


@pytest.mark.parametrize("waits", list(itertools.product([True, False], repeat=3)))
def test_a_job_is_waited_for_only_as_long_as_nobody_asked_otherwise(tmp_path: Path, waits: tuple[bool, ...]) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            params = RenderParams.model_validate(request(request_id="one"))
            asking = [at.intake.accept(params, Door("http:a", waits=each), ()) for each in waits]
            jobs = await asyncio.gather(*asking)
            assert {job.id for job in jobs} == {"one"}
            assert at.intake.waited_for == ({"one"} if all(waits) else set())

    asyncio.run(scenario())


def test_a_run_that_is_dropped_leaves_a_job_alone_that_another_door_was_promised(served: Served, gate: Gate) -> None:
    asked = gate.request(request_id="promised")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(served.daemon.http + RUN, json=asked, timeout=httpx.Timeout(10, read=0.5))
    # Dropped this moment; asked for again within the grace, by one who does not wait.
    served.daemon.client.submit(asked)
    time.sleep(0.8)
    served.daemon.wait_for("promised")
    gate.open()
    served.daemon.wait_for("promised", "COMPLETED")
    assert served.result("promised").status_code == 200


def test_a_link_does_not_open_the_video_of_a_later_job_with_the_same_id(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path)
    first = make_job("mine", 1, result=RESULT)
    second, third = replace(first, number=2), replace(first, accepted_at=first.accepted_at + 1)
    assert tokens.file_of(tokens.result(first, "video"), lambda _: first) == (first, RESULT.video)
    for later in (second, third):
        assert tokens.file_of(tokens.result(first, "video"), lambda _, later=later: later) is None


def test_a_link_is_dead_once_its_job_is_forgotten_and_the_id_is_used_again(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0")
    old = httpx.post(daemon.http + RUN, json=request(request_id="mine")).json()["video"]["url"]
    assert daemon.stop() == 0
    with sqlite3.connect(daemon.data_dir / "jobs.sqlite3") as database:
        database.execute("UPDATE jobs SET finished_at = 1")
    again = start("--http", "127.0.0.1:0")
    status = f"{again.http}/queue/{APP}/requests/mine/status"
    wait_until(lambda: httpx.get(status).status_code == 404, "forgotten")
    new = httpx.post(again.http + RUN, json=request(request_id="mine")).json()["video"]["url"]
    assert httpx.get(new).status_code == 200
    assert httpx.get(old.replace(daemon.http, again.http)).status_code == 404
