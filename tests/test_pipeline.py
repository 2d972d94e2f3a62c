"""The whole job: what is bounded, what is given back, and what is left when something fails."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from protocol.schema import Progress
from renderer.config import EncodeSettings, FetchSettings, PictureSettings, RenderSettings, RequestLimits
from renderer.encode.base import Nv12Frame
from renderer.encode.null import NullEncoder
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.errors import DecodeFailed, EncodeFailed, FetchFailed, ImageTooLarge, NotSupported, OutputFailed
from renderer.geometry import Canvas
from renderer.intake import Origin, parse_request, render_job
from renderer.pipeline import render
from renderer.work import RenderJob
from tests.net.serving import sends, serving

JobOf = Callable[..., RenderJob]


@pytest.fixture
def job_of(tmp_path: Path) -> JobOf:
    """Return a factory: a job from urls below the test's directory, one frame each."""

    def job(*urls: str, frames: int = 1, **fields: Any) -> RenderJob:
        images = [{"url": url, "frames": frames} for url in urls]
        origin = Origin(base=tmp_path)
        return render_job(parse_request({"images": images, **fields}), RequestLimits(), FetchSettings(), origin)

    return job


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "a.mp4"


@pytest.fixture(autouse=True)
def no_thread_left() -> Any:
    """Decoding threads must end with their job, on every way out."""
    yield
    ends = time.monotonic() + 5
    while (left := [t.name for t in threading.enumerate() if t.name.startswith("still")]) and time.monotonic() < ends:
        time.sleep(0.01)
    assert left == []


FRAME_BY_FRAME = RenderSettings(encode=EncodeSettings(hold_pictures=False))


class Watched(NullEncoder):
    """Remembers what it was asked."""

    opened: list["Watched"]

    def __init__(self, stream: StreamSettings, settings: Any) -> None:
        super().__init__(stream, settings)
        self.stream = stream
        self.lumas: list[int] = []
        self.opened.append(self)

    def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
        self.lumas.append(int(frame[0, 0]))
        return list(super().encode(frame))


@pytest.fixture
def watched() -> type[Watched]:
    return type("Watched", (Watched,), {"opened": []})


# What the encoder is asked.


def test_the_encoder_gets_the_stream_that_was_asked_for(job_of: JobOf, output, write_image, watched) -> None:
    write_image("a.png", (641, 481))
    job = job_of("a.png", fps=29.97, crf=7, preset="slow", max_keyframe_interval=2)
    render(job, output, open_encoder=watched)
    (encoder,) = watched.opened
    assert encoder.stream == StreamSettings(Canvas(642, 482), Fraction(30000, 1001), 7, "slow", 59)


def test_a_keyframe_interval_shorter_than_a_frame_means_every_frame(job_of, output, write_image, watched) -> None:
    write_image("a.png")
    render(job_of("a.png", max_keyframe_interval=0.001), output, open_encoder=watched)
    assert watched.opened[0].stream.keyframe_interval == 1


@pytest.mark.parametrize("seconds", [1e9, 1e300])
def test_an_endless_keyframe_interval_means_one_keyframe(job_of: JobOf, output, write_image, seconds: float) -> None:
    write_image("a.png")
    assert render(job_of("a.png", frames=30, max_keyframe_interval=seconds), output).facts.frames == 30
    with av.open(str(output)) as container:
        assert sum(packet.is_keyframe for packet in container.demux(video=0)) == 1


@pytest.mark.parametrize(("hold_pictures", "times"), [(True, 1), (False, 3)])
def test_the_encoder_sees_a_still_once_or_as_often_as_it_is_held(
    job_of, output, write_image, watched, hold_pictures: bool, times: int
) -> None:
    write_image("a.png", colour=255)
    write_image("b.png", colour=0)
    settings = RenderSettings(encode=EncodeSettings(hold_pictures=hold_pictures))
    report = render(job_of("a.png", "b.png", "a.png", frames=3), output, settings, open_encoder=watched)
    assert watched.opened[0].lumas == [235] * times + [16] * times + [235] * times
    assert report.facts.frames == 9


