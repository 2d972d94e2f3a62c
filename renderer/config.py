"""The settings: one tree, filled from defaults < TOML file < environment < flags.

Every component gets its own frozen part and never sees the tree. The TOML tables have the names of the parts; the
environment spells a setting STILLREEL_PART__NAME. An unknown key is an error that names its path, because a
misspelt limit that is silently ignored limits nothing.

A variable of the environment that begins with STILLREEL_ and is not a setting is refused too, and the message names the
setting that may have been meant.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from protocol.endpoint import DEFAULT_ENDPOINT, checked_endpoint
from protocol.objects import checked_prefix
from protocol.words import wrongs_in
from renderer.errors import ConfigError
from renderer.work import NvencFindings

_PREFIX: Final = "STILLREEL_"

# Options of the client commands and of the benchmarks, which are not settings.
_OPTIONS: Final = ("STILLREEL_CONNECT", "STILLREEL_CURVE", "STILLREEL_BENCHMARK_CACHE")

# Kubernetes gives every container such variables about a service that is called stillreel or stillreel-http.
_OF_A_CLUSTER: Final = re.compile(r"STILLREEL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_PORT_OF_A_CLUSTER: Final = re.compile(r"STILLREEL_(\w+_)?PORT=(tcp|udp|sctp)://.*")

Names = Mapping[str, tuple[str, str]]
"""For each variable, the part and the name of its setting."""


def given_in(environment: Mapping[str, str], names: Names) -> dict[str, dict[str, str]]:
    """Return the settings that the environment has, by part and name."""
    tree: dict[str, dict[str, str]] = {}
    for typed, value in environment.items():
        if typed.startswith(_PREFIX) and typed.upper() in names:
            part, name = names[typed.upper()]
            tree.setdefault(part, {})[name] = value
    return tree


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for every variable that begins as stillreel's do and is not one of them."""
    names = _names()
    return [
        f"environment: {typed} is not a setting; {_meant_by(typed.upper(), names)}"
        for typed, value in environment.items()
        if typed.startswith(_PREFIX)
        and typed.upper() not in names
        and typed not in _OPTIONS
        and not _OF_A_CLUSTER.fullmatch(typed)
        and not _PORT_OF_A_CLUSTER.fullmatch(f"{typed}={value}")
    ]


def _meant_by(typed: str, names: Names) -> str:
    """Say what a variable may mean: a setting without its part, begun, or one that is spelt like it."""
    word = typed.removeprefix(_PREFIX)
    bare = [known for known, (_, name) in names.items() if name.upper() == word]
    begun = [known for known, (_, name) in names.items() if name.upper().startswith(f"{word}_")]
    if word.lower() in {part for part, _ in names.values()}:
        return f"the settings of that part are written {typed}__NAME"
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    spelt = get_close_matches(word, [known.removeprefix(_PREFIX) for known in (*names, *_OPTIONS)], n=1, cutoff=0.75)
    likely = bare or [_PREFIX + each for each in spelt] or begun
    return f"did you mean {likely[0]}?" if likely else "a setting is written STILLREEL_PART__NAME"


_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)$")
MEBIBYTE = 1024 * 1024


