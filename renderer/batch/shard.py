"""Which part of a batch a process does: one of n equal parts, chosen by a hash of each manifest's name.

A manifest stays in its shard when others are added or removed, so a shard that is run again finds its own outputs.

The environment of a job array says which: Slurm's SLURM_ARRAY_TASK_* or, for the tasks of one step, SLURM_PROCID and
SLURM_NTASKS (https://slurm.schedmd.com/job_array.html and srun.html); an indexed Job of Kubernetes sets
JOB_COMPLETION_INDEX and leaves it to its author to pass the number of completions on.

Slurm tells a task the least and the largest index of its array and how many there are, but not which. In an array with
gaps, such as 1,3,7-9, a task does not know its place, so every task of it refuses `auto`. With `auto/N` the array may
be a part of another with N tasks that are counted from 0, such as those of its tasks that are to be run again.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from renderer.errors import ConfigError

_WRITTEN: Final = re.compile(r"(?P<index>[0-9]{1,9}|auto)(/(?P<count>[0-9]{1,9}))?", re.ASCII)
_EXPECTED: Final = "expected I/N with I from 0 to N-1, such as 0/4, or auto, or auto/N"

_SCHEDULERS: Final = (  # the variables of each: the index, and the number of parts
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, counted from 0."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, name: str) -> bool:
        """Whether the manifest of that name, relative to the batch's directory, belongs to this part."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index


def parse_shard(text: str, environment: Mapping[str, str]) -> Shard:
    """Read `I/N`, `auto`, which takes both from the environment, or `auto/N`, which takes the index only.

    Raises:
        ConfigError: it is none of these, or the environment does not say.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None or (match["index"] != "auto" and match["count"] is None):
        raise ConfigError(f"--shard {text}: {_EXPECTED}")
    count = int(match["count"]) if match["count"] else None
    if match["index"] == "auto":
        return _from_environment(text, count, environment)
    return _checked(text, int(match["index"]), count or 0)


def _from_environment(text: str, count: int | None, environment: Mapping[str, str]) -> Shard:
    for index_name, count_name in _SCHEDULERS:
        if index_name in environment:
            if count is None and count_name not in environment:
                raise ConfigError(f"--shard {text}: {index_name} is set, {count_name} is not; write auto/N")
            index, tasks = _number(index_name, environment, 0), _number(count_name, environment, 0)
            if index_name == "SLURM_ARRAY_TASK_ID" and count in (None, tasks):
                index = _place_in_array(text, index, tasks, environment)
            return _checked(f"{text}, from {index_name}", index, tasks if count is None else count)
    names = ", ".join(scheduler[0] for scheduler in _SCHEDULERS)
    raise ConfigError(f"--shard {text}: expected one of {names} in the environment, found none")


def _place_in_array(text: str, index: int, tasks: int, environment: Mapping[str, str]) -> int:
    """Return how many tasks of its array come before a task.

    Raises:
        ConfigError: the array has gaps.
    """
    first = _number("SLURM_ARRAY_TASK_MIN", environment, 0)
    step = max(1, _number("SLURM_ARRAY_TASK_STEP", environment, 1))
    last = _number("SLURM_ARRAY_TASK_MAX", environment, first + step * (tasks - 1))
    if first + step * (tasks - 1) != last:
        words = (
            f"expected an array without gaps, found {tasks} tasks from {first} to {last}, and Slurm does not say which"
        )
        raise ConfigError(f"--shard {text}: {words}; write auto/N to run these of N parts that are counted from 0")
    return (index - first) // step


def _number(name: str, environment: Mapping[str, str], otherwise: int) -> int:
    text = environment.get(name)
    if text is None:
        return otherwise
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError(f"--shard: {name}: expected a number, found {text!r}")
    return int(text)


def _checked(text: str, index: int, count: int) -> Shard:
    if not 0 <= index < count:
        raise ConfigError(f"--shard {text}: {_EXPECTED}; found {index}/{count}")
    return Shard(index, count)
