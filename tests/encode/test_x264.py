"""The ffmpeg child: its argument list, how its stream is cut, and children that misbehave in every way."""

import os
import re
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.drawn import drawing, slide
from benchmarks.photographs import photograph
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import AccessUnitSplitter, arguments, find_ffmpeg
from renderer.encode.h264.bits import NalType, join_nals, nal_type, split_nals
from renderer.encode.stream import AccessUnit, HeldCoding, StreamSettings
from renderer.encode.x264 import X264Encoder, is_montage, open_x264
from renderer.errors import EncodeFailed
from renderer.geometry import Canvas

Frame = npt.NDArray[np.uint8]
StartChild = Callable[..., X264Encoder]

FRAME_BYTES = 64 * 72


def test_the_argument_list_says_everything_once() -> None:
    stream = StreamSettings(Canvas(1920, 1080), Fraction(30000, 1001), crf=18, preset="slow", keyframe_interval=300)
    assert arguments("/opt/ffmpeg", stream, threads=3) == [
        *("/opt/ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "warning"),
        *("-f", "rawvideo", "-pixel_format", "nv12", "-video_size", "1920x1080", "-framerate", "30000/1001"),
        *("-color_range", "tv", "-colorspace", "bt709", "-i", "pipe:0"),
        *("-fps_mode", "passthrough", "-c:v", "libx264", "-pix_fmt", "nv12", "-preset", "slow"),
        *("-crf", "18", "-g", "300", "-threads", "3"),
        "-x264-params",
        "aud=1:colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=off",
        *("-f", "h264", "pipe:1"),
    ]


def test_the_plan_of_a_held_stream_is_told_before_the_child_starts() -> None:
    coding = HeldCoding((True, False, True, False, False), (-6.0, -6.0, 0.0, -3.0, -3.0))
    stream = StreamSettings(Canvas(64, 48), Fraction(25), 20, "veryfast", 240, coding)
    command = arguments("ffmpeg", stream)
    forced, x264 = (command[command.index(name) + 1] for name in ("-force_key_frames", "-x264-params"))
    assert forced == "0,0.060000"  # half a frame early
    assert command[command.index("-forced-idr") + 1] == "1"
    assert x264.endswith(":bframes=0:ref=1:min-keyint=1:zones=0,1,b=2.0000/3,4,b=1.4142")


def test_a_stream_of_nothing_but_idrs_is_told_shortly() -> None:
    stream = StreamSettings(Canvas(64, 48), Fraction(25), 20, "veryfast", 1, HeldCoding((True,) * 9999, (0.0,) * 9999))
    command = arguments("ffmpeg", stream)
    assert command[command.index("-force_key_frames") + 1] == "expr:1"
    x264 = set(command[command.index("-x264-params") + 1].split(":"))
    assert x264 >= {"mbtree=0", "rc-lookahead=0", "sync-lookahead=0", "scenecut=0", "deblock=-3,-3"}
    # Both as macroblock tree would have it.
    assert x264 >= {"qcomp=1", "zones=0,9998,b=0.5359"}


def test_of_a_montage_pictures_may_yet_be_predicted() -> None:
    held = HeldCoding((True, False, False), (-4.0,) * 3, (2, 2, 2), is_montage=True)
    command = arguments("ffmpeg", StreamSettings(Canvas(64, 48), Fraction(25), 20, "veryfast", 240, held))
    x264 = command[command.index("-x264-params") + 1].split(":")
    assert {"mbtree=0", "deblock=-3,-3"} <= set(x264)
    assert "scenecut=0" not in x264
    assert command[command.index("-force_key_frames") + 1] == "0"


def test_ultrafast_stays_without_a_deblocking_filter() -> None:
    held = HeldCoding((True, True), (-4.0, -4.0))
    command = arguments("ffmpeg", StreamSettings(Canvas(64, 48), Fraction(25), 20, "ultrafast", 240, held))
    assert "deblock" not in command[command.index("-x264-params") + 1]


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([photograph(index, (320, 192)) for index in range(3)], True),
        ([drawing(index, (320, 192)) for index in range(3)], False),
        ([slide(index, (320, 192)) for index in (0, 4, 8)], False),  # one paper: x264 predicts it
        ([photograph(0, (320, 192)), drawing(0, (320, 192)), drawing(1, (320, 192))], False),
        ([photograph(0, (320, 192))], False),
    ],
)
def test_stills_that_do_not_resemble_one_another_are_a_montage(looks: list[Frame], expected: bool) -> None:
    assert is_montage([cv2.cvtColor(look, cv2.COLOR_BGR2YUV_I420) for look in looks]) is expected


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_still_that_was_looked_at_first_is_coded_once(count: int) -> None:
    canvas = Canvas(16, 16)
    held = HeldCoding((True, *[False] * (count - 1)), (0.0,) * count, (2,) * count)
    with open_x264(StreamSettings(canvas, Fraction(24), 30, "ultrafast", 240, held), EncodeSettings()) as encoder:
        units = [
            unit for shade in range(count) for unit in encoder.encode(np.full(canvas.nv12_shape, 40 + shade, np.uint8))
        ]
        units += encoder.flush()
    assert len(units) == count


