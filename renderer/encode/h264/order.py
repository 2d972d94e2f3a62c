"""Presentation order of a stream with B pictures, from its picture order counts (8.2.1).

Encoders that give an elementary stream give no time stamps. A muxer needs both: dts in decoding order, and pts from the
rank of a picture within its IDR period, since nothing is presented across an IDR. With one tick a frame, dts is the
number of the access unit less `num_reorder_frames`, and so never later than pts.
"""

from renderer.encode.h264.bits import InvalidStream, NalType, UnsupportedStream, nal_type, split_nals, unescape
from renderer.encode.h264.levels import most_kept
from renderer.encode.h264.parameter_sets import Sps
from renderer.encode.h264.syntax import ParameterSets, SliceHeader


def num_reorder_frames(sps: Sps) -> int:
    """Return how many pictures may come before one in decoding order and after it in presentation order (E.2.1).

    Where the stream does not state it, that is the number of pictures that the buffer of its level holds (A.3.1).
    """
    if sps.order.poc_type == 2 or sps.is_intra_only:
        return 0
    if sps.vui is not None and sps.vui.num_reorder_frames is not None:
        return sps.vui.num_reorder_frames
    return most_kept(sps)


class PresentationOrder:
    """One stream: access units enter in decoding order, and leave so with their numbers in presentation order.

    They leave an IDR period at a time, when the next IDR enters or at the flush.
    """

    def __init__(self) -> None:
        self._sets = ParameterSets()
        self._num_reorder_frames = 0
        # The pictures of this IDR period: the picture order count and the access unit of each.
        self._period: list[tuple[int, bytes]] = []
        # The count of the top field of the last reference picture; under type 2 the last frame_num, unwrapped.
        self._previous = 0
        self._presented = 0

    @property
    def num_reorder_frames(self) -> int:
        """The most that any SPS so far allows; settled before the first access unit leaves."""
        return self._num_reorder_frames

    def push(self, access_unit: bytes) -> list[tuple[int, bytes]]:
        """Take the next access unit, Annex B, and return those now settled as (presentation index, access unit).

        Raises:
            UnsupportedStream: its place cannot be found out; the message says why.
        """
        sps, header = self._read(access_unit)
        settled = self.flush() if header.idr_pic_id else []
        self._period.append((self._count(sps, header), access_unit))
        return settled

    def flush(self) -> list[tuple[int, bytes]]:
        """Return the access units still inside; unless the stream ends here, the next must be an IDR."""
        ranks = sorted(range(len(self._period)), key=lambda number: self._period[number][0])
        indices = {number: self._presented + rank for rank, number in enumerate(ranks)}
        settled = [(indices[number], access_unit) for number, (_, access_unit) in enumerate(self._period)]
        self._presented += len(settled)
        self._period.clear()
        return settled

    def _take(self, nal: bytes) -> None:
        sps = self._sets.take(nal)
        if sps:
            self._num_reorder_frames = max(self._num_reorder_frames, num_reorder_frames(sps))

    def _read(self, access_unit: bytes) -> tuple[Sps, SliceHeader]:
        """Return the first slice header, which has the order count of the whole picture."""
        for nal in split_nals(access_unit):
            self._take(nal)
            if nal_type(nal) in (NalType.SLICE, NalType.IDR_SLICE):
                header = self._sets.slice_header(unescape(nal))
                return self._sets.active(header.pps_id)[0], header
        raise InvalidStream("an access unit has no coded slice")

    def _count(self, sps: Sps, header: SliceHeader) -> int:
        """Return PicOrderCnt of the next picture in decoding order, within its IDR period (8.2.1.1, 8.2.1.3)."""
        if header.resets_order:
            raise UnsupportedStream("a picture that is not an IDR forgets all before it (operation 5)")
        if sps.order.poc_type == 1:
            raise UnsupportedStream("the order of pictures follows a cycle (pic_order_cnt_type 1)")
        if header.idr_pic_id:
            self._previous = 0
        if header.poc_lsb is None:
            self._previous += (header.frame_num.value - self._previous) % (1 << header.frame_num.width)
            return 2 * self._previous - (header.nal_ref_idc == 0)
        half = 1 << header.poc_lsb.width - 1
        # The nearest count with these lower bits; of two as near, the later.
        top = self._previous + half - (self._previous + half - header.poc_lsb.value) % (2 * half)
        if header.nal_ref_idc:
            self._previous = top
        return top + min(0, header.delta_poc_bottom)
