"""Sizes and rectangles: how large the canvas is and where on it a still is placed. Integers in, integers out.

4:2:0 video stores one chroma sample for 2×2 luma samples (H.264, 6.2), so a canvas has even sides, and a scaled still
begins and ends on even lines: no chroma sample straddles picture and bar.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from protocol.schema import ResizeMode


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise ValueError(f"sides must be positive: {self}")

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Canvas(Size):
    """The output picture that every still is placed on, in luma samples."""

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 2 or self.width % 2 or self.height % 2:
            raise ValueError(f"canvas sides must be even and positive: {self.width}x{self.height}")

    @property
    def nv12_shape(self) -> tuple[int, int]:
        """(rows, columns) of an NV12 frame: the luma plane, then half as many rows of interleaved Cb and Cr."""
        return self.height * 3 // 2, self.width


@dataclass(frozen=True, slots=True)
class CanvasLimits:
    """The largest canvas that a stream may have; macroblocks are squares of 16 luma samples, begun ones count.

    H.264's largest level, 6.2, sets the defaults (Table A-1, A.3.1). Its 16,711,680 macroblocks a second are 120 of its
    largest frames, and 120 is the highest rate there is, so the rate of frames narrows nothing.
    """

    width: int = 16 * 1055
    height: int = 16 * 1055
    macroblocks: int = 139_264

    def allow(self, size: Size) -> bool:
        is_short_enough = size.width <= self.width and size.height <= self.height
        return is_short_enough and _in_macroblocks(size.width) * _in_macroblocks(size.height) <= self.macroblocks

    def longest_beside(self, side: int) -> int:
        """Return how long a side may be beside another one, as far as the number of macroblocks decides."""
        return 16 * (self.macroblocks // _in_macroblocks(side))

    def within(self, other: "CanvasLimits") -> "CanvasLimits":
        """Return what both allow."""
        return CanvasLimits(
            min(self.width, other.width), min(self.height, other.height), min(self.macroblocks, other.macroblocks)
        )


LEVEL_6_2: Final = CanvasLimits()


@dataclass(frozen=True, slots=True)
class Placement:
    """What happens to one still: cut `crop` out of it, scale that to `size`, put it at (x, y) on the canvas.

    `crop` is (x, y, width, height) in the still's pixels. Where `size` is one short of the canvas, the still's last
    column or row is repeated: an odd-sized picture keeps every pixel and gets no bar.
    """

    crop: tuple[int, int, int, int]
    size: Size
    x: int
    y: int

    @property
    def enlargement(self) -> Fraction:
        """How many times the still is scaled up, on the axis where that is more; below 1 where it is scaled down."""
        width, height = self.crop[2:]
        return max(Fraction(self.size.width, width), Fraction(self.size.height, height))


def even_up(side: int) -> int:
    return max(2, side + side % 2)


def even_down(side: int) -> int:
    return max(2, side - side % 2)


def canvas_for(first: Size, width: int | None, height: int | None) -> Canvas:
    """Choose the canvas: the size that was asked for, else that of the first still; odd sides grow by one.

    Args:
        first: size of the first still, after orientation.
        width, height: as requested; where one is given the other follows it, once even, in the first still's shape.
    """
    if width is not None and height is not None:
        return Canvas(even_up(width), even_up(height))
    if width is not None:
        return _as_wide(first, even_up(width))
    if height is not None:
        return _as_high(first, even_up(height))
    return Canvas(even_up(first.width), even_up(first.height))


def _as_wide(still: Size, width: int) -> Canvas:
    return Canvas(width, _even_near(Fraction(width * still.height, still.width)))


def _as_high(still: Size, height: int) -> Canvas:
    return Canvas(_even_near(Fraction(height * still.width, still.height)), height)


def largest_canvas(first: Size, limits: CanvasLimits) -> Canvas:
    """Return the canvas of the first still's size or, if that is too large, the largest one allowed in its shape."""
    canvas = canvas_for(first, None, None)
    if limits.allow(canvas):
        return canvas
    most = min(
        Fraction(1),
        Fraction(limits.width, first.width),
        Fraction(limits.height, first.height),
        Fraction(math.isqrt(limits.macroblocks * 256 * first.pixels) + 1, first.pixels),
    )
    shorter = min(first.width, first.height)
    for side in range(2 * math.ceil(shorter * most / 2), 0, -2):
        width, height = (_even_near(Fraction(part * side, shorter)) for part in (first.width, first.height))
        canvas = Canvas(width, height)
        # Both sides are rounded, so that the still might miss the canvas by two rows, which would show as a bar.
        if limits.allow(canvas) and place(first, canvas, "pad").size == Size(width, height):
            return canvas
    return _thinnest_canvas(first, limits)


