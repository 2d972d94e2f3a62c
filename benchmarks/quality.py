"""The judge: what a video shows, compared with the stills themselves.

One frame per still is compared, the one in the middle of its hold, because that is what is seen longest; of a long
workload evenly chosen stills. ffmpeg's libvmaf gives VMAF and SSIM. Both look at luma only. The reference is the
still's luma by the same matrix and range as the video's: peers differ in them, and which they took is a matter of
colour (told apart in `colour` and `tagged`), not of coding. VMAF's motion term sees a sequence in which every frame is
another still; it is the same for all peers.

Colours are compared as RGB, as a player shows them: by the matrix and range that the file names, by BT.709 and limited
range where it names none, with chroma placed as H.264 places it. Pillow reads the stills, which neither side does.

The first and the last frame of each hold are looked at too: a frame that is nearer to a neighbouring still than to its
own shows the wrong picture.
"""

import json
import math
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, get_args

import av
import cv2
import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.results import Colour, Quality, Video
from benchmarks.workloads import Workload

MOST_STILLS = 48

Luma = npt.NDArray[np.uint8]
Rgb = npt.NDArray[np.float32]

# Weights of red and blue, scale and offset of luma: ITU-R BT.601 and BT.709, H.273 clause 8.3.
_COLOURS: dict[str, tuple[float, float, float, int]] = {
    "bt709 limited": (0.2126, 0.0722, 219 / 255, 16),
    "bt601 limited": (0.299, 0.114, 219 / 255, 16),
    "bt709 full": (0.2126, 0.0722, 1, 0),
    "bt601 full": (0.299, 0.114, 1, 0),
}
_MATRIX_TAGS = {1: "bt709", 5: "bt601", 6: "bt601"}  # H.273, table 4; 2 is unspecified
_RANGE_TAGS = {1: "limited", 2: "full"}  # FFmpeg's AVColorRange; H.264 without a tag means limited


def examine(file: Path, frames_expected: int, fps: int) -> Video:
    """Count what is in the file, packet by packet, without decoding."""
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stamps = sorted((p.pts, p.duration or 0) for p in container.demux(stream) if p.pts is not None and p.size)
        time_base = float(stream.time_base or 0)
    steps = {later[0] - earlier[0] for earlier, later in pairwise(stamps)}
    ticks = stamps[-1][0] + stamps[-1][1] - stamps[0][0] if stamps else 0
    return Video(
        size_bytes=file.stat().st_size,
        frames=len(stamps),
        frames_expected=frames_expected,
        duration_s=round(ticks * time_base, 6),
        duration_expected_s=round(frames_expected / fps, 6),
        is_constant_rate=len(steps) <= 1,
    )


