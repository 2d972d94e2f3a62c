"""The urls in answers: absolute, and such that whoever asked can follow them."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from renderer.config import HttpSettings
from renderer.frontends.http.address import APP, is_host
from renderer.jobs.job import own_id

CALLER: Final = "stillreel.caller"  # the key in an ASGI scope


@dataclass(frozen=True, slots=True)
class Links:
    """Where this door is, as its caller sees it.

    Attributes:
        base: scheme, host and prefix, without a slash at the end.
        queue: what stands before an app's name; the same as `base` where the host alone means the queue.
    """

    base: str
    queue: str

    def request(self, request_id: str) -> dict[str, str]:
        """Return the three urls of a request."""
        here = f"{self.queue}/{APP}/requests/{quote(request_id, safe='')}"
        return {"response_url": here, "status_url": f"{here}/status", "cancel_url": f"{here}/cancel"}

    def file(self, token: str, name: str) -> str:
        return f"{self.base}/files/{token}/{quote(name, safe='')}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as far as is known.

    Attributes:
        client: for taking turns: "http:" and the key's name, or the address that it asks from where no key is needed.
        key: the key's name; None without one.
    """

    client: str
    key: str | None
    links: Links

    @property
    def owner(self) -> str:
        """Whose jobs this client sees: those of its key, or those of all that need none."""
        return f"key.{self.key}" if self.key else ""

    def job_id(self, request_id: str) -> str:
        return own_id(self.owner, request_id)


def address_of(peer: str, headers: Iterable[tuple[bytes, bytes]], settings: HttpSettings) -> str:
    """Return the address that a request comes from: the peer's, or the one that a trusted proxy has seen.

    A proxy adds its own peer at the end of X-Forwarded-For; what stands before that is whatever the client sent. A last
    entry that is no address is the client's too, or the proxy's fault: then the proxy itself counts as the client.
    """
    if not settings.trust_proxy:
        return peer
    forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    last = forwarded[-1].rpartition(",")[2].strip() if forwarded else ""
    try:
        return str(ipaddress.ip_address(last.strip("[]")))
    except ValueError:
        return peer


def links(scheme: str, headers: Mapping[str, str], settings: HttpSettings, *, is_by_host: bool = False) -> Links:
    """Return the links for one request.

    Args:
        headers: by name in lower case.
        is_by_host: the request's Host header told run from queue.
    """
    if settings.public_url:
        base = settings.public_url.rstrip("/")
        return Links(base, f"{base}/queue")
    host, prefix = headers.get("host", ""), ""
    if settings.trust_proxy:
        scheme = headers.get("x-forwarded-proto", scheme).partition(",")[0].strip()
        forwarded = headers.get("x-forwarded-host", host).partition(",")[0].strip()
        host = forwarded if is_host(forwarded) else host
        prefix = quote(headers.get("x-forwarded-prefix", "").rstrip("/"), safe="/")
    base = f"{'https' if scheme == 'https' else 'http'}://{host}{prefix}"
    return Links(base, base if is_by_host and host.lower().startswith("queue.") else f"{base}/queue")
