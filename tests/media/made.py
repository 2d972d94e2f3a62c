"""Videos that are made for tests, and what ffmpeg shows of a video."""

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from renderer.config import RenderSettings
from renderer.media.mp4 import find
from renderer.media.video import VideoFile
from renderer.pictures.marks import Marks
from tests.media.sound.made import ffmpeg

Picture = npt.NDArray[np.uint8]
SIZE = (64, 48)
_MOVING = "geq=lum='16+mod(8*N+X,200)':cb='128+40*sin(N/3)':cr='128+Y'"  # no two frames are alike
_SOURCE = ("-f", "lavfi", "-i", f"nullsrc=s={SIZE[0]}x{SIZE[1]}:r=25:d=1,format=yuv420p,{_MOVING}")
_LARGE = ("-f", "lavfi", "-i", "color=gray:s=3840x2160:r=25:d=4")
_B_FRAMES = ("-c:v", "libx264", "-bf", "3", "-g", "12", "-pix_fmt", "yuv420p")
_VFR = ("-vf", "select='not(mod(n,4))+gt(n,14)'", "-fps_mode", "vfr")
_X265 = ("-c:v", "libx265", "-x265-params", "log-level=error:bframes=3", "-pix_fmt", "yuv420p10le")
OPTIONS: dict[str, tuple[str, ...]] = {
    "a.mp4": (*_SOURCE, *_B_FRAMES),
    "a.mov": (*_SOURCE, *_B_FRAMES),
    "a.mkv": (*_SOURCE, *_B_FRAMES),
    "fragmented.mp4": (*_SOURCE, *_B_FRAMES, "-movflags", "+frag_keyframe+empty_moov"),
    "rates.mp4": (*_SOURCE, *_VFR, *_B_FRAMES),
    "open.mp4": (*_SOURCE, *_B_FRAMES, "-x264-params", "open-gop=1:keyint=8:scenecut=0"),
    "hevc.mp4": (*_SOURCE, *_X265, "-tag:v", "hvc1"),
    "hevc.mkv": (*_SOURCE, *_X265),
    "vp8.webm": (*_SOURCE, "-c:v", "libvpx"),
    "vp9.webm": (*_SOURCE, "-c:v", "libvpx-vp9", "-b:v", "200k"),
    "av1.mp4": (*_SOURCE, "-c:v", "libaom-av1", "-cpu-used", "8"),
    "large.mp4": (*_LARGE, "-c:v", "libx264", "-preset", "ultrafast", "-g", "1000", "-pix_fmt", "yuv420p"),
    "one.mp4": (*_SOURCE, *_B_FRAMES, "-frames:v", "1"),
    "loud.mp4": (*_SOURCE, "-f", "lavfi", "-i", "sine=d=1:r=48000", *_B_FRAMES, "-c:a", "aac"),
}
Make = Callable[..., Path]


def made(directory: Path, name: str, *options: str) -> Path:
    """Return a video of 25 frames in the format that its name stands for; some have an edit list that cuts them."""
    path = directory / name
    if path.exists():
        return path
    if name in _EDITED:
        begin, end = _EDITED[name]
        path.write_bytes(edited(made(directory, "a.mp4").read_bytes(), begin, end))
    elif name == "late.mp4":
        ffmpeg("-itsoffset", "0.5", "-i", made(directory, "a.mp4"), "-c", "copy", path)
    else:
        ffmpeg(*(options or OPTIONS[name]), path)
    return path


_EDITED = {"begun.mp4": (7, 25), "ended.mp4": (0, 14), "within.mp4": (5, 18)}  # the frames that are shown, from, to


def edited(data: bytes, begin: int, end: int) -> bytes:
    """Return the MP4 with an edit list that shows these of its 25 frames a second, up to the last one named."""
    changed = bytearray(data)
    header = find(changed, (b"moov", b"mvhd"))
    edits = find(changed, (b"moov", b"trak", b"edts", b"elst"))
    assert header
    assert edits
    (scale,) = struct.unpack_from(">I", changed, header[0] + 12)
    _, media_time = struct.unpack_from(">Ii", changed, edits[0] + 8)
    ticks = round((end - begin) * scale / 25), media_time + begin * 512
    struct.pack_into(">Ii", changed, edits[0] + 8, *ticks)
    return bytes(changed)


def opened(data: bytes, **settings: object) -> VideoFile:
    return VideoFile(data, ("video_url",), RenderSettings.model_validate(settings), Marks())


def shown(path: Path) -> list[Picture]:
    """Return every frame as ffmpeg shows it, with the accurate options of its scaler, turned as the file says."""
    flags = "accurate_rnd+full_chroma_int+full_chroma_inp+bilinear"
    as_ppm = ("-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-")
    ppms = ffmpeg("-i", path, "-fps_mode", "passthrough", "-sws_flags", flags, *as_ppm)
    found = []
    while ppms:
        _, sides, _, rest = ppms.split(b"\n", 3)
        width, height = map(int, sides.split())
        size = width * height * 3
        found.append(np.frombuffer(rest[:size], np.uint8).reshape(height, width, 3)[..., ::-1])
        ppms = rest[size:]
    return found


def times(path: Path) -> list[float]:
    """Return when each frame is shown, from the first one on, by PyAV."""
    with av.open(str(path)) as container:
        found = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    return [round(each - found[0], 6) for each in found]


def nearest(picture: Picture, frames: list[Picture]) -> int:
    """Return which of the frames looks most like a picture."""
    return int(np.argmin([np.abs(picture.astype(int) - frame).mean() for frame in frames]))
