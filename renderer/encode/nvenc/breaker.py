"""A circuit breaker: a device that failed is not used by any process for a while, and then one process tries it again.

Each device that failed has a file that records when it failed, how often in a row and why. Once the pause is over, the
process that locks the file first lets the device encode a picture, as the probe does; until it succeeds, jobs go to
other encoders. The pause doubles with every failure; it starts at a minute by default and ends at 8.5 hours.

A device that already failed the probe is treated in the same way. A daemon keeps the findings of its probe for as long
as it runs, so the file of such a device is kept when the device encodes after all, and then records no failures.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from renderer.disk import put
from renderer.work import NvencDevice

log = logging.getLogger(__name__)

_MOST_DOUBLINGS: Final = 9


@dataclass(frozen=True, slots=True)
class Breaker:
    """The record of failures of all devices.

    Attributes:
        retry_after_s: pause after the first failure.
        try_device: lets a device encode a picture, and returns why it does not encode, or None.
        now_s: the wall clock, which all processes share.
    """

    directory: Path
    retry_after_s: float
    try_device: Callable[[NvencDevice], str | None]
    now_s: Callable[[], float] = time.time

    def trip(self, uuid: str, reason: str) -> None:
        """Record a failure: the device is not used until its pause is over."""
        failures = self._read(uuid)[1] + 1
        log.warning("%s is not used for %g s: %s", uuid, self._pause_s(failures), reason, extra={"action": "tripped"})
        self._write(uuid, failures, reason)

    def refusal(self, device: NvencDevice) -> str | None:
        """Return why the device is not to be used now, after trying it if its pause is over."""
        if device.reason and not device.is_busy and not self._path(device.uuid).exists():
            self.trip(device.uuid, device.reason)
            return f"{device.reason}; the GPU is tried again in {self.retry_after_s:.0f} s"
        failed_s, failures, reason = self._read(device.uuid)
        if not failures:
            return None
        left_s = failed_s + self._pause_s(failures) - self.now_s()
        if 0 < left_s <= self._pause_s(failures):  # a clock that was set back ends the pause
            return f"{reason}; the GPU is tried again in {left_s:.0f} s"
        return self._try_again(device, reason)

    def _try_again(self, device: NvencDevice, reason: str) -> str | None:
        path = self._path(device.uuid)
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None  # another process has just tried it, and it encodes
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_there(file, path):
                return self.refusal(device)  # another process has tried it meanwhile
            still = self.try_device(device)
            if still is None:
                log.info("%s encodes again", device.uuid, extra={"action": "recovered"})
                self._forget(device)
            else:
                self.trip(device.uuid, still)
            return still
        except BlockingIOError:
            return f"{reason}; the GPU is being tried again"
        finally:
            os.close(file)

    def _forget(self, device: NvencDevice) -> None:
        if device.reason:
            self._write(device.uuid, 0, "")
        else:
            self._path(device.uuid).unlink(missing_ok=True)

    def _pause_s(self, failures: int) -> float:
        return float(self.retry_after_s * 2 ** min(failures - 1, _MOST_DOUBLINGS))

    def _path(self, uuid: str) -> Path:
        return self.directory / f"{uuid}.failed"

    def _read(self, uuid: str) -> tuple[float, int, str]:
        """Return when the device failed, how often in a row, and why; a damaged file counts as no failure."""
        try:
            told = json.loads(self._path(uuid).read_text(encoding="utf-8"))
            return float(told["at_s"]), int(told["failures"]), str(told["reason"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, 0, ""

    def _write(self, uuid: str, failures: int, reason: str) -> None:
        told = json.dumps({"at_s": self.now_s(), "failures": failures, "reason": reason})
        try:
            put(self._path(uuid), told.encode())
        except OSError as error:
            log.warning("a device's failure cannot be recorded: %s", error.strerror, extra={"action": "tripped"})


def _is_there(file: int, path: Path) -> bool:
    """Whether an open file still has this name, so that it was neither replaced nor removed."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
