"""The example of docs/operations.md, in a real nginx without rights, in front of a real daemon."""

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from renderer.config import Settings
from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.tls import make_pair
from tests.daemon_process import DaemonProcess, Gate, picture, request, starting, wait_until
from tests.manifest_directory import everybodys_directory
from tests.served import APP, ENDPOINT

_DOCS = Path(__file__).parents[3] / "docs"
DOCS, SEVERAL = ((_DOCS / name).read_text(encoding="utf-8") for name in ("operations.md", "several-daemons.md"))
Require = Callable[[str, object, str], None]
_NOBODY = 65534
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def begun(place: Path, program: str, example: str) -> "subprocess.Popen[bytes]":
    """Start nginx as a user without rights, with an example as what its `http` block holds."""
    places = "".join(f"{name}_temp_path {place}/{name};" for name in _TEMPORARY)
    file = place / "nginx.conf"
    before = f"daemon off; pid {place}/nginx.pid; error_log stderr; events {{}}"
    file.write_text(f"{before} http {{ access_log off; {places} {example} }}")
    user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [shutil.copy(program, place), "-p", str(place), "-e", "stderr", "-c", str(file)]
    with (place / "log").open("w") as log:
        return subprocess.Popen(command, stderr=log, **user)


class Proxied:
    """A daemon, and nginx in front of it as the example has it; only addresses and files are the test's own."""

    def __init__(
        self, daemon: DaemonProcess, place: Path, program: str, *, has_key: bool = True, read_timeout: str = "1h"
    ) -> None:
        [example] = re.findall(r"```nginx\n(.*?)```", DOCS, re.DOTALL)
        certificate, key = make_pair(place)
        for file in (certificate, key):
            file.chmod(0o644)  # nginx is another user here
        self.port, behind = free_port(), daemon.http.removeprefix("http://")
        for theirs, ours in {
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "/etc/ssl/reels.example.pem": str(certificate),
            "/etc/ssl/private/reels.example.key": str(key),
            "127.0.0.1:8480": behind,
            "proxy_read_timeout 1h;": f"proxy_read_timeout {read_timeout};",
        }.items():
            assert example.count(theirs) == 1
            example = example.replace(theirs, ours)
        self.log = place / "log"
        self.child = begun(place, program, example)
        self._headers = {"authorization": f"Key {KeyRing(daemon.data_dir).add('alice')}"} if has_key else {}
        self._trust = ssl.create_default_context(cafile=str(certificate))
        self.daemon = daemon
        self.url = f"https://127.0.0.1:{self.port}/stillreel"
        self.client = self.client_at("127.0.0.1")
        wait_until(self._is_there, f"nginx answers; it said {self.log.read_text()}", 60)

    def client_at(self, address: str) -> httpx.Client:
        """Return a client that connects from this address of the loopback."""
        transport = httpx.HTTPTransport(verify=self._trust, local_address=address)
        return httpx.Client(transport=transport, headers=self._headers, timeout=60)

    def _is_there(self) -> bool:
        try:
            return self.client.get(f"{self.url}/livez").status_code == 200
        except httpx.TransportError:
            assert self.child.poll() is None, self.log.read_text()
            return False

    def close(self) -> None:
        self.client.close()
        self.child.terminate()
        self.child.wait()


@pytest.fixture(scope="module")
def program(require: Require) -> str:
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    require("nginx", found, "Debian: nginx-light")
    return str(found)


@contextlib.contextmanager
def proxying(directory: Path, program: str, **options: Any) -> Iterator[Proxied]:
    with everybodys_directory() as place, starting(directory) as start:
        daemon = start("--http", "127.0.0.1:0", "--allow-http", HTTP__TRUST_PROXY=True, ENGINE__WORKERS=1)
        proxied = Proxied(daemon, place, program, **options)
        try:
            yield proxied
        finally:
            proxied.close()


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[Proxied]:
    with proxying(tmp_path_factory.mktemp("proxied"), program) as proxied:
        yield proxied


