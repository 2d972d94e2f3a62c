"""A picture becomes one NV12 frame: scaled, placed on the canvas, converted to BT.709 limited range, in place.

Scaling works on the coded values, as browsers and ffmpeg do. `auto`: by area where a side shrinks (no aliasing), by
Lanczos of order 4 where it grows (sharp), each axis by its own rule. `area` is the mean of what an output pixel covers,
also where it covers a part of one. `lanczos` is Pillow's of order 3, whose kernel widens as a side shrinks; OpenCV's
does not, and aliases. `nearest` takes the pixel under the output pixel's middle.

A JPEG that was read at a reduced scale consists of means already, and a second mean would blur it. So `auto` shrinks it
by up to a half with the mean of four places in each output pixel, interpolated by cubics. Compared with the mean of all
the file's pixels (photographs, ratios of 1.2 to 1.98), this is 1.1 to 1.8 dB nearer than the mean of what was read, and
takes half its time: OpenCV's area scaling has no SIMD unless the ratio is whole.

Colour: ITU-R BT.709-6, 3.3 and 3.4, matrix and 8-bit limited range: Y' = 16 + 219·E'Y, Cb and Cr = 128 + 224·E'. The
three rows go through OpenCV's 3×3 SIMD transform with 10-bit fixed-point coefficients: off by 0.63 of a level at most
over 700,000 colours (exact rounding: 0.5), and four times as fast as a 1×3 transform, which OpenCV does in floats
without SIMD (OpenCV 5.0, 1080p, one thread: 0.8 and 3.1 ms).

Chroma siting: H.264 takes chroma_sample_loc_type 0 where the stream names none (ITU-T H.264, E.2.1): a chroma sample
lies on its even luma column and half-way between its two rows. So columns are filtered with 1 2 1 around the even
one, rows with 1 1. The former is the mean of two boxes one column apart, which OpenCV's area scaling by 2 does fastest.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from protocol.schema import ResizeMode, Scaling
from renderer.geometry import Canvas, Placement, Size, place
from renderer.pictures.colour import Pixels, Rgb
from renderer.pictures.decode import Picture

_KR, _KB = 0.2126, 0.0722  # BT.709-6, 3.2: the luma weights of red and blue


@dataclass(frozen=True, slots=True)
class Framing:
    """How the stills of one job are put on its canvas.

    Attributes:
        background: R, G, B of the bars, and of what lies under alpha.
    """

    canvas: Canvas
    mode: ResizeMode = "pad"
    upscale: bool = True
    background: Rgb = (0, 0, 0)
    scaling: Scaling = "auto"

    def place(self, still: Size) -> Placement:
        return place(still, self.canvas, self.mode, upscale=self.upscale)


def needed_size(look: Framing) -> Callable[[Size], Size]:
    """Return the function that gives `decode` the least size of a still at which the canvas loses no detail.

    A decoder that reads at a smaller scale takes means, as `area` does; the other two want every pixel.
    """

    def needed(still: Size) -> Size:
        if look.scaling in ("lanczos", "nearest"):
            return still
        placement = look.place(still)
        crop_width, crop_height = placement.crop[2:]
        return Size(
            min(still.width, -(-still.width * placement.size.width // crop_width)),
            min(still.height, -(-still.height * placement.size.height // crop_height)),
        )

    return needed


def compose(picture: Picture, look: Framing, frame: Pixels) -> None:
    """Write the picture as it looks on the canvas.

    Args:
        frame: (H * 3 // 2, W) uint8, C-contiguous: the luma plane, then rows of interleaved Cb and Cr.
    """
    if frame.shape != look.canvas.nv12_shape or frame.dtype != np.uint8 or not frame.flags.c_contiguous:
        raise ValueError(
            f"expected a frame of shape {look.canvas.nv12_shape}, uint8, found {frame.shape}, {frame.dtype}"
        )
    placement = look.place(picture.size)
    _write_nv12(_on_canvas(picture, placement, look), frame)


class _Scratch(threading.local):
    """Buffers that a thread uses for one still after another: allocating 6 MB costs as much as filling it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Pixels] = {}

    def buffer(self, name: str, shape: tuple[int, int, int]) -> Pixels:
        found = self._buffers.get(name)
        if found is None or found.shape != shape:
            found = self._buffers[name] = np.empty(shape, np.uint8)
        return found


