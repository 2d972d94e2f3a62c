"""The urls that requests come in by and the urls that answers hold.

The hosted service tells run from submit by host (fal.run, queue.fal.run). Here the same app is reached by a base path
(/run, /queue), by a Host header that begins with "queue.", or through the proxy route of its JavaScript client, whose
header holds the url that is meant. All of them become one path, so that every route exists once. Nothing is ever
redirected, because the asynchronous Python client does not follow redirects.

Links in answers are absolute and hold tokens that cannot be guessed, so that whoever asked can follow them. Whoever has
a token may read the file, or write the upload, that it stands for. A token is what it names and an HMAC of that under a
secret of the data directory, so it needs no table and survives a restart.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from protocol.media import KINDS
from protocol.schema import File
from renderer.config import HttpSettings
from renderer.errors import JobNotFound
from renderer.frontends.http.keys import secret_bytes
from renderer.jobs.job import Job, own_id

if TYPE_CHECKING:
    from starlette.requests import Request

APP: Final = "fal-ai/ffmpeg-api"
PROXY_PATH: Final = "/api/fal/proxy"

_APP = APP.split("/")
_HOST = re.compile(r"([A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes.

    Attributes:
        path: the path of its route.
        is_by_host: whether only the Host header told run from queue, so that links must rely on it as well.
    """

    path: str
    is_by_host: bool = False


def canonical(path: str, host: str) -> Address:
    """Return the path of the route that `path` means at `host`.

    Args:
        path: decoded; the full id of the app, the long form and trailing slashes are understood.
    """
    parts = [part for part in path.split("/") if part]
    if parts[:1] in (["run"], ["queue"]) and parts[1:3] == _APP:
        return Address(_known(parts[0], parts[3:]))
    if parts[:2] == _APP:
        base = "queue" if host.lower().startswith("queue.") else "run"
        return Address(_known(base, parts[2:]), is_by_host=True)
    return Address("/" + "/".join(parts))


def proxied(target: str) -> tuple[Address, str]:
    """Return the address and the query that a request to the proxy route means; nothing is fetched.

    Raises:
        ValueError: it is not an http or https url.
    """
    try:
        parts = urlsplit(target)
    except ValueError as error:  # its message is about addresses in brackets
        raise ValueError("expected an http or https url") from error
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("expected an http or https url")
    address = canonical(unquote(parts.path), parts.hostname)
    return Address(address.path), parts.query


def is_host(value: str) -> bool:
    """Whether this is a host, perhaps with a port, that can be put into a link."""
    return _HOST.fullmatch(value) is not None


def host_name(value: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    name = value.rpartition(":")[0] if re.search(r":[0-9]+$", value) else value
    return name.strip("[]").lower()


def _known(base: str, rest: list[str]) -> str:
    if "requests" in rest[:2]:
        at = rest.index("requests")
        tail = rest[at + 1 :]
        if rest[:at] in ([], *([kind] for kind in KINDS)) and tail:
            tail = tail[:1] if tail[1:] == ["response"] else tail
            return "/".join(["", "queue", *_APP, "requests", *tail])
    return "/".join(["", base, *_APP, *rest])


CALLER: Final = "stillreel.caller"  # the key in an ASGI scope


@dataclass(frozen=True, slots=True)
class Links:
    """The beginnings of links to this door, as its caller reaches it.

    Attributes:
        base: scheme, host and prefix, without a slash at the end.
        queue: the part before an app's name; the same as `base` if the host alone means the queue.
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
    """Who sends a request.

    Attributes:
        client: for taking turns: "http:" and the key's name, or the client's address if no key is required.
        key: the key's name; None without a key.
    """

    client: str
    key: str | None
    links: Links

    @property
    def owner(self) -> str:
        """Whose jobs this client may see: those of its key, or those of all clients without one."""
        return f"key.{self.key}" if self.key else ""

    def job_id(self, request_id: str) -> str:
        return own_id(self.owner, request_id)


def caller_of(request: "Request") -> Caller:
    """Return who sent a request, as the gate has determined."""
    caller: Caller = request.scope[CALLER]
    return caller


def address_of(peer: str, headers: Iterable[tuple[bytes, bytes]], settings: HttpSettings) -> str:
    """Return the address that a request comes from: the peer's, or the one that a trusted proxy reports.

    A proxy appends its own peer to X-Forwarded-For; the entries before that are the client's own claims. If the last
    entry is not an address, the proxy itself counts as the client.
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
        is_by_host: whether the request's Host header told run from queue.
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


_UPLOAD = re.compile(r"[A-Za-z0-9_-]{32}")
_LIFE_S = 3600


class Tokens:
    """Makes and checks tokens."""

    def __init__(self, data_dir: Path) -> None:
        """Read the secret, or make it.

        Raises:
            ConfigError: it can be neither read nor made.
        """
        self._secret = secret_bytes(data_dir / "links.secret")

    def result(self, job: Job, field: str) -> str:
        """Return the token of one of a job's files, by its name in the result; it says nothing about the others'.

        A later job that reuses the id has other tokens.
        """
        words = f"{job.id}\0{job.number}\0{job.accepted_at!r}"
        return f"{job.id}.{self._mac('result' if field == 'video' else field, words)}"

    def file_of(self, token: str, find: Callable[[str], Job]) -> tuple[Job, File] | None:
        """Return the job and the file of its result that a token stands for.

        Args:
            find: returns the job that has an id, or raises JobNotFound.
        """
        try:
            job = find(token.rpartition(".")[0])
        except JobNotFound:
            return None
        given = token.encode("utf-8", "replace")
        for field, file in job.result.files().items() if job.result else ():
            if hmac.compare_digest(given, self.result(job, field).encode()):
                return job, file
        return None

    def new_upload(self) -> str:
        """Return the token of a file that will be uploaded."""
        return secrets.token_urlsafe(24)

    def writable(self, upload: str) -> str:
        """Return the token that allows writing an upload."""
        return f"{upload}.{self._mac('write', upload)}"

    def upload_of(self, token: str) -> str | None:
        """Return the upload that a token allows writing, or None."""
        upload, _, mac = token.rpartition(".")
        return upload if is_upload(upload) and self._is_mac(mac, "write", upload) else None

    def for_uploads(self, key: str | None) -> tuple[str, datetime]:
        """Return a token that replaces a key for uploads, and when it expires."""
        ends = int(time.time()) + _LIFE_S
        words = f"{ends}.{key or ''}"
        return f"up.{self._mac('uploads', words)}.{words}", datetime.fromtimestamp(ends, UTC)

    def uploader(self, token: str) -> str | None:
        """Return the key that such a token replaces; None if it is not valid or has expired."""
        kind, _, rest = token.partition(".")
        mac, _, words = rest.partition(".")
        ends, _, key = words.partition(".")
        if kind != "up" or not self._is_mac(mac, "uploads", words) or int(ends) < time.time():
            return None
        return key

    def _mac(self, purpose: str, words: str) -> str:
        digest = hmac.new(self._secret, f"{purpose}\0{words}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return urlsafe_b64encode(digest[:24]).decode()

    def _is_mac(self, mac: str, purpose: str, words: str) -> bool:
        return hmac.compare_digest(mac.encode("utf-8", "replace"), self._mac(purpose, words).encode())


def is_upload(token: str) -> bool:
    """Whether this has the form of an upload's token."""
    return _UPLOAD.fullmatch(token) is not None
