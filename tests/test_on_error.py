"""Images that cannot be fetched or read: all named at once, or left out, or covered by the picture before."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from protocol.schema import Fault, Progress
from renderer import render as render_here
from renderer.config import FetchSettings, RenderSettings, RequestLimits
from renderer.errors import (
    DecodeFailed,
    FetchFailed,
    FileTooLarge,
    JobError,
    NotSupported,
    SourceUnavailable,
)
from renderer.intake import Origin, parse_request, render_job
from renderer.pipeline import render
from renderer.work import RenderJob, RenderReport
from tests.cli_process import failed, run
from tests.jobs.factories import running
from tests.net.serving import sends, serving

JobOf = Callable[..., RenderJob]
Shown = Callable[..., list[int]]
QUICK = {"preset": "ultrafast", "crf": 10}


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    ends = time.monotonic() + 30
    while (left := [t.name for t in threading.enumerate() if t.name.startswith("still")]) and time.monotonic() < ends:
        time.sleep(0.01)
    assert left == []


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Pictures of grey: 40.png is of level 40; and bad ones: gone.png is not there, cut.png ends early."""
    for level in range(0, 256, 20):
        Image.new("RGB", (64, 48), (level,) * 3).save(tmp_path / f"{level}.png")
    Image.effect_noise((64, 48), 100).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    (tmp_path / "words.png").write_text("no picture at all")
    return tmp_path


@pytest.fixture
def job_of(stills: Path) -> JobOf:
    """Return a factory: a job from names with their frames, as ("20", 3), or from names of one frame."""

    def job(*images: tuple[str, int] | str, **fields: Any) -> RenderJob:
        listed = [(image, 1) if isinstance(image, str) else image for image in images]
        request = {"images": [{"url": url, "frames": frames} for url, frames in listed], **QUICK, **fields}
        return render_job(parse_request(request), RequestLimits(), FetchSettings(), Origin(base=stills))

    return job


@pytest.fixture
def shown(job_of: JobOf, tmp_path: Path, decode_frames) -> Shown:
    """Return what renders a job and returns the grey level of every frame, rounded to twenties."""
    reports: list[RenderReport] = []

    def render_and_look(*images: tuple[str, int] | str, **fields: Any) -> list[int]:
        reports.append(render(job_of(*images, **fields), tmp_path / "out.mp4"))
        frames = decode_frames(tmp_path / "out.mp4")
        assert len(frames) == reports[-1].facts.frames
        return [round((int(frame.to_ndarray()[0, 0]) - 16) * 255 / 219 / 20) * 20 for frame in frames]

    render_and_look.reports = reports  # type: ignore[attr-defined]
    return render_and_look


def fault_of(job: RenderJob, output: Path, settings: RenderSettings | None = None) -> JobError:
    with pytest.raises(JobError) as caught:
        render(job, output, settings)
    assert [path.name for path in output.parent.iterdir() if path.name.startswith(output.name)] == []
    return caught.value


# fail: all at once.


def test_all_images_that_cannot_be_had_are_named_at_once_the_first_as_the_fault(job_of: JobOf, tmp_path: Path) -> None:
    job = job_of("20.png", "gone.png", "40.png", "cut.png", "words.png", "lost.png", "60.png")
    error = fault_of(job, tmp_path / "out.mp4")
    assert isinstance(error, FetchFailed)
    assert error.loc == ("images", 1, "url")
    fault = error.fault()
    assert (fault.type, fault.loc, fault.retryable) == ("file_download_error", ("images", 1, "url"), False)
    assert [(each["loc"][1], each["type"]) for each in fault.errors] == [
        (1, "file_download_error"),
        (3, "image_load_error"),
        (4, "unsupported_image_format"),
        (5, "file_download_error"),
    ]
    assert fault.message.startswith("images[1].url: no such file; images[3].url: ")
    assert fault.message.endswith("; images[5].url: no such file")


def test_one_image_that_cannot_be_had_is_one_fault_without_a_list(job_of: JobOf, tmp_path: Path) -> None:
    fault = fault_of(job_of("20.png", "gone.png", "40.png"), tmp_path / "out.mp4").fault()
    assert (fault.message, fault.errors) == ("images[1].url: no such file", ())


