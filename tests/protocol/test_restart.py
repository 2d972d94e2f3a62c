"""A daemon that is drained, killed and started again while clients wait: real ROUTERs that come and go."""

import asyncio
import itertools
import threading
import time

import pytest

from protocol.client import AsyncClient, Client
from protocol.errors import ClientTimeout, RemoteError, Unreachable
from protocol.schema import Fault
from protocol.wire import failure
from tests.daemon_process import wait_until

REQUEST = {"images": [{"url": "a.png", "frames": 72}], "request_id": "mine"}
STOPPING = Fault(type="shutting_down", message="the daemon is stopping", retryable=True)
HEALTH = {"status": "ok", "version": "1", "workers": 1, "jobs_running": 0, "jobs_queued": 0, "encoder": "libx264"}

# So patient in silence that within a test's time only a reconnection brings a call through.
DEAF = {"silence_s": 600.0, "timeout_s": 30.0}

ASKING = {
    "render": lambda client: client.render(REQUEST),
    "submit": lambda client: client.submit(REQUEST),
    "status": lambda client: client.status("mine"),
    "result": lambda client: client.result("mine"),
    "cancel": lambda client: client.cancel("mine"),
    "jobs": lambda client: client.jobs(),
    "health": lambda client: client.health(),
    "wait": lambda client: client.wait("mine"),
}


def refuse(server, call):
    server.send(failure(call.id, STOPPING))


def port(server):
    return server.endpoint.rpartition(":")[2]


class Asking(threading.Thread):
    """One call of a client in a thread of its own."""

    def __init__(self, ask, client):
        super().__init__()
        self._ask, self._client = ask, client
        self.outcome = None
        self.start()

    def run(self):
        try:
            self.outcome = self._ask(self._client)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.outcome = error

    def ended(self):
        self.join(60)
        return self.outcome


@pytest.fixture
def answer(result, status):
    """A handler without surprises: every job is done."""

    def handle(server, call):
        replies = {"render": result, "result": result, "health": HEALTH, "jobs": {"jobs": []}}
        server.answer(call, replies.get(call.method, status("mine", status="COMPLETED")))

    return handle


# A daemon that is stopping, and says so.


@pytest.mark.parametrize("name", ASKING)
def test_a_daemon_that_is_stopping_is_asked_again_until_it_takes_the_call(serve, answer, name):
    times = []

    def handle(server, call):
        times.append(time.monotonic())
        (refuse if len(times) <= 3 else answer)(server, call)

    server = serve(handle)
    with Client(server.endpoint, **DEAF) as client:
        ASKING[name](client)
    assert server.bodies[0] == server.bodies[1] == server.bodies[2] == server.bodies[3]
    assert len(set(server.identities)) == 1
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(found >= least for found, least in zip(pauses, (0.24, 0.49, 0.99), strict=False))


def test_a_daemon_that_goes_on_stopping_is_named_when_patience_ends(serve):
    server = serve(refuse)
    with Client(server.endpoint, patience_s=1.5) as client:
        with pytest.raises(RemoteError, match=r"^the daemon is stopping$") as caught:
            client.render(REQUEST)
        assert caught.value.kind.name == "shutting_down"
        asked = [call.params["request_id"] for call in server.calls]
        assert asked in (["mine"] * 2, ["mine"] * 3), "at 0, 0.25 and 0.75 s"
        assert client._client._connection._pending == {}


def test_a_daemon_that_stopped_and_does_not_come_back_is_named_when_patience_ends(serve):
    server = serve(lambda server, call: refuse(server, call) if len(server.calls) == 1 else None)
    with Client(server.endpoint, patience_s=1.2, silence_s=0.3) as client, pytest.raises(RemoteError, match="stopping"):
        client.render(REQUEST)


@pytest.mark.parametrize("name", ["render", "status", "wait"])
def test_the_callers_time_limit_ends_the_wait_for_a_daemon(serve, name):
    server = serve(refuse)
    with Client(server.endpoint, timeout_s=0.6) as client, pytest.raises(ClientTimeout):
        ASKING[name](client)
    assert len(server.calls) == 2


def test_a_good_word_renews_patience_with_a_daemon_that_is_stopping(serve, result):
    def handle(server, call):
        if len(server.calls) == 6:
            server.answer(call, result)
        else:
            server.notify(call)
            refuse(server, call)

    server = serve(handle)
    with Client(server.endpoint, patience_s=0.6, **DEAF) as client:
        assert client.render(REQUEST).frames == 72


def test_a_daemon_that_stops_and_is_started_again_takes_the_call(serve, answer):
    stopping = serve(refuse)
    with Client(stopping.endpoint, **DEAF) as client:
        asking = Asking(ASKING["render"], client)
        wait_until(lambda: len(stopping.calls) == 2, "it was asked twice")
        stopping.stop()
        started = serve(answer, port(stopping))
        assert asking.ended().frames == 72
    assert [call.params["request_id"] for call in started.calls] == ["mine"]


# A daemon that is killed.


def test_a_call_whose_connection_broke_is_sent_again_by_the_next(serve, result):
    def handle(server, call):
        server.notify(call)
        if len(server.calls) == 1:
            server.restart()
        else:
            server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint, **DEAF) as client:
        assert client.render(REQUEST).frames == 72
    assert len(server.calls) == 2
    assert server.bodies[0] == server.bodies[1]


