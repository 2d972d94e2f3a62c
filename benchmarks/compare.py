"""Peers side by side: everyone does the same work in turn, round after round, and the ratio is taken within a round.

Whatever else the machine does then falls on all alike. The first turn of each is not timed: it fills the file cache,
shows that the peer works at all, and is where memory, the file and its quality are looked at. Work that takes minutes
has no such turn, and its memory is not looked at.
"""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Finished, Memory, run
from benchmarks.peers.base import Peer, Task, lay_out
from benchmarks.peers.catalogue import OURS
from benchmarks.peers.daemon import Daemon, serving
from benchmarks.peers.script import UNAVAILABLE
from benchmarks.photographs import cache_dir
from benchmarks.quality import examine, judge
from benchmarks.results import PeerResult, Quality, Spread, Video, WorkResult
from benchmarks.workloads import CRF, PRESET, Workload

_LAST_WORDS = 400

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a comparison is made.

    Attributes:
        rounds: timed turns of each peer.
        with_warm_up: a turn before them is not timed.
        cores: the processors that may be used, by number; all if empty.
    """

    rounds: int = 3
    with_quality: bool = False
    with_warm_up: bool = True
    cores: tuple[int, ...] = ()

    @property
    def prefix(self) -> list[str]:
        return ["taskset", "--cpu-list", ",".join(map(str, self.cores))] if self.cores else []


@dataclass(slots=True)
class _Turn:
    """A peer while it is compared."""

    peer: Peer
    task: Task
    command: list[str] = field(default_factory=list)
    daemon_pid: int | None = None
    why_not: str | None = None
    memory: Memory = field(default_factory=Memory)
    video: Video | None = None
    quality: Quality | None = None
    wall_s: list[float] = field(default_factory=list)
    inside_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)

    def take(self, *, memory: Memory | None = None) -> None:
        """Do the work once; what it cost is noted unless memory is looked at."""
        self.task.output.unlink(missing_ok=True)
        done = run(self.command, daemon_pid=self.daemon_pid, memory=memory)
        if done.code != 0 or not self.task.output.exists():
            words = done.stderr.strip()[-_LAST_WORDS:]
            is_lacking = done.code == UNAVAILABLE  # then the last line is the reason
            self.why_not = words.split("\n")[-1] if is_lacking else f"failed with exit code {done.code}: {words}"
        elif memory is None:
            self.wall_s.append(round(done.wall_s, 4))
            self.cpu_s.append(round(done.cpu_s, 4))
            self.faults.append(done.faults)
            self.inside_s += _inside_s(done)


def compare(work: Workload, peers: Sequence[Peer], plan: Plan, say: Say = lambda _: None) -> WorkResult:
    """Let the peers do the work and return what it cost each."""
    work.stills()
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        with _daemon(peers, folder, plan) as daemon:
            turns = [_turn(peer, work, folder, daemon, plan) for peer in peers]
            for turn in _able(turns) if plan.with_warm_up else ():
                say(f"{work.name}: {turn.peer.name}, warm-up")
                turn.take(memory=turn.memory)
                _look(turn, work, plan)
            for number in range(plan.rounds):
                for turn in _able(turns):
                    say(f"{work.name}: {turn.peer.name}, round {number + 1} of {plan.rounds}")
                    turn.take()
                    _look(turn, work, plan)
        ours = next((turn.wall_s for turn in turns if turn.peer.name == OURS), [])
        results = tuple(_result(turn, ours, folder) for turn in turns)
    return WorkResult(
        name=work.name,
        title=work.title,
        images=len(work.holds),
        frames=work.frames,
        hold=work.hold,
        width=work.size[0],
        height=work.size[1],
        fps=work.fps,
        preset=PRESET,
        crf=CRF,
        cores=len(plan.cores) or _cores(),
        peers=results,
    )


@contextlib.contextmanager
def _daemon(peers: Sequence[Peer], folder: Path, plan: Plan) -> Iterator[Daemon | None]:
    if not any(peer.needs_daemon for peer in peers):
        yield None
        return
    with serving(folder / "daemon", cache_dir(), plan.prefix) as daemon:
        yield daemon


def _turn(peer: Peer, work: Workload, folder: Path, daemon: Daemon | None, plan: Plan) -> _Turn:
    task = lay_out(work, folder / peer.name, daemon.endpoint if daemon and peer.needs_daemon else "")
    turn = _Turn(peer, task, why_not=peer.why_not(task))
    if turn.why_not is None:
        turn.command = [*plan.prefix, *peer.command(task)]
        turn.daemon_pid = daemon.pid if daemon and peer.needs_daemon else None
    return turn


def _able(turns: Sequence[_Turn]) -> Iterator[_Turn]:
    return (turn for turn in turns if turn.why_not is None)


def _look(turn: _Turn, work: Workload, plan: Plan) -> None:
    """Look at the video of a peer's first turn."""
    if turn.why_not is None and turn.video is None:
        turn.video = examine(turn.task.output, turn.peer.frames(work), work.fps)
        if plan.with_quality:
            turn.quality = judge(turn.task.output, work, one_frame_each=turn.peer.is_floor)


def _inside_s(done: Finished) -> list[float]:
    """Read what a Python peer says of itself; ffmpeg says nothing."""
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return []
    seconds = said.get("inside_s") or said.get("timings", {}).get("total")
    return [] if seconds is None else [round(seconds, 4)]


def _result(turn: _Turn, ours: list[float], folder: Path) -> PeerResult:
    peer = turn.peer
    pairs = list(zip(turn.wall_s, ours, strict=False))
    return PeerResult(
        name=peer.name,
        title=peer.title,
        command=in_short(turn.command, folder, turn.task.ffmpeg),
        why_not=turn.why_not,
        wall_s=tuple(turn.wall_s),
        inside_s=tuple(turn.inside_s),
        cpu_s=tuple(turn.cpu_s),
        faults=tuple(turn.faults),
        wall=Spread.of(turn.wall_s) if turn.wall_s else None,
        times_ours=Spread.of([theirs / our for theirs, our in pairs]) if pairs else None,
        peak_process_bytes=turn.memory.process_bytes or None,
        peak_tree_bytes=turn.memory.tree_bytes or None,
        video=turn.video,
        quality=turn.quality,
    )


def in_short(command: Sequence[str], folder: Path, ffmpeg: str) -> str:
    """Return the command as a reader would type it: no paths of this machine."""
    text = shlex.join(command)
    project = f"{Path(__file__).parents[1]}/"
    for long, short in ((str(folder), "WORK"), (ffmpeg, "ffmpeg"), (sys.executable, "python"), (project, "")):
        text = text.replace(long, short)
    return text


def _cores() -> int:
    return len(os.sched_getaffinity(0))
