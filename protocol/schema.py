"""The request and its answers: one schema for ZeroMQ, manifests and HTTP.

The hosted service's contract has `images[].url`, `images[].frames` and `fps` only; everything else is optional. Unknown
fields are errors here; the HTTP door, whose contract is to ignore them, has models that do so.
"""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WrapValidator,
    model_validator,
)

from protocol.bounded import a_few_at_a_time, at_most, refuse_many_fields
from protocol.errors import Loc, dotted
from protocol.fields import (
    AtLeastOne,
    BitRate,
    Count,
    Decibels,
    Fade,
    Fps,
    LoudnessWish,
    Lufs,
    Moment,
    PosterWish,
    Quality,
    Seconds,
    SheetWish,
    Side,
    Title,
    Tracks,
    check_shape,
    no_boolean,
)
from protocol.objects import checked_object

Preset = Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
ResizeMode = Literal["pad", "crop", "stretch"]
Scaling = Literal["auto", "lanczos", "area", "nearest"]
CanvasChoice = Literal["first", "largest"]
EncoderName = Literal["auto", "nvenc", "libx264"]
AudioCodec = Literal["aac", "opus"]
LengthRule = Literal["stills", "audio", "longest"]
ChannelOrder = Literal["RGB", "BGR", "RGBA", "BGRA", "GRAY"]
OnError = Literal["fail", "skip", "hold"]
GapRule = Literal["close", "hold", "fail"]
ImageFormat = Literal["jpeg", "png"]
FileField = Literal["video", "poster", "contact_sheet"]
Status = Literal["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
StateName = Literal["queued", "running", "done", "failed", "cancelled", "expired"]


class _Answer(BaseModel):
    """A model that is built when it is first used: building all of them would take most of a short command's time."""

    model_config = ConfigDict(defer_build=True)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: object) -> object:
        return value if cls.model_config.get("extra") == "ignore" else refuse_many_fields(value)


class ImageFrame(_Strict):
    """One still and how long it is held, either in frames or in seconds."""

    url: str = Field(
        min_length=1, description="http(s), data:, file: or a path, cid:N for attachment N, an object such as s3://..."
    )
    frames: Count = Field(1, description="number of frames that it is held for")
    duration: Seconds | None = Field(None, description="seconds that it is held for, in place of frames")
    title: Title | None = Field(None, description="of the chapter that begins with it")

    @model_validator(mode="after")
    def _one_length(self) -> "ImageFrame":
        if self.duration is not None and "frames" in self.model_fields_set:
            raise ValueError("expected frames or duration, found both")
        return self


class Output(_Strict):
    """Where the video goes, in place of the server's own disk."""

    url: Annotated[str, AfterValidator(checked_object)] = Field(
        description="the object that it becomes, such as s3://bucket/name.mp4, in a bucket that the server may write"
    )


class AudioTrack(_Strict):
    """One sound under the stills; all times are in seconds."""

    url: str = Field(min_length=1, description="as of an image: http(s), data:, file: or a path, cid:N")
    at: Moment = Field(0.0, description="when it begins in the video")
    start: Moment = Field(0.0, description="where it begins in its file")
    duration: Seconds | None = Field(None, description="how long it is heard at most; left out: to its file's end")
    loop: bool = Field(False, description="true: it is repeated until `duration` or the end of the video")
    fade_in: Fade = 0.0
    fade_out: Fade = Field(0.0, description="before its end, which may be that of the video")
    gain_db: Decibels = 0.0


class Poster(_Strict):
    """Which frame of the video becomes a picture; the first if neither field says."""

    frame: Annotated[int, Field(ge=0, le=2**31 - 1), no_boolean("int_type")] | None = Field(
        None, description="counted from 0"
    )
    seconds: Moment | None = Field(None, description="the frame that is shown then, in place of `frame`")
    format: ImageFormat = "jpeg"

    @model_validator(mode="after")
    def _one_place(self) -> "Poster":
        if self.frame is not None and self.seconds is not None:
            raise ValueError("expected frame or seconds, found both")
        return self


