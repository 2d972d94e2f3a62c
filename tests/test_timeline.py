"""Exact rates and holds."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.schema import ImageFrame, RenderRequest
from renderer.errors import InvalidRequest
from renderer.timeline import Timeline, check_timecode, frame_rate, remarks, timeline, timeline_of

FRAME_RATES = [Fraction(1), Fraction(25, 2), Fraction(24000, 1001), Fraction(24), Fraction(60000, 1001), Fraction(120)]


def holding(*durations: float) -> list[ImageFrame]:
    return [ImageFrame(url="a.png", duration=duration) for duration in durations]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (23.976024, Fraction(24000, 1001)),
        ("23.976023976", Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        ("29.970", Fraction(30000, 1001)),
        (29.97003, Fraction(30000, 1001)),
        (47.952, Fraction(48000, 1001)),
        (47.95, Fraction(48000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (59.94006, Fraction(60000, 1001)),
        (119.88, Fraction(120000, 1001)),
        ("30000/1001", Fraction(30000, 1001)),
        ("24/1", Fraction(24)),
        (24, Fraction(24)),
        (24.0, Fraction(24)),
        ("24.00", Fraction(24)),
        (1, Fraction(1)),
        (120, Fraction(120)),
        (12.5, Fraction(25, 2)),
        (59.9, Fraction(599, 10)),  # one decimal: no NTSC rate
        (29.9, Fraction(299, 10)),
        (29.96, Fraction(749, 25)),
        (29.971, Fraction(29971, 1000)),
        (33.333333, Fraction(100, 3)),
        ("100/3", Fraction(100, 3)),
        (0.1 + 23.9, Fraction(24)),
        (1e0, Fraction(1)),
    ],
)
def test_a_written_rate_means_one_exact_rate(value: float | str, expected: Fraction) -> None:
    assert frame_rate(value) == expected


@given(st.integers(1, 120), st.integers(0, 999))
def test_a_rate_of_up_to_three_decimals_stays_what_it_is_unless_it_is_an_ntsc_rate(
    whole: int, thousandths: int
) -> None:
    if whole == 120:
        thousandths = 0
    found = frame_rate(f"{whole}.{thousandths:03}")
    assert found == Fraction(whole * 1000 + thousandths, 1000) or (
        found.denominator == 1001 and abs(found - Fraction(whole * 1000 + thousandths, 1000)) <= Fraction(1, 2000)
    )


@given(st.floats(1, 120))
def test_every_rate_fits_a_timescale_and_is_close(value: float) -> None:
    rate = frame_rate(value)
    assert rate.denominator <= 1001
    assert rate.numerator < 2**31
    assert abs(rate - Fraction(value)) < Fraction(1, 190)  # NTSC rates may be written with two decimals


def test_holds_in_frames_are_kept() -> None:
    line = timeline([ImageFrame(url="a", frames=frames) for frames in (1, 300, 7)], Fraction(24))
    assert line == Timeline(Fraction(24), (1, 300, 7))
    assert line.frames == 308
    assert line.duration_s == Fraction(308, 24)


def test_ten_stills_of_a_tenth_of_a_second_last_a_second() -> None:
    line = timeline(holding(*[0.1] * 10), Fraction(24))
    assert line.holds == (2, 3, 2, 3, 2, 2, 3, 2, 3, 2)
    assert line.frames == 24


def test_half_a_frame_rounds_up() -> None:
    assert timeline(holding(0.75, 0.75), Fraction(2)).holds == (2, 1)


@given(
    st.lists(st.decimals("0.2", 20, places=3), min_size=1, max_size=60),
    st.sampled_from([rate for rate in FRAME_RATES if rate > 5]),
)
def test_rounding_errors_never_add_up(durations: list[Decimal], fps: Fraction) -> None:
    line = timeline(holding(*map(float, durations)), fps)
    exact, end = Fraction(0), 0
    for duration, hold in zip(durations, line.holds, strict=True):
        exact += Fraction(duration) * fps
        end += hold
        assert abs(end - exact) <= Fraction(1, 2)
    assert line.frames == sum(line.holds) == end


@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.sampled_from(FRAME_RATES))
def test_frames_and_the_duration_that_they_take_are_the_same(holds: list[int], fps: Fraction) -> None:
    """Written with a double's precision, a duration of whole frames gives these frames."""
    assert timeline(holding(*(float(hold / fps) for hold in holds)), fps).holds == tuple(holds)


@given(st.lists(st.one_of(st.integers(1, 50), st.decimals("0.1", 3, places=2)), min_size=1, max_size=30))
def test_frames_and_durations_may_be_mixed(lengths: list[int | Decimal]) -> None:
    fps = Fraction(30000, 1001)
    images = [
        ImageFrame(url="a", frames=length) if isinstance(length, int) else ImageFrame(url="a", duration=float(length))
        for length in lengths
    ]
    exact = sum((Fraction(length) * (1 if isinstance(length, int) else fps) for length in lengths), Fraction(0))
    assert abs(timeline(images, fps).frames - exact) <= Fraction(1, 2)


