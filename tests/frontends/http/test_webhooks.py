"""Webhooks: signed, repeated, kept over a kill, and never sent inside the network."""

import asyncio
import base64
import contextlib
import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from renderer.config import Settings, WebhookSettings
from renderer.frontends.http.webhooks import Webhooks
from renderer.jobs.hooks import Hook
from renderer.jobs.job import State
from renderer.net.addresses import Guard
from renderer.net.client import CallFailed, Client, post
from tests.daemon_process import DaemonProcess, Gate, Start, request, starting, still, wait_until
from tests.jobs.factories import running
from tests.receiver import Receiver, receiving
from tests.served import APP, QUEUE, Served

NEAR = {"WEBHOOKS__ALLOW_NETWORKS": "127.0.0.0/8", "WEBHOOKS__FIRST_PAUSE_S": 0.1}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that may call this machine, for tests that ask nothing of its counters."""
    with starting(tmp_path_factory.mktemp("near")) as start:
        yield start("--http", "127.0.0.1:0", **NEAR)


def wait_for_ended(daemon: DaemonProcess, state: str) -> None:
    """Wait until the daemon's one webhook has ended so and no call is outstanding."""
    wanted = {f'stillreel_webhooks_ended_total{{state="{state}"}} 1.0', "stillreel_webhooks_pending 0.0"}
    wait_until(lambda: wanted <= {*httpx.get(f"{daemon.http}/metrics").text.splitlines()}, f"it is {state}")


def submit(daemon: DaemonProcess, body: dict[str, Any], webhook: str) -> str:
    response = httpx.post(daemon.http + QUEUE, params={"fal_webhook": webhook}, json=body)
    assert response.status_code == 200, response.text
    return response.json()["request_id"]


def test_a_webhook_is_signed_with_the_published_key_and_brings_the_result(
    near: DaemonProcess, receiver: Receiver
) -> None:
    request_id = submit(near, request(still(frames=3)), receiver.url)
    wait_until(lambda: receiver.calls, "the call")
    headers, body = receiver.calls[0]
    document = json.loads(body)
    assert document == {
        "request_id": request_id,
        "gateway_request_id": request_id,
        "status": "OK",
        "payload": httpx.get(f"{near.http}/queue/{APP}/requests/{request_id}").json(),
    }
    assert httpx.get(document["payload"]["video"]["url"]).status_code == 200
    [key] = httpx.get(f"{near.http}/.well-known/jwks.json").json()["keys"]
    point = base64.urlsafe_b64decode(key["x"] + "=" * (-len(key["x"]) % 4))
    names = ("request-id", "user-id", "timestamp")
    words = [*(headers[f"x-fal-webhook-{name}"] for name in names), hashlib.sha256(body).hexdigest()]
    signature = bytes.fromhex(headers["x-fal-webhook-signature"])
    Ed25519PublicKey.from_public_bytes(point).verify(signature, "\n".join(words).encode())  # raises if it is not ours
    assert abs(int(headers["x-fal-webhook-timestamp"]) - time.time()) < 60


def test_a_webhook_is_repeated_until_it_is_acknowledged(start: Start, receiver: Receiver) -> None:
    receiver.answers = [500, 302, 204]
    daemon = start("--http", "127.0.0.1:0", **NEAR)
    submit(daemon, request(), receiver.url)
    wait_for_ended(daemon, "acknowledged")
    assert len(receiver.calls) == 3


def test_a_webhook_of_a_failed_request_brings_its_error(near: DaemonProcess, receiver: Receiver) -> None:
    submit(near, {"images": [still(), {"url": "data:image/png;base64,AAAA"}]}, receiver.url)
    wait_until(lambda: receiver.calls, "the call")
    [document] = receiver.documents()
    assert document["status"] == "ERROR"
    assert document["payload"]["detail"][0]["loc"] == ["body", "images", 1, "url"]
    assert document["error"].startswith("images[1].url: ")


def test_a_webhook_survives_a_kill(start: Start, receiver: Receiver, gate: Gate) -> None:
    """One job ends before the kill and is not acknowledged; another has not ended."""
    receiver.answers = [503]
    slow = {**NEAR, "WEBHOOKS__FIRST_PAUSE_S": 1, "ENGINE__WORKERS": 1}
    daemon = start("--http", "127.0.0.1:0", **slow)
    ended = submit(daemon, request(), receiver.url)
    wait_until(lambda: receiver.calls, "the first call")
    running = submit(daemon, gate.request(), receiver.url)
    daemon.wait_for(running)
    daemon.signal(signal.SIGKILL)
    daemon.child.wait(60)
    receiver.answers = [200]
    gate.open()
    start("--http", "127.0.0.1:0", **slow)
    told = lambda: {document["request_id"] for document in receiver.documents()[1:]}  # noqa: E731 - reads better here
    wait_until(lambda: told() >= {ended, running}, "both calls", 30)