@pytest.mark.parametrize("name", ASKING)
def test_a_call_outlives_a_daemon_that_is_killed_and_started_again(serve, answer, name):
    killed = serve(lambda *_: None)
    with Client(killed.endpoint, **DEAF) as client:
        asking = Asking(ASKING[name], client)
        wait_until(lambda: killed.calls, "the call is there")
        killed.stop()
        started = serve(answer, port(killed))
        assert not isinstance(asking.ended(), Exception)
    assert started.bodies[0] == killed.bodies[0]


def test_many_calls_outlive_a_daemon_that_is_killed_and_started_again(serve, result):
    def handle(server, call):
        server.answer(call, result | {"request_id": call.params["request_id"]})

    async def main():
        killed = serve(lambda *_: None)
        ids = [f"job-{number}" for number in range(200)]
        async with AsyncClient(killed.endpoint, **DEAF) as client:
            asking = [asyncio.create_task(client.render(REQUEST | {"request_id": id_})) for id_ in ids]
            await asyncio.to_thread(wait_until, lambda: len(killed.calls) == 200, "all calls are there")
            await asyncio.to_thread(killed.stop)
            started = serve(handle, port(killed))
            answers = await asyncio.gather(*asking)
            assert client._connection._pending == {}
        assert [answer.request_id for answer in answers] == ids
        assert sorted(call.params["request_id"] for call in started.calls) == sorted(ids)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_what_is_asked_while_nobody_is_there_arrives_once(serve, answer):
    async def main():
        killed = serve(answer)
        async with AsyncClient(killed.endpoint, **DEAF) as client:
            await client.health()
            opened_at = client._connection._lost_at
            killed.stop()
            await asyncio.to_thread(wait_until, lambda: client._connection._lost_at > opened_at, "the loss is seen")
            asking = asyncio.create_task(client.render(REQUEST))
            await asyncio.sleep(0.05)
            started = serve(answer, port(killed))
            assert (await asking).frames == 72
            await client.health()
        assert [call.method for call in started.calls] == ["render", "health"]

    asyncio.run(main())


def test_a_message_that_makes_the_server_hang_up_is_not_sent_round_for_ever(serve):
    server = serve(lambda server, _: server.restart())
    with Client(server.endpoint, silence_s=600) as client, pytest.raises(ClientTimeout):
        client.render(REQUEST, timeout_s=1.5)
    assert len(server.calls) == 2


def test_restarts_with_a_word_between_them_are_all_survived(serve, result):
    def handle(server, call):
        server.notify(call)
        if len(server.calls) <= 4:
            server.restart()
        else:
            server.answer(call, result)

    server = serve(handle)
    with Client(server.endpoint, **DEAF) as client:
        assert client.render(REQUEST).frames == 72
    assert len(server.calls) == 5


# Waiting for a submitted job.


def test_wait_outlives_a_daemon_that_is_away_for_longer_than_the_connect_timeout(serve, answer, status):
    killed = serve(lambda server, call: server.answer(call, status("mine", status="IN_PROGRESS")))
    seen = []
    with Client(killed.endpoint, connect_timeout_s=0.2, silence_s=0.3, patience_s=60, timeout_s=60) as client:
        asking = Asking(lambda client: client.wait("mine", progress=seen.append), client)
        wait_until(lambda: seen, "the job is followed")
        killed.stop()
        time.sleep(1)
        serve(answer, port(killed))
        assert asking.ended().frames == 72


def test_wait_ends_when_patience_does(serve, status):
    def handle(server, call):
        if len(server.calls) == 1:
            server.answer(call, status("mine"))

    server = serve(handle)
    with (
        Client(server.endpoint, connect_timeout_s=1.5, patience_s=2) as client,
        pytest.raises(Unreachable, match="for 2 s"),
    ):
        client.wait("mine")


def test_wait_for_a_daemon_that_was_never_there_ends_with_the_connect_timeout(serve):
    server = serve(lambda *_: None)
    with Client(server.endpoint, connect_timeout_s=0.2) as client, pytest.raises(Unreachable, match=r"for 0\.2 s"):
        client.wait("mine")


def test_a_job_that_the_next_daemon_does_not_know_ends_wait_at_once(serve, status):
    killed = serve(lambda server, call: server.answer(call, status("mine", status="IN_PROGRESS")))
    forgotten = Fault(type="not_found", message="no job has this id")
    with Client(killed.endpoint, **DEAF) as client:
        asking = Asking(ASKING["wait"], client)
        wait_until(lambda: killed.calls, "the job is followed")
        killed.stop()
        started = serve(lambda server, call: server.send(failure(call.id, forgotten)), port(killed))
        error = asking.ended()
    assert isinstance(error, RemoteError)
    assert error.kind.name == "not_found"
    assert len(started.calls) == 1


def test_a_job_whose_result_is_lost_is_reported_at_once(serve, status):
    def handle(server, call):
        if call.method == "status":
            server.answer(call, status("mine", status="COMPLETED"))
        else:
            server.send(failure(call.id, Fault(type="not_found", message="no job has this id")))

    server = serve(handle)
    with Client(server.endpoint, **DEAF) as client, pytest.raises(RemoteError, match="no job has this id"):
        client.wait("mine")
    assert [call.method for call in server.calls] == ["status", "result"]
