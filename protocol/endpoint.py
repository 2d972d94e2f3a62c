"""How a daemon's address is spelt, told before ZeroMQ is asked: its own words for a mistake are "Invalid argument".

It also takes some that mean something else: of tcp://127.0.0.1:99999 it makes port 34463.
"""

import re
from typing import Final

_EXAMPLE: Final = "tcp://127.0.0.1:5590"
_HOST_AND_PORT: Final = re.compile(r"[^\s/:]+:\d+|\[[^\s/\]]+\]:\d+")


def checked_endpoint(endpoint: str) -> str:
    """Return the endpoint as it is.

    Raises:
        ValueError: it is not spelt as one; the words say what was expected and what may be meant.
    """
    scheme, separator, rest = endpoint.partition("://")
    if not separator or scheme not in ("tcp", "ipc"):
        likely = f"; did you mean tcp://{endpoint}?" if _HOST_AND_PORT.fullmatch(endpoint) else ""
        raise ValueError(f"expected an address that begins with tcp:// or ipc://, found {endpoint!r}{likely}")
    if scheme == "ipc" and not rest:
        raise ValueError(f"expected the path of a socket after ipc://, found {endpoint!r}")
    if scheme == "tcp" and not _has_host_and_port(rest):
        raise ValueError(f"expected an address and a port from 0 to 65535, such as {_EXAMPLE}, found {endpoint!r}")
    return endpoint


def _has_host_and_port(rest: str) -> bool:
    """Whether a host stands before a port; an asterisk stands for any port, or any address, where one is bound."""
    host, _, port = rest.rpartition(":")
    is_port = port == "*" or (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) <= 65535)
    return bool(host) and is_port
