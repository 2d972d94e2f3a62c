"""Held pictures: an image shown for N frames is coded once, and the other N - 1 access units are written here.

Repeats are reference pictures, so frame_num may count through any run of them, under picture order count types 0 and 2
alike (7.4.3, 8.2.1). The coded pictures up to the next IDR must count the repeats too: frame_num and pic_order_cnt_lsb
have fixed lengths, so they are changed in place. Every repeat pushes the oldest reference frame out. That does
no harm where the SPS allows a single one, or where slices use none but the first of the list, the picture before.

Two IDR pictures in a row must differ in idr_pic_id (7.4.3). The other number is one whose code is as long, or longer by
just one byte, so that the slice data keeps the alignment on which CABAC and I_PCM macroblocks rely.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Final, NamedTuple

from renderer.encode.h264.bits import (
    InvalidStream,
    NalType,
    UnsupportedStream,
    escape,
    join_nals,
    nal_type,
    split_nals,
    unescape,
    with_field,
)
from renderer.encode.h264.parameter_sets import Pps, Sps
from renderer.encode.h264.skipped import skipped_picture
from renderer.encode.h264.syntax import B_SLICE, I_SLICE, ParameterSets, SliceHeader

_SLICES: Final = frozenset({NalType.SLICE, NalType.IDR_SLICE})
_ENDINGS: Final = frozenset({NalType.END_OF_SEQUENCE, NalType.END_OF_STREAM})

_KNOWN_NALS: Final = frozenset(NalType)

# Picture order counts number fields (8.2.1), of which a frame has two.
_POC_STEP: Final = 2


def is_idr(access_unit: bytes) -> bool:
    """Return whether the access unit is an IDR picture, by its first slice (7.4.1.2.4)."""
    start = _first_slice(access_unit)
    return start is not None and access_unit[start] & 31 == NalType.IDR_SLICE


def parted(access_unit: bytes) -> tuple[bytes, bytes]:
    """Return the parameter sets of an access unit, and its slices; what else is in front of these is left out."""
    start = _first_slice(access_unit) or len(access_unit)
    nals = split_nals(access_unit[: start - 3])
    return join_nals([nal for nal in nals if nal_type(nal) in (NalType.SPS, NalType.PPS)]), access_unit[start - 3 :]


def _first_slice(access_unit: bytes) -> int | None:
    """Return where the first slice begins, behind its start code."""
    start = access_unit.find(b"\0\0\1") + 3
    while 2 < start < len(access_unit):
        if access_unit[start] & 31 in _SLICES:
            return start
        start = access_unit.find(b"\0\0\1", start) + 3
    return None


class NeedsIdr(UnsupportedStream):
    """A picture that follows a hold refers back over it: the same stills with an IDR after every hold would do."""


class HeldPictures:
    """One stream in the making: coded pictures enter in decoding order, and leave with their repeats behind them.

    The output is in decoding and presentation order at once. After an error the stream is lost.
    """

    def __init__(self) -> None:
        self._sets = ParameterSets()
        # Several reference frames are allowed: an IDR must follow a hold, unless slices use the nearest frame only.
        self._needs_idr_after_hold = False
        self._has_begun = False
        # Since the last IDR in the output.
        self._repeats = 0
        # Of the last access unit in the output, if that is an IDR.
        self._last_idr_pic_id: int | None = None
        # Of the last coded picture, as its encoder wrote it.
        self._last_poc_lsb = 0

    def hold(self, access_unit: bytes, repeats: int, *, sync_every: int | None = None) -> Iterator[bytes]:
        """Return the access unit, fitted into the stream, and `repeats` more that show the same picture.

        All is checked and counted before this returns; the iterator may be consumed at any time.

        Args:
            access_unit: the next coded picture in decoding order, an Annex B byte stream; the first is an IDR.
            repeats: how often the picture is shown again; 0 passes it through.
            sync_every: make every n-th picture of the hold a copy of the coded IDR, so that players can seek to it.
                Other pictures cannot be copied so: it has no effect on them.

        Raises:
            UnsupportedStream: this picture cannot be held, or cannot follow a hold; the message says why.
        """
        if repeats < 0 or (sync_every is not None and sync_every < 1):
            raise ValueError(f"expected repeats from 0 and sync_every from 1: {repeats}, {sync_every}")
        picture = self._read(access_unit)
        header = picture.header
        if repeats and not header.nal_ref_idc:
            raise UnsupportedStream("the held picture is not a reference picture (nal_ref_idc is 0)")
        self._has_begun = True
        self._last_poc_lsb = header.poc_lsb.value if header.poc_lsb else 0
        if header.idr_pic_id:
            return self._hold_idr(picture, header.idr_pic_id.value, repeats, sync_every or repeats + 1)
        before = self._repeats
        self._repeats += repeats
        self._last_idr_pic_id = None
        return chain([picture.counted(before)], picture.repeats(before, repeats))

    def _hold_idr(self, picture: "_Picture", own_id: int, repeats: int, sync_every: int) -> Iterator[bytes]:
        copies, self._repeats = divmod(repeats, sync_every)
        # Neighbours must differ: the IDR before and this one, and all of them if there is nothing between the copies.
        ids = [own_id, _other_id(own_id)]
        if own_id == self._last_idr_pic_id:
            ids.reverse()
        copy_ids = ids[::-1] if sync_every == 1 else ids[:1]
        self._last_idr_pic_id = None if self._repeats else (ids[:1] + copy_ids * copies)[copies]
        coded = picture.idr(ids[0])
        variants = [picture.idr(copy_id, is_copy=True) for copy_id in copy_ids] if copies else []
        return _sequence(picture, chain([coded], islice(cycle(variants), copies)), repeats, sync_every)

    def _read(self, access_unit: bytes) -> "_Picture":
        nals = [nal for nal in split_nals(access_unit) if nal_type(nal) not in _ENDINGS]
        slices = {}
        for index, nal in enumerate(nals):
            self._take(nal)
            if nal_type(nal) in _SLICES:
                unescaped = unescape(nal)
                slices[index] = _Slice(unescaped, self._sets.slice_header(unescaped))
        if not slices:
            raise InvalidStream("an access unit has no coded slice")
        headers = [coded.header for coded in slices.values()]
        _check_slices(headers)
        if not headers[0].idr_pic_id:
            self._check_follows(headers)
        return _Picture(nals, slices, *self._sets.active(headers[0].pps_id))

    def _take(self, nal: bytes) -> None:
        if nal_type(nal) not in _KNOWN_NALS:
            raise UnsupportedStream(
                f"there are NAL units of type {nal_type(nal)}, so it is not a plain single-layer stream"
            )
        sps = self._sets.take(nal)
        if sps:
            _check_sps(sps)
            self._needs_idr_after_hold = sps.max_num_ref_frames > 1

    def _check_follows(self, headers: Sequence[SliceHeader]) -> None:
        """Check a picture that is not an IDR against those before it."""
        if not self._has_begun:
            raise InvalidStream("the stream does not begin with an IDR picture")
        poc_lsb = headers[0].poc_lsb
        if poc_lsb and not 0 < (poc_lsb.value - self._last_poc_lsb) % (1 << poc_lsb.width) < 1 << poc_lsb.width - 1:
            raise UnsupportedStream("presentation order is not decoding order")
        if self._repeats and self._needs_idr_after_hold and any(_uses_far_reference(header) for header in headers):
            raise NeedsIdr("a picture after a hold refers to others than the one before, without an IDR between them")


class _Slice(NamedTuple):
    unescaped: bytes
    header: SliceHeader


@dataclass(frozen=True, slots=True)
class _Picture:
    """A coded picture as its encoder wrote it, and what may be written in its stead."""

    nals: Sequence[bytes]
    slices: Mapping[int, _Slice]
    """By index into nals."""
    sps: Sps
    pps: Pps

    @property
    def header(self) -> SliceHeader:
        return next(iter(self.slices.values())).header

    def counted(self, repeats: int) -> bytes:
        """Return the access unit with its counters moved by the repeats before it."""
        return self._written(lambda coded: _with_counters(coded, repeats))

    def idr(self, idr_pic_id: int, *, is_copy: bool = False) -> bytes:
        """Return the access unit under this idr_pic_id, and as a copy without what was said about one moment (SEI)."""
        return self._written(
            lambda coded: _with_idr_pic_id(coded, idr_pic_id), leave_out=NalType.SEI if is_copy else None
        )

    def repeats(self, before: int, count: int) -> Iterator[bytes]:
        """Return repeats of this picture; `before` is the number of repeats between the last IDR and it."""
        skipped = skipped_picture(self.sps, self.pps)
        frame_num = self.header.frame_num.value
        poc_lsb = self.header.poc_lsb.value if self.header.poc_lsb else 0
        for number in range(before + 1, before + count + 1):
            yield skipped.access_unit(frame_num + number, poc_lsb + _POC_STEP * number)

    def _written(self, rewrite: Callable[[_Slice], bytes], leave_out: NalType | None = None) -> bytes:
        return join_nals(
            [
                escape(rewrite(self.slices[index])) if index in self.slices else nal
                for index, nal in enumerate(self.nals)
                if nal_type(nal) != leave_out
            ]
        )


def _sequence(picture: _Picture, coded: Iterator[bytes], repeats: int, sync_every: int) -> Iterator[bytes]:
    """Put repeats behind each of the coded access units."""
    for start, access_unit in zip(range(0, repeats + 1, sync_every), coded, strict=True):
        yield access_unit
        yield from picture.repeats(0, min(sync_every - 1, repeats - start))


def _with_counters(coded: _Slice, repeats: int) -> bytes:
    unescaped = coded.unescaped
    for counter, step in ((coded.header.frame_num, 1), (coded.header.poc_lsb, _POC_STEP)):
        if counter and repeats:
            unescaped = with_field(unescaped, counter, (counter.value + step * repeats) % (1 << counter.width))
    return unescaped


def _with_idr_pic_id(coded: _Slice, idr_pic_id: int) -> bytes:
    """Return the slice under its own idr_pic_id or the other one that `_other_id` gives."""
    own = coded.header.idr_pic_id
    if own is None or own.value == idr_pic_id:
        return coded.unescaped
    if own.width > 1:
        return with_field(coded.unescaped, own, idr_pic_id + 1)
    # The one-bit code of 0 becomes the nine-bit code of 15, eight bits later.
    index, below = own.position >> 3, 7 - (own.position & 7)
    above = coded.unescaped[index] >> below + 1
    widened = (above << 9 | idr_pic_id + 1) << below | coded.unescaped[index] & (1 << below) - 1
    return coded.unescaped[:index] + widened.to_bytes(2, "big") + coded.unescaped[index + 1 :]


def _other_id(idr_pic_id: int) -> int:
    """Return an idr_pic_id whose Exp-Golomb code (9.1) is as long, or eight bits longer if no other code is as long."""
    return (idr_pic_id + 1 ^ 1) - 1 if idr_pic_id else 15


def _uses_far_reference(header: SliceHeader) -> bool:
    return header.slice_type != I_SLICE and (header.num_ref_idx_active[0] > 1 or header.modifies_ref_lists)


def _check_sps(sps: Sps) -> None:
    refusals = {
        "the pictures are interlaced (frame_mbs_only_flag is 0)": not sps.frame.is_progressive,
        "the colour planes are coded apart": sps.chroma.separate_planes,
        "the order of pictures follows a cycle (pic_order_cnt_type 1)": sps.order.poc_type == 1,
        "the profile is for intra pictures only": sps.is_intra_only,
        "the SPS allows no reference frame, as for a stream of IDR pictures only": sps.max_num_ref_frames == 0,
        "every picture needs a timing message (HRD or pic_struct)": sps.vui is not None
        and sps.vui.needs_picture_timing,
    }
    for reason, is_so in refusals.items():
        if is_so:
            raise UnsupportedStream(reason)


def _check_slices(headers: Sequence[SliceHeader]) -> None:
    firsts = [header.first_mb for header in headers]
    refusals = {
        "the slices of a picture are not in order (ASO)": firsts != sorted({0, *firsts}),
        "there are redundant pictures": any(header.redundant_pic_cnt for header in headers),
        "there are B pictures": any(header.slice_type == B_SLICE for header in headers),
        "the encoder manages its reference pictures itself": any(
            header.marking or header.is_long_term for header in headers
        ),
    }
    for reason, is_so in refusals.items():
        if is_so:
            raise UnsupportedStream(reason)
