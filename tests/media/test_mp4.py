"""The file, box by box (ISO/IEC 14496-12 and -15), and what is there when writing it goes wrong."""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from renderer.config import EncodeSettings
from renderer.encode.h264.bits import split_nals
from renderer.encode.h264.description import described
from renderer.encode.h264.parameter_sets import parse_sps
from renderer.encode.null import NullEncoder
from renderer.encode.sequence import Sample
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import X264Encoder
from renderer.errors import OutputFailed, StorageFull
from renderer.geometry import Canvas
from renderer.media.mp4 import Mp4Writer, finish, timescale
from renderer.version import VERSION
from renderer.work import VideoFacts

RATES = [Fraction(1), Fraction(25, 2), Fraction(24), Fraction(30000, 1001), Fraction(120), Fraction(120000, 1001)]
CANVAS = Canvas(64, 48)
CONTAINERS = {"moov", "trak", "mdia", "minf", "stbl", "edts"}


def coded(count: int, fps: Fraction = Fraction(24), encoder: type = NullEncoder, interval: int = 10) -> list[Sample]:
    stream = StreamSettings(CANVAS, fps, 20, "ultrafast", interval)
    with encoder(stream, EncodeSettings()) as opened:
        frame = np.full(CANVAS.nv12_shape, 90, np.uint8)
        units = [unit for _ in range(count) for unit in opened.encode(frame)]
        units += opened.flush()
    return [Sample(unit.data, index, unit.is_idr) for index, unit in enumerate(units)]


def write(path: Path, units: list[Sample], fps: Fraction = Fraction(24)) -> VideoFacts:
    with Mp4Writer(path, fps) as video:
        video.extend(units)
        return video.commit()


