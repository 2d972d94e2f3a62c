"""Clients with right, wrong, missing and removed keys at a real daemon."""

import json
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from protocol.client import Client
from protocol.curve import read_curve_file
from protocol.errors import BadCurveFile, ClientError, KeyRefused, RemoteError, Unreachable
from renderer.errors import ConfigError
from renderer.frontends.zmq.curve import CurveRing
from tests.cli_process import run
from tests.curve_keys import curve_file, keys
from tests.daemon_process import DaemonProcess, Gate, Start, request, starting, wait_until
from tests.frontends.zmq.test_zmq_server import connected

REFUSED = "refused 127.0.0.1: "


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curve")


@pytest.fixture(scope="module")
def alice(directory: Path) -> Path:
    return curve_file(directory / "data", "alice")


@pytest.fixture(scope="module")
def bob(directory: Path) -> Path:
    return curve_file(directory / "data", "bob")


@pytest.fixture(scope="module")
def daemon(directory: Path, alice: Path, bob: Path) -> Iterator[DaemonProcess]:
    """A daemon with keys: its first endpoint asks for them, its second is for this machine and does not."""
    with starting(directory) as start:
        daemon = start("--local", "tcp://127.0.0.1:*", ENGINE__WORKERS=1)
        yield daemon
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.words()


def local(daemon: DaemonProcess) -> str:
    return daemon.ready_line.split(" ready on ")[1].split(", ")[1]


def asking(daemon: DaemonProcess, curve: Path | None = None, **limits: float) -> Client:
    return Client(daemon.endpoint, curve=curve, **{"timeout_s": 20, "connect_timeout_s": 20, **limits})


def refusals(daemon: DaemonProcess) -> list[str]:
    return [line for line in daemon.words().splitlines() if "refused " in line]


# Who gets in.


def test_a_client_with_a_key_gets_its_video(daemon: DaemonProcess, alice: Path) -> None:
    with asking(daemon, alice) as client:
        made = client.render(request(sync_mode=True))
    assert made.attachments[0][4:8] == b"ftyp"


def test_a_client_without_a_key_is_told_so_by_its_own_end(daemon: DaemonProcess) -> None:
    with asking(daemon) as client, pytest.raises(KeyRefused, match="only accepts clients with a CURVE key"):
        client.health()


def test_a_key_that_nobody_knows_is_refused(directory: Path, daemon: DaemonProcess) -> None:
    stranger = json.loads(curve_file(directory / "elsewhere", "mallory").read_text())
    stranger["server_key"] = json.loads((directory / "alice.curve").read_text())["server_key"]
    file = directory / "stranger.curve"
    file.write_text(json.dumps(stranger))
    with asking(daemon, file) as client:
        for _ in range(2):  # the client stays usable, and asks anew
            with pytest.raises(KeyRefused, match="does not accept this client's CURVE key"):
                client.health()
    wait_until(lambda: "its CURVE key is not known here" in daemon.words(), "the refusal is logged")
    assert len([line for line in refusals(daemon) if "is not known here" in line]) == 1
    assert stranger["public_key"] not in daemon.words()


def test_a_key_for_another_daemon_gets_nowhere(directory: Path, daemon: DaemonProcess) -> None:
    file = curve_file(directory / "another", "carol")
    with asking(daemon, file, connect_timeout_s=0.7) as client, pytest.raises(Unreachable):
        client.health()
    wait_until(lambda: "it has no CURVE key for this daemon" in daemon.words(), "the refusal is logged")
    lines = [line for line in refusals(daemon) if "it has no CURVE key" in line]  # of eight attempts or so
    assert sum(REFUSED in line for line in lines) <= 1
    assert sum("refused somebody: " in line for line in lines) <= 1  # gone before the daemon could look who it was


def test_a_plain_peer_gets_not_a_word(daemon: DaemonProcess) -> None:
    with connected(daemon.endpoint, zmq.REQ) as socket:
        monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        socket.send(b'{"jsonrpc": "2.0", "id": 1, "method": "health"}')
        assert monitor.poll(60_000)
        assert not socket.poll(0)
        socket.disable_monitor()
        monitor.close()


def test_a_client_with_a_key_is_told_that_none_is_wanted(daemon: DaemonProcess, alice: Path) -> None:
    with Client(local(daemon), curve=alice) as client, pytest.raises(KeyRefused, match="clients without a CURVE key"):
        client.health()


def test_a_key_counts_as_soon_as_it_is_made_and_not_when_it_is_removed(directory: Path, daemon: DaemonProcess) -> None:
    keys(directory / "data", "curve", "dave", cwd=directory)
    file = directory / "dave.curve"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with asking(daemon, file, silence_s=0.5) as client:
        assert client.submit(request(request_id="mine")).request_id == "mine"
        assert "dave\t" in keys(directory / "data", "list", "--curve", cwd=directory)
        keys(directory / "data", "remove", "--curve", "dave", cwd=directory)

        def is_refused() -> bool:
            """Whether the daemon, which looks ten times a second, has seen it."""
            try:
                client.status("mine")
            except KeyRefused:  # silence on the open connection, and no new one
                return True
            return False

        wait_until(is_refused, "the key is refused")
        removed = [line for line in refusals(daemon) if "its CURVE key was removed" in line]
        assert len(removed) == 1


