"""The documents of the HTTP door, named as in the hosted service's OpenAPI document, and how routes are described.

The request is that of protocol.schema, except that unknown fields are ignored, as the hosted service's contract says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from protocol import media, schema
from protocol.fields import AtLeastOne, LoudnessWish, PosterWish, SheetWish, Tracks
from protocol.media import AnyRequest


class ImageFrame(schema.ImageFrame):
    """One still and how long it is held."""

    model_config = ConfigDict(extra="ignore")


class Output(schema.Output):
    """Where the video goes, in place of the server's own disk."""

    model_config = ConfigDict(extra="ignore")


class AudioTrack(schema.AudioTrack):
    """One sound under the stills; all times are in seconds."""

    model_config = ConfigDict(extra="ignore")


class Poster(schema.Poster):
    """Which frame of the video becomes a picture; the first if neither field says."""

    model_config = ConfigDict(extra="ignore")


class ContactSheet(schema.ContactSheet):
    """All stills in one picture."""

    model_config = ConfigDict(extra="ignore")


class Loudness(schema.Loudness):
    """How loud the sound is made, by EBU R128."""

    model_config = ConfigDict(extra="ignore")


EXAMPLE: dict[str, Any] = {
    "images": [
        {"url": "https://example.com/first.png", "frames": 24},
        {"url": "https://example.com/second.jpg", "frames": 48},
    ],
    "fps": 24,
}


class ImagesToVideoInput(schema.RenderRequest):
    """An ordered list of stills and how to show them. The hosted service's contract has only the first two fields."""

    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [EXAMPLE]})

    images: AtLeastOne[ImageFrame]
    output: Output | None = Field(None, description="the object that the video becomes; not with sync_mode")
    loudness: LoudnessWish[Loudness] = None
    poster: PosterWish[Poster] = Field(
        None, description='a frame of the video as a picture: "first", {"frame": 48} or {"seconds": 2.5}'
    )
    contact_sheet: SheetWish[ContactSheet] = Field(None, description="a picture of all stills: true, or its columns")
    audio: Tracks[AudioTrack] = Field((), description="sounds under the stills, mixed")


class ImagesToVideoOutput(schema.RenderResult):
    """What came out; every number is read back from the file."""

    model_config = ConfigDict(title="ImagesToVideoOutput")


class MergeAudioVideoInput(media.MergeAudioVideo):
    """A video and the sound that it gets."""


class MergeAudioVideoOutput(media.MergedVideo):
    """The video with the sound."""


class ExtractFrameInput(media.ExtractFrame):
    """Which frame of which video."""


class ExtractFrameOutput(media.ExtractedFrame):
    """The frame, in a list of one."""


class MetadataInput(media.Metadata):
    """Which video or sound."""


class MetadataOutput(media.MediaMetadata):
    """What it says of itself, or what was counted in it."""


@dataclass(frozen=True, slots=True)
class App:
    """One of the hosted service's apps: what is sent to it, and what it answers."""

    wanted: type[AnyRequest]
    made: type[BaseModel]

    @property
    def body(self) -> dict[str, Any]:
        """The description of the body that its routes read themselves."""
        return body_of(
            "application/json",
            {"$ref": f"#/components/schemas/{self.wanted.__name__}"},
            required=True,
            description="Read as JSON whatever the Content-Type says.",
        )


APPS: Final[Mapping[str, App]] = {
    "images-to-video": App(ImagesToVideoInput, ImagesToVideoOutput),
    "merge-audio-video": App(MergeAudioVideoInput, MergeAudioVideoOutput),
    "extract-frame": App(ExtractFrameInput, ExtractFrameOutput),
    "metadata": App(MetadataInput, MetadataOutput),
}
"""By the last part of its name."""


class _Document(BaseModel):
    """A model that is built when it is first used; most are there for the OpenAPI document alone."""

    model_config = ConfigDict(defer_build=True)


class Submitted(_Document):
    """A request that was accepted."""

    status: Literal["IN_QUEUE"]
    request_id: str
    queue_position: int
    response_url: str
    status_url: str
    cancel_url: str


class LogLine(_Document):
    message: str
    timestamp: str
    level: str
    source: str


class QueueStatus(_Document):
    """The status of a request; `error` and `error_type` are present if it has failed."""

    status: schema.Status
    request_id: str
    queue_position: int | None = None
    response_url: str
    status_url: str
    cancel_url: str
    logs: list[LogLine]
    metrics: dict[str, float] | None = None
    error: str | None = None
    error_type: str | None = None


class Cancellation(_Document):
    status: Literal["CANCELLATION_REQUESTED", "ALREADY_COMPLETED", "NOT_FOUND"]


class Unknown(_Document):
    status: Literal["NOT_FOUND"]


