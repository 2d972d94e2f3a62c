"""What a request brings along: on disk before it is accepted, gone when it is refused, known or over."""

import asyncio
import re
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from protocol.schema import PixelLayout, RenderParams
from renderer.config import FetchSettings
from renderer.errors import FetchFailed, FileTooLarge, QueueFull, RequestIdConflict, UnsupportedFormat
from renderer.jobs.files import Files
from renderer.jobs.job import State
from renderer.jobs.store import JobStore
from renderer.pictures.fetch import Fetcher
from tests.daemon_process import picture, request, still
from tests.jobs.factories import SETTINGS, left, make_work, running

RED, BLUE = picture((200, 30, 20)), picture((20, 30, 200))


def inline(content: bytes, scheme: str = "data") -> dict[str, object]:
    return {"url": f"{scheme}:,{quote_from_bytes(content)}"}


def test_inline_images_become_files_and_the_same_one_becomes_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            images = [inline(RED), {"url": "cid:0"}, inline(BLUE, "DATA"), inline(RED)]
            job = await at.accept(request(*images, request_id="a"), b"brought")
            work = at.store.work("a")
            assert [image.url for image in work.request.images] == ["cid:1", "cid:0", "cid:2", "cid:1"]
            assert [attachment.path.read_bytes() for attachment in work.attachments] == [b"brought", RED, BLUE]
            assert job.files.parent == at.places.attachments
            assert sorted(path.name for path in job.files.iterdir()) == ["0", "1", "2"]
            assert job.files.stat().st_mode & 0o077 == 0
            [row] = at.store._database.execute("SELECT work FROM jobs").fetchall()
            assert "data:" not in row[0]

    asyncio.run(scenario())


def test_frames_durations_and_layouts_stay_with_their_images(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            images = [inline(RED) | {"duration": 0.5}, {"url": "cid:0", "frames": 3}, inline(BLUE) | {"frames": 5}]
            layout = {"shape": [1, 2, 3]}
            await at.accept(request(*images, request_id="a", attachments=[layout]), bytes(6))
            work = at.store.work("a")
            assert work.timeline.holds == (12, 3, 5)
            assert [attachment.layout for attachment in work.attachments] == [PixelLayout(shape=(1, 2, 3)), None, None]

    asyncio.run(scenario())


def test_a_request_that_brings_nothing_makes_no_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        roots = FetchSettings(allow_roots=(tmp_path,))
        async with running(tmp_path, is_idle=True, render=SETTINGS.model_copy(update={"fetch": roots})) as at:
            job = await at.accept(request({"url": "a.png"}, request_id="a"))
            assert job.files is None
            assert list(at.places.attachments.iterdir()) == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("images", "error", "place"),
    [
        ([{"url": "data:image/png;base64,A"}], FetchFailed, "images[0].url: "),
        (
            [{"url": "data:image/png;base64,!!!!"}, inline(bytes(2000))],
            FetchFailed,
            "; images[1].url: expected at most",
        ),
        ([inline(bytes(2000))], FileTooLarge, "images[0].url: expected at most 1000 bytes"),
        ([{"url": "cid:7"}, {"url": "cid:1"}], FetchFailed, "images[1].url: expected one of 1 attach"),
        ([{"url": "/etc/passwd"}], FetchFailed, "images[0].url: not under a directory"),
    ],
)
def test_a_request_of_which_no_image_can_be_had_is_refused_and_leaves_nothing(
    tmp_path: Path, images, error, place: str
) -> None:
    async def scenario() -> None:
        small = SETTINGS.model_copy(update={"fetch": FetchSettings(max_image_bytes=1000)})
        async with running(tmp_path, is_idle=True, render=small) as at:
            with pytest.raises(error, match=re.escape(place)):
                await at.accept(request(*images, request_id="a"), b"brought")
            assert left(tmp_path) == []
            assert list(at.places.attachments.iterdir()) == []
            assert at.stored("a") is None

    asyncio.run(scenario())


def test_the_same_request_again_leaves_no_second_copy_and_another_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            asked = request(inline(RED), {"url": "cid:0"}, request_id="a")
            first = await at.accept(asked, b"brought")
            assert await at.accept(asked, b"brought", client="another") == first
            for other, brought in [(asked, b"other"), (asked | {"crf": 1}, b"brought"), (asked | {"fps": 25}, b"x")]:
                with pytest.raises(RequestIdConflict):
                    await at.accept(other, brought)
            assert list(at.places.attachments.iterdir()) == [first.files]
            assert len(left(at.places.attachments)) == 2

    asyncio.run(scenario())