def _split_paths(value: object) -> object:
    """In the environment a list of directories is written as PATH is."""
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _split_words(value: object) -> object:
    """In the environment a list of words is written with commas."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _read_networks(value: object) -> object:
    """Split a text at commas. Every network has to be text: ipaddress would read `true` as 0.0.0.1."""
    found = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    return tuple(map(_read_network, found)) if isinstance(found, list | tuple) else found


def _read_network(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        return ip_network(value.strip() if isinstance(value, str) else "")
    except ValueError as error:
        raise ValueError(f"expected a network such as '10.1.0.0/16', found {value!r}{_network_of(value)}") from error


def _network_of(value: object) -> str:
    """Return the addition for an address that is written where its network was meant, such as 10.1.2.3/16."""
    try:
        return f"; did you mean {ip_network(value, strict=False)}?" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _hosts_in_lower_case(value: object) -> object:
    return {str(host).lower(): headers for host, headers in value.items()} if isinstance(value, dict) else value


def _authorities(path: Path | None) -> Path | None:
    if path is None:
        return None
    if not os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where a name is too long
        raise ValueError(f"expected a file that exists, found {str(path)!r}")
    import ssl  # noqa: PLC0415 - few name such a file

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # an SSLError is one
        raise ValueError(f"expected a PEM file with certificates, found something else in {str(path)!r}") from error
    return path


ObjectPrefixes = Annotated[tuple[Annotated[str, AfterValidator(checked_prefix)], ...], BeforeValidator(_split_words)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # for when it is first used


class ServerSettings(_Part):
    """Where the daemon listens and keeps its files."""

    bind: Annotated[str, AfterValidator(checked_endpoint)] = Field(
        DEFAULT_ENDPOINT, description="asks for CURVE keys once some are made, unless it is ipc"
    )
    local: Annotated[str, AfterValidator(checked_endpoint)] | None = Field(
        None, description="one more endpoint, loopback or ipc, that never asks for keys"
    )
    data_dir: Path = Path("~/.local/share/stillreel")
    max_request_bytes: int = Field(512 * MEBIBYTE, ge=1024, description="one message with its attachments")
    drain_timeout_s: float = Field(60, gt=0, description="seconds that running jobs get to end after SIGTERM")


class RequestLimits(_Part):
    """What one request may ask for; checked before work starts."""

    max_images: int = Field(10_000, ge=1)
    max_frames: int = Field(1_000_000, ge=1)
    max_duration_s: float = Field(6 * 3600, gt=0)
    max_canvas_side: int = Field(8192, ge=2, le=16384, description="libx264 ends at 16384")


class FetchSettings(_Part):
    """Which sources may be read, and how much of each."""

    allow_roots: Annotated[tuple[Path, ...], BeforeValidator(_split_paths)] = ()
    allow_http: bool = Field(True, description="http(s) urls at public addresses; false: none at all")
    allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_read_networks)] = Field(
        (), description="networks such as 10.1.0.0/16 that http(s) urls may reach though they are not public"
    )
    allow_objects: ObjectPrefixes = Field(
        (), description="buckets such as s3://reels, or prefixes such as s3://reels/stills, whose objects may be read"
    )
    max_image_bytes: int = Field(50 * MEBIBYTE, ge=1, description="the hosted service's limit")
    max_audio_bytes: int = Field(256 * MEBIBYTE, ge=1, description="of one sound")
    max_video_bytes: int = Field(512 * MEBIBYTE, ge=1, description="of one video")
    download_timeout_s: float = Field(60, gt=0, description="for one image, sound or video, redirects included")
    download_attempts: int = Field(
        3, ge=1, le=10, description="of one image or sound, where a server does not answer or says to come again"
    )
    max_redirects: int = Field(5, ge=0)
    headers: Annotated[dict[str, dict[str, SecretStr]], BeforeValidator(_hosts_in_lower_case)] = Field(
        default_factory=dict, description="further request headers by host, such as tokens; sent to that host only"
    )
    proxy: str | None = Field(
        None,
        pattern=r"^(environment|http://[^\s/?#]+/?)$",
        description="http://HOST:PORT for all http(s) urls; `environment`: as HTTPS_PROXY and its kin say",
    )
    ca_file: Annotated[Path | None, AfterValidator(_authorities)] = Field(
        None, description="PEM with authorities that are trusted beside the system's"
    )


class PictureSettings(_Part):
    """How stills are prepared."""

    max_image_pixels: int = Field(200_000_000, ge=1)
    decoding_threads: int = Field(0, ge=0, le=64, description="0: one per core, four at most")
    decode_timeout_s: float = Field(
        20, gt=0, description="for one image, or one packet of a sound or a video; a decoder that takes longer hangs"
    )
    look_ahead: int = Field(0, ge=0, description="stills ready ahead of the encoder; 0: two per decoding thread")


class EncodeSettings(_Part):
    """How the encoder's child process is run."""

    ffmpeg: str | None = Field(None, description="path of an ffmpeg with libx264; else the one imageio-ffmpeg ships")
    stall_timeout_s: float = Field(
        60, gt=0, description="seconds without a byte moving or any work before ffmpeg is given up"
    )
    probe_timeout_s: float = Field(20, gt=0, description="for the encoding that is tried when a daemon starts")
    threads: int = Field(0, ge=0, description="x264 threads; 0: its own choice")
    hold_pictures: bool = Field(True, description="false: every frame of a hold is encoded")
    hold_pictures_refusal: str = Field("the settings say so", description="the reason that results give for that")