def test_a_job_goes_through_from_upload_to_a_part_of_its_video(proxied: Proxied, gate: Gate) -> None:
    client = proxied.client
    sent = client.post(
        f"{proxied.url}/files/upload", content=picture((9, 9, 200)), headers={"x-fal-file-name": "a.ppm"}
    )
    still = sent.json()["access_url"]
    assert still.startswith(f"{proxied.url}/files/")
    body = {"images": [{"url": still, "frames": 3}, {"url": gate.url, "frames": 2}], "width": 64, "height": 48}
    accepted = client.post(f"{proxied.url}/queue/{ENDPOINT}", json=body).json()
    here = f"{proxied.url}/queue/{APP}/requests/{accepted['request_id']}"
    assert (accepted["response_url"], accepted["status_url"]) == (here, f"{here}/status")
    events = followed(client, accepted["status_url"], gate)
    assert events[-1]["status"] == "COMPLETED"
    video = client.get(accepted["response_url"]).json()["video"]
    assert video["url"].startswith(f"{proxied.url}/files/")
    whole = client.get(video["url"]).content
    assert len(whole) == video["file_size"]
    part = client.get(video["url"], headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{len(whole)}"


def followed(client: httpx.Client, url: str, gate: Gate) -> list[dict[str, Any]]:
    """Read a stream to its end; its first event must come while the job waits for the gate."""
    events = []
    with client.stream("GET", f"{url}/stream") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                if not events:
                    assert client.get(url).json()["status"] != "COMPLETED", "nginx has kept the events back"
                    gate.open()
                events.append(json.loads(line.removeprefix("data: ")))
    return events


def test_the_page_and_its_parts_are_below_the_prefix(proxied: Proxied) -> None:
    page = httpx.URL(f"{proxied.url}/")
    names = re.findall(r'(?:src|href)="([^"#:]+)"', proxied.client.get(page).text)
    assert len(names) > 1
    assert {proxied.client.get(page.join(name)).status_code for name in names} == {200}


def test_who_has_no_key_is_refused_under_the_address_that_nginx_has_seen(proxied: Proxied) -> None:
    claimed = {"authorization": "Key wrong", "x-forwarded-for": "203.0.113.9"}
    refused = proxied.client.post(f"{proxied.url}/run/{ENDPOINT}", json={}, headers=claimed)
    assert refused.status_code == 401
    said = [line for line in proxied.daemon.words().splitlines() if "a wrong API key" in line]
    assert said
    assert not [line for line in said if "203.0.113.9" in line]


def test_faults_pass_and_a_body_that_the_daemon_would_refuse_ends_at_nginx(proxied: Proxied) -> None:
    fault = proxied.client.post(f"{proxied.url}/run/{ENDPOINT}", json={"images": []})
    assert (fault.status_code, fault.json()["detail"][0]["loc"]) == (422, ["body", "images"])
    most = Settings().http.max_body_bytes
    assert f"client_max_body_size {most >> 20}m;" in DOCS
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as plain,
        context.wrap_socket(plain) as secure,
    ):
        head = f"POST /stillreel/run/{ENDPOINT} HTTP/1.1\r\nHost: reels.example\r\nContent-Length: {most + 1}\r\n\r\n"
        secure.sendall(head.encode())
        assert secure.recv(100).startswith(b"HTTP/1.1 413 ")