class ContactSheet(_Strict):
    """All stills in one picture."""

    columns: Annotated[int, Field(ge=1, le=20), no_boolean("int_type")] = 6
    width: Annotated[int, Field(ge=16, le=640), no_boolean("int_type")] = Field(
        240, description="of a still in it; it is not enlarged, and at most twice as high as wide"
    )
    format: ImageFormat = "jpeg"


class Loudness(_Strict):
    """How loud the sound is made, by EBU R128."""

    target_lufs: Lufs = -14.0
    true_peak_db: Annotated[float, Field(ge=-9, le=0), no_boolean("float_type")] = -1.0


class RenderRequest(_Strict):
    """An ordered list of stills and how to show them."""

    images: AtLeastOne[ImageFrame]
    fps: Fps = Field(
        24,
        description="frames per second, 1 to 120; 23.976, 29.97, 59.94, 119.88 are the exact rates; "
        '"auto": the lowest of 24, 25, 30, 50, 60 and 120 that shows every still',
    )
    min_frames: Count | None = Field(
        None, description="frames that a still gets whose duration is shorter; the holds after it make up for them"
    )
    width: Side | None = Field(None, description="output width; that of the image that `canvas` names without a side")
    height: Side | None = Field(None, description="output height; follows the aspect ratio if only width is given")
    canvas: CanvasChoice = Field(
        "first", description="whose size or shape the video has: the first image's, or that with the most pixels"
    )
    resize_mode: ResizeMode = "pad"
    scaling: Scaling = Field(
        "auto",
        description="auto: by area where a side shrinks, Lanczos where it grows; nearest keeps the pixels of pixel art",
    )
    upscale: bool = Field(True, description="false: a still smaller than the canvas keeps its size")
    background: str = Field("#000000", pattern=r"^#[0-9A-Fa-f]{6}$", description="bars, and what lies under alpha")
    on_error: OnError = Field(
        "fail",
        description="an image that cannot be had: the job fails, it is left out with its time, or the image before is "
        "shown for its time",
    )
    gaps: GapRule | None = Field(
        None,
        description="numbers that are missing from the images' names: the images around them follow one another, the "
        "image before is shown for their time, or the request is refused; left out: close, with a warning",
    )
    crf: Quality = Field(20, description="lower is better; 0 is lossless, in a profile that few players know")
    preset: Preset = Field("veryfast", description="slower presets make smaller files")
    encoder: EncoderName = "auto"
    max_keyframe_interval: Seconds = Field(10.0, description="seconds between sync samples at most")
    timecode: str | None = Field(
        None,
        pattern=r"^[0-9]{2}:[0-9]{2}:[0-9]{2}[:;][0-9]{2}$",
        description='of the first frame, "HH:MM:SS:FF"; with ";" before the frames 29.97 and 59.94 fps drop numbers',
    )
    audio: Tracks[AudioTrack] = Field((), description="sounds under the stills, mixed")
    length: LengthRule = Field("stills", description="what the video is as long as; docs/sound.md says what gives way")
    loudness: LoudnessWish[Loudness] = None
    audio_codec: AudioCodec = Field("aac", description="opus is for .mp4; fewer players know it there")
    audio_bitrate: BitRate = Field(192_000, description="of the video's sound, in bits per second")
    poster: PosterWish[Poster] = Field(
        None, description='a frame of the video as a picture: "first", {"frame": 48} or {"seconds": 2.5}'
    )
    contact_sheet: SheetWish[ContactSheet] = Field(None, description="a picture of all stills: true, or its columns")
    sync_mode: bool = Field(False, description="true: the video's bytes come with the answer")
    output: Output | None = Field(None, description="the object that the video becomes; not with sync_mode")
    request_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="idempotency key; generated if absent"
    )
    priority: Literal["normal", "low"] = "normal"
    start_timeout: Seconds | None = None
    webhook_url: str | None = None
    metadata: dict[str, Any] | None = Field(None, description="echoed in the result")

    def urls(self) -> list[tuple[Loc, str]]:
        """Return the urls of all images and then of all sounds, each with its place."""
        images = [(("images", place, "url"), image.url) for place, image in enumerate(self.images)]
        return [*images, *((("audio", place, "url"), track.url) for place, track in enumerate(self.audio))]

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the request with other urls in the place of some, of images and of sounds."""
        if not names:
            return self
        images, audio = (
            tuple(each.model_copy(update={"url": names.get(each.url, each.url)}) for each in sources)
            for sources in (self.images, self.audio)
        )
        return self.model_copy(update={"images": images, "audio": audio})


class PixelLayout(_Strict):
    """How to read an attachment of raw pixels: rows, columns and, for colour, channels; C order, little-endian."""

    shape: Annotated[tuple[Count, ...], BeforeValidator(at_most(16)), AfterValidator(check_shape)]
    dtype: Literal["uint8", "uint16"] = "uint8"
    order: ChannelOrder = "RGB"

    @model_validator(mode="after")
    def _channels_fit(self) -> "PixelLayout":
        found = self.shape[2] if len(self.shape) == 3 else 1
        expected = {"GRAY": 1, "RGB": 3, "BGR": 3, "RGBA": 4, "BGRA": 4}[self.order]
        if found != expected:
            raise ValueError(f"expected {expected} channels for order {self.order}, found shape {list(self.shape)}")
        return self

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * (2 if self.dtype == "uint16" else 1)


class RenderParams(RenderRequest):
    """The params of `render` and `submit` over ZeroMQ: the request, and what only a message with attachments needs."""

    attachments: Annotated[tuple[PixelLayout | None, ...], WrapValidator(a_few_at_a_time)] | None = Field(
        None, description="one entry per attachment: null for an encoded image file, a layout for raw pixels"
    )
    progress: bool = Field(False, description="true: progress notifications until the answer (DEALER clients only)")


class RequestId(_Strict):
    """The params of `status`, `result`, `cancel`, `logs` and `retry`."""

    request_id: str = Field(min_length=1, max_length=128)


class VideoQuery(RequestId):
    """The params of `video`: which file of which job, and where in it the wanted part begins."""

    offset: int = Field(0, ge=0, le=2**63 - 1, description="in bytes")
    file: FileField = Field("video", description="the field of the result that names the file")


class VideoPart(_Answer):
    """The answer to `video`; the bytes from `offset` on are the message's one attachment."""

    offset: int
    file_size: int
    file_name: str


