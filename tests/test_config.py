"""One tree of settings: defaults < TOML file < environment < flags."""

import math
from ipaddress import ip_network
from pathlib import Path

import pytest

from renderer.config import RenderSettings, Settings, load, render_settings
from renderer.errors import ConfigError
from tests.foreign_words import FOREIGN


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "stillreel.toml"
        path.write_text(text)
        return path

    return write


def test_without_sources_there_are_the_defaults() -> None:
    assert load(environment={}) == Settings()
    assert load(environment={}).server.bind == "tcp://127.0.0.1:5590"


def test_the_environment_is_the_processs_own_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLREEL_ENCODE__THREADS", "3")
    assert load().encode.threads == 3
    assert load(environment={}).encode.threads == 0


def test_each_source_beats_the_one_before_it(toml) -> None:
    file = toml("[limits]\nmax_images = 10\nmax_frames = 10\nmax_canvas_side = 10\n")
    environment = {"STILLREEL_LIMITS__MAX_FRAMES": "20", "STILLREEL_LIMITS__MAX_CANVAS_SIDE": "20"}
    flags = {"limits": {"max_canvas_side": 30, "max_images": None}}
    limits = load(file, environment, flags).limits
    assert (limits.max_images, limits.max_frames, limits.max_canvas_side) == (10, 20, 30)
    assert limits.max_duration_s == Settings().limits.max_duration_s


def test_a_list_of_directories_is_written_in_the_environment_as_path_is(toml) -> None:
    assert load(environment={"STILLREEL_FETCH__ALLOW_ROOTS": "/a:/b c"}).fetch.allow_roots == (Path("/a"), Path("/b c"))
    assert load(environment={"STILLREEL_FETCH__ALLOW_ROOTS": ""}).fetch.allow_roots == ()
    file = toml('[fetch]\nallow_roots = ["/a", "/b:c"]\n')
    assert load(file, {}).fetch.allow_roots == (Path("/a"), Path("/b:c"))


def test_networks_stand_between_commas_in_the_environment(toml) -> None:
    both = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert load(environment={"STILLREEL_FETCH__ALLOW_NETWORKS": " 10.1.0.0/16, fd00::/8,"}).fetch.allow_networks == both
    assert load(environment={"STILLREEL_FETCH__ALLOW_NETWORKS": ""}).fetch.allow_networks == ()
    assert load(toml('[fetch]\nallow_networks = ["10.1.0.0/16", "fd00::/8"]\n'), {}).fetch.allow_networks == both
    single = load(toml('[fetch]\nallow_networks = "10.1.2.3"\n'), {}).fetch.allow_networks
    assert single == (ip_network("10.1.2.3/32"),)


@pytest.mark.parametrize(
    "value",
    ["localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/8;11.0.0.0/8", "10.0.0/8", "0x0a.0.0.0/8", "fe80::1%eth0/64"],
)
def test_a_malformed_network_is_an_error_that_names_it(toml, value: str) -> None:
    file = toml(f'[fetch]\nallow_networks = ["10.0.0.0/8", "{value}"]\n')
    for path, environment in ((file, {}), (None, {"STILLREEL_FETCH__ALLOW_NETWORKS": f"10.0.0.0/8,{value}"})):
        with pytest.raises(ConfigError, match=r"^settings: fetch\.allow_networks: ") as raised:
            load(path, environment)
        assert value in str(raised.value)


@pytest.mark.parametrize(
    "value", ["[1]", "[true]", "true", "167772160", '[["10.0.0.0", 8]]', "[1.5]", '[""]', "{ a = 1 }"]
)
def test_networks_are_told_by_text(toml, value: str) -> None:
    """To ipaddress a number is an address too, and true is 0.0.0.1."""
    with pytest.raises(ConfigError, match=r"^settings: fetch\.allow_networks: "):
        load(toml(f"[fetch]\nallow_networks = {value}\n"), {})


