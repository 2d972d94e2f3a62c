"""A held still is as fine, and its file as small, as if x264 had coded every frame; ffmpeg is the judge."""

import re
import subprocess
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.drawn import slide
from protocol.schema import Preset
from renderer.config import EncodeSettings
from renderer.encode.ffmpeg import find_ffmpeg
from renderer.encode.plan import held_coding, plan_stream
from renderer.encode.stream import StreamSettings
from renderer.encode.x264 import open_x264
from renderer.geometry import Canvas
from renderer.timeline import Timeline

CANVAS, FPS, HOLD, STILLS, CRF = Canvas(480, 272), Fraction(24), 48, 6, 20
FFMPEG = find_ffmpeg(EncodeSettings())
RAW = ["-f", "rawvideo", "-pixel_format", "nv12", "-video_size", str(CANVAS), "-framerate", str(FPS)]


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of NV12 pictures of text, as small as at 1080p."""
    pictures = []
    for number in range(STILLS):
        large = slide(number, (CANVAS.width * 2, CANVAS.height * 2))[: CANVAS.height, : CANVAS.width]
        picture = np.full(CANVAS.nv12_shape, 128, np.uint8)
        picture[: CANVAS.height] = cv2.cvtColor(large, cv2.COLOR_BGR2GRAY) * (219 / 255) + 16
        pictures.append(picture)
    file = tmp_path_factory.mktemp("quality") / "slides.nv12"
    file.write_bytes(b"".join(picture.tobytes() for picture in pictures))
    return file


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of NV12 pictures, about as smooth and as grainy as photographs at 1080p."""
    random = np.random.default_rng(5)
    rows, columns = CANVAS.nv12_shape
    pictures = []
    for _ in range(STILLS):
        picture = np.full((rows, columns), 128, np.float64)
        for octave in range(1, 7):
            coarse = random.normal(size=(rows >> octave, columns >> octave))
            picture += cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC) * 0.8 * 1.8**octave
        picture[: CANVAS.height] += random.normal(size=(CANVAS.height, columns)) * 1.5
        picture[CANVAS.height :] = picture[CANVAS.height :] / 8 + 112
        pictures.append(picture.clip(16, 235).astype(np.uint8))
    file = tmp_path_factory.mktemp("quality") / "stills.nv12"
    file.write_bytes(b"".join(picture.tobytes() for picture in pictures))
    return file


def each_coded_once(stills: Path, preset: Preset, coded: Path, hold: int = HOLD) -> int:
    """Code the stills as the plan says; return the size."""
    held = held_coding(plan_stream(Timeline(FPS, (hold,) * STILLS), range(STILLS), 240, preset).stills)
    stream = StreamSettings(CANVAS, FPS, CRF, preset, 240, held)
    frames = np.fromfile(stills, np.uint8).reshape(-1, *CANVAS.nv12_shape)
    with open_x264(stream, EncodeSettings(threads=1)) as encoder:
        units = [unit for frame in frames for unit in encoder.encode(frame)]
        units += encoder.flush()
    return coded.write_bytes(b"".join(unit.data for unit in units))


def every_frame_coded(stills: Path, preset: Preset, coded: Path, hold: int = HOLD) -> int:
    """Let ffmpeg repeat the stills and code every frame; return the size."""
    repeat = f"loop={hold - 1}:1:0"
    one = "[0:v]trim=start_frame={}:end_frame={},{},setpts=N/24/TB[{}];"
    looped = "".join(one.format(n, n + 1, repeat, n) for n in range(STILLS))
    joined = looped + "".join(f"[{n}]" for n in range(STILLS)) + f"concat=n={STILLS}"
    command = [FFMPEG, "-loglevel", "error", *RAW, "-i", str(stills), "-filter_complex", joined]
    subprocess.run([*command, "-c:v", "libx264", "-preset", preset, "-crf", str(CRF), str(coded)], check=True)
    return coded.stat().st_size


def errors(coded: Path, stills: Path, hold: int) -> list[float]:
    """Return 1 - SSIM of luma, by ffmpeg, of the frame in the middle of each hold."""
    tags = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709,format=yuv420p"
    middles = f"select='eq(mod(n,{hold}),{hold // 2})',setpts=N/24/TB,{tags}"
    graph = f"[0:v]{middles}[shown];[1:v]setpts=N/24/TB,{tags}[still];[shown][still]ssim=stats_file=-"
    command = [FFMPEG, "-loglevel", "error", "-i", str(coded), *RAW, "-i", str(stills), "-lavfi", graph]
    done = subprocess.run([*command, "-f", "null", "/dev/null"], check=True, capture_output=True, text=True)
    return [1 - float(ssim) for ssim in re.findall(r" Y:([\d.]+)", done.stdout)]


@pytest.mark.parametrize("preset", ["ultrafast", "superfast", "veryfast", "faster", "medium", "slow"])
def test_a_held_still_is_as_fine_as_if_every_frame_were_coded(stills: Path, tmp_path: Path, preset: Preset) -> None:
    once, every = tmp_path / "once.h264", tmp_path / "every.mp4"
    once_bytes, every_bytes = each_coded_once(stills, preset, once), every_frame_coded(stills, preset, every)
    ours, theirs = errors(once, stills, 1), errors(every, stills, HOLD)
    assert len(ours) == len(theirs) == STILLS
    assert np.mean(ours) <= 1.1 * np.mean(theirs)  # half a step of the quantiser
    assert ours[0] <= 1.5 * max(ours[1:])  # x264 takes the first one's quantiser from crf alone unless qcomp is 1
    assert once_bytes <= 1.01 * every_bytes


@pytest.mark.parametrize("preset", ["veryfast", "medium"])
def test_held_text_is_as_fine_as_if_every_frame_were_coded(slides: Path, tmp_path: Path, preset: Preset) -> None:
    once, every = tmp_path / "once.h264", tmp_path / "every.mp4"
    once_bytes, every_bytes = each_coded_once(slides, preset, once), every_frame_coded(slides, preset, every)
    assert np.mean(errors(once, slides, 1)) <= 1.1 * np.mean(errors(every, slides, HOLD))
    assert once_bytes <= 1.05 * every_bytes


@pytest.mark.parametrize("hold", [2, 4, 12])
def test_a_photograph_of_less_than_a_second_is_as_fine_as_if_every_frame_were_coded(
    stills: Path, tmp_path: Path, hold: int
) -> None:
    once, every = tmp_path / "once.h264", tmp_path / "every.mp4"
    once_bytes = each_coded_once(stills, "veryfast", once, hold)
    every_bytes = every_frame_coded(stills, "veryfast", every, hold)
    assert np.mean(errors(once, stills, 1)) <= 1.1 * np.mean(errors(every, stills, hold))
    assert once_bytes <= 1.05 * every_bytes
