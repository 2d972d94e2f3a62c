"""The urls of servers outside: their parts, the proxy that one goes through, and what can never be called.

A url whose fault shows without asking a name server is refused at once.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import quote, unquote

from renderer.errors import FetchFailed
from renderer.net.addresses import Guard

_URL: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)  # RFC 3986, B
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([^:\[\]]+))(?::([0-9]{0,5}))?")
_HOST: Final = re.compile(r"[a-z0-9._-]{1,254}")
_PATH_SAFE: Final = "/:@!$&'()*+,;=~-._%"
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """The parts of an http or https url that a request is made of.

    Attributes:
        host: ASCII, in lower case; an IPv6 address without its brackets.
        target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_http(url: str) -> HttpUrl:
    """Return the url's parts; a user and a password in it are left out.

    Raises:
        FetchFailed: it is not an http or https url with a valid host and port.
    """
    match = _URL.fullmatch(url)
    authority = _AUTHORITY.fullmatch(match[2].rpartition("@")[2]) if match else None
    if match is None or authority is None:
        raise FetchFailed("expected an http or https url with a host")
    scheme, (address, name, port) = match[1].lower(), authority.groups()
    found = HttpUrl(
        scheme,
        address.lower() if address else _ascii_name(name),
        int(port) if port else _PORTS[scheme],
        quote(match[3] or "/", safe=_PATH_SAFE) + quote(match[4] or "", safe=_PATH_SAFE + "?"),
    )
    if not 0 < found.port < 1 << 16:
        raise FetchFailed("expected a port from 1 to 65535 in the url")
    return found


def _ascii_name(name: str) -> str:
    """Return a name as name servers know it (UTS 46): IDNA for letters beyond ASCII."""
    found = name.lower() if name.isascii() else _in_ascii(name)
    if not _HOST.fullmatch(found):
        raise FetchFailed("expected a host name of letters, digits, dots and hyphens")
    return found


def _in_ascii(name: str) -> str:
    import idna  # noqa: PLC0415 - its tables are large, and few names need them

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise FetchFailed("expected a host name that can exist") from error


def proxy_for(url: str, setting: str | None) -> str | None:
    """Return the proxy for a url, if it goes through one.

    Args:
        setting: a proxy's url; "environment" to go by HTTPS_PROXY, HTTP_PROXY and NO_PROXY; None for no proxy.
    """
    if setting != "environment":
        return setting
    from urllib.request import (  # type: ignore[attr-defined] # noqa: PLC0415 - as long as all else here
        getproxies_environment,
        proxy_bypass_environment,
    )

    parts = parse_http(url)
    return None if proxy_bypass_environment(parts.authority) else getproxies_environment().get(parts.scheme)


def parse_proxy(text: str) -> tuple[HttpUrl, str, str]:
    """Return the parts of a proxy's url, and the user and the password in it."""
    match = _URL.fullmatch(text)
    user, _, password = match[2].rpartition("@")[0].partition(":") if match else ("", "", "")
    return parse_http(text), unquote(user), unquote(password)


def check_callee(url: str, guard: Guard) -> None:
    """Refuse a url that can never be called; a name is judged when it is resolved.

    Raises:
        FetchFailed: its port or its address is invalid or not allowed; the message says which.
    """
    host = parse_http(url).host
    if ":" in host:
        try:
            IPv6Address(host)
        except ValueError as error:
            raise FetchFailed("expected an IPv6 address between the brackets of the url") from error
    is_here = host == "localhost" or host.endswith(".localhost")  # RFC 6761, 6.3
    guard.check_written_out("127.0.0.1" if is_here else host)
