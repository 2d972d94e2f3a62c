"""The values that most modules pass on: the job, the report of its rendering, and the findings about the GPUs.

They are plain values, and no picture library is behind them: the daemon, which decodes nothing, and its workers, which
do, both know them.

The findings of `encode.nvenc.probe` about the GPUs can be sent to a worker and kept in a file. They are defined here,
below the settings, because a worker gets them as a part of its settings.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, get_args

from protocol.media import MediaRequest, MediaResult
from protocol.schema import (
    AudioCodec,
    File,
    ImageFile,
    ImageFormat,
    PixelLayout,
    RenderRequest,
    RenderResult,
    ResultWarning,
    Sound,
)
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
        base: directory that relative paths start from, such as a manifest's, if there is one.
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
class Chapter:
    """A part of a video that has a title, in frames; `end` is the frame after the last."""

    start: int
    end: int
    title: str


@dataclass(frozen=True, slots=True)
class MediaJob:
    """A checked request of one of the other kinds; the attributes are those of a RenderJob."""

    request: MediaRequest
    attachments: tuple[Attachment, ...] = ()
    base: Path | None = None
    any_path: bool = False
    warnings: tuple[ResultWarning, ...] = ()


AnyJob = RenderJob | MediaJob


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


ImageField = Literal["poster", "contact_sheet"]


@dataclass(frozen=True, slots=True)
class ImageName:
    """A picture that is made beside the video; `field` of the result holds it."""

    field: ImageField
    format: ImageFormat

    def after(self, video: str) -> str:
        """Return its name, path or url: the video's, with something else after the last dot."""
        suffix = "jpg" if self.format == "jpeg" else "png"
        return f"{video.rpartition('.')[0]}.{self.field}.{suffix}"


EVERY_IMAGE: Final = tuple(
    ImageName(field, coding) for field in get_args(ImageField) for coding in get_args(ImageFormat)
)


def images_of(request: RenderRequest) -> tuple[ImageName, ...]:
    """Return the pictures that a request asks for beside its video."""
    poster, sheet = request.poster, request.contact_sheet
    return (
        *((ImageName("poster", poster.format),) if poster else ()),
        *((ImageName("contact_sheet", sheet.format),) if sheet else ()),
    )


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A picture that was made beside the video."""

    name: ImageName
    width: int
    height: int
    size_bytes: int

    @property
    def content_type(self) -> str:
        return f"image/{self.name.format}"

    def file(self, video_url: str, video_name: str) -> ImageFile:
        return ImageFile(
            url=self.name.after(video_url),
            content_type=self.content_type,
            file_name=self.name.after(video_name),
            file_size=self.size_bytes,
            width=self.width,
            height=self.height,
        )


@dataclass(frozen=True, slots=True)
class RenderReport:
    """What was rendered, read back from the file, and where the time went.

    Attributes:
        images: what was made beside the video.
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
    images: tuple[ImageFacts, ...] = ()

    def files(self, video: Path) -> list[Path]:
        """Return the paths of all files that were made with the video at this path, the video last."""
        return [*(Path(image.name.after(str(video))) for image in self.images), video]

    def result(
        self, video_url: str, file_name: str, request: RenderRequest, *, beside: Path | None = None
    ) -> RenderResult:
        """Return the report as clients read it.

        Args:
            beside: the video that the other files lie beside, where `video_url` is that of a link to it.
        """
        facts = self.facts
        neighbour = (beside.as_uri(), beside.name) if beside else (video_url, file_name)
        images = {image.name.field: image.file(*neighbour) for image in self.images}
        return RenderResult(
            video=File(
                url=video_url, content_type=_type_of(file_name), file_name=file_name, file_size=facts.size_bytes
            ),
            poster=images.get("poster"),
            contact_sheet=images.get("contact_sheet"),
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


MADE: Final = "video"
"""What the names of a job's files begin with."""


@dataclass(frozen=True, slots=True)
class MediaReport:
    """What a job of one of the other kinds has made: its answer, whose files have no urls yet."""

    answer: MediaResult

    def files(self, video: Path) -> list[Path]:
        """Return the paths of its files, for a job whose video would be at this path."""
        return [
            video.with_name(f"{video.stem}{file.file_name.removeprefix(MADE)}") for file in self.answer.files().values()
        ]

    def result(self, video_url: str, file_name: str, request: MediaRequest) -> MediaResult:  # noqa: ARG002 - as above
        """Return the answer as clients read it."""
        directory = video_url.rpartition("/")[0]
        answer = self.answer.with_urls(lambda file: f"{directory}/{file.file_name}")
        return answer.model_copy(update={"request_id": request.request_id})


Report = RenderReport | MediaReport


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
    """Whether the number of reference pictures of a picture can be limited."""


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
