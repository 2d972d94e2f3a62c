"""NVENC through PyNvVideoCodec: it takes NV12 frames, which the GPU fetches itself, and returns Annex B access units.

The wheel copies a page-locked frame by DMA and does not wait for the copy. So a frame is pending until its own access
unit is returned, three pictures later or more with B pictures, and the pipeline does not reuse it before.

The stream is brought into the form of libx264's: the SPS names the colours, and every IDR has an SPS and a PPS before
it. The wheel makes NVENC write timing messages for every picture (SEI: buffering period and picture timing), and has no
option against them. They are removed, with the parts of the SPS that announce them; otherwise no picture could be held.
"""

import contextlib
import logging
from collections.abc import Sequence
from typing import Final

from renderer.encode.base import Encoder, Nv12Frame, check_frame
from renderer.encode.h264.bits import NalType, UnsupportedStream, join_nals, nal_type, split_nals
from renderer.encode.h264.description import described
from renderer.encode.nvenc.cache import keeper
from renderer.encode.nvenc.options import MOST_PENDING_FRAMES, session_shape
from renderer.encode.nvenc.session import Opening, Packet, Session
from renderer.encode.stream import AccessUnit, StreamSettings
from renderer.errors import DeviceFailed, EncodeFailed
from renderer.pictures.memory import FrameStock, pinned_memory

log = logging.getLogger(__name__)

_PARAMETER_SETS: Final = frozenset({NalType.SPS, NalType.PPS})


class NvencEncoder(Encoder):
    """One stream on one session of a GPU; see `encode.base.Encoder` for the contract."""

    def __init__(self, stream: StreamSettings, opening: Opening) -> None:
        """Take the session that the last job left, or open one.

        Raises:
            SessionsBusy: no session became free in time.
            DeviceFailed: the device refuses.
        """
        self._stream = stream
        self._keep_s = opening.settings.keep_session_s
        shape = session_shape(stream, opening.devices)
        self._is_reordered = shape.is_reordered
        self._session: Session | None = keeper().take(shape, opening.devices) or opening.open(shape)
        self._device = self._session.device
        self._stock = FrameStock(pinned_memory(self._session.gpu), MOST_PENDING_FRAMES)
        self._was_kept = self._session.was_kept
        self._frames_in = self._units_out = 0
        self._first_stamp: int | None = None
        self._inside: set[int] = set()
        self._copied_before = 0
        self._is_ended = False
        self._described: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<NvencEncoder {self._stream.canvas} frames={self._frames_in} {self._session}>"

    @property
    def stock(self) -> FrameStock:
        return self._stock

    @property
    def pending_frames(self) -> int:
        oldest = min(self._inside, default=self._frames_in)
        return self._frames_in - max(oldest, self._copied_before)

    def encode(self, frame: Nv12Frame) -> Sequence[AccessUnit]:
        check_frame(frame, self._stream.canvas)
        if self._session is None or self._is_ended:
            raise EncodeFailed("no frame may follow flush() or close()")
        number = self._frames_in
        self._frames_in += 1
        self._inside.add(number)
        units = self._units(self._session.encode(frame, is_idr=self._is_idr(number)))
        if self.pending_frames > MOST_PENDING_FRAMES:
            # This was never seen, but the lender of the frames relies on this limit and would wait for ever.
            self._session.finish_copies()
            self._copied_before = self._frames_in
        return units

    def flush(self) -> Sequence[AccessUnit]:
        if self._session is None or self._is_ended:
            return []
        self._is_ended = True
        if not self._frames_in:
            return []
        units = self._units(self._session.flush())
        if self._units_out != self._frames_in:
            raise self._failure(f"made {self._units_out} access units for {self._frames_in} frames")
        self._hand_on(self._session)
        return units

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(DeviceFailed):
                session.finish_copies()
            session.close()

    def _hand_on(self, session: Session) -> None:
        self._session = None
        self._inside.clear()
        keeper().put(session, self._keep_s)

    def _is_idr(self, number: int) -> bool:
        """Whether to force an IDR: always at the first picture, since the session may have coded another stream."""
        held = self._stream.held
        return number == 0 or (held is not None and number < len(held.is_idr) and held.is_idr[number])

    def _units(self, packets: Sequence[Packet]) -> list[AccessUnit]:
        return [self._unit(packet) for packet in packets]

    def _unit(self, packet: Packet) -> AccessUnit:
        # The wheel goes on counting frames when a session starts another stream; the first packet is the first frame's.
        if self._first_stamp is None:
            self._first_stamp = packet["timestamp"]
        self._inside.discard(packet["timestamp"] - self._first_stamp)
        self._units_out += 1
        nals = [nal for nal in split_nals(packet["data"]) if nal_type(nal) != NalType.SEI]
        types = {nal_type(nal) for nal in nals}
        is_idr = NalType.IDR_SLICE in types
        if self._units_out == 1 and not is_idr:
            raise self._failure("began the stream with a picture other than an IDR picture")
        if is_idr and not types >= _PARAMETER_SETS:
            raise self._failure("coded an IDR picture without its parameter sets")
        data = join_nals([self._sps(nal) if nal_type(nal) == NalType.SPS else nal for nal in nals])
        return AccessUnit(data, is_idr)

    def _sps(self, nal: bytes) -> bytes:
        if nal not in self._described:
            try:
                self._described[nal] = described(nal, self._stream.fps, is_reordered=self._is_reordered, is_timed=False)
            except UnsupportedStream as error:
                raise self._failure(f"wrote an SPS that cannot be read: {error}") from error
        return self._described[nal]

    def _failure(self, what: str) -> DeviceFailed:
        return DeviceFailed(f"{self._device.name} {what}", device=self._device.uuid, was_kept=self._was_kept)