class NvencSettings(_Part):
    """How the encoders of GPUs are found, shared and left alone."""

    probe_timeout_s: float = Field(30, gt=0, description="for one device; a driver that wakes up takes seconds")
    cache_dir: Path | None = Field(
        None, description="directory for what the probe has found; else below XDG_CACHE_HOME or ~/.cache"
    )
    state_dir: Path | None = Field(
        None,
        description="directory with sessions in use and devices that failed; processes that share it count together",
    )
    sessions_per_device: int = Field(0, ge=0, le=64, description="0: as many as the driver opens")
    session_timeout_s: float = Field(10, ge=0, description="seconds that a job waits for a session")
    keep_session_s: float = Field(
        2, ge=0, description="seconds that a session waits for the next job of the same shape"
    )
    stall_timeout_s: float = Field(60, gt=0, description="a device that takes longer for a picture is left alone")
    retry_after_s: float = Field(
        60, gt=0, description="seconds that a device which failed is left alone; longer after each further failure"
    )
    hold_pictures: bool = Field(True, description="false: a GPU encodes every frame of a hold")
    hold_pictures_refusal: str = Field("the settings say so", description="the reason that results give for that")


class OutputSettings(_Part):
    """Videos that requests want in object storage; see docs/objects.md."""

    allow_objects: ObjectPrefixes = Field(
        (), description="buckets such as s3://reels, or prefixes such as s3://reels/videos, which they may be put into"
    )
    put_timeout_s: float = Field(600, gt=0, description="for putting one video")
    presign_s: int = Field(
        0, ge=0, le=7 * 86400, description="seconds that the url in an answer opens the video for everybody; 0: s3://"
    )


def _places(slots: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [word for word in slots if not re.fullmatch(r"local|ray(://[^\s/]+:\d{1,5})?", word)]
    if unknown or not slots:
        raise ValueError(f"expected local, ray or ray://HOST:PORT, found {unknown[0] if unknown else 'nothing'!r}")
    return slots


class EngineSettings(_Part):
    """How many jobs wait and run, and for how long."""

    workers: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 1) // 2), ge=1)
    slots: Annotated[tuple[str, ...], BeforeValidator(_split_words), AfterValidator(_places)] = Field(
        ("local",), description="local: `workers` processes; ray[://HOST:PORT]: a cluster; or both"
    )
    max_queued: int = Field(1000, ge=0)
    max_queued_per_key: int = Field(0, ge=0, description="jobs of one key that may wait; 0: as many as of others")
    max_pixels_per_key: int = Field(0, ge=0, description="stills' pixels, at the video's size, a minute; 0: no limit")
    min_free_bytes: int = Field(64 * MEBIBYTE, ge=0, description="on the outputs' disk; below, no job is taken")
    job_timeout_s: float = Field(3600, gt=0)
    worker_memory_bytes: int = Field(4096 * MEBIBYTE, ge=256 * MEBIBYTE)
    worker_nice: int = Field(5, ge=0, le=19, description="how far workers and encoders give way to the daemon")
    worker_file_bytes: int = Field(
        64 * 1024 * MEBIBYTE, ge=MEBIBYTE, description="the largest file that a worker may write, such as a video"
    )
    confine_workers: bool = Field(
        True, description="a daemon's workers reach only the files that jobs need, where the kernel has Landlock"
    )
    overwrite_memory: bool = Field(
        True, description="workers overwrite what they free, so that no decoder can show one picture in another's place"
    )
    progress_timeout_s: float = Field(300, gt=0, description="seconds without progress or work before a job is stopped")
    attempts: int = Field(3, ge=1, description="times a job is begun before a dying worker fails it")
    retry_pause_s: float = Field(1, ge=0, description="before the second attempt; four times as long before the third")