def test_no_webhook_is_called_before_the_end_that_it_tells_is_on_disk(tmp_path: Path, receiver: Receiver) -> None:
    async def scenario() -> None:
        async with running(tmp_path) as at:
            settings = Settings(webhooks=WebhookSettings(allow_networks=(ip_network("127.0.0.0/8"),)))
            webhooks = Webhooks(settings, tmp_path, at.engine, at.store.hooks)
            async with at.store._flushing:
                at.submit("a", hook=Hook(receiver.url))
                await at.when(lambda: at.stored("a").state is State.DONE, "the end is written down")
                calling = asyncio.create_task(webhooks.run())
                await at.when(lambda: webhooks._calling, "the call is due")
                await asyncio.sleep(0.1)  # a call to this machine takes less
                assert (at.state("a"), receiver.calls) == (State.RUNNING, [])
            await at.when(lambda: receiver.calls and not webhooks._calling, "the call")
            calling.cancel()
            await asyncio.wait([calling])

    asyncio.run(scenario())
    assert [document["status"] for document in receiver.documents()] == ["OK"]


def test_a_request_over_zeromq_may_name_a_webhook(near: DaemonProcess, receiver: Receiver) -> None:
    made = near.client.render(request(webhook_url=receiver.url))
    wait_until(lambda: receiver.calls, "the call")
    [document] = receiver.documents()
    assert document["request_id"] == made.request_id
    assert document["payload"]["video"]["url"] == made.video.url


def test_no_call_goes_to_an_address_inside_the_network(start: Start, receiver: Receiver) -> None:
    """An address is refused with its request; one that is known from a name only is found out when it is called."""
    daemon = start("--http", "127.0.0.1:0", WEBHOOKS__FIRST_PAUSE_S=0.1)
    for host in ("127.0.0.1", "localhost", "a.localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"):
        url = f"http://{host}:{receiver.port}/"
        response = httpx.post(daemon.http + QUEUE, params={"fal_webhook": url}, json=request())
        assert response.status_code == 422, url
        [fault] = response.json()["detail"]
        assert (fault["loc"], fault["msg"]) == (
            ["body", "webhook_url"],
            "expected a host with a public address (webhooks.allow_networks allows others)",
        )
    submit(daemon, request(), f"http://{socket.gethostname()}:{receiver.port}/")
    wait_until(lambda: daemon.words().count("expected a host with a public address") >= 2, "a call refused twice")
    assert not receiver.calls


def test_a_call_that_is_not_allowed_any_more_is_given_up_at_once(start: Start, receiver: Receiver, gate: Gate) -> None:
    daemon = start("--http", "127.0.0.1:0", **NEAR)
    submit(daemon, gate.request(), receiver.url)
    daemon.signal(signal.SIGKILL)
    daemon.child.wait(60)
    gate.open()
    again = start("--http", "127.0.0.1:0")
    wait_until(lambda: "webhook given up after 1 calls: expected a host" in again.words(), "given up")
    assert not receiver.calls


def test_names_that_take_for_ever_hold_up_nothing_else() -> None:
    hangs = threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        hangs.wait(60)
        return []

    async def scenario() -> None:
        client = Client(Guard(resolve=resolve))
        waiting = [asyncio.create_task(post(client, "http://slow.example/", {}, b"", 60)) for _ in range(64)]
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            assert await asyncio.to_thread(lambda: "at once") == "at once"
        with pytest.raises(CallFailed, match=r"no answer within 0\.01 s"):
            await post(client, "http://slow.example/", {}, b"", 0.01)
        hangs.set()
        failures = await asyncio.gather(*waiting, return_exceptions=True)
        assert {str(failure) for failure in failures} == {
            "expected a host with a public address (fetch.allow_networks allows others)"
        }

    asyncio.run(scenario())


def test_an_address_that_does_not_answer_leaves_time_for_the_next(receiver: Receiver) -> None:
    def both(*_: object, **__: object) -> list[tuple[Any, ...]]:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    client = Client(Guard((ip_network("127.0.0.0/8"),), both))

    with socket.create_server(("127.0.0.2", receiver.port), backlog=0) as deaf, contextlib.ExitStack() as full:
        for _ in range(2):  # what comes now is not answered at all
            caller = full.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        asyncio.run(post(client, f"http://twice.example:{receiver.port}/", {}, b"{}", 3))
    assert len(receiver.calls) == 1


def test_a_webhook_that_nobody_takes_is_given_up(start: Start, receiver: Receiver) -> None:
    receiver.answers = [500]
    daemon = start("--http", "127.0.0.1:0", **NEAR, WEBHOOKS__GIVE_UP_S=1)
    submit(daemon, request(), receiver.url)
    wait_until(lambda: "webhook given up after" in daemon.words(), "given up")
    wait_for_ended(daemon, "given_up")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/",
        "http://",
        "http://user@a/",
        "http://a b/",
        "//a",
        "http://a/\u00e9",
        "http://a:0/",
        "http://a:65536/",
        "http://a:x/",
        "http://[::g]/",
        "http://[1::2::3]/",
    ],
)
def test_a_webhook_that_is_no_url_is_refused(served: Served, url: str) -> None:
    response = served.http.post(QUEUE, json=request(webhook_url=url))
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body", "webhook_url"]
