"""The self-test of held pictures: do repeats written for this encoder's streams decode to what they repeat?

Three small pictures are coded, held and decoded by libavcodec. It costs a tenth of a second, and is run by `doctor` and
once by a daemon's first worker; where it fails, holds are encoded frame by frame and every result says why.
"""

import logging
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Final

import av
import numpy as np

from renderer.config import EncodeSettings
from renderer.encode.base import Encoder, Nv12Frame
from renderer.encode.h264.bits import UnsupportedStream
from renderer.encode.h264.repeat import NeedsIdr
from renderer.encode.plan import PlannedStill, StreamPlan, held_coding, idrs_only
from renderer.encode.sequence import HeldSequence
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.errors import StillreelError
from renderer.geometry import Canvas

log = logging.getLogger(__name__)

CANVAS: Final = Canvas(178, 98)  # no multiple of a macroblock, so that cropping is in play; not too small for a GPU
_HOLDS: Final = (3, 18, 2)  # past the sixteen that the shortest frame_num counts


def refusal(open_encoder: Callable[[StreamSettings, EncodeSettings], Encoder], settings: EncodeSettings) -> str | None:
    """Return why pictures of this encoder cannot be held, or None if they can."""
    plan = StreamPlan(tuple(PlannedStill(hold, is_idr=index == 0) for index, hold in enumerate(_HOLDS)))
    try:
        try:
            is_same = _is_same(lambda stream: open_encoder(stream, settings), plan)
        except NeedsIdr:
            is_same = _is_same(lambda stream: open_encoder(stream, settings), idrs_only(plan))
    except (StillreelError, UnsupportedStream, av.FFmpegError, ValueError) as error:
        log.warning("held pictures failed their self-test", exc_info=True, extra={"action": "selftest_failed"})
        return f"the self-test of held pictures failed: {error}"
    return None if is_same else "the self-test of held pictures failed: the repeats do not decode to their picture"


def x264_refusal(settings: EncodeSettings) -> str | None:
    """Return why pictures of libx264 cannot be held, or None if they can; an ffmpeg that hangs is not waited for long.

    A worker calls it by its name (jobs/slots/worker.py).
    """
    stall_timeout_s = min(settings.stall_timeout_s, settings.probe_timeout_s)
    return refusal(X264Encoder, settings.model_copy(update={"stall_timeout_s": stall_timeout_s}))


def _is_same(open_encoder: Callable[[StreamSettings], Encoder], plan: StreamPlan) -> bool:
    coding = held_coding(plan.stills)
    stream = StreamSettings(CANVAS, Fraction(24), crf=20, preset="veryfast", keyframe_interval=240, held=coding)
    with open_encoder(stream) as encoder:
        frames = list(_pictures())
        units = [unit for frame in frames for unit in encoder.encode(frame)]
        units += encoder.flush()
    sequence = HeldSequence(plan)
    held = [sample.data for unit in units for sample in sequence.push(unit)]
    coded = _decoded([unit.data for unit in units])
    return [frame for frame, hold in zip(coded, _HOLDS, strict=True) for _ in range(hold)] == _decoded(held)


def _pictures() -> Iterable[Nv12Frame]:
    """Give frames of noise: every macroblock has something to repeat."""
    noise = np.random.default_rng(264)
    return (noise.integers(16, 236, CANVAS.nv12_shape, np.uint8) for _ in _HOLDS)


def _decoded(access_units: list[bytes]) -> list[bytes]:
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for data in access_units for frame in decoder.decode(av.Packet(data))]
    frames += decoder.decode(None)
    return [frame.to_ndarray().tobytes() for frame in frames]
