"""What every encoder promises, asked of each of them.

NVENC is asked in a child process, over the stand-in driver: `test_nvenc.py` runs this module there with CONFORM=nvenc.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import numpy.typing as npt
import pytest

from renderer.config import EncodeSettings
from renderer.encode.base import Encoder
from renderer.encode.h264.bits import NalType, nal_type, split_nals, unescape
from renderer.encode.h264.parameter_sets import parse_sps
from renderer.encode.h264.syntax import ParameterSets
from renderer.encode.null import NullEncoder
from renderer.encode.stream import AccessUnit, HeldCoding, StreamSettings
from renderer.encode.x264 import open_x264
from renderer.errors import EncodeFailed
from renderer.geometry import Canvas

Frame = npt.NDArray[np.uint8]
OpenEncoder = Callable[[StreamSettings, EncodeSettings], Encoder]

# The null encoder shows grey whatever it gets, so what pictures show is asked of the real ones only.
REAL_ENCODERS = [pytest.param(open_x264, id="x264")]
ENCODERS = [pytest.param(NullEncoder, id="null"), *REAL_ENCODERS]
if os.environ.get("CONFORM") == "nvenc":
    from tests.encode.nvenc.nvenc_children import open_nvenc

    ENCODERS = REAL_ENCODERS = [pytest.param(open_nvenc, id="nvenc")]

# 145x49 is the least that an NVENC of the stand-in takes, as one of a recent card.
CANVASES = [Canvas(160, 64), Canvas(162, 50), Canvas(642, 482), Canvas(1600, 902)]
if os.environ.get("CONFORM") != "nvenc":
    CANVASES += [Canvas(2, 2), Canvas(16, 18)]

pytestmark = pytest.mark.usefixtures("nothing_left")


def encode(opened: OpenEncoder, stream: StreamSettings, frames: Sequence[Frame]) -> list[AccessUnit]:
    with opened(stream, EncodeSettings()) as encoder:
        units = [unit for frame in frames for unit in encoder.encode(frame)]
        return units + list(encoder.flush())


def decode(units: Sequence[AccessUnit]) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(b"".join(unit.data for unit in units)), format="h264") as container:
        return list(container.decode(video=0))


@pytest.fixture
def stream() -> StreamSettings:
    return StreamSettings(Canvas(160, 64), Fraction(24), crf=20, preset="ultrafast", keyframe_interval=8)


@pytest.fixture(params=ENCODERS)
def opened(request: pytest.FixtureRequest) -> OpenEncoder:
    return request.param


@pytest.fixture
def encoder(opened: OpenEncoder, stream: StreamSettings) -> Iterator[Encoder]:
    with opened(stream, EncodeSettings()) as encoder:
        yield encoder


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_there_is_one_access_unit_for_each_frame(opened: OpenEncoder, stream: StreamSettings, frame_of, count) -> None:
    units = encode(opened, stream, [frame_of(16 + index) for index in range(count)])
    assert len(units) == count
    assert len(decode(units)) == count


def test_the_first_access_unit_is_an_idr_with_its_parameter_sets(opened: OpenEncoder, stream, frame_of) -> None:
    first = encode(opened, stream, [frame_of(100)] * 3)[0]
    types = [nal_type(nal) for nal in split_nals(first.data)]
    assert first.is_idr
    assert types.index(NalType.SPS) < types.index(NalType.PPS) < types.index(NalType.IDR_SLICE)


def test_every_idr_brings_its_parameter_sets(opened: OpenEncoder, stream, frame_of) -> None:
    for unit in encode(opened, stream, [frame_of(100)] * 20):
        types = {nal_type(nal) for nal in split_nals(unit.data)}
        assert (NalType.IDR_SLICE in types) == unit.is_idr
        assert unit.is_idr == ({NalType.SPS, NalType.PPS} <= types)


@pytest.mark.parametrize("interval", [1, 2, 5, 250])
def test_idrs_are_no_further_apart_than_asked(opened: OpenEncoder, stream, frame_of, interval: int) -> None:
    units = encode(opened, replace(stream, keyframe_interval=interval), [frame_of(100)] * 23)
    at = [index for index, unit in enumerate(units) if unit.is_idr] + [len(units)]
    assert at[0] == 0
    assert max(after - before for before, after in pairwise(at)) <= interval


@pytest.mark.parametrize("canvas", CANVASES, ids=str)
def test_the_sps_tells_size_colours_and_no_reordering(opened: OpenEncoder, stream, canvas: Canvas) -> None:
    stream = replace(stream, canvas=canvas, fps=Fraction(30000, 1001))
    units = encode(opened, stream, [np.full(canvas.nv12_shape, 90, np.uint8)])
    sps = parse_sps(next(nal for nal in split_nals(units[0].data) if nal_type(nal) == NalType.SPS))
    left, right, top, bottom = sps.frame.crop
    assert sps.frame.width_in_mbs * 16 - left - right == canvas.width
    assert sps.frame.height_in_mbs * 16 - top - bottom == canvas.height
    assert sps.vui is not None
    assert sps.vui.colour is not None
    colour = sps.vui.colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.is_full_range) == (1, 1, 1, False)
    assert sps.vui.num_reorder_frames == 0
    (picture,) = decode(units)
    assert (picture.width, picture.height) == (canvas.width, canvas.height)


@pytest.mark.parametrize("real", REAL_ENCODERS)
def test_pictures_leave_in_the_order_of_frames(real: OpenEncoder, stream, frame_of) -> None:
    lumas = [16 + (index * 37) % 220 for index in range(40)]
    pictures = decode(encode(real, stream, [frame_of(luma) for luma in lumas]))
    means = [picture.to_ndarray()[: picture.height].mean() for picture in pictures]
    assert means == pytest.approx(lumas, abs=2)


@pytest.mark.parametrize("real", REAL_ENCODERS)
@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_a_frame_may_be_overwritten_once_it_is_not_pending(real: OpenEncoder, stream, frame_of, preset) -> None:
    lumas = [40 + 12 * index for index in range(15)]
    lent: list[Frame] = []
    units: list[AccessUnit] = []
    with real(replace(stream, preset=preset), EncodeSettings()) as encoder:
        for luma in lumas:
            lent.append(frame_of(luma))
            units += encoder.encode(lent[-1])
            for frame in lent[: len(lent) - encoder.pending_frames]:
                frame[:] = 255
        units += encoder.flush()
        assert encoder.pending_frames == 0
    means = sorted(picture.to_ndarray()[: picture.height].mean() for picture in decode(units))
    assert means == pytest.approx(lumas, abs=2)


@pytest.mark.parametrize("is_idr", [(True, False, True, False, False, True), (True,) * 6], ids=str)
def test_held_streams_have_their_idrs_where_asked_and_one_reference(
    opened: OpenEncoder, stream, frame_of, is_idr
) -> None:
    held = HeldCoding(is_idr, (0.0,) * len(is_idr), () if all(is_idr) else (2,) * len(is_idr))
    units = encode(
        opened, replace(stream, held=held, preset="medium"), [frame_of(40 + 9 * index) for index in range(6)]
    )
    if opened is not NullEncoder:
        assert tuple(unit.is_idr for unit in units) == is_idr
    sets = ParameterSets()
    for nal in [nal for unit in units for nal in split_nals(unit.data)]:
        if (sps := sets.take(nal)) is not None:
            assert not sps.is_intra_only
        if nal_type(nal) in (NalType.SLICE, NalType.IDR_SLICE):
            # The SPS may allow more, as long as no picture refers to others than the one before.
            assert sets.slice_header(unescape(nal)).num_ref_idx_active[0] <= 1


def test_no_frame_may_follow_flush(encoder: Encoder, frame_of) -> None:
    encoder.encode(frame_of(50))
    list(encoder.flush())
    with pytest.raises(EncodeFailed, match="flush"):
        encoder.encode(frame_of(50))


def test_no_frame_may_follow_close(encoder: Encoder, frame_of) -> None:
    encoder.close()
    with pytest.raises(EncodeFailed, match="close"):
        encoder.encode(frame_of(50))


def test_flush_without_a_frame_returns_nothing(opened: OpenEncoder, stream) -> None:
    with opened(stream, EncodeSettings()) as encoder:
        assert list(encoder.flush()) == []


def test_a_second_flush_returns_nothing(encoder: Encoder, frame_of) -> None:
    encoder.encode(frame_of(50))
    list(encoder.flush())
    assert list(encoder.flush()) == []


def test_close_may_be_repeated(encoder: Encoder, frame_of) -> None:
    encoder.encode(frame_of(50))
    encoder.close()
    encoder.close()


def test_close_after_a_refused_frame_is_harmless(encoder: Encoder) -> None:
    with pytest.raises(EncodeFailed):
        encoder.encode(np.zeros((1, 1), np.uint8))
    encoder.close()
    encoder.close()


def test_leaving_the_with_block_by_an_exception_closes(opened: OpenEncoder, stream, frame_of) -> None:
    encoder = opened(stream, EncodeSettings())

    def fail_inside() -> None:
        with encoder:
            encoder.encode(frame_of(50))
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    with pytest.raises(EncodeFailed):
        encoder.encode(frame_of(50))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(np.zeros((64, 160), np.uint8), id="no chroma"),
        pytest.param(np.zeros((240, 64), np.uint8), id="sides exchanged"),
        pytest.param(np.zeros((96, 160, 1), np.uint8), id="a third axis"),
        pytest.param(np.zeros((96, 160), np.int8), id="signed"),
        pytest.param(np.zeros((96, 160), np.uint16), id="16 bits"),
        pytest.param(np.zeros((96, 320), np.uint8)[:, ::2], id="strided"),
        pytest.param(np.zeros((96, 176), np.uint8)[:, :160], id="padded rows"),
        pytest.param(np.zeros((160, 96), np.uint8).T, id="column by column"),
        pytest.param(np.zeros((96, 160), np.uint8)[::-1], id="upside down"),
    ],
)
def test_another_shape_dtype_or_layout_is_refused(encoder: Encoder, frame: Frame) -> None:
    with pytest.raises(EncodeFailed, match=r"expected a C-contiguous uint8 frame of shape \(96, 160\), found"):
        encoder.encode(frame)
