"""What can go wrong, as one tree.

StillreelError
├── JobError                 the request is at fault; trying again is of no use
│   ├── InvalidRequest         a field is wrong
│   │   ├── LimitExceeded        a number is above a limit
│   │   ├── TooManyImages        the list of images is above the limit
│   │   ├── NoManifest           the file holds something else
│   │   ├── NotSupported         this version or machine cannot do it
│   │   └── RequestIdConflict    the id belongs to another request
│   ├── FetchFailed            an image or a sound could not be read or downloaded, or may not be
│   │   └── SourceUnavailable    it cannot be had now; it may be later
│   ├── FileTooLarge           its bytes are too many
│   ├── UnsupportedFormat      its bytes are in no known image format
│   ├── DecodeFailed           it is damaged
│   │   └── DecodeTimedOut       its decoder does not come back
│   │       ├── SoundTimedOut      a sound's decoder does not
│   │       └── VideoTimedOut      a video's decoder does not
│   ├── ImageTooLarge          its pixels are too many
│   ├── UnsupportedSound       its bytes are in no known sound format
│   ├── SoundDamaged           it cannot be decoded
│   ├── UnsupportedVideo       its bytes are not a video that can be read, or copied, here
│   ├── VideoDamaged           it cannot be decoded
│   ├── JobNotFound            nobody has this request_id
│   ├── StillInProgress        its result is not there yet
│   ├── JobCancelled           its client did not want it any more
│   ├── JobExpired             it was not begun in time
│   └── JobTimedOut            it took too long, or stood still for too long
├── CapacityError            try again later
│   ├── QueueFull
│   ├── ShuttingDown
│   ├── StorageFull            the disk has no room for the job
│   └── SessionsBusy           other jobs or programs use every session of the GPU's encoder
├── BackendError             we are at fault
│   ├── EncodeFailed           the encoder refused, stalled or died
│   │   └── DeviceFailed         it was a GPU's; another encoder may do
│   ├── OutputFailed           the file could not be written
│   ├── StoreFailed            the store of jobs could not be read or written
│   └── WorkerLost             the process that rendered died
└── ConfigError              start-up only: a setting or the machine does not allow to begin

Every class names its row of protocol/errors.py in `kind`, or has that of the class above it. Messages say what was
expected and what was found; `loc` says where, and is shown in front of the message. None may hold a path or a
secret of the server.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

from protocol.errors import ERRORS, MAX_FAULTS, Loc, counted, dotted

if TYPE_CHECKING:
    from protocol.schema import Fault


class StillreelError(Exception):
    """The root; it carries the message, the row of the table and the place in the request."""

    kind: ClassVar[str] = "internal_error"
    is_retryable: ClassVar[bool] = False  # whether trying again helps although the table says that it does not

    def __init__(self, message: str, *, loc: Loc = ()) -> None:
        super().__init__(message)
        self.message = message
        self.loc = loc

    def __str__(self) -> str:
        return f"{dotted(self.loc)}: {self.message}" if self.loc else self.message

    def at(self, *loc: str | int) -> Self:
        """Say where in the request the fault lies, if nobody nearer to it has said so already."""
        self.loc = self.loc or loc
        return self

    def fault(self) -> "Fault":
        """Return the error as the value that is stored and sent."""
        from protocol.schema import Fault  # noqa: PLC0415 - pydantic takes a tenth of a second, and few commands fail

        return Fault(
            type=self.kind, message=str(self), loc=self.loc, retryable=self.is_retryable or ERRORS[self.kind].retryable
        )


class JobError(StillreelError):
    """The request is at fault.

    Attributes:
        others: faults that were found with it, each with its own place.
        rest: what is to be said of faults that are not among them.
    """

    kind = "invalid_params"

    def __init__(self, message: str, *, loc: Loc = ()) -> None:
        super().__init__(message, loc=loc)
        self.others: tuple[JobError, ...] = ()
        self.rest = ""

    def __str__(self) -> str:
        return "; ".join([super().__str__(), *map(str, self.others), *filter(None, [self.rest])])

    def fault(self) -> "Fault":
        """Return the error as the value that is stored and sent; to try again helps only if it helps every fault."""
        fault = super().fault()
        if not self.others:
            return fault
        errors = tuple(entry for each in (self, *self.others) for entry in each.entries())
        is_retryable = fault.retryable and all(each.fault().retryable for each in self.others)
        return fault.model_copy(update={"errors": errors, "retryable": is_retryable})

    def entries(self) -> tuple[dict[str, Any], ...]:
        """Return this fault alone, as one of several."""
        return ({"loc": list(self.loc), "msg": self.message, "type": self.kind},)


def as_one(faults: Sequence[JobError]) -> JobError:
    """Return one error for several: the first, with the others beside it, as many as an answer names."""
    alone = [each for fault in faults for each in (fault, *fault.others)]
    rests = [fault.rest for fault in faults if fault.rest]
    for each in alone:
        each.others, each.rest = (), ""
    first, *others = alone[:MAX_FAULTS]
    first.others = tuple(others)
    left = len(alone) - MAX_FAULTS
    if left > 0:
        rests = ["there are more faults than these" if rests else f"and {counted(left, 'more fault')}"]
    first.rest = "; ".join(rests)
    return first


@contextmanager
def blaming(damaged: type[JobError], what: str, loc: Loc = ()) -> Iterator[None]:
    """Turn any exception that a parser raises for hostile bytes into `damaged`, and keep the cause.

    Args:
        what: was to be read, such as "sound (WAV)".
        loc: its url's place in the request.
    """
    try:
        yield
    except StillreelError as error:
        raise error.at(*loc) from error.__cause__
    except MemoryError as error:  # sizes are checked before, so the file asks for more memory than it can need
        raise damaged(f"expected a {what} that fits into a worker's memory", loc=loc) from error
    except Exception as error:  # Pillow, OpenCV and libav do not document which exceptions they raise
        raise damaged(f"expected a whole {what}, found a damaged one", loc=loc) from error


class InvalidRequest(JobError):
    """A field is wrong.

    Attributes:
        details: every fault found, as dicts with "loc", "msg" and "type".
    """

    def __init__(
        self,
        message: str,
        *,
        loc: Loc = (),
        details: tuple[dict[str, Any], ...] = (),
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Remember what is wrong.

        Args:
            context: of the one fault that there is, what pydantic tells programs of such a one, as {"le": 120}.
        """
        super().__init__(message, loc=loc)
        alone = {"loc": list(loc), "msg": message, "type": self.kind, "ctx": context}
        self.details: tuple[dict[str, Any], ...] = details or ((alone,) if context else ())

    def fault(self) -> "Fault":
        is_alone = self.details and not self.others
        return super().fault().model_copy(update={"errors": self.details}) if is_alone else super().fault()

    def entries(self) -> tuple[dict[str, Any], ...]:
        return self.details or super().entries()


