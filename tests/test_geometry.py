from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.schema import ResizeMode
from renderer.geometry import (
    LEVEL_6_2,
    Canvas,
    CanvasLimits,
    Placement,
    Size,
    canvas_for,
    even_up,
    largest_canvas,
    place,
)

MODES: tuple[ResizeMode, ...] = ("pad", "crop", "stretch")
SIZES = [(1, 1), (2, 2), (15, 17), (641, 481), (1600, 901), (4096, 2160), (5120, 2880), (901, 1600), (480, 641)]


@pytest.mark.parametrize("sides", [(0, 2), (2, 0), (-2, 2)])
def test_sizes_are_positive(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Size(*sides)


@pytest.mark.parametrize("sides", [(1, 2), (2, 1), (3, 4), (0, 2)])
def test_canvas_sides_are_even(sides: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even"):
        Canvas(*sides)


def test_an_nv12_frame_has_half_as_many_rows_again() -> None:
    assert Canvas(1920, 1080).nv12_shape == (1620, 1920)


@pytest.mark.parametrize("size", SIZES)
def test_the_first_still_gives_the_canvas_and_odd_sides_grow_by_one(size: tuple[int, int]) -> None:
    first = Size(*size)
    canvas = canvas_for(first, None, None)
    assert (canvas.width, canvas.height) == (even_up(first.width), even_up(first.height))
    assert place(first, canvas, "pad") == Placement((0, 0, first.width, first.height), first, 0, 0)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1920, None, (1920, 1080)),
        (None, 1080, (1920, 1080)),
        (1921, 1081, (1922, 1082)),
        (100, None, (100, 56)),
        (2, None, (2, 2)),
    ],
)
def test_one_side_given_lets_the_other_follow(width: int | None, height: int | None, expected: tuple[int, int]) -> None:
    canvas = canvas_for(Size(3840, 2160), width, height)
    assert (canvas.width, canvas.height) == expected


@pytest.mark.parametrize(
    ("still", "mode", "upscale", "expected"),
    [
        # Portrait on landscape and the other way: bars on the sides, bars above and below.
        ((1080, 1920), "pad", True, Placement((0, 0, 1080, 1920), Size(608, 1080), 656, 0)),
        ((1920, 800), "pad", True, Placement((0, 0, 1920, 800), Size(1920, 800), 0, 140)),
        ((1080, 1920), "crop", True, Placement((0, 656, 1080, 608), Size(1920, 1080), 0, 0)),
        ((4000, 1080), "crop", True, Placement((1040, 0, 1920, 1080), Size(1920, 1080), 0, 0)),
        ((1, 1), "pad", True, Placement((0, 0, 1, 1), Size(1080, 1080), 420, 0)),
        ((5120, 2880), "pad", True, Placement((0, 0, 5120, 2880), Size(1920, 1080), 0, 0)),
        ((1919, 1079), "stretch", True, Placement((0, 0, 1919, 1079), Size(1919, 1079), 0, 0)),
        ((100, 3000), "stretch", False, Placement((0, 0, 100, 3000), Size(100, 1080), 910, 0)),
        ((640, 480), "pad", False, Placement((0, 0, 640, 480), Size(640, 480), 640, 300)),
        ((640, 480), "crop", False, Placement((0, 0, 640, 480), Size(640, 480), 640, 300)),
    ],
)
def test_placements_on_1080p(still: tuple[int, int], mode: ResizeMode, upscale: bool, expected: Placement) -> None:
    assert place(Size(*still), Canvas(1920, 1080), mode, upscale=upscale) == expected


sizes = st.builds(Size, st.integers(1, 6000), st.integers(1, 6000))
canvases = st.builds(lambda w, h: Canvas(2 * w, 2 * h), st.integers(1, 2048), st.integers(1, 2048))


@settings(deadline=None)
@given(sizes, canvases, st.sampled_from(MODES), st.booleans())
def test_every_placement_lies_within_still_and_canvas(
    still: Size, canvas: Canvas, mode: ResizeMode, upscale: bool
) -> None:
    placement = place(still, canvas, mode, upscale=upscale)
    x, y, width, height = placement.crop
    assert x >= 0
    assert y >= 0
    assert width >= 1
    assert height >= 1
    assert x + width <= still.width
    assert y + height <= still.height
    assert 0 <= placement.x <= canvas.width - placement.size.width
    assert 0 <= placement.y <= canvas.height - placement.size.height
    assert placement.x % 2 == placement.y % 2 == 0


@settings(deadline=None)
@given(sizes, canvases, st.sampled_from(MODES))
def test_stills_stand_in_the_middle(still: Size, canvas: Canvas, mode: ResizeMode) -> None:
    placement = place(still, canvas, mode)
    assert 0 <= canvas.width - placement.size.width - 2 * placement.x <= 3
    assert 0 <= canvas.height - placement.size.height - 2 * placement.y <= 3
    x, y, width, height = placement.crop
    assert 0 <= still.width - width - 2 * x <= 1
    assert 0 <= still.height - height - 2 * y <= 1


@settings(deadline=None)
@given(sizes, canvases)
def test_pad_shows_all_and_touches_two_sides(still: Size, canvas: Canvas) -> None:
    placement = place(still, canvas, "pad")
    assert placement.crop == (0, 0, still.width, still.height)
    assert placement.size.width >= canvas.width - 1 or placement.size.height >= canvas.height - 1