def test_a_bad_first_image_hides_no_other(job_of: JobOf, tmp_path: Path) -> None:
    error = fault_of(job_of("cut.png", "20.png", "gone.png"), tmp_path / "out.mp4")
    assert isinstance(error, DecodeFailed)
    assert [each.loc[1] for each in (error, *error.others)] == [0, 2]


def test_a_bad_image_that_comes_again_is_named_at_its_first_place(job_of: JobOf, tmp_path: Path) -> None:
    error = fault_of(job_of("gone.png", "20.png", "cut.png", "gone.png", "cut.png"), tmp_path / "out.mp4")
    assert [each.loc[1] for each in (error, *error.others)] == [0, 2]


def test_every_place_of_a_bad_image_is_done_without(shown: Shown) -> None:
    images = [("gone.png", 1), ("20.png", 1), ("gone.png", 2), ("20.png", 3), ("gone.png", 4)]
    assert shown(*images, on_error="hold") == [20] * 11
    (report,) = shown.reports  # type: ignore[attr-defined]
    assert [each.loc[1] for each in report.warnings] == [0, 2, 4]


def test_twenty_bad_images_are_named_and_no_further_one_is_looked_at(job_of: JobOf, tmp_path: Path) -> None:
    job = job_of("20.png", *(f"gone-{number}.png" for number in range(500)))
    fault = fault_of(job, tmp_path / "out.mp4").fault()
    assert [each["loc"][1] for each in fault.errors] == list(range(1, 21))
    assert fault.message.endswith("images[20].url: no such file; others were not looked at")


def test_faults_that_may_pass_are_worth_a_try_only_if_all_may(job_of: JobOf, tmp_path: Path) -> None:
    busy = sends(b"", status=503)
    with serving({"/busy": busy, "/also": busy}) as site:
        fetch = FetchSettings(allow_networks=("127.0.0.0/8",), download_attempts=1)
        settings = RenderSettings(fetch=fetch)
        both = fault_of(job_of("20.png", f"{site.url}/busy", f"{site.url}/also"), tmp_path / "out.mp4", settings)
        mixed = fault_of(job_of("20.png", f"{site.url}/busy", "gone.png"), tmp_path / "out.mp4", settings)
    assert isinstance(both, SourceUnavailable)
    assert isinstance(mixed, SourceUnavailable)
    assert (both.fault().retryable, mixed.fault().retryable) == (True, False)


def test_urls_that_may_not_be_read_are_named_at_once_where_no_other_is_left(job_of: JobOf) -> None:
    with pytest.raises(FetchFailed) as caught:
        job_of("../out.png", "ftp://bucket/a.png", "/etc/passwd")
    assert [(type(each), each.loc[1]) for each in (caught.value, *caught.value.others)] == [
        (FetchFailed, 0),
        (NotSupported, 1),
        (FetchFailed, 2),
    ]


def test_a_daemon_names_urls_that_may_not_be_read_together_with_bad_files(stills: Path) -> None:
    urls = ("20.png", "ftp://bucket/a.png", "gone.png", "/etc/passwd", "cut.png", "words.png")

    async def scenario() -> Fault | None:
        fetch = FetchSettings(allow_roots=(stills,))
        async with running(stills / "data", render=RenderSettings(fetch=fetch)) as at:
            job = await at.accept({"images": [{"url": url} for url in urls]})
            return (await at.finished(job.id)).error

    fault = asyncio.run(scenario())
    assert fault is not None
    assert [(each["loc"][1], each["type"]) for each in fault.errors] == [
        (1, "not_supported"),
        (2, "file_download_error"),
        (3, "file_download_error"),
        (4, "image_load_error"),
        (5, "unsupported_image_format"),
    ]


# skip: the video is shorter.


