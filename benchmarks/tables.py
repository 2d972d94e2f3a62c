"""Results as tables for the terminal."""

import statistics
from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table

from benchmarks.results import (
    Coding,
    Curve,
    Fed,
    Load,
    OnRay,
    Overhead,
    PeerResult,
    Polling,
    Quality,
    Simulated,
    Sound,
    Spread,
    Startup,
    Throughput,
    Workers,
    WorkResult,
)

_MEBIBYTE = 1024 * 1024


def work_table(work: WorkResult) -> Table:
    """Return one row per peer.

    "× ours" is its wall time divided by stillreel's in the same round, faults the page faults per still, MiB the peak
    memory of the whole tree, MB the file, RGB its PSNR in dB, off the levels by which a channel's mean is wrong, edges
    the first and last frames of holds, where another still may show.
    """
    cores = f"{work.cores} core{'s' if work.cores > 1 else ''}"
    title = f"[bold]{work.name}[/]  {work.title}; x264 {work.preset}, CRF {work.crf}, {cores}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, (_, justify) in _COLUMNS.items():
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=True)
    for peer in work.peers:
        if peer.wall:
            table.add_row(*(cell(peer, work) for cell, _ in _COLUMNS.values()))
    return table


def left_out(work: WorkResult) -> list[str]:
    """Return a line for each peer without numbers: its name and why."""
    return [f"{peer.title}: {peer.why_not}" for peer in work.peers if not peer.wall]


def overhead_table(overhead: Overhead) -> Table:
    title = f"[bold]{overhead.work}[/]  overhead, seconds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "median", "least", "most"):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {
        "renderer.render, warm": Spread.of(list(overhead.warm_render_s)),
        "ffmpeg command line": Spread.of(list(overhead.ffmpeg_s)),
        "daemon, round trip": Spread.of(list(overhead.daemon_s)),
        "  which adds to its job": overhead.daemon_adds_s,
        "render / ffmpeg, paired ratio": overhead.render_times_ffmpeg,
    }
    for name, spread in rows.items():
        table.add_row(name, *(f"{value:.3f}" for value in (spread.median, spread.least, spread.most)))
    return table


def _median(values: tuple[float, ...]) -> str:
    return f"{Spread.of(list(values)).median:.2f}" if values else ""


def _range(spread: Spread | None) -> str:
    return f"[dim]{spread.least:.2f}-{spread.most:.2f}[/]" if spread else ""


def _frames(peer: PeerResult) -> str:
    video = peer.video
    if video is None:
        return ""
    off = video.frames - video.frames_expected
    rate = "" if video.is_constant_rate else ", uneven"
    return f"{video.frames}{rate}" if off == 0 else f"[red]{video.frames} ({off:+d})[/]{rate}"


def _edges(quality: Quality) -> str:
    return f"[red]{quality.edges_wrong}/{quality.edges} wrong[/]" if quality.edges_wrong else "right"


def _colour(quality: Quality) -> str:
    """Name what was found, in short where it is as usual, and the tag where that says something else."""
    found = quality.colour.removesuffix(" limited")
    if quality.tagged == quality.colour:
        return found
    is_untagged = quality.tagged.startswith("unknown")
    return f"{found}, [yellow]{'untagged' if is_untagged else f'tagged {quality.tagged}'}[/]"


def _of_quality(write: Callable[[Quality], str]) -> Callable[[PeerResult, WorkResult], str]:
    return lambda peer, _: write(peer.quality) if peer.quality else ""


# Heading, what stands below it, and on which side.
_COLUMNS: dict[str, tuple[Callable[[PeerResult, WorkResult], str], str]] = {
    "": (lambda peer, _: peer.title, "left"),
    "wall s": (lambda peer, _: _median(peer.wall_s), "right"),
    "spread": (lambda peer, _: _range(peer.wall), "left"),
    "inside": (lambda peer, _: _median(peer.inside_s), "right"),
    "CPU s": (lambda peer, _: _median(peer.cpu_s), "right"),
    "× ours": (lambda peer, _: f"{peer.times_ours.median:.2f}" if peer.times_ours else "", "right"),
    "spread ": (lambda peer, _: _range(peer.times_ours), "left"),
    "faults": (
        lambda peer, work: f"{statistics.median(peer.faults) / work.images:.0f}" if peer.faults else "",
        "right",
    ),
    "MiB": (lambda peer, _: f"{peer.peak_tree_bytes / _MEBIBYTE:.0f}" if peer.peak_tree_bytes else "", "right"),
    "MB": (lambda peer, _: f"{peer.video.size_bytes / 1e6:.2f}" if peer.video else "", "right"),
    "SSIM": (_of_quality(lambda quality: f"{quality.ssim:.4f}"), "right"),
    "VMAF": (_of_quality(lambda quality: f"{quality.vmaf:.1f}"), "right"),
    "RGB": (_of_quality(lambda quality: f"{quality.rgb_psnr:.1f}" if quality.rgb_psnr else ""), "right"),
    "off": (_of_quality(lambda quality: f"{quality.colour_error:.1f}" if quality.rgb_psnr else ""), "right"),
    "frames": (lambda peer, _: _frames(peer), "left"),
    "edges": (_of_quality(_edges), "left"),
    "colour": (_of_quality(_colour), "left"),
}


