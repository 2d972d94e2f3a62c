"""Damaged image files without end: no child may die, and no picture may depend on what was in memory before.

    make fuzz                                           # for an hour
    python -m tests.pictures.fuzz --minutes 5 --seed 7
    python -m tests.pictures.fuzz --corpus DIRECTORY    # every file below it, as it is and damaged

What is found is saved below --keep, and the exit code is then 1.
"""

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.pictures.filled import Died, Pair, pair
from tests.pictures.oddities import samples

_SAY_EVERY_S = 60


def damaged(data: bytes, choose: random.Random) -> bytes:
    """Return the file with one to eight changes: bytes, runs, cuts, repeats, lengths."""
    changed = bytearray(data)
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        # Headers decide what a decoder does, so half of the changes are made among the first bytes.
        place = choose.randrange(min(len(changed), 256) if choose.random() < 0.5 else len(changed))
        _change(changed, place, choose)
    return bytes(changed)


def _change(changed: bytearray, place: int, choose: random.Random) -> None:
    length = choose.randrange(1, 64)
    match choose.randrange(7):
        case 0:
            changed[place] = choose.randrange(256)
        case 1:
            changed[place] ^= 1 << choose.randrange(8)
        case 2:
            del changed[place:]
        case 3:
            del changed[place : place + length]
        case 4:
            changed[place:place] = changed[place : place + length]
        case 5:
            width = choose.choice((2, 4))
            value = choose.choice((0, 1, 127, 128, 255, 256, 32767, 65535, 0x7FFFFFFF, 0xFFFFFFFF)) % (1 << 8 * width)
            changed[place : place + width] = value.to_bytes(width, choose.choice(("little", "big")))
        case _:
            changed[place : place + 4 * length] = bytes(4 * length)


def cuts(data: bytes) -> Iterator[bytes]:
    """Yield the file cut at a few places."""
    for share in (0.3, 0.6, 0.9):
        yield data[: int(len(data) * share)]
    yield data[:-1]


class _Findings:
    def __init__(self, keep: Path) -> None:
        self._keep = keep
        self.count = self.tried = self.shown = 0

    def note(self, both: Pair, name: str, data: bytes) -> str:
        self.tried += 1
        try:
            outcome = both.outcome(data)
            self.shown += outcome.startswith("shows")
        except (AssertionError, Died) as finding:
            self.count += 1
            self._keep.mkdir(parents=True, exist_ok=True)
            path = self._keep / f"{self.count:04}-{''.join(c if c.isalnum() else '-' for c in name)[:80]}"
            path.write_bytes(data)
            outcome = f"FOUND {finding}: {path}"
            print(name, outcome, flush=True)
        return outcome


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--corpus", type=Path, help="files to begin with, in place of those that the tests make")
    options.add_argument("--keep", type=Path, default=Path("out/fuzz"), help="where findings are saved")
    options.add_argument("--list", action="store_true", help="say what became of each whole file")
    return options.parse_args()


def _seeds(corpus: Path | None) -> list[tuple[str, bytes]]:
    if corpus is None:
        return [(sample.name, sample.data) for sample in samples()]
    files = sorted(path for path in corpus.rglob("*") if path.is_file() and not path.is_symlink())
    return [(str(path.relative_to(corpus)), path.read_bytes()) for path in files]


def main() -> None:
    chosen = _options()
    seeds = _seeds(chosen.corpus)
    choose, ends = random.Random(chosen.seed), time.monotonic() + 60 * chosen.minutes
    findings, said = _Findings(chosen.keep), time.monotonic()
    print(f"{len(seeds)} files, seed {chosen.seed}", flush=True)
    with pair() as both:
        for name, data in seeds:
            outcome = findings.note(both, name, data)
            if chosen.list:
                print(name, outcome, flush=True)
        for name, data in seeds:
            if time.monotonic() < ends:
                for cut in cuts(data):
                    findings.note(both, f"{name} cut", cut)
        for _ in itertools.takewhile(lambda _: time.monotonic() < ends, itertools.count()):
            name, data = choose.choice(seeds)
            findings.note(both, f"{name} damaged", damaged(data, choose))
            if time.monotonic() - said > _SAY_EVERY_S:
                said = time.monotonic()
                print(f"{findings.tried} tried, {findings.shown} shown, {findings.count} findings", flush=True)
    print(f"{findings.tried} tried, {findings.shown} shown, {findings.count} findings")
    sys.exit(1 if findings.count else 0)


if __name__ == "__main__":
    main()
