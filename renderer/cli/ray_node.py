"""The command `stillreel ray-node`: this machine offers slots to daemons that run their jobs on a Ray cluster.

It becomes `ray start --block`, with what the encoders of this machine allow as Ray's resources. Ray listens on all
addresses and runs what it is sent, so strangers must be kept out by its token, which all machines of a cluster share.
"""

import importlib.util
import json
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from protocol.errors import counted
from renderer import config
from renderer.cli import usage
from renderer.cli.usage import PATH, config_option
from renderer.errors import ConfigError
from renderer.version import VERSION

_OBJECT_STORE_BYTES = 80 * config.MEBIBYTE  # Ray's least is 75; neither pictures nor videos go through it
_OF_WORKERS = range(10002, 20000)  # min_worker_port and max_worker_port of `ray start`
_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@click.command("ray-node", epilog=usage.RAY_NODE)
@click.option("--address", metavar="HOST:PORT", help="Head of the cluster to join; else begin one as its head.")
@click.option("--port", type=click.IntRange(1, 65535), default=6379, metavar="PORT", help="Where a head listens.")
@click.option(
    "--slots",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="How many jobs to render here at the same time; else engine.workers.",
)
@click.option("--name", help="What daemons call this node; else the machine's name.")
@click.option("--temp-dir", type=PATH, metavar="DIR", help="Where a head has Ray keep its logs and sockets.")
@config_option
def ray_node(
    *,
    address: str | None,
    port: int,
    slots: int | None,
    name: str | None,
    temp_dir: Path | None,
    config_file: Path | None,
) -> None:
    """Offer slots on this machine to daemons with `--slots ray`, until SIGTERM. All nodes need the same token."""
    from renderer.encode.nvenc.findings import with_gpus_tested  # noqa: PLC0415 - the help of all commands stays quick
    from renderer.jobs.slots.remote import RESOURCES, VERSION_LABEL  # noqa: PLC0415 - as above

    if importlib.util.find_spec("ray") is None:
        raise ConfigError("Ray is not installed; pip install 'stillreel[ray]'")
    if address is not None:
        _require_address(address)
    settings, gpus = with_gpus_tested(config.load(config_file))
    count = settings.engine.workers if slots is None else slots
    encoder = "libx264" if gpus.refusal else "nvenc"
    resource = RESOURCES[encoder]
    if gpus.candidates:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(device.uuid for device in gpus.candidates)
    _require_token(is_head=address is None)
    if address is None:
        _require_free(port)
    else:
        _require_head(address)
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would come on top of engine.worker_nice
    place = ["--head", f"--port={port}", "--include-dashboard=false", "--no-monitor"]
    if temp_dir is not None:
        place.append(f"--temp-dir={temp_dir.absolute()}")
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
        *(place if address is None else [f"--address={address}"]),
        f"--node-name={name or socket.gethostname()}",
        f"--labels={VERSION_LABEL}={VERSION}",
        f"--resources={json.dumps({resource: count} if count else {})}",
        f"--num-cpus={max(1, count)}",  # as many processes does Ray keep for the next task
        f"--num-gpus={len(gpus.candidates)}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        *("--disable-usage-stats", "--include-log-monitor=false"),
    ]
    offer = f"{name or socket.gethostname()} offers {counted(count, 'slot')}, encoder {encoder}, "
    joining = f"to the cluster at {address}" if address else f"and begins a cluster at port {port}"
    others = "" if address else f"; others join with `stillreel ray-node --address HOST:{port}` and the same token"
    click.echo(f"{offer}{joining}{others}. What follows is written by Ray.")
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - an argument list, and no shell


def _require_address(address: str) -> None:
    try:
        parts = urlsplit(f"//{address}")
        is_address = bool(parts.hostname and parts.port) and parts.netloc == address and "@" not in address
    except ValueError:  # a bracket that is not closed, or no port from 0 to 65535
        is_address = False
    if not is_address:
        raise ConfigError(f"--address: expected HOST:PORT, found {address!r}")


def _require_head(address: str) -> None:
    """Look for the head before Ray does, which waits for a minute and ends with a traceback."""
    from renderer.jobs.slots.ray_driver import Unusable, look  # noqa: PLC0415 - it imports Ray

    try:
        look(address, "node")
    except Unusable as error:
        raise ConfigError(f"--address: {error}") from error


def _require_free(port: int) -> None:
    if port in _OF_WORKERS:
        words = f"expected a port below {_OF_WORKERS.start} or above {_OF_WORKERS.stop - 1}, found {port}"
        raise ConfigError(f"--port: {words}; Ray gives those between to its processes")
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        words = f"port {port} is taken; use --port, or join the head there with --address"
        raise ConfigError(words) from error


def _require_token(*, is_head: bool) -> None:
    """Have Ray let in only those who have the token; a head makes one unless there is one.

    Raises:
        ConfigError: no token was found, or the environment switches tokens off.
    """
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise ConfigError(f"RAY_AUTH_MODE: expected token, found {mode!r}; Ray would run what anybody sends it")
    file = Path.home() / ".ray" / "auth_token"
    if any(os.environ.get(variable) for variable in _TOKEN):
        return
    if file.exists():
        if (mode_bits := file.stat().st_mode & 0o777) & 0o077:
            raise ConfigError(f"{file}: expected mode 0600, readable to you only, found {mode_bits:04o}")
        return
    if not is_head:
        raise ConfigError(
            f"the cluster's token is missing; copy the head's {file} to the same place, readable to you only"
        )
    import secrets  # noqa: PLC0415 - few need it

    file.parent.mkdir(mode=0o700, exist_ok=True)
    with open(file, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as token:
        token.write(secrets.token_hex(32))
