"""What the service manager is told: that requests are answered, and that the daemon is about to stop.

By the protocol of sd_notify(3): lines in one datagram to the socket that NOTIFY_SOCKET names, where `@` stands for the
zero byte that an address begins with that is no file's. Without that variable nobody asks, and nobody is told.
"""

import logging
import os
import socket
from typing import Final

log = logging.getLogger(__name__)

_VARIABLE: Final = "NOTIFY_SOCKET"
_SEND_S: Final = 2.0  # a manager that does not read must not hold the daemon up


class ServiceManager:
    """Whoever started this process and wants to hear of it."""

    def __init__(self) -> None:
        """Take the address out of the environment: what this process starts has nothing to say there."""
        self._address = os.environ.pop(_VARIABLE, "")

    def tell(self, state: str, words: str) -> None:
        """Say a state, such as `READY=1`, and what `systemctl status` shows beside it."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.settimeout(_SEND_S)
                sending.sendto(f"{state}\nSTATUS={words}".encode(), address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", state, error, extra={"action": "not_notified"})
