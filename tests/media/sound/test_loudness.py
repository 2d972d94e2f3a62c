"""Loudness by EBU R128, judged by ffmpeg's own meter: on target, peaks below their limit, silence left silent."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from protocol.schema import RenderRequest, RenderResult
from renderer import render
from renderer.errors import InvalidRequest
from renderer.frontends.http.schema import ImagesToVideoInput
from renderer.intake import parse_request
from tests.media.sound.made import RATE, Sound, heard, level, still, tone, wav


def meter(video: Path) -> tuple[float, float]:
    """Return what ffmpeg measures: LUFS, and dB of the true peak."""
    command = [
        get_ffmpeg_exe(),
        "-hide_banner",
        "-nostats",
        "-i",
        video,
        "-af",
        "ebur128=peak=true",
        "-vn",
        "-f",
        "null",
        "-",
    ]
    told = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stderr
    summary = told[told.rindex("Summary:") :]
    [lufs] = re.findall(r"I:\s+(-?[\d.]+) LUFS", summary)
    [peak] = re.findall(r"Peak:\s+(-?[\d.]+|-inf) dBFS", summary)
    return float(lufs), float(peak)


def speech(seconds: float = 6) -> Sound:
    """Return something as uneven as speech: bursts of noise, 20 dB between peaks and loudness."""
    random = np.random.default_rng(2)
    noise = random.standard_normal(round(seconds * RATE)) * 0.02
    bursts = (np.sin(2 * np.pi * 1.3 * np.arange(len(noise)) / RATE) > 0.2) + 0.02
    noise[:: RATE // 3] = 0.7
    return (noise * bursts).astype(np.float32)[None]


def made(directory: Path, sounds: list[Sound], **fields: Any) -> RenderResult:
    audio = []
    for number, sound in enumerate(sounds):
        (directory / f"{number}.wav").write_bytes(wav(sound))
        audio.append({"url": str(directory / f"{number}.wav")})
    frames = round(sounds[0].shape[1] / RATE * 24)
    images = [{"url": still(directory), "frames": frames}]
    return render({"images": images, "fps": 24, "audio": audio, **fields}, directory / "video.mp4")


@pytest.mark.parametrize(
    ("sounds", "target"),
    [
        ([tone(4, level=0.01)], -14),
        ([tone(4, level=0.9, channels=2)], -23),
        ([speech()], -14),
        ([speech(), tone(6, 200, 0.3), tone(2, 900)], -14),
        ([speech(), tone(6, 200, 0.3), tone(2, 900)], -23),
    ],
    ids=["quiet", "loud", "uneven", "mixed and loud", "mixed"],
)
def test_the_target_is_met_within_half_a_unit(tmp_path: Path, sounds: list[Sound], target: int) -> None:
    result = made(tmp_path, sounds, loudness={"target_lufs": target, "true_peak_db": -1})
    lufs, peak = meter(tmp_path / "video.mp4")
    assert lufs == pytest.approx(target, abs=0.5)
    assert peak < 0
    assert result.warnings == ()


@pytest.mark.parametrize(("written", "target"), [(True, -14), (-16, -16), (-16.5, -16.5), ({}, -14)])
def test_loudness_may_be_written_as_its_level_alone(written: object, target: float) -> None:
    for model in (RenderRequest, ImagesToVideoInput):
        loudness = model.model_validate({"images": [{"url": "a"}], "loudness": written}).loudness
        assert loudness is not None
        assert (loudness.target_lufs, loudness.true_peak_db) == (target, -1)
    assert RenderRequest.model_validate({"images": [{"url": "a"}], "loudness": False}).loudness is None


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (
            "loud",
            """loudness: expected true, LUFS such as -14, or {"target_lufs": -14, "true_peak_db": -1}, found 'loud'""",
        ),
        (3, "loudness.target_lufs: expected at most -5.0, found 3"),
    ],
)
def test_another_loudness_is_refused_with_what_was_expected(written: object, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request({"images": [{"url": "a"}], "loudness": written})
    assert str(caught.value) == words


def test_loudness_without_a_sound_is_warned_of(tmp_path: Path) -> None:
    request = {"images": [{"url": still(tmp_path)}], "loudness": {}}
    [warning] = render(request, tmp_path / "video.mp4").warnings
    assert (warning.type, warning.loc) == ("loudness_missed", ("loudness",))
    assert warning.message == "the request has no sound, so there is nothing to make this loud"


def test_peaks_stay_below_their_limit_even_between_samples(tmp_path: Path) -> None:
    """A sine of a quarter of the rate has its peaks between samples."""
    times = np.arange(4 * RATE)
    between = (0.7 * np.sin(np.pi / 2 * times + np.pi / 4)).astype(np.float32)[None]
    made(tmp_path, [between], loudness={"target_lufs": -5, "true_peak_db": -3}, audio_bitrate=320_000)
    assert meter(tmp_path / "video.mp4")[1] < -2.5


def test_what_cannot_be_reached_is_said(tmp_path: Path) -> None:
    clicks = np.zeros((1, 4 * RATE), np.float32)
    clicks[0, ::RATE] = 0.9
    result = made(tmp_path, [clicks], loudness={"target_lufs": -6})
    assert [warning.type for warning in result.warnings] == ["loudness_missed"]


def test_silence_stays_silence(tmp_path: Path) -> None:
    result = made(tmp_path, [np.zeros((1, 2 * RATE), np.float32)], loudness={})
    assert [(warning.type, warning.loc) for warning in result.warnings] == [("loudness_missed", ("loudness",))]
    assert not heard(tmp_path / "video.mp4").any()
    sound = np.concatenate([tone(2, level=0.05), np.zeros((1, 2 * RATE), np.float32)], axis=1)
    made(tmp_path, [sound], loudness={})
    assert level(heard(tmp_path / "video.mp4"), 2.1, 4) < 1e-5
