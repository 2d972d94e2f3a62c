"""Which part of a batch a process does: one of n equal parts, told by a hash of each manifest's name.

A manifest stays in its shard whatever else is in the tree, so that a shard that is run again finds its own outputs.

The environment of a job array says which: Slurm's SLURM_ARRAY_TASK_* or, for the tasks of one step, SLURM_PROCID and
SLURM_NTASKS (https://slurm.schedmd.com/job_array.html and srun.html); an indexed Job of Kubernetes sets
JOB_COMPLETION_INDEX and leaves it to its author to pass the number of completions on.
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

# The variables of each scheduler: the index, the number of parts, the first index, the step between two.
_SCHEDULERS: Final = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", "", ""),
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
    for index_name, count_name, first_name, step_name in _SCHEDULERS:
        if index_name in environment:
            first = _number(first_name, environment, 0)
            step = max(1, _number(step_name, environment, 1))
            if count is None and count_name not in environment:
                raise ConfigError(f"--shard {text}: {index_name} is set, {count_name} is not; write auto/N")
            parts = _number(count_name, environment, 0) if count is None else count
            return _checked(f"{text}, from {index_name}", (_number(index_name, environment, 0) - first) // step, parts)
    names = ", ".join(scheduler[0] for scheduler in _SCHEDULERS)
    raise ConfigError(f"--shard {text}: expected one of {names} in the environment, found none")


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
