"""Jobs of the other kinds in a worker process: under its limits, and a decoder that hangs is its file's fault."""

import asyncio
from pathlib import Path

import pytest

from protocol.media import ExtractFrame, MediaRequest, MergeAudioVideo, Metadata
from protocol.schema import Fault
from renderer.config import PictureSettings
from renderer.jobs.slots.base import Ending, RenderTask
from renderer.work import MediaJob, MediaReport
from tests.jobs.factories import SETTINGS
from tests.jobs.test_slot import bench
from tests.media.made import Make
from tests.media.sound.made import tone, wav


def ending(directory: Path, *requests: MediaRequest, **pictures: float) -> list[Ending]:
    """Return how attempts at these jobs end, one after the other in one worker."""
    settings = SETTINGS.model_copy(update={"pictures": PictureSettings(**pictures)})
    tasks = [
        RenderTask(str(number), MediaJob(request, any_path=True), directory / f"{number}.mp4", settings)
        for number, request in enumerate(requests)
    ]

    async def scenario() -> list[Ending]:
        async with bench(directory) as at:
            return [await at.slot.run(task) for task in tasks]

    return asyncio.run(scenario())


def test_each_kind_leaves_the_files_that_its_report_names(video: Make, tmp_path: Path) -> None:
    clip, sound = str(video("loud.mp4")), tmp_path / "a.wav"
    sound.write_bytes(wav(tone(0.5)))
    found = ending(
        tmp_path,
        MergeAudioVideo(video_url=clip, audio_url=str(sound)),
        ExtractFrame(video_url=clip),
        Metadata(media_url=clip, extract_frames=True),
    )
    made = [report.files(tmp_path / f"{number}.mp4") for number, report in enumerate(found)]
    assert all(isinstance(report, MediaReport) for report in found)
    names = [[file.name for file in files] for files in made]
    assert names == [["0.mp4"], ["1.png"], ["2.first.png", "2.last.png"]]
    assert all(file.stat().st_size for files in made for file in files)


@pytest.mark.parametrize("field", ["video_url", "media_url"])
def test_a_decoder_that_takes_too_long_is_the_files_fault(video: Make, tmp_path: Path, field: str) -> None:
    """The last frame needs all that came before, which takes many times the limit."""
    clip = str(video("large.mp4"))
    last = ExtractFrame(video_url=clip, frame_type="last")
    wanted = last if field == "video_url" else Metadata(media_url=clip, extract_frames=True)
    [fault] = ending(tmp_path, wanted, decode_timeout_s=0.01)
    assert isinstance(fault, Fault)
    assert (fault.type, fault.loc) == ("video_load_error", (field,))
