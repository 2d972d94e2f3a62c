"""What a sound costs: a job with one stereo track, the same job without, and the AAC coder alone on that track.

The coder alone is the floor: it is what any program pays that codes AAC by libavcodec. ffmpeg runs it here, at the
bit rate that `render` has. The three take turns in every round, each as a whole process. The track is drawn by numpy:
chords of decaying harmonics above soft noise, so that the coder has tones as well as noise to work on.
"""

import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import Finished, run
from benchmarks.peers.base import Task, lay_out
from benchmarks.peers.catalogue import PEERS
from benchmarks.results import Sound, Spread
from benchmarks.workloads import Workload
from protocol.schema import RenderRequest

_RATE = 48_000
_CHORDS = ((220, 277, 330), (196, 247, 294), (175, 220, 262), (208, 262, 311))  # Hz, one of them each second
_WAYS = ("without", "with", "floor")


def measure_sound(work: Workload, rounds: int, say: Callable[[str], None] = lambda _: None) -> Sound:
    """Render the work without and with a track of its length, `rounds` times after a warm-up.

    Raises:
        RuntimeError: a process failed.
    """
    seconds = work.frames / work.fps
    costs: dict[str, list[Finished]] = {way: [] for way in _WAYS}
    with tempfile.TemporaryDirectory(prefix="stillreel-bench-") as name:
        folder = Path(name)
        track = folder / "music.wav"
        write_music(track, seconds)
        without, heard = lay_out(work, folder / "without"), lay_out(work, folder / "with")
        commands = {
            "without": PEERS["stillreel"].command(without),
            "with": [*PEERS["stillreel"].command(heard), "--audio", str(track)],
            "floor": aac(heard, track),
        }
        for number in range(rounds + 1):
            for way in _WAYS:
                say(f"{work.name} {way}: " + (f"round {number} of {rounds}" if number else "warm-up"))
                costs[way].append(_done(commands[way]))
                heard.output.unlink(missing_ok=True)
                without.output.unlink(missing_ok=True)
    timed = [tuple(costs[way][number] for way in _WAYS) for number in range(1, rounds + 1)]
    return Sound(
        work=work.name,
        seconds=seconds,
        without_cpu_s=tuple(round(a.cpu_s, 3) for a, _, _ in timed),
        with_cpu_s=tuple(round(b.cpu_s, 3) for _, b, _ in timed),
        floor_cpu_s=tuple(round(c.cpu_s, 3) for _, _, c in timed),
        with_times_without_cpu=Spread.of([b.cpu_s / a.cpu_s for a, b, _ in timed]),
        with_times_without_wall=Spread.of([b.wall_s / a.wall_s for a, b, _ in timed]),
        extra_times_floor_cpu=Spread.of([(b.cpu_s - a.cpu_s) / c.cpu_s for a, b, c in timed]),
    )


def aac(task: Task, track: Path) -> list[str]:
    """ffmpeg's command that codes the track as `render` does, on one thread."""
    rate = RenderRequest.model_fields["audio_bitrate"].default
    return [task.ffmpeg, "-v", "error", "-threads", "1", "-i", str(track), "-c:a", "aac", "-b:a", str(rate), "-y",
            str(task.folder / "floor.m4a")]  # fmt: skip


def write_music(file: Path, seconds: float) -> None:
    """Write a WAV of 16 bits, stereo, that sounds like music to a coder."""
    chance = np.random.default_rng(17)
    at = np.arange(_RATE) / _RATE
    with wave.open(str(file), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(_RATE)
        for second in range(int(np.ceil(seconds))):
            left = int(min(1, seconds - second) * _RATE)
            chord = sum(
                np.sin(2 * np.pi * tone * harmonic * at) * np.exp(-harmonic * at) / harmonic
                for tone in _CHORDS[second % len(_CHORDS)]
                for harmonic in range(1, 9)
            )
            sides = np.stack([chord, np.roll(chord, 400)], axis=1) * 0.12 + chance.normal(0, 0.01, (_RATE, 2))
            out.writeframes((np.clip(sides[:left], -1, 1) * 32767).astype("<i2").tobytes())


def _done(command: list[str]) -> Finished:
    found = run(command)
    if found.code:
        raise RuntimeError(f"{' '.join(command)} ended with {found.code}: {found.stderr[-500:]}")
    return found