_scratch = _Scratch()


def _on_canvas(picture: Picture, placement: Placement, look: Framing) -> Pixels:
    """Return BGR pixels of the canvas's size: the picture's own where it fills the canvas unscaled."""
    canvas, size = look.canvas, placement.size
    still = _cut(picture, placement.crop)
    if still.shape[:2] == (size.height, size.width) == (canvas.height, canvas.width):
        return still
    bgr = _scratch.buffer("canvas", (canvas.height, canvas.width, 3))
    right, bottom = placement.x + size.width, placement.y + size.height
    target = bgr[placement.y : bottom, placement.x : right]
    if picture.reduction > 1 and look.scaling == "auto" and _is_up_to_halved(still, target):
        _mean_of_four_into(still, target)
    else:
        _scale_into(still, target, look.scaling)
    if right == canvas.width - 1 and placement.x == 0:
        bgr[placement.y : bottom, right] = bgr[placement.y : bottom, right - 1]
        right += 1
    if bottom == canvas.height - 1 and placement.y == 0:
        bgr[bottom, placement.x : right] = bgr[bottom - 1, placement.x : right]
        bottom += 1
    bar = look.background[::-1]
    for part in (
        bgr[: placement.y],
        bgr[bottom:],
        bgr[placement.y : bottom, : placement.x],
        bgr[placement.y : bottom, right:],
    ):
        part[:] = bar
    return bgr


def _cut(picture: Picture, crop: tuple[int, int, int, int]) -> Pixels:
    """Return the crop, given in the full still's pixels, of pixels that may have been read at a reduced scale."""
    x, y, width, height = crop
    rows, columns = picture.pixels.shape[:2]
    left, right = _reduced(x, x + width, columns, picture.reduction)
    top, bottom = _reduced(y, y + height, rows, picture.reduction)
    return picture.pixels[top:bottom, left:right]


def _reduced(start: int, end: int, side: int, reduction: int) -> tuple[int, int]:
    first = min(side - 1, round(start / reduction))
    return first, min(side, max(first + 1, round(end / reduction)))


def _scale_into(still: Pixels, target: Pixels, scaling: Scaling) -> None:
    rows, columns = still.shape[:2]
    to_rows, to_columns = target.shape[:2]
    if (rows, columns) == (to_rows, to_columns):
        target[:] = still
    elif scaling == "lanczos":
        target[:] = np.asarray(Image.fromarray(still).resize((to_columns, to_rows), Image.Resampling.LANCZOS))
    elif scaling == "nearest":
        _resize_into(still, target, cv2.INTER_NEAREST_EXACT)
    else:
        if (to_rows < rows and to_columns > columns) or (to_rows > rows and to_columns < columns):
            smaller = (min(columns, to_columns), min(rows, to_rows))
            still = np.asarray(cv2.resize(still, smaller, interpolation=cv2.INTER_AREA), np.uint8)
        is_growing = to_rows > still.shape[0] or to_columns > still.shape[1]
        _resize_into(still, target, cv2.INTER_LANCZOS4 if is_growing and scaling == "auto" else cv2.INTER_AREA)


def _is_up_to_halved(still: Pixels, target: Pixels) -> bool:
    """Whether both sides shrink, and neither to less than its half."""
    sides = zip(still.shape[:2], target.shape[:2], strict=True)
    return all(after < before <= 2 * after for before, after in sides)


def _mean_of_four_into(still: Pixels, target: Pixels) -> None:
    """Shrink what was read at a reduced scale, by up to a half."""
    rows, columns = target.shape[:2]
    fourfold = np.asarray(cv2.resize(still, (2 * columns, 2 * rows), interpolation=cv2.INTER_CUBIC), np.uint8)
    _resize_into(fourfold, target, cv2.INTER_AREA)


def _resize_into(still: Pixels, target: Pixels, interpolation: int) -> None:
    rows, columns = target.shape[:2]
    _in_place(cv2.resize(still, (columns, rows), dst=target, interpolation=interpolation), target)


