"""Claims in the manifest directory, which are made and ended by renaming, whatever other daemons do there.

    incoming/NAME.json, incoming/NAME/  ->  active/ID/NAME/  ->  done/NAME/, failed/NAME/

Only one daemon can win a rename, because its source is gone for all others (rename(2)). The owner's file is written
before the manifest is moved, so no claim is ever without an owner. Taking over and ending a claim could conflict with
another daemon, so they are done under a lock on the whole directory (flock(2), which is released when a process dies).
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from renderer.frontends.spool import layout
from renderer.frontends.spool.incoming import Waiting, waiting
from renderer.frontends.spool.layout import (
    OWNER_NAME,
    Claim,
    Ending,
    Owner,
    Sighting,
    is_dead,
    look,
    this_process,
    write,
)

log = logging.getLogger(__name__)

_CLAIM_ID = re.compile(r"[0-9a-f]{32}")
_LOCK_TIMEOUT_S = 5.0


class Claims:
    """What one daemon does in the directory. Every method waits for the file system; any thread may call it."""

    def __init__(self, directory: Path, daemon: str, lease_s: float) -> None:
        """Prepare the directory.

        Args:
            daemon: names this daemon's data directory, and so is the same for all of its processes.

        Raises:
            ConfigError: it cannot be used; the message says why.
        """
        layout.prepare(directory)
        self.incoming = directory / "incoming"
        self._directory = directory
        self._active = directory / "active"
        self._us = this_process(daemon)
        self._lease_s = lease_s

    # Beginning.

    def waiting(self) -> list[Waiting]:
        """Return the manifests that may be claimed, the oldest first."""
        return waiting(self.incoming)

    def claim(self, found: Waiting) -> Claim | None:
        """Claim a manifest; None if it has gone, usually to another daemon.

        Raises:
            OSError: it cannot be claimed, and stays where it was.
        """
        source = self.incoming / found.entry
        if not os.path.lexists(source):
            return None
        claim_id = uuid.uuid4().hex
        claim = Claim(self._active / claim_id, layout.held_name(found.name), claim_id, found.is_bundle)
        claim.directory.mkdir()
        try:
            self._sign(claim)
            if found.is_bundle:
                os.rename(f"{source}/", claim.files)  # noqa: PTH104 - with the slash it must be a directory and not a link
            else:
                claim.files.mkdir()
                source.rename(claim.files / found.manifest)
        except OSError as error:
            with contextlib.suppress(OSError):
                claim.files.rmdir()
            _clear(claim.directory)
            if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                return None
            raise
        return claim

    def adopt(self) -> list[Claim]:
        """Take back the claims of an earlier process of this daemon."""
        return self._take(lambda seen: seen.owner is not None and seen.owner.daemon == self._us.daemon)

    def take_over(self, most: int) -> list[Claim]:
        """Take over claims whose owner is dead, at most this many."""
        now = self._now()
        return self._take(lambda seen: is_dead(seen, self._us, now, self._lease_s), most)

    def _take(self, is_due: Callable[[Sighting], bool], most: int | None = None) -> list[Claim]:
        taken: list[Claim] = []
        for directory in sorted(self._active.iterdir()):
            if most is not None and len(taken) >= most:
                break
            if not _CLAIM_ID.fullmatch(directory.name):
                continue
            try:
                claim = self._take_if(directory, is_due)
            except FileNotFoundError:
                continue  # it has ended in the meantime
            except OSError as error:
                log.warning("claim %s cannot be taken over now: %s", directory.name, error.strerror)
                continue
            if claim:
                taken.append(claim)
        return taken

    def _take_if(self, directory: Path, is_due: Callable[[Sighting], bool]) -> Claim | None:
        if not is_due(look(directory)):
            return None
        with self._locked():
            seen = look(directory)  # another daemon may have taken it since
            if not is_due(seen):
                return None
            before = seen.owner
            name = layout.content(directory, before.job if before else None)
            if name is None:
                _clear(directory)
                return None
            is_bundle = before.bundle if before else not layout.is_single(directory / name)
            job_id = f"{directory.name}-{uuid.uuid4().hex[:8]}"
            if before and before.daemon == self._us.daemon:
                job_id = before.job
            claim = Claim(directory, name, job_id, is_bundle)
            self._sign(claim)
            return claim

    def _sign(self, claim: Claim) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        owner = Owner(**self._us.model_dump(), claimed_at=now, job=claim.job_id, bundle=claim.is_bundle)
        write(claim.directory, owner)

    # Holding.

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Show the others that we are alive, and return the claims that are no longer ours."""
        lost = []
        for claim in claims:
            try:
                if self.is_ours(claim):
                    os.utime(claim.directory / OWNER_NAME)
                else:
                    lost.append(claim)
            except FileNotFoundError:
                continue  # it has just gone; the next round shows why
            except OSError as error:
                log.warning("its claim cannot be renewed now: %s", error.strerror, extra={"job": claim.job_id})
        return lost

    def is_ours(self, claim: Claim) -> bool:
        """Return whether a claim is still ours.

        Raises:
            OSError: its owner's file cannot be read now.
        """
        try:
            found = look(claim.directory).owner
        except FileNotFoundError:
            return False
        return found is not None and self._us.holds(found) and found.job == claim.job_id

    # Ending.

    def finish(self, claim: Claim, ending: Ending, report: Callable[[Path], str]) -> Path | None:
        """Move a claim to `done` or `failed`, with its report and, if it is done, its video.

        Args:
            report: returns the report's text for the directory that the claim is moved to.

        Returns:
            That directory; None if the claim is no longer ours.

        Raises:
            OSError: it cannot be moved now, and the claim is kept.
        """
        with self._locked():
            if not self.is_ours(claim):
                return None
            end = layout.free_name(self._directory / ending, claim.name)
            layout.fill(claim, ending, report(end)).rename(end)
            _clear(claim.directory)
            with contextlib.suppress(OSError):  # it has been moved; a power cut might only undo that
                layout.sync(end.parent)
        return end

    def drop(self, claim: Claim) -> bool:
        """End a claim whose manifest has disappeared; return False if it holds other files."""
        with self._locked():
            if not self.is_ours(claim):
                return True
            try:
                claim.files.rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:
                    return False
                raise
            _clear(claim.directory)
        return True

    # The file system.

    def _now(self) -> float:
        """Return the time of the clock that the claims' times come from, which may be a file server's."""
        with self._open_lock() as lock:
            os.utime(lock)
            return os.fstat(lock).st_mtime

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude others from taking over and ending claims; a holder that hangs is not waited for without limit."""
        give_up_at = time.monotonic() + _LOCK_TIMEOUT_S
        with self._open_lock() as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > give_up_at:
                        raise TimeoutError(errno.ETIMEDOUT, "the manifest directory stays locked") from error
                    time.sleep(0.01)
            yield

    @contextlib.contextmanager
    def _open_lock(self) -> Iterator[int]:
        handle = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            yield handle
        finally:
            os.close(handle)


def _clear(directory: Path) -> None:
    """Remove a claim that has ended; if that fails, it holds no manifest and is removed when somebody takes it over."""
    try:
        layout.clear(directory)
    except FileNotFoundError:
        log.debug("claim %s was cleared by another daemon", directory.name)
    except OSError as error:
        log.warning("claim %s has left something behind: %s", directory.name, error.strerror)
