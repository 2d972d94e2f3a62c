"""The options of NVENC for a request's `preset` and `crf`, by this table; this module only computes them.

| preset | NVENC preset | B pictures where every frame is coded |
| --- | --- | --- |
| ultrafast | P1 | 0 |
| superfast | P2 | 0 |
| veryfast (default) | P3 | 2 |
| faster, fast, medium | P4 | 2 |
| slow | P5 | 2 |
| slower | P6 | 2 |
| veryslow | P7 | 2 |

| stream | rate control | quantiser |
| --- | --- | --- |
| every frame coded | vbr with target quality | cq = crf |
| holds synthesised | constqp | P: crf + the plan's offset + 3; I: 3 less, as by libx264's ip_factor of 1.4 |

The 3 is what libx264 itself adds to crf: on six photographs, held, its mean quantiser at crf 12 to 28 was crf + offset
+ 1.5 to 2.8 at 1080p and + 4.0 to 5.2 at 640x480 (measured). Equal quantisers give about equal pictures in any encoder.
crf 0, lossless, is left to libx264, and so are canvases that a device does not take. The plan's offsets differ from
still to still; NVENC takes one quantiser for a stream, so their median is used for all. Tuning is always high_quality;
look-ahead is off, because it would delay frames.

PyNvVideoCodec turns options into strings and ignores unknown ones, so it was checked that it knows each of these:
`gop` -1 is endless, `constqp` is in the order P, B, I, `cq` sets the bit rate free, `fps` as a fraction stays exact,
`numrefl0` limits how many pictures a picture may refer to, and `gpu_id` is the only spelling that names the session's
device. The profile cannot be chosen; it is High.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocol.schema import Preset
from renderer.encode.stream import HeldCoding, StreamSettings
from renderer.geometry import Canvas, CanvasLimits
from renderer.work import NvencDevice, NvencLimits

_PRESETS: Final[dict[Preset, tuple[str, int]]] = {
    "ultrafast": ("P1", 0),
    "superfast": ("P2", 0),
    "veryfast": ("P3", 2),
    "faster": ("P4", 2),
    "fast": ("P4", 2),
    "medium": ("P4", 2),
    "slow": ("P5", 2),
    "slower": ("P6", 2),
    "veryslow": ("P7", 2),
}
# NVENC encodes H.264 up to 4096 a side; recent cards take nothing below 145x49 (seen by others with driver 595).
LEAST_WIDTH: Final = 145
LEAST_HEIGHT: Final = 49
_LIMITS_OF_ANY_CARD: Final = NvencLimits(
    LEAST_WIDTH, 4096, LEAST_HEIGHT, 4096, engines=1, most_b_pictures=0, counts_references=False
)
_STEPS_ABOVE_CRF: Final = 3
_INTRA_STEPS: Final = 3
_QUANTISERS: Final = (1, 51)
# How many pictures the wheel keeps in flight before it fetches the first, without B pictures (m_nExtraOutputDelay).
_OUTPUT_DELAY: Final = 3
MOST_PENDING_FRAMES: Final = _OUTPUT_DELAY + 1 + 2


@dataclass(frozen=True, slots=True)
class SessionShape:
    """All properties of an encode session; jobs of equal shapes can use the same session.

    Attributes:
        options: the keyword arguments of CreateEncoder.
        is_reordered: whether there may be B pictures.
    """

    width: int
    height: int
    options: tuple[tuple[str, str], ...]
    is_reordered: bool

    @property
    def has_memory(self) -> bool:
        """Whether rate control depends on earlier pictures, so that a second job would get another result."""
        return ("rc", "constqp") not in self.options


def canvas_limits(devices: Iterable[NvencDevice]) -> CanvasLimits:
    """Return the largest canvas that one of these devices takes; if no limits are known, those of any card apply."""
    told = [device.limits for device in devices if device.limits] or [_LIMITS_OF_ANY_CARD]
    return CanvasLimits(max(each.width_max for each in told), max(each.height_max for each in told))


def refusal_of(canvas: Canvas, crf: int, limits: NvencLimits | None) -> str | None:
    """Return why a device that encodes cannot take this stream; without limits, those of any card apply."""
    limits = limits or _LIMITS_OF_ANY_CARD
    if crf == 0:
        return "crf 0 is lossless, which is left to libx264"
    if canvas.width > limits.width_max or canvas.height > limits.height_max:
        most = f"{limits.width_max}x{limits.height_max}"
        return f"expected a canvas up to {most} for the GPU's encoder, found {canvas}"
    if canvas.width < limits.width_min or canvas.height < limits.height_min:
        least = f"{limits.width_min}x{limits.height_min}"
        return f"expected a canvas from {least} for the GPU's encoder, found {canvas}"
    return None


def session_shape(stream: StreamSettings, devices: Iterable[NvencDevice]) -> SessionShape:
    """Translate a stream's settings into options that all of these devices can take."""
    limits = [device.limits or _LIMITS_OF_ANY_CARD for device in devices]
    preset, b_pictures = _PRESETS[stream.preset]
    b_pictures = min([b_pictures, *(each.most_b_pictures for each in limits)])
    if stream.held or stream.keyframe_interval == 1:
        b_pictures = 0
    options = {
        "codec": "h264",
        "preset": preset,
        "tuning_info": "high_quality",
        "fps": f"{stream.fps.numerator}/{stream.fps.denominator}",
        "bf": str(b_pictures),
        **(_held_options(stream.crf, stream.held) if stream.held else _coded_options(stream)),
    }
    if stream.held and all(each.counts_references for each in limits):
        # Without this the second P picture after an IDR has two references, and the third has three. A card that does
        # not take this option has one reference anyway.
        options["numrefl0"] = "1"
    width, height = stream.canvas.width, stream.canvas.height
    return SessionShape(width, height, tuple(sorted(options.items())), is_reordered=b_pictures > 0)


def _coded_options(stream: StreamSettings) -> dict[str, str]:
    gop = str(stream.keyframe_interval)
    return {"rc": "vbr", "cq": str(stream.crf), "gop": gop, "idrperiod": gop}


def _held_options(crf: int, held: HeldCoding) -> dict[str, str]:
    """Return the options for held pictures; the plan, and not the encoder, decides which pictures are IDR pictures."""
    import statistics  # noqa: PLC0415 - the daemon, which needs only what a card can do, need not wait for it

    wanted = crf + statistics.median(held.quantiser_offsets) + _STEPS_ABOVE_CRF
    inter = _clamped(wanted)
    intra = inter if held.is_all_idr else _clamped(wanted - _INTRA_STEPS)
    return {"rc": "constqp", "constqp": f"{inter},{inter},{intra}", "gop": "-1", "idrperiod": "-1"}


def _clamped(quantiser: float) -> int:
    least, most = _QUANTISERS
    return min(max(round(quantiser), least), most)