def _thinnest_canvas(first: Size, limits: CanvasLimits) -> Canvas:
    """Return the longest canvas of two rows or columns, for a first still so thin that its shape cannot be kept."""
    if first.width > first.height:
        return Canvas(even_down(min(first.width, limits.width)), 2)
    return Canvas(2, even_down(min(first.height, limits.height)))


def place(still: Size, canvas: Canvas, mode: ResizeMode, *, upscale: bool = True) -> Placement:
    """Return where a still is placed on the canvas.

    pad keeps the whole still and adds bars, though none where still and canvas differ in shape by rounding alone; crop
    fills the canvas and cuts what hangs over, evenly on both sides; stretch ignores the aspect ratio. With
    upscale=False a still is never enlarged: where it would be, it keeps its size (stretch: each axis by itself) and
    is placed in the middle.
    """
    whole = (0, 0, still.width, still.height)
    if still.width in (canvas.width, canvas.width - 1) and still.height in (canvas.height, canvas.height - 1):
        return Placement(whole, still, 0, 0)
    if mode == "stretch":
        size = Size(canvas.width, canvas.height)
        if not upscale:
            size = Size(min(still.width, canvas.width), min(still.height, canvas.height))
        return _centred(whole, size, canvas)
    ratios = Fraction(canvas.width, still.width), Fraction(canvas.height, still.height)
    scale = min(ratios) if mode == "pad" else max(ratios)
    is_held_back = scale > 1 and not upscale
    if is_held_back:
        scale = Fraction(1)
    if mode == "pad":
        may_fill = upscale or max(ratios) <= 1
        if may_fill and canvas in (_as_wide(still, canvas.width), _as_high(still, canvas.height)):
            return Placement(whole, Size(canvas.width, canvas.height), 0, 0)
        return _centred(whole, _scaled(still, scale, canvas), canvas)
    crop = _centred_crop(still, scale, canvas)
    if is_held_back:
        return _centred(crop, Size(crop[2], crop[3]), canvas)
    # Not the crop's own size times the scale: the crop is whole pixels, and half of one enlarged would leave a bar.
    return Placement(crop, Size(canvas.width, canvas.height), 0, 0)


def _in_macroblocks(side: int) -> int:
    return -(-side // 16)


def _even_near(side: Fraction) -> int:
    return max(2, 2 * round(side / 2))


def _scaled(still: Size, scale: Fraction, canvas: Canvas) -> Size:
    if scale == 1:
        return Size(min(still.width, canvas.width), min(still.height, canvas.height))
    return Size(
        min(canvas.width, _even_near(still.width * scale)), min(canvas.height, _even_near(still.height * scale))
    )


def _centred_crop(still: Size, scale: Fraction, canvas: Canvas) -> tuple[int, int, int, int]:
    width = min(still.width, max(1, round(canvas.width / scale)))
    height = min(still.height, max(1, round(canvas.height / scale)))
    return (still.width - width) // 2, (still.height - height) // 2, width, height


def _centred(crop: tuple[int, int, int, int], size: Size, canvas: Canvas) -> Placement:
    return Placement(crop, size, (canvas.width - size.width) // 4 * 2, (canvas.height - size.height) // 4 * 2)
