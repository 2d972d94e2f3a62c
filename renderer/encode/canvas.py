"""The largest canvas that a request may have, by the encoder that it names."""

from typing import Final

from protocol.schema import EncoderName
from renderer.encode.nvenc.options import canvas_limits as nvenc_canvas_limits
from renderer.geometry import LEVEL_6_2, CanvasLimits
from renderer.work import NvencFindings

LIBX264_CANVAS: Final = LEVEL_6_2.within(CanvasLimits(16384, 16384))  # MAX_RESOLUTION in x264's common/common.h


def canvas_limits(asked: EncoderName, gpus: NvencFindings | None) -> CanvasLimits:
    """Return the largest canvas that a request may have; what is too large for a GPU goes to libx264 unless named."""
    if asked == "nvenc":
        return nvenc_canvas_limits(gpus.candidates if gpus else ()).within(LEVEL_6_2)
    return LIBX264_CANVAS
