"""What docs/architecture.md says under "Where to go", done: doubles for its first rows.

An encoder and a slot have theirs, which run over doubles as well: tests/encode/test_conformance.py and
tests/jobs/slots/test_slot_conformance.py.
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np
import pytest
from pydantic import model_validator

from protocol.schema import RenderRequest
from renderer import render as render_here
from renderer.config import FetchSettings, RenderSettings, RequestLimits
from renderer.errors import DecodeFailed, StillreelError, UnsupportedFormat, UnsupportedSound
from renderer.frontends.intake import Door, Intake
from renderer.geometry import Size
from renderer.intake import parse_request, render_job
from renderer.jobs.engine import Engine
from renderer.media.describe import describe
from renderer.media.sound import formats as sounds
from renderer.pictures import decode, formats, header, recognise
from renderer.pictures.formats import Header
from renderer.pictures.marks import Marks
from renderer.pipeline import render
from tests.conftest import WriteImage
from tests.daemon_process import request, still
from tests.jobs.factories import FETCH, running
from tests.jobs.fake_slot import FakeSlot
from tests.media.sound.made import coded, tone


class LineDoor:
    """A door that takes a request in each line of a TCP connection, and answers each with a line when it has ended."""

    def __init__(self, engine: Engine, intake: Intake) -> None:
        self._engine = engine
        self._intake = intake

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(json.dumps(await self._answer(json.loads(line))).encode() + b"\n")
        writer.close()
        await writer.wait_closed()

    async def _answer(self, document: dict[str, Any]) -> dict[str, Any]:
        try:
            accepted = await self._intake.accept(parse_request(document), Door("lines"))
        except StillreelError as error:
            return {"error": str(error)}
        *_, ended = [job async for job in self._engine.updates(accepted.id, heartbeat_s=1.0)]
        return {"state": ended.state.value, "frames": ended.result.frames if ended.result else None}


def test_a_door_calls_the_intake_and_follows_the_engine(tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with running(tmp_path, open_slot=FakeSlot) as at:
            door = LineDoor(at.engine, at.intake)
            server = await asyncio.start_server(door.serve, "127.0.0.1")
            async with server, asyncio.timeout(30):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                for document in (request(still(frames=7)), {"images": []}):
                    writer.write(json.dumps(document).encode() + b"\n")
                answers = [json.loads(await reader.readline()) for _ in range(2)]
                writer.close()
                await writer.wait_closed()
                return answers

    done, refused = asyncio.run(scenario())
    assert done == {"state": "done", "frames": 7}
    assert refused["error"].startswith("images: ")


def flat_header(data: bytes) -> Header:
    return Header("Flat", "RGB", Size(data[4], data[5]))


def read_flat(data: bytes, found: Header, _factor: int) -> np.ndarray:
    if len(data) != 9:
        raise DecodeFailed(f"expected a Flat image of 9 bytes, found {len(data)}")
    return np.full((found.size.height, found.size.width, 3), list(data[:5:-1]), np.uint8)


@pytest.fixture
def with_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a format: FLAT, two bytes for the sides, and the one colour of all pixels."""
    monkeypatch.setitem(recognise._FORMATS, "Flat", re.compile(rb"FLAT"))
    monkeypatch.setitem(header._PARSERS, "Flat", flat_header)
    monkeypatch.setitem(formats.DECODERS, "Flat", {"RGB": formats.OURS})
    monkeypatch.setitem(decode._READERS, "Flat", read_flat)


def test_an_input_format_is_a_row_and_a_reader(with_flat: None, tmp_path: Path) -> None:
    (tmp_path / "a.flat").write_bytes(b"FLAT" + bytes((64, 48, 200, 100, 50)))
    fetch = FetchSettings(allow_roots=(tmp_path,))
    job = render_job(parse_request(request({"url": str(tmp_path / "a.flat"), "frames": 2})), RequestLimits(), fetch)
    render(job, tmp_path / "out.mp4", RenderSettings(fetch=fetch))
    with av.open(str(tmp_path / "out.mp4")) as video:
        shown = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in shown] == [(48, 64, 3)] * 2
    assert np.abs(cv2.mean(shown[0])[:3] - np.array([50, 100, 200])).max() < 3


def test_a_file_of_a_format_without_a_row_reaches_no_reader() -> None:
    with pytest.raises(UnsupportedFormat):
        decode.decode(b"FLAT" + bytes(5), background=(0, 0, 0), max_pixels=100)


def test_a_sound_format_is_a_row(monkeypatch: pytest.MonkeyPatch, write_image: WriteImage, tmp_path: Path) -> None:
    write_image("a.png")
    coded(tone(0.5), tmp_path / "a.aiff")
    fields = {"images": [{"url": "a.png", "frames": 24}], "audio": [{"url": "a.aiff"}]}
    with pytest.raises(UnsupportedSound, match="AIFF"):
        render_here(fields, tmp_path / "out.mp4", base=tmp_path)
    row = sounds._row("AIFF", rb"FORM....AIF[FC]", "aiff", "pcm_s16be", length=True)
    monkeypatch.setattr(sounds, "CONTAINERS", (*sounds.CONTAINERS, row))
    assert render_here(fields, tmp_path / "out.mp4", base=tmp_path).audio.duration == pytest.approx(0.5)
    said = describe((tmp_path / "a.aiff").read_bytes(), "a.aiff", ("media_url",), RenderSettings(), Marks())
    assert (said.container, said.content_type, said.duration) == ("aiff", "audio/aiff", 0.5)


class Repeated(RenderRequest):
    """A request with one more field."""

    times: int = 1

    @model_validator(mode="after")
    def _repeat(self) -> Self:
        """Show all images as often."""
        return self.model_copy(update={"images": self.images * self.times, "times": 1}) if self.times > 1 else self


def test_a_field_of_the_request_is_known_from_the_schema_to_the_frames(tmp_path: Path) -> None:
    asked = Repeated.model_validate(request(still(frames=3), times=4))
    job = render_job(asked, RequestLimits(), FETCH)
    assert job.timeline.holds == (3, 3, 3, 3)
    assert render(job, tmp_path / "out.mp4").facts.frames == 12
    assert Repeated.model_json_schema()["properties"]["times"]["default"] == 1