def test_a_child_that_is_not_needed_is_not_started(tmp_path: Path) -> None:
    stream = StreamSettings(
        Canvas(16, 16), Fraction(24), 30, "ultrafast", 240, HeldCoding((True, False), (0.0, 0.0), (2, 2))
    )
    with open_x264(stream, EncodeSettings(ffmpeg=str(tmp_path / "none"))) as encoder:
        assert list(encoder.flush()) == []


@pytest.mark.parametrize(("count", "fps"), [(10_000, Fraction(1)), (10_000, Fraction(120)), (40_000, Fraction(24))])
def test_thousands_of_forced_idrs_fit_an_argument(count: int, fps: Fraction) -> None:
    held = HeldCoding((True, *(True, True, False) * (count // 3)), (-3.0, *(-3.0, -6.0, -6.0) * (count // 3)))
    command = arguments("ffmpeg", StreamSettings(Canvas(64, 48), fps, 20, "veryfast", 240, held))
    assert max(map(len, command)) < 128 * 1024
    times = command[command.index("-force_key_frames") + 1]
    if count > 10_000:
        assert times == "expr:1"
        assert "mbtree=0" in command[command.index("-x264-params") + 1]  # as for any stream of nothing but IDRs
    else:
        assert times.count(",") == sum(held.is_idr) - 1


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30_000, 1001), Fraction(120_000, 1001)])
def test_thousands_of_forced_idrs_come_where_they_were_asked_for(fps: Fraction, frame_of) -> None:
    canvas = Canvas(16, 16)
    is_idr = tuple(number % 3 != 2 for number in range(4500))
    stream = StreamSettings(canvas, fps, 30, "ultrafast", 240, HeldCoding(is_idr, (0.0,) * len(is_idr)))
    frame = np.full(canvas.nv12_shape, 90, np.uint8)
    with X264Encoder(stream, EncodeSettings()) as encoder:
        units = [unit for _ in is_idr for unit in encoder.encode(frame)]
        units += encoder.flush()
    assert tuple(unit.is_idr for unit in units) == is_idr


def test_more_forced_idrs_than_an_argument_lists_still_become_a_stream() -> None:
    canvas = Canvas(16, 16)
    is_idr = tuple(number % 8 != 7 for number in range(17_000))
    stream = StreamSettings(canvas, Fraction(24), 40, "ultrafast", 240, HeldCoding(is_idr, (0.0,) * len(is_idr)))
    frame = np.full(canvas.nv12_shape, 90, np.uint8)
    with X264Encoder(stream, EncodeSettings()) as encoder:
        units = [unit for _ in is_idr for unit in encoder.encode(frame)]
        units += encoder.flush()
    assert all(unit.is_idr for unit in units)
    assert len(units) == len(is_idr)


def test_zones_too_long_for_an_argument_become_one() -> None:
    offsets = (-2.0, -4.0, -4.0) * 5000
    stream = StreamSettings(
        Canvas(64, 48), Fraction(25), 20, "veryfast", 240, HeldCoding((True,) * len(offsets), offsets)
    )
    command = arguments("ffmpeg", stream)
    assert command[command.index("-x264-params") + 1].split(":")[8] == "zones=0,14999,b=0.8507"


