import io
from fractions import Fraction

import av
import pytest

from renderer.encode.h264.bits import UnsupportedStream, split_nals
from renderer.encode.h264.order import PresentationOrder, num_reorder_frames
from renderer.encode.h264.parameter_sets import parse_sps

STREAMS = {
    "b-pyramid": "bframes=3:b-adapt=0:b-pyramid=normal:keyint=9:min-keyint=9:scenecut=0",
    "one-period": "bframes=2:b-adapt=0:keyint=infinite",
    "open-gop": "bframes=3:b-adapt=0:open-gop=1:keyint=6:min-keyint=3",
    "adaptive": "bframes=5:b-adapt=2:keyint=12:ref=4:weightp=2",
    "cavlc-slices": "bframes=2:cabac=0:slices=3:keyint=7",
    "no-b": "bframes=0:keyint=7",
    "intra": "keyint=1",
}


@pytest.fixture(params=STREAMS.values(), ids=STREAMS.keys())
def units(request, encode):
    return encode(request.param, (64, 48), 40)


def ordered(units):
    order = PresentationOrder()
    placed = [entry for unit in units for entry in order.push(unit)] + order.flush()
    return placed, order.num_reorder_frames


def test_access_units_leave_as_they_entered(units):
    assert [unit for _, unit in ordered(units)[0]] == units


def test_ffmpeg_presents_them_by_these_numbers(units):
    """The decoder puts pictures in order by itself, and hands on the number that each packet came with."""
    placed, depth = ordered(units)
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    frames = []
    for number, (index, unit) in enumerate(placed):
        packet = av.Packet(unit)
        packet.pts, packet.dts, packet.time_base = index, number - depth, Fraction(1, 25)
        assert packet.dts <= packet.pts
        frames += decoder.decode(packet)
    frames += decoder.decode(None)
    assert [frame.pts for frame in frames] == list(range(len(units)))


def test_ffmpeg_muxes_them_by_these_numbers(units):
    placed, depth = ordered(units)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as muxer:
        stream = muxer.add_mux_stream("h264", rate=25, width=64, height=48)
        stream.time_base = Fraction(1, 25)
        for number, (index, unit) in enumerate(placed):
            packet = av.Packet(unit)
            packet.pts, packet.dts, packet.duration = index, number - depth, 1
            packet.time_base, packet.stream = Fraction(1, 25), stream
            muxer.mux(packet)
    file.seek(0)
    with av.open(file) as demuxer:
        times = [frame.time for frame in demuxer.decode(video=0)]
    assert times == pytest.approx([number / 25 for number in range(len(units))])


def test_the_stream_tells_its_reorder_depth(encode):
    assert ordered(encode(STREAMS["b-pyramid"], (64, 48), 40))[1] == 2
    assert ordered(encode(STREAMS["one-period"], (64, 48), 40))[1] in (1, 2)
    assert ordered(encode(STREAMS["no-b"], (64, 48), 40))[1] == 0


def test_without_vui_the_level_bounds_the_reorder_depth(encode):
    sps = parse_sps(split_nals(encode(STREAMS["b-pyramid"], (64, 48), 40)[0])[0])
    silent = type(sps)(**{name: getattr(sps, name) for name in sps.__slots__} | {"vui": None})
    assert num_reorder_frames(sps) == 2
    assert num_reorder_frames(silent) == 16


def test_an_access_unit_without_slices_is_refused():
    with pytest.raises(UnsupportedStream, match="no coded slice"):
        PresentationOrder().push(b"\0\0\1\x09\xf0")
