"""Up to 1,000 nodes on paper: a queue, stragglers, lost nodes, and one daemon's loop, through which every job passes.

What a job takes, and what the loop takes for it, were measured and are read from the results kept here. What happens to
nodes, and how often a job takes far longer, are assumptions, stated below. The network and the disks have no limit.
"""

import bisect
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.peers.catalogue import OURS
from benchmarks.results import RESULTS, Report, Simulated

SLOTS = 2  # of a node, whose two cores they share
STRAGGLER_SHARE, STRAGGLER_TIMES = 0.01, 10.0  # one job in a hundred takes ten times as long
LIFE_S, NOTICED_S, BACK_S = 24 * 3600.0, 30.0, 120.0  # a node lives for a day; its loss is noticed, and it comes back
LOAD = 0.8  # of what the slots can do, where jobs come one by one
SHARDS = (0, 1, 10)  # for each node; 0: one daemon, which has slots on all nodes
_AGAIN = -1  # the number of a job that was tried before


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured, in seconds.

    Attributes:
        job_s: a job in a slot, 8 photographs at 1080p (load.json).
        start_s: a command, until it renders (images.json).
        loop_s: the loop's own time for a job of a length, where there were most slots (ceiling.json).
    """

    job_s: float
    start_s: float
    loop_s: dict[float, float]

    @classmethod
    def kept(cls) -> "Measured":
        load, fed = Report.load(RESULTS / "load.json").under_load, Report.load(RESULTS / "ceiling.json").fed
        if load is None or not fed:
            raise ValueError("expected load.json and ceiling.json to hold a measurement")
        job_s = load.workers / statistics.median(load.daemon_jobs_per_s)
        ours = [peer for work in Report.load(RESULTS / "images.json").works for peer in work.peers if peer.name == OURS]
        start_s = statistics.median(peer.wall_s[0] - peer.inside_s[0] for peer in ours)
        most = sorted(fed, key=lambda row: row.slots)
        return cls(round(job_s, 3), round(start_s, 3), {row.job_s: row.cpu_ms_per_job / 1000 for row in most})

    def loop_for(self, job_s: float) -> float:
        """Return the loop's time for a job, from the measured length that is nearest by ratio."""
        return self.loop_s[min(self.loop_s, key=lambda length: abs(math.log(length / job_s)))]


@dataclass(slots=True)
class Run:
    """How a run ended.

    Attributes:
        took_s: until the last job had ended.
        waits_s: from when a job came until its first attempt began.
        lost: attempts that ended with their node.
    """

    took_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    lost: int = 0


def play(
    chance: random.Random, nodes: int, slots: int, jobs: Iterable[tuple[float, float]], loop_s: float, *, goes_on: bool
) -> Run:
    """Play jobs over nodes, given in order as when each comes and what it takes; the slot that is free first takes one.

    A job takes the loop's time before it begins. One whose node is lost comes again when that is noticed.

    Args:
        goes_on: it then takes only what was left of it, as a shard does, whose finished videos are skipped.
    """
    run, loop_free_s = Run(), 0.0
    losses = [list(_losses(chance)) for _ in range(nodes)]
    free = [(0.0, node) for node in range(nodes) for _ in range(slots)]
    waiting = [(came_s, number, takes_s) for number, (came_s, takes_s) in enumerate(jobs)]  # sorted, and so a heap
    while waiting:
        came_s, number, takes_s = heapq.heappop(waiting)
        given_s, node = _free_slot(free, losses, max(came_s, loop_free_s))
        loop_free_s = given_s + loop_s
        ends_s, lost_s = loop_free_s + takes_s, _next(losses[node], given_s)
        if number != _AGAIN:
            run.waits_s.append(loop_free_s - came_s)
        if lost_s < ends_s:
            run.lost += 1
            done_s = max(0.0, lost_s - loop_free_s) if goes_on else 0.0
            heapq.heappush(waiting, (lost_s + NOTICED_S, _AGAIN, takes_s - done_s))
        else:
            run.took_s = max(run.took_s, ends_s)
        heapq.heappush(free, (min(ends_s, lost_s), node))
    return run