class LimitExceeded(InvalidRequest):
    kind = "less_than_equal"


class TooManyImages(InvalidRequest):
    kind = "sequence_too_long"


class NoManifest(InvalidRequest):
    """A file that has the name of a manifest and nothing of a request in it."""


class NotSupported(InvalidRequest):
    kind = "not_supported"


class RequestIdConflict(InvalidRequest):
    kind = "request_id_conflict"


class FetchFailed(JobError):
    kind = "file_download_error"


class SourceUnavailable(FetchFailed):
    """A server did not answer, or a file was being changed.

    Attributes:
        retry_after_s: the pause that a server asked for when it said to come again, 0 for none.
    """

    is_retryable = True

    def __init__(self, message: str, *, loc: Loc = (), retry_after_s: float = 0.0) -> None:
        super().__init__(message, loc=loc)
        self.retry_after_s = retry_after_s


class FileTooLarge(JobError):
    kind = "file_too_large"


class UnsupportedFormat(JobError):
    kind = "unsupported_image_format"


class DecodeFailed(JobError):
    kind = "image_load_error"


class DecodeTimedOut(DecodeFailed):
    """A decoder has not come back in time; the thread that it keeps cannot be ended, only its process."""


class ImageTooLarge(JobError):
    kind = "image_too_large"


class UnsupportedSound(JobError):
    kind = "unsupported_audio_format"


class SoundDamaged(JobError):
    kind = "audio_load_error"


class SoundTimedOut(DecodeTimedOut):
    kind = "audio_load_error"


class UnsupportedVideo(JobError):
    kind = "unsupported_video_format"


class VideoDamaged(JobError):
    kind = "video_load_error"


class VideoTimedOut(DecodeTimedOut):
    kind = "video_load_error"


class JobNotFound(JobError):
    kind = "not_found"


class StillInProgress(JobError):
    kind = "still_in_progress"


class JobCancelled(JobError):
    kind = "client_cancelled"


class JobExpired(JobError):
    kind = "startup_timeout"


class JobTimedOut(JobError):
    kind = "request_timeout"


class CapacityError(StillreelError):
    """There is no room now; the same request may be accepted later."""

    kind = "queue_full"


class QueueFull(CapacityError):
    """As many jobs wait as may wait, for everybody or for one key."""


class ShuttingDown(CapacityError):
    kind = "shutting_down"


class StorageFull(CapacityError):
    kind = "storage_full"


class SessionsBusy(CapacityError):
    """Every session of the GPU's encoder is in use."""


class BackendError(StillreelError):
    """We are at fault, and not the request."""


class EncodeFailed(BackendError):
    """The encoder refused, stalled or died."""


class DeviceFailed(EncodeFailed):
    """A GPU's encoder failed.

    Attributes:
        device: its UUID, if it is the device's fault and not that of the session's circumstances.
        was_kept: its session had served another job before, so a fresh one may do.
    """

    def __init__(self, message: str, *, loc: Loc = (), device: str | None = None, was_kept: bool = False) -> None:
        super().__init__(message, loc=loc)
        self.device = device
        self.was_kept = was_kept


class OutputFailed(BackendError):
    """The video's file could not be written."""


class StoreFailed(BackendError):
    """The store of jobs could not be read or written."""


class WorkerLost(BackendError):
    """The process that rendered died."""


class ConfigError(StillreelError):
    """A setting or the machine does not allow to begin."""