def test_the_report_is_read_back_from_the_file(job_of: JobOf, output, write_image) -> None:
    write_image("a.png", (64, 48))
    facts = render(job_of("a.png", frames=25, fps=12.5), output, open_encoder=NullEncoder).facts
    assert (facts.width, facts.height, facts.frames, facts.fps) == (64, 48, 25, Fraction(25, 2))
    assert facts.duration_s == 2
    assert facts.size_bytes == output.stat().st_size


# What is bounded.


@pytest.mark.parametrize(("look_ahead", "threads"), [(1, 1), (2, 4), (5, 2)])
def test_stills_are_read_no_further_ahead_than_allowed(
    job_of: JobOf, output: Path, tmp_path: Path, look_ahead: int, threads: int
) -> None:
    """Of 200 stills, each appears only just in time: whoever reads further ahead finds no file."""
    Image.new("RGB", (16, 16)).save(tmp_path / "still.png")

    def make(number: int) -> None:
        """Write a file of its own size, so that no two can be taken for the same picture."""
        (tmp_path / f"{number}.png").write_bytes((tmp_path / "still.png").read_bytes() + b"\0" * number)

    class JustInTime(NullEncoder):
        seen = 0

        def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
            make(self.seen + look_ahead)
            self.seen += 1
            return list(super().encode(frame))

    for number in range(look_ahead):
        make(number)
    settings = RenderSettings(pictures=PictureSettings(look_ahead=look_ahead, decoding_threads=threads))
    job = job_of(*(f"{number}.png" for number in range(200)), width=16, height=16)
    assert render(job, output, settings, open_encoder=JustInTime).facts.frames == 200


def test_a_slow_encoder_is_waited_for(job_of: JobOf, output: Path, write_image, watched) -> None:
    """The frame it works on is not overwritten by stills that are ready early."""
    for number in range(12):
        write_image(f"{number}.png", colour=number * 20)

    class Slow(watched):
        def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
            before = frame.copy()
            time.sleep(0.02)
            assert (frame == before).all()
            return super().encode(frame)

    render(job_of(*(f"{number}.png" for number in range(12))), output, open_encoder=Slow)
    assert watched.opened[0].lumas == [round(16 + number * 20 * 219 / 255) for number in range(12)]


