"""What is missing from numbered images, whoever asks and however they are named."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import pytest

from protocol.schema import RenderRequest
from renderer.errors import InvalidRequest
from renderer.manifests.numbering import gaps, likely_gaps, missing_words
from renderer.timeline import Timeline, remarks, timeline_of


def missing(urls: list[str]) -> list[int]:
    return [number for gap in likely_gaps(urls) for number in gap.missing]


def named(pattern: str, *numbers: int) -> list[str]:
    return [pattern.format(number) for number in numbers]


def request(urls: list[str], hold: Mapping[str, Any] | None = None, **fields: Any) -> RenderRequest:
    return RenderRequest.model_validate({"images": [{"url": url, **(hold or {})} for url in urls], **fields})


@pytest.mark.parametrize(
    "pattern",
    [
        "img_{:04d}.png",
        "img{}.png",
        "/stills/day 3/img_{:04d}.png",
        "https://example.com/stills/img_{:04d}.png",
        "https://example.com/stills/img_{:04d}.png?signature=a7#8",
        "https://example.com/stills/{:03d}",
        "file:///stills/img_{}.png",
        "./take2/{}_final.png",
    ],
)
def test_a_missing_number_is_seen_however_the_images_are_named(pattern: str) -> None:
    assert missing(named(pattern, 8, 9, 11, 12)) == [10]


def test_signatures_that_change_with_every_image_do_not_hide_a_sequence() -> None:
    urls = [f"https://example.com/f{number}.png?signature={number * 77}" for number in (1, 2, 4)]
    assert missing(urls) == [3]


def test_every_fifth_frame_is_a_sequence_of_its_own() -> None:
    assert missing(named("f{}.png", 0, 5, 10, 20)) == [15]


@pytest.mark.parametrize(
    "urls",
    [
        named("IMG_{:04d}.jpg", 7, 31, 212),
        named("f{}.png", 1, 9),
        named("f{}.png", 3, 1, 7),
        named("f{}.png", 1, 2, 3, 2, 1),
        named("f{}.png", 9, 8, 6),
        ["f_1.png", "f_02.png", "f_003.png", "f_5.png"],
        ["a1.png", "b2.png", "c4.png"],
        ["a/1.png", "b/2.png", "c/4.png"],
        ["a.png", "b.png", "c.png"],
        ["https://example.com/image?id=1", "https://example.com/image?id=2", "https://example.com/image?id=4"],
        [*named("cid:{}", 0, 1, 3), *named("data:text/f{}.png,", 0, 1, 3)],
        named("f{:050d}.png", 1, 2, 4),
        named("f" + "9" * 5000 + "{}.png", 1, 2, 4),
        [f"photo{number}.png" for number in range(100)] + named("cover{}.png", 1, 2, 50),
    ],
)
def test_what_is_hardly_meant_as_a_sequence_has_no_gaps(urls: list[str]) -> None:
    assert missing(urls) == []


def test_an_image_that_comes_again_is_no_gap_and_hides_none() -> None:
    assert missing(named("f{}.png", 1, 1, 2, 2, 4, 4)) == [3]


def test_a_url_that_cannot_be_parsed_is_a_name_like_any_other() -> None:
    assert missing(named("https://[::/f{}.png", 1, 2, 4)) == [3]


def test_at_most_ten_missing_numbers_are_named() -> None:
    words = missing_words(gaps(named("{}.png", 1, 2, 40)))
    assert words == "37 numbers are missing from the images' names: 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 27 more"


# What becomes of them.

URLS = named("https://example.com/f{:02d}.png", 1, 2, 3, 5, 6, 9)


def test_missing_numbers_are_closed_and_told() -> None:
    wanted = request(URLS)
    line = timeline_of(wanted)
    assert line.holds == (1,) * 6
    (warning,) = remarks(wanted, line)
    assert warning.type == "numbers_missing"
    assert str(warning) == (
        "images: 3 numbers are missing from the images' names: 4, 7, 8; gaps: hold shows the image before for their "
        "time, gaps: fail refuses, and gaps: close says that this is meant"
    )


@pytest.mark.parametrize("rule", ["close", "hold"])
def test_who_has_said_what_becomes_of_missing_numbers_is_told_nothing(rule: str) -> None:
    wanted = request(URLS, gaps=rule)
    assert not remarks(wanted, timeline_of(wanted))


def test_the_image_before_is_shown_for_the_time_of_missing_ones() -> None:
    assert timeline_of(request(URLS, gaps="hold", hold={"frames": 2})).holds == (2, 2, 4, 2, 6, 2)
    in_seconds = request(URLS, gaps="hold", hold={"duration": 0.5}, fps=10)
    assert timeline_of(in_seconds) == Timeline(Fraction(10), (5, 5, 10, 5, 15, 5))


def test_a_sequence_that_has_to_be_whole_is_refused_with_what_is_missing() -> None:
    with pytest.raises(InvalidRequest) as raised:
        timeline_of(request(URLS, gaps="fail"))
    assert str(raised.value) == "gaps: 3 numbers are missing from the images' names: 4, 7, 8"
    assert timeline_of(request(named("f{}.png", 1, 2, 3), gaps="fail")).holds == (1, 1, 1)


def test_whoever_gives_a_rule_means_large_gaps_as_well() -> None:
    assert timeline_of(request(named("IMG_{:04d}.jpg", 7, 31, 212), gaps="hold")).holds == (24, 181, 1)
