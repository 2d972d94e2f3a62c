"""Sounds that are made for tests, and what others hear in a video."""

import io
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from imageio_ffmpeg import get_ffmpeg_exe

RATE = 48_000
Sound = npt.NDArray[np.float32]  # (channels, samples)


def tone(seconds: float, hertz: float = 440.0, level: float = 0.5, *, channels: int = 1, rate: int = RATE) -> Sound:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.broadcast_to(wave.astype(np.float32), (channels, len(wave))).copy()


def clicks(seconds: float, at: list[int], *, rate: int = RATE) -> Sound:
    """Return silence with a click of one sample at each of these samples."""
    sound = np.zeros((1, round(seconds * rate)), np.float32)
    sound[0, at] = 0.8
    return sound


def wav(sound: Sound, rate: int = RATE, *, data_bytes: int | None = None) -> bytes:
    """Return a WAV file of 32-bit floats; its header may lie about its length."""
    data = np.ascontiguousarray(sound.T, "<f4").tobytes()
    channels = len(sound)
    layout = struct.pack("<HHIIHH", 3, channels, rate, rate * channels * 4 & 0xFFFFFFFF, channels * 4, 32)
    size = len(data) if data_bytes is None else data_bytes
    chunks = b"fmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", (4 + len(chunks)) & 0xFFFFFFFF) + b"WAVE" + chunks


def ffmpeg(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """Run ffmpeg and return what it writes to stdout."""
    command = [get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


def coded(sound: Sound, path: Path, *options: str, rate: int = RATE) -> Path:
    """Have ffmpeg write a sound in the format that the name asks for."""
    ffmpeg("-i", "-", *options, path, stdin=wav(sound, rate))
    return path


def heard(video: Path) -> Sound:
    """Decode the sound of a video with PyAV, which leaves out what its edit list does before the beginning."""
    with av.open(str(video)) as container:
        stream = container.streams.audio[0]
        end = round(stream.duration * stream.time_base * RATE)  # the last packet goes on, which players leave out
        return np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)[:, :end]


def heard_by_ffmpeg(video: Path, channels: int = 1) -> Sound:
    raw = ffmpeg("-i", video, "-map", "0:a", "-f", "f32le", "-ac", str(channels), "-")
    return np.frombuffer(raw, "<f4").reshape(-1, channels).T


def loudest_near(sound: Sound, at: int, within: int = 2000) -> int:
    """Return which sample around a place is the loudest, counted from that place."""
    begin = max(0, at - within)
    return int(np.abs(sound[0, begin : at + within]).argmax()) + begin - at


def level(sound: Sound, begin_s: float, end_s: float) -> float:
    """Return the root mean square of a part."""
    return float(np.sqrt(np.mean(np.square(sound[:, round(begin_s * RATE) : round(end_s * RATE)]))))


def still(directory: Path) -> str:
    """Write a small picture and return its path."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 60, 20)).save(file, "PNG")
    (directory / "still.png").write_bytes(file.getvalue())
    return str(directory / "still.png")