class FieldFault(_Document):
    """One fault of a request."""

    loc: list[str | int]
    msg: str
    type: str
    ctx: dict[str, Any] = {}
    input: Any = None
    url: str | None = None


class ValidationFault(_Document):
    """A request whose fields are at fault; `message` describes the first fault."""

    detail: list[FieldFault]
    message: str


class Fault(_Document):
    """Any other error."""

    detail: str
    error_type: str | None = None
    message: str | None = None


class UploadRequest(_Document):
    """The file that will be uploaded."""

    model_config = ConfigDict(extra="ignore")

    content_type: str = Field("application/octet-stream", max_length=128)
    file_name: str = Field("file", max_length=255)


class UploadPlace(_Document):
    upload_url: str
    file_url: str


class UploadToken(_Document):
    token: str
    token_type: Literal["Bearer"]
    base_url: str
    expires_at: str


class Uploaded(_Document):
    access_url: str


class About(_Document):
    """What the page offers, and the limits that it checks before it sends anything."""

    max_image_bytes: int
    max_audio_bytes: int
    max_images: int
    encoders: list[str] = Field(description="the values of `encoder` that are possible here")
    zmq: list[str] = Field(description="the ZeroMQ endpoints")
    zmq_needs_key: bool = Field(description="whether the first of them requires a CURVE key")
    https: str | None = Field(None, description="the address that also speaks HTTPS")


class Recognised(_Document):
    """The format of a file, recognised by its first bytes."""

    format: str | None = Field(None, description="absent if it cannot be read here")
    message: str | None = Field(None, description="why it cannot be read here")


class Details(_Document):
    """One job, with what a person wants to know about it."""

    job: schema.JobStatus
    request: dict[str, Any] | None = Field(
        None, description="as it was sent, without secrets; if there are many stills, only the first of them"
    )
    log: list[LogLine] = Field(description="what has happened so far")
    warnings: list[schema.ResultWarning] = Field([], description="what its client might not expect of the video")


Described = dict[int | str, dict[str, Any]]


def body_of(media_type: str, schema: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the description of a body that a route reads itself."""
    return {"requestBody": {**more, "content": {media_type: {"schema": schema}}}}


def refused(*statuses: int) -> Described:
    """Return the descriptions of some refusals."""
    return {status: REFUSALS[status] for status in statuses}


BYTES: Final = body_of("application/octet-stream", {"type": "string", "format": "binary"})

_FAULT: Final = {"model": Fault}
REFUSALS: Final[Described] = {
    400: {**_FAULT, "description": "The request cannot be read"},
    401: {**_FAULT, "description": "The key is missing or not one of this server's"},
    403: {**_FAULT, "description": "Pages of this origin are not allowed"},
    413: {**_FAULT, "description": "The body is too large"},
    422: {"model": ValidationFault, "description": "Fields are at fault"},
    500: {**_FAULT, "description": "The server is at fault"},
    503: {**_FAULT, "description": "The server is stopping; ask again"},
}
_ACCEPTING: Final[Described] = {
    **REFUSALS,
    429: {**_FAULT, "description": "The queue is full"},
    507: {**_FAULT, "description": "The server's disk is full"},
}
_ENDINGS: Final[Described] = {
    499: {**_FAULT, "description": "Cancelled by the client"},
    504: {**_FAULT, "description": "It did not start in time, or took too long"},
    404: {**_FAULT, "description": "Unknown, or forgotten by now"},
}
UNKNOWN: Final[Described] = {404: {"model": Unknown, "description": "Unknown, or forgotten by now"}}


def run(app: App) -> Described:
    """Return the descriptions of the responses of `run`."""
    return {200: {"model": app.made}, **_ACCEPTING, **_ENDINGS}


_MADE: Final = ImagesToVideoOutput | MergeAudioVideoOutput | ExtractFrameOutput | MetadataOutput
SUBMIT: Final[Described] = {200: {"model": Submitted}, **_ACCEPTING}
RESULT: Final[Described] = {200: {"model": _MADE}, **REFUSALS, **_ENDINGS}
STATUS: Final[Described] = {
    200: {"model": QueueStatus, "description": "Done"},
    202: {"model": QueueStatus, "description": "Waiting or running"},
    **refused(400, 401, 403, 422),
    **UNKNOWN,
}
STREAM: Final[Described] = {
    200: {"content": {"text/event-stream": {}}, "description": "The documents that /status returns"},
    **refused(400, 401, 403, 422),
    **UNKNOWN,
}
CANCEL: Final[Described] = {
    202: {"model": Cancellation},
    400: {"model": Cancellation, "description": "It has ended already"},
    **refused(401, 403, 500),
    **UNKNOWN,
}
