"""The hosted service's neighbours of images-to-video: what they are asked for, and what they answer.

Names and defaults are the hosted service's, whose contract is to ignore unknown fields. All fields that only our
answers have are optional.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from protocol.errors import Loc
from protocol.fields import Offset, Seconds
from protocol.schema import File, ImageFile, RenderRequest, RenderResult, ResultWarning

FrameType = Literal["first", "middle", "last"]
_FileT = TypeVar("_FileT", bound=File)


class MediaRequest(BaseModel):
    """What every neighbour may be asked for beside its own fields; they come in headers and the query as well.

    Attributes:
        sources: the fields that name files.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True)

    sources: ClassVar[tuple[str, ...]]

    request_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="idempotency key; generated if absent"
    )
    priority: Literal["normal", "low"] = "normal"
    start_timeout: Seconds | None = None
    webhook_url: str | None = None

    def urls(self) -> list[tuple[Loc, str]]:
        """Return the urls of all files, each with its place."""
        return [((field,), getattr(self, field)) for field in self.sources]

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the request with other urls in the place of some."""
        changes = {str(field): names[url] for (field, *_), url in self.urls() if url in names}
        return self.model_copy(update=changes) if changes else self


class MergeAudioVideo(MediaRequest):
    """A video and the sound that it gets; the pictures stay the same bytes."""

    sources = ("video_url", "audio_url")

    video_url: str = Field(min_length=1, description="the video, whose own sound is left out")
    audio_url: str = Field(min_length=1, description="a sound, or a video that has one")
    start_offset: Offset = Field(
        0.0, description="seconds from the video's first frame to the sound's beginning; below 0 it begins within"
    )


class ExtractFrame(MediaRequest):
    """One frame of a video."""

    sources = ("video_url",)

    video_url: str = Field(min_length=1)
    frame_type: FrameType = Field("first", description="middle: the one that is shown after half of the time")


class Metadata(MediaRequest):
    """What a video or a sound says of itself."""

    sources = ("media_url",)

    media_url: str = Field(min_length=1, description="a video or a sound")
    extract_frames: bool = Field(False, description="true: the first and the last frame of a video as well")
    url: str | None = Field(None, max_length=2048, description="what the answer calls it; left out: `media_url`")

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the request with another url; the answer has the one that was asked for, if that is a link."""
        found = super().renamed(names)
        is_link = found is not self and self.media_url[:8].lower().startswith(("http://", "https://"))
        return found.model_copy(update={"url": self.url or self.media_url}) if is_link else found


class MediaResult(BaseModel):
    """What every neighbour answers beside its own fields."""

    model_config = ConfigDict(defer_build=True)

    warnings: tuple[ResultWarning, ...] = Field((), description="what the client might not expect")
    timings: dict[str, float] = Field(default_factory=dict, description="seconds by stage")
    request_id: str | None = None

    def files(self) -> dict[str, File]:
        """Return the files that were made, each by a name of its own in this result."""
        return {}

    def with_urls(self, url_of: Callable[[File], str]) -> Self:  # noqa: ARG002 - of the others
        """Return the result with another url for each of its files."""
        return self


class MergedVideo(MediaResult):
    """A video with its sound."""

    video: File

    def files(self) -> dict[str, File]:
        return {"video": self.video}

    def with_urls(self, url_of: Callable[[File], str]) -> Self:
        return self.model_copy(update={"video": _moved(self.video, url_of)})


class ExtractedFrame(MediaResult):
    """The frame, in a list of one."""

    images: tuple[ImageFile, ...]

    def files(self) -> dict[str, File]:
        return {image.file_name: image for image in self.images}

    def with_urls(self, url_of: Callable[[File], str]) -> Self:
        return self.model_copy(update={"images": tuple(_moved(image, url_of) for image in self.images)})


class AudioTrackFacts(BaseModel):
    """The sound of a video."""

    codec: str
    channels: int
    sample_rate: int
    bitrate: int = Field(description="bits per second")


class Resolution(BaseModel):
    """How large a video is shown."""

    width: int
    height: int
    aspect_ratio: str


class VideoFormat(BaseModel):
    """How a video is coded."""

    container: str
    video_codec: str
    profile: str
    level: float = Field(description="0 where the codec has none or the file does not say")
    pixel_format: str
    bitrate: int


class MediaFacts(BaseModel):
    """What is known of every file."""

    url: str = Field(description="as it was asked for; empty if the file came within the request")
    content_type: str
    file_name: str
    file_size: int
    duration: float = Field(description="seconds")
    bitrate: int = Field(description="of the whole file, in bits per second")
    codec: str
    container: str


class Audio(MediaFacts):
    """A sound."""

    media_type: Literal["audio"] = "audio"
    channels: int
    sample_rate: int


class Video(MediaFacts):
    """A video; what is counted here are frames that are shown."""

    media_type: Literal["video"] = "video"
    fps: int = Field(description="rounded; `frame_rate` is exact")
    frame_rate: str = Field(
        "", description='frames that are shown by the time that they are shown for, as "24000/1001"'
    )
    frame_count: int
    timebase: str
    resolution: Resolution
    format: VideoFormat
    audio: AudioTrackFacts | None = None
    start_frame_url: str | None = None
    end_frame_url: str | None = None
    start_frame: ImageFile | None = Field(None, description="the file that `start_frame_url` names")
    end_frame: ImageFile | None = None


class MediaMetadata(MediaResult):
    """What a file says of itself, or what was counted in it."""

    media: Video | Audio

    def files(self) -> dict[str, File]:
        frames = (self.media.start_frame, self.media.end_frame) if isinstance(self.media, Video) else ()
        return {frame.file_name: frame for frame in frames if frame}

    def with_urls(self, url_of: Callable[[File], str]) -> Self:
        if not isinstance(self.media, Video):
            return self
        changes: dict[str, Any] = {}
        for name in ("start_frame", "end_frame"):
            if frame := getattr(self.media, name):
                moved = _moved(frame, url_of)
                changes |= {name: moved, f"{name}_url": moved.url}
        return self.model_copy(update={"media": self.media.model_copy(update=changes)})


def _moved(file: _FileT, url_of: Callable[[File], str]) -> _FileT:
    return file.model_copy(update={"url": url_of(file)})


AnyRequest = RenderRequest | MediaRequest
AnyResult = RenderResult | MergedVideo | ExtractedFrame | MediaMetadata

# By the last part of the app's name, which a store keeps as well.
KINDS: Final[Mapping[str, type[AnyRequest]]] = {
    "images-to-video": RenderRequest,
    "merge-audio-video": MergeAudioVideo,
    "extract-frame": ExtractFrame,
    "metadata": Metadata,
}


def kind_of(request: AnyRequest) -> str:
    """Return the kind of a request."""
    return next(name for name, model in KINDS.items() if isinstance(request, model))
