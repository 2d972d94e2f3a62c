"""The HTTP client for servers outside: it connects to judged addresses only, and everything ends by one deadline.

Nothing is taken from the environment unless the settings say so: no proxies, no netrc. No cookie is kept.

A call is one POST, and only the status of the answer matters. Each runs on a thread of its own, which nobody waits for:
where a name server hangs, the system's resolver waits for a long time, which must delay neither other calls nor a
daemon that stops.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from renderer.errors import FetchFailed, SourceUnavailable
from renderer.net.addresses import Guard
from renderer.net.url import HttpUrl, parse_http

if TYPE_CHECKING:
    import httpcore


class Deadline:
    """The moment at which everything must have ended.

    Attributes:
        what: what messages say has failed or taken too long, such as "the download".
        peer_has_ended: the other side has closed the connection that is open.
    """

    def __init__(self, timeout_s: float, what: str = "the download") -> None:
        self.what = what
        self.peer_has_ended = False
        self._timeout_s = timeout_s
        self._ends = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        return self._ends - time.monotonic()

    def check(self) -> None:
        """Refuse to go on after the deadline.

        Raises:
            SourceUnavailable: the time is up.
        """
        if self.left_s <= 0:
            raise SourceUnavailable(f"{self.what} took longer than {self._timeout_s:g} s")


@dataclass(frozen=True, slots=True)
class Client:
    """Asks servers outside; safe to use from many threads.

    Attributes:
        guard: says which addresses may be connected to.
        proxy: http://[USER:PASSWORD@]HOST:PORT that every request goes through. The proxy resolves the names, so it
            has to judge their addresses itself; addresses that are written out are still judged here.
        ca_file: PEM with authorities that are trusted beside the system's.
        headers: further headers by host, sent to that host only.
    """

    guard: Guard
    proxy: str | None = None
    ca_file: Path | None = None
    headers: Mapping[str, Mapping[str, str]] | None = None

    @contextmanager
    def asked(
        self, method: str, url: HttpUrl, headers: Mapping[str, str], deadline: Deadline, body: bytes | None = None
    ) -> "Iterator[httpcore.Response]":
        """Ask over a connection of its own, and lend the answer, whose body is not read yet.

        Raises:
            FetchFailed: no address of the host may be reached, its certificate is refused, or it breaks the protocol.
            SourceUnavailable: it does not answer now.
        """
        from renderer.net.connection import asked  # noqa: PLC0415 - httpcore takes 60 ms that few jobs need

        with asked(self, method, url, headers, deadline, body) as answer:
            yield answer

    def headers_for(
        self, url: HttpUrl, headers: Mapping[str, str], body: bytes | None
    ) -> list[tuple[bytes | str, bytes | str]]:
        """Return all headers of a request."""
        sent = {"Host": url.authority, **headers, **(self.headers or {}).get(url.host, {})}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        return list(sent.items())


class CallFailed(Exception):
    """A call that was not answered with a 2xx; the message is for the log."""


async def post(client: Client, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> None:
    """Deliver a body. Redirects are not followed, and the body of the answer is not read.

    Raises:
        CallFailed: it was not acknowledged.
    """
    answered: Future[int] = Future()

    def call() -> None:
        answered.set_running_or_notify_cancel()
        try:
            answered.set_result(_status(client, url, headers, body, timeout_s))
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answered.set_exception(error)

    threading.Thread(target=call, name="webhook", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            status = await asyncio.wrap_future(answered)
    except TimeoutError as error:
        raise CallFailed(f"no answer within {timeout_s:g} s") from error
    except FetchFailed as error:
        raise CallFailed(error.message) from error
    if not 200 <= status < 300:
        raise CallFailed(f"expected an answer of 200 to 299, found {status}")


def _status(client: Client, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> int:
    headers = {"connection": "close", **headers}
    with client.asked("POST", parse_http(url), headers, Deadline(timeout_s, "the call"), body) as answer:
        return answer.status