class RetentionSettings(_Part):
    """How long the daemon keeps what finished jobs leave; whichever limit is reached first removes the oldest."""

    results_s: float = Field(7 * 86400, gt=0, description="answers, with their logs")
    results: int = Field(100_000, ge=1, description="answers kept at most")
    outputs_s: float = Field(7 * 86400, gt=0, description="videos; those of the manifest directory are never removed")
    outputs_bytes: int = Field(100 * 1024 * MEBIBYTE, ge=1, description="videos kept at most, in bytes")
    stills_bytes: int = Field(2048 * MEBIBYTE, ge=0, description="coded stills kept for later jobs at most; 0: none")
    uploads_s: float = Field(86400, gt=0, description="files that clients have uploaded over http")
    uploads_bytes: int = Field(10 * 1024 * MEBIBYTE, ge=1, description="uploads kept at most, in bytes; then refused")


class SpoolSettings(_Part):
    """The manifest directory."""

    directory: Path | None = Field(None, description="holds incoming, active, done and failed; absent: no such door")
    lease_s: float = Field(
        30, gt=0, description="seconds without a sign of life from its owner after which a claim is taken over"
    )
    rescan_s: float = Field(5, gt=0, description="between looks at the whole directory, should a notice be lost")
    max_manifest_bytes: int = Field(64 * MEBIBYTE, ge=1024)
    max_claims: int = Field(0, ge=0, description="manifests claimed at once; 0: two per worker")


class HttpSettings(_Part):
    """The door that speaks the hosted service's contract, and has the page."""

    bind: str | None = Field(None, description="HOST:PORT for plain http; absent: none")
    tls_bind: str | None = Field(None, description="HOST:PORT for https; absent: none")
    tls_cert: Path | None = Field(None, description="PEM; absent: the pair that `stillreel keys --tls` has made")
    tls_key: Path | None = None
    key_file: Path | None = Field(None, description="one API key more, in a file such as a secret of a container's")
    public_url: str | None = Field(None, pattern=r"^https?://[^\s?#]+$", description="how clients reach this door")
    trust_proxy: bool = Field(False, description="a proxy ends TLS in front: its X-Forwarded headers are believed")
    allow_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_words)] = Field(
        ("fal.run", "queue.fal.run", "rest.fal.ai", "v3.fal.media"),
        description="Host headers taken beside loopback's where no key is needed; the hosted service's names",
    )
    allow_origins: Annotated[tuple[str, ...], BeforeValidator(_split_words)] = Field(
        (), description="Origins of pages that may ask where no key is needed, beside those of this machine"
    )
    max_body_bytes: int = Field(256 * MEBIBYTE, ge=1024, description="one request")
    max_connections: int = Field(1000, ge=1)
    header_timeout_s: float = Field(10, gt=0, description="from a connection's first byte to the end of its headers")


class WebhookSettings(_Part):
    """Calls to a client's server when its job is done."""

    allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], BeforeValidator(_read_networks)] = Field(
        (), description="networks such as 10.1.0.0/16 that may be called though they are not public"
    )
    timeout_s: float = Field(15, gt=0, description="for one call")
    first_pause_s: float = Field(1, gt=0, description="before the second call; twice as long before each next")
    longest_pause_s: float = Field(3600, gt=0)
    give_up_s: float = Field(86400, gt=0, description="after the job's end")