@settings(deadline=None)
@given(sizes, canvases)
def test_pad_keeps_the_aspect_ratio_within_rounding(still: Size, canvas: Canvas) -> None:
    _assert_shape_is_kept(still, place(still, canvas, "pad").size)


def _assert_shape_is_kept(still: Size, size: Size) -> None:
    """One side follows the other; of a thin picture a rounded short side says little about the long one."""
    width_off = abs(size.width - Fraction(still.width * size.height, still.height))
    height_off = abs(size.height - Fraction(still.height * size.width, still.width))
    assert min(width_off, height_off) <= 2


@settings(deadline=None, max_examples=500)
@given(sizes, st.integers(1, 6000), st.sampled_from(["neither", "width", "height"]), st.sampled_from(MODES))
@example(Size(4000, 3000), 1916, "width", "pad")
@example(Size(18, 966), 3869, "width", "pad")
@example(Size(18, 966), 3869, "height", "pad")
def test_the_first_still_fills_the_canvas_that_follows_it(first: Size, side: int, given: str, mode: ResizeMode) -> None:
    canvas = canvas_for(first, side if given == "width" else None, side if given == "height" else None)
    size = place(first, canvas, mode).size
    assert canvas.width - size.width <= 1
    assert canvas.height - size.height <= 1
    _assert_shape_is_kept(first, size)


@settings(deadline=None)
@given(sizes, canvases, st.sampled_from(["crop", "stretch"]))
def test_crop_and_stretch_leave_no_bar(still: Size, canvas: Canvas, mode: ResizeMode) -> None:
    size = place(still, canvas, mode).size
    assert size.width >= canvas.width - 1
    assert size.height >= canvas.height - 1


@settings(deadline=None)
@given(sizes, canvases, st.sampled_from(MODES))
def test_upscale_false_never_enlarges(still: Size, canvas: Canvas, mode: ResizeMode) -> None:
    placement = place(still, canvas, mode, upscale=False)
    crop_width, crop_height = placement.crop[2:]
    # A scaled side is rounded to an even number, two at the least.
    assert placement.size.width <= max(2, crop_width + 1)
    assert placement.size.height <= max(2, crop_height + 1)


@settings(deadline=None)
@given(sizes)
def test_a_still_on_its_own_canvas_is_not_scaled(still: Size) -> None:
    for mode in MODES:
        assert place(still, canvas_for(still, None, None), mode).size == still


@pytest.mark.parametrize(
    ("first", "limits", "expected"),
    [
        ((1920, 1080), LEVEL_6_2, (1920, 1080)),
        ((8192, 4352), LEVEL_6_2, (8192, 4352)),  # 139,264 macroblocks, the last that there are
        ((8064, 6048), LEVEL_6_2, (6890, 5168)),  # a phone of 48 megapixels
        ((6048, 8064), LEVEL_6_2, (5168, 6890)),
        ((9504, 6336), LEVEL_6_2, (7296, 4864)),  # a full-frame camera of 61 megapixels
        ((9504, 6336), CanvasLimits(4096, 4096), (4096, 2730)),
        ((20000, 100), LEVEL_6_2, (16800, 84)),  # as long as a side may be
        ((1, 100_000), LEVEL_6_2, (2, 16880)),
        ((100_000, 1), CanvasLimits(8192, 8192), (8192, 2)),
    ],
)
def test_a_first_still_that_no_level_has_gives_the_largest_canvas_of_its_shape(first, limits, expected) -> None:
    canvas = largest_canvas(Size(*first), limits)
    assert (canvas.width, canvas.height) == expected


@given(
    st.builds(Size, st.integers(1, 120_000), st.integers(1, 120_000)),
    st.sampled_from([LEVEL_6_2, CanvasLimits(8192, 8192), CanvasLimits(4096, 4096), CanvasLimits(641, 500, 900)]),
)
@settings(max_examples=300, deadline=None)
def test_the_largest_canvas_is_allowed_and_leaves_no_bar_unless_it_is_a_thread(
    first: Size, limits: CanvasLimits
) -> None:
    canvas = largest_canvas(first, limits)
    assert limits.allow(canvas)
    if min(canvas.width, canvas.height) > 16:
        placed = place(first, canvas, "pad").size
        assert canvas.width - placed.width <= 1
        assert canvas.height - placed.height <= 1
        assert abs(canvas.width / canvas.height / (first.width / first.height) - 1) < 2 / min(
            canvas.width, canvas.height
        )


def test_the_level_allows_its_last_macroblock_and_its_longest_side() -> None:
    assert LEVEL_6_2.allow(Size(8192, 4352))
    assert not LEVEL_6_2.allow(Size(8193, 4352))
    assert LEVEL_6_2.allow(Size(16880, 2))
    assert not LEVEL_6_2.allow(Size(16882, 2))
    assert LEVEL_6_2.longest_beside(4352) == 8192


@pytest.mark.parametrize(
    ("still", "mode", "times"),
    [((64, 48), "pad", 10), ((64, 48), "crop", 10), ((640, 10), "stretch", 48), ((1280, 960), "pad", Fraction(1, 2))],
)
def test_how_many_times_a_still_is_enlarged_is_told(still, mode: ResizeMode, times: Fraction) -> None:
    assert place(Size(*still), Canvas(640, 480), mode).enlargement == times
