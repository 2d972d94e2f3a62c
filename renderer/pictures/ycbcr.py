"""Converts TIFF's YCbCr, which comes in units of several lumas and their two chromas (TIFF 6.0, sections 20 and 21).

libtiff can convert it too, but if a strip ends early, it goes on and shows a part. When the strips are read as rows of
plain bytes, a strip is read completely or refused.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from renderer.geometry import Size

_BAND: Final = 64  # rows of units, so that the temporaries stay small


@dataclass(frozen=True, slots=True)
class Units:
    """How the samples of a picture are arranged in its rows.

    Attributes:
        across, down: how many pixels share one chroma sample in each direction, 1, 2 or 4.
        weights: the weights of red, green and blue in luma.
        levels: the codes for black and white in Y, then for no colour and full colour in Cb and in Cr.
    """

    across: int
    down: int
    weights: tuple[float, ...] = (0.299, 0.587, 0.114)
    levels: tuple[float, ...] = (0, 255, 128, 255, 128, 255)

    def columns(self, width: int) -> int:
        """Return the number of bytes in a row of units."""
        return -(-width // self.across) * (self.across * self.down + 2)

    def rows(self, height: int) -> int:
        return -(-height // self.down)

    def to_bgr(self, stored: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.uint8]:
        """Convert samples of the shape (rows of units, bytes in a row) to (H, W, 3) BGR."""
        whole = stored.reshape(self.rows(size.height), -1, self.across * self.down + 2)
        found = np.empty((len(whole) * self.down, size.width, 3), np.uint8)
        for top in range(0, len(whole), _BAND):
            band = whole[top : top + _BAND]
            found[top * self.down : (top + len(band)) * self.down] = self._colours(band)[:, : size.width]
        return found[: size.height]

    def _colours(self, band: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        rows, columns = band.shape[:2]
        lumas = band[..., :-2].reshape(rows, columns, self.down, self.across).transpose(0, 2, 1, 3)
        luma = self._unit(lumas.reshape(rows * self.down, columns * self.across), 0) * 255
        cb, cr = (
            (self._unit(band[..., -2 + index], 2 + 2 * index) * 127).repeat(self.down, 0).repeat(self.across, 1)
            for index in range(2)
        )
        of_red, of_green, of_blue = self.weights
        red = luma + cr * (2 - 2 * of_red)
        blue = luma + cb * (2 - 2 * of_blue)
        green = (luma - of_blue * blue - of_red * red) / of_green
        return np.asarray(np.rint(np.clip(np.dstack([blue, green, red]), 0, 255)), np.uint8)

    def _unit(self, codes: npt.NDArray[Any], place: int) -> npt.NDArray[np.float32]:
        least, most = self.levels[place : place + 2]
        return (codes.astype(np.float32) - np.float32(least)) / np.float32(most - least)