def load_table(found: Load) -> Table:
    """Return what a busy daemon was seen to do."""
    table = Table(f"{found.work}, {found.workers} workers", "", box=None, title_justify="left")
    table.add_row("render in a loop", f"{_median(found.loop_jobs_per_s)} jobs/s")
    table.add_row("through the daemon", f"{_median(found.daemon_jobs_per_s)} jobs/s")
    ratio, asked = found.daemon_times_loop, found.status_ms
    table.add_row("ratio, round by round", f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})")
    table.add_row(
        f"status, {found.clients} clients every {found.poll_s:g} s, {found.waiting} jobs waiting",
        f"median {asked.median:.1f} ms, {found.status_p99_ms:.0f} ms 99 %, {asked.most:.0f} most, {found.asked} calls",
    )
    memory = ", ".join(f"{size / _MEBIBYTE:.0f}" for size in found.memory_bytes)
    table.add_row("daemon's memory: begun, waiting, ended", f"{memory} MiB")
    return table


def throughput_table(found: Throughput) -> Table:
    """Return the jobs per second of two workers and of two ffmpegs."""
    table = Table(f"{found.work}, {found.workers} at a time", "", "daemon's times that", box=None)
    table.add_row("daemon", f"{_median(found.daemon_jobs_per_s)} jobs/s", "")
    for name, rates, ratio in (
        ("xargs ffmpeg concat", found.concat_jobs_per_s, found.daemon_times_concat),
        ("the same, accurate", found.accurate_jobs_per_s, found.daemon_times_accurate),
    ):
        table.add_row(name, f"{_median(rates)} jobs/s", f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})")
    return table


def workers_table(found: Sequence[Workers]) -> Table:
    """Return what one worker and two make, and what two on two cores make of that."""
    table = Table("workers", "cores", "jobs/s", "processor time a job", "two make", "ffmpegs", "two make", box=None)
    for row in found:
        ours = f"{_median(row.jobs_per_s)}", f"{_median(row.cpu_s_per_job)} s", f"× {row.two_times_this.median:.2f}"
        theirs = f"{_median(row.ffmpeg_jobs_per_s)}", f"× {row.two_times_this_ffmpeg.median:.2f}"
        table.add_row(str(row.workers), str(row.cores), *ours, *theirs)
    return table


def pareto_table(codings: Sequence[Coding]) -> Table:
    """Return what each set of options takes: processor time, and size in % of x264 coding every frame, with the crf."""
    table = Table(
        "preset", "hold", "options", "stills", "ms each", "equal SSIM", "equal VMAF", "equal RGB PSNR", box=None
    )
    for coding in codings:
        at = (f"{coding.sizes[metric] * 100:.1f} % @ {coding.crfs[metric]:.1f}" for metric in coding.sizes)
        ms = f"{coding.cpu_s / coding.stills * 1000:.1f}"
        table.add_row(coding.preset, str(coding.hold), coding.options, coding.kind, ms, *at)
    return table


def sound_table(found: Sound) -> Table:
    """Return what a track costs beside the coder alone."""
    table = Table(f"{found.work}, {found.seconds:g} s", "processor time", "", box=None, title_justify="left")
    cpu, wall, extra = found.with_times_without_cpu, found.with_times_without_wall, found.extra_times_floor_cpu
    table.add_row("without sound", f"{_median(found.without_cpu_s)} s")
    table.add_row(
        "with a stereo track", f"{_median(found.with_cpu_s)} s", f"× {cpu.median:.2f}, of time × {wall.median:.2f}"
    )
    table.add_row("AAC coder alone", f"{_median(found.floor_cpu_s)} s", f"the track adds × {extra.median:.2f} of that")
    return table


def ray_table(found: OnRay) -> Table:
    """Return what a cluster costs."""
    table = Table(f"{found.jobs} jobs of {found.work}, {found.slots} slots", "", box=None, title_justify="left")
    table.add_row("in the daemon's own workers", f"{_median(found.local_jobs_per_s)} jobs/s")
    table.add_row("through Ray", f"{_median(found.ray_jobs_per_s)} jobs/s")
    ratio = found.ray_times_local_s
    table.add_row("time, times that of the workers", f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})")
    return table