def test_ffmpeg_is_the_configured_one_else_the_one_that_was_installed() -> None:
    assert find_ffmpeg(EncodeSettings(ffmpeg="/opt/ffmpeg")) == "/opt/ffmpeg"
    assert os.access(find_ffmpeg(EncodeSettings()), os.X_OK)


# The splitter.


@pytest.fixture(scope="module")
def delimited() -> bytes:
    """A stream as the child writes it: noise, so that there are long slices, with access unit delimiters."""
    seen: list[bytes] = []

    class Listening(X264Encoder):
        def _take(self, pipe) -> bytes:
            data = super()._take(pipe)
            if pipe is self._pipes[1]:
                seen.append(data)
            return data

    stream = StreamSettings(Canvas(32, 32), Fraction(24), crf=10, preset="ultrafast", keyframe_interval=3)
    noise = np.random.default_rng(7)
    with Listening(stream, EncodeSettings()) as encoder:
        for _ in range(8):
            encoder.encode(noise.integers(0, 256, stream.canvas.nv12_shape, np.uint8))
        list(encoder.flush())
    return b"".join(seen)


def cut(stream: bytes, ends: list[int]) -> list[AccessUnit]:
    splitter = AccessUnitSplitter()
    bounds = [0, *sorted(ends), len(stream)]
    units = [unit for start, end in pairwise(bounds) for unit in splitter.feed(stream[start:end])]
    return units + splitter.finish()


def test_the_stream_is_cut_at_its_delimiters(delimited: bytes) -> None:
    units = cut(delimited, [])
    nals = split_nals(delimited)
    assert len(units) == 8
    assert [unit.is_idr for unit in units] == [True, False, False, True, False, False, True, False]
    kept = [nal for nal in nals if nal_type(nal) != NalType.DELIMITER]
    assert [nal for unit in units for nal in split_nals(unit.data)] == kept


@given(st.data())
def test_access_units_do_not_depend_on_how_the_bytes_arrive(delimited: bytes, data: st.DataObject) -> None:
    ends = data.draw(st.lists(st.integers(0, len(delimited)), max_size=12))
    assert cut(delimited, ends) == cut(delimited, [])


def test_access_units_are_the_same_byte_by_byte(delimited: bytes) -> None:
    assert cut(delimited, list(range(len(delimited)))) == cut(delimited, [])


def test_an_access_unit_leaves_as_soon_as_the_next_begins(delimited: bytes) -> None:
    second = delimited.index(b"\0\0\0\1\x09", 1)
    splitter = AccessUnitSplitter()
    assert splitter.feed(delimited[: second + 4]) == []
    assert len(splitter.feed(delimited[second + 4 : second + 5])) == 1


# Children that misbehave. Each is a real process, written by the test.


def unit_of(nal: bytes) -> bytes:
    return join_nals([b"\x09\xf0", nal])


@pytest.fixture
def start_child(tmp_path: Path, stream: StreamSettings) -> StartChild:
    """Return a factory: a child that runs these lines of Python, in place of ffmpeg."""

    def start(lines: str, *, stall_timeout_s: float = 10) -> X264Encoder:
        program = tmp_path / "ffmpeg"
        head = f"#!{sys.executable} -IS\nimport os, signal, sys, time\nsize = {FRAME_BYTES}\n"
        program.write_text(head + "def read(count):\n    return sys.stdin.buffer.read(count)\n" + lines)
        program.chmod(0o755)
        return X264Encoder(stream, EncodeSettings(ffmpeg=str(program), stall_timeout_s=stall_timeout_s))

    return start


def failure(encoder: X264Encoder, frame: Frame, frames: int = 50) -> str:
    """Encode until it fails, close, and return the message."""

    def work() -> None:
        for _ in range(frames):
            encoder.encode(frame)
        list(encoder.flush())

    with encoder, pytest.raises(EncodeFailed) as raised:
        work()
    return str(raised.value)


def wait_until_gone(pid: int) -> None:
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # an orphan, which is init's to reap
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still alive")


