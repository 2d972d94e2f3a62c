"""How x264 had best code a still that is held: processor time against size, at the quality of x264's own held sequence.

For a preset and a hold, x264 codes every frame at crf 20, as for any video; what it shows in the middle of each hold is
the quality to reach. Then each set of options codes every still once, with renderer's own command line, at several crf;
the size at which it reaches that quality is read off between them, in turn for SSIM, VMAF and RGB PSNR. All begin with
the same NV12 pictures, converted accurately by ffmpeg, so nothing but the coding differs.
"""

import math
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from benchmarks.peers.base import Task, lay_out
from benchmarks.peers.ffmpeg import stills_as_nv12
from benchmarks.photographs import photographs, scenes, screenshots, slides
from benchmarks.quality import judge
from benchmarks.results import CHOSEN, Coding, Quality
from benchmarks.workloads import FPS, SIZES, Workload
from protocol.schema import Preset
from renderer.encode.ffmpeg import arguments
from renderer.encode.plan import held_coding, plan_stream
from renderer.encode.stream import StreamSettings
from renderer.geometry import Canvas
from renderer.timeline import Timeline

KINDS = {
    "photographs": (photographs, 16),
    "drawings": (scenes, 8),
    "slides": (slides, 8),
    "screenshots": (screenshots, 8),
}
# Options over the chosen ones, with what they try: the filter, adaptive quantisation, analysis, trellis, entropy coder.
OPTIONS = {
    CHOSEN: "",
    "as the preset": "deblock=0,0:aq-strength=1",
    "deblock=-1,-1": "deblock=-1,-1",
    "no-deblock": "no-deblock=1",
    "aq-mode=0": "aq-mode=0",
    "aq-mode=2": "aq-mode=2",
    "aq-mode=3": "aq-mode=3",
    "aq-strength=0.8": "aq-strength=0.8",
    "aq-strength=1": "aq-strength=1",
    "trellis=1": "trellis=1",
    "subme=1": "subme=1",
    "subme=6": "subme=6",
    "subme=6, trellis=1": "subme=6:trellis=1",
    "subme=6, no psy": "subme=6:no-psy=1",
    "subme=6, trellis=1, aq-mode=2": "subme=6:trellis=1:aq-mode=2",
    "CAVLC": "cabac=0",
    "subme=6, CAVLC": "subme=6:cabac=0",
    "no 8x8 transform": "no-8x8dct=1",
}
_CRF, _TRIED = 20, (17, 20, 23)


@dataclass(frozen=True, slots=True)
class Point:
    """One coding of all stills: its size, its processor time and what it shows."""

    crf: int
    size_bytes: int
    cpu_s: float
    quality: Quality


def measure_pareto(
    preset: Preset, hold: int, names: Sequence[str], size: str, say: Callable[[str], None] = lambda _: None
) -> tuple[Coding, ...]:
    """Try the options of these names on stills of all kinds."""
    found = []
    for kind, (make, count) in KINDS.items():
        work = Workload(kind, kind, SIZES[size], (hold,) * count, make)
        with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as folder:
            stills = _Stills(lay_out(work, Path(folder)), preset)
            say(f"{preset}, hold {hold}: {kind}, every frame coded")
            held = stills.coded(_CRF, None)
            for name in names:
                say(f"{preset}, hold {hold}: {kind}, {name}")
                points = [stills.coded(crf, OPTIONS[name]) for crf in _TRIED]
                found.append(_coding(work, preset, name, held, points))
    return tuple(found)


class _Stills:
    """One kind of stills, as NV12 pictures in a file."""

    def __init__(self, task: Task, preset: Preset) -> None:
        self._task, self._preset = task, preset
        self._pictures = task.folder / "stills.nv12"
        subprocess.run(stills_as_nv12(task, self._pictures), check=True)

    def coded(self, crf: int, options: str | None) -> Point:
        """Code each still once, with the options, or every frame if there are none."""
        work = self._task.work
        plan = plan_stream(Timeline(Fraction(FPS), work.holds), range(len(work.holds)), 10 * FPS, self._preset)
        held = None if options is None else held_coding(plan.stills)
        stream = StreamSettings(Canvas(*work.size), Fraction(FPS), crf, self._preset, 10 * FPS, held)
        command = arguments(self._task.ffmpeg, stream)
        if options:
            command[command.index("-x264-params") + 1] += f":{options}"
        output = self._task.folder / "coded.h264"
        cpu_s = self._run(command, output, (work.hold or 1) if held is None else 1)
        quality = judge(output, work, one_frame_each=held is not None, is_vmaf_clipped=False)
        return Point(crf, output.stat().st_size, cpu_s, quality)

    def _run(self, command: Sequence[str], output: Path, times: int) -> float:
        """Give every still to the command so many times; return the command's processor time."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        width, height = self._task.work.size
        with (
            self._pictures.open("rb") as pictures,
            output.open("wb") as coded,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=coded) as child,
        ):
            assert child.stdin is not None
            while picture := pictures.read(width * height * 3 // 2):
                for _ in range(times):
                    child.stdin.write(picture)
        if child.returncode:
            raise subprocess.CalledProcessError(child.returncode, command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# What grows by about the same with every step of the quantiser.
_METRICS: dict[str, Callable[[Quality], float]] = {
    "ssim": lambda quality: -10 * math.log10(1 - quality.ssim),
    "vmaf": lambda quality: quality.vmaf,
    "rgb_psnr": lambda quality: quality.rgb_psnr or 0,
}


def _coding(work: Workload, preset: Preset, name: str, held: Point, points: Sequence[Point]) -> Coding:
    at = {metric: reached(points, measure, measure(held.quality)) for metric, measure in _METRICS.items()}
    return Coding(
        kind=work.name,
        preset=preset,
        hold=work.hold or 1,
        options=name,
        stills=len(work.holds),
        cpu_s=round(statistics.median(point.cpu_s for point in points), 3),
        held_cpu_s=round(held.cpu_s, 3),
        held_bytes=held.size_bytes,
        sizes={metric: round(size_bytes / held.size_bytes, 4) for metric, (size_bytes, _) in at.items()},
        crfs={metric: round(crf, 2) for metric, (_, crf) in at.items()},
    )


def reached(points: Sequence[Point], measure: Callable[[Quality], float], wanted: float) -> tuple[float, float]:
    """Return the size and the crf at which the wanted quality is reached; beyond the points along the nearest two."""
    finest_last = sorted(points, key=lambda point: measure(point.quality))
    here = sum(measure(point.quality) < wanted for point in finest_last[1:-1])
    low, high = finest_last[here : here + 2]
    part = (wanted - measure(low.quality)) / (measure(high.quality) - measure(low.quality))
    size_bytes = low.size_bytes * (high.size_bytes / low.size_bytes) ** part
    return size_bytes, low.crf + part * (high.crf - low.crf)
