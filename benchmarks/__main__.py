"""`python -m benchmarks`: the harness's command line."""

import os
import sys
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import plots, readme
from benchmarks.compare import Plan, compare
from benchmarks.floor import FLOOR_WORKS
from benchmarks.peers.base import Peer
from benchmarks.peers.catalogue import OURS, PEERS
from benchmarks.results import RESULTS, Report, Throughput, WorkResult, this_machine
from benchmarks.tables import (
    ceiling_table,
    curve_table,
    floor_table,
    left_out,
    load_table,
    overhead_table,
    pareto_table,
    polling_table,
    ray_table,
    simulated_table,
    sound_table,
    startup_table,
    throughput_table,
    work_table,
    workers_table,
)
from benchmarks.workloads import WORKLOADS, Workload, find, uniform
from protocol.schema import Preset

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Time stillreel beside the usual ways to make a video of stills: the same work, the same quality, in turn in "
    "one run. Without a command: the five-minute set. Numbers go to benchmarks/results/ as JSON.",
)
err = Console(stderr=True)
# A pipe has no width of its own, and the table of peers needs this much.
out = Console(width=None if sys.stdout.isatty() else 200)

_NVENC = "stillreel-nvenc,concat-nvenc"  # left out, with the reason, where no GPU encodes
_USUAL = f"stillreel,daemon,floor,concat,concat-accurate,moviepy,imageio,pyav,{_NVENC}"
_PLOTTED = f"stillreel,floor,concat,concat-accurate,moviepy,imageio,pyav,{_NVENC}"
FIVE_MINUTES = {"service": "", "24x1-1080p": "", "24x24-1080p": _USUAL}  # workload: its peers; all if empty
HOLDS, IMAGES = (1, 4, 24, 240), (8, 24, 100)

Rounds = Annotated[int, typer.Option(min=1, help="Timed turns of each peer.")]
PeerNames = Annotated[str, typer.Option("--peers", help="Names with commas between; see `list`. Default: all.")]
WithQuality = Annotated[bool, typer.Option("--quality", help="Compare the pictures too: SSIM, VMAF and RGB PSNR.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder for JSON and PNG files.")]
SizeName = Annotated[str, typer.Option("--size", help="tiny, 360p, 720p, 1080p or 4k.")]


@app.callback(invoke_without_command=True)
def five_minutes(context: typer.Context, folder: Folder = RESULTS) -> None:
    """Run the five-minute set unless a command is named."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every process would compile what it imports
    if context.invoked_subcommand is None:
        plan = Plan(rounds=2, with_quality=True)
        works = [_compare(find(name), peers, plan) for name, peers in FIVE_MINUTES.items()]
        _overhead_of(["24x1-1080p"], 3, works, "five-minutes", folder)


@app.command("list")
def show() -> None:
    """Name the workloads and the peers."""
    for heading, rows in (
        ("workload", [(work.name, work.title) for work in WORKLOADS.values()]),
        ("peer", [(peer.name, peer.title) for peer in PEERS.values()]),
    ):
        table = Table(heading, "", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        out.print(table, "")
    out.print("Any IMAGESxHOLD-SIZE is a workload too, such as 100x48-720p.")


@app.command()
def run(
    workloads: Annotated[list[str], typer.Argument(help="Names; see `list`.")],
    peers: PeerNames = "",
    rounds: Rounds = 3,
    quality: WithQuality = False,
    folder: Folder = RESULTS,
    name: Annotated[str, typer.Option(help="Name of the result; the workloads' if absent.")] = "",
) -> None:
    """Compare peers on workloads."""
    works = [_compare(_find(work), peers, Plan(rounds, quality)) for work in workloads]
    _save(Report(machine=this_machine(), works=tuple(works)), name or "+".join(workloads), folder)


@app.command()
def holds(
    lengths: Annotated[str, typer.Option(help="Hold lengths with commas between.")] = ",".join(map(str, HOLDS)),
    images: Annotated[int, typer.Option(min=1, help="Photographs.")] = 24,
    size: SizeName = "1080p",
    peers: PeerNames = _PLOTTED,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Plot time against hold length."""
    works = [
        _compare(uniform(images, int(n), size), peers, Plan(rounds, with_quality=True)) for n in lengths.split(",")
    ]
    report = _save(Report(machine=this_machine(), works=tuple(works)), "holds", folder)
    _plotted(plots.plot_holds(report, folder / "holds.png"))