def test_without_keys_addresses_take_turns_and_silence_ends_a_run_but_no_stream(
    tmp_path: Path, program: str, gate: Gate
) -> None:
    # The daemon breaks its silence after 10 s, with a second between looks.
    with proxying(tmp_path, program, has_key=False, read_timeout="15s") as proxied:
        client, queue = proxied.client, f"{proxied.url}/queue/{ENDPOINT}"
        held = client.post(queue, json=gate.request()).json()
        wait_until(lambda: gate.fetched, "it has the only worker")
        for _ in range(3):
            waiting = client.post(queue, json=request()).json()
        assert client.get(waiting["status_url"]).json()["queue_position"] == 2
        with proxied.client_at("127.0.0.2") as other:
            first = other.post(queue, json=request(), headers={"x-forwarded-for": "127.0.0.1"}).json()
            assert other.get(first["status_url"]).json()["queue_position"] == 1
        with ThreadPoolExecutor(1) as threads, client.stream("GET", f"{held['status_url']}/stream") as stream:
            assert (
                threads.submit(client.post, f"{proxied.url}/run/{ENDPOINT}", json=request()).result().status_code == 504
            )
            gate.open()
            lines = [line for line in stream.iter_lines() if line]
        assert [line for line in lines if line.startswith(":")]
        assert json.loads(lines[-1].removeprefix("data: "))["status"] == "COMPLETED"


# Several daemons behind one address: the example of docs/several-daemons.md.


@contextlib.contextmanager
def front(place: Path, program: str, daemons: list[DaemonProcess]) -> Iterator[str]:
    """Run nginx in front of two daemons, and lend its url."""
    [example] = re.findall(r"```nginx\n(.*?)```", SEVERAL, re.DOTALL)
    port = free_port()
    ours = (f"listen 127.0.0.1:{port}", *(daemon.http.removeprefix("http://") for daemon in daemons))
    for theirs, our in zip(("listen 80", "10.0.0.11:8480", "10.0.0.12:8480"), ours, strict=True):
        assert example.count(theirs) == 1
        example = example.replace(theirs, our)
    child = begun(place, program, example)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url, child, place), "nginx answers", 60)
        yield url
    finally:
        child.terminate()
        child.wait()


def answers(url: str, child: "subprocess.Popen[bytes]", place: Path) -> bool:
    try:
        return httpx.get(f"{url}/livez").status_code == 200
    except httpx.TransportError:
        assert child.poll() is None, (place / "log").read_text()
        return False


def test_requests_about_a_job_reach_the_daemon_that_has_it(tmp_path: Path, program: str) -> None:
    key = tmp_path / "key"
    key.write_text("one-key-for-all-of-them-0123456789")
    key.chmod(0o600)
    told = {"HTTP__TRUST_PROXY": True, "HTTP__KEY_FILE": key, "ENGINE__WORKERS": 1}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(everybodys_directory())
        daemons = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            daemons.append(stack.enter_context(starting(tmp_path / name))("--http", "127.0.0.1:0", **told))
        url = stack.enter_context(front(place, program, daemons))
        client = stack.enter_context(httpx.Client(timeout=60, headers={"authorization": f"Key {key.read_text()}"}))

        def submitted(**headers: str) -> str:
            accepted = client.post(f"{url}/queue/{ENDPOINT}", json=request(), headers=headers).json()
            assert accepted["status_url"].startswith(url)
            assert client.get(accepted["status_url"]).status_code in {200, 202}
            return str(accepted["request_id"])

        named = [submitted(**{"x-fal-request-id": f"reel-{number}"}) for number in range(4)]
        assert named == [f"reel-{number}" for number in range(4)]
        ids = {*named, *(submitted() for _ in range(20)), submitted(**{"x-fal-request-id": named[0]})}
        assert len(ids) == 24
        kept = [{job for job in ids if status_at(client, daemon.http, job) != 404} for daemon in daemons]
        assert all(kept), "both have some"
        assert not kept[0] & kept[1]
        assert kept[0] | kept[1] == ids

        one, other = map(min, kept)
        for job in (one, other):
            wait_until(lambda job=job: status_at(client, url, job) == 200, f"{job} is done", 90)
            video = client.get(f"{url}/queue/{APP}/requests/{job}").json()["video"]
            assert len(httpx.get(video["url"]).content) == video["file_size"]
        daemons[0].child.kill()
        daemons[0].child.wait()
        assert (status_at(client, url, one), status_at(client, url, other)) == (502, 200)


def status_at(client: httpx.Client, url: str, job: str) -> int:
    return client.get(f"{url}/queue/{APP}/requests/{job}/status").status_code