class File(_Answer):
    url: str
    content_type: str = "video/mp4"
    file_name: str
    file_size: int


class ImageFile(File):
    """A picture that was made beside the video."""

    content_type: str
    width: int
    height: int


class ResultWarning(_Answer):
    """Something about a finished video that its client might not expect."""

    type: str = Field(description='a word for programs, such as "image_animated" or "image_enlarged"')
    message: str
    loc: tuple[str | int, ...] = Field((), description="the field of the request that it is about")

    def __str__(self) -> str:
        return f"{dotted(self.loc)}: {self.message}" if self.loc else self.message


class Sound(_Answer):
    """The sound of a video."""

    codec: AudioCodec
    channels: int
    sample_rate: int
    duration: float = Field(description="seconds to the end of the last sound, before it was cut or padded")
    stills_duration: float = Field(description="seconds of the stills, before they followed the sound")


class RenderResult(_Answer):
    """What came out; every number is read back from the file that was written."""

    video: File
    poster: ImageFile | None = Field(None, description="if the request asks for one")
    contact_sheet: ImageFile | None = Field(None, description="if the request asks for one")
    frames: int
    fps: str = Field(description='the exact rate, such as "24/1" or "24000/1001"')
    duration: float = Field(description="seconds")
    width: int
    height: int
    audio: Sound | None = Field(None, description="none if the request has no sound")
    encoder: str
    fallback_reason: str | None = Field(None, description="why `auto` did not take the GPU")
    held_pictures: Literal["synthesised", "encoded"] = "encoded"
    held_pictures_reason: str | None = Field(None, description="why every frame of the holds was encoded")
    warnings: tuple[ResultWarning, ...] = Field((), description="what the client might not expect of the video")
    timings: dict[str, float] = Field(default_factory=dict, description="seconds by stage")
    request_id: str | None = None
    metadata: dict[str, Any] | None = None

    def files(self) -> dict[FileField, File]:
        """Return the files of the result by the fields that hold them, in the order of the fields."""
        held = {field: getattr(self, field) for field in get_args(FileField)}
        return {field: file for field, file in held.items() if file is not None}

    def with_urls(self, url_of: Callable[[File], str]) -> Self:
        """Return the result with another url for each of its files."""
        moved = {str(field): file.model_copy(update={"url": url_of(file)}) for field, file in self.files().items()}
        return self.model_copy(update=moved)


