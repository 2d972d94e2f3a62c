"""How commands refuse an option's value, and the exit codes that they leave with.

An option's value is refused in our words: typer passes on those of pydantic, which checks it. Exit codes mean the same
everywhere; a line of each command's help names those that it can leave with.
"""

from typing import Any

import typer
from pydantic import BaseModel, ValidationError
from typer.core import TyperGroup

from protocol.words import wrongs_in


class Commands(TyperGroup):
    """The commands, and those of the groups among them."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; the values of its options are checked on the way."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            if isinstance(error.__cause__, ValidationError):
                error.message = "; ".join(map(str, wrongs_in(error.__cause__, BaseModel)))
            raise


DONE, FAILED, USAGE, UNREACHABLE, TRY_AGAIN = range(5)
STOPPED = 130  # as shells say that Ctrl-C has ended something

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
