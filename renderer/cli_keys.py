"""The command `stillreel keys`: API keys for the HTTP door, and a self-signed certificate for https on this machine.

A running daemon sees at once which keys there are. Exit codes: 0 done, 2 usage or configuration.
"""

from pathlib import Path
from typing import Annotated

import typer

from renderer import config
from renderer.errors import ConfigError

app = typer.Typer(help="API keys for the HTTP door, and a certificate for https on this machine.")

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the daemon keeps its files.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
Name = Annotated[str, typer.Argument(help="Who is to hold the key; for logs and for taking turns.")]


@app.callback(invoke_without_command=True)
def keys(
    context: typer.Context,
    tls: Annotated[bool, typer.Option("--tls", help="Make a self-signed pair for localhost, 127.0.0.1, ::1.")] = False,
    data_dir: DataDir = None,
    config_file: ConfigFile = None,
) -> None:
    """Add, list and remove API keys. Once there is one, every request needs one."""
    if tls:
        from renderer.frontends.http.tls import make_pair  # noqa: PLC0415 - cryptography takes 50 ms

        certificate, key = make_pair(_directory(data_dir, config_file))
        typer.echo(f"certificate: {certificate}\nkey: {key}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command()
def add(name: Name, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a key and print it, once: only its hash is kept."""
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - the other commands stay quick

    typer.echo(KeyRing(_directory(data_dir, config_file)).add(name))


@app.command(name="list")
def list_(data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Say who holds keys, and since when."""
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - as above

    for key in KeyRing(_directory(data_dir, config_file)).keys:
        typer.echo(f"{key.name}\t{key.made_at}")


@app.command()
def remove(name: Name, data_dir: DataDir = None, config_file: ConfigFile = None) -> None:
    """Make a key worthless."""
    from renderer.frontends.http.keys import KeyRing  # noqa: PLC0415 - as above

    KeyRing(_directory(data_dir, config_file)).remove(name)


def _directory(data_dir: Path | None, config_file: Path | None) -> Path:
    settings = config.load(config_file, flags={"server": {"data_dir": data_dir}})
    path = settings.server.data_dir.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"server.data_dir: {path}: {error.strerror}") from error
    return path
