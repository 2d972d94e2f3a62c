"""The ffmpeg command line, the ways people use it, as argument lists."""

import subprocess
from fractions import Fraction
from pathlib import Path

from benchmarks.peers import gpu
from benchmarks.peers.base import Task
from benchmarks.workloads import CRF, PRESET

_X264 = ("-c:v", "libx264", "-preset", PRESET, "-crf", str(CRF), "-pix_fmt", "yuv420p")


def _nvenc(preset: str) -> tuple[str, ...]:
    """Constant quality, by the number that NVENC's documentation calls the counterpart of CRF."""
    return ("-c:v", "h264_nvenc", "-preset", preset, "-rc", "vbr", "-cq", str(CRF), "-pix_fmt", "yuv420p")


def concat(task: Task, encoder: tuple[str, ...] = _X264) -> list[str]:
    """The concat demuxer, as ffmpeg's wiki says: a duration for each still and the last still named twice.

    With an ffmpeg that honours the last duration this shows the last still for twice its hold, and stills begin on a
    clock of 25 to the second, whatever the output's rate is. Both are recorded as they are.
    """
    return _concat(task, [*_entries(task), f"file '{task.work.stills()[-1]}'"], (*_usual(task), *encoder))


def concat_accurate(task: Task) -> list[str]:
    """The same with ffmpeg's accurate conversion."""
    return concat(task, (*_accurate(task), *_X264))


def concat_once(task: Task) -> list[str]:
    """The concat demuxer with the last still named once, which saves the second hold and loses frames elsewhere."""
    return _concat(task, _entries(task), _X264)


def image2(task: Task, encoder: tuple[str, ...] = _X264) -> list[str]:
    """A numbered sequence; a hold that all stills share is made by the input's frame rate."""
    rate = Fraction(task.work.fps, task.work.hold or 1)
    source = [*_start(task), "-framerate", str(rate), "-i", _numbered(task)]
    return [*source, *_end(task, (*_usual(task), *encoder))]


def image2_accurate(task: Task) -> list[str]:
    """The same with ffmpeg's accurate conversion."""
    return image2(task, (*_accurate(task), *_X264))


def stills_as_nv12(task: Task, output: Path) -> list[str]:
    """Each still once as an NV12 picture, converted accurately."""
    raw = ("-pix_fmt", "nv12", "-f", "rawvideo", str(output))
    return [*_start(task), "-i", _numbered(task), *_accurate(task)[:2], *raw]


def _usual(task: Task) -> tuple[str, ...]:
    """Scale where the stills have not the video's size, and leave everything else to ffmpeg."""
    return ("-vf", f"scale={task.work.size[0]}:{task.work.size[1]}") if task.work.source else ()


def _accurate(task: Task) -> tuple[str, ...]:
    """Make the colours that stillreel makes, as exactly as the scaler can.

    By default ffmpeg rounds down at each step, and leaves a JPEG's matrix, BT.601, as it is. The scaler takes the
    matrix as an option; the tags come from the encoder's own parameters. Of two -vf the last one counts.
    """
    width, height = task.work.size
    flags = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
    scale = f"scale={width}:{height}:out_range=tv:out_color_matrix=bt709:flags={flags},format=yuv420p"
    return "-vf", scale, "-x264-params", "colorprim=bt709:transfer=bt709:colormatrix=bt709:fullrange=off"


def floor(task: Task) -> list[str]:
    """Each still encoded once, as an IDR picture: the least work that leaves a video of these stills behind."""
    rate = str(task.work.fps)
    return [*_start(task), "-framerate", rate, "-i", _numbered(task), *_end(task, (*_X264, "-g", "1"))]


def concat_nvenc(task: Task, preset: str) -> list[str]:
    return concat(task, _nvenc(preset))


def holds_differ(task: Task) -> str | None:
    """Say why image2 cannot do this work."""
    return None if task.work.hold else "image2 has one frame rate for all stills; here the holds differ"


def no_nvenc(task: Task) -> str | None:
    """Say why this ffmpeg's NVENC does not work here: encode a few grey frames and see."""
    if refused := gpu.refusal():
        return refused
    probe = [*(task.ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error"), "-f", "lavfi"]
    probe += ["-i", "color=gray:s=640x360:d=0.2", *_nvenc("p1"), "-f", "null", "-"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=60, check=False)
    words = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else f"h264_nvenc: {words[0].partition('] ')[2] if words else 'it fails'}"


def _entries(task: Task) -> list[str]:
    stills = zip(task.work.stills(), task.work.holds, strict=True)
    return [line for still, hold in stills for line in (f"file '{still}'", f"duration {hold / task.work.fps:.6f}")]


def _concat(task: Task, entries: list[str], encoder: tuple[str, ...]) -> list[str]:
    script = task.folder / "list.ffconcat"
    script.write_text("\n".join(["ffconcat version 1.0", *entries]) + "\n", encoding="utf-8")
    source = ["-f", "concat", "-safe", "0", "-i", str(script)]
    return [*_start(task), *source, "-fps_mode", "cfr", *_end(task, encoder)]


def _start(task: Task) -> list[str]:
    return [task.ffmpeg, "-hide_banner", "-nostdin", "-loglevel", "error", "-y"]


def _end(task: Task, encoder: tuple[str, ...]) -> list[str]:
    return ["-r", str(task.work.fps), *encoder, "-movflags", "+faststart", str(task.output)]


def _numbered(task: Task) -> str:
    stills = task.work.stills()
    folder = task.folder / "numbered"
    folder.mkdir(exist_ok=True)
    for index, still in enumerate(stills):
        link = folder / f"{index:05}{still.suffix}"
        if not link.is_symlink():
            link.symlink_to(still)
    return str(folder / f"%05d{Path(stills[0]).suffix}")
