"""What a request asks for, however it was addressed; pure functions.

The hosted service tells run from submit by host (fal.run, queue.fal.run). Here the same app is reached by base path
(/run, /queue), by a Host header that begins with "queue.", or through the proxy route of its JavaScript client, whose
header holds the url that is meant. All of them come down to one path, so that every route exists once. Nothing is ever
redirected: the asynchronous Python client does not follow.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

APP: Final = "fal-ai/ffmpeg-api"
ENDPOINT: Final = "images-to-video"
PROXY_PATH: Final = "/api/fal/proxy"

_APP = APP.split("/")
_HOST = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes.

    Attributes:
        path: as the routes know it.
        is_by_host: the Host header alone told run from queue, so links must rely on it as well.
    """

    path: str
    is_by_host: bool = False


def canonical(path: str, host: str) -> Address:
    """Return the one path that the routes know for what `path` at `host` means there.

    Args:
        path: decoded; the whole id of the app, the long form and trailing slashes are understood.
    """
    parts = [part for part in path.split("/") if part]
    if parts[:1] in (["run"], ["queue"]) and parts[1:3] == _APP:
        return Address(_known(parts[0], parts[3:]))
    if parts[:2] == _APP:
        base = "queue" if host.lower().startswith("queue.") else "run"
        return Address(_known(base, parts[2:]), is_by_host=True)
    return Address("/" + "/".join(parts))


def proxied(target: str) -> tuple[Address, str]:
    """Return the address and the query that the proxy route is asked to stand for; nothing is fetched.

    Raises:
        ValueError: it is no http or https url.
    """
    try:
        parts = urlsplit(target)
    except ValueError as error:  # its words are of addresses within brackets
        raise ValueError("expected an http or https url") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an http or https url")
    address = canonical(unquote(parts.path), parts.hostname)
    return Address(address.path), parts.query


def is_host(value: str) -> bool:
    """Whether this is a host and perhaps a port, fit to be put into a link."""
    return _HOST.fullmatch(value) is not None


def host_name(value: str) -> str:
    """Return a Host header's name, without port and brackets."""
    name = value.rpartition(":")[0] if re.search(r":[0-9]+$", value) else value
    return name.strip("[]").lower()


def _known(base: str, rest: list[str]) -> str:
    if "requests" in rest[:2]:
        at = rest.index("requests")
        tail = rest[at + 1 :]
        if rest[:at] in ([], [ENDPOINT]) and tail:
            tail = tail[:1] if tail[1:] == ["response"] else tail
            return "/".join(["", "queue", *_APP, "requests", *tail])
    return "/".join(["", base, *_APP, *rest])