def test_what_the_command_line_renders_names_bad_urls_files_and_pictures_in_one_answer(stills: Path) -> None:
    urls = ("20.png", "ftp://bucket/a.png", "gone.png", "cut.png", "file://elsewhere/a.png", "words.png")
    with pytest.raises(JobError) as raised:
        render_here({"images": [{"url": url} for url in urls]}, stills / "out.mp4", base=stills)
    fault = raised.value.fault()
    assert [(each["loc"][1], each["type"]) for each in fault.errors] == [
        (1, "not_supported"),
        (2, "file_download_error"),
        (3, "image_load_error"),
        (4, "file_download_error"),
        (5, "unsupported_image_format"),
    ]


def test_skip_leaves_bad_images_out_with_their_time(shown: Shown) -> None:
    images = [("20.png", 2), ("gone.png", 30), ("60.png", 3), ("cut.png", 4), ("80.png", 1)]
    assert shown(*images, on_error="skip") == [20] * 2 + [60] * 3 + [80]
    (report,) = shown.reports  # type: ignore[attr-defined]
    assert [(each.type, each.loc) for each in report.warnings] == [
        ("image_skipped", ("images", 1, "url")),
        ("image_skipped", ("images", 3, "url")),
    ]
    assert report.warnings[0].message == "this image is left out, with its time: no such file"


def test_skip_keeps_every_frame_of_the_others_exact_when_frames_are_coded_one_by_one(shown: Shown) -> None:
    names = [f"{level}.png" for level in (0, 40, 80, 120, 160, 200)]
    names.insert(3, "gone.png")
    assert shown(*names, on_error="skip") == [0, 40, 80, 120, 160, 200]


# hold: the video is as long.


def test_hold_shows_the_picture_before_for_the_time_of_a_bad_one(shown: Shown) -> None:
    images = [("20.png", 2), ("gone.png", 30), ("60.png", 3), ("cut.png", 4), ("words.png", 5), ("80.png", 1)]
    assert shown(*images, on_error="hold") == [20] * 32 + [60] * 12 + [80]
    (report,) = shown.reports  # type: ignore[attr-defined]
    assert {each.type for each in report.warnings} == {"image_held"}
    assert report.warnings[0].message == "the image before it is shown for its time: no such file"


def test_hold_shows_the_next_good_picture_where_the_first_ones_are_bad(shown: Shown) -> None:
    assert shown(("gone.png", 2), ("cut.png", 3), ("60.png", 4), on_error="hold") == [60] * 9
    (report,) = shown.reports  # type: ignore[attr-defined]
    assert [each.message.partition(":")[0] for each in report.warnings] == [
        "the image after it is shown for its time"
    ] * 2


def test_a_night_of_stills_with_one_bad_frame_keeps_its_length(shown: Shown) -> None:
    names = [f"{20 * (number % 12)}.png" for number in range(48)]
    names[30] = "cut.png"
    expected = [20 * (number % 12) for number in range(48)]
    expected[30] = expected[29]
    assert shown(*names, on_error="hold") == expected


def test_a_hold_in_seconds_keeps_its_end(job_of: JobOf, stills: Path, tmp_path: Path) -> None:
    images = [{"url": url, "duration": 0.1} for url in ("20.png", "gone.png", "40.png") * 10]
    request = parse_request({"images": images, "on_error": "hold", **QUICK})
    job = render_job(request, RequestLimits(), FetchSettings(), Origin(base=stills))
    assert render(job, tmp_path / "out.mp4").facts.frames == job.timeline.frames == 72


# Both.


@pytest.mark.parametrize("on_error", ["skip", "hold"])
def test_where_no_image_can_be_had_the_job_fails_and_names_them(job_of: JobOf, tmp_path: Path, on_error: str) -> None:
    error = fault_of(job_of("gone.png", "cut.png", on_error=on_error), tmp_path / "out.mp4")
    assert [each.loc[1] for each in (error, *error.others)] == [0, 1]


@pytest.mark.parametrize("canvas", ["first", "largest"])
def test_the_canvas_follows_images_that_can_be_had(job_of: JobOf, stills: Path, canvas: str) -> None:
    Image.new("RGB", (80, 60)).save(stills / "large.png")
    job = job_of("gone.png", "large.png", "20.png", on_error="skip", canvas=canvas)
    facts = render(job, stills / "out.mp4").facts
    assert (facts.width, facts.height, facts.frames) == (80, 60, 2)


