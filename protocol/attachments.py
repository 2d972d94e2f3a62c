"""What travels beside a request: encoded image files unchanged, and raw pixels with a description of their layout.

Raw pixels come through the buffer protocol, so that a NumPy array is sent without a PNG round trip, without a copy, and
without NumPy being needed here.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from protocol.schema import ChannelOrder, PixelLayout, RenderRequest
from protocol.words import wrongs_in

# An encoded image file; an array (its order follows from its channels: GRAY, RGB or RGBA); an array and its order; or
# anything with the buffer protocol and its layout. An array is Any: its buffer has no static type in Python 3.11.
Attachment = bytes | bytearray | memoryview | tuple[Any, ChannelOrder | PixelLayout] | Any

_ORDER_OF_CHANNELS: dict[int, ChannelOrder] = {1: "GRAY", 3: "RGB", 4: "RGBA"}


def pack_request(
    request: RenderRequest | Mapping[str, Any], attachments: Sequence[Attachment]
) -> tuple[dict[str, Any], list[memoryview]]:
    """Return the params of `render` or `submit`, always with a request_id, and the frames that follow them.

    Fields that a RenderRequest leaves at their defaults are not sent, so that the server's own apply.

    Raises:
        ValueError, TypeError: see `pack`.
    """
    sent = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, RenderRequest) else dict(request)
    if sent.get("request_id") is None:
        sent["request_id"] = uuid.uuid4().hex
    frames, layouts = pack(attachments)
    if any(layouts):
        sent["attachments"] = layouts
    return sent, frames


def pack(attachments: Sequence[Attachment]) -> tuple[list[memoryview], list[dict[str, Any] | None]]:
    """Return the frames to send, and for each its layout as JSON, or None for an encoded file.

    The frames are views of the memory given, which must stay unchanged until the answer has come.

    Raises:
        ValueError: pixels that are not C-contiguous or do not fit their layout; the message says which attachment.
        TypeError: an attachment of a wrong type.
    """
    frames: list[memoryview] = []
    layouts: list[dict[str, Any] | None] = []
    for index, attachment in enumerate(attachments):
        try:
            frame, layout = _pack_one(attachment)
        except (TypeError, ValueError) as error:
            raise type(error)(f"attachments[{index}]: {error}") from error
        frames.append(frame)
        layouts.append(layout.model_dump(mode="json") if layout else None)
    return frames, layouts


def _pack_one(attachment: Attachment) -> tuple[memoryview, PixelLayout | None]:
    if not isinstance(attachment, tuple):
        layout = _layout(attachment, None) if _is_array(attachment) else None
        return _view(attachment), layout
    if len(attachment) != 2:
        raise ValueError(f"expected a pair of pixels and their layout, found {len(attachment)} values")
    pixels, described = attachment
    layout = described if isinstance(described, PixelLayout) else _layout(pixels, described)
    view = _view(pixels)
    if view.nbytes != layout.size_bytes:
        raise ValueError(f"expected {layout.size_bytes} bytes for shape {list(layout.shape)}, found {view.nbytes}")
    return view, layout


def _is_array(attachment: object) -> bool:
    return hasattr(attachment, "shape") and hasattr(attachment, "dtype")


def _layout(pixels: Any, order: ChannelOrder | None) -> PixelLayout:
    """Return the layout that an array's shape and dtype describe."""
    if not _is_array(pixels):
        raise TypeError(f"expected an array with a shape and a dtype, or a PixelLayout, for {type(pixels).__name__}")
    shape = tuple(pixels.shape)
    channels = shape[2] if len(shape) == 3 else 1
    try:
        return PixelLayout.model_validate(
            {"shape": shape, "dtype": str(pixels.dtype), "order": order or _ORDER_OF_CHANNELS.get(channels, "RGB")}
        )
    except ValidationError as error:
        words = "; ".join(map(str, wrongs_in(error, PixelLayout)))
        raise ValueError(f"expected pixels that can be sent; {words}") from error


def _view(attachment: Any) -> memoryview:
    try:
        view = memoryview(attachment)
    except TypeError as error:
        expected = "expected bytes or an object with the buffer protocol, such as a NumPy array"
        raise TypeError(f"{expected}, found {type(attachment).__name__}") from error
    if not view.c_contiguous:
        raise ValueError("expected a C-contiguous array, found a strided one; numpy.ascontiguousarray makes one")
    return view.cast("B") if view.nbytes else memoryview(b"")
