"""An engine whose process is killed between two steps of a job's life, and what the next one makes of it."""

import asyncio
import subprocess
import sys
from pathlib import Path

from renderer.jobs.job import State
from tests.daemon_process import request
from tests.jobs.factories import left, running, stored_in
from tests.jobs.fake_slot import FakeSlot

STEPS = {
    "JobStore._show 1": "accepted, and not seen yet",
    "JobStore.flushed 1": "accepted, and not flushed",
    "Engine._attempt 1": "begun, which is stored",
    "JobStore.end 1": "its video has its name",
    "JobStore.flushed 2": "its end is stored, and not flushed",
    "JobStore._show 3": "its end is flushed, and not seen",
    "Engine._conclude 1": "its end is seen",
    "Places.clean 1": "all but what it leaves is done",
}
KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from renderer.jobs.engine import Engine
from renderer.jobs.outcome import Places
from renderer.jobs.store import JobStore
from tests.daemon_process import request, still
from tests.jobs.factories import running
from tests.jobs.fake_slot import FakeSlot

def kill_before(owner, name, count):
    real, calls = getattr(owner, name), []
    def called(*args, **named):
        calls.append(name)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **named)
    setattr(owner, name, called)

async def play(directory):
    async with running(directory, open_slot=FakeSlot) as at:
        await at.accept(request(request_id="a"))
        await at.finished("a")

for number, step in enumerate(sys.argv[2:]):
    if os.fork() == 0:
        place, count = step.split()
        owner, name = place.split(".")
        kill_before(globals()[owner], name, int(count))
        asyncio.run(play(Path(sys.argv[1]) / str(number)))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_kill_between_any_two_steps_loses_no_job_that_was_stored_and_renders_none_again_that_has_ended(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", KILLED, tmp_path, *STEPS]
    killed = subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True, text=True)
    assert killed.stdout.split() == ["-9"] * len(STEPS), killed.stderr

    async def go_on(directory: Path, *, has_ended: bool) -> None:
        opened: list[FakeSlot] = []

        def open_slot(address: str) -> FakeSlot:
            opened.append(FakeSlot(address))
            return opened[-1]

        assert stored_in(directory / "jobs.sqlite3", "a").is_finished is has_ended
        async with running(directory, open_slot=open_slot) as at:
            job = await at.accept(request(request_id="a"))
            assert (await at.finished("a")).state is State.DONE
            assert job.number == at.store.last_number() == 1
            assert [slot.begun for slot in opened] in ([[]], []) if has_ended else [["a"]]

    for number, (step, moment) in enumerate(STEPS.items()):
        directory = tmp_path / str(number)
        asyncio.run(go_on(directory, has_ended=step in list(STEPS)[4:]))
        assert left(directory / "outputs") == ["a/video.mp4"], moment
        assert left(directory / "attachments") == [], moment
