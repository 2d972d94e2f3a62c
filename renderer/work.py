"""The values that most modules pass on: the job, the report of its rendering, and the findings about the GPUs.

They are plain values, and no picture library is behind them: the daemon, which decodes nothing, and its workers, which
do, both know them.

The findings of `encode.nvenc.probe` about the GPUs can be sent to a worker and kept in a file. They are defined here,
below the settings, because a worker gets them as a part of its settings.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

from protocol.schema import AudioCodec, File, PixelLayout, RenderRequest, RenderResult, ResultWarning, Sound
from renderer.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came with the message; `layout` says how to read raw pixels, None means an image file."""

    path: Path
    layout: PixelLayout | None = None


@dataclass(frozen=True, slots=True)
class RenderJob:
    """A request that has been checked, with everything needed to render it; plain values, fit for another process.

    Attributes:
        base: directory that relative paths start from, such as a manifest's; None for none.
        any_path: local files need not lie under an allowed root; the command line's own jobs only.
        warnings: about the request, found before it became a job.
    """

    request: RenderRequest
    timeline: Timeline
    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False
    warnings: tuple[ResultWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """What a finished file says of its sound."""

    codec: AudioCodec
    channels: int
    rate: int
    duration_s: Fraction


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a finished file says of itself."""

    width: int
    height: int
    frames: int
    fps: Fraction
    duration_s: Fraction
    size_bytes: int
    sound: SoundFacts | None = None


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What was rendered, read back from the file, and where the time went.

    Attributes:
        fallback_reason: why a request that left the choice to us was not encoded by a GPU.
        timings: wall-clock seconds of the whole job ("total"), of waiting for stills ("stills"), encoding ("encode")
            and writing repeats and the file ("mux"); "stills_busy" adds up what the decoding threads worked meanwhile.
        encoded_reason: why every frame of the holds was coded; None if they are synthesised.
        warnings: what the client might not expect of the video.
        sound_s: how long the sounds of the request are together.
        stills_s: how long its stills are, before they followed the sound.
        stills_coded: how many stills were looked for in the cache of coded stills, not found and coded.
        stills_found: how many were found there.
    """

    facts: VideoFacts
    encoder: str
    fallback_reason: str | None
    encoded_reason: str | None
    timings: dict[str, float] = field(default_factory=dict)
    warnings: tuple[ResultWarning, ...] = ()
    sound_s: Fraction = Fraction(0)
    stills_s: Fraction = Fraction(0)
    stills_coded: int = 0
    stills_found: int = 0

    def result(self, video_url: str, file_name: str, request: RenderRequest) -> RenderResult:
        """Return the report as clients read it."""
        facts = self.facts
        return RenderResult(
            video=File(
                url=video_url, content_type=_type_of(file_name), file_name=file_name, file_size=facts.size_bytes
            ),
            frames=facts.frames,
            fps=f"{facts.fps.numerator}/{facts.fps.denominator}",
            duration=float(facts.duration_s),
            width=facts.width,
            height=facts.height,
            audio=self._sound(),
            encoder=self.encoder,
            fallback_reason=self.fallback_reason,
            held_pictures="encoded" if self.encoded_reason else "synthesised",
            held_pictures_reason=self.encoded_reason,
            warnings=self.warnings,
            timings=self.timings,
            request_id=request.request_id,
            metadata=request.metadata,
        )

    def _sound(self) -> Sound | None:
        found = self.facts.sound
        if found is None:
            return None
        return Sound(
            codec=found.codec,
            channels=found.channels,
            sample_rate=found.rate,
            duration=float(self.sound_s),
            stills_duration=float(self.stills_s),
        )


def _type_of(file_name: str) -> str:
    return "video/quicktime" if file_name.lower().endswith(".mov") else "video/mp4"


NO_GPU_ENCODER: Final = "no GPU encoder was looked for"


@dataclass(frozen=True, slots=True)
class NvencLimits:
    """What a device's H.264 encoder says that it can take; sides in luma samples."""

    width_min: int
    width_max: int
    height_min: int
    height_max: int
    engines: int
    most_b_pictures: int
    counts_references: bool = True
    """It can be told how many reference pictures a picture may have."""


@dataclass(frozen=True, slots=True)
class NvencDevice:
    """One GPU.

    Attributes:
        uuid: as CUDA_VISIBLE_DEVICES takes it, such as "GPU-1f2e...": it names the device to every process alike.
        reason: why it cannot encode; None if it has just encoded a picture.
        is_busy: it has an encoder, but others held all its sessions.
        has_engine: False where the card is known to have no H.264 encoder at all.
        limits: None unless it works.
    """

    uuid: str
    name: str
    reason: str | None = None
    is_busy: bool = False
    has_engine: bool = True
    limits: NvencLimits | None = None


@dataclass(frozen=True, slots=True)
class NvencFindings:
    """What a machine has.

    Attributes:
        driver: its version; empty without a driver.
        reason: why no device could even be asked; None if they could.
    """

    driver: str = ""
    devices: tuple[NvencDevice, ...] = ()
    reason: str | None = None

    @property
    def candidates(self) -> tuple[NvencDevice, ...]:
        """The devices that encode, or would if one of their sessions were free."""
        return tuple(device for device in self.devices if device.reason is None or device.is_busy)

    @property
    def refused(self) -> tuple[NvencDevice, ...]:
        """The devices that did not encode when they were probed but may later: their cards have an encoder."""
        return tuple(device for device in self.devices if device not in self.candidates and device.has_engine)

    @property
    def refusal(self) -> str | None:
        """Why nothing here encodes by GPU, in words; None if something does."""
        if self.candidates:
            return None
        reasons = dict.fromkeys(device.reason for device in self.devices if device.reason)
        return self.reason or "; ".join(reasons) or "the driver lists no GPU"
