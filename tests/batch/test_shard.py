"""Shards divide a batch into parts that have nothing in common and leave nothing out."""

import pytest

from renderer.batch.shard import Shard, parse_shard
from renderer.errors import ConfigError


def array(index: str, *, count: int, first: int, last: int, step: int = 1) -> dict[str, str]:
    """What Slurm tells a task of an array."""
    told = {"ID": index, "COUNT": count, "MIN": first, "MAX": last, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in told.items()}


NAMES = [f"directory {number % 7}/manifest-{number}.json" for number in range(2000)]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_every_name_is_in_one_shard(count: int) -> None:
    shards = [Shard(index, count) for index in range(count)]
    assert all(sum(shard.has(name) for shard in shards) == 1 for name in NAMES)


def test_shards_are_of_like_size() -> None:
    sizes = [sum(map(Shard(index, 8).has, NAMES)) for index in range(8)]
    assert min(sizes) > 200
    assert max(sizes) < 300


def test_a_name_stays_in_its_shard() -> None:
    """The numbers are part of the contract: a batch that is run again on another version must find its outputs."""
    found = [next(index for index in range(5) if Shard(index, 5).has(name)) for name in ("a.json", "b/c.csv", "ü", ".")]
    assert found == [0, 3, 3, 4]


def test_a_name_that_is_no_text_is_in_a_shard() -> None:
    assert sum(Shard(index, 3).has("\udcff.json") for index in range(3)) == 1


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("0/1", {}, Shard(0, 1)),
        (" 3/4 ", {"SLURM_ARRAY_TASK_ID": "1"}, Shard(3, 4)),
        ("auto", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, Shard(3, 8)),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "2"},
            Shard(0, 2),
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "30",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "10",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
            },
            Shard(2, 3),
        ),
        ("auto", {"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "JOB_COMPLETION_INDEX": "0"}, Shard(2, 4)),
        ("auto", {"JOB_COMPLETION_INDEX": "2", "JOB_COMPLETIONS": "3"}, Shard(2, 3)),
        ("auto/8", {"JOB_COMPLETION_INDEX": "7"}, Shard(7, 8)),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"}, Shard(1, 8)),
        ("auto/64", array("7", count=2, first=3, last=7), Shard(7, 64)),  # 3,7: to run these two of 64 again
        ("auto/4", array("4", count=4, first=1, last=4), Shard(3, 4)),
        ("auto", array("9", count=3, first=5, last=9, step=2), Shard(2, 3)),
    ],
)
def test_a_shard_is_told_or_found_in_the_environment(text: str, environment: dict[str, str], expected: Shard) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("", {}, "--shard : expected I/N with I from 0 to N-1"),
        ("1", {}, "--shard 1: expected I/N with I from 0 to N-1"),
        ("4/4", {}, "found 4/4"),
        ("0/0", {}, "found 0/0"),
        ("-1/4", {}, "expected I/N"),
        ("auto", {}, "expected one of SLURM_ARRAY_TASK_ID, SLURM_PROCID, JOB_COMPLETION_INDEX in the environment"),
        ("auto", {"JOB_COMPLETION_INDEX": "1"}, "JOB_COMPLETION_INDEX is set, JOB_COMPLETIONS is not; write auto/N"),
        ("auto/2", {"JOB_COMPLETION_INDEX": "2"}, "--shard auto/2, from JOB_COMPLETION_INDEX: expected I/N"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2"}, "found 9/2"),
        ("auto", array("3", count=5, first=1, last=9), "found 5 tasks from 1 to 9, and Slurm does not say which"),
        (
            "auto/5",
            array("1", count=5, first=1, last=9),
            "write auto/N to run these of N parts that are counted from 0",
        ),
        ("auto/4", array("7", count=2, first=3, last=7), "found 7/4"),
        ("auto", {"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "SLURM_PROCID: expected a number, found 'x'"),
        ("auto", {"SLURM_PROCID": "1", "SLURM_NTASKS": ""}, "SLURM_NTASKS: expected a number, found ''"),
    ],
)
def test_a_shard_that_makes_no_sense_is_refused(text: str, environment: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_shard(text, environment)
    assert words in raised.value.message
