"""The file in the tools that it is opened with: GStreamer seeks in it, and ffmpeg joins it with clips of its own."""

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest
from PIL import Image

from renderer import render
from renderer.timeline import frame_rate

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SIZE = (64, 48)


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Six stills of their own grey, each held for a second."""
    return rendered(tmp_path, "held.mp4", [24] * 6)


@pytest.fixture
def unheld(tmp_path: Path) -> Path:
    """Forty-eight frames, each another still, with B pictures."""
    return rendered(tmp_path, "unheld.mp4", [1] * 48)


def rendered(directory: Path, name: str, holds: list[int], **fields: object) -> Path:
    images = []
    for number, hold in enumerate(holds):
        path = directory / f"{name}-{number}.png"
        Image.new("L", SIZE, grey(number)).save(path)
        images.append({"url": str(path), "frames": hold})
    result = render({"images": images, **fields}, directory / name)
    assert result.frames == sum(holds)
    return directory / name


def grey(number: int) -> int:
    return 20 + number * 37 % 200


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds that ffmpeg has made."""
    return own_clip(tmp_path / "clip.mp4", "-bf", "0")


def own_clip(path: Path, *options: str) -> Path:
    source = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=24:duration=2")
    run(*source, "-pix_fmt", "yuv420p", "-c:v", "libx264", *options, str(path))
    return path


def run(*arguments: str) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-y", *arguments], check=True, capture_output=True, timeout=60)


def joined(directory: Path, *parts: Path) -> Path:
    """Join by copy, as the concat demuxer's documentation says."""
    listing, path = directory / "list.txt", directory / "joined.mp4"
    listing.write_text("".join(f"file '{part}'\n" for part in parts))
    run("-f", "concat", "-safe", "0", "-i", str(listing), "-c", "copy", str(path))
    return path


def length(path: Path) -> tuple[int, Fraction]:
    """Return how many frames are shown, and the seconds that the track lasts."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        seconds = stream.duration * stream.time_base
        return sum(1 for _ in container.decode(video=0)), seconds


def test_a_clip_of_ffmpegs_own_joins_by_copy_both_ways(tmp_path: Path, held: Path, clip: Path) -> None:
    assert length(joined(tmp_path, held, clip)) == (192, 8)
    assert length(joined(tmp_path, clip, held)) == (192, 8)


def test_held_and_unheld_files_join_by_copy_as_a_pair_of_ffmpegs_own_does(
    tmp_path: Path, held: Path, unheld: Path, clip: Path
) -> None:
    """Every frame is shown at its time. Where B pictures follow none, ffmpeg says two frames less of the length: dts
    runs ahead by so many, and the seconds are the sum of its steps."""
    with_b_pictures = own_clip(tmp_path / "b.mp4", "-bf", "2")
    for first, second in ((held, unheld), (unheld, held), (held, with_b_pictures), (unheld, clip)):
        frames, seconds = length(joined(tmp_path, first, second))
        assert frames == length(first)[0] + length(second)[0]
        lost = length(first)[1] + length(second)[1] - seconds
        own = (clip, with_b_pictures) if first == held else (with_b_pictures, clip)
        assert lost == 4 - length(joined(tmp_path, *own))[1]


def test_every_frame_of_a_held_and_an_unheld_file_is_shown_at_its_time(tmp_path, held: Path, unheld: Path) -> None:
    for first, second in ((held, unheld), (unheld, held)):
        with av.open(str(joined(tmp_path, first, second))) as container:
            moments = sorted(frame.pts * frame.time_base for frame in container.decode(video=0))
        assert moments == [Fraction(number, 24) for number in range(192)]


@pytest.mark.parametrize("fps", [1, 12.5, 25, 30, 29.97, 120])
def test_files_of_every_rate_join_by_copy(tmp_path: Path, fps: float) -> None:
    first = rendered(tmp_path, "a.mp4", [7, 9], fps=fps)
    second = rendered(tmp_path, "b.mp4", [5, 3], fps=fps)
    frames, seconds = length(joined(tmp_path, first, second))
    assert frames == 24
    assert seconds == length(first)[1] + length(second)[1]


@pytest.mark.parametrize("fps", [24, 25, 29.97])
def test_gstreamer_seeks_to_the_right_still_before_and_at_every_sync_sample(tmp_path: Path, fps: float) -> None:
    """Of each still's hold the first frame, one within it and the last, which stands before the next sync sample."""
    require_openh264()
    hold, rate = 30, frame_rate(fps)
    path = rendered(tmp_path, "held.mp4", [hold] * 6, fps=fps)
    frames = [start + within for start in range(0, 6 * hold, hold) for within in (0, 1, hold - 1)]
    moments = [str(round((frame + Fraction(1, 2)) / rate * 1_000_000_000)) for frame in frames]
    program = [sys.executable, str(Path(__file__).with_name("gstreamer_seek.py")), str(path), *moments]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    shown = [round((int(luma) - 16) * 255 / 219) for luma in done.stdout.split()]
    assert shown == pytest.approx([grey(frame // hold) for frame in frames], abs=3)


def require_openh264() -> None:
    inspect = shutil.which("gst-inspect-1.0")
    is_there = bool(inspect) and subprocess.run([inspect, "--exists", "openh264dec"], check=False).returncode == 0
    if not is_there and "openh264" in os.environ.get("REQUIRE", "").split(","):
        pytest.fail("REQUIRE names openh264, but it is missing")
    if not is_there:
        pytest.skip("openh264 is missing (Debian: gstreamer1.0-tools, gstreamer1.0-plugins-bad)")
