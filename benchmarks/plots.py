"""Results as pictures: time against hold length, number of images and cores.

White background, so that they read on a light and a dark page; a line is named at its end and not in a legend. The
colours are Okabe and Ito's, which people with any colour vision tell apart.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.catalogue import OURS
from benchmarks.results import CHOSEN, Coding, Report, Simulated, Spread, WorkResult

_COLOURS = {
    OURS: "#0072B2",
    "daemon": "#56B4E9",
    "concat": "#D55E00",
    "concat-accurate": "#7A2E00",
    "concat-once": "#A63D00",
    "image2": "#E69F00",
    "image2-accurate": "#B37A00",
    "moviepy": "#CC79A7",
    "imageio": "#009E73",
    "pyav": "#8C6D31",
    "opencv": "#666666",
    "stillreel-nvenc": "#004B76",
    "concat-nvenc": "#332288",
    "floor": "#999999",
}
_INK, _FAINT = "#222222", "#DDDDDD"
_LABEL_GAP = 0.055  # of the axis's height: what two labels need to stand one above the other

Points = dict[str, list[tuple[float, Spread]]]
Along = Callable[[WorkResult], float]


def plot_holds(report: Report, file: Path) -> Path:
    """Plot wall seconds against hold length, both logarithmic."""
    works = [work for work in report.works if work.hold is not None]
    title = f"{works[0].images} photographs at {works[0].width}×{works[0].height}: time against hold length"
    return _plot(works, lambda work: work.hold or 0, (title, "frames that each photograph is held"), file)


def plot_images(report: Report, file: Path) -> Path:
    """Plot wall seconds against the number of images, both logarithmic."""
    hold = report.works[0].hold
    title = f"Photographs held {hold} frames each: time against their number"
    return _plot(report.works, lambda work: work.images, (title, "photographs"), file)


def plot_cores(report: Report, file: Path) -> Path:
    """Plot wall seconds against the number of cores."""
    return _plot(report.works, lambda work: work.cores, (f"{report.works[0].title}: time against cores", "cores"), file)


def plot_pareto(report: Report, file: Path) -> Path:
    """Plot the size of stills coded once against the encoder's time, a panel for each metric, a point for each option.

    The size is over x264's own sequence, the mean of the kinds, each of which counts alike.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - from the bench extra

    tried: dict[str, list[Coding]] = {}
    for coding in report.codings:
        tried.setdefault(coding.options, []).append(coding)
    metrics = {"ssim": "equal SSIM", "vmaf": "equal VMAF", "rgb_psnr": "equal RGB PSNR"}
    figure = Figure(figsize=(15, 6.4), dpi=110, facecolor="white", layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, 3), metrics.items(), strict=True):
        for options, codings in tried.items():
            at = sum(coding.cpu_s for coding in codings) / sum(coding.stills for coding in codings) * 1000
            size = statistics.geometric_mean(coding.sizes[metric] for coding in codings) * 100
            is_ours = options == CHOSEN
            colour = _COLOURS[OURS] if is_ours else _INK
            axes.plot(at, size, marker="o", color=colour, markersize=8 if is_ours else 4)
            axes.annotate(
                options,
                (at, size),
                (5, 3),
                textcoords="offset points",
                color=colour,
                fontsize=8.5,
                weight="bold" if is_ours else "normal",
            )
        axes.axhline(100, color=_FAINT, zorder=0)
        axes.set_title(title, loc="left", color=_INK)
        axes.set(xlabel="encoder's processor time for a still, ms", ylabel="size, % of x264 coding every frame")
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return file


