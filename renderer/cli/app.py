"""The command line: its commands by name, and the exit code for an error.

A command's module is imported when the command is run or its help is shown, so `--version` and the commands that ask a
daemon do not wait for the import of what renders.
"""

import importlib
import logging
import os
import sys
from typing import Any, Final, NoReturn

import click

from protocol.errors import WRONG_REQUESTS, BadCurveFile, BadEndpoint, ClientError, KeyRefused, RemoteError, Unreachable
from renderer.cli import usage
from renderer.cli.usage import FAILED, STOPPED, TRY_AGAIN, UNREACHABLE, USAGE
from renderer.errors import ConfigError, DecodeTimedOut, StillreelError
from renderer.observe import logs
from renderer.version import VERSION

# Each module has the command under its name, with an underscore for a hyphen.
_MODULES: Final = {
    "serve": "renderer.cli.serve",
    "render": "renderer.cli.render",
    "batch": "renderer.cli.batch",
    "ray-node": "renderer.cli.ray_node",
    "submit": "renderer.cli.submit",
    "status": "renderer.cli.client",
    "result": "renderer.cli.client",
    "cancel": "renderer.cli.client",
    "logs": "renderer.cli.client",
    "retry": "renderer.cli.client",
    "jobs": "renderer.cli.client",
    "health": "renderer.cli.health",
    "doctor": "renderer.cli.serve",
    "keys": "renderer.cli.keys",
    "store": "renderer.cli.store",
}

# Stills are processed in parallel, so threads within the libraries would only slow each other down. NumPy's OpenBLAS,
# which nothing here uses, starts one for each core when it is imported: two seconds of processor time on 16 cores.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OPENCV_FOR_THREADS_NUM": "1"}

# pydantic looks for plugins in every distribution that is installed.
_NO_PLUGINS = {"PYDANTIC_DISABLE_PLUGINS": "__all__"}


class Commands(click.Group):
    """All commands; a command's module is imported when it is first asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands, in the order of the help."""
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """Return a command by its name, or None."""
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(importlib.import_module(_MODULES[cmd_name]), cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C ends it with a shell's code for that."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(STOPPED) from None


@click.command(
    cls=Commands,
    epilog=usage.ALL,
    invoke_without_command=True,
    context_settings={"show_default": True, "max_content_width": 120},
)
@click.option("--version", is_flag=True, help="Print the version and exit.")
@click.option("--verbose", "-v", count=True, show_default=False, help="Log more; twice for everything.")
@click.pass_context
def app(context: click.Context, *, version: bool, verbose: int) -> None:
    """Stills into an MP4, exactly."""
    levels = (logging.WARNING, logging.INFO, logging.DEBUG)
    logs.configure(levels[min(verbose, 2)])
    if version:
        click.echo(f"stillreel {VERSION}")
        context.exit()
    if context.invoked_subcommand is None:
        raise click.exceptions.NoArgsIsHelpError(context)


def main() -> None:
    """Run the command line and end with one of the exit codes."""
    _open_standard_files()
    for variable, value in {**_SINGLE_THREADED, **_NO_PLUGINS}.items():
        os.environ.setdefault(variable, value)  # read when the libraries are imported, here and in workers
    try:
        app()
    except (StillreelError, RemoteError, ClientError) as error:
        _fail(error)


def _open_standard_files() -> None:
    """Open what is closed of stdin, stdout and stderr, so that no pipe of ours gets one of their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _fail(error: Exception) -> NoReturn:
    from renderer.cli import terminal  # noqa: PLC0415 - brings pydantic in, which `--version` does not need

    option = "--connect: " if isinstance(error, BadEndpoint) else "--curve: " if isinstance(error, BadCurveFile) else ""
    hint = "; start a daemon with: stillreel serve" if isinstance(error, Unreachable) else ""
    terminal.show_error(f"{option}{error}{hint}")
    if isinstance(error, DecodeTimedOut):  # an orderly exit would wait for the thread that hangs
        sys.stdout.flush()
        os._exit(_exit_code(error))
    sys.exit(_exit_code(error))


def _exit_code(error: Exception) -> int:
    if isinstance(error, ConfigError | BadEndpoint | BadCurveFile | KeyRefused):
        return USAGE
    if isinstance(error, Unreachable):
        return UNREACHABLE
    kind, may_succeed = "", False
    if isinstance(error, RemoteError):
        kind, may_succeed = error.kind.name, error.retryable
    elif isinstance(error, StillreelError):
        kind, may_succeed = error.kind, error.fault().retryable
    return TRY_AGAIN if may_succeed else USAGE if kind in WRONG_REQUESTS else FAILED
