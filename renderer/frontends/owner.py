"""Who holds a claim, and whether it is still there.

A process is named by its pid and its start, since pids are used again; the start is told by the kernel in ticks since a
boot, and the boot's id makes it unlike any other boot's, and any other machine's of the same name (proc(5)). A daemon
is named by its data directory, which outlives its processes and which only one process holds at a time.
"""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

OWNER_NAME = "owner.json"
PART_NAME = f".{OWNER_NAME}.part"
_MAX_BYTES = 16 * 1024
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Holder:
    """A daemon's process."""

    host: str
    pid: int
    process_started: str
    daemon: str


class Owner(BaseModel):
    """What owner.json says."""

    model_config = ConfigDict(frozen=True, strict=True)

    host: str
    pid: int
    process_started: str
    daemon: str
    claimed_at: str
    job: str
    bundle: bool

    @property
    def holder(self) -> Holder:
        return Holder(self.host, self.pid, self.process_started, self.daemon)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was found in a claim: its owner, None if that cannot be told, and when it was last heard of."""

    owner: Owner | None
    heard_at: float


def this_process(daemon: str) -> Holder:
    return Holder(socket.gethostname(), os.getpid(), _started(os.getpid()) or "", daemon)


def look(claim: Path) -> Sighting:
    """Read a claim's owner.json; where there is none, the claim's own age stands for when it was heard of.

    It is opened before its time is read: that makes a network file system ask its server.

    Raises:
        OSError: it cannot be told; FileNotFoundError: the claim is gone.
    """
    try:
        with (claim / OWNER_NAME).open("rb") as file:
            text, heard_at = file.read(_MAX_BYTES), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return Sighting(None, claim.stat().st_mtime)
    try:
        return Sighting(Owner.model_validate_json(text), heard_at)
    except ValidationError:
        return Sighting(None, heard_at)


def write(claim: Path, owner: Owner) -> None:
    """Put owner.json in place. It is not synced: one that a power cut spoils is that of a dead daemon anyway."""
    part = claim / PART_NAME
    part.write_text(owner.model_dump_json(indent=2) + "\n", encoding="utf-8")
    part.replace(claim / OWNER_NAME)


def is_dead(sighting: Sighting, us: Holder, now: float, lease_s: float) -> bool:
    """Whether nobody will go on with a claim.

    An earlier process of our own daemon has left the data directory, which we hold, so it is gone for certain. Of
    others only time tells, unless their process can be seen: one that is stopped or swapped out goes on later.

    Args:
        now: the time by the clock that the claims' times come from.
    """
    owner = sighting.owner
    if owner and owner.daemon == us.daemon:
        return owner.holder != us
    if now - sighting.heard_at <= lease_s:
        return False
    return not (owner and owner.host == us.host and _is_running(owner))


def _is_running(owner: Owner) -> bool:
    started = _started(owner.pid)
    return started is not None and started == owner.process_started


def _started(pid: int) -> str | None:
    """Return what tells this process from all others with its pid; None if there is none, or it has ended."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The second field is the program's name, which may hold spaces and brackets; the third is the state.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        if fields[0] not in (b"Z", b"X"):
            return f"{int(fields[19])}@{boot}"
    return None