def _bt709() -> npt.NDArray[np.float32]:
    """Return the 3×4 matrix from (B, G, R, 1), 0 to 255, to limited-range (Y', Cb, Cr)."""
    luma = np.array([_KB, 1 - _KR - _KB, _KR])
    blue = (np.array([1, 0, 0]) - luma) / (2 * (1 - _KB))
    red = (np.array([0, 0, 1]) - luma) / (2 * (1 - _KR))
    rows = np.stack([luma * 219, blue * 224, red * 224]) / 255
    return np.hstack([rows, [[16], [128], [128]]]).astype(np.float32)


def _from_bt709() -> npt.NDArray[np.float32]:
    """Return the 3×4 matrix from limited-range (Y', Cb, Cr, 1) to (B, G, R)."""
    matrix = np.linalg.inv(_bt709()[:, :3].astype(np.float64))
    return np.hstack([matrix, matrix @ [[-16], [-128], [-128]]]).astype(np.float32)


_BAND = 128  # rows of chroma that are converted at once, so that little memory is needed beside the picture

_BT709 = _bt709()
_TO_BGR = _from_bt709()


def _write_nv12(bgr: Pixels, frame: Pixels) -> None:
    rows, columns = bgr.shape[:2]
    luma, chroma = frame[:rows], frame[rows:].reshape(rows // 2, columns // 2, 2)
    half = _half_at_even_columns(bgr)
    yuv = cv2.transform(half, _BT709, dst=_scratch.buffer("half yuv", half.shape))
    cv2.mixChannels([yuv], [chroma], [1, 0, 2, 1])
    yuv = cv2.transform(bgr, _BT709, dst=_scratch.buffer("yuv", bgr.shape))
    _in_place(cv2.extractChannel(yuv, 0, dst=luma), luma)


def bgr_of(luma: Pixels, chroma: Pixels) -> Pixels:
    """Return the B, G, R that a player shows of limited-range BT.709.

    Args:
        luma: (H, W).
        chroma: (H // 2, W // 2, 2), as in a frame, or (H, W, 2), where a sample lies in the middle of its pixel.
    """
    if chroma.shape[:2] == luma.shape:
        return np.asarray(cv2.transform(np.dstack([luma, chroma]), _TO_BGR), np.uint8)
    rows, bgr = len(chroma), np.empty((*luma.shape, 3), np.uint8)
    for top in range(0, rows, _BAND):
        bottom, above = min(rows, top + _BAND), min(1, top)
        whole = _at_every_pixel(chroma[top - above : bottom + 1])
        band = slice(2 * top, 2 * bottom)
        bgr[band] = bgr_of(luma[band], whole[2 * above :][: 2 * (bottom - top)])
    return bgr


def _at_every_pixel(chroma: Pixels) -> Pixels:
    """Interpolate chroma that lies on even columns, and between the rows of each pair, to every pixel."""
    rows, columns = chroma.shape[:2]
    eighths = np.asarray(cv2.resize(chroma.astype(np.uint16) * 8, (columns, 2 * rows), interpolation=cv2.INTER_LINEAR))
    right = np.concatenate([eighths[:, 1:], eighths[:, -1:]], axis=1)
    return ((np.stack([eighths, (eighths + right) // 2], axis=2) + 4) // 8).astype(np.uint8).reshape(2 * rows, -1, 2)


def _half_at_even_columns(bgr: Pixels) -> Pixels:
    """Return half of both sides, filtered with 1 2 1 around the even columns and 1 1 over rows; edges are repeated."""
    rows, columns = bgr.shape[0] // 2, bgr.shape[1] // 2
    right = _scratch.buffer("right boxes", (rows, columns, 3))
    left = _scratch.buffer("left boxes", (rows, columns, 3))
    cv2.resize(bgr, (columns, rows), dst=right, interpolation=cv2.INTER_AREA)
    cv2.resize(bgr[:, :1], (1, rows), dst=left[:, :1], interpolation=cv2.INTER_AREA)
    if columns > 1:
        cv2.resize(bgr[:, 1:-1], (columns - 1, rows), dst=left[:, 1:], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.addWeighted(left, 0.5, right, 0.5, 0, dst=right), np.uint8)


def _in_place(written: object, target: Pixels) -> None:
    """Make sure that OpenCV wrote into `target`: it silently allocates another array if this one does not fit."""
    if not isinstance(written, np.ndarray) or not np.shares_memory(written, target):
        raise AssertionError("OpenCV did not write in place")