def test_memory_does_not_grow_with_the_number_of_stills(tmp_path: Path) -> None:
    """120 stills of 12 megapixels, each its own file; together they would take 4 GB decoded, 2 GB composed."""
    rows = np.linspace(0, 255, 3000, dtype=np.uint8)[:, None, None]
    Image.fromarray(np.broadcast_to(rows, (3000, 4000, 3)).copy()).save(tmp_path / "still.jpg")
    for number in range(120):
        (tmp_path / f"{number}.jpg").hardlink_to(tmp_path / "still.jpg")
    program = """
import sys
from pathlib import Path
from renderer.config import FetchSettings, RequestLimits
from renderer.encode.null import NullEncoder
from renderer.intake import Origin, parse_request, render_job
from renderer.pipeline import render

base = Path(sys.argv[1])
request = parse_request({"images": [{"url": f"{number}.jpg"} for number in range(120)]})
job = render_job(request, RequestLimits(), FetchSettings(), Origin(base=base))
facts = render(job, base / "out.mp4", open_encoder=NullEncoder).facts
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
print(facts.frames, facts.width, int(peak.split()[1]) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=100, check=True
    )
    frames, width, peak_mib = map(int, done.stdout.split())
    assert (frames, width) == (120, 4000)
    assert peak_mib < 600  # 263 was seen; ru_maxrss would be that of the process that began it, where that is more


# What is left when something fails.


class Failing(NullEncoder):
    """Refuses the fourth frame."""

    def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
        if self._frames == 3:
            raise EncodeFailed("no more bits")
        return list(super().encode(frame))


class FailingAtTheEnd(NullEncoder):
    def flush(self) -> list[AccessUnit]:
        raise EncodeFailed("no end")


class Losing(NullEncoder):
    """Swallows the second frame."""

    def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
        units = list(super().encode(frame))
        return [] if self._frames == 2 else units


@pytest.mark.parametrize("encoder", [Failing, FailingAtTheEnd])
def test_an_encoder_that_fails_leaves_nothing(job_of: JobOf, output: Path, write_image, encoder: type) -> None:
    write_image("a.png")
    with pytest.raises(EncodeFailed, match=r"no more bits|no end"):
        render(job_of("a.png", frames=10), output, FRAME_BY_FRAME, open_encoder=encoder)
    assert list(output.parent.iterdir()) == []


def test_a_file_with_too_few_frames_is_an_error_and_leaves_nothing(job_of, output: Path, write_image) -> None:
    write_image("a.png")
    with pytest.raises(OutputFailed, match=r"9 frames .*expected 10"):
        render(job_of("a.png", frames=10), output, FRAME_BY_FRAME, open_encoder=Losing)
    assert list(output.parent.iterdir()) == []


def test_a_failure_keeps_the_video_that_was_there(job_of: JobOf, output: Path, write_image) -> None:
    write_image("a.png")
    render(job_of("a.png"), output)
    before = output.read_bytes()
    for encoder in (Failing, FailingAtTheEnd):
        with pytest.raises(EncodeFailed):
            render(job_of("a.png", frames=10), output, FRAME_BY_FRAME, open_encoder=encoder)
        assert output.read_bytes() == before
        assert list(output.parent.iterdir()) == [output]


def test_an_encoder_that_cannot_be_opened_leaves_nothing(job_of: JobOf, output: Path, write_image) -> None:
    write_image("a.png")
    settings = RenderSettings(encode={"ffmpeg": "/nonexistent/ffmpeg"})
    with pytest.raises(EncodeFailed, match="could not be started") as raised:
        render(job_of("a.png"), output, settings)
    assert "nonexistent" not in str(raised.value)
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("at", [0, 1, 7, 19])
def test_a_damaged_still_is_named_and_leaves_nothing(job_of: JobOf, output: Path, write_image, at: int) -> None:
    write_image("a.png", (64, 48))
    broken = write_image("broken.png", (64, 48))
    broken.write_bytes(broken.read_bytes()[:-40])
    urls = ["a.png"] * 20
    urls[at] = "broken.png"
    with pytest.raises(DecodeFailed) as raised:
        render(job_of(*urls), output)
    assert raised.value.loc == ("images", at, "url")
    assert list(output.parent.iterdir()) == []


def test_a_missing_still_that_is_shown_twice_is_named_at_its_first_place(job_of, output, write_image) -> None:
    write_image("a.png")
    with pytest.raises(FetchFailed) as raised:
        render(job_of("a.png", "none.png", "a.png", "none.png"), output, open_encoder=NullEncoder)
    assert str(raised.value) == "images[1].url: no such file"


def test_of_several_damaged_stills_the_first_is_named(job_of: JobOf, output: Path, write_image) -> None:
    """Whichever thread is quicker."""
    write_image("a.png", (2000, 2000))
    with pytest.raises(FetchFailed) as raised:
        render(job_of("a.png", "x.png", "y.png", "z.png", width=64), output, open_encoder=NullEncoder)
    assert raised.value.loc == ("images", 1, "url")


def test_a_missing_first_still_is_named(job_of: JobOf, output: Path) -> None:
    for sides in ({}, {"width": 64, "height": 48}):
        with pytest.raises(FetchFailed) as raised:
            render(job_of("none.png", **sides), output, open_encoder=NullEncoder)
        assert raised.value.loc == ("images", 0, "url")


def test_a_side_that_was_asked_for_and_leads_above_the_limit_is_refused(
    job_of: JobOf, output: Path, write_image
) -> None:
    write_image("a.png", (1000, 10))
    settings = RenderSettings(limits=RequestLimits(max_canvas_side=640))
    with pytest.raises(NotSupported, match=r"^height: this makes a video of 2000x20, since the other side follows"):
        render(job_of("a.png", height=20), output, settings, open_encoder=NullEncoder)
    assert render(job_of("a.png", width=640), output, settings, open_encoder=NullEncoder).facts.width == 640


def test_a_still_with_too_many_pixels_is_refused_at_its_place(job_of: JobOf, output: Path, write_image) -> None:
    write_image("a.png", (20, 20))
    write_image("b.png", (200, 200))
    settings = RenderSettings(pictures=PictureSettings(max_image_pixels=1000))
    with pytest.raises(ImageTooLarge) as raised:
        render(job_of("a.png", "b.png"), output, settings, open_encoder=NullEncoder)
    assert raised.value.loc == ("images", 1, "url")


def test_progress_that_raises_ends_the_job_and_leaves_nothing(job_of: JobOf, output: Path, write_image) -> None:
    """That is how a worker is told to stop."""
    write_image("a.png")

    def stop(progress: Any) -> None:
        if progress.images_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(job_of("a.png", "a.png", "a.png"), output, on_progress=stop)
    assert list(output.parent.iterdir()) == []


def test_two_hundred_jobs_leave_no_open_file_and_no_child(job_of: JobOf, output: Path, write_image) -> None:
    write_image("a.png")
    write_image("b.png")
    job = job_of("a.png", "b.png", "a.png")
    render(job, output, open_encoder=NullEncoder)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(200):
        render(job, output, open_encoder=NullEncoder)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# Sizes that cannot be had.


def test_a_canvas_that_nobody_asked_for_shrinks_to_the_limit_and_the_result_says_so(
    job_of: JobOf, output: Path, write_image
) -> None:
    write_image("a.png", (1000, 400))
    job = job_of("a.png")
    report = render(job, output, RenderSettings(limits=RequestLimits(max_canvas_side=640)), open_encoder=NullEncoder)
    assert (report.facts.width, report.facts.height) == (640, 256)
    (warning,) = report.result("file:///a.mp4", "a.mp4", job.request).warnings
    assert (warning.type, warning.loc) == ("canvas_reduced", ("images", 0, "url"))
    assert warning.message.startswith("the video is 640x256, not 1000x400 as the first image: ")


def test_what_a_result_warns_of_stands_in_the_jobs_log(job_of: JobOf, output: Path, write_image, caplog) -> None:
    caplog.set_level("INFO")
    write_image("a.png", (1000, 400))
    render(job_of("a.png"), output, RenderSettings(limits=RequestLimits(max_canvas_side=640)), open_encoder=NullEncoder)
    (record,) = [record for record in caplog.records if getattr(record, "action", "") == "warned"]
    assert "the video is 640x256" in record.getMessage()


def test_a_first_picture_of_48_megapixels_becomes_the_largest_video_that_there_is(
    job_of: JobOf, output: Path, tmp_path: Path
) -> None:
    Image.new("L", (8064, 6048), 128).save(tmp_path / "phone.jpg")
    report = render(job_of("phone.jpg", preset="ultrafast"), output)
    assert (report.facts.width, report.facts.height, report.facts.frames) == (6890, 5168, 1)
    assert [warning.type for warning in report.warnings] == ["canvas_reduced"]


@pytest.mark.parametrize(("size", "expected"), [((1, 20000), (2, 8192)), ((20000, 1), (8192, 2))])
def test_a_picture_as_thin_as_a_thread_becomes_a_video(job_of, output, tmp_path, size, expected) -> None:
    Image.new("L", size, 128).save(tmp_path / "thread.png")
    facts = render(job_of("thread.png"), output).facts
    assert (facts.width, facts.height) == expected


def test_a_picture_that_is_scaled_up_more_than_twice_is_told(job_of: JobOf, output: Path, write_image) -> None:
    for name, size in (("a.png", (640, 480)), ("b.png", (320, 240)), ("c.png", (312, 234)), ("d.png", (64, 48))):
        write_image(name, size, colour=size[0] // 4)
    fine, small = job_of("a.png", "b.png"), job_of("a.png", "b.png", "c.png", "d.png", "d.png")
    assert render(fine, output, open_encoder=NullEncoder).warnings == ()
    (warning,) = render(small, output, open_encoder=NullEncoder).warnings
    assert (warning.type, warning.loc) == ("image_enlarged", ("images", 2, "url"))
    kept = job_of("a.png", "d.png", upscale=False)
    assert render(kept, output, open_encoder=NullEncoder).warnings == ()
    both = job_of("d.png", "c.png", width=640)
    (warning,) = render(both, output, open_encoder=NullEncoder).warnings
    assert (
        warning.message == "this image of 64x48 is scaled up more than twice for a video of 640x480; so is 1 more image"
    )


# The canvas of the largest.


def test_the_largest_image_gives_the_canvas_wherever_it_stands(job_of, output: Path, write_image) -> None:
    write_image("a.png", (64, 48))
    write_image("b.png", (100, 30), colour=90)
    turned = Image.Exif()
    turned[274] = 6  # EXIF's orientation: lies on its side
    write_image("turned.jpg", (40, 90), 50, exif=turned)
    job = job_of("a.png", "turned.jpg", "b.png", "turned.jpg", canvas="largest")
    facts = render(job, output, open_encoder=NullEncoder).facts
    assert (facts.width, facts.height, facts.frames) == (90, 40, 4)
    facts = render(job_of("a.png", "turned.jpg", canvas="largest", width=180), output, open_encoder=NullEncoder).facts
    assert (facts.width, facts.height) == (180, 80)


def test_of_images_with_as_many_pixels_the_first_gives_the_canvas(job_of, output: Path, write_image) -> None:
    for name, size in (("a.png", (10, 10)), ("b.png", (60, 20)), ("c.png", (20, 60))):
        write_image(name, size)
    facts = render(job_of("a.png", "b.png", "c.png", canvas="largest"), output, open_encoder=NullEncoder).facts
    assert (facts.width, facts.height) == (60, 20)


def test_a_canvas_of_the_largest_that_is_reduced_names_that_image(job_of, output: Path, write_image) -> None:
    write_image("a.png", (500, 400))
    write_image("b.png", (1000, 400))
    job = job_of("a.png", "b.png", canvas="largest")
    report = render(job, output, RenderSettings(limits=RequestLimits(max_canvas_side=640)), open_encoder=NullEncoder)
    (warning,) = report.warnings
    assert (warning.type, warning.loc) == ("canvas_reduced", ("images", 1, "url"))
    assert warning.message.startswith("the video is 640x256, not 1000x400 as this image: ")


def test_a_missing_image_is_named_when_the_largest_is_looked_for(job_of, output: Path, write_image) -> None:
    write_image("a.png")
    with pytest.raises(FetchFailed, match=r"images\[1\].url: no such file"):
        render(job_of("a.png", "none.png", "none.png", canvas="largest"), output, open_encoder=NullEncoder)


def test_a_download_is_made_once_though_the_largest_is_looked_for(tmp_path, output: Path, write_image) -> None:
    write_image("a.png", (64, 48))
    path = write_image("b.png", (100, 80), colour=90)
    with serving({"/b.png": sends(path.read_bytes())}) as server:
        fetch = FetchSettings(allow_networks=("127.0.0.0/8",))
        request = parse_request({"images": [{"url": "a.png"}, {"url": server.url + "/b.png"}], "canvas": "largest"})
        job = render_job(request, RequestLimits(), fetch, Origin(base=tmp_path))
        facts = render(job, output, RenderSettings(fetch=fetch), open_encoder=NullEncoder).facts
    assert (facts.width, facts.height) == (100, 80)
    assert [path for path, _ in server.requests] == ["/b.png"]


# Progress.


class HoldingBack(NullEncoder):
    """Gives every picture at the end, each some time after the one before."""

    def encode(self, frame: Nv12Frame) -> list[AccessUnit]:
        self.inside = [*getattr(self, "inside", []), *super().encode(frame)]
        return []

    def flush(self) -> Iterator[AccessUnit]:
        for unit in self.inside:
            time.sleep(0.4)
            yield unit


@pytest.mark.parametrize("settings", [RenderSettings(), FRAME_BY_FRAME])
def test_frames_count_as_done_when_they_are_coded(job_of, output: Path, write_image, settings) -> None:
    for name in ("a.png", "b.png", "c.png", "d.png"):
        write_image(name)
    told: list[Progress] = []
    each = 1 if settings is FRAME_BY_FRAME else 5
    job = job_of("a.png", "b.png", "c.png", "d.png", frames=each)
    render(job, output, settings, on_progress=told.append, open_encoder=HoldingBack)
    fed = [progress for progress in told if progress.stage == "rendering"]
    assert {progress.frames_done for progress in fed} == {0}
    finishing = [(progress.images_done, progress.frames_done) for progress in told if progress.stage == "finishing"]
    assert finishing == [(4, 0), (4, 3 * each), (4, 4 * each)]  # once a second, and when all are coded
    assert told[-1].share == 1


def test_an_encoder_in_a_child_gives_its_last_pictures_one_by_one(job_of, output: Path, write_image) -> None:
    """x264 looks ahead: all pictures have gone in before the first comes out."""
    stream = StreamSettings(Canvas(320, 180), Fraction(24), 20, "veryslow", 250)
    noise = np.random.default_rng(5)
    with X264Encoder(stream, EncodeSettings(threads=1)) as encoder:
        for _ in range(12):
            assert encoder.encode(noise.integers(16, 236, stream.canvas.nv12_shape, np.uint8)) == []
        began = time.monotonic()
        arrived = [time.monotonic() - began for _ in encoder.flush()]
    assert len(arrived) == 12
    assert arrived[0] < arrived[-1] / 2


# Animations.


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_an_animation_is_shown_as_its_first_frame_and_the_result_says_so(
    job_of: JobOf, output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    caplog.set_level("INFO")
    frames = [Image.new("RGB", (64, 48), (level,) * 3) for level in (40, 120, 200)]
    frames[0].save(tmp_path / f"moves.{suffix}", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / f"still.{suffix}", **({"save_all": True} if suffix != "avif" else {}))
    report = render(job_of(f"still.{suffix}", f"moves.{suffix}", f"moves.{suffix}"), output, open_encoder=NullEncoder)
    [warning] = report.warnings
    assert (warning.type, warning.loc) == ("image_animated", ("images", 1, "url"))
    assert warning.message == "this image is an animation, of which only the first frame is shown"
    assert f"images[1].url: {warning.message}" in caplog.messages


def test_a_gif_whose_second_frame_is_damaged_is_shown_without_a_word(
    job_of: JobOf, output: Path, tmp_path: Path
) -> None:
    frames = [Image.effect_noise((64, 48), level) for level in (40, 200)]
    frames[0].save(tmp_path / "one.gif")
    first = (tmp_path / "one.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(first[:-1] + b"\x2c\x00")
    assert render(job_of("cut.gif"), output, open_encoder=NullEncoder).warnings == ()


def test_a_missing_number_is_in_the_report_and_in_the_log(
    job_of: JobOf, output: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2, 4):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    caplog.set_level("INFO", "renderer.pipeline")
    report = render(job_of("f1.png", "f2.png", "f4.png"), output)
    assert [warning.type for warning in report.warnings] == ["numbers_missing"]
    assert "images: 1 number is missing from the images' names: 3; " in caplog.text
