"""How a daemon's address is written. It is checked before ZeroMQ sees it, which only says "Invalid argument".

ZeroMQ also accepts some addresses with another meaning: tcp://127.0.0.1:99999 becomes port 34463.
"""

import re
from typing import Final

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5590"
"""Where a daemon answers unless its settings name another place."""

_HOST_AND_PORT: Final = re.compile(r"[^\s/:]+:\d+|\[[^\s/\]]+\]:\d+")


def checked_endpoint(endpoint: str) -> str:
    """Return the endpoint unchanged if it is well-formed.

    Raises:
        ValueError: it is not; the message says what was expected and what may have been meant.
    """
    scheme, separator, rest = endpoint.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        likely = f"; did you mean tcp://{endpoint}?" if _HOST_AND_PORT.fullmatch(endpoint) else ""
        raise ValueError(f"expected an address that begins with tcp:// or ipc://, found {endpoint!r}{likely}")
    if scheme == "ipc" and not rest:
        raise ValueError(f"expected the path of a socket after ipc://, found {endpoint!r}")
    if scheme == "tcp" and not _has_host_and_port(rest):
        raise ValueError(
            f"expected an address and a port from 0 to 65535, such as {DEFAULT_ENDPOINT}, found {endpoint!r}"
        )
    return endpoint


def _has_host_and_port(rest: str) -> bool:
    """Whether this is a host and a port; when binding, an asterisk stands for any free port or for every address."""
    host, _, port = rest.rpartition(":")
    is_port = port == "*" or (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) <= 65535)
    return bool(host) and is_port
