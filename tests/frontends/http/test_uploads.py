"""The directory of uploads: what comes, what stays, what goes, and how much room it all takes."""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from renderer.config import RetentionSettings
from renderer.errors import StorageFull
from renderer.frontends.http.links import Links
from renderer.frontends.http.schema import ImagesToVideoInput
from renderer.frontends.http.uploads import AlreadyThere, Upload, Uploads
from renderer.observe import descriptors

TOKEN, OTHER = "a" * 32, "b" * 32
HERE = Links("http://here", "http://here/queue")


def at(directory: Path, room_bytes: int = 1000) -> Uploads:
    return Uploads(directory / "uploads", RetentionSettings(uploads_bytes=room_bytes))


def lasting(life_s: float = 1000) -> Upload:
    return Upload("image/png", "a.png", time.time() + life_s, 0)


async def of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def age(directory: Path) -> None:
    """Let everything seem to be long there."""
    for path in directory.glob("uploads/**/*"):
        os.utime(path, (1, 1))


def kept(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "uploads").iterdir())


def test_a_file_that_comes_slowly_is_not_swept_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        has_begun, may_end = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * (1 << 20)
            has_begun.set()
            await may_end.wait()
            yield b"y"

        uploads = at(tmp_path, 1 << 30)
        writing = asyncio.create_task(uploads.write(TOKEN, lasting(), slow()))
        await has_begun.wait()
        age(tmp_path)
        await uploads.sweep()
        may_end.set()
        await writing
        assert uploads.path(TOKEN).read_bytes() == b"x" * (1 << 20) + b"y"
        assert kept(tmp_path) == [TOKEN]

    asyncio.run(scenario())


def test_a_file_that_takes_longer_than_its_life_lives_from_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)

        async def slow() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(0.3)

        await uploads.write(TOKEN, lasting(0.2), slow())
        assert uploads.about(TOKEN) is not None

    asyncio.run(scenario())


def test_the_same_file_sent_again_and_again_takes_its_room_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        for _ in range(20):
            await uploads.write(TOKEN, lasting(), of(b"x" * 400))
        await uploads.write(OTHER, lasting(), of(b"y" * 600))
        with pytest.raises(StorageFull):
            await uploads.write("c" * 32, lasting(), of(b"z"))

    asyncio.run(scenario())


def test_another_file_for_the_same_place_is_refused_and_takes_no_room(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        await uploads.write(TOKEN, lasting(), of(b"x" * 400))
        for _ in range(5):
            with pytest.raises(AlreadyThere):
                await uploads.write(TOKEN, lasting(), of(b"y" * 400))
        assert uploads.path(TOKEN).read_bytes() == b"x" * 400
        await uploads.write(OTHER, lasting(), of(b"z" * 600))
        assert kept(tmp_path) == [TOKEN, OTHER]

    asyncio.run(scenario())


def test_of_two_files_that_come_to_one_place_at_once_one_is_kept_whole(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        both = [uploads.write(TOKEN, lasting(), of(*[letter * 10] * 9)) for letter in (b"x", b"y")]
        ends = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["AlreadyThere", "NoneType"]
        assert len(set(uploads.path(TOKEN).read_bytes())) == 1
        assert kept(tmp_path) == [TOKEN]

    asyncio.run(scenario())


def test_what_goes_gives_its_room_back_whoever_counts(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        await uploads.write(TOKEN, lasting(), of(b"x" * 900))
        again = at(tmp_path)
        with pytest.raises(StorageFull):
            await again.write(OTHER, lasting(), of(b"y" * 200))
        assert kept(tmp_path) == [TOKEN]
        await uploads.write(OTHER, lasting(0.01), of(b"y" * 100))
        await asyncio.sleep(0.02)
        await uploads.sweep()
        assert kept(tmp_path) == [TOKEN]
        await uploads.write(OTHER, lasting(), of(b"y" * 100))

    asyncio.run(scenario())


def test_a_place_whose_file_is_over_may_be_used_before_the_sweep(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        await uploads.write(TOKEN, lasting(-1), of(b"x" * 900))
        with pytest.raises(StorageFull):
            await uploads.write(TOKEN, lasting(), of(b"y" * 200))
        await uploads.write(TOKEN, lasting(), of(b"y" * 100))
        assert uploads.path(TOKEN).read_bytes() == b"y" * 100
        await uploads.write(OTHER, lasting(), of(b"z" * 900))

    asyncio.run(scenario())


def test_what_a_request_is_being_given_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = at(tmp_path)
        await uploads.write(TOKEN, lasting(0.2), of(b"x"))
        asked = ImagesToVideoInput.model_validate({"images": [{"url": f"http://here/files/{TOKEN}/a.png"}]})
        with uploads.taken(asked, HERE, lambda _: None) as (_, [path]):
            await asyncio.sleep(0.25)
            await uploads.sweep()
            assert path.exists()
        await uploads.sweep()
        assert not path.exists()

    asyncio.run(scenario())


def test_what_a_killed_daemon_has_left_goes(tmp_path: Path) -> None:
    for name in (".coming-1", ".going-2", TOKEN):
        (tmp_path / "uploads" / name).mkdir(parents=True)
        (tmp_path / "uploads" / name / "content").write_bytes(b"x")
    asyncio.run(at(tmp_path).sweep())
    assert kept(tmp_path) == []


def test_a_want_of_descriptors_removes_nothing_and_ends_no_sweeping(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_shortage", descriptors._Shortage())  # another test's would not be told again

    async def scenario() -> None:
        uploads = at(tmp_path)
        await uploads.write(TOKEN, lasting(), of(b"x"))
        with no_descriptors():
            sweeping = asyncio.create_task(uploads.run())
            while "no more files can be opened" not in caplog.text:  # noqa: ASYNC110 - the log tells
                await asyncio.sleep(0.01)
        assert not sweeping.done()
        assert uploads.about(TOKEN) is not None
        sweeping.cancel()

    asyncio.run(scenario())


@contextmanager
def no_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
