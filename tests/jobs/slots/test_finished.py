"""Videos that were finished elsewhere: found by what they are made from, once, whole, and never replaced."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from renderer.jobs.slots import finished
from renderer.jobs.slots.base import RenderTask
from renderer.work import ImageFacts, ImageName, RenderReport, VideoFacts
from tests.jobs.factories import SETTINGS, make_work


def report(size_bytes: int) -> RenderReport:
    facts = VideoFacts(64, 48, 2, Fraction(24000, 1001), Fraction(1001, 12000), size_bytes)
    return RenderReport(facts, "libx264", "no GPU", None, {"total": 0.5})


def attempt(directory: Path, name: str, video: bytes) -> RenderTask:
    """An attempt that has written its video."""
    (directory / name).write_bytes(video)
    return RenderTask("a", make_work(), directory / name, SETTINGS, content="c0ffee")


def test_a_later_attempt_takes_the_video_and_its_report(tmp_path: Path) -> None:
    assert finished.keep(attempt(tmp_path, "first.mp4", b"a video"), report(7), "alpha") == report(7)
    (tmp_path / "first.mp4").unlink()
    later = RenderTask("a", make_work(), tmp_path / "later.mp4", SETTINGS, content="c0ffee")
    assert finished.take(later) == report(7)
    assert later.output.read_bytes() == b"a video"
    assert finished.lies_in(tmp_path)
    finished.forget(tmp_path)
    assert not finished.lies_in(tmp_path)


def test_of_two_attempts_the_first_counts_whatever_the_second_has_made(tmp_path: Path) -> None:
    finished.keep(attempt(tmp_path, "first.mp4", b"a video"), report(7), "alpha")
    second = attempt(tmp_path, "second.mp4", b"another one")
    assert finished.keep(second, report(11), "beta") == report(7)
    assert second.output.read_bytes() == b"a video"


def test_a_video_that_is_damaged_missing_or_anothers_is_not_taken(tmp_path: Path) -> None:
    first = attempt(tmp_path, "first.mp4", b"a video")
    finished.keep(first, report(7), "alpha")
    later = replace(first, output=tmp_path / "later.mp4")
    assert finished.take(replace(later, content="c0ffe0")) is None
    (video,) = tmp_path.glob(".finished-*.mp4")
    video.unlink()
    video.write_bytes(b"a v")
    assert finished.take(later) is None
    video.unlink()
    assert finished.take(later) is None
    (tmp_path / ".finished-c0ffee.json").write_text("{}")
    assert finished.take(later) is None


def test_pictures_beside_a_video_are_taken_with_it_or_nothing_is(tmp_path: Path) -> None:
    poster = ImageFacts(ImageName("poster", "jpeg"), 64, 48, 8)
    made = replace(report(7), images=(poster,))
    first = attempt(tmp_path, "first.mp4", b"a video")
    (tmp_path / "first.poster.jpg").write_bytes(b"a poster")
    assert finished.keep(first, made, "alpha") == made
    later = replace(first, output=tmp_path / "later.mp4")
    assert finished.take(later) == made
    assert (tmp_path / "later.poster.jpg").read_bytes() == b"a poster"
    (kept,) = tmp_path.glob(".finished-*.poster.jpg")
    kept.unlink()
    kept.write_bytes(b"a post")
    assert finished.take(later) is None
    finished.forget(tmp_path)
    assert not list(tmp_path.glob(".finished-*"))
