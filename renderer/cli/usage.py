"""What the commands share: some options, and the exit codes.

Exit codes mean the same everywhere; a line of each command's help names those that it can end with.
"""

from pathlib import Path

import click

# The type of a path; whether there is something, and what, is said in each command's own words.
PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON on stdout.")
config_option = click.option("--config", "config_file", type=PATH, help="TOML file with settings.")
slots_option = click.option(
    "--slots",
    multiple=True,
    metavar="local|ray[://HOST:PORT]",
    help="Where jobs run: local, as by default, or on a Ray cluster; both if it is repeated.",
)
data_dir_option = click.option("--data-dir", type=PATH, help="Where the daemon keeps its files.")

DONE, FAILED, USAGE, UNREACHABLE, TRY_AGAIN = range(5)
STOPPED = 130  # the code that shells use when Ctrl-C has ended something

_USAGE = f"{USAGE} usage or configuration"
_WRONG = f"{USAGE} usage or configuration, or a wrong request"
_STOPPED = f"{STOPPED} stopped by Ctrl-C"
_TRY_AGAIN = f"{TRY_AGAIN} try again later"

SERVE = f"Exit codes: {DONE} it was told to stop and has, {FAILED} a part of it failed, {_USAGE}."
RENDER = f"Exit codes: {DONE} done, {FAILED} the job failed, {_WRONG}, {_TRY_AGAIN}, {_STOPPED}."
BATCH = (
    f"Exit codes: {DONE} all is rendered, {FAILED} some cannot be or there was nothing, {_USAGE}, "
    f"{TRY_AGAIN} some were not, and may be if it is run again, {STOPPED} stopped by Ctrl-C or SIGTERM."
)
CLIENT = (
    f"Exit codes: {DONE} done, {FAILED} the job failed or is not known, {_WRONG}, "
    f"{UNREACHABLE} no daemon answers, {_TRY_AGAIN}, {_STOPPED}."
)
HEALTH = (
    f"Exit codes: {DONE} it would take a job, {FAILED} the daemon refused, {_USAGE}, "
    f"{UNREACHABLE} no daemon answers, {TRY_AGAIN} it would take none now."
)
DOCTOR = f"Exit codes: {DONE} all that is needed works, {FAILED} something does not, {_USAGE}."
KEYS = f"Exit codes: {DONE} done, {_USAGE}."
RAY_NODE = f"Exit codes: {DONE} it was told to stop and has, {FAILED} Ray failed, {_USAGE}."
STORE = f"Exit codes: {DONE} done, {FAILED} it failed or left something alone, {_USAGE}."
STORE_CHECK = f"Exit codes: {DONE} all is there, {FAILED} something is missing or belongs to no job, {_USAGE}."
ALL = (
    f"Exit codes: {DONE} done, {FAILED} the job failed, {_WRONG}, {UNREACHABLE} no daemon answers, {_TRY_AGAIN}, "
    f"{_STOPPED}; the help of a command says which of them it has."
)