class Rendered(RenderResult):
    """A result in the hands of a client, with the frames that came in its message."""

    attachments: tuple[bytes, ...] = Field((), exclude=True, repr=False)

    @property
    def video_bytes(self) -> bytes | None:
        """The MP4 itself if the request asked for it with sync_mode."""
        return self.bytes_of(self.video)

    def bytes_of(self, file: File) -> bytes | None:
        """Return the content of one of the files if it came with the answer; its url is "cid:N" then."""
        number = file.url.removeprefix("cid:")
        is_here = number != file.url and number.isdecimal() and int(number) < len(self.attachments)
        return self.attachments[int(number)] if is_here else None


class Progress(_Answer):
    images_done: int = 0
    images: int
    frames: int = Field(description="frames of the whole video")
    frames_done: int = Field(0, description="frames that are coded; the stills of later ones may be done already")
    stage: Literal["queued", "rendering", "finishing", "done"] = "queued"

    @property
    def share(self) -> float:
        """How much of the video is coded, from 0 to 1."""
        return self.frames_done / self.frames if self.frames else float(self.stage == "done")


class Fault(_Answer):
    """An error as a value: what `data` of a JSON-RPC error holds, with the message."""

    type: str
    message: str
    loc: tuple[str | int, ...] = ()
    retryable: bool = False
    errors: tuple[dict[str, Any], ...] = Field(
        (), description='every fault found, where there are several: each with "loc", "msg" and "type"'
    )


class JobStatus(_Answer):
    request_id: str
    status: Status
    queue_position: int | None = Field(None, description="jobs ahead of this one; none once it has started")
    progress: Progress
    error: Fault | None = None
    state: StateName | None = Field(None, description="finer than status: how it ended, once it is COMPLETED")
    attempts: int = Field(0, description="times that it was begun")
    encoder: str | None = Field(None, description="which encoder made the video, once it is done")
    accepted_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = Field(None, description="of the last attempt")
    finished_at: AwareDatetime | None = None


class JobsQuery(_Strict):
    """The params of `jobs`: which to list. The newest that fit are listed, in order of arrival."""

    states: Annotated[tuple[StateName, ...], BeforeValidator(at_most(len(get_args(StateName))))] = Field(
        (), description="empty: all"
    )
    limit: int = Field(100, ge=1, le=1000)


class Jobs(_Answer):
    """The answer to `jobs`."""

    jobs: tuple[JobStatus, ...]


class LogLine(_Answer):
    """One event in the course of a job."""

    message: str
    timestamp: str = Field(description="ISO 8601, UTC")
    level: Literal["INFO", "WARN", "ERROR"]


class JobLog(_Answer):
    """The answer to `logs`: what a client may read of its job's log, in order; empty once the log was removed."""

    lines: tuple[LogLine, ...]


class NodeSlots(_Answer):
    node: str | None = Field(None, description="a machine of a cluster; null for the daemon's own")
    encoder: str
    slots: int = Field(description="most jobs that run there at once")
    busy: int


class Health(_Answer):
    status: Literal["ok", "draining"]
    version: str
    live: bool = True
    ready: bool = Field(True, description="whether a request would be accepted now")
    reasons: tuple[str, ...] = Field((), description="why it is not ready")
    workers: int = Field(description="most jobs that run at once")
    slots: tuple[NodeSlots, ...] = Field((), description="the same by machine and encoder")
    jobs_running: int
    jobs_queued: int
    encoder: str
    encoder_reason: str | None = None