def boxes(data: bytes, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the path and the payload of every box."""
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        name, payload = prefix + kind.decode(), data[at + head : at + size]
        yield name, payload
        if kind.decode() in CONTAINERS:
            yield from boxes(payload, name + "/")
        if kind == b"stsd":  # version, flags, entry_count
            yield from boxes(payload[8:], name + "/")
        if kind == b"avc1":  # SampleEntry and VisualSampleEntry (12.1.3) have 78 bytes before their boxes
            yield from boxes(payload[78:], name + "/")
        at += size


def box(path: Path, name: str) -> bytes:
    (found,) = [payload for box_name, payload in boxes(path.read_bytes()) if box_name.endswith(name)]
    return found


def timescale_and_duration(payload: bytes) -> tuple[int, int]:
    """Of mvhd and mdhd, which begin alike: version 0 has 32-bit times, version 1 has 64-bit ones."""
    if payload[0] == 0:
        return struct.unpack_from(">II", payload, 12)
    return struct.unpack_from(">IQ", payload, 20)


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("count", [1, 2, 250])
def test_time_is_exact_in_every_box(tmp_path: Path, fps: Fraction, count: int) -> None:
    path = tmp_path / "a.mp4"
    facts = write(path, coded(count, fps), fps)
    scale, delta = timescale(fps), timescale(fps) / fps
    ticks = count * delta
    assert scale >= 10_000
    assert struct.unpack(">IIII", box(path, "stts")) == (0, 1, count, delta)
    assert timescale_and_duration(box(path, "mdhd")) == (scale, ticks)
    assert timescale_and_duration(box(path, "mvhd")) == (scale, ticks)
    tkhd = box(path, "tkhd")
    assert struct.unpack_from(">I" if tkhd[0] == 0 else ">Q", tkhd, 20 if tkhd[0] == 0 else 28) == (ticks,)
    assert facts == VideoFacts(64, 48, count, fps, count / fps, path.stat().st_size)


def test_a_long_video_is_exact_too(tmp_path: Path) -> None:
    fps, count = Fraction(120000, 1001), 20_000
    path = tmp_path / "a.mp4"
    (unit,) = coded(1, fps)
    facts = write(path, [replace(unit, frame=frame) for frame in range(count)], fps)
    assert facts.frames == count
    assert timescale_and_duration(box(path, "mdhd")) == (120000, count * 1001)


def test_no_edit_list_and_no_composition_offsets(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(30, encoder=X264Encoder))
    names = [name for name, _ in boxes(path.read_bytes())]
    assert not any(name.endswith("ctts") for name in names)
    for name, payload in boxes(path.read_bytes()):
        if name.endswith("elst"):  # if there is one it says: all of it, from the start, at normal speed
            assert struct.unpack(">IIIiHH", payload[:20]) == (0, 1, 30 * 512, 0, 1, 0)


def test_avcc_holds_the_streams_parameter_sets(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    units = coded(3, encoder=X264Encoder)
    write(path, units)
    sps, pps = [nal for nal in split_nals(units[0].data) if nal[0] & 31 in (7, 8)]
    sps = described(sps, is_reordered=True)
    avcc = box(path, "avcC")
    assert avcc[:6] == bytes((1, sps[1], sps[2], sps[3], 0xFF, 0xE1))  # lengths of four bytes, one SPS
    assert avcc[6:].startswith(struct.pack(">H", len(sps)) + sps + b"\x01" + struct.pack(">H", len(pps)) + pps)


def test_samples_are_the_streams_nal_units_with_lengths_but_its_parameter_sets(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    units = coded(12, encoder=X264Encoder, interval=5)
    write(path, units)
    data = path.read_bytes()
    sizes = struct.unpack_from(">III", box(path, "stsz"))
    listed = struct.unpack_from(f">{sizes[2]}I", box(path, "stsz"), 12)
    at = data.index(b"mdat") + 4
    for unit, size in zip(units, listed, strict=True):
        sample, nals = data[at : at + size], []
        while sample:
            (length,) = struct.unpack_from(">I", sample)
            nals.append(sample[4 : 4 + length])
            sample = sample[4 + length :]
        assert nals == [nal for nal in split_nals(unit.data) if nal[0] & 31 not in (7, 8)]
        at += size


def test_colr_says_bt709_limited(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(2))
    assert box(path, "colr") == b"nclx" + struct.pack(">HHHB", 1, 1, 1, 0)


def test_samples_are_square_and_chroma_stands_left(tmp_path: Path) -> None:
    for encoder in (NullEncoder, X264Encoder):
        path = tmp_path / "a.mp4"
        write(path, coded(2, encoder=encoder))
        assert box(path, "pasp") == struct.pack(">II", 1, 1)
        avcc = box(path, "avcC")
        vui = parse_sps(avcc[8 : 8 + int.from_bytes(avcc[6:8], "big")]).vui
        assert (vui.aspect_ratio_idc, vui.chroma_location) == (1, (0, 0))


def test_btrt_tells_the_busiest_second_and_the_average(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    units = coded(96, encoder=NullEncoder)
    heavy = [replace(unit, data=unit.data + b"\x55" * 1000 * (30 <= index < 54)) for index, unit in enumerate(units)]
    write(path, heavy)
    stsz = box(path, "stsz")
    sizes = struct.unpack_from(f">{struct.unpack_from('>I', stsz, 8)[0]}I", stsz, 12)
    _, peak, average = struct.unpack(">III", box(path, "btrt"))
    assert peak == 8 * sum(sizes[30:54])
    assert average == pytest.approx(8 * sum(sizes) / 4, rel=0.01)


def test_the_file_names_its_maker_and_no_other(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.m4v", "a.mov"):
        write(tmp_path / name, coded(2))
        with av.open(str(tmp_path / name)) as container:
            assert container.metadata["encoder"] == f"stillreel {VERSION}"
            assert "comment" not in container.metadata
        assert b"Lavf" not in (tmp_path / name).read_bytes()


def test_the_time_of_creation_is_now_or_what_the_environment_says(tmp_path: Path, monkeypatch) -> None:
    def created() -> list[datetime]:
        write(tmp_path / "a.mp4", coded(2))
        names = [box(tmp_path / "a.mp4", name) for name in ("mvhd", "tkhd", "mdhd")]
        since_1904 = [struct.unpack_from(">I", payload, 4)[0] for payload in names]
        return [datetime(1904, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds) for seconds in since_1904]

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert all(abs(datetime.now(UTC) - moment) < timedelta(minutes=1) for moment in created())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert set(created()) == {datetime(2009, 2, 13, 23, 31, 30, tzinfo=UTC)}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(OutputFailed, match="SOURCE_DATE_EPOCH: expected seconds since 1970, found 'yesterday'"):
        created()


@pytest.mark.parametrize(
    ("fps", "timecode"),
    [(Fraction(24), "01:00:00:00"), (Fraction(30000, 1001), "00:59:59;29"), (Fraction(60000, 1001), "10:00:00:59")],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m4v", "a.mov"])
def test_a_timecode_begins_at_the_first_frame(tmp_path: Path, name: str, fps: Fraction, timecode: str) -> None:
    path = tmp_path / name
    with Mp4Writer(path, fps, timecode) as video:
        video.extend(coded(30, fps))
        assert video.commit().frames == 30
    with av.open(str(path)) as container:
        assert container.streams.video[0].metadata["timecode"] == timecode
        assert len(list(container.decode(video=0))) == 30


def test_a_stream_that_changes_its_parameter_sets_is_an_error(tmp_path: Path) -> None:
    units = coded(3)
    other = NullEncoder(StreamSettings(Canvas(80, 48), Fraction(24), 20, "ultrafast", 10), EncodeSettings())
    (strange,) = other.encode(np.zeros(other._stream.canvas.nv12_shape, np.uint8))
    with Mp4Writer(tmp_path / "a.mp4", Fraction(24)) as video:
        video.extend(units)
        with pytest.raises(OutputFailed, match="changed its parameter sets"):
            video.extend([Sample(strange.data, 3, is_sync=True)])


def test_moov_stands_before_mdat(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(2))
    top = [name for name, _ in boxes(path.read_bytes()) if "/" not in name]
    assert top.index("moov") < top.index("mdat")
    assert top[0] == "ftyp"


def test_sync_samples_are_the_idrs_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    units = coded(23, encoder=X264Encoder, interval=5)
    write(path, units)
    stss = box(path, "stss")
    (count,) = struct.unpack_from(">I", stss, 4)
    numbers = [index for index, unit in enumerate(units, 1) if unit.is_sync]
    assert numbers == [1, 6, 11, 16, 21]
    assert list(struct.unpack_from(f">{count}I", stss, 8)) == numbers


def test_the_sample_entry_has_the_shown_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(1))
    assert struct.unpack_from(">HH", box(path, "avc1"), 24) == (64, 48)


# What is there, and when.


def test_the_name_is_not_there_before_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, Fraction(24)) as video:
        for unit in coded(50):
            video.extend([unit])
            assert os.listdir(tmp_path) == ["a.mp4.part"]  # noqa: PTH208
        video.commit()
        assert os.listdir(tmp_path) == ["a.mp4"]  # noqa: PTH208
    assert os.listdir(tmp_path) == ["a.mp4"]  # noqa: PTH208


def test_a_file_that_was_there_stays_whole_until_the_new_one_is(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(3))
    before = path.read_bytes()
    with Mp4Writer(path, Fraction(24)) as video:
        for unit in coded(50):
            video.extend([unit])
            assert path.read_bytes() == before
        video.commit()
    assert path.read_bytes() != before


def fail_after(path: Path, frames: int) -> None:
    with Mp4Writer(path, Fraction(24)) as video:
        video.extend(coded(frames))
        raise KeyError


@pytest.mark.parametrize("written", [0, 1, 50])
def test_an_exception_leaves_nothing(tmp_path: Path, written: int) -> None:
    with pytest.raises(KeyError):
        fail_after(tmp_path / "a.mp4", written)
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_commit_leaves_nothing(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", Fraction(24)) as video:
        video.extend(coded(3))
    assert list(tmp_path.iterdir()) == []


def test_an_exception_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, coded(3))
    before = path.read_bytes()
    with pytest.raises(KeyError):
        fail_after(path, 5)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_without_frames_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", Fraction(24)) as video, pytest.raises(OutputFailed):
        video.commit()
    assert list(tmp_path.iterdir()) == []


def test_a_number_of_frames_that_is_not_the_promised_one_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", Fraction(24)) as video:
        video.extend(coded(3))
        with pytest.raises(OutputFailed, match="the file holds 3 frames at 24, expected 4 at 24"):
            video.commit(4)
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_stream_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "a.mp4", Fraction(24)) as video, pytest.raises(OutputFailed):
        video.extend([Sample(b"hello", 0, is_sync=True)])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error_without_its_path(tmp_path: Path) -> None:
    with Mp4Writer(tmp_path / "none" / "a.mp4", Fraction(24)) as video, pytest.raises(OutputFailed) as raised:
        video.extend(coded(1))
    assert str(raised.value) == "the video could not be written: No such file or directory"


def test_a_directory_in_the_files_place_is_an_error_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.mkdir()
    with pytest.raises(OutputFailed) as raised:
        write(path, coded(1))
    assert str(tmp_path) not in str(raised.value)
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_and_leaves_nothing(small_disk: Path) -> None:
    units = [replace(unit, data=unit.data + b"\x55" * 20_000) for unit in coded(100)]
    with pytest.raises(StorageFull, match="the video could not be written: No space left on device"):
        write(small_disk / "a.mp4", units)
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_keeps_the_file_that_was_there(small_disk: Path) -> None:
    path = small_disk / "a.mp4"
    write(path, coded(3))
    before = path.read_bytes()
    units = [replace(unit, data=unit.data + b"\x55" * 20_000) for unit in coded(100)]
    with pytest.raises(StorageFull):
        write(path, units)
    assert path.read_bytes() == before
    assert list(small_disk.iterdir()) == [path]


@pytest.mark.parametrize("missing_pages", [1, 2, 3])
def test_a_disk_that_fills_up_while_the_file_is_finished_is_an_error(
    tmp_path: Path, small_disk: Path, missing_pages: int
) -> None:
    """What libavformat writes at its end only, `moov`, has no room: that error must not be lost."""
    units = [Sample(unit.data + b"\x55" * (index % 2), index, index % 2 == 0) for index, unit in enumerate(coded(2000))]
    whole = write(tmp_path / "whole.mp4", units).size_bytes
    (moov,) = [payload for name, payload in boxes((tmp_path / "whole.mp4").read_bytes()) if name == "moov"]
    assert len(moov) > 3 * 4096
    (small_disk / "ballast").write_bytes(bytes(1024 * 1024 - (-(-whole // 4096) - missing_pages) * 4096))
    with pytest.raises(StorageFull, match="the video could not be written: No space left on device"):
        write(small_disk / "a.mp4", units)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_file_size_limit_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """The same without root: the child may write no file above 64 KiB."""
    program = f"""
import resource, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from renderer.config import EncodeSettings
from renderer.encode.stream import StreamSettings
from renderer.encode.null import NullEncoder
from renderer.encode.sequence import Sample
from renderer.errors import OutputFailed, StorageFull
from renderer.geometry import Canvas
from renderer.media.mp4 import Mp4Writer

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
stream = StreamSettings(Canvas(64, 48), Fraction(24), 20, "ultrafast", 10)
unit = NullEncoder(stream, EncodeSettings()).encode(np.zeros(stream.canvas.nv12_shape, np.uint8))[0]
try:
    with Mp4Writer(Path({str(tmp_path)!r}) / "a.mp4", stream.fps) as video:
        video.extend([Sample(unit.data + b"U" * 20000, frame, True) for frame in range(20)])
        video.commit()
except OutputFailed as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "the video could not be written: File too large\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 7])
def test_a_box_without_an_end_of_its_own_is_the_last(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4s", size, b"mdat") + bytes(100))
    with pytest.raises(ValueError, match="there is no moov box"):
        finish(tmp_path / "a.mp4", Fraction(24))