def test_variables_of_others_are_left_alone() -> None:
    assert load(environment={"PATH": "/bin", "STILLREELS_ENCODE__THREADS": "3"}) == Settings()


def test_options_of_the_client_commands_are_no_settings() -> None:
    assert load(environment={"STILLREEL_CONNECT": "tcp://127.0.0.1:1", "STILLREEL_CURVE": "alice.curve"}) == Settings()


def test_what_kubernetes_tells_a_container_of_a_service_is_left_alone() -> None:
    told = {
        "STILLREEL_SERVICE_HOST": "10.0.0.7",
        "STILLREEL_SERVICE_PORT": "5590",
        "STILLREEL_SERVICE_PORT_ZMQ": "5590",
        "STILLREEL_PORT": "tcp://10.0.0.7:5590",
        "STILLREEL_PORT_5590_TCP": "tcp://10.0.0.7:5590",
        "STILLREEL_PORT_5590_TCP_ADDR": "10.0.0.7",
        "STILLREEL_HTTP_PORT": "tcp://10.0.0.8:8480",
    }
    assert load(environment=told) == Settings()
    with pytest.raises(ConfigError, match="STILLREEL_HTTP_PORT is not a setting"):
        load(environment={"STILLREEL_HTTP_PORT": "8480"})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("STILLREEL_WORKERS", "did you mean STILLREEL_ENGINE__WORKERS?"),
        ("STILLREEL_ENGINE_WORKERS", "did you mean STILLREEL_ENGINE__WORKERS?"),
        ("STILLREEL_ENGINE__WORKRES", "did you mean STILLREEL_ENGINE__WORKERS?"),
        ("STILLREEL_ENGIN__WORKERS", "did you mean STILLREEL_ENGINE__WORKERS?"),
        ("STILLREEL_LOG", "did you mean STILLREEL_OBSERVE__LOG_FORMAT?"),
        ("STILLREEL_CONECT", "did you mean STILLREEL_CONNECT?"),
        ("STILLREEL_FETCH", "the settings of that part are written STILLREEL_FETCH__NAME"),
        ("STILLREEL_HOME", "a setting is written STILLREEL_PART__NAME"),
        ("STILLREEL_", "a setting is written STILLREEL_PART__NAME"),
        ("STILLREEL_FETCH__HEADERS__X", "did you mean STILLREEL_FETCH__HEADERS?"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_may_be_meant(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(environment={name: "1"})
    assert str(raised.value) == f"environment: {name} is not a setting; {words}"


ANYTHING: list[object] = [
    *(None, True, "x", "", -1, 10**30, 1.5, math.nan, -1e300, b"\xff", "\0", "é" * 300),
    *([], [1], [None], [[1]], {}, {"a": {"b": 1}}),
]


def refusal(part: str, name: str, value: object) -> str:
    try:
        load(environment={}, flags={part: {name: value}})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("part", list(Settings.model_fields))
def test_whatever_stands_for_a_setting_is_refused_in_our_words(part: str) -> None:
    names = Settings.model_fields[part].annotation.model_fields
    told = [refusal(part, name, value) for name in names for value in ANYTHING]
    assert any(told)
    assert [words for words in told if FOREIGN.search(words) or "expected another value" in words] == []


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("fetch", "proxy", "http://me:secret@proxy/path"),
        ("fetch", "headers", {"a.example": {"Authorization": ["secret"]}}),
        ("fetch", "headers", {"a.example": "secret"}),
    ],
)
def test_what_may_be_a_secret_is_not_quoted(part: str, name: str, value: object) -> None:
    assert "secret" not in refusal(part, name, value)
    assert f"{part}.{name}" in refusal(part, name, value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nmax_imagse = 3\n", "limits.max_imagse: no such field; did you mean max_images?"),
        ("[limit]\nmax_images = 3\n", "limit: no such field; did you mean limits?"),
        ("max_images = 3\n", "max_images: no such field"),
        ("limits = 3\n", "limits: "),
        ("[limits]\nmax_images = 0\n", "limits.max_images: expected at least 1"),
        ("[limits]\nmax_images = 'many'\n", "limits.max_images: expected a whole number"),
        ("[limits]\nmax_images = 3\nmax_canvas_side = 16386\n", "limits.max_canvas_side: "),
        ("[encode]\nstall_timeout_s = 0\n", "encode.stall_timeout_s: expected more than 0"),
    ],
)
def test_an_unknown_key_or_a_bad_value_is_an_error_that_names_its_path(toml, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"^settings: ") as raised:
        load(toml(text), {})
    assert words in str(raised.value)