def plot_simulated(report: Report, file: Path) -> Path:
    """Plot how busy slots are when all work is there at first, and how long jobs wait that come one by one."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - from the bench extra

    lines: dict[tuple[str, float], list[Simulated]] = {}
    for row in report.simulated:
        lines.setdefault((row.way, row.job_s), []).append(row)
    figure = Figure(figsize=(13, 5.2), dpi=110, facecolor="white", layout="constrained")
    busy, wait = figure.subplots(1, 2)
    lengths = sorted({job_s for _, job_s in lines})
    for (way, job_s), rows in lines.items():
        colour = {"one daemon": "#0072B2", "1 shard a node": "#D55E00"}.get(way, "#009E73")
        style = {"color": colour, "linestyle": "-" if job_s == lengths[-1] else (0, (4, 2)), "marker": "o"}
        label, nodes = f"{way}, jobs of {job_s:.2g} s", [row.nodes for row in rows]
        busy.plot(nodes, [100 * row.busy_share for row in rows], label=label, markersize=4, **style)
        if way == "one daemon":
            waits = [math.nan if row.wait_p95_s is None else max(row.wait_p95_s, 0.001) for row in rows]
            wait.plot(nodes, waits, label=label, markersize=4, **style)
    busy.set_title("All work is there at first", loc="left", color=_INK)
    busy.set(ylabel="jobs' own time, % of that of all slots", ylim=(0, 105))
    wait.set_title("Jobs come one by one, for 80 % of the slots", loc="left", color=_INK)
    wait.set(ylabel="95 % have begun within, s", yscale="log")
    for axes in (busy, wait):
        axes.set(xscale="log", xlabel="nodes with two slots each")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(color=_FAINT, linewidth=0.8)
        axes.legend(frameon=False, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return file


def _plot(works: Sequence[WorkResult], along: Along, words: tuple[str, str], file: Path) -> Path:
    # From the bench extra, and slow to import.
    from matplotlib.figure import Figure  # noqa: PLC0415 - from the bench extra

    figure = Figure(figsize=(8.4, 5.2), dpi=160, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    points, titles = _points(works, along), _titles(works)
    for name, line in points.items():
        x, y = [at for at, _ in line], [spread.median for _, spread in line]
        colour, is_ours = _COLOURS.get(name, _INK), name == OURS
        style = {"linestyle": (0, (4, 3)), "marker": ""} if name == "floor" else {"marker": "o", "markersize": 4.5}
        axes.plot(x, y, color=colour, linewidth=3 if is_ours else 1.7, zorder=3 if is_ours else 2, **style)
        axes.vlines(x, [spread.least for _, spread in line], [spread.most for _, spread in line], colors=colour)
    _dress(axes, sorted({at for line in points.values() for at, _ in line}), words)
    _label(axes, points, titles)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return file


def _points(works: Sequence[WorkResult], along: Along) -> Points:
    found: Points = {}
    for work in sorted(works, key=along):
        for peer in work.peers:
            if peer.wall is not None:
                found.setdefault(peer.name, []).append((along(work), peer.wall))
    return found


def _titles(works: Sequence[WorkResult]) -> dict[str, str]:
    return {peer.name: "stillreel" if peer.name == OURS else peer.title for work in works for peer in work.peers}


def _dress(axes: Any, ticks: Sequence[float], words: tuple[str, str]) -> None:
    axes.set(xscale="log", yscale="log", xlabel=words[1])
    axes.set_title(words[0], loc="left", color=_INK, fontsize=12.5, pad=26)
    axes.text(0, 1.025, "wall-clock seconds, whole process; lower is better", transform=axes.transAxes, color="#666666")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} s")
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in _round_numbers() if low <= tick <= high])
    axes.grid(axis="y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)


def _round_numbers() -> list[float]:
    return [lead * 10**power for power in range(-3, 5) for lead in (1, 2, 5)]


def _label(axes: Any, points: Points, titles: dict[str, str]) -> None:
    """Write each line's name at its end, moved up where the one below would be touched."""
    to_axes = axes.transAxes.inverted()
    right = max(at for line in points.values() for at, _ in line)
    ends = []
    for name, line in points.items():
        _, height = to_axes.transform(axes.transData.transform((line[-1][0], line[-1][1].median)))
        ends.append((height, name))
    ends.sort()
    heights: list[float] = []
    for height, _ in ends:
        heights.append(max(height, heights[-1] + _LABEL_GAP) if heights else height)
    surplus = max(0.0, heights[-1] - 1.0)
    edge, _ = to_axes.transform(axes.transData.transform((right, 1)))
    for (end, name), height in zip(ends, heights, strict=True):
        weight, colour = ("bold" if name == OURS else "normal"), _COLOURS.get(name, _INK)
        moved = height - surplus
        axes.plot(
            [edge + 0.008, edge + 0.03],
            [end, moved],
            transform=axes.transAxes,
            color=colour,
            linewidth=0.6,
            clip_on=False,
        )
        axes.text(
            edge + 0.036,
            moved,
            titles[name],
            transform=axes.transAxes,
            color=colour,
            va="center",
            weight=weight,
            fontsize=9.5,
        )