def pid_in(file: Path) -> int:
    ends = time.monotonic() + 5
    while not (file.exists() and file.read_text()) and time.monotonic() < ends:
        time.sleep(0.01)
    return int(file.read_text())


GRANDCHILD = """
if os.fork() == 0:
    with open({file!r}, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
"""

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_a_child_that_fills_its_stderr_while_it_reads_slowly_is_no_deadlock(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    encoder = start_child(f"""
for _ in range(8):
    os.write(2, b"x" * 32768)
    read(size)
    time.sleep(0.01)
    os.write(1, {unit!r})
""")
    with encoder:
        units = [unit for _ in range(8) for unit in encoder.encode(frame_of(1))]
        units += encoder.flush()
    assert len(units) == 8


def test_a_child_that_writes_more_than_a_pipe_holds_is_no_deadlock(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88" + b"\x55" * 300_000)
    encoder = start_child(f"""
for _ in range(8):
    read(size)
    sys.stdout.buffer.write({unit[:8]!r} + b"\\x55" * 300000)
sys.stdout.flush()
""")
    with encoder:
        units = [unit for _ in range(8) for unit in encoder.encode(frame_of(1))]
        units += encoder.flush()
    assert [len(unit.data) > 300_000 for unit in units] == [True] * 8


@pytest.mark.logs_errors
def test_a_child_that_dies_at_once_is_told_with_its_exit_code(start_child, frame_of) -> None:
    assert re.search(r"ffmpeg .* \(exit code 7\)", failure(start_child("sys.exit(7)"), frame_of(1)))


@pytest.mark.logs_errors
def test_a_child_that_dies_in_the_middle_has_its_last_words_in_the_error(start_child, frame_of) -> None:
    child = start_child("read(3 * size)\nos.write(2, b'no more bits')\nsys.exit(3)")
    message = failure(child, frame_of(1), frames=2000)
    assert re.search(r"ffmpeg stopped reading \(exit code 3\); its last words: no more bits", message)


@pytest.mark.logs_errors
def test_the_last_words_show_no_path_of_the_machine(start_child, frame_of) -> None:
    child = start_child("os.write(2, b'/opt/private/ffmpeg: /srv/private/b.so: not found')\nsys.exit(3)")
    assert failure(child, frame_of(1), frames=2000).endswith("its last words: …/ffmpeg: …/b.so: not found")


@pytest.mark.logs_errors
def test_only_the_end_of_a_long_complaint_is_kept(start_child, frame_of) -> None:
    child = start_child("read(size)\nos.write(2, b'x' * 262144)\nos.write(2, b'the reason')\nsys.exit(3)")
    message = failure(child, frame_of(1), frames=2000)
    assert message.endswith("the reason")
    assert len(message) < 9000


@pytest.mark.logs_errors
def test_a_crash_is_told_by_its_signal(start_child, frame_of) -> None:
    assert "exit code -11" in failure(start_child("read(size)\nos.kill(os.getpid(), signal.SIGSEGV)"), frame_of(1))


@pytest.mark.logs_errors
def test_a_child_that_stalls_is_killed_with_its_own_children(start_child, frame_of, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = start_child(GRANDCHILD.format(file=str(note)) + "time.sleep(600)", stall_timeout_s=0.5)
    grandchild = pid_in(note)
    began = time.monotonic()
    assert "moved no byte for 0.5 s" in failure(child, frame_of(1), frames=2000)
    assert time.monotonic() - began < 30
    wait_until_gone(grandchild)


def test_a_child_that_works_is_waited_for_though_no_byte_moves(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    work = "read(size)\nwhile time.process_time() < 1:\n    pass\n"
    with start_child(work + f"os.write(1, {unit!r})\nos._exit(0)", stall_timeout_s=0.4) as encoder:
        encoder.encode(frame_of(1))
        assert len(list(encoder.flush())) == 1


@pytest.mark.logs_errors
def test_a_child_that_was_stopped_is_stalled_though_it_has_worked(start_child, frame_of) -> None:
    work = "while time.process_time() < 0.3:\n    pass\n"
    child = start_child(work + "os.kill(os.getpid(), signal.SIGSTOP)", stall_timeout_s=0.5)
    assert "moved no byte for 0.5 s" in failure(child, frame_of(1), frames=2000)


@pytest.mark.logs_errors
def test_a_child_that_dies_takes_its_own_children_along(start_child, frame_of, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = start_child(GRANDCHILD.format(file=str(note)) + "os._exit(4)", stall_timeout_s=0.5)
    grandchild = pid_in(note)
    failure(child, frame_of(1), frames=2000)
    wait_until_gone(grandchild)


def test_closing_kills_the_child_and_its_own_children(start_child, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = start_child(GRANDCHILD.format(file=str(note)) + "time.sleep(600)")
    grandchild = pid_in(note)
    child.close()
    wait_until_gone(grandchild)


def test_a_child_that_ends_well_leaves_no_children_of_its_own(start_child, frame_of, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    detached = GRANDCHILD.replace("    time.sleep", "    os.closerange(0, 3)\n    time.sleep")
    unit = unit_of(b"\x65\x88")
    with start_child(detached.format(file=str(note)) + f"read(size)\nos.write(1, {unit!r})\nos._exit(0)") as child:
        grandchild = pid_in(note)
        child.encode(frame_of(1))
        assert len(list(child.flush())) == 1
    wait_until_gone(grandchild)


@pytest.mark.logs_errors
def test_a_bad_exit_code_at_the_end_is_an_error(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    child = start_child(f"read(size)\nos.write(1, {unit!r})\nread(1)\nos.write(2, b'disk full')\nsys.exit(5)")
    message = failure(child, frame_of(1), frames=1)
    assert message == "ffmpeg did not end well (exit code 5); its last words: disk full"


def test_a_child_that_works_on_after_its_last_byte_is_waited_for(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    ends = "os.close(1)\nos.close(2)\nwhile time.process_time() < 1:\n    pass\nos._exit(0)"
    with start_child(f"read(size)\nos.write(1, {unit!r})\nread(1)\n{ends}", stall_timeout_s=0.4) as encoder:
        encoder.encode(frame_of(1))
        assert len(list(encoder.flush())) == 1


@pytest.mark.logs_errors
def test_a_child_that_never_exits_after_its_last_byte_is_an_error(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    child = start_child(
        f"read(size)\nos.write(1, {unit!r})\nread(1)\nos.close(1)\nos.close(2)\ntime.sleep(600)", stall_timeout_s=0.5
    )
    assert "did not exit after its last byte" in failure(child, frame_of(1), frames=1)


@pytest.mark.logs_errors
def test_a_child_that_closes_its_stdout_early_is_an_error(start_child, frame_of) -> None:
    """It reads all frames and ends well, but has coded only one."""
    unit = unit_of(b"\x65\x88")
    child = start_child(f"read(size)\nos.write(1, {unit!r})\nos.close(1)\nwhile read(size):\n    pass")
    assert "1 access units for 5 frames" in failure(child, frame_of(1), frames=5)


@pytest.mark.logs_errors
def test_a_child_that_drops_a_frame_is_an_error(start_child, frame_of) -> None:
    unit = unit_of(b"\x65\x88")
    child = start_child(f"for _ in range(4):\n    read(size)\n    os.write(1, {unit!r})\nread(size)")
    assert "4 access units for 5 frames" in failure(child, frame_of(1), frames=5)


@pytest.mark.logs_errors
def test_a_child_that_writes_no_stream_is_an_error(start_child, frame_of) -> None:
    child = start_child("while read(size):\n    os.write(1, b'hello')")
    assert "access units" in failure(child, frame_of(1), frames=3)


def test_a_program_that_is_not_there_is_an_error_without_its_path(stream, tmp_path: Path) -> None:
    with pytest.raises(EncodeFailed, match="could not be started: No such file") as raised:
        X264Encoder(stream, EncodeSettings(ffmpeg=str(tmp_path / "none")))
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.logs_errors
def test_what_ffmpeg_itself_refuses_has_its_words_in_the_error(stream, frame_of, tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec {find_ffmpeg(EncodeSettings())} -unknown_option "$@"\n')
    program.chmod(0o755)
    message = failure(X264Encoder(stream, EncodeSettings(ffmpeg=str(program))), frame_of(1), frames=2000)
    assert "unknown_option" in message