def test_of_many_that_come_at_once_one_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            asked = request(inline(RED), request_id="a")
            jobs = await asyncio.gather(*(at.accept(asked) for _ in range(50)))
            assert all(job == jobs[0] for job in jobs)
            assert at.store.last_number() == 1
            assert list(at.places.attachments.iterdir()) == [jobs[0].files]

    asyncio.run(scenario())


def test_of_two_with_one_id_that_come_at_once_one_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            one, other = request(inline(RED), request_id="a"), request(inline(BLUE), request_id="a")
            found = await asyncio.gather(at.accept(one), at.accept(other), return_exceptions=True)
            [kept] = [job for job in found if not isinstance(job, Exception)]
            assert [type(error) for error in found if isinstance(error, Exception)] == [RequestIdConflict]
            assert list(at.places.attachments.iterdir()) == [kept.files]

    asyncio.run(scenario())


def test_a_full_queue_is_told_before_anything_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, is_idle=True, max_queued=0) as at:
            await at.accept(request(request_id="a"))
            before = left(tmp_path)
            with pytest.raises(QueueFull):
                await at.accept(request(inline(b"no image", "data"), request_id="b"))
            assert left(tmp_path) == before

    asyncio.run(scenario())


def test_files_go_when_their_job_has_ended_however_it_did(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            await at.accept(request(inline(RED), request_id="done"))
            await at.accept(request(inline(b"no image"), request_id="failed"))
            await at.accept(request(inline(RED), request_id="cancelled", priority="low"))
            at.engine.cancel("cancelled")
            assert (await at.finished("done")).state is State.DONE
            failed = await at.finished("failed")
            assert (failed.state, failed.error.type) == (State.FAILED, UnsupportedFormat.kind)
            assert failed.error.loc == ("images", 0, "url")
            assert list(at.places.attachments.iterdir()) == []

    asyncio.run(scenario())


def test_a_job_is_rendered_from_its_files_by_the_daemon_that_comes_after(tmp_path: Path) -> None:
    async def first() -> None:
        async with running(tmp_path, is_idle=True) as at:
            raw = {"shape": [1, 1, 3], "order": "BGR"}
            images = [inline(RED), {"url": "cid:0", "frames": 2}, inline(RED), {"url": "cid:1", "frames": 3}]
            await at.accept(request(*images, request_id="a", attachments=[raw, None]), b"abc", BLUE)

    async def second() -> None:
        async with running(tmp_path) as at:
            job = await at.finished("a")
            assert (job.state, job.result.frames) == (State.DONE, 7)

    asyncio.run(first())
    asyncio.run(second())
    assert left(tmp_path) == ["outputs/a/video.mp4"]


def test_what_is_stored_has_no_more_than_the_request(tmp_path: Path) -> None:
    """Jobs that wait are many; pictures are kept beside the store, not in it."""

    async def scenario() -> None:
        async with running(tmp_path, is_idle=True) as at:
            await at.accept(RenderParams.model_validate(request(*[inline(bytes(100_000))] * 5)).model_dump())

    asyncio.run(scenario())
    store = JobStore(tmp_path / "jobs.sqlite3")
    [size] = store._database.execute("SELECT max(length(work)) FROM jobs").fetchone()
    assert size < 2000
    store.close()


def test_what_is_not_wanted_any_more_while_it_is_saved_is_not_there_afterwards(tmp_path: Path) -> None:
    """As where the connection that it came over is given up: no thread can be stopped from outside."""
    half_done, goes_on = threading.Event(), threading.Event()

    class SlowFetcher(Fetcher):
        def fetch(self, url: str) -> Any:
            if (tmp_path / "files").exists():
                half_done.set()
                assert goes_on.wait(60)
            return super().fetch(url)

    files = Files(tmp_path / "files")
    work = make_work(request(still(), still((1, 2, 3))))
    saving = threading.Thread(target=files.save, args=(work, [], SlowFetcher(FetchSettings())))
    saving.start()
    assert half_done.wait(60)
    files.remove()
    goes_on.set()
    saving.join()
    assert list(tmp_path.iterdir()) == []
