"""What the commands share: some options, the words for a wrong value of an option, and the exit codes.

Exit codes mean the same everywhere; a line of each command's help names those that it can end with.
"""

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where the daemon keeps its files.")]


def in_our_words(error: typer.BadParameter) -> str:
    """Return what is wrong with an option's value."""
    if error.__cause__ is None:
        return error.message
    from pydantic import BaseModel, ValidationError  # noqa: PLC0415 - what has checked it is imported by then

    from protocol.words import wrongs_in  # noqa: PLC0415 - as above

    cause = error.__cause__
    return "; ".join(map(str, wrongs_in(cause, BaseModel))) if isinstance(cause, ValidationError) else error.message


DONE, FAILED, USAGE, UNREACHABLE, TRY_AGAIN = range(5)
STOPPED = 130  # the code that shells use when Ctrl-C has ended something

_USAGE = f"{USAGE} usage or configuration"
_STOPPED = f"{STOPPED} stopped by Ctrl-C"
_TRY_AGAIN = f"{TRY_AGAIN} try again later"

SERVE = f"Exit codes: {DONE} it was told to stop and has, {FAILED} a part of it failed, {_USAGE}."
RENDER = f"Exit codes: {DONE} done, {FAILED} the job failed, {_USAGE}, {_TRY_AGAIN}, {_STOPPED}."
BATCH = (
    f"Exit codes: {DONE} all is rendered, {FAILED} some could not be or there was nothing, {_USAGE}, "
    f"{STOPPED} stopped by Ctrl-C or SIGTERM."
)
CLIENT = (
    f"Exit codes: {DONE} done, {FAILED} the job failed or the daemon refused, {_USAGE}, "
    f"{UNREACHABLE} no daemon answers, {_TRY_AGAIN}, {_STOPPED}."
)
HEALTH = (
    f"Exit codes: {DONE} it would take a job, {FAILED} the daemon refused, {_USAGE}, "
    f"{UNREACHABLE} no daemon answers, {TRY_AGAIN} it would take none now."
)
DOCTOR = f"Exit codes: {DONE} all that is needed works, {FAILED} something does not, {_USAGE}."
KEYS = f"Exit codes: {DONE} done, {_USAGE}."
STORE = f"Exit codes: {DONE} done, {FAILED} it failed or left something alone, {_USAGE}."
STORE_CHECK = f"Exit codes: {DONE} all is there, {FAILED} something is missing or belongs to no job, {_USAGE}."
ALL = (
    f"Exit codes: {DONE} done, {FAILED} the job failed, {_USAGE}, {UNREACHABLE} no daemon answers, {_TRY_AGAIN}, "
    f"{_STOPPED}; the help of a command says which of them it has."
)