def test_whole_frames_after_a_fraction_keep_their_number() -> None:
    images = [ImageFrame(url="a", duration=0.02), *(ImageFrame(url="a", frames=5) for _ in range(20))]
    assert timeline(images, Fraction(30)).holds == (1, *[5] * 20)


def test_a_duration_too_short_for_a_frame_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidRequest) as raised:
        timeline(holding(1, 0.02), Fraction(24))
    assert str(raised.value) == (
        "images[1].duration: 0.02 s leaves no frame for this still at 24 fps; "
        "expected about 0.04167 s or more, or min_frames: 1"
    )


def test_every_duration_too_short_for_a_frame_is_named_and_what_is_asked_for_is_enough() -> None:
    """At 24 fps four stills of 0.01 s end on frames 0, 0, 1 and 1; once the first ones are mended, none is left out."""
    with pytest.raises(InvalidRequest) as raised:
        timeline([*holding(0.01, 0.01), ImageFrame(url="a", frames=2), *holding(0.01, 0.01, 1)], Fraction(24))
    assert [each.loc for each in (raised.value, *raised.value.others)] == [
        ("images", place, "duration") for place in (0, 1, 3, 4)
    ]
    assert all("leaves no frame" in each.message for each in raised.value.others)
    timeline([*holding(0.0417, 0.0417), ImageFrame(url="a", frames=2), *holding(0.0417, 0.0417, 1)], Fraction(24))


def test_twenty_durations_too_short_for_a_frame_are_named_and_the_others_counted() -> None:
    with pytest.raises(InvalidRequest) as raised:
        timeline(holding(*[0.001] * 500), Fraction(24))
    assert len(raised.value.fault().errors) == 20
    assert str(raised.value).endswith("; and 480 more faults")


def test_a_still_gets_the_least_number_of_frames_and_the_next_makes_up_for_it() -> None:
    line = timeline(holding(0.01, 0.01, 0.01, 0.01, 1), Fraction(24), min_frames=1)
    assert line.holds == (1, 1, 1, 1, 21)
    assert timeline(holding(*[0.041] * 48), Fraction(24), min_frames=1).frames == 48
    assert timeline(holding(0.01, 0.01, 1), Fraction(24), min_frames=3).holds == (3, 3, 18)


@given(
    st.lists(st.one_of(st.integers(1, 9), st.decimals("0.001", "0.2", places=3)), min_size=1, max_size=60),
    st.sampled_from(FRAME_RATES),
)
def test_what_short_stills_get_is_made_up_for_where_there_is_room(lengths: list[int | Decimal], fps: Fraction) -> None:
    images = [
        ImageFrame(url="a", frames=length) if isinstance(length, int) else ImageFrame(url="a", duration=float(length))
        for length in lengths
    ]
    line = timeline([*images, ImageFrame(url="a", duration=100)], fps, min_frames=1)
    exact = sum((Fraction(length) * (1 if isinstance(length, int) else fps) for length in lengths), 100 * fps)
    assert abs(line.frames - exact) <= Fraction(1, 2)
    for length, hold in zip(lengths, line.holds, strict=False):
        assert hold >= 1
        assert hold == length or not isinstance(length, int)


def test_where_nothing_behind_short_stills_is_longer_the_nearest_before_give_frames_back() -> None:
    line = timeline(holding(1, 0.5, *[0.01] * 8), Fraction(24), min_frames=1)
    assert line.holds == (24, 6, *[1] * 8)
    assert line.frames == 38  # 1.58 s are 37.92 frames
    images = [ImageFrame(url="a", duration=1), ImageFrame(url="a", frames=2), *holding(*[0.01] * 4)]
    assert timeline(images, Fraction(24), min_frames=1).holds == (21, 2, 1, 1, 1, 1)


def test_a_still_that_gives_frames_back_keeps_the_least_number() -> None:
    assert timeline(holding(1, 0.5, 0.1, 0.1), Fraction(24), min_frames=5).holds == (24, 7, 5, 5)
    assert timeline(holding(1, 0.2, 0.1, 0.1), Fraction(24), min_frames=5).holds == (19, 5, 5, 5)


def test_more_stills_than_frames_make_the_video_longer_and_that_is_said() -> None:
    wanted = RenderRequest(images=(*holding(1), *holding(*[0.001] * 40)), fps=24, min_frames=1)
    line = timeline_of(wanted)
    assert line.holds == (24, *[1] * 40)
    (warning,) = remarks(wanted, line)
    assert warning.type == "video_longer"
    assert str(warning) == (
        "min_frames: the video has 64 frames and not 25, because so many durations are shorter than min_frames (1) "
        "at 24 fps that no hold can make up for them"
    )


