"""Numbers in the names of files: the order in which people count, and what is missing from a sequence.

Digits of every script count, full-width ones among them. A hyphen is a minus sign where no letter or digit is
right before it: `f_-1` is one before `f_0`, and `img-2` comes before `img-10`.

A sequence is images whose names differ in their last number only, and whose numbers go up: by one, or by the largest
step that leads to all of them. A request that has a rule for missing numbers gets all that are missing. Others are
warned only of gaps that are hardly meant, because a selection of photographs has gaps as well, and larger ones.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

from protocol.schema import GapRule
from renderer.errors import InvalidRequest

_NUMBER: Final = re.compile(r"((?:(?<![^\W_])-)?\d+)")
_NAMELESS: Final = re.compile(r"(?i:data|cid):")
_URL: Final = re.compile(r"(?i:https?://[^?#]*|file:.*)", re.DOTALL)
_NAMED_MAX: Final = 10
_LEAST_IMAGES: Final = 3  # two images may be alike by chance
_DIGITS_MAX: Final = 18  # a longer one is a hash, and no count that fits 64 bits


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that are missing between two images of a list.

    Attributes:
        after: the place in the list of the image before them.
        missing: the numbers.
    """

    after: int
    missing: range


def natural(name: str) -> tuple[list[str | int], str]:
    """Return what to sort a name by, so that img2 comes before img10."""
    parts = _NUMBER.split(name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def gaps(urls: Sequence[str]) -> list[Gap]:
    """Return all that is missing from the sequences of a list."""
    found = [gap for sequence in _sequences(urls) for gap in sequence.gaps()]
    return sorted(found, key=lambda gap: gap.after)


def likely_gaps(urls: Sequence[str]) -> list[Gap]:
    """Return what is missing from those sequences that are likely to be meant as such."""
    found = [gap for sequence in _sequences(urls) if sequence.is_likely() for gap in sequence.gaps()]
    return sorted(found, key=lambda gap: gap.after)


def times_shown(urls: Sequence[str], rule: GapRule | None) -> list[int]:
    """Return how many times its hold each image is shown, because it replaces the missing ones behind it.

    Raises:
        InvalidRequest: a number is missing, and the rule forbids that.
    """
    times = [1] * len(urls)
    found = gaps(urls) if rule in ("hold", "fail") else []
    if found and rule == "fail":
        raise InvalidRequest(missing_words(found), loc=("gaps",))
    for gap in found:
        times[gap.after] += len(gap.missing)
    return times


def missing_words(found: Sequence[Gap]) -> str:
    """Name the missing numbers, at most ten of them."""
    numbers = [number for gap in found for number in gap.missing[:_NAMED_MAX]][:_NAMED_MAX]
    total = sum(len(gap.missing) for gap in found)
    more = f" and {total - len(numbers)} more" if total > len(numbers) else ""
    what = "number is" if total == 1 else "numbers are"
    return f"{total} {what} missing from the images' names: {', '.join(map(str, numbers))}{more}"


def unsaid_words(found: Sequence[Gap]) -> str:
    """Return the warning about missing numbers for a request without a rule for them."""
    return (
        f"{missing_words(found)}; gaps: hold shows the image before for their time, gaps: fail refuses, "
        "and gaps: close says that this is meant"
    )


@dataclass(frozen=True, slots=True)
class _Numbered:
    """An image of a list: its place there, and the number in its name."""

    place: int
    digits: str

    @property
    def number(self) -> int:
        return int(self.digits)


@dataclass(frozen=True, slots=True)
class _Sequence:
    """The images of a list whose names differ in their last number only, in the list's order."""

    images: Sequence[_Numbered]

    def is_ascending(self) -> bool:
        return all(before.number <= after.number for before, after in pairwise(self.images))

    def gaps(self) -> Iterator[Gap]:
        """Yield what is missing between neighbours of the list."""
        step = math.gcd(*(after.number - before.number for before, after in pairwise(self.images)))
        for before, after in pairwise(self.images):
            missing = range(before.number + step, after.number, step or 1)
            if missing and after.place == before.place + 1:
                yield Gap(before.place, missing)

    def is_likely(self) -> bool:
        """Whether their numbers are written alike, and more are there than missing."""
        there = len({image.number for image in self.images})
        missing = sum(len(gap.missing) for gap in self.gaps())
        return there >= _LEAST_IMAGES and missing < there and self._is_written_alike()

    def _is_written_alike(self) -> bool:
        """Whether all numbers are filled up with zeros to one width, or no number is."""
        digits = [image.digits.lstrip("-") for image in self.images]
        filled = {len(each) for each in digits if len(each) > 1 and int(each[0]) == 0}
        return not filled or (len(filled) == 1 and min(map(len, digits)) == max(filled))


def _sequences(urls: Sequence[str]) -> list[_Sequence]:
    """Return the images that belong together."""
    families: dict[tuple[str, str, str], list[_Numbered]] = defaultdict(list)
    for place, url in enumerate(urls):
        directory, name = _name_of(url)
        stem = PurePosixPath(name).stem
        numbers = list(_NUMBER.finditer(stem))
        if numbers and len(numbers[-1][0]) <= _DIGITS_MAX:
            last = numbers[-1]
            families[directory, stem[: last.start()], name[last.end() :]].append(_Numbered(place, last[0]))
    sequences = (_Sequence(images) for images in families.values() if len(images) > 1)
    return [sequence for sequence in sequences if sequence.is_ascending()]


def _name_of(url: str) -> tuple[str, str]:
    """Return the directory and the name that a url or a path ends in; empty ones for bytes that have no name."""
    if _NAMELESS.match(url):
        return "", ""
    is_url = _URL.match(url)
    directory, _, name = (unquote(is_url[0]) if is_url else url).rpartition("/")
    return directory, name


@dataclass(frozen=True, slots=True)
class Pattern:
    """The names of numbered files as printf and ffmpeg write them: `frame_%04d.png`, `%d.jpg`; `%%` means `%`."""

    before: str
    width: int
    after: str

    def number(self, name: str) -> int | None:
        """Return the number that makes this name; None if no number does."""
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
