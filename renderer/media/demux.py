"""Opens a client's sound or video with libav, which may open no other file and only the decoders of a table."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import av
from av.stream import Discard, Disposition

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

Stream = TypeVar("Stream", "AudioStream", "VideoStream")


@contextmanager
def opened(
    data: bytes,
    demuxer: str,
    decoders: Iterable[str],
    choose: "Callable[[InputContainer], Stream]",
    limits: dict[str, int] | None = None,
) -> "Iterator[tuple[InputContainer, Stream]]":
    """Open a file with one demuxer, and read one of its streams; the packets of all others are left out.

    Args:
        demuxer: libavformat's name.
        decoders: libavcodec's names.
        limits: options of libavformat.
    """
    options = {
        "protocol_whitelist": "none",
        "format_whitelist": demuxer,
        "codec_whitelist": ",".join(decoders),
        **{name: str(limit) for name, limit in (limits or {}).items()},
    }
    # Tags are often in Latin-1 where UTF-8 is expected, and no fault of what is shown or heard.
    with av.open(io.BytesIO(data), "r", format=demuxer, options=options, metadata_errors="replace") as container:
        stream = choose(container)
        stream.codec_context.thread_count = 1
        for other in container.streams:
            if other is not stream:
                other.discard = Discard.all
        yield container, stream


def preferred(streams: Sequence[Stream]) -> Stream:
    """Return the first stream that is marked as the default, else the first one."""
    return next((each for each in streams if each.disposition & Disposition.default), streams[0])
