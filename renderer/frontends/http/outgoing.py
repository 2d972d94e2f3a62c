"""One POST to an address outside: h11 speaks, asyncio carries.

The name is resolved once, the address is judged, and that address is connected to, so that no answer of a name server
can lead inside. Redirects are not followed, the body of the answer is not read, and one time limit holds for all.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from renderer.errors import FetchFailed
from renderer.net.addresses import Guard

Addresses = Callable[[str, int], Awaitable[Sequence[str]]]

_CHUNK_BYTES: Final = 1 << 16
_NAMES_AT_ONCE: Final = 16


class CallFailed(Exception):
    """A call that was not answered with a 2xx; the words are for the log."""


class Resolver:
    """Looks names up on threads of its own: a name server that hangs must not keep others from asyncio's few."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._threads = ThreadPoolExecutor(_NAMES_AT_ONCE, "webhook")

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Return the addresses of a host that may be connected to.

        Raises:
            FetchFailed: it has none.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._guard.addresses, host, port)

    def close(self) -> None:
        """Begin no more; what a thread waits for is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def post(url: str, headers: Mapping[str, str], body: bytes, addresses: Addresses, timeout_s: float) -> None:
    """Deliver a body.

    Args:
        addresses: returns those of a host that may be connected to, or raises FetchFailed.

    Raises:
        CallFailed: it was not acknowledged.
    """
    try:
        async with asyncio.timeout(timeout_s):
            ends_at = asyncio.get_running_loop().time() + timeout_s
            status = await _exchange(urlsplit(url), headers, body, addresses, ends_at)
    except TimeoutError as error:
        raise CallFailed(f"no answer within {timeout_s:g} s") from error
    except FetchFailed as error:
        raise CallFailed(error.message) from error
    except (OSError, ValueError, h11.ProtocolError) as error:
        raise CallFailed(f"{type(error).__name__}: {error}") from error
    if not 200 <= status < 300:
        raise CallFailed(f"expected an answer of 200 to 299, found {status}")


async def _exchange(
    url: SplitResult, headers: Mapping[str, str], body: bytes, addresses: Addresses, ends_at: float
) -> int:
    is_tls = url.scheme.lower() == "https"
    host, port = url.hostname or "", url.port or (443 if is_tls else 80)
    reader, writer = await _connect(await addresses(host, port), port, host if is_tls else None, ends_at)
    try:
        connection = h11.Connection(h11.CLIENT)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        told = {"host": url.netloc, "connection": "close", "content-length": str(len(body)), **headers}
        for event in (
            h11.Request(method="POST", target=target.encode(), headers=list(told.items())),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _status(connection, reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            writer.transport.abort()


async def _connect(
    addresses: Sequence[str], port: int, tls_name: str | None, ends_at: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the first address that answers; each has its share of the time, and the exchange has one too."""
    trust = _trust() if tls_name else None
    failed: OSError = OSError("no address")
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now = asyncio.get_running_loop().time()
        share_s = (ends_at - now) / (left + 1 if left > 1 else 1)
        try:
            async with asyncio.timeout(share_s):
                return await asyncio.open_connection(address, port, ssl=trust, server_hostname=tls_name)
        except OSError as error:  # TimeoutError is one
            failed = error
    raise failed


async def _status(connection: h11.Connection, reader: asyncio.StreamReader) -> int:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK_BYTES))
        elif not isinstance(event, h11.InformationalResponse):
            raise OSError("the connection was closed before an answer came")


@lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Load the system's certificates once; that takes longer than a call."""
    return ssl.create_default_context()