def _free_slot(free: list[tuple[float, int]], losses: list[list[float]], at_s: float) -> tuple[float, int]:
    """Take the slot that is free first, and return from when on; one whose node is away comes later."""
    while True:
        free_s, node = heapq.heappop(free)
        from_s = max(free_s, at_s)
        earlier = bisect.bisect_right(losses[node], from_s)
        back_s = losses[node][earlier - 1] + BACK_S if earlier else 0.0
        if back_s <= from_s:
            return from_s, node
        heapq.heappush(free, (back_s, node))


def _losses(chance: random.Random) -> Iterator[float]:
    """Yield when a node is lost; four days are longer than any run here."""
    at_s = chance.expovariate(1 / LIFE_S)
    while at_s < 4 * LIFE_S:
        yield at_s
        at_s += BACK_S + chance.expovariate(1 / LIFE_S)


def _next(losses: list[float], since_s: float) -> float:
    later = bisect.bisect_right(losses, since_s)
    return losses[later] if later < len(losses) else math.inf


def takes(chance: random.Random, job_s: float) -> float:
    """Return what a job takes: a tenth more or less, or far longer."""
    return job_s * chance.gauss(1, 0.1) * (STRAGGLER_TIMES if chance.random() < STRAGGLER_SHARE else 1)


def simulate(measured: Measured, nodes: int, jobs_for_slot: int, seeds: Sequence[int]) -> Iterator[Simulated]:
    """Yield what so many nodes do, with jobs as they were measured and twenty times as long; the seeds' median."""
    for job_s, shards in itertools.product((measured.job_s, 20 * measured.job_s), SHARDS):
        played = []
        for seed in seeds:
            chance = random.Random(seed)
            work_s = [takes(chance, job_s) for _ in range(nodes * SLOTS * jobs_for_slot)]
            if shards:
                told = _shards(chance, nodes, work_s, nodes * shards, measured.start_s)
            else:
                told = _one_daemon(chance, nodes, work_s, measured.loop_for(job_s))
            played.append(told.model_copy(update={"job_s": round(job_s, 3)}))
        yield sorted(played, key=lambda told: told.jobs_per_s)[len(played) // 2]


def _one_daemon(chance: random.Random, nodes: int, work_s: list[float], loop_s: float) -> Simulated:
    """Play all work at once, and then as it comes, unless more would come than the loop can pass on."""
    run = play(chance, nodes, SLOTS, ((0.0, each) for each in work_s), loop_s, goes_on=False)
    told = _told("one daemon", nodes, work_s, run)
    rate = LOAD * nodes * SLOTS / statistics.fmean(work_s)
    if rate * loop_s >= 1:
        return told
    arrivals = itertools.accumulate(chance.expovariate(rate) for _ in work_s)
    coming = play(chance, nodes, SLOTS, zip(arrivals, work_s, strict=True), loop_s, goes_on=False)
    return told.model_copy(update={"wait_p95_s": round(statistics.quantiles(coming.waits_s, n=20)[-1], 3)})


def _shards(chance: random.Random, nodes: int, work_s: list[float], shards: int, start_s: float) -> Simulated:
    """Play shards, each of which has a node's slots for itself."""
    parts_s = [start_s] * shards
    for each in work_s:
        parts_s[chance.randrange(shards)] += each / SLOTS
    run = play(chance, nodes, 1, ((0.0, part_s) for part_s in parts_s), 0.0, goes_on=True)
    return _told(f"{shards // nodes} shard{'s' if shards > nodes else ''} a node", nodes, work_s, run)


def _told(way: str, nodes: int, work_s: list[float], run: Run) -> Simulated:
    return Simulated(
        way=way,
        nodes=nodes,
        jobs_per_s=round(len(work_s) / run.took_s, 2),
        busy_share=round(sum(work_s) / run.took_s / nodes / SLOTS, 4),
        lost=run.lost,
    )
