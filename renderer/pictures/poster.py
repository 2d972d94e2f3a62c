"""The pictures beside a video, a poster and a contact sheet, from the composed stills on their way to the encoder.

No video is decoded for them. A poster is the composed still itself, before the encoder has changed it; a contact sheet
shows each still once. Both are made on the threads that compose, as soon as the stills are there.

Colour: the inverse of `compose`, BT.709 in limited range to R'G'B', and no change of the transfer function, as players
and browsers show such a video. Chroma is interpolated linearly to where H.264 says that it lies: on the even column,
and half-way between two rows.
"""

import itertools
import math
from collections.abc import Hashable
from pathlib import Path
from typing import Final, Literal, Self

import cv2
import numpy as np

from protocol.schema import ContactSheet, Poster, RenderRequest, ResultWarning
from renderer.disk import flush, part_of, settle, write_failure
from renderer.errors import OutputFailed
from renderer.geometry import Canvas, Size
from renderer.pictures.colour import Pixels
from renderer.pictures.compose import bgr_of
from renderer.pictures.reel import Reel
from renderer.timeline import Timeline, poster_frame
from renderer.work import ImageFacts, images_of

_GAP: Final = 8
_GROUND: Final = 32  # a grey that sets off both black bars and white pages
_MOST_PIXELS: Final = 1 << 24
_MOST_ROWS: Final = 1 << 14
_FULL_CHROMA: Final = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_CODING: Final = {"jpeg": (cv2.IMWRITE_JPEG_QUALITY, 92, *_FULL_CHROMA), "png": ()}


