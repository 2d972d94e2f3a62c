"""One POST to a server outside, which is told something and whose answer counts by its status alone.

Each runs on a thread of its own, which nobody waits for: a name server that hangs is waited for as long as the system's
resolver does, and must keep neither other calls nor a daemon that stops.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future

from renderer.errors import FetchFailed
from renderer.net.client import Client, Deadline, parse_http


class CallFailed(Exception):
    """A call that was not answered with a 2xx; the words are for the log."""


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
    told = {"connection": "close", **headers}
    with client.asked("POST", parse_http(url), told, Deadline(timeout_s, "the call"), body) as answer:
        return answer.status
