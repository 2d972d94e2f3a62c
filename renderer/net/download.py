"""One image or sound over http or https, within a number of bytes, seconds, redirects and attempts.

Every hop connects to an address that the guard has judged. An answer that leads from https to http is followed, as
browsers do for images; the url's own user and password are never sent, and headers that the settings name go to their
host only, so that a redirect takes no secret along.

Servers are busy now and then: after a reset, a time-out or an answer that means "not now" the download is tried again,
after the pause that the server asks for or one that doubles. The time limit holds for each attempt, redirects and body
included. Only where a name server does not answer may the system's resolver wait for longer.
"""

import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Literal
from urllib.parse import urljoin

import httpcore

from renderer.errors import FetchFailed, FileTooLarge, SourceUnavailable
from renderer.net.client import Client, Deadline
from renderer.net.url import parse_http
from renderer.version import VERSION

_REDIRECTS: Final = (301, 302, 303, 307, 308)  # RFC 9110, 15.4
_NOT_NOW: Final = (408, 425, 429, 502, 503, 504)  # RFC 9110, 15; RFC 6585, 4; RFC 8470, 5.2
_CODING: Final = b"content-encoding"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_ANY_ZLIB: Final = 32 + zlib.MAX_WBITS  # zlib.h, inflateInit2: a gzip or a zlib header, whichever comes
_HEADERS: Final = {
    "User-Agent": f"stillreel/{VERSION}",
    "Accept-Encoding": "identity",  # images and sounds are compressed already; some servers send gzip all the same
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a download may take; `timeout_s` is for one attempt, and `kind` the media type that is preferred."""

    max_bytes: int
    timeout_s: float
    max_redirects: int
    attempts: int = 1
    kind: Literal["image", "audio", "video"] = "image"

    def too_large(self, found: str) -> FileTooLarge:
        words = f"expected at most {self.max_bytes} bytes, found {found} (fetch.max_{self.kind}_bytes)"
        return FileTooLarge(words)


def download(url: str, bounds: Bounds, client: Client, pause: Callable[[float], None] = time.sleep) -> bytes:
    """Return the body that the url leads to.

    Raises:
        FetchFailed: the download failed; as SourceUnavailable if it may work later.
        FileTooLarge: it has more than `max_bytes`; no more than that is read.
    """
    for attempt in range(bounds.attempts - 1):
        try:
            return _download_once(url, bounds, client)
        except SourceUnavailable as error:
            pause(min(_LONGEST_PAUSE_S, max(error.retry_after_s, _FIRST_PAUSE_S * 2**attempt)))
    return _download_once(url, bounds, client)


def _download_once(url: str, bounds: Bounds, client: Client) -> bytes:
    deadline = Deadline(bounds.timeout_s)
    headers = {**_HEADERS, "Accept": f"{bounds.kind}/*, */*;q=0.5"}
    for _ in range(bounds.max_redirects + 1):
        with client.asked("GET", parse_http(url), headers, deadline) as answer:
            target = _header(answer, b"location") if answer.status in _REDIRECTS else None
            if target is None:
                return _body(answer, bounds, deadline)
            url = urljoin(url, target)
    raise FetchFailed(f"expected at most {bounds.max_redirects} redirects, found more")


def _body(answer: httpcore.Response, bounds: Bounds, deadline: Deadline) -> bytes:
    if answer.status in _NOT_NOW:
        raise SourceUnavailable(
            f"expected the answer 200 OK, found {answer.status}", retry_after_s=_asked_pause_s(answer)
        )
    if answer.status != 200:
        raise FetchFailed(f"expected the answer 200 OK, found {answer.status}")
    length = _header(answer, b"content-length") or ""
    if length.isdecimal() and (len(length) > 18 or int(length) > bounds.max_bytes):
        raise bounds.too_large(length[:20])
    chunks: list[bytes] = []
    size_bytes = 0
    for chunk in _decoded(answer, bounds.max_bytes):
        chunks.append(chunk)
        size_bytes += len(chunk)
        if size_bytes > bounds.max_bytes:
            raise bounds.too_large("more")
    deadline.check()
    return b"".join(chunks)


def _decoded(answer: httpcore.Response, max_bytes: int) -> Iterable[bytes]:
    coding = ", ".join(value.decode("latin-1").lower() for name, value in answer.headers if name.lower() == _CODING)
    if coding in ("", "identity"):
        return answer.iter_stream()
    if coding in ("gzip", "x-gzip", "deflate"):
        return _inflated(answer.iter_stream(), max_bytes)
    raise FetchFailed("expected a body without Content-Encoding, or one in gzip")


def _inflated(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Undo gzip or deflate (RFC 9110, 8.4.1); no more than a byte above the limit is ever unpacked at once."""
    decoder = zlib.decompressobj(_ANY_ZLIB)
    try:
        for chunk in chunks:
            packed = chunk
            while packed:
                yield decoder.decompress(packed, max_bytes + 1)
                packed = decoder.unconsumed_tail
                if decoder.eof and decoder.unused_data:  # a gzip file may have several members
                    packed, decoder = decoder.unused_data, zlib.decompressobj(_ANY_ZLIB)
    except zlib.error as error:
        raise FetchFailed("expected a body in gzip as its Content-Encoding says, found a damaged one") from error
    if not decoder.eof:
        raise FetchFailed("expected a whole body in gzip, found one that ends early")


def _header(answer: httpcore.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in answer.headers if key.lower() == name), None)


def _asked_pause_s(answer: httpcore.Response) -> float:
    """Return the pause that Retry-After asks for, in seconds or as a date (RFC 9110, 10.2.3); 0 for none."""
    text = _header(answer, b"retry-after") or ""
    if text.isdecimal() and len(text) < 9:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