class Posters:
    """The pictures beside one attempt's video; use as a context manager, and nothing remains unless they are settled.

    `take` may be called from many threads.
    """

    def __init__(self, request: RenderRequest, reel: Reel, canvas: Canvas) -> None:
        """Find out which stills they show."""
        pictures = [source.picture for source in reel.sources]
        self._names = images_of(request)
        self._posters = {pictures[_still_at(request.poster, reel.timeline)]} if request.poster else set()
        self._sheet = _Sheet(request.contact_sheet, pictures, canvas) if request.contact_sheet else None
        self._coded: dict[str, tuple[bytes, Size]] = {}
        self._written: list[tuple[Path, ImageFacts]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for place, _ in self._written:
            part_of(place).unlink(missing_ok=True)

    def show(self, picture: Hashable) -> bool:
        """Return whether one of them shows this picture."""
        return picture in self._posters or (self._sheet is not None and picture in self._sheet.cells)

    def take(self, picture: Hashable, frame: Pixels) -> None:
        """Take a composed still, (H * 3 // 2, W) uint8; it may be used again on return."""
        if picture in self._posters:
            rows = frame.shape[0] * 2 // 3
            self._code("poster", bgr_of(frame[:rows], frame[rows:].reshape(rows // 2, -1, 2)))
        if self._sheet is not None:
            self._sheet.take(picture, frame)

    def write(self, video: Path) -> None:
        """Write them to disk beside the video, under names that `settle` changes.

        Raises:
            StorageFull, OutputFailed: the disk does not take them.
        """
        if self._sheet is not None:
            self._code("contact_sheet", self._sheet.pixels)
        try:
            for name in self._names:
                content, size = self._coded[name.field]
                place = Path(name.after(str(video)))
                self._written.append((place, ImageFacts(name, size.width, size.height, len(content))))
                with part_of(place).open("wb") as file:
                    file.write(content)
                    flush(file)
        except OSError as error:
            raise write_failure(error.errno, error.strerror) from error

    def settle(self) -> tuple[ImageFacts, ...]:
        """Give them their names, once the video has its own.

        Raises:
            OutputFailed: a name could not be given.
        """
        try:
            for place, _ in self._written:
                settle(part_of(place), place)
        except OSError as error:
            raise write_failure(error.errno, error.strerror) from error
        return tuple(facts for _, facts in self._written)

    def _code(self, field: str, bgr: Pixels) -> None:
        name = next(name for name in self._names if name.field == field)
        self._coded[field] = coded(bgr, name.format), Size(bgr.shape[1], bgr.shape[0])


def coded(bgr: Pixels, kind: Literal["jpeg", "png"]) -> bytes:
    """Return the content of an image file; a JPEG keeps its chroma in full.

    Args:
        bgr: (H, W, 3).
    """
    is_done, content = cv2.imencode(f".{kind}", bgr, _CODING[kind])
    if not is_done:
        raise OutputFailed(f"a picture of {bgr.shape[1]}x{bgr.shape[0]} could not be written as {kind}")
    return content.tobytes()


def poster_remarks(request: RenderRequest, line: Timeline, canvas: Canvas) -> list[ResultWarning]:
    """Return the warnings about what the pictures beside a video show."""
    warnings = []
    if request.poster and poster_frame(request.poster, line.fps) >= line.frames:
        words = "the video ends before this frame, since images were left out; the poster shows its last one"
        warnings.append(ResultWarning(type="poster_moved", message=words, loc=("poster",)))
    if request.contact_sheet and (most := _Grid(request.contact_sheet, canvas).most) < len(line.holds):
        words = f"the contact sheet shows {most} of {len(line.holds)} stills, evenly spread; more would not fit"
        warnings.append(ResultWarning(type="contact_sheet_in_part", message=words, loc=("contact_sheet",)))
    return warnings


def _still_at(poster: Poster, line: Timeline) -> int:
    """Return the place of the still that a poster shows; the last one if images were left out before its frame."""
    frame = min(poster_frame(poster, line.fps), line.frames - 1)
    return next(place for place, end in enumerate(itertools.accumulate(line.holds)) if frame < end)


class _Grid:
    """The places in a contact sheet, which has up to 16,777,216 pixels and 16,384 rows of them."""

    def __init__(self, wish: ContactSheet, canvas: Canvas) -> None:
        share = min(1.0, wish.width / canvas.width, 2 * wish.width / canvas.height)
        self.columns = wish.columns
        self.cell = Size(max(1, round(canvas.width * share)), max(1, round(canvas.height * share)))
        rows = min(_MOST_ROWS, _MOST_PIXELS // self.size_of(self.columns).width)
        self.most = self.columns * ((rows + _GAP) // (self.cell.height + _GAP))

    def size_of(self, count: int) -> Size:
        """Return the size of a sheet with this many stills."""
        columns, rows = min(count, self.columns), math.ceil(count / self.columns)
        return Size(columns * (self.cell.width + _GAP) - _GAP, rows * (self.cell.height + _GAP) - _GAP)

    def cut(self, pixels: Pixels, number: int) -> Pixels:
        """Return the part of a sheet that shows the still of this number."""
        row, column = divmod(number, self.columns)
        top, left = row * (self.cell.height + _GAP), column * (self.cell.width + _GAP)
        return pixels[top : top + self.cell.height, left : left + self.cell.width]


class _Sheet:
    """A contact sheet in the making.

    Attributes:
        cells: the numbers of the places that show each picture.
    """

    def __init__(self, wish: ContactSheet, pictures: list[Hashable], canvas: Canvas) -> None:
        self._grid = _Grid(wish, canvas)
        shown = _evenly(len(pictures), self._grid.most)
        self.cells: dict[Hashable, list[int]] = {}
        for number, place in enumerate(shown):
            self.cells.setdefault(pictures[place], []).append(number)
        size = self._grid.size_of(len(shown))
        self.pixels: Pixels = np.full((size.height, size.width, 3), _GROUND, np.uint8)

    def take(self, picture: Hashable, frame: Pixels) -> None:
        cells = self.cells.get(picture)
        if not cells:
            return
        rows, columns, size = frame.shape[0] * 2 // 3, frame.shape[1], self._grid.cell
        luma, chroma = frame[:rows], frame[rows:].reshape(rows // 2, columns // 2, 2)
        # Each plane is scaled first, so that little is left to convert.
        still = bgr_of(*(_shrunk(plane, size) for plane in (luma, chroma)))
        for number in cells:
            self._grid.cut(self.pixels, number)[:] = still


def _shrunk(plane: Pixels, size: Size) -> Pixels:
    return np.asarray(cv2.resize(plane, (size.width, size.height), interpolation=cv2.INTER_AREA), np.uint8)


def _evenly(count: int, most: int) -> list[int]:
    """Return the numbers below `count`; if there are more than `most`, that many of them, first and last included."""
    if count <= most:
        return list(range(count))
    return [round(number * (count - 1) / (most - 1)) if most > 1 else 0 for number in range(most)]