@given(
    st.lists(st.one_of(st.integers(1, 9), st.decimals("0.001", "0.5", places=3)), min_size=1, max_size=60),
    st.sampled_from(FRAME_RATES),
    st.integers(1, 3),
)
def test_the_error_is_within_half_a_frame_wherever_all_stills_have_room(
    lengths: list[int | Decimal], fps: Fraction, least: int
) -> None:
    images = [
        ImageFrame(url="a", frames=length) if isinstance(length, int) else ImageFrame(url="a", duration=float(length))
        for length in lengths
    ]
    wanted = RenderRequest(images=tuple(images), fps=str(fps), min_frames=least)
    line = timeline_of(wanted)
    exact = sum((Fraction(length) * (1 if isinstance(length, int) else fps) for length in lengths), Fraction(0))
    needed = sum(length if isinstance(length, int) else least for length in lengths)
    has_room = needed <= math.floor(exact + Fraction(1, 2))
    assert has_room == (abs(line.frames - exact) <= Fraction(1, 2)) == (not remarks(wanted, line))
    for length, hold in zip(lengths, line.holds, strict=True):
        assert hold == length if isinstance(length, int) else hold >= least


def asking(durations: list[float], **fields: object) -> RenderRequest:
    return RenderRequest(images=tuple(holding(*durations)), fps="auto", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("durations", "fps"),
    [
        ([5, 2.5], 24),
        ([1 / 24] * 48, 24),
        ([0.04] * 30, 25),
        ([1 / 30] * 30, 30),
        ([0.02] * 30, 50),
        ([1 / 60] * 30, 60),
        ([0.01] * 30, 120),
        ([5, 0.02], 25),  # 120.48 frames at 24 fps round to where they began
    ],
)
def test_an_automatic_rate_is_the_lowest_that_shows_every_still(durations: list[float], fps: int) -> None:
    assert timeline_of(asking(durations)).fps == fps


def test_an_automatic_rate_without_durations_is_24() -> None:
    images = tuple(ImageFrame(url="a", frames=frames) for frames in (1, 7))
    assert timeline_of(RenderRequest(images=images, fps="auto")) == Timeline(Fraction(24), (1, 7))


def test_durations_too_short_for_any_rate_are_refused_unless_they_get_a_frame_each() -> None:
    with pytest.raises(InvalidRequest, match=r"images\[0\].duration: 0.001 s leaves no frame .* at 120 fps"):
        timeline_of(asking([0.001] * 9))
    assert timeline_of(asking([0.001] * 9, min_frames=1)) == Timeline(Fraction(120), (1,) * 9)


@pytest.mark.parametrize("duration", [5e-324, 1e-9])
def test_a_vanishing_duration_is_an_error(duration: float) -> None:
    with pytest.raises(InvalidRequest):
        timeline(holding(duration), Fraction(120))


def test_a_huge_duration_is_a_number_for_the_limits_to_refuse() -> None:
    assert timeline(holding(1e300), Fraction(24)).frames == 24 * 10**300


@pytest.mark.parametrize(("fps", "holds"), [(Fraction(0), (1,)), (Fraction(24), ()), (Fraction(24), (3, 0))])
def test_a_timeline_that_is_none_cannot_be_made(fps: Fraction, holds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"fps|holds"):
        Timeline(fps, holds)


@pytest.mark.parametrize(
    ("timecode", "fps"),
    [
        ("00:00:00:00", Fraction(1)),
        ("23:59:59:23", Fraction(24000, 1001)),
        ("01:00:00;00", Fraction(30000, 1001)),
        ("00:10:00;00", Fraction(30000, 1001)),
        ("00:01:00;04", Fraction(60000, 1001)),
        ("00:01:00:00", Fraction(30000, 1001)),
    ],
)
def test_a_timecode_that_a_frame_can_have_is_taken(timecode: str, fps: Fraction) -> None:
    check_timecode(timecode, fps)


@pytest.mark.parametrize(
    ("timecode", "fps", "words"),
    [
        ("00:00:00:00", Fraction(25, 2), "expected whole frames per second"),
        ("00:00:00;00", Fraction(30), "expected ':' before the frames"),
        ("00:00:00;00", Fraction(24000, 1001), "expected ':' before the frames"),
        ("00:00:00:24", Fraction(24), "expected up to 23:59:59 and 23 frames"),
        ("24:00:00:00", Fraction(24), "expected up to 23:59:59"),
        ("00:60:00:00", Fraction(24), "expected up to 23:59:59"),
        ("00:01:00;01", Fraction(30000, 1001), "expected a number that is not dropped"),
        ("00:01:00;03", Fraction(60000, 1001), "expected a number that is not dropped"),
    ],
)
def test_a_timecode_that_no_frame_has_is_refused(timecode: str, fps: Fraction, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"^timecode: {words}"):
        check_timecode(timecode, fps)