def ceiling_table(found: Sequence[Fed], floor_ms: float) -> Table:
    """Return how many slots one daemon feeds."""
    floor = f"{floor_ms:.2f} ms for a check, a transaction and a message alone"
    table = Table("slots", "jobs of", "busy", "jobs/s", "of a core", "processor time a job", box=None, caption=floor)
    for row in found:
        used = f"{row.loop_cpu_share:.0%}", f"{row.cpu_ms_per_job:.2f} ms"
        table.add_row(str(row.slots), f"{row.job_s:g} s", f"{row.busy_share:.1%}", f"{row.jobs_per_s:g}", *used)
    return table


def simulated_table(found: Sequence[Simulated]) -> Table:
    """Return what so many nodes would do."""
    table = Table("nodes", "way", "jobs of", "jobs/s", "busy", "lost", "95 % begin within", box=None)
    for row in found:
        wait = "" if row.wait_p95_s is None else f"{row.wait_p95_s:.2f} s"
        rate = f"{row.jobs_per_s:.1f}", f"{row.busy_share:.1%}"
        table.add_row(str(row.nodes), row.way, f"{row.job_s:g} s", *rate, str(row.lost), wait)
    return table


def curve_table(found: Curve) -> Table:
    """Return what keys cost."""
    table = Table(f"{found.clients} clients asking every {found.poll_s:g} s", "", box=None)
    table.add_row("daemon's processor time for a status", f"{_median(found.plain_us_per_status)} us")
    table.add_row("behind CURVE", f"{_median(found.curve_us_per_status)} us")
    ratio = found.curve_times_plain
    table.add_row("ratio, round by round", f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})")
    return table


def floor_table(works: Sequence[WorkResult]) -> Table:
    """Return how near `render` is to the bare program: the ratios are taken within a round."""
    table = Table("work", "ours", "bare", "ours / bare", "processor", "", "ours / bare", "MiB", "", box=None)
    for work in works:
        ours, bare = work.peers
        if ours.wall and bare.wall and ours.video and bare.video:
            sizes = (f"{peer.video.size_bytes / _MEBIBYTE:.2f}" for peer in work.peers if peer.video)
            clock = f"{ours.wall.median:.2f} s", f"{bare.wall.median:.2f} s", _ratio(ours.wall_s, bare.wall_s)
            processor = f"{_median(ours.cpu_s)} s", f"{_median(bare.cpu_s)} s", _ratio(ours.cpu_s, bare.cpu_s)
            table.add_row(work.name, *clock, *processor, *sizes)
    return table


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    found = Spread.of([our / their for our, their in zip(ours, theirs, strict=True)])
    return f"{found.median:.2f} ({found.least:.2f} to {found.most:.2f})"


def startup_table(found: Startup) -> Table:
    """Return what beginning cost."""
    table = Table("", "processor", "clock", "memory", box=None)
    for name, begun, size in (
        ("stillreel --version", found.version, None),
        ("stillreel status", found.status, None),
        ("stillreel submit", found.submit, None),
        ("python -c 'import zmq, pydantic'", found.client_floor, None),
        ("stillreel render, to its first still", found.first_still, None),
        ("stillreel render, of one small still", found.one_still, None),
        ("python -c 'import numpy, cv2, pydantic'", found.render_floor, None),
        ("the daemon, until it is ready", found.daemon, found.daemon_idle_bytes),
        ("the same with --http", found.daemon_with_http, found.daemon_with_http_idle_bytes),
    ):
        memory = f"{size.median / _MEBIBYTE:.0f} MiB" if size else ""
        table.add_row(name, f"{begun.cpu_s.median:.2f} s", f"{begun.wall_s.median:.2f} s", memory)
    table.add_row("an idle worker in place of one that died", "", f"{found.idle_worker_back_ms.median:.0f} ms", "")
    table.add_row("a job that comes in that moment, longer by", "", f"{found.worker_back_ms.median:.0f} ms", "")
    return table


def polling_table(found: Polling) -> Table:
    """Return what asking cost."""
    shared = "shared with the clients" if found.clients_share_cores else "the clients on others"
    table = Table(f"{found.work}, {found.workers} workers, {found.cores} cores, {shared}", "", box=None)
    ratio, asked = found.asked_times_alone, found.status_ms
    table.add_row("alone", f"{_median(found.alone_jobs_per_s)} jobs/s")
    table.add_row(
        f"{found.clients} clients asking every {found.poll_s:g} s", f"{_median(found.asked_jobs_per_s)} jobs/s"
    )
    table.add_row("ratio, round by round", f"{ratio.median:.3f} ({ratio.least:.3f} to {ratio.most:.3f})")
    calls = f"{found.status_p99_ms:.0f} ms 99 %, {asked.most:.0f} most, {found.asked} calls"
    table.add_row("status", f"median {asked.median:.1f} ms, {calls}")
    table.add_row("daemon's processor time for each", f"{found.daemon_us_per_status:.0f} us")
    return table
