"""The variables in the environment that begin as stillreel's do: which are settings, and what the others may mean.

One that is misspelt is refused, as an unknown key of the file is: a limit that nobody reads is no limit.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

_PREFIX: Final = "STILLREEL_"

# Options of the client commands and of the benchmarks, no settings.
_OPTIONS: Final = ("STILLREEL_CONNECT", "STILLREEL_CURVE", "STILLREEL_BENCHMARK_CACHE")

# Kubernetes tells every container of a service that is called stillreel, or stillreel-http, in such variables.
_OF_A_CLUSTER: Final = re.compile(r"STILLREEL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_PORT_OF_A_CLUSTER: Final = re.compile(r"STILLREEL_(\w+_)?PORT=(tcp|udp|sctp)://.*")

Names = Mapping[str, tuple[str, str]]
"""The part and the name of the setting that each variable stands for."""


def variable(part: str, name: str) -> str:
    """Return the variable that a setting has."""
    return f"{_PREFIX}{part}__{name}".upper()


def given_in(environment: Mapping[str, str], names: Names) -> dict[str, dict[str, str]]:
    """Return the settings that the environment has, by part and name."""
    tree: dict[str, dict[str, str]] = {}
    for typed, value in environment.items():
        if typed.startswith(_PREFIX) and typed.upper() in names:
            part, name = names[typed.upper()]
            tree.setdefault(part, {})[name] = value
    return tree


def unknown(environment: Mapping[str, str], names: Names) -> list[str]:
    """Return a sentence for every variable that begins as stillreel's do and is none of them."""
    return [
        f"environment: {typed} is no setting; {_meant_by(typed.upper(), names)}"
        for typed, value in environment.items()
        if typed.startswith(_PREFIX)
        and typed.upper() not in names
        and typed not in _OPTIONS
        and not _OF_A_CLUSTER.fullmatch(typed)
        and not _PORT_OF_A_CLUSTER.fullmatch(f"{typed}={value}")
    ]


def _meant_by(typed: str, names: Names) -> str:
    """Say what a variable may mean: a setting without its part, begun, or one that is spelt like it."""
    word = typed.removeprefix(_PREFIX)
    bare = [known for known, (_, name) in names.items() if name.upper() == word]
    begun = [known for known, (_, name) in names.items() if name.upper().startswith(f"{word}_")]
    if word.lower() in {part for part, _ in names.values()}:
        return f"the settings of that part are written {typed}__NAME"
    spelt = get_close_matches(word, [known.removeprefix(_PREFIX) for known in (*names, *_OPTIONS)], n=1, cutoff=0.75)
    likely = bare or [_PREFIX + each for each in spelt] or begun
    return f"did you mean {likely[0]}?" if likely else "a setting is written STILLREEL_PART__NAME"
