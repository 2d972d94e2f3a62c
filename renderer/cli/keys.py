"""The command `stillreel keys`: API keys for the HTTP door, CURVE keys for ZeroMQ, and a certificate for https here.

A running daemon sees at once which keys there are.
"""

from pathlib import Path
from typing import Annotated

import typer

from renderer import config
from renderer.cli import usage
from renderer.disk import absolute, put
from renderer.errors import ConfigError

app = typer.Typer(
    name="keys", help="API keys for HTTP, CURVE keys for ZeroMQ, and a certificate for https on this machine."
)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the daemon keeps its files.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
IsCurve = Annotated[bool, typer.Option("--curve", help="CURVE keys in place of API keys.")]
Name = Annotated[str, typer.Argument(help="Who is to hold the key; for logs and for taking turns.")]


@app.callback(invoke_without_command=True, epilog=usage.KEYS)
def keys(
    context: typer.Context,
    tls: Annotated[bool, typer.Option("--tls", help="Make a self-signed pair for localhost, 127.0.0.1, ::1.")] = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Add, list and remove keys. Once there is an API key, every HTTP request needs one; CURVE keys likewise."""
    if tls:
        from renderer.frontends.http.tls import make_pair  # noqa: PLC0415 - cryptography takes 50 ms

        certificate, key = make_pair(_directory(data_dir, config_file))
        typer.echo(f"certificate: {certificate}\nkey: {key}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(usage.USAGE)


@app.command(epilog=usage.KEYS)
def add(name: Name, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - the other commands stay quick

    typer.echo(KeyRing(_directory(data_dir, config_file)).add(name))


@app.command(epilog=usage.KEYS)
def curve(name: Name, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a CURVE key and write it to NAME.curve here, once: the daemon keeps its public half only.

    A daemon that runs takes it at once, unless it is the first: the daemon must be started anew to ask for keys.
    """
    from renderer.frontends.zmq.curve import CurveRing  # noqa: PLC0415 - as above

    ring, file = CurveRing(_directory(data_dir, config_file)), Path(f"{name}.curve")
    was_made = ring.is_made
    if file.exists():
        raise ConfigError(f"{file} is here already; move it away first")
    keys = ring.add(name)
    try:
        put(file, keys.to_text().encode())
    except OSError as error:
        ring.remove(name)
        raise ConfigError(f"{file}: {error.strerror}") from error
    typer.echo(file)
    if not was_made:
        typer.echo("the first CURVE key: a daemon that runs must be started anew to ask for it", err=True)


@app.command(name="list", epilog=usage.KEYS)
def list_(is_curve: IsCurve = False, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Say who holds keys, and since when."""
    if is_curve:
        from renderer.frontends.zmq.curve import CurveRing  # noqa: PLC0415 - as above

        for holder, made_at in CurveRing(_directory(data_dir, config_file)).listed():
            typer.echo(f"{holder}\t{made_at}")
        return
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - as above

    for key in KeyRing(_directory(data_dir, config_file)).keys:
        typer.echo(f"{key.name}\t{key.made_at}")


@app.command(epilog=usage.KEYS)
def remove(name: Name, is_curve: IsCurve = False, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a key worthless, at once."""
    if is_curve:
        from renderer.frontends.zmq.curve import CurveRing  # noqa: PLC0415 - as above

        CurveRing(_directory(data_dir, config_file)).remove(name)
        return
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - as above

    KeyRing(_directory(data_dir, config_file)).remove(name)


def _directory(data_dir: Path | None, config_file: Path | None) -> Path:
    settings = config.load(config_file, flags={"server": {"data_dir": data_dir}})
    path = absolute(settings.server.data_dir, "server.data_dir")
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
    return path