def test_every_fault_is_told() -> None:
    with pytest.raises(ConfigError) as raised:
        load(environment={"STILLREEL_LIMITS__MAX_IMAGES": "0", "STILLREEL_NO__THING": "1"})
    assert "limits.max_images: " in str(raised.value)
    assert "STILLREEL_NO__THING is not a setting" in str(raised.value)


def test_a_part_that_is_no_table_in_the_file_does_not_break_the_environments(toml) -> None:
    with pytest.raises(ConfigError, match="limits"):
        load(toml("limits = 3\n"), {"STILLREEL_LIMITS__MAX_IMAGES": "3"})


@pytest.mark.parametrize("text", ["[limits\n", "\x00"])
def test_a_file_that_is_no_toml_is_an_error_that_names_it(toml, text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"configuration file .*stillreel\.toml: expected TOML, found something else at"
    ):
        load(toml(text), {})


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "stillreel.toml"
    path.write_bytes(b"\xff\xfe[limits]")
    with pytest.raises(ConfigError, match="configuration file"):
        load(path, {})


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="configuration file"):
        load(tmp_path / "none.toml", {})


def test_a_worker_gets_what_rendering_needs() -> None:
    settings = load(environment={"STILLREEL_LIMITS__MAX_CANVAS_SIDE": "640", "STILLREEL_ENCODE__THREADS": "2"})
    assert render_settings(settings) == RenderSettings(encode=settings.encode, limits=settings.limits)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().encode.threads = 3  # type: ignore[misc]


def test_headers_by_host_are_kept_out_of_sight(toml) -> None:
    fetch = load(toml('[fetch.headers."Images.Example.com"]\nAuthorization = "Bearer secret"\n'), {}).fetch
    assert fetch.headers["images.example.com"]["Authorization"].get_secret_value() == "Bearer secret"
    assert "secret" not in repr(fetch)


@pytest.mark.parametrize("proxy", ["http://10.0.0.1:3128", "http://user:word@proxy:3128/", "environment"])
def test_a_proxy_is_an_http_url_or_the_environments(proxy: str) -> None:
    assert load(environment={"STILLREEL_FETCH__PROXY": proxy}).fetch.proxy == proxy


@pytest.mark.parametrize("proxy", ["proxy:3128", "socks5://proxy:1080", "http://proxy/path", "system"])
def test_another_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ConfigError, match=r"^settings: fetch\.proxy: "):
        load(environment={"STILLREEL_FETCH__PROXY": proxy})


def test_a_file_without_authorities_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ConfigError, match=r"^settings: fetch\.ca_file: expected a PEM file with certificates"):
        load(environment={"STILLREEL_FETCH__CA_FILE": str(tmp_path / "key.pem")})


def test_a_file_of_authorities_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^settings: fetch\.ca_file: .*expected a file that exists"):
        load(environment={"STILLREEL_FETCH__CA_FILE": str(tmp_path / "missing.pem")})


@pytest.mark.parametrize(
    ("slots", "found"), [("rai", "'rai'"), ("local,ray://nowhere", "'ray://nowhere'"), ("", "'nothing'")]
)
def test_places_for_jobs_that_are_unknown_are_one_fault(slots: str, found: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(environment={"STILLREEL_ENGINE__SLOTS": slots})
    assert str(refused.value) == f"settings: engine.slots: expected local, ray or ray://HOST:PORT, found {found}"