def judge(file: Path, work: Workload, *, one_frame_each: bool = False, is_vmaf_clipped: bool = True) -> Quality:
    """Compare the video with the stills.

    Args:
        one_frame_each: the video has one frame per still, whatever the workload's holds are.
        is_vmaf_clipped: VMAF ends at 100, as usual; else it tells fine pictures apart as well.
    """
    holds = (1,) * len(work.holds) if one_frame_each else work.holds
    starts = [0, *accumulate(holds)]
    chosen = _evenly(len(holds), MOST_STILLS)
    middles = {starts[still] + holds[still] // 2: still for still in chosen}
    edges = [(frame, still) for still in chosen for frame in (starts[still], starts[still + 1] - 1)]
    looker = _Looker(work.stills(), middles, edges)
    with tempfile.TemporaryDirectory(prefix="stillreel-judge-") as folder:
        shown, reference = Path(folder) / "shown", Path(folder) / "reference"
        with shown.open("wb") as shown_file, reference.open("wb") as reference_file:
            tagged = looker.look(file, shown_file, reference_file)
        ssim, vmaf, vmaf_least = _vmaf(shown, reference, work, is_vmaf_clipped)
    return Quality(
        stills=looker.compared,
        ssim=ssim,
        vmaf=vmaf,
        vmaf_least=vmaf_least,
        rgb_psnr=round(looker.rgb_psnr, 3),
        colour_error=round(statistics.mean(looker.colour_errors), 3),
        edges=len(edges),
        edges_wrong=len(edges) - looker.edges_right,
        colour=looker.colour or "bt709 limited",
        tagged=tagged,
    )


class _Looker:
    """Goes through a video once and picks the frames that are compared."""

    def __init__(self, stills: Sequence[Path], middles: dict[int, int], edges: Sequence[tuple[int, int]]) -> None:
        self._stills = stills
        self._middles = middles
        self._edges: dict[int, list[int]] = {}
        for frame, still in edges:
            self._edges.setdefault(frame, []).append(still)
        self._lumas: dict[int, Luma] = {}
        self.colour: Colour | None = None
        self.compared = 0
        self.edges_right = 0
        self.colour_errors: list[float] = []
        self._squared_errors: list[float] = []

    @property
    def rgb_psnr(self) -> float:
        return 10 * math.log10(255**2 / max(statistics.mean(self._squared_errors), 1e-9))

    def look(self, file: Path, shown: IO[bytes], reference: IO[bytes]) -> str:
        """Write the chosen frames and their stills as raw luma; return the colours that the file names."""
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            context = stream.codec_context
            matrix = _MATRIX_TAGS.get(int(context.colorspace), "unknown")
            tagged = f"{matrix} {_RANGE_TAGS.get(int(context.color_range), 'limited')}"
            for index, frame in enumerate(container.decode(stream)):
                if index in self._middles or index in self._edges:
                    self._compare(index, frame, shown, reference)
        return tagged

    def _compare(self, index: int, frame: av.VideoFrame, shown: IO[bytes], reference: IO[bytes]) -> None:
        picture = _plane(frame, 0)
        if self.colour is None:
            self.colour = nearest_colour(picture, self._stills[(self._edges.get(index) or [self._middles[index]])[0]])
        for still in self._edges.get(index, ()):
            near = [n for n in (still - 1, still, still + 1) if 0 <= n < len(self._stills)]
            self.edges_right += min(near, key=lambda n: _distance(picture, self._luma(n))) == still
        if index in self._middles:
            shown.write(picture.tobytes())
            reference.write(self._luma(self._middles[index]).tobytes())
            self.compared += 1
            error = rgb_of(frame) - _read(self._stills[self._middles[index]])
            self._squared_errors.append(float(np.mean(np.square(error))))
            self.colour_errors.append(float(np.mean(np.abs(np.mean(error, axis=(0, 1))))))

    def _luma(self, still: int) -> Luma:
        if still not in self._lumas:
            for far in [n for n in self._lumas if n < still - 2]:
                del self._lumas[far]
            self._lumas[still] = luma_of_still(self._stills[still], self.colour or "bt709 limited")
        return self._lumas[still]


def luma_of_still(file: Path, colour: Colour) -> Luma:
    """Return the still's luma: (H, W) uint8."""
    kr, kb, scale, offset = _COLOURS[colour]
    weights = np.array([[kr * scale, (1 - kr - kb) * scale, kb * scale, offset]], np.float32)
    rgb = _read(file)
    return np.asarray(cv2.transform(rgb, weights), np.uint8).reshape(rgb.shape[:2])


def _read(file: Path) -> Luma:
    return np.asarray(Image.open(file).convert("RGB"))


def rgb_of(frame: av.VideoFrame) -> Rgb:
    """Return a decoded yuv420p picture as a player shows it: (H, W, 3) float32, 0 to 255."""
    matrix = _MATRIX_TAGS.get(int(frame.colorspace), "bt709")
    kr, kb, scale, offset = _COLOURS[f"{matrix} {_RANGE_TAGS.get(int(frame.color_range), 'limited')}"]
    luma = (_plane(frame, 0) - np.float32(offset)) / np.float32(scale)
    # In line with even columns and between rows: H.264, figure 6-1.
    twice = np.array([[2, 0, 0], [0, 2, 0.5]], np.float32)
    blue, red = (
        cv2.warpAffine(
            (_plane(frame, number) - np.float32(128)) / np.float32(scale if scale == 1 else 224 / 255),
            twice,
            luma.shape[::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        for number in (1, 2)
    )
    from_chroma = np.array([[1, 0, 2 - 2 * kr], [1, 0, 0], [1, 2 - 2 * kb, 0]], np.float32)
    from_chroma[1, 1:] = [-(2 - 2 * kb) * kb / (1 - kr - kb), -(2 - 2 * kr) * kr / (1 - kr - kb)]
    return np.clip(cv2.transform(cv2.merge([luma, blue, red]), from_chroma), 0, 255)


def nearest_colour(picture: Luma, still: Path) -> Colour:
    """Return the matrix and range by which the still's luma comes nearest to the picture."""
    return min(get_args(Colour), key=lambda colour: _distance(picture, luma_of_still(still, colour)))


def _distance(one: Luma, other: Luma) -> float:
    return float(cv2.norm(one, other, cv2.NORM_L2)) if one.shape == other.shape else float("inf")


def _plane(frame: av.VideoFrame, number: int) -> Luma:
    plane = frame.planes[number]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
    return np.ascontiguousarray(rows[:, : plane.width])


def _evenly(count: int, most: int) -> list[int]:
    return list(range(count)) if count <= most else [round(n * (count - 1) / (most - 1)) for n in range(most)]


def _vmaf(shown: Path, reference: Path, work: Workload, is_clipped: bool) -> tuple[float, float, float]:
    """Return mean SSIM, mean VMAF and the least VMAF of a frame."""
    log = shown.with_suffix(".json")
    model = "" if is_clipped else "model='version=vmaf_v0.6.1\\:disable_clip=true':"
    vmaf = f"libvmaf={model}feature=name=float_ssim:n_threads=2:log_fmt=json:log_path={log}"
    graph = f"[0:v]format=yuv420p[shown];[1:v]format=yuv420p[still];[shown][still]{vmaf}"
    command = [str(imageio_ffmpeg.get_ffmpeg_exe()), "-hide_banner", "-nostdin", "-loglevel", "error"]
    for file in (shown, reference):
        command += ["-f", "rawvideo", "-pixel_format", "gray", "-video_size", f"{work.size[0]}x{work.size[1]}"]
        command += ["-color_range", "tv", "-i", str(file)]
    subprocess.run([*command, "-lavfi", graph, "-f", "null", "-"], check=True, capture_output=True, timeout=600)
    pooled = json.loads(log.read_text(encoding="utf-8"))["pooled_metrics"]
    return pooled["float_ssim"]["mean"], pooled["vmaf"]["mean"], pooled["vmaf"]["min"]
