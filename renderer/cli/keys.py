"""The command `stillreel keys`: API keys for the HTTP door, CURVE keys for ZeroMQ, and a certificate for https here.

A running daemon notices at once when keys are added or removed.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from renderer import config
from renderer.cli import usage
from renderer.cli.usage import config_option, data_dir_option
from renderer.disk import absolute, put
from renderer.errors import ConfigError

if TYPE_CHECKING:
    from renderer.frontends.http.keys import KeyRing
    from renderer.frontends.zmq.curve import CurveRing

kind_option = click.option("--curve", "is_curve", is_flag=True, help="Use the CURVE keys instead of the API keys.")


@click.group(invoke_without_command=True, epilog=usage.KEYS)
@click.option("--tls", is_flag=True, help="Make a self-signed pair for localhost, 127.0.0.1, ::1.")
@data_dir_option
@config_option
@click.pass_context
def keys(context: click.Context, *, tls: bool, data_dir: Path | None, config_file: Path | None) -> None:
    """Add, list and remove keys, or make a certificate for https.

    API keys are for HTTP, CURVE keys for ZeroMQ. Once there is a key of a kind, every request of that kind needs one.
    The NAME of a key is its holder's, as it appears in logs; holders take turns. The certificate is for this machine.
    """
    if tls:
        from renderer.frontends.http.tls import make_pair  # noqa: PLC0415 - cryptography takes 50 ms

        certificate, key = make_pair(_directory(data_dir, config_file))
        click.echo(f"certificate: {certificate}\nkey: {key}")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())
        raise click.exceptions.Exit(usage.USAGE)


@keys.command(epilog=usage.KEYS)
@click.argument("name")
@data_dir_option
@config_option
def add(name: str, data_dir: Path | None, config_file: Path | None) -> None:
    """Make an API key and print it. It cannot be shown again, because only its hash is kept."""
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - the other commands stay quick

    click.echo(KeyRing(_directory(data_dir, config_file)).add(name))


@keys.command(epilog=usage.KEYS)
@click.argument("name")
@data_dir_option
@config_option
def curve(name: str, data_dir: Path | None, config_file: Path | None) -> None:
    """Make a CURVE key and write it to NAME.curve here. The daemon only keeps its public half.

    A running daemon accepts it at once. Only for the first key must the daemon be restarted, to require keys at all.
    """
    from renderer.frontends.zmq.curve import CurveRing  # noqa: PLC0415 - as above

    ring, file = CurveRing(_directory(data_dir, config_file)), Path(f"{name}.curve")
    was_made = ring.is_made
    if file.exists():
        raise ConfigError(f"{file} exists already; move it away first")
    made = ring.add(name)
    try:
        put(file, made.to_text().encode())
    except OSError as error:
        ring.remove(name)
        raise ConfigError(f"{file}: {error.strerror}") from error
    click.echo(file)
    if not was_made:
        click.echo("this is the first CURVE key: a daemon that is running must be restarted to require keys", err=True)


@keys.command(name="list", epilog=usage.KEYS)
@kind_option
@data_dir_option
@config_option
def list_(*, is_curve: bool, data_dir: Path | None, config_file: Path | None) -> None:
    """List the holders of keys, and when their keys were made."""
    for holder, made_at in _ring(data_dir, config_file, is_curve=is_curve).listed():
        click.echo(f"{holder}\t{made_at}")


@keys.command(epilog=usage.KEYS)
@click.argument("name")
@kind_option
@data_dir_option
@config_option
def remove(name: str, *, is_curve: bool, data_dir: Path | None, config_file: Path | None) -> None:
    """Remove a key, which becomes invalid at once."""
    _ring(data_dir, config_file, is_curve=is_curve).remove(name)


def _ring(data_dir: Path | None, config_file: Path | None, *, is_curve: bool) -> "CurveRing | KeyRing":
    if is_curve:
        from renderer.frontends.zmq.curve import CurveRing  # noqa: PLC0415 - as above

        return CurveRing(_directory(data_dir, config_file))
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - as above

    return KeyRing(_directory(data_dir, config_file))


def _directory(data_dir: Path | None, config_file: Path | None) -> Path:
    settings = config.load(config_file, flags={"server": {"data_dir": data_dir}})
    path = absolute(settings.server.data_dir, "server.data_dir")
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
    return path
