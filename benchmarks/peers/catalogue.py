"""All peers by name, ours first: the others are put in proportion to it."""

import sys
from functools import partial
from pathlib import Path

from benchmarks.floor import lay_out_bare
from benchmarks.peers import daemon, ffmpeg, gpu
from benchmarks.peers.base import Peer, Task, script
from benchmarks.workloads import PRESET


def _render(task: Task) -> list[str]:
    return [sys.executable, "-m", "renderer", "render", str(task.manifest), "-o", str(task.output), "--json"]


def _bare(task: Task) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("bare.py")), str(lay_out_bare(task))]


def _nvenc_pair(ours: str = PRESET, theirs: str = gpu.PRESETS[PRESET], suffix: str = "") -> tuple[Peer, Peer]:
    """stillreel and ffmpeg on one card, with one preset."""
    title = f"NVENC {theirs.upper()}"
    return (
        Peer(
            f"stillreel-nvenc{suffix}", f"stillreel render, {title}", partial(gpu.render_nvenc, preset=ours), gpu.no_gpu
        ),
        Peer(
            f"concat-nvenc{suffix}",
            f"ffmpeg concat, {title}",
            partial(ffmpeg.concat_nvenc, preset=theirs),
            ffmpeg.no_nvenc,
        ),
    )


OURS = "stillreel"

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer(OURS, "stillreel render", _render),
        Peer("daemon", "stillreel daemon, round trip", daemon.command, needs_daemon=True),
        Peer("floor", "floor: ffmpeg, each still once", ffmpeg.floor, is_floor=True),
        Peer("bare", "floor: Python, OpenCV and our ffmpeg, each still once", _bare, is_floor=True),
        Peer("concat", "ffmpeg concat", ffmpeg.concat),
        Peer("concat-accurate", "ffmpeg concat, accurate", ffmpeg.concat_accurate),
        Peer("concat-once", "ffmpeg concat, last named once", ffmpeg.concat_once),
        Peer("image2", "ffmpeg image2", ffmpeg.image2, ffmpeg.holds_differ),
        Peer("image2-accurate", "ffmpeg image2, accurate", ffmpeg.image2_accurate, ffmpeg.holds_differ),
        Peer("moviepy", "moviepy", script("moviepy_clips")),
        Peer("imageio", "imageio-ffmpeg", script("imageio_writer")),
        Peer("pyav", "PyAV", script("pyav_loop")),
        Peer("opencv", "OpenCV VideoWriter", script("opencv_writer")),
        *_nvenc_pair(),
        *(peer for ours, theirs in gpu.PRESETS.items() for peer in _nvenc_pair(ours, theirs, f"-{theirs}")),
    )
}
