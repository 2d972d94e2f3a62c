"""What README.md shows, measured in one run and written into it.

Photographs at 1080p held for 1 to 240 frames (the plot, and the table of all peers at a hold of 24), the same as PNG,
sequences without holds, photographs of 24 megapixels, the hosted service's example through the daemon, and two workers
beside two ffmpegs. Every row has ffmpeg's default and its accurate conversion.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import Plan
from benchmarks.peers.catalogue import OURS
from benchmarks.results import PeerResult, Quality, Report, Throughput, WorkResult

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- written by python -m benchmarks readme -->", "<!-- end of what it writes -->"

_CONCAT, _IMAGE2 = ("concat", "concat-accurate"), ("image2", "image2-accurate")
_OTHERS = ("pyav", "moviepy")


@dataclass(frozen=True, slots=True)
class Row:
    """One workload of the run.

    Attributes:
        ours: the peer that stands for stillreel.
        theirs: ffmpeg with its default conversion and its accurate one.
    """

    work: str
    words: str
    plan: Plan
    ours: str = OURS
    theirs: tuple[str, str] = _CONCAT
    others: tuple[str, ...] = ()

    @property
    def peers(self) -> str:
        return ",".join((self.ours, *self.theirs, *self.others))


_LONG = Plan(rounds=1, with_warm_up=False)  # five minutes for one turn of each
ROWS = (
    Row("24x1-1080p", "", Plan(rounds=1), others=_OTHERS),
    Row("24x4-1080p", "24 JPEG, 4 frames each", Plan(rounds=3), others=_OTHERS),
    Row("24x24-1080p", "24 JPEG, 24 frames each", Plan(rounds=3, with_quality=True), others=_OTHERS),
    Row("24x240-1080p", "24 JPEG, 240 frames each", _LONG, others=_OTHERS),
    Row("png", "24 PNG, 24 frames each", Plan(rounds=3)),
    Row("120x1-1080p", "120 JPEG without holds", Plan(rounds=3), theirs=_IMAGE2),
    Row("large", "24 JPEG of 24 megapixels without holds", Plan(rounds=3), theirs=_IMAGE2),
    Row("service", "the hosted service's example, through the daemon", Plan(rounds=5), ours="daemon"),
)
THROUGHPUT = ("service", 20, 3)  # workload, jobs of each round, rounds


def plotted(report: Report) -> Report:
    """Return the part of the report that the plot of time against hold length shows."""
    holds = tuple(work for work, row in zip(report.works, ROWS, strict=True) if row.others)
    return report.model_copy(update={"works": holds, "throughput": None})


def write_tables(report: Report, readme: Path = README) -> None:
    """Put the report's tables in place of the earlier ones."""
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{readme.name}: expected a line {BEGIN} and after it a line {END}")
    tables = "\n\n".join("\n".join(lines) for lines in (_speed(report), _quality(report)))
    readme.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}", encoding="utf-8")


def _speed(report: Report) -> Iterator[str]:
    yield "| 1080p, 24 fps | stillreel | ffmpeg | | ffmpeg, accurate | |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for row, work in zip(ROWS, report.works, strict=True):
        ours, *theirs = (_peer(work, name) for name in (row.ours, *row.theirs))
        if row.words and all(peer.wall for peer in (ours, *theirs)):
            yield _cells([row.words, f"**{_seconds(ours):.2f} s**", *_against(ours, theirs)])
    if report.throughput:
        yield _cells(_jobs(report.throughput))


def _against(ours: PeerResult, theirs: Sequence[PeerResult]) -> Iterator[str]:
    for peer in theirs:
        ratio = statistics.median(a / b for a, b in zip(peer.wall_s, _each_s(ours), strict=True))
        yield f"{_seconds(peer):.2f} s"
        yield f"× {ratio:.2g}"


def _each_s(peer: PeerResult) -> tuple[float, ...]:
    """Return the seconds of each turn: for the daemon those of the round trip, without the start of its client."""
    return peer.inside_s if peer.name == "daemon" else peer.wall_s


def _seconds(peer: PeerResult) -> float:
    return statistics.median(_each_s(peer))


def _jobs(found: Throughput) -> list[str]:
    ours, usual, accurate = (
        f"{statistics.median(rates):.1f} jobs/s"
        for rates in (found.daemon_jobs_per_s, found.concat_jobs_per_s, found.accurate_jobs_per_s)
    )
    ratios = [f"× {ratio.median:.2g}" for ratio in (found.daemon_times_concat, found.daemon_times_accurate)]
    words = "that example again and again, two workers beside `xargs -P2 ffmpeg`"
    return [words, f"**{ours}**", usual, ratios[0], accurate, ratios[1]]


def _quality(report: Report) -> Iterator[str]:
    yield (
        "| 24 JPEG, 24 frames each | processor time | page faults a still | size | SSIM | VMAF | RGB PSNR "
        "| colours | off by | frames | wrong |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    work = next(work for work in report.works if any(peer.quality for peer in work.peers))
    for peer in work.peers:
        if (quality := peer.quality) and (video := peer.video):
            yield _cells(
                [
                    peer.title.removesuffix(" render"),
                    f"{statistics.median(peer.cpu_s):.1f} s",
                    f"{statistics.median(peer.faults) / work.images:,.0f}",
                    f"{video.size_bytes / 1e6:.1f} MB",
                    f"{quality.ssim:.4f}",
                    f"{quality.vmaf:.1f}",
                    f"{quality.rgb_psnr:.1f} dB",
                    _colours(quality),
                    f"{quality.colour_error:.1f}",
                    f"{video.frames} of {video.frames_expected}",
                    str(quality.edges_wrong),
                ]
            )


def _colours(quality: Quality) -> str:
    found = quality.colour.upper().replace("BT", "BT.").replace(" LIMITED", "").replace("FULL", "full range")
    return found if quality.tagged == quality.colour else f"{found}, not tagged"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _peer(work: WorkResult, name: str) -> PeerResult:
    return next(peer for peer in work.peers if peer.name == name)