@pytest.mark.parametrize(("on_error", "frames"), [("skip", 2), ("hold", 32)])
def test_many_bad_images_are_counted_and_few_are_named(
    job_of: JobOf, tmp_path: Path, on_error: str, frames: int
) -> None:
    job = job_of("20.png", *(f"gone-{number}.png" for number in range(30)), "40.png", on_error=on_error)
    report = render(job, tmp_path / "out.mp4")
    assert report.facts.frames == frames
    assert len(report.warnings) == 21
    assert report.warnings[-1].message == "10 more images are not shown, either"


def test_a_file_that_is_too_large_is_as_bad_as_one_that_is_damaged(job_of: JobOf, stills: Path) -> None:
    Image.effect_noise((300, 300), 100).save(stills / "large.png")
    settings = RenderSettings(fetch=FetchSettings(max_image_bytes=10_000))
    report = render(job_of("20.png", "large.png", on_error="skip"), stills / "out.mp4", settings)
    assert report.facts.frames == 1
    error = fault_of(job_of("20.png", "large.png"), stills / "bad.mp4", settings)
    assert isinstance(error, FileTooLarge)


def test_progress_ends_at_what_is_shown(job_of: JobOf, tmp_path: Path) -> None:
    seen: list[Progress] = []
    job = job_of(("20.png", 2), ("gone.png", 5), ("40.png", 3), on_error="skip")
    render(job, tmp_path / "out.mp4", on_progress=seen.append)
    assert (seen[-1].images_done, seen[-1].images, seen[-1].frames) == (2, 2, 5)


def test_an_image_that_goes_away_between_two_attempts_is_left_out_as_well(job_of: JobOf, stills: Path) -> None:
    """The first attempt ends at gone.png; 20.png was shown in it, and is removed before the next."""
    attempts: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        if progress.images_done == 0 and progress.images == 2:
            (stills / "20.png").unlink(missing_ok=True)
        attempts.append(progress)

    job = job_of("20.png", "gone.png", "40.png", on_error="skip", width=64, height=48)
    report = render(job, stills / "out.mp4", on_progress=on_progress)
    assert report.facts.frames == 1
    assert [each.loc[1] for each in report.warnings] == [0, 1]


# On the command line, where the files are the user's own.


def test_render_names_the_files_and_goes_on_if_it_is_told_to(stills: Path) -> None:
    typed = ["render", "20.png", "cut.png", "words.png", "40.png", "--hold", "2", "-o", "out.mp4"]
    told = failed(run(*typed, cwd=stills), 1)
    assert told.startswith(f"error: images[1].url: {stills}/cut.png: ")
    assert f"; images[2].url: {stills}/words.png: " in told
    made = run(*typed, "--on-error", "hold", "--json", cwd=stills)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["frames"] == 8
    assert f"warning: images[1].url: {stills}/cut.png: the image before it is shown for its time: " in made.stderr


def test_a_batch_goes_on_past_bad_images_and_renders_anew_once_one_is_there(stills: Path, tmp_path: Path) -> None:
    here = tmp_path / "batch"
    here.mkdir()
    shutil.copy(stills / "20.png", here)
    (here / "a.json").write_text(json.dumps({"images": [{"url": "20.png"}, {"url": "no.png"}, {"url": "gone.png"}]}))
    told = run("batch", "batch", "--out", "videos", cwd=tmp_path)
    assert told.returncode == 1
    for name in ("images[1].url: no.png: no such file", "images[2].url: gone.png: no such file"):
        assert name in " ".join(told.stderr.split())
    made = run("batch", "batch", "--out", "videos", "--on-error", "skip", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["frames"] == 1
    shutil.copy(stills / "40.png", here / "no.png")
    again = run("batch", "batch", "--out", "videos", "--on-error", "skip", "--json", cwd=tmp_path)
    assert json.loads(again.stdout)["frames"] == 2
    assert "image_skipped" in json.dumps(json.loads(again.stdout)["warnings"])