def test_a_key_that_is_removed_while_its_client_waits_gets_no_answer(
    directory: Path, daemon: DaemonProcess, gate: Gate
) -> None:
    file = curve_file(directory / "data", "erin")
    keys_of_erin = read_curve_file(file)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        keys_of_erin.give_to(socket)
        socket.connect(daemon.endpoint)
        params = {**gate.request(request_id="late"), "progress": True}
        socket.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "render", "params": params}).encode())
        assert socket.poll(60_000)
        wait_until(lambda: gate.fetched, "the job runs")
        CurveRing(directory / "data").remove("erin")
        while socket.poll(1500):  # a heartbeat comes each second until the daemon has noticed
            socket.recv()
        gate.open()
        assert not socket.poll(1500)  # neither a heartbeat, of which there is one a second, nor the result


# Whose jobs they are.


def _fetch(client: Client, request_id: str) -> list[bytes]:
    return list(client.video(request_id))


def test_clients_see_and_cancel_their_own_jobs_only(daemon: DaemonProcess, alice: Path, bob: Path) -> None:
    with asking(daemon, alice) as hers, asking(daemon, bob) as his, Client(local(daemon), timeout_s=60) as here:
        jobs = {
            client: client.render(request(request_id="same", crf=crf)) for crf, client in enumerate((hers, his, here))
        }
        assert len({made.video.url for made in jobs.values()}) == 3
        assert [made.request_id for made in jobs.values()] == ["same"] * 3
        hers.submit(request(request_id="hers"))
        for other in (his, here):
            assert [job.request_id for job in other.jobs()].count("hers") == 0
            for ask in (other.status, other.result, other.cancel, partial(_fetch, other)):
                for name in ("hers", "curve.alice~hers", "curve.alice~same"):
                    with pytest.raises(RemoteError) as unknown:
                        ask(name)
                    with pytest.raises(RemoteError) as nobodys:
                        ask("nobodys")
                    assert (unknown.value.kind, unknown.value.message) == (nobodys.value.kind, nobodys.value.message)
        assert {job.request_id for job in hers.jobs()} >= {"hers", "same"}
        with asking(daemon, alice) as again:
            assert again.wait("hers").request_id == "hers"
            assert b"".join(again.video("hers"))[4:8] == b"ftyp"
        with pytest.raises(RemoteError, match="another request already has this id"):
            hers.submit(request(request_id="same", crf=40))


# Starting.


def test_an_address_that_others_reach_needs_keys(start: Start, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="stillreel keys curve NAME"):
        start(bind="tcp://0.0.0.0:*")
    file = curve_file(tmp_path / "data", "alice")
    daemon = start(bind="tcp://0.0.0.0:*")
    port = daemon.endpoint.rpartition(":")[2]
    with Client(f"tcp://127.0.0.1:{port}", curve=file, timeout_s=60) as client:
        assert client.health().status == "ok"


def test_the_endpoint_that_never_asks_for_keys_is_for_this_machine(start: Start) -> None:
    with pytest.raises(AssertionError, match=r"server\.local: expected a loopback or ipc endpoint"):
        start("--local", "tcp://0.0.0.0:*")


def test_ipc_is_guarded_by_the_file_system_and_asks_for_no_key(start: Start, tmp_path: Path) -> None:
    curve_file(tmp_path / "data", "alice")
    daemon = start(bind=f"ipc://{tmp_path}/socket")
    assert daemon.client.health().status == "ok"


# Files.


def test_the_daemon_keeps_no_secret_of_a_client(tmp_path: Path) -> None:
    file = curve_file(tmp_path / "data", "alice")
    secret = json.loads(file.read_text())["secret_key"]
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert sorted(path.name for path in kept) == ["alice.json", "daemon.json"]
    assert not [path for path in kept if secret in path.read_text()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "a~b", "x" * 65])
def test_a_name_that_is_none_gets_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name"):
        CurveRing(tmp_path).add(name)


def test_a_name_gets_one_key(tmp_path: Path) -> None:
    ring = CurveRing(tmp_path)
    ring.add("alice")
    with pytest.raises(ConfigError, match="a CURVE key named alice already"):
        ring.add("alice")
    ring.remove("alice")
    ring.add("alice")
    with pytest.raises(ConfigError, match="no CURVE key named 'bob'"):
        ring.remove("bob")


def test_a_key_that_takes_another_ones_name_at_once_is_another(tmp_path: Path) -> None:
    ring, daemon = CurveRing(tmp_path), CurveRing(tmp_path)
    for _ in range(20):
        made = ring.add("alice").public_key.decode()
        assert daemon.name_of(made, is_new=True) == "alice"
        ring.remove("alice")
        ring.add("alice")
        assert daemon.name_of(made, is_new=True) is None
        ring.remove("alice")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"server_key": "x"}', '{"server_key": 5}', "\\x00"])
def test_a_file_without_keys_is_told_at_once(tmp_path: Path, content: str) -> None:
    file = tmp_path / "bad.curve"
    file.write_text(content)
    with pytest.raises(BadCurveFile, match=r"bad\.curve"):
        Client(curve=file)
    assert issubclass(BadCurveFile, ClientError)


def test_a_key_is_not_shown_by_the_object_that_holds_it(tmp_path: Path) -> None:
    found = read_curve_file(curve_file(tmp_path / "data", "alice"))
    assert found.secret_key.decode() not in repr(found)


def test_the_commands_take_a_key(daemon: DaemonProcess, alice: Path, directory: Path) -> None:
    asked = ("jobs", "--json", "--connect", daemon.endpoint)
    told = run(*asked, "--curve", alice, cwd=directory)
    assert told.returncode == 0, told.stderr
    for _ in range(
        4
    ):  # on a busy machine the daemon may hang up before ZeroMQ has read its greeting, which names CURVE
        refused = run(*asked, cwd=directory)
        if refused.returncode != 3:
            break
    assert refused.returncode == 2
    assert "only accepts clients with a CURVE key" in refused.stderr
