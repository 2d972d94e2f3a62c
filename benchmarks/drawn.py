"""Stills that no camera took, drawn here: frames of an animation, slides with text, and screenshots.

The same number always gives the same picture. All are (H, W, 3) uint8, BGR.
"""

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # width, height
_Colour = tuple[int, int, int]

SCENE = 1000

_WORDS = [
    "render",
    "picture",
    "still",
    "canvas",
    "frame",
    "hold",
    "sample",
    "video",
    "margin",
    "detail",
    "light",
    "shadow",
    "river",
    "winter",
    "market",
    "figure",
    "quarter",
    "revenue",
    "growth",
    "region",
    "method",
    "result",
    "average",
    "interval",
    "project",
    "review",
    "schedule",
    "budget",
    "summary",
    "outlook",
]
_CODE = ("def", "return", "for", "in", "if", "else", "import", "from", "yield", "with")
_PAPERS: tuple[tuple[_Colour, _Colour, _Colour], ...] = (  # paper, ink and accent, RGB
    ((255, 255, 255), (34, 34, 34), (0, 114, 178)),
    ((24, 28, 38), (235, 235, 235), (230, 159, 0)),
    ((247, 243, 233), (60, 40, 30), (213, 94, 0)),
    ((0, 84, 120), (255, 255, 255), (240, 228, 66)),
)


def drawing(index: int, size: Size) -> Pixels:
    """Return drawing number `index` of an animation, of flat colours and smooth outlines; SCENE of them are alike."""
    scene, index = divmod(index, SCENE)
    width, height = size
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = np.linspace((235, 206, 150), (200, 232, 250), height)[:, None]
    for layer, colour in enumerate(((140, 190, 150), (95, 160, 110), (60, 120, 70))):
        x = np.arange(-8, width + 8, 8)
        waves = np.sin(x / width * (5 + 3 * layer + scene * 4) + layer * 2 + scene - index * 0.01 * (layer + 1))
        y = height * (0.55 + 0.13 * layer) + waves * height * 0.05
        hill = np.vstack([np.column_stack([x, y]), [[width + 8, height], [-8, height]]])
        cv2.fillPoly(canvas, [hill.astype(np.int32)], colour, cv2.LINE_AA)
    unit = height / 100
    bounce = abs(np.sin(index * 0.25)) * 22 * unit
    at = (round(width * (0.15 + 0.012 * index % 0.7)), round(height * 0.72 - bounce))
    line = max(1, round(unit * 0.6))
    for radius, colour, width_px in ((11, (70, 90, 235), -1), (11, (30, 30, 40), line), (3, (250, 250, 250), -1)):
        cv2.circle(canvas, at, round(radius * unit), colour, width_px, cv2.LINE_AA)
    foot = (at[0] + round(np.sin(index * 0.9) * 7 * unit), round(height * 0.9))
    cv2.line(canvas, (at[0], at[1] + round(11 * unit)), foot, (30, 30, 40), line, cv2.LINE_AA)
    return np.ascontiguousarray(np.roll(canvas, scene, axis=2))  # other colours


def slide(index: int, size: Size) -> Pixels:
    """Return a slide of a talk: a title, points, and a chart on every other one."""
    random = np.random.default_rng([2, index])
    paper, ink, accent = _PAPERS[index % len(_PAPERS)]
    page = _Page(size, paper)
    page.text((6, 6), _phrase(random, 4).title(), 9, accent)
    page.box((6, 19, 60, 19.6), accent)
    for row in range(int(random.integers(3, 7))):
        page.box((7, 28.5 + row * 10, 8.5, 30 + row * 10), accent)
        page.text((11, 26 + row * 10), _phrase(random, 5 if index % 2 else 9), 4.5, ink)
    if index % 2:
        for bar, height in enumerate(random.uniform(10, 50, 7)):
            page.box((100 + bar * 9, 85 - height, 106 + bar * 9, 85), accent if bar % 2 else ink)
            page.text((101 + bar * 9, 86), str(2014 + bar), 2.2, ink)
    return page.pixels()


def screenshot(index: int, size: Size) -> Pixels:
    """Return a program's window: a bar with buttons, a list at the left, and a page of code or a table."""
    random = np.random.default_rng([3, index])
    paper, ink, accent = _PAPERS[index % 2]
    shade: _Colour = (238, 240, 243) if index % 2 == 0 else (37, 42, 54)
    page = _Page(size, paper)
    page.box((0, 0, 200, 5), shade)
    page.box((0, 5, 34, 100), shade)
    for button in range(12):
        left = 3 + button * 7
        red, green, blue = (int(part) for part in random.integers(60, 220, 3))
        page.box((left, 1.2, left + 4.5, 3.8), (red, green, blue))
    for row in range(42):
        page.text((2, 7 + row * 2.2), _phrase(random, int(random.integers(1, 4))), 1.5, ink)
    for row in range(44):
        top = 7 + row * 2.1
        page.text((36, top), f"{row + 1:3}", 1.4, (140, 140, 140))
        if index % 4 < 2:
            page.text((40 + 2 * int(random.integers(0, 4)), top), str(random.choice(_CODE)), 1.5, accent)
            page.text((56, top), _phrase(random, int(random.integers(1, 12))), 1.5, ink)
        else:
            page.box((40, top + 1.9, 170, top + 2), shade)
            for column in range(6):
                page.text((42 + column * 21, top), f"{random.uniform(0, 9999):.2f}", 1.5, ink)
    return page.pixels()


class _Page:
    """A page that is drawn on in hundredths of its height."""

    def __init__(self, size: Size, paper: _Colour) -> None:
        self._image = Image.new("RGB", size, paper)
        self._draw = ImageDraw.Draw(self._image)
        self._unit = size[1] / 100

    def box(self, corners: tuple[float, float, float, float], colour: _Colour) -> None:
        self._draw.rectangle([round(at * self._unit) for at in corners], fill=colour)

    def text(self, at: tuple[float, float], words: str, height: float, colour: _Colour) -> None:
        font = ImageFont.load_default(max(4, height * self._unit))
        self._draw.text((at[0] * self._unit, at[1] * self._unit), words, fill=colour, font=font)

    def pixels(self) -> Pixels:
        return np.ascontiguousarray(np.asarray(self._image)[:, :, ::-1])


def _phrase(random: np.random.Generator, words: int) -> str:
    return " ".join(random.choice(_WORDS, words))