class ObserveSettings(_Part):
    """What others may watch."""

    log_format: Literal["text", "json"] = "text"
    metrics: str | None = Field(None, description="loopback HOST:PORT for Prometheus; absent: none")


class Settings(_Part):
    """The whole tree; only `daemon` and the command line hold it."""

    server: ServerSettings = Field(default_factory=ServerSettings)
    limits: RequestLimits = Field(default_factory=RequestLimits)
    fetch: FetchSettings = Field(default_factory=FetchSettings)
    pictures: PictureSettings = Field(default_factory=PictureSettings)
    encode: EncodeSettings = Field(default_factory=EncodeSettings)
    nvenc: NvencSettings = Field(default_factory=NvencSettings)
    outputs: OutputSettings = Field(default_factory=OutputSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    spool: SpoolSettings = Field(default_factory=SpoolSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    webhooks: WebhookSettings = Field(default_factory=WebhookSettings)
    observe: ObserveSettings = Field(default_factory=ObserveSettings)


class RenderSettings(_Part):
    """What rendering one job needs; small enough to be sent to a worker.

    Attributes:
        gpus: what the probe has found; None: the process that renders looks for itself.
    """

    fetch: FetchSettings = Field(default_factory=FetchSettings)
    pictures: PictureSettings = Field(default_factory=PictureSettings)
    encode: EncodeSettings = Field(default_factory=EncodeSettings)
    nvenc: NvencSettings = Field(default_factory=NvencSettings)
    outputs: OutputSettings = Field(default_factory=OutputSettings)
    limits: RequestLimits = Field(default_factory=RequestLimits)
    gpus: NvencFindings | None = None


def render_settings(settings: Settings, gpus: NvencFindings | None = None) -> RenderSettings:
    shared = {part: getattr(settings, part) for part in RenderSettings.model_fields if part != "gpus"}
    return RenderSettings(**shared, gpus=gpus)


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Merge the sources, the later winning, and check the whole.

    Args:
        file: TOML, or None for none.
        environment: os.environ unless given.
        flags: part -> name -> value; None values are flags that were not given.

    Raises:
        ConfigError: a file cannot be read, a key is unknown or a value is out of range; the message names the path.
    """
    variables = os.environ if environment is None else environment
    faults = unknown_variables(variables)
    tree: dict[str, Any] = {}
    _merge(tree, _read_toml(file) if file else {})
    _merge(tree, given_in(variables, _names()))
    _merge(tree, {part: {k: v for k, v in values.items() if v is not None} for part, values in (flags or {}).items()})
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        wrong = "; ".join(map(str, wrongs_in(error, Settings)))
        raise ConfigError("; ".join([*faults, f"settings: {wrong}"])) from error
    if faults:
        raise ConfigError("; ".join(faults))
    return settings


def _names() -> dict[str, tuple[str, str]]:
    """Return, for each variable, the part and the name of its setting."""
    parts = {part: getattr(field.annotation, "model_fields", {}) for part, field in Settings.model_fields.items()}
    return {f"{_PREFIX}{part}__{key}".upper(): (part, key) for part, keys in parts.items() for key in keys}


def _merge(tree: dict[str, Any], source: Mapping[str, Any]) -> None:
    for part, values in source.items():
        if not isinstance(values, Mapping):
            tree[part] = values  # for the check of the whole to refuse by name
        elif isinstance(tree.setdefault(part, {}), dict):
            tree[part].update(values)


def _read_toml(file: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 - many run without such a file

    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration file {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration file {file}: expected TOML, which is text in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))  # its words are its parser's; the content, which may be secret, stays unsaid
        at = f"line {place[1]}, column {place[2]}" if place else "its end"
        raise ConfigError(f"configuration file {file}: expected TOML, found something else at {at}") from error
