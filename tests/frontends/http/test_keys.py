"""Who gets in: keys, hosts, origins, and what a daemon refuses to begin with."""

import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from protocol.errors import RemoteError
from renderer.config import HttpSettings
from renderer.errors import ConfigError
from renderer.frontends.http.keys import KeyRing
from renderer.frontends.http.links import address_of, links
from renderer.frontends.http.server import Listeners
from renderer.frontends.http.tls import make_pair
from tests.cli_process import run
from tests.daemon_process import DaemonProcess, Start, request, starting, wait_until
from tests.foreign_words import FOREIGN
from tests.served import APP, QUEUE, RUN, Served

Pair = tuple[Path, Path]

OPEN = ["/livez", "/readyz", "/.well-known/jwks.json", "/openapi.json"]
CLOSED = ["/metrics", "/api/jobs", "/api/events", "/api/doctor", "/api/health", f"/queue/{APP}/requests/x/status"]


def keys(data_dir: Path, *arguments: str) -> str:
    done = run("keys", *arguments, "--data-dir", data_dir, cwd=data_dir.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that wants a key, behind a proxy that ends TLS."""
    place = tmp_path_factory.mktemp("keyed")
    KeyRing(place / "data").add("first")
    with starting(place) as start:
        yield start("--http", "0.0.0.0:0", HTTP__TRUST_PROXY="true")


@pytest.fixture
def http(keyed: DaemonProcess) -> Iterator[httpx.Client]:
    """A client of it that brings no key."""
    with httpx.Client(base_url=f"http://127.0.0.1:{keyed.http.rpartition(':')[2]}", timeout=60) as client:
        yield client


def test_a_key_is_kept_as_a_hash_that_only_its_owner_may_read(tmp_path: Path) -> None:
    secret = KeyRing(tmp_path).add("alice")
    [file] = tmp_path.iterdir()
    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ring = KeyRing(tmp_path)
    assert ring.name_of(secret) == "alice"
    assert ring.name_of(secret[:-1]) is None
    assert ring.name_of("") is None


def test_a_key_ring_that_cannot_be_read_keeps_its_keys(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    secret = ring.add("alice")
    (tmp_path / "keys.json").write_text("{")
    assert ring.name_of(secret) == "alice"
    with pytest.raises(ConfigError, match="API keys"):
        KeyRing(tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "x" * 65])
def test_a_name_that_is_none_gets_no_key(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="expected a name"):
        KeyRing(tmp_path).add(name)


def test_a_key_may_come_in_a_file_and_stays_there(tmp_path: Path) -> None:
    file, secret = tmp_path / "secret", "k" * 32
    file.write_text(f"{secret}\n")
    ring = KeyRing(tmp_path, file)
    mine = ring.add("alice")
    assert [ring.name_of(given) for given in (secret, mine, "k" * 31)] == ["key_file", "alice", None]
    assert [key.name for key in KeyRing(tmp_path).keys] == ["alice"]
    KeyRing(tmp_path).add("bob")
    assert [key.name for key in ring.keys] == ["alice", "bob", "key_file"]


@pytest.mark.parametrize("content", [b"k" * 31, b"", b"two words that are long enough to be a key", "ä".encode() * 40])
def test_a_key_that_could_be_guessed_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^http\.key_file: .*secret: expected "):
        KeyRing(tmp_path, tmp_path / "secret")


def test_a_key_file_that_is_missing_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^http\.key_file: .*secret: No such file or directory$"):
        KeyRing(tmp_path, tmp_path / "secret")


def test_a_key_is_needed_from_the_moment_there_is_one(start: Start) -> None:
    daemon = start("--http", "127.0.0.1:0")
    with httpx.Client(base_url=daemon.http, timeout=60) as client:
        assert client.get("/api/jobs", headers={"authorization": "Key any"}).status_code == 200
        secret = keys(daemon.data_dir, "add", "alice")
        for path in CLOSED:
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Key"
            assert refused.json()["error_type"] == "unauthorized"
        assert [client.get(path).status_code for path in OPEN] == [200] * len(OPEN)
        for wrong in ("Key", f"Key {secret}x", f"Basic {secret}", secret, "Key \xff"):
            assert client.get("/api/jobs", headers={"authorization": wrong.encode("latin-1")}).status_code == 401
        for right in (f"Key {secret}", f"Bearer {secret}", f"key {secret}"):
            assert client.get("/api/jobs", headers={"authorization": right}).status_code == 200
        for why in ("no", "a wrong"):
            assert daemon.words().count(f"refused 127.0.0.1: it sent {why} API key") == 1
        assert secret not in daemon.words()
        made = client.post(RUN, json=request(), headers={"authorization": f"Key {secret}"}).json()
        assert client.get(made["video"]["url"]).status_code == 200  # the name is the key
        keys(daemon.data_dir, "remove", "alice")
        keys(daemon.data_dir, "add", "bob")
        assert client.get("/api/jobs", headers={"authorization": f"Key {secret}"}).status_code == 401
        assert keys(daemon.data_dir, "list").startswith("bob\t")


def test_keys_see_and_cancel_their_own_jobs_only(keyed: DaemonProcess, http: httpx.Client) -> None:
    secrets = [KeyRing(keyed.data_dir).add(name) for name in ("alice", "bob")]
    hers, his = ({"authorization": f"Key {secret}", "x-fal-request-id": "same"} for secret in secrets)
    made = [http.post(RUN, json=request(crf=crf), headers=who) for crf, who in enumerate((hers, his))]
    assert [answer.headers["x-fal-request-id"] for answer in made] == ["same", "same"]
    assert made[0].json()["video"]["url"] != made[1].json()["video"]["url"]
    sent = http.post(QUEUE, json=request(), headers={**hers, "x-fal-request-id": "hers"}).json()
    assert sent["request_id"] == "hers"
    assert http.get(sent["status_url"], headers=hers).status_code in {200, 202}
    place = f"/queue/{APP}/requests"
    for name in ("hers", "key.alice~hers"):
        assert http.get(f"{place}/{name}/status", headers=his).status_code == 404
        assert http.get(f"{place}/{name}/status/stream", headers=his).status_code == 404
        assert http.get(f"{place}/{name}", headers=his).status_code == 404
        assert http.put(f"{place}/{name}/cancel", headers=his).status_code == 404
        with pytest.raises(RemoteError, match="no job has this id"):
            keyed.client.status(name)
    ids = {who: http.get("/api/jobs", headers=key).json()["jobs"] for who, key in (("her", hers), ("him", his))}
    assert {job["request_id"] for job in ids["her"]} == {"hers", "same"}
    assert {job["request_id"] for job in ids["him"]} == {"same"}
    assert keyed.client.jobs() == []


def test_a_url_that_is_nearly_that_of_anothers_file_leads_nowhere(keyed: DaemonProcess, http: httpx.Client) -> None:
    """A url is as good as a key to its file, so nothing but the whole of it may do."""
    hers, his = ({"authorization": f"Key {KeyRing(keyed.data_dir).add(name)}"} for name in ("frieda", "gustav"))
    made = http.post(RUN, json=request(), headers=hers).json()["video"]["url"]
    upload = http.post("/files/upload", content=b"x", headers=hers).json()["access_url"]
    token = made.split("/")[-2]
    job, mac = token.rsplit(".", 1)
    wrong = [
        made.replace(mac, mac[::-1]),
        made.replace(f".{mac}", ""),
        made.replace(token, upload.split("/")[-2][:-1]),
        upload.replace("/files/", "/files/upload/"),
        made.replace(token, f"{token}%00"),
        "cid:0",
        *(f"{kind}{keyed.data_dir}/outputs/{job}/video.mp4" for kind in ("", "file://")),
        f"{keyed.data_dir}/uploads/{upload.split('/')[-2]}",
    ]
    for url in wrong:
        for app, field in (
            ("metadata", "media_url"),
            ("extract-frame", "video_url"),
            ("merge-audio-video", "video_url"),
        ):
            body = {field: url, "audio_url": "data:,"}
            answer = http.post(f"/run/{APP}/{app}", json=body, headers=his)
            assert answer.status_code == 422, url
            assert (answer.json()["detail"][0]["loc"], answer.json()["detail"][0]["type"]) == (
                ["body", field],
                "file_download_error",
            )
    assert http.post(f"/run/{APP}/metadata", json={"media_url": made}, headers=his).status_code == 200


def test_an_upload_token_lets_its_holder_upload_and_nothing_else(keyed: DaemonProcess, http: httpx.Client) -> None:
    secret = KeyRing(keyed.data_dir).add("carol")
    token = http.post("/storage/auth/token", headers={"authorization": f"Key {secret}"}).json()
    bearer = {"authorization": f"{token['token_type']} {token['token']}"}
    assert http.post("/files/upload", content=b"x", headers=bearer).status_code == 200
    assert http.get("/api/jobs", headers=bearer).status_code == 401
    forged = {"authorization": bearer["authorization"].replace("carol", "first")}
    assert http.post("/files/upload", content=b"x", headers=forged).status_code == 401
    assert http.post("/files/upload", content=b"x").status_code == 401
    KeyRing(keyed.data_dir).remove("carol")
    upload = lambda: http.post("/files/upload", content=b"x", headers=bearer)  # noqa: E731 - reads better here
    wait_until(lambda: upload().status_code == 401, "she is gone")


# Without a key: this machine only, and no page of a stranger's.


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a b", "x:y", "[::1"])
def test_a_host_that_is_not_this_machine_is_refused(served: Served, host: str) -> None:
    assert served.http.get("/livez", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:99", "[::1]:8480", "a.localhost", "fal.run", "QUEUE.fal.run"])
def test_a_host_that_is_this_machine_is_taken(served: Served, host: str) -> None:
    assert served.http.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example", "file://"])
def test_a_page_of_a_strangers_may_not_ask(served: Served, origin: str) -> None:
    refused = served.http.post(QUEUE, content=json.dumps(request()), headers={"origin": origin})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers


def test_a_page_of_this_machine_may_ask(served: Served) -> None:
    origin = {"origin": "http://localhost:3000"}
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-fal-queue-priority,x-evil",
    }
    preflight = served.http.options(QUEUE, headers={**origin, **asked})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type, x-fal-queue-priority"
    assert served.http.options("/api/fal/proxy", headers={**origin, **asked}).status_code == 204
    answer = served.http.post(QUEUE, json=request(), headers=origin)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert "x-fal-request-id" in answer.headers["access-control-expose-headers"]


def test_where_a_key_is_needed_any_page_may_ask(keyed: DaemonProcess, http: httpx.Client) -> None:
    secret = KeyRing(keyed.data_dir).add("dora")
    headers = {"origin": "https://app.example", "host": "render.example"}
    preflight = http.options(QUEUE, headers={**headers, "access-control-request-method": "POST"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert http.get("/api/jobs", headers=headers).status_code == 401
    allowed = http.get("/api/jobs", headers={**headers, "authorization": f"Key {secret}"})
    assert allowed.status_code == 200


# What a daemon refuses to begin with.


def refusal(start: Start, *arguments: str | Path, **settings: object) -> str:
    with pytest.raises(AssertionError, match="the daemon did not start") as refused:
        start(*arguments, **settings)
    return str(refused.value)


def refused_ports(data_dir: Path, **settings: object) -> str:
    """What a daemon would refuse to begin with, without the second that it takes to begin."""
    with pytest.raises(ConfigError) as refused:
        Listeners(HttpSettings.model_validate(settings), data_dir, has_keys=False)
    return str(refused.value)


def test_an_address_that_others_reach_needs_a_key_and_tls(start: Start, tmp_path: Path, tls_pair: Pair) -> None:
    certificate, key = tls_pair
    pair = ("--tls-cert", certificate, "--tls-key", key)
    assert "http.tls_bind: 0.0.0.0:0 is open to other machines; make a key" in refusal(
        start, "--https", "0.0.0.0:0", *pair
    )
    secret = KeyRing(tmp_path / "data").add("alice")
    assert "http.bind: 0.0.0.0:0 is open to other machines without TLS" in refusal(start, "--http", "0.0.0.0:0")
    daemon = start("--https", "0.0.0.0:0", *pair)
    url = f"https://127.0.0.1:{daemon.https.rpartition(':')[2]}/api/jobs"
    trust = ssl.create_default_context(cafile=str(certificate))
    assert httpx.get(url, verify=trust).status_code == 401
    assert httpx.get(url, verify=trust, headers={"authorization": f"Key {secret}"}).status_code == 200
    (daemon.data_dir / "keys.json").unlink()  # no key is no open door
    assert httpx.get(url, verify=trust).status_code == 401


def test_behind_a_proxy_that_ends_tls_plain_http_will_do(keyed: DaemonProcess, http: httpx.Client) -> None:
    headers = {
        "authorization": f"Key {KeyRing(keyed.data_dir).add('erin')}",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "render.example",
        "x-forwarded-prefix": "/stills",
    }
    answer = http.post(QUEUE, json=request(), headers=headers).json()
    assert answer["status_url"].startswith(f"https://render.example/stills/queue/{APP}/requests/")


def test_forwarded_headers_are_not_believed_unasked(served: Served) -> None:
    headers = {"x-forwarded-proto": "https", "x-forwarded-host": "evil.example"}
    answer = served.http.post(QUEUE, json=request(), headers=headers).json()
    assert answer["status_url"].startswith(served.daemon.http)


FORWARDED = [
    (["198.51.100.4"], "198.51.100.4"),
    (["10.0.0.1, 198.51.100.4"], "198.51.100.4"),
    (["10.0.0.1", "198.51.100.4"], "198.51.100.4"),
    (["2001:db8::7"], "2001:db8::7"),
    (["198.51.100.4, "], "127.0.0.1"),
    (["198.51.100.4, somebody"], "127.0.0.1"),
    ([], "127.0.0.1"),
]


@pytest.mark.parametrize(("values", "client"), FORWARDED)
def test_only_what_the_proxy_itself_has_added_says_who_the_client_is(values: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in values]
    assert address_of("127.0.0.1", headers, HttpSettings(trust_proxy=True)) == client
    assert address_of("127.0.0.1", headers, HttpSettings()) == "127.0.0.1"


def test_a_refusal_names_the_client_behind_the_proxy(keyed: DaemonProcess, http: httpx.Client) -> None:
    headers = {"x-forwarded-for": "203.0.113.9, 198.51.100.4"}
    assert http.get("/api/jobs", headers=headers).status_code == 401
    wait_until(lambda: "198.51.100.4" in keyed.words(), "the log names the client")
    assert "203.0.113.9" not in keyed.words()


def test_links_begin_with_the_public_url_if_there_is_one() -> None:
    here = links("http", {"host": "x"}, HttpSettings(public_url="https://render.example/a/"))
    assert here.file("t", "a b.mp4") == "https://render.example/a/files/t/a%20b.mp4"
    assert here.request("i/d")["status_url"] == f"https://render.example/a/queue/{APP}/requests/i%2Fd/status"


def test_a_port_that_is_taken_is_told_by_its_setting(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"http.bind: {address}: Address already in use" in refusal(start, "--http", address)


@pytest.mark.parametrize("address", ["8480", "nowhere:1", "127.0.0.1:", "127.0.0.1:99999", "127.0.0.1:-1", "::1:80"])
def test_an_address_that_is_none_is_told_by_its_setting(tmp_path: Path, address: str) -> None:
    assert refused_ports(tmp_path, bind=address).startswith("http.bind: ")


def test_a_bad_certificate_is_told_by_its_setting(start: Start, tmp_path: Path, tls_pair: Pair) -> None:
    certificate, key = tls_pair
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    assert "http.tls_cert" in refusal(start, "--https", "127.0.0.1:0", "--tls-cert", bad, "--tls-key", key)
    here = {"tls_bind": "127.0.0.1:0", "tls_cert": certificate}
    assert "http.tls_key" in refused_ports(tmp_path, **here, tls_key=bad)
    assert "http.tls_key" in refused_ports(tmp_path, **here, tls_key="gone.pem")
    assert "expected both or none" in refused_ports(tmp_path, **here)
    assert "stillreel keys --tls" in refused_ports(tmp_path, tls_bind="127.0.0.1:0")


def test_what_openssl_finds_wrong_with_a_pair_is_told_in_our_words(tmp_path: Path, tls_pair: Pair) -> None:
    certificate, key = tls_pair
    _, other = make_pair(tmp_path)
    torn = tmp_path / "torn.pem"
    torn.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for tls_cert, tls_key, words in (
        (certificate, other, "the key is not that of the certificate"),
        (torn, key, "expected a certificate and its key in PEM, found one that cannot be read"),
        (key, key, f"http.tls_cert: {key}: expected a certificate in PEM, found none"),
        (certificate, certificate, f"http.tls_key: {certificate}: expected a private key in PEM, found none"),
    ):
        told = refused_ports(tmp_path, tls_bind="127.0.0.1:0", tls_cert=tls_cert, tls_key=tls_key)
        assert told.endswith(words)
        assert not FOREIGN.search(told)


def test_keys_tls_makes_the_pair_that_https_takes(start: Start, tmp_path: Path) -> None:
    said = keys(tmp_path / "data", "--tls")
    certificate = Path(said.splitlines()[0].removeprefix("certificate: "))
    daemon = start("--https", "127.0.0.1:0")
    trust = ssl.create_default_context(cafile=str(certificate))
    assert httpx.get(f"{daemon.https}/livez", verify=trust).json() == {"live": True}


def test_without_the_option_no_port_is_open(start: Start) -> None:
    daemon = start()
    assert daemon.http == daemon.https == ""
