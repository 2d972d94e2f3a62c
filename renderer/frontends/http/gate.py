"""What is checked of every request before a route sees it: its address, its origin and its key.

Without keys only this machine may use the door, but a browser on this machine runs strangers' pages. So if no key is
required, a page's origin must be this machine or an allowed one, even to send a request, since a POST needs no
preflight. And the Host header must name this machine or an allowed host, because a stranger's name may have been
rebound to 127.0.0.1.

This is the outermost layer, and plain ASGI because every client asks for the status ten times a second.
"""

import functools
import ipaddress
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from renderer.config import HttpSettings
from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.links import (
    CALLER,
    PROXY_PATH,
    Address,
    Caller,
    Tokens,
    address_of,
    canonical,
    host_name,
    is_host,
    links,
    proxied,
)
from renderer.frontends.http.responses import FAILED, error_body
from renderer.frontends.refusals import Refusals

log = logging.getLogger(__name__)

_OPEN: Final = ("/", "/livez", "/readyz", "/openapi.json", "/.well-known/jwks.json", "/favicon.ico")
_OPEN_BELOW: Final = ("/web/", "/files/")
_UPLOAD: Final = "/files/upload"
_METHODS: Final = b"GET, HEAD, POST, PUT, OPTIONS"
_EXPOSED: Final = b"x-fal-request-id, x-fal-error-type, x-fal-request-timeout-type, content-range, accept-ranges, etag"
_ASKABLE: Final = re.compile(
    r"(authorization|content-type|accept|range|idempotency-key|user-agent|x-fal-[a-z0-9-]{1,60})"
)
_ALWAYS: Final = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Gate:
    """The layer around the app."""

    def __init__(
        self, app: ASGIApp, settings: HttpSettings, keys: KeyRing, tokens: Tokens, *, always_needs_key: bool
    ) -> None:
        """Wrap an app.

        Args:
            always_needs_key: require a key even if none exists, because other machines can reach this door.
        """
        self._app = app
        self._settings = settings
        self._keys = keys
        self._tokens = tokens
        self._always_needs_key = always_needs_key
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = _Answer(send, self._cors(headers))
        try:
            refusal = self._admit(scope, headers)
            if refusal is None:
                await self._app(scope, receive, answer)
            else:
                await answer.short(*refusal)
        except Exception:
            log.exception("a request could not be answered", extra={"action": "http_failed"})
            await answer.short(500, error_body(FAILED, "internal_error"))

    def _admit(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, dict[str, Any] | None] | None:
        """Prepare the scope for the routes; return the status and body of the answer if the request is refused."""
        host = headers.get("host", "")
        if wrong := self._wrong_host(scope, host):
            return 400, error_body(wrong, "bad_request")
        if not self._may_ask(headers.get("origin")):
            return 403, error_body("pages of this origin are not allowed (http.allow_origins)", "forbidden")
        if scope["method"] == "OPTIONS":
            return 204, None
        try:
            address = self._address(scope, headers)
        except ValueError as error:
            return 400, error_body(f"x-fal-target-url: {error}", "bad_request")
        scope["path"], scope["raw_path"] = address.path, address.path.encode("utf-8", "replace")
        key = self._key(headers.get("authorization", ""), scope)
        peer = scope["client"][0] if scope.get("client") else "unknown"
        client = address_of(peer, scope["headers"], self._settings)
        if self._needs_key and key is None and not _is_open(scope):
            self._refusals.note(client, f"it sent {'no' if 'authorization' not in headers else 'a wrong'} API key")
            return 401, error_body("expected Authorization: Key and one of this server's keys", "unauthorized")
        here = links(scope["scheme"], headers, self._settings, is_by_host=address.is_by_host)
        scope[CALLER] = Caller(f"http:{key or client}", key, here)
        return None

    def _wrong_host(self, scope: Scope, host: str) -> str | None:
        if (
            sum(name == b"host" for name, _ in scope["headers"]) > 1
        ):  # RFC 9112, 3.2: a proxy may have used the other one
            return "expected one Host header"
        is_ours = is_host(host) and (self._needs_key or self._is_known(host_name(host)))
        return None if is_ours else "expected a Host header that names this server"

    def _address(self, scope: Scope, headers: Mapping[str, str]) -> Address:
        path: str = scope["path"]
        if path.rstrip("/") != PROXY_PATH:
            return canonical(path, headers.get("host", ""))
        address, query = proxied(headers.get("x-fal-target-url", ""))
        scope["query_string"] = query.encode("ascii", "replace")
        return address

    @property
    def _needs_key(self) -> bool:
        return self._always_needs_key or bool(self._keys.keys)

    def _key(self, authorization: str, scope: Scope) -> str | None:
        """Return the name of the request's key, or of the key that its upload token was made for."""
        kind, _, secret = authorization.partition(" ")
        if kind.lower() not in {"key", "bearer"} or not secret:
            return None
        name = self._keys.name_of(secret.strip())
        if name is None and scope["path"] == _UPLOAD:
            name = self._tokens.uploader(secret.strip())
            return name if any(key.name == name for key in self._keys.keys) else None
        return name

    def _is_known(self, name: str) -> bool:
        public = urlsplit(self._settings.public_url or "").hostname
        return _is_this_machine(name) or name == public or name in self._settings.allow_hosts

    def _may_ask(self, origin: str | None) -> bool:
        if origin is None or self._needs_key or origin in self._settings.allow_origins:
            return True
        try:
            name = urlsplit(origin).hostname if "://" in origin else None
        except ValueError:  # such as a bracket that is not closed
            return False
        return name is not None and _is_this_machine(name.lower())

    def _cors(self, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """Return the headers that let a page read the answer and send the headers that it asks for."""
        origin = headers.get("origin")
        if origin is None or not self._may_ask(origin):
            return []
        asked = headers.get("access-control-request-headers", "").lower().split(",")
        allowed = [name.strip() for name in asked if _ASKABLE.fullmatch(name.strip())]
        found = [
            (b"access-control-allow-origin", b"*" if self._needs_key else origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]
        if "access-control-request-method" in headers:
            found += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", ", ".join(allowed).encode()),
                (b"access-control-max-age", b"600"),
            ]
        return found


class _Answer:
    """Sends the answer, with these headers on every one."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._headers = [*headers, *_ALWAYS]
        self._has_begun = self._is_whole = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._has_begun = True
            message["headers"] = [*message["headers"], *self._headers]
        elif message["type"] == "http.response.body":
            self._is_whole = not message.get("more_body", False)
        await self._send(message)

    async def short(self, status: int, body: dict[str, Any] | None) -> None:
        """Send a small document, or an empty body.

        Raises:
            RuntimeError: another answer was interrupted; this makes the server close the connection.
        """
        if self._is_whole:
            return
        if self._has_begun:
            raise RuntimeError("an answer was interrupted")
        content = b"" if body is None else json.dumps(body).encode()
        headers = [(b"allow", _METHODS)] if body is None else [(b"content-type", b"application/json")]
        if body is not None:
            headers.append((b"content-length", str(len(content)).encode()))
        if status == 401:
            headers.append((b"www-authenticate", b"Key"))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no key: public routes, and files, whose names are secret."""
    path, method = scope["path"], scope["method"]
    if path.startswith(f"{_UPLOAD}/"):
        return bool(method == "PUT")
    return method in {"GET", "HEAD"} and (path in _OPEN or path.startswith(_OPEN_BELOW))


@functools.lru_cache(maxsize=64)
def _is_this_machine(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