@app.command("images")
def images_count(
    counts: Annotated[str, typer.Option(help="Numbers of photographs with commas between.")] = ",".join(
        map(str, IMAGES)
    ),
    hold: Annotated[int, typer.Option(min=1, help="Frames each is held.")] = 24,
    size: SizeName = "1080p",
    peers: PeerNames = _PLOTTED,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Plot time against the number of images."""
    works = [_compare(uniform(int(n), hold, size), peers, Plan(rounds)) for n in counts.split(",")]
    report = _save(Report(machine=this_machine(), works=tuple(works)), "images", folder)
    _plotted(plots.plot_images(report, folder / "images.png"))


@app.command()
def cores(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "24x24-1080p",
    peers: PeerNames = _PLOTTED,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Plot time against cores: 1, 2, 4 and so on, as many as there are (Linux, with taskset)."""
    allowed = sorted(os.sched_getaffinity(0))
    counts = [count for count in (1, 2, 4, 8, 16, 32, 64) if count <= len(allowed)]
    works = [_compare(_find(workload), peers, Plan(rounds, cores=tuple(allowed[:count]))) for count in counts]
    report = _save(Report(machine=this_machine(), works=tuple(works)), "cores", folder)
    _plotted(plots.plot_cores(report, folder / "cores.png"))


@app.command()
def overhead(
    workloads: Annotated[list[str] | None, typer.Argument(help="Names; 24x1-1080p if absent.")] = None,
    rounds: Rounds = 5,
    folder: Folder = RESULTS,
) -> None:
    """Time the daemon's round trip against a render in process and the ffmpeg command line."""
    _overhead_of(workloads or ["24x1-1080p"], rounds, [], "overhead", folder)


@app.command()
def load(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "8x24-720p",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs timed in each round.")] = 60,
    waiting: Annotated[int, typer.Option(min=1, help="Jobs that wait while clients ask.")] = 1000,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Time a busy daemon: its throughput against `render` in a loop, and its answers to 50 clients."""
    from benchmarks.load import measure_load  # noqa: PLC0415 - brings the renderer in, which only this needs

    with err.status("") as status:
        found = measure_load(_find(workload), jobs, waiting, rounds, status.update)
    out.print(load_table(found))
    _save(Report(machine=this_machine(), works=(), under_load=found), "load", folder)


@app.command()
def floor(
    workloads: Annotated[list[str] | None, typer.Argument(help="Names; README.md's if absent.")] = None,
    rounds: Rounds = 5,
    quality: WithQuality = False,
    folder: Folder = RESULTS,
) -> None:
    """Time `render` against the least that its parts can take: Python, OpenCV and ffmpeg with nothing around them."""
    plan = Plan(rounds, quality)
    works = [_compare(_find(name), f"{OURS},bare", plan) for name in workloads or FLOOR_WORKS]
    out.print(floor_table(works))
    _save(Report(machine=this_machine(), works=tuple(works)), "floor", folder)


@app.command()
def throughput(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "service",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs timed in each round.")] = 20,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Time two workers of a daemon against `xargs -P2 ffmpeg`."""
    found = _throughput(workload, jobs, rounds)
    _save(Report(machine=this_machine(), throughput=found), "throughput", folder)


@app.command()
def workers(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "8x24-1080p",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs timed in each round.")] = 10,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Time one worker and two, on one core and on two, beside as many ffmpegs (Linux, with taskset)."""
    from benchmarks.workers import measure_workers  # noqa: PLC0415 - psutil comes with the bench extra

    with err.status("") as status:
        found = measure_workers(_find(workload), jobs, rounds, status.update)
    out.print(workers_table(found))
    _save(Report(machine=this_machine(), workers=found), "workers", folder)


@app.command()
def sound(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "24x24-1080p",
    rounds: Rounds = 5,
    folder: Folder = RESULTS,
) -> None:
    """Time a job with one stereo track beside the same without, and the AAC coder alone."""
    from benchmarks.sound import measure_sound  # noqa: PLC0415 - brings the protocol in, which only this needs

    with err.status("") as status:
        found = measure_sound(_find(workload), rounds, status.update)
    out.print(sound_table(found))
    _save(Report(machine=this_machine(), sound=found), "sound", folder)


@app.command("readme")
def write_readme(folder: Folder = RESULTS, into: Annotated[Path, typer.Option(help="File.")] = readme.README) -> None:
    """Measure what README.md shows and write its tables and its plot (a quarter of an hour on two quiet cores)."""
    works = [_compare(find(row.work), row.peers, row.plan) for row in readme.ROWS]
    found = _throughput(*readme.THROUGHPUT)
    report = _save(Report(machine=this_machine(), works=tuple(works), throughput=found), "readme", folder)
    readme.write_tables(report, into)
    _plotted(plots.plot_holds(_save(readme.plotted(report), "holds", folder), folder / "holds.png"))


@app.command()
def ray(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "8x24-720p",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs timed in each round.")] = 200,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Time jobs through a Ray cluster on this machine against the same jobs in a daemon's own workers."""
    from benchmarks.on_ray import measure_ray  # noqa: PLC0415 - brings the renderer in, which only this needs

    with err.status("") as status:
        found = measure_ray(_find(workload), jobs, rounds, status.update)
    out.print(ray_table(found))
    _save(Report(machine=this_machine(), on_ray=found), "ray", folder)


@app.command()
def ceiling(
    counts: Annotated[str, typer.Option(help="Numbers of slots with commas between.")] = "20,50,100,200,500,1000",
    lengths: Annotated[str, typer.Option(help="Seconds of a job, with commas between.")] = "0.1,1,10",
    seconds: Annotated[float, typer.Option(min=1, help="Of each measurement, or four jobs if they take longer.")] = 10,
    folder: Folder = RESULTS,
) -> None:
    """Measure how many slots one daemon's loop keeps busy; slots that sleep stand in for nodes."""
    from benchmarks.ceiling import measure_ceiling, measure_floor  # noqa: PLC0415 - brings the renderer in

    with err.status("") as status:
        pairs = [(int(slots), float(job_s)) for job_s in lengths.split(",") for slots in counts.split(",")]
        found = tuple(measure_ceiling(slots, job_s, seconds, status.update) for slots, job_s in pairs)
        floor_ms = measure_floor()
    out.print(ceiling_table(found, floor_ms))
    _save(Report(machine=this_machine(), fed=found, floor_ms=floor_ms), "ceiling", folder)


@app.command("simulate")
def simulated(
    counts: Annotated[
        str, typer.Option(help="Numbers of nodes with commas between.")
    ] = "1,2,5,10,20,50,100,200,500,1000",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs for each slot.")] = 200,
    rounds: Rounds = 3,
    folder: Folder = RESULTS,
) -> None:
    """Simulate up to 1,000 nodes with the times that `load` and `ceiling` have measured, and plot it."""
    from benchmarks.simulate import Measured, simulate  # noqa: PLC0415 - only this needs it

    with err.status("playing"):
        measured = Measured.kept()
        found = [row for nodes in counts.split(",") for row in simulate(measured, int(nodes), jobs, range(rounds))]
    out.print(simulated_table(found))
    report = _save(Report(machine=this_machine(), simulated=tuple(found)), "simulate", folder)
    _plotted(plots.plot_simulated(report, folder / "simulate.png"))


@app.command()
def polling(
    workload: Annotated[str, typer.Argument(help="Name; see `list`.")] = "8x24-1080p",
    jobs: Annotated[int, typer.Option(min=1, help="Jobs timed in each round.")] = 30,
    rounds: Rounds = 5,
    cores: Annotated[int, typer.Option(min=0, help="Cores for the daemon; the clients get the rest. 0: all.")] = 0,
    folder: Folder = RESULTS,
) -> None:
    """Time two workers' jobs while 200 clients ask for a status ten times a second (Linux, with taskset)."""
    from benchmarks.polling import measure_polling  # noqa: PLC0415 - psutil comes with the bench extra

    with err.status("") as status:
        found = measure_polling(_find(workload), jobs, rounds, cores or os.cpu_count() or 1, status.update)
    out.print(polling_table(found))
    _save(Report(machine=this_machine(), polled=(found,)), "polling", folder)


@app.command()
def pareto(
    presets: Annotated[str, typer.Option(help="Of x264, with commas between.")] = "veryfast",
    holds: Annotated[str, typer.Option(help="Hold lengths with commas between, each of a second or more.")] = "24",
    options: Annotated[str, typer.Option(help="Sets of options with semicolons between. Default: all.")] = "",
    size: SizeName = "1080p",
    folder: Folder = RESULTS,
    name: Annotated[str, typer.Option(help="Name of the result.")] = "pareto",
) -> None:
    """Weigh x264's options for held stills: time against size at equal SSIM, VMAF and RGB PSNR (20 minutes)."""
    from benchmarks.pareto import OPTIONS, measure_pareto  # noqa: PLC0415 - brings the renderer in

    chosen = options.split(";") if options else list(OPTIONS)
    if unknown := [each for each in chosen if each not in OPTIONS]:
        raise typer.BadParameter(f"no options {'; '.join(unknown)}: expected some of {'; '.join(OPTIONS)}")
    with err.status("") as status:
        codings = [
            coding
            for preset in presets.split(",")
            for hold in holds.split(",")
            for coding in measure_pareto(cast("Preset", preset), int(hold), chosen, size, status.update)
        ]
    out.print(pareto_table(codings))
    report = _save(Report(machine=this_machine(), codings=tuple(codings)), name, folder)
    if len(chosen) > 1:
        _plotted(plots.plot_pareto(report, folder / f"{name}.png"))


@app.command()
def curve(
    seconds: Annotated[float, typer.Option(min=1, help="Of each round at each door.")] = 10,
    rounds: Rounds = 5,
    folder: Folder = RESULTS,
) -> None:
    """Time the daemon while 100 clients ask for a status ten times a second, behind CURVE and without."""
    from benchmarks.curve import measure_curve  # noqa: PLC0415 - psutil comes with the bench extra

    with err.status("") as status:
        found = measure_curve(seconds, rounds, status.update)
    out.print(curve_table(found))
    _save(Report(machine=this_machine(), behind_curve=found), "curve", folder)


@app.command()
def startup(rounds: Rounds = 7, folder: Folder = RESULTS) -> None:
    """Time short commands, the way of `render` to its first still, and a daemon until it is ready."""
    from benchmarks.startup import measure_startup  # noqa: PLC0415 - psutil comes with the bench extra

    with err.status("") as status:
        found = measure_startup(rounds, status.update)
    out.print(startup_table(found))
    _save(Report(machine=this_machine(), startup=found), "startup", folder)


@app.command()
def replot(
    file: Annotated[Path, typer.Argument(help="holds.json, images.json, cores.json, pareto.json or simulate.json.")],
) -> None:
    """Draw the plot of an earlier run again."""
    draw = {
        "holds": plots.plot_holds,
        "images": plots.plot_images,
        "cores": plots.plot_cores,
        "pareto": plots.plot_pareto,
        "simulate": plots.plot_simulated,
    }[file.stem]
    _plotted(draw(Report.load(file), file.with_suffix(".png")))


def _throughput(workload: str, jobs: int, rounds: int) -> Throughput:
    from benchmarks.throughput import measure_throughput  # noqa: PLC0415 - brings the renderer in

    with err.status("") as status:
        found = measure_throughput(_find(workload), jobs, rounds, status.update)
    out.print(throughput_table(found))
    return found


def _overhead_of(names: list[str], rounds: int, works: list[WorkResult], result: str, folder: Path) -> None:
    from benchmarks.overhead import measure_overhead  # noqa: PLC0415 - brings the renderer in, which only this needs

    found = []
    for name in names:
        with err.status("") as status:
            found.append(measure_overhead(_find(name), rounds, status.update))
        out.print(overhead_table(found[-1]))
    _save(Report(machine=this_machine(), works=tuple(works), overhead=tuple(found)), result, folder)


def _compare(work: Workload, peers: str, plan: Plan) -> WorkResult:
    with err.status(f"{work.name}: making its stills") as status:
        result = compare(work, _peers(peers), plan, status.update)
    out.print(work_table(result))
    for line in left_out(result):
        out.print(line, style="dim", markup=False, highlight=False)
    return result


def _find(name: str) -> Workload:
    try:
        return find(name)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0])) from error


def _peers(names: str) -> list[Peer]:
    chosen = names.split(",") if names else list(PEERS)
    unknown = [name for name in chosen if name not in PEERS]
    if unknown:
        raise typer.BadParameter(f"no peer {', '.join(unknown)}: expected some of {', '.join(PEERS)}")
    return [PEERS[name] for name in chosen]


def _save(report: Report, name: str, folder: Path) -> Report:
    err.print(f"[dim]numbers: {report.save(name, folder)}[/]")
    return report


def _plotted(file: Path) -> None:
    err.print(f"[dim]plot: {file}[/]")


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
