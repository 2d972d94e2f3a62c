"""Numbers in the names of files: the order in which people count, and what is missing from a sequence.

Digits of every script count, full-width ones among them. A hyphen is a minus sign where no letter or digit stands
before it: `f_-1` is one before `f_0`, and `img-2` comes before `img-10`.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from protocol.schema import ResultWarning

GapRule = Literal["close", "hold", "fail"]

_NUMBER: Final = re.compile(r"((?:(?<![^\W_])-)?\d+)")
_NAMED_MAX: Final = 10

Family = tuple[Path, str, str]


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that are missing between two files of a list.

    Attributes:
        after: the place in the list of the file before them.
        missing: the numbers.
    """

    after: int
    missing: range


def natural(name: str) -> tuple[list[str | int], str]:
    """Return what to sort a name by, so that img2 comes before img10."""
    parts = _NUMBER.split(name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def gaps(files: Sequence[Path]) -> list[Gap]:
    """Return what is missing from the numbered sequences of a list, in its order.

    Files belong together that differ in the last number of their names only. The numbers may go up by more than one: by
    the largest step that leads to all of them.
    """
    numbered = [_family(file) for file in files]
    steps = _steps(numbered)
    found = []
    for place, (before, after) in enumerate(pairwise(numbered)):
        if before and after and before[0] == after[0] and before[1] < after[1]:
            missing = range(before[1] + steps[before[0]], after[1], steps[before[0]])
            found += [Gap(place, missing)] if missing else []
    return found


def is_sequence(files: Sequence[Path], found: Sequence[Gap]) -> bool:
    """Whether the files are likely to be meant as a sequence: more are there than are missing.

    The numbers of photographs that somebody has chosen, and dates, leave far larger gaps.
    """
    return sum(len(gap.missing) for gap in found) < len(files)


def missing_from(files: Sequence[Path], rule: GapRule | None, *, is_meant: bool = False) -> list[Gap]:
    """Return what is missing, if the files are likely to be meant as a sequence, or a rule or their names say so."""
    found = gaps(files)
    return found if found and (rule or is_meant or is_sequence(files, found)) else []


def times_shown(files: Sequence[Path], held: Sequence[Gap]) -> list[int]:
    """Return how many times its hold each file is shown, where it stands for the missing ones behind it."""
    times = [1] * len(files)
    for gap in held:
        times[gap.after] += len(gap.missing)
    return times


def gap_warning(found: Sequence[Gap]) -> ResultWarning:
    """Return what is said of missing numbers where nobody has said what is to become of them."""
    words = f"{missing_words(found)}; --gaps hold shows the picture before for their time, --gaps fail refuses"
    return ResultWarning(type="numbers_missing", message=words)


def missing_words(found: Sequence[Gap]) -> str:
    """Name the missing numbers, at most ten of them."""
    numbers = [number for gap in found for number in gap.missing[:_NAMED_MAX]][:_NAMED_MAX]
    total = sum(len(gap.missing) for gap in found)
    more = f" and {total - len(numbers)} more" if total > len(numbers) else ""
    what = "number is" if total == 1 else "numbers are"
    return f"{total} {what} missing: {', '.join(map(str, numbers))}{more}"


def _family(file: Path) -> tuple[Family, int] | None:
    numbers = list(_NUMBER.finditer(file.stem))
    if not numbers:
        return None
    last = numbers[-1]
    rest = file.stem[last.end() :] + file.suffix
    return (file.parent, file.stem[: last.start()], rest), int(last[0])


def _steps(numbered: Sequence[tuple[Family, int] | None]) -> Mapping[Family, int]:
    steps: dict[Family, int] = {}
    for before, after in pairwise(numbered):
        if before and after and before[0] == after[0]:
            steps[before[0]] = math.gcd(steps.get(before[0], 0), after[1] - before[1])
    return steps


@dataclass(frozen=True, slots=True)
class Pattern:
    """The names of numbered files as printf and ffmpeg write them: `frame_%04d.png`, `%d.jpg`; `%%` means `%`."""

    before: str
    width: int
    after: str

    def number(self, name: str) -> int | None:
        """Return the number that makes this name; None if there is none."""
        digits = name[len(self.before) : len(name) - len(self.after)]
        if not re.fullmatch("-?[0-9]{1,20}", digits, re.ASCII):
            return None
        return int(digits) if self.before + format(int(digits), f"0{self.width}d") + self.after == name else None


_CONVERSION: Final = re.compile(r"%(?:0(?P<width>[0-9]{1,2}))?d", re.ASCII)


def parse_pattern(name: str) -> Pattern | None:
    """Read a pattern; None if the name has no place for a number, or several."""
    pieces: list[str] = [""]
    widths = []
    for part in _split(name):
        match = _CONVERSION.fullmatch(part)
        if match:
            widths.append(int(match["width"] or 1))
            pieces.append("")
        else:
            pieces[-1] += "%" if part == "%%" else part
    return Pattern(pieces[0], widths[0], pieces[1]) if len(widths) == 1 else None


def _split(name: str) -> Iterator[str]:
    return (match[0] for match in re.finditer(r"%%|%(?:0[0-9]{1,2})?d|[^%]+|%", name))
