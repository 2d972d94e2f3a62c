"""The plan of a stream: how large it may be, which stills are coded and as IDR pictures, how finely each is quantised.

A held stream codes every still once; repeats written by `encode.h264.repeat` fill the rest of its hold. Such a stream
has one reference frame and no B pictures. Where so few frames repeat that this costs more than it saves, every frame is
coded at the encoder's full strength instead.

A still that is held for a second or more is a slide, and an IDR: players seek to it, editors cut at it, and where it
comes again it is not coded again. Shorter holds are left to the encoder, which predicts a drawing of an animation from
the one before.

Quality: a still that is coded once is quantised as fine as it would be seen in the middle of its hold if x264 coded
every frame at the same preset and crf. The first or the second offset does that, by preset, and the third.

- With the macroblock tree, x264 spends more on a picture that it sees n times in its look-ahead: 2·log2(n) steps of
  the quantiser (ratecontrol.c: strength 5·(1 - qcomp) with qcomp 0.6). How far it looks is in `x264 --fullhelp`.
- The presets without it code the first picture as any other, but the repeats seem so easy that each P picture is
  quantised finer than the last and refines the still. Measured at crf 16 to 28: 12 steps in 10 frames with ultrafast,
  14 in 36 with superfast, whose P pictures are fewer. Later ones refine little more with ultrafast; with superfast,
  following them would make files larger than x264's own at a hold of 48.
- An I picture among P pictures gets 6·log2(1.4) steps more (ip_factor), which a stream of nothing but IDR pictures
  does not. Nor does a montage, stills held for less than a second of which none resembles the one before, so that x264
  codes each as an I picture. There it is 1.8 steps for a hold of 2, 2.2 of 4, 2.4 of 8 and 2.8 of 12 (photographs at
  crf 20, veryfast and medium, measured), since the later pictures of a hold are coarser than its first. A drawing of an
  animation needs none: it comes out 1 to 2 steps finer than x264's own.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from protocol.schema import EncoderName, Preset
from renderer.encode.nvenc.options import canvas_limits as nvenc_canvas_limits
from renderer.encode.stream import HeldCoding
from renderer.geometry import LEVEL_6_2, CanvasLimits
from renderer.timeline import Timeline
from renderer.work import NvencFindings

LIBX264_CANVAS: Final = LEVEL_6_2.within(CanvasLimits(16384, 16384))  # MAX_RESOLUTION in x264's common/common.h

# A stream in which fewer than one frame in five is a repeat is coded frame by frame: B pictures and several references
# save more there than repeats do.
_WORTH_HOLDING: Final = 1.25

_SLIDE_S: Final = 1
INTRA_STEPS: Final = 6 * math.log2(1.4)
# Presets without the tree: by how many steps x264's P pictures refine a still, and after how many frames they have.
_REFINED: Final[dict[Preset, tuple[float, int]]] = {"ultrafast": (12, 10), "superfast": (14, 36)}
_LEAST_REFINED: Final = 1.5  # the first P pictures of a hold refine most: superfast by 3 steps in 4 frames, 4 in 8
_LOOK_AHEAD_FRAMES: Final[dict[Preset, int]] = {
    "veryfast": 10,
    "faster": 20,
    "fast": 30,
    "medium": 40,
    "slow": 50,
    "slower": 60,
    "veryslow": 60,
}


@dataclass(frozen=True, slots=True)
class PlannedStill:
    """What the stream does with one still.

    Attributes:
        hold: frames it is shown for.
        is_idr: it must be coded as an IDR picture; others are as the encoder finds best.
        sync_every: within the hold, every n-th frame is the IDR again; None for never.
        quantiser_offset: steps to add to the quantiser; never positive.
        copy_of: index of an earlier still whose access unit serves again, so that this one need not be coded.
    """

    hold: int
    is_idr: bool = False
    sync_every: int | None = None
    quantiser_offset: float = 0.0
    copy_of: int | None = None


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """One stream.

    Attributes:
        stills: one entry per still, in order.
        encoded_reason: why every frame is coded; None if the holds are synthesised.
    """

    stills: tuple[PlannedStill, ...]
    encoded_reason: str | None = None

    @property
    def is_held(self) -> bool:
        return self.encoded_reason is None


def canvas_limits(asked: EncoderName, gpus: NvencFindings | None) -> CanvasLimits:
    """Return the largest canvas that a request may have, by the encoder that it names.

    A canvas that is too large for a GPU goes to libx264, unless the request names nvenc.
    """
    if asked == "nvenc":
        return nvenc_canvas_limits(gpus.candidates if gpus else ()).within(LEVEL_6_2)
    return LIBX264_CANVAS


def held_coding(coded: Sequence[PlannedStill]) -> HeldCoding:
    """Return what the encoder must know of the stills that it will be given."""
    held = HeldCoding(tuple(still.is_idr for still in coded), tuple(still.quantiser_offset for still in coded))
    return held if held.is_all_idr else replace(held, holds=tuple(still.hold for still in coded))


def as_montage(held: HeldCoding) -> HeldCoding:
    """Return how the stills are coded if none resembles the one before."""
    steps = (INTRA_STEPS * hold / (hold + 1) for hold in held.holds)
    offsets = tuple(offset - step for offset, step in zip(held.quantiser_offsets, steps, strict=True))
    return replace(held, quantiser_offsets=offsets, is_montage=True)


def every_frame(holds: Sequence[int], reason: str) -> StreamPlan:
    """Plan a stream in which every frame is coded and the encoder decides everything."""
    return StreamPlan(tuple(PlannedStill(hold) for hold in holds), reason)


def idrs_only(plan: StreamPlan) -> StreamPlan:
    """Plan the same stills for an encoder that predicts from further back than the picture before."""
    if all(still.is_idr for still in plan.stills):
        return plan
    stills = (
        replace(still, is_idr=True, quantiser_offset=still.quantiser_offset - INTRA_STEPS) for still in plan.stills
    )
    return StreamPlan(tuple(stills), plan.encoded_reason)


def plan_stream(timeline: Timeline, sources: Sequence[Hashable], keyframe_interval: int, preset: Preset) -> StreamPlan:
    """Plan a stream whose holds are synthesised if that is worth it.

    Args:
        sources: one per still; equal for stills that show the same picture.
        keyframe_interval: frames from one sync sample to the next at most.
    """
    holds = timeline.holds
    if sum(holds) == len(holds):
        return every_frame(holds, "no still is held for more than one frame")
    if sum(holds) < _WORTH_HOLDING * len(holds):
        return every_frame(holds, "few frames repeat")
    stills: list[PlannedStill] = []
    since_sync = keyframe_interval
    for hold in holds:
        is_idr = since_sync + hold > keyframe_interval or hold >= timeline.fps * _SLIDE_S
        since_sync = 0 if is_idr else since_sync
        stills.append(
            PlannedStill(
                hold,
                is_idr=is_idr,
                sync_every=keyframe_interval if is_idr and hold > keyframe_interval else None,
                quantiser_offset=-_steps_for_hold(hold, preset),
            )
        )
        since_sync += hold if hold <= keyframe_interval else (hold - 1) % keyframe_interval + 1
    if all(still.is_idr for still in stills):
        stills = [replace(still, quantiser_offset=still.quantiser_offset - INTRA_STEPS) for still in stills]
    return StreamPlan(_with_copies(stills, sources))


def _steps_for_hold(hold: int, preset: Preset) -> float:
    """Return by how many steps x264 would code a still finer because it is held."""
    if hold == 1:
        return 0.0
    if preset in _REFINED:
        steps, frames = _REFINED[preset]
        return max(steps * min(hold / frames, 1), _LEAST_REFINED * math.log2(hold))
    return 2 * math.log2(min(hold, _LOOK_AHEAD_FRAMES[preset]))


def _with_copies(stills: Sequence[PlannedStill], sources: Sequence[Hashable]) -> tuple[PlannedStill, ...]:
    """Let an IDR serve again for the same picture, if another IDR follows: what comes next may not refer to it."""
    first: dict[Hashable, int] = {}
    planned = []
    for index, (still, source) in enumerate(zip(stills, sources, strict=True)):
        original = first.get(source) if still.is_idr else None
        is_followed_by_idr = index + 1 == len(stills) or stills[index + 1].is_idr
        if original is not None and is_followed_by_idr:
            planned.append(PlannedStill(still.hold, is_idr=True, sync_every=still.sync_every, copy_of=original))
        else:
            planned.append(still)
            if still.is_idr:
                first.setdefault(source, index)
    return tuple(planned)
