"""Run a command with the system calls of a systemd unit's filter alone: `python -P system_calls.py COMMAND...`.

The calls are read from stdin, one a line. Where systemd answers a call that is not listed with an error, here it ends
the process by SIGSYS, so that none goes unseen.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

_KILL, _ALLOW = 0x80000000, 0x7FFF0000  # SCMP_ACT_KILL_PROCESS, SCMP_ACT_ALLOW of seccomp.h


def allowed(unit: Path) -> set[str]:
    """Return the calls that a unit's SystemCallFilter= lines leave, as systemd here knows its groups."""
    told = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    groups: dict[str, list[str]] = {}
    for part in re.split(r"^(?=@)", told, flags=re.MULTILINE):
        name, *members = [line.strip() for line in part.splitlines() if line.strip()] or [""]
        groups[name] = [member for member in members if not member.startswith("#")]

    def calls(name: str) -> set[str]:
        return set().union(*map(calls, groups[name])) if name.startswith("@") else {name}

    found: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit.read_text(), re.MULTILINE):
        names = set().union(*map(calls, line.removeprefix("~").split()))
        found = found - names if line.startswith("~") else found | names
    return found


def _main() -> None:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    calls = ctypes.c_void_p(library.seccomp_init(_KILL))
    for name in sys.stdin.read().split():
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # this processor has it
            library.seccomp_rule_add(calls, _ALLOW, number, 0)
    if library.seccomp_load(calls) != 0:
        sys.exit("the filter could not be loaded")
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    _main()
